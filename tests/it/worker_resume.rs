//! Going on with a training: what makes it the same run, what may change, and what happens when the disk is full.

use std::process::Stdio;

use crate::sandbox::Sandbox;
use crate::tiny_models::{tiny_gpt2, tiny_t5};
use crate::worker_train::{config, losses, metrics, train};

const LAST: &str = "a/results/checkpoints/last.safetensors";

#[test]
fn what_makes_another_run_is_refused_all_at_once_and_the_folder_stays_as_it_was() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    train(
        &sandbox,
        &config(&sandbox, &model, "a", &["trainer.max_steps=2"]),
        0,
    );
    let before = fs_err::read(sandbox.path(LAST)).unwrap();
    let refused = |changes: &[&str], told: &[&str]| {
        let changes = [&["trainer.max_steps=2"], changes].concat();
        let said = train(&sandbox, &config(&sandbox, &model, "a", &changes), 2).stderr;
        for words in told {
            assert!(said.contains(words), "`{words}` is missing in\n{said}");
        }
        assert!(before == fs_err::read(sandbox.path(LAST)).unwrap());
        said
    };
    let said = refused(
        &[
            "model.optim.lr=0.5",
            "model.global_batch_size=12",
            "model.seed=7",
        ],
        &[
            "a/results/checkpoints/last.safetensors",
            "it stands at step 2",
            "`model.optim.lr`: 0.02 there, 0.5 here",
            "`model.global_batch_size`: 8 there, 12 here",
            "`model.seed`: 1234 there, 7 here",
            "resume_if_exists=False",
            "trainer.resume_from_checkpoint=",
        ],
    );
    assert!(!said.contains("rows of"), "{said}");
    refused(
        &["model.optim.sched=null"],
        &["`model.optim.sched`: not set there, null here"],
    );
    refused(
        &["model.p_tuning.encoder_hidden=48"],
        &["`model.p_tuning.encoder_hidden`: 32 there, 48 here"],
    );
    refused(
        &["model.task_templates.0.truncate_field=question"],
        &["`model.task_templates[squad].truncate_field`: context there, question here"],
    );
    refused(
        &["model.virtual_prompt_style=prompt-tuning"],
        &["p-tuning there, prompt-tuning here"],
    );

    // One letter of one row, under the same name.
    let config = config(&sandbox, &model, "a", &["trainer.max_steps=2"]);
    let rows = sandbox.read("train.jsonl");
    sandbox.write("train.jsonl", rows.replace("row 7", "row 8"));
    let said = train(&sandbox, &config, 2).stderr;
    assert!(
        said.contains("rows of model.data.train_ds: 24 with hash"),
        "{said}"
    );
    // The same rows under another name are the same run.
    sandbox.write("moved.jsonl", &rows);
    let text = sandbox.read(&config).replace("train.jsonl", "moved.jsonl");
    sandbox.write(&config, text);
    train(&sandbox, &config, 0);

    // Another frozen model of the same shape.
    let weights = sandbox.path("gpt2/model.safetensors");
    let mut bytes = fs_err::read(&weights).unwrap();
    let end = bytes.len();
    for byte in &mut bytes[end / 4..] {
        *byte ^= 1;
    }
    fs_err::write(&weights, bytes).unwrap();
    let said = train(&sandbox, &config, 2).stderr;
    assert!(said.contains("frozen model: "), "{said}");
}

#[test]
fn a_finished_run_is_lengthened_with_a_word_and_equals_one_that_was_long_from_the_start() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    // Without a schedule the steps do not depend on how many are to come.
    let run = |results: &str, steps: usize| {
        let steps = format!("trainer.max_steps={steps}");
        let changes = [
            &steps,
            "model.optim.sched=null",
            "model.nemo_path=prompt.nemo",
        ];
        let said = train(&sandbox, &config(&sandbox, &model, results, &changes), 0).stderr;
        (said, fs_err::read(sandbox.path("prompt.nemo")).unwrap())
    };
    run("a", 5);
    let (said, lengthened) = run("a", 12);
    assert!(
        said.contains("resuming with another `trainer.max_steps`: 5 there, 12 here"),
        "{said}"
    );
    assert!(said.contains("resuming at step 5"), "{said}");
    assert_eq!(losses(&sandbox, "a").len(), 12);
    let (_, straight) = run("b", 12);
    assert!(
        lengthened == straight,
        "the lengthened run went another way"
    );
}

#[test]
fn another_folder_goes_on_from_a_state_with_other_settings_and_says_which() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    train(
        &sandbox,
        &config(&sandbox, &model, "a", &["trainer.max_steps=3"]),
        0,
    );
    let from = format!("trainer.resume_from_checkpoint={LAST}");
    let changes = [&from, "model.optim.lr=0.5", "trainer.max_steps=5"];
    let said = train(&sandbox, &config(&sandbox, &model, "b", &changes), 0).stderr;
    assert!(said.contains("starting at step 3"), "{said}");
    assert!(
        said.contains("`model.optim.lr`: 0.02 there, 0.5 here"),
        "{said}"
    );
    assert_eq!(losses(&sandbox, "b").len(), 2);
}

