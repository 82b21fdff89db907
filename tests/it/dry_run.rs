//! `--dry-run` as its user sees it: the report of whole commands, on inputs that are right and on broken ones.

use crate::sandbox::{Ran, Sandbox};
use crate::tiny_models::tiny_gpt2;

const TEMPLATE: &str = "prompt_learning.model.task_templates=[{taskname: squad, prompt_template: \
    '<|VIRTUAL_PROMPT_0|>{context} {question} {answer}', total_virtual_tokens: 3, virtual_token_splits: [3], \
    truncate_field: null, answer_field: answer}]";

fn row(context: &str) -> String {
    format!(
        "{{\"taskname\": \"squad\", \"context\": \"{context}\", \"question\": \"q?\", \"answer\": \"a\"}}\n"
    )
}

/// A dry run over a tiny GPT-2 of 96 positions in `model`.
fn dry_run(sandbox: &Sandbox, more: &[&str]) -> Ran {
    let mut words = vec![
        "--dry-run",
        "ptune_path=ptune",
        "cluster_type=interactive",
        "stages=[prompt_learning]",
        "prompt_learning.model.language_model_path=model",
        "prompt_learning.model.data.train_ds=[rows.jsonl]",
        "prompt_learning.model.data.validation_ds=[]",
        "prompt_learning.model.global_batch_size=8",
        "prompt_learning.model.optim.sched.warmup_steps=1",
        "prompt_learning.model.optim.sched.constant_steps=0",
        TEMPLATE,
    ];
    words.extend(more);
    sandbox.ptune(&words)
}

/// The lines of the report that begin with one of these names.
fn lines<'a>(ran: &'a Ran, names: &[&str]) -> Vec<&'a str> {
    ran.stderr
        .lines()
        .filter(|line| {
            names
                .iter()
                .any(|name| line.get(7..).is_some_and(|rest| rest.starts_with(name)))
        })
        .collect()
}

#[test]
fn a_checkpoint_of_another_run_is_told_before_the_job_waits_in_a_queue() {
    let sandbox = Sandbox::new();
    tiny_gpt2(&sandbox.path("model"));
    sandbox.write("rows.jsonl", row("c").repeat(8));
    let common = [
        "prompt_learning.trainer.max_steps=2",
        "prompt_learning.trainer.devices=1",
    ];
    let look = |more: &[&str]| dry_run(&sandbox, &[&common, more].concat());
    assert!(lines(&look(&[]), &["resuming"]).is_empty());

    // The same command without the dry run.
    let mut words = vec![
        "stages=[prompt_learning]",
        "cluster_type=interactive",
        TEMPLATE,
    ];
    words.extend([
        "prompt_learning.model.language_model_path=model",
        "prompt_learning.model.data.train_ds=[rows.jsonl]",
        "prompt_learning.model.data.validation_ds=[]",
        "prompt_learning.model.global_batch_size=8",
        "prompt_learning.model.optim.sched.warmup_steps=1",
        "prompt_learning.model.optim.sched.constant_steps=0",
        "prompt_learning.trainer.accelerator=cpu",
        "prompt_learning.trainer.precision=32",
    ]);
    words.extend(common);
    sandbox.expect(&words, 0);

    let same = [
        "prompt_learning.trainer.accelerator=cpu",
        "prompt_learning.trainer.precision=32",
    ];
    let ran = look(&same);
    let line = lines(&ran, &["resuming"]);
    assert!(line[0].contains("all of the 2 steps"), "{}", ran.stderr);
    let ran = look(
        &[
            &same[..],
            &[
                "prompt_learning.model.optim.lr=0.5",
                "prompt_learning.model.seed=7",
            ],
        ]
        .concat(),
    );
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    for words in [
        "BAD  resuming",
        "`model.optim.lr`: ",
        "there, 0.5 here",
        "`model.seed`: 1234 there, 7 here",
    ] {
        assert!(
            ran.stderr.contains(words),
            "`{words}` is missing in\n{}",
            ran.stderr
        );
    }
    let ran = look(
        &[
            &same[..],
            &[
                "prompt_learning.model.seed=7",
                "prompt_learning.exp_manager.resume_if_exists=False",
            ],
        ]
        .concat(),
    );
    assert!(
        lines(&ran, &["resuming"])[0].contains("starts over"),
        "{}",
        ran.stderr
    );
}

#[test]
fn the_quickstart_is_in_order_and_its_report_can_be_read_in_ten_seconds() {
    let sandbox = Sandbox::new();
    let ran = sandbox.expect(
        &[
            "--config-name=quickstart",
            "--dry-run",
            "base_results_dir=results",
        ],
        0,
    );
    assert_eq!(ran.stderr, REPORT_OF_THE_QUICKSTART);
    assert!(ran.stdout.contains("worker evaluation"), "{}", ran.stdout);
    assert!(
        !ran.stdout.contains("tokenizer"),
        "standard output is scripts alone"
    );
    assert!(
        !sandbox
            .path("results/quickstart/prompt_learning/results/data")
            .exists(),
        "a dry run left rows behind"
    );
}

const REPORT_OF_THE_QUICKSTART: &str = "
prompt_learning: quickstart
  ok   paths             3 there
  ok   devices           1 node x 1 device = 1: tensor parallel 1 x pipeline parallel 1 x data parallel 1
  ok   batches           global 8 = micro 8 x accumulation 1 x data parallel 1
  ok   model             GPT-2, 5 layers, hidden size 128, 256 positions, 1.2 M parameters in f16
  ok   tokenizer         tokenizer.json, 1,024 tokens
  ok   training rows     800 rows, 800 kept; longest 127 of 256 tokens, mean 88
  ok   validation rows   120 rows, 120 kept; longest 122 of 256 tokens, mean 85
  ok   memory            about 0.13 GB: program 0.10, weights 0.00, trained 0.00, 8 rows of 127 tokens 0.03
  ok   steps             100 steps of 8 rows an epoch; 150 in all, 1.5 epochs
  ok   validation        every 50 steps, 3 times
  ok   writes            /sandbox/results/quickstart/prompt_learning/results/quickstart_prompt.nemo
                         /sandbox/results/quickstart/prompt_learning/results/metrics.jsonl
                         /sandbox/results/quickstart/prompt_learning/results/checkpoints

evaluation: quickstart_evaluation
  ok   paths             2 there, the others are written by prompt_learning
  ok   batches           32 rows at once
  ok   prompts           those of the training before
  ok   model             GPT-2, 5 layers, hidden size 128, 256 positions, 1.2 M parameters in f16
  ok   tokenizer         tokenizer.json, 1,024 tokens
  ok   test rows         200 rows, 200 kept; longest 134 of 232 tokens, mean 83
  ok   writes            /sandbox/results/quickstart/evaluation/results/metrics.json
                         /sandbox/results/quickstart/evaluation/results/predictions.txt

nothing was submitted; no problem was found
";

#[test]
fn rows_with_wrong_fields_are_told_with_their_lines() {
    let sandbox = Sandbox::new();
    tiny_gpt2(&sandbox.path("model"));
    let wrong = row("b").replace("question", "qestion");
    sandbox.write("rows.jsonl", row("a").repeat(8) + &wrong);
    let ran = dry_run(&sandbox, &[]);
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    assert_eq!(
        lines(&ran, &["training"]),
        ["  BAD  training rows     2 problems in the data"]
    );
    for part in [
        "rows.jsonl:9: no field `question`, which the template of `squad` asks for",
        "it has `qestion`: did you mean `question`?",
    ] {
        assert!(ran.stderr.contains(part), "no `{part}` in\n{}", ran.stderr);
    }
}