#[test]
fn starting_over_puts_the_old_checkpoints_aside() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    let changes = ["trainer.max_steps=2", "exp_manager.resume_if_exists=false"];
    train(&sandbox, &config(&sandbox, &model, "a", &changes), 0);
    let first = fs_err::read(sandbox.path(LAST)).unwrap();
    let said = train(&sandbox, &config(&sandbox, &model, "a", &changes), 0).stderr;
    assert!(
        said.contains("checkpoints of an earlier run went to"),
        "{said}"
    );
    let aside = sandbox.path("a/results/checkpoints/run_0/last.safetensors");
    assert!(first == fs_err::read(aside).unwrap());
    assert_eq!(losses(&sandbox, "a").len(), 2);
}

#[test]
fn the_number_of_threads_changes_no_byte_before_or_after_an_interruption() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    let mut changes = vec![
        "model.micro_batch_size=2",
        "model.optim.sched=null",
        "model.nemo_path=prompt.nemo",
    ];
    let run = |config: &str, threads: &str| {
        let mut command = sandbox.command(&["worker", "prompt_learning", "--config", config]);
        let ran = sandbox.ran(command.env("RAYON_NUM_THREADS", threads).output().unwrap());
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        fs_err::read(sandbox.path("prompt.nemo")).unwrap()
    };
    let whole = config(&sandbox, &model, "whole", &changes);
    let alone = run(&whole, "1");
    let parts = config(&sandbox, &model, "parts", &changes);
    changes.push("trainer.max_steps=5");
    let start = config(&sandbox, &model, "parts", &changes);
    run(&start, "3");
    // The first call of this name wrote the same file.
    assert_eq!(parts, start);
    changes.pop();
    let rest = config(&sandbox, &model, "parts", &changes);
    assert!(run(&rest, "2") == alone, "the threads changed the result");
}

#[test]
fn a_full_disk_is_told_keeps_the_last_checkpoint_and_the_run_goes_on_later() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    let short = [
        "trainer.max_steps=4",
        "trainer.val_check_interval=2",
        "model.optim.sched=null",
    ];
    train(&sandbox, &config(&sandbox, &model, "a", &short), 0);
    let before = fs_err::read(sandbox.path(LAST)).unwrap();
    let archive = fs_err::read(sandbox.path("a/results/prompt.nemo")).unwrap();
    assert!(before.len() > 9 * 1024, "{}", before.len());
    let long = [
        "trainer.max_steps=8",
        "trainer.val_check_interval=2",
        "model.optim.sched=null",
    ];
    let config = config(&sandbox, &model, "a", &long);
    // Files may have eight blocks of 1024 bytes: enough for the metrics, not for a checkpoint.
    let limited = std::process::Command::new("bash")
        .args([
            "-c",
            "ulimit -f 8 && exec \"$0\" worker prompt_learning --config \"$1\"",
        ])
        .args([env!("CARGO_BIN_EXE_ptune"), &config])
        .current_dir(sandbox.path(""))
        .env("XDG_STATE_HOME", sandbox.path("state"))
        .output()
        .unwrap();
    let ran = sandbox.ran(limited);
    assert_eq!(ran.status, Some(1), "{}", ran.stderr);
    for words in [
        "error: ",
        "checkpoint",
        "File too large",
        "best.safetensors",
    ] {
        assert!(
            ran.stderr.contains(words),
            "`{words}` is missing in\n{}",
            ran.stderr
        );
    }
    assert!(before == fs_err::read(sandbox.path(LAST)).unwrap());
    assert!(archive == fs_err::read(sandbox.path("a/results/prompt.nemo")).unwrap());
    let left: Vec<String> = fs_err::read_dir(sandbox.path("a/results/checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert_eq!(left, [""; 0], "half a checkpoint was left");

    let said = train(&sandbox, &config, 0).stderr;
    assert!(said.contains("resuming at step 4"), "{said}");
    let steps: Vec<u64> = metrics(&sandbox, "a")
        .iter()
        .filter(|line| line["loss"].is_number())
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (1..=8).collect::<Vec<_>>());
}