#[test]
fn rows_that_are_too_long_are_odd_with_places_and_none_left_is_a_problem() {
    let sandbox = Sandbox::new();
    tiny_gpt2(&sandbox.path("model"));
    let long = row(&"x".repeat(120));
    sandbox.write("rows.jsonl", row("a").repeat(8) + &long);
    let ran = dry_run(&sandbox, &[]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let found = lines(&ran, &["training", " "]).join("\n");
    assert!(found.contains("9 rows, 8 kept; longest "), "{found}");
    assert!(
        found.contains("  ODD                    1 left out, longer than `max_seq_length`"),
        "{found}"
    );
    assert!(found.contains("rows.jsonl:9"), "{found}");
    // Those that stay decide the number of steps.
    assert!(
        ran.stderr.contains("1 step of 8 rows an epoch; 4 in all"),
        "{}",
        ran.stderr
    );

    sandbox.write("rows.jsonl", &long);
    let ran = dry_run(&sandbox, &[]);
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("no row of the data can be used"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_tokenizer_of_another_model_is_told_by_the_first_token_without_embedding() {
    let sandbox = Sandbox::new();
    tiny_gpt2(&sandbox.path("model"));
    let mut tokenizer: serde_json::Value =
        serde_json::from_str(&sandbox.read("model/tokenizer.json")).unwrap();
    tokenizer["model"]["vocab"]["a"] = 9000.into();
    sandbox.write("model/tokenizer.json", tokenizer.to_string());
    sandbox.write("rows.jsonl", row("b").repeat(8));
    let ran = dry_run(&sandbox, &[]);
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    assert!(
        lines(&ran, &["tokenizer"])[0].contains("9,001 tokens, and the model has embeddings for"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr
            .contains("token `a` has the id 9000, and the model has embeddings for")
            && ran.stderr.contains("rows.jsonl:1"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_checkpoint_that_cannot_be_read_stops_before_its_rows() {
    let sandbox = Sandbox::new();
    tiny_gpt2(&sandbox.path("model"));
    sandbox.write("rows.jsonl", row("a").repeat(8));
    let weights = fs_err::read(sandbox.path("model/model.safetensors")).unwrap();
    sandbox.write("model/model.safetensors", &weights[..weights.len() / 2]);
    let ran = dry_run(&sandbox, &[]);
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    assert!(
        lines(&ran, &["model"])[0].starts_with("  BAD  model "),
        "{}",
        ran.stderr
    );
    assert_eq!(
        lines(&ran, &["rows"]),
        ["  -    rows              they need the model and its tokenizer"]
    );
    assert!(ran.stderr.contains("model.safetensors"), "{}", ran.stderr);
}

#[test]
fn problems_of_all_kinds_come_at_once() {
    let sandbox = Sandbox::new();
    tiny_gpt2(&sandbox.path("model"));
    sandbox.write("rows.jsonl", row("a").repeat(3));
    let ran = dry_run(
        &sandbox,
        &[
            "prompt_learning.model.data.validation_ds=[absent.jsonl]",
            "prompt_learning.model.optim.sched.warmup_steps=50",
            "+prompt_learning.model.restore_path=absent.nemo",
        ],
    );
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    for part in [
        "error: 3 problems would stop the jobs",
        "`prompt_learning.model.restore_path`: there is nothing at `absent.nemo`",
        "`prompt_learning.model.data.validation_ds`: there is nothing at `absent.jsonl`",
        "`prompt_learning.model.global_batch_size` 8 is more than the 3 rows to train on",
        "hint: prompt_learning.model.global_batch_size=3",
    ] {
        assert!(ran.stderr.contains(part), "no `{part}` in\n{}", ran.stderr);
    }
}

#[test]
fn rows_beyond_the_time_are_left_out_and_the_report_says_so() {
    let sandbox = Sandbox::new();
    tiny_gpt2(&sandbox.path("model"));
    sandbox.write("rows.jsonl", row("a").repeat(3000));
    let dry_run = |seconds: &str| {
        let words = [
            "--dry-run",
            "cluster_type=interactive",
            "stages=[prompt_learning]",
            "prompt_learning.model.language_model_path=model",
            "prompt_learning.model.data.train_ds=[rows.jsonl]",
            "prompt_learning.model.data.validation_ds=[]",
            TEMPLATE,
        ];
        let mut command = sandbox.command(&words);
        command.env("PTUNE_DRY_RUN_SECONDS", seconds);
        sandbox.ran(command.output().unwrap())
    };
    let ran = dry_run("0.000001");
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(
        lines(&ran, &["training"])[0]
            .contains("the first 1,024 of 3,000 rows in the time there was"),
        "{}",
        ran.stderr
    );
    let ran = dry_run("0");
    assert_eq!(
        lines(&ran, &["model"]),
        ["  -    model, rows       PTUNE_DRY_RUN_SECONDS is 0"]
    );
    assert_eq!(dry_run("soon").status, Some(2));
}