#[test]
fn every_optimizer_precision_and_style_goes_on_where_it_stopped_in_the_middle_of_a_pass() {
    let sandbox = Sandbox::new();
    let (gpt, t5) = (
        tiny_gpt2(&sandbox.path("gpt2")),
        tiny_t5(&sandbox.path("t5")),
    );
    let kinds: [(&str, &std::path::Path, &[&str]); 5] = [
        ("adafactor", &gpt, &["model.optim.name=adafactor"]),
        (
            "sgd",
            &t5,
            &["model.optim.name=sgd", "model.optim.momentum=0.9"],
        ),
        (
            "half",
            &gpt,
            &["trainer.precision=16", "model.native_amp_init_scale=1024"],
        ),
        (
            "prompts",
            &t5,
            &[
                "model.virtual_prompt_style=prompt-tuning",
                "model.prompt_tuning={new_prompt_init_methods: [vocab], new_prompt_init_text: [null]}",
            ],
        ),
        (
            "lstm",
            &gpt,
            &[
                "model.p_tuning={encoder_type: lstm, encoder_hidden: 8, num_layers: 2, dropout: 0.3}",
            ],
        ),
    ];
    for (name, model, changes) in kinds {
        let run = |results: &str, steps: usize| {
            let steps = format!("trainer.max_steps={steps}");
            let mut all = vec![
                steps.as_str(),
                // 24 rows: a pass ends within the fourth step.
                "model.global_batch_size=7",
                "model.micro_batch_size=1",
                "trainer.accumulate_grad_batches=1",
                "model.optim.sched=null",
                "exp_manager.checkpoint_callback_params.save_best_model=false",
                "model.nemo_path=prompt.nemo",
            ];
            all.extend(changes);
            train(&sandbox, &config(&sandbox, model, results, &all), 0);
            fs_err::read(sandbox.path("prompt.nemo")).unwrap()
        };
        let straight = run(&format!("{name}_straight"), 7);
        let parts = format!("{name}_parts");
        run(&parts, 2);
        run(&parts, 5);
        assert!(run(&parts, 7) == straight, "{name} went another way");
        let of = |results: &str| {
            sandbox.path(&format!("{results}/results/checkpoints/last.safetensors"))
        };
        let checkpoints = ptune::train::CheckpointFolder::new(sandbox.path(""));
        let (first, tensors) = checkpoints.load(&of(&parts)).unwrap().unwrap();
        let (second, others) = checkpoints
            .load(&of(&format!("{name}_straight")))
            .unwrap()
            .unwrap();
        assert_eq!(
            (first.global_step, first.consumed_samples),
            (7, second.consumed_samples)
        );
        assert_eq!(
            tensors.keys().collect::<Vec<_>>(),
            others.keys().collect::<Vec<_>>()
        );
        for (key, tensor) in &tensors {
            let bytes = |tensor: &candle_core::Tensor| {
                format!("{:?}", tensor.flatten_all().unwrap().to_string())
            };
            assert_eq!(bytes(tensor), bytes(&others[key]), "{name}: {key}");
        }
    }
}

#[test]
fn a_run_without_validations_is_saved_as_time_goes_by() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    let changes = [
        "trainer.max_steps=100000",
        "trainer.val_check_interval=100000",
        "model.data.validation_ds=[]",
        "exp_manager.checkpoint_callback_params.train_time_interval='00:00:00:00'",
    ];
    let config = config(&sandbox, &model, "a", &changes);
    let mut child = sandbox
        .command(&["worker", "prompt_learning", "--config", &config])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !sandbox.path(LAST).exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn other_validation_rows_start_the_search_for_the_best_anew_and_a_missing_checkpoint_can_be_an_error()
 {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    let said = train(
        &sandbox,
        &config(
            &sandbox,
            &model,
            "a",
            &["exp_manager.resume_ignore_no_checkpoint=false"],
        ),
        2,
    )
    .stderr;
    assert!(
        said.contains("there is no checkpoint to resume from"),
        "{said}"
    );
    train(
        &sandbox,
        &config(&sandbox, &model, "a", &["trainer.max_steps=4"]),
        0,
    );
    let rows = sandbox.read("train.jsonl");
    // One that no validation over other rows will undercut by chance.
    sandbox.write("other.jsonl", rows.lines().next().unwrap());
    let changes = [
        "trainer.max_steps=8",
        "model.data.validation_ds=[other.jsonl]",
        "exp_manager.resume_ignore_no_checkpoint=false",
    ];
    let said = train(&sandbox, &config(&sandbox, &model, "a", &changes), 0).stderr;
    assert!(
        said.contains("another rows of model.data.validation_ds"),
        "{said}"
    );
    let checkpoints = ptune::train::CheckpointFolder::new(sandbox.path("a/results/checkpoints"));
    let (state, _) = checkpoints.load(&checkpoints.last()).unwrap().unwrap();
    assert_eq!(state.best.unwrap().1, 8);
    assert_eq!(state.kept.len(), 1);
}

#[test]
fn a_second_training_in_the_same_folder_is_refused_while_the_first_runs() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    let config = config(&sandbox, &model, "a", &["trainer.max_steps=100000"]);
    let mut first = sandbox
        .command(&["worker", "prompt_learning", "--config", &config])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !sandbox.path("a/results/metrics.jsonl").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let second = train(&sandbox, &config, 1);
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(
        second
            .stderr
            .contains("another process is training in this results folder")
            && second.stderr.contains(&format!("process {}", first.id())),
        "{}",
        second.stderr
    );
}
