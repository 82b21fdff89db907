//! Where virtual tokens begin: first values from every source, an encoder that is trained further, tasks added to others.

use ptune::export::nemo::PromptArchive;

use crate::prompt_files::hashes;
use crate::sandbox::Sandbox;
use crate::tiny_models::tiny_gpt2;
use crate::worker_train::{config, losses, train};

/// A learning rate at which f32 does not move: what ends is what began.
const STILL: &str = "model.optim={name: adamw, lr: 1e-30, weight_decay: 0.0}";

fn template(task: &str, virtual_tokens: usize) -> String {
    format!(
        "{{taskname: {task}, prompt_template: '<|VIRTUAL_PROMPT_0|>{{context}} {{question}} {{answer}}', \
         total_virtual_tokens: {virtual_tokens}, virtual_token_splits: [{virtual_tokens}], answer_only_loss: true, \
         answer_field: answer}}"
    )
}

fn templates(tasks: &[(&str, usize)]) -> String {
    let all: Vec<String> = tasks
        .iter()
        .map(|(task, count)| template(task, *count))
        .collect();
    format!("model.task_templates=[{}]", all.join(", "))
}

/// Rows of each task, whose answers are `go` for two of three and `up` else.
fn write_rows(sandbox: &Sandbox, tasks: &[&str]) {
    for task in tasks {
        let rows: String = (0..12)
            .map(|row| {
                let answer = if row % 3 == 0 { "up" } else { "go" };
                format!(
                    "{{\"taskname\":\"{task}\",\"context\":\"{task} {row}\",\"question\":\"q\",\"answer\":\"{answer}\"}}\n"
                )
            })
            .collect();
        sandbox.write(&format!("{task}.jsonl"), rows);
    }
}

fn rows(sandbox: &Sandbox, archive: &str, task: &str) -> Vec<Vec<f32>> {
    let archive = PromptArchive::open(&sandbox.path(archive)).unwrap();
    archive.tasks[task].to_vec2().unwrap()
}

#[test]
fn first_values_come_from_files_of_every_kind_from_other_tasks_and_from_labels() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    write_rows(&sandbox, &["a", "b", "c"]);
    let first = [
        "model.virtual_prompt_style=prompt-tuning",
        "model.new_tasks=[a, b]",
        "model.data={train_ds: [a.jsonl, b.jsonl]}",
        "trainer.max_steps=2",
        &templates(&[("a", 4), ("b", 4)]),
        "model.prompt_tuning={new_prompt_init_methods: [uniform, normal]}",
    ];
    train(&sandbox, &config(&sandbox, &model, "first", &first), 0);
    let source = "first/results/prompt.nemo";
    for (form, output) in [
        ("npy", "a.npy"),
        ("peft", "a-peft"),
        ("prompt-embeds", "a.pt"),
    ] {
        sandbox.expect(
            &["export", source, "--to", form, "-o", output, "--task", "a"],
            0,
        );
    }
    let known = hashes(&sandbox, source);

    let start = |results: &str, init: &str| {
        let init = format!("model.prompt_tuning={init}");
        let changes = [
            "model.virtual_prompt_style=prompt-tuning",
            "model.new_tasks=[c]",
            "model.data={train_ds: c.jsonl}",
            "model.restore_path=first/results/prompt.nemo",
            "trainer.max_steps=1",
            &templates(&[("c", 4)]),
            STILL,
            &init,
        ];
        train(&sandbox, &config(&sandbox, &model, results, &changes), 0);
        format!("{results}/results/prompt.nemo")
    };
    for (number, (init, expected)) in [
        (
            "{new_prompt_init_methods: file, new_prompt_init_file: a.npy}",
            0,
        ),
        (
            "{new_prompt_init_methods: file, new_prompt_init_file: a-peft}",
            0,
        ),
        (
            "{new_prompt_init_methods: file, new_prompt_init_file: a.pt}",
            0,
        ),
        (
            "{new_prompt_init_methods: [FILE], new_prompt_init_file: [first/results/prompt.nemo], \
             new_prompt_init_task: [b]}",
            1,
        ),
        (
            "{new_prompt_init_methods: [task], new_prompt_init_task: [b]}",
            1,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let archive = start(&format!("from{number}"), init);
        assert_eq!(hashes(&sandbox, &archive)[0].1, known[expected].1, "{init}");
    }
    let mean = start(
        "mean",
        "{new_prompt_init_methods: [task], new_prompt_init_task: [[a, b]]}",
    );
    let (a, b) = (rows(&sandbox, source, "a"), rows(&sandbox, source, "b"));
    assert!((rows(&sandbox, &mean, "c")[3][5] - f32::midpoint(a[3][5], b[3][5])).abs() < 1e-6);

    // The more frequent answer first: ` go` begins with the blank that the template has there.
    let from_rows = start("labels", "{new_prompt_init_methods: [labels]}");
    let named = start(
        "named",
        "{new_prompt_init_methods: [labels], new_prompt_init_labels: [[go, up]]}",
    );
    let text = start(
        "text",
        "{new_prompt_init_methods: [text], new_prompt_init_text: [' go']}",
    );
    let found = rows(&sandbox, &from_rows, "c");
    assert_eq!(found, rows(&sandbox, &named, "c"));
    let text = rows(&sandbox, &text, "c");
    for (column, value) in found[0].iter().enumerate() {
        let mean = (0..3).map(|row| text[row][column]).sum::<f32>() / 3.0;
        assert!((value - mean).abs() < 1e-5, "column {column}");
    }
}

#[test]
fn sources_that_do_not_fit_are_all_named_with_the_nearest_name() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    write_rows(&sandbox, &["alpha", "beta"]);
    let first = [
        "model.virtual_prompt_style=prompt-tuning",
        "model.new_tasks=[alpha]",
        "model.data={train_ds: alpha.jsonl}",
        "trainer.max_steps=1",
        &templates(&[("alpha", 4)]),
    ];
    train(&sandbox, &config(&sandbox, &model, "first", &first), 0);
    let second = [
        "model.virtual_prompt_style=prompt-tuning",
        "model.new_tasks=[beta, gamma, delta]",
        "model.data={train_ds: beta.jsonl}",
        "model.restore_path=first/results/prompt.nemo",
        "trainer.max_steps=1",
        &templates(&[("beta", 4), ("gamma", 5), ("delta", 4)]),
        "model.prompt_tuning={new_prompt_init_methods: [task, task, file], new_prompt_init_task: [alpa, alpha, null], \
         new_prompt_init_file: [null, null, missing.npy]}",
    ];
    let said = train(&sandbox, &config(&sandbox, &model, "second", &second), 2).stderr;
    for part in [
        "there is no task `alpa` (did you mean `alpha`?), only alpha",
        "`alpha` has virtual tokens of shape [4, 16], the template of `gamma` and the frozen model need [5, 16]",
        "missing.npy",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn an_encoder_that_was_kept_is_trained_further_and_another_one_is_refused() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    let kept = "model.p_tuning={encoder_type: biglstm, encoder_hidden: 8, num_layers: 1, save_encoder: true}";
    let changes = ["model.optim.lr=0.05", "trainer.max_steps=12", kept];
    train(&sandbox, &config(&sandbox, &model, "first", &changes), 0);
    let first = losses(&sandbox, "first");

    let on = |results: &str, p_tuning: &str, status: i32| {
        let p_tuning = format!("model.p_tuning={{{p_tuning}}}");
        let changes = [
            "model.restore_path=first/results/prompt.nemo",
            "trainer.max_steps=1",
            STILL,
            &p_tuning,
        ];
        train(
            &sandbox,
            &config(&sandbox, &model, results, &changes),
            status,
        )
        .stderr
    };
    on(
        "further",
        "encoder_type: biglstm, encoder_hidden: 8, num_layers: 1",
        0,
    );
    assert_eq!(
        rows(&sandbox, "further/results/prompt.nemo", "squad"),
        rows(&sandbox, "first/results/prompt.nemo", "squad")
    );
    let resumed = losses(&sandbox, "further")[0];
    assert!(resumed < first[0], "{resumed} after {first:?}");

    let said = on("other", "encoder_type: mlp, encoder_hidden: 8", 2);
    assert!(
        said.contains("`lstm_head.weight_ih_l0` has no place here"),
        "{said}"
    );
    assert!(said.contains("restore_encoder=False"), "{said}");
    on(
        "newer",
        "encoder_type: mlp, encoder_hidden: 8, restore_encoder: false",
        0,
    );
    let said = on(
        "nothing",
        "encoder_type: mlp, restore_encoder: true, encoder_hidden: 8",
        2,
    );
    assert!(said.contains("has no place here"), "{said}");
}

#[test]
fn rows_in_the_layout_of_nemo_1_17_are_a_task_to_keep_and_no_start_for_a_network() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    write_rows(&sandbox, &["a", "b"]);
    let run = |results: &str, tasks: &str, encoder: &str| {
        let templates = templates(&[("a", 4), ("b", 6)]);
        let p_tuning = format!("model.p_tuning={{encoder_type: {encoder}, encoder_hidden: 8}}");
        let mut changes = vec!["trainer.max_steps=2", &templates, &p_tuning];
        changes.extend(tasks.split("; "));
        train(&sandbox, &config(&sandbox, &model, results, &changes), 0);
        hashes(&sandbox, &format!("{results}/results/prompt.nemo"))
    };
    let a = run(
        "one",
        "model.new_tasks=[a]; model.data={train_ds: [a.jsonl]}",
        "tpmlp",
    );
    let words = [
        "export",
        "one/results/prompt.nemo",
        "--to",
        "nemo-b",
        "-o",
        "b.nemo",
    ];
    sandbox.expect(&words, 0);
    let more = "model.new_tasks=[b]; model.existing_tasks=[a]; model.restore_path=b.nemo; model.data={train_ds: [b.jsonl]}";
    let alone = run(
        "alone",
        "model.new_tasks=[b]; model.data={train_ds: [b.jsonl]}",
        "tpmlp",
    );
    assert_eq!(run("both", more, "tpmlp"), [a[0].clone(), alone[0].clone()]);
    assert_eq!(run("length", more, "embedding")[0], a[0]);
}

#[test]
fn tasks_trained_one_after_another_or_together_share_a_table_and_leave_finished_ones_as_they_are() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    write_rows(&sandbox, &["a", "b", "c"]);
    let run = |results: &str, style: &str, new: &str, existing: &str, restore: Option<&str>| {
        let data: Vec<String> = new
            .split(", ")
            .map(|task| format!("{task}.jsonl"))
            .collect();
        let data = format!("model.data={{train_ds: [{}]}}", data.join(", "));
        let (new, existing) = (
            format!("model.new_tasks=[{new}]"),
            format!("model.existing_tasks=[{existing}]"),
        );
        let style = format!("model.virtual_prompt_style={style}");
        let restore = format!("model.restore_path={}", restore.unwrap_or("null"));
        let templates = templates(&[("a", 4), ("b", 4), ("c", 4)]);
        let changes = [
            style.as_str(),
            "trainer.max_steps=3",
            &new,
            &existing,
            &data,
            &restore,
            &templates,
        ];
        train(&sandbox, &config(&sandbox, &model, results, &changes), 0);
        hashes(&sandbox, &format!("{results}/results/prompt.nemo"))
    };
    for style in ["prompt-tuning", "p-tuning"] {
        let named = |results: &str| format!("{style}-{results}");
        let archive = |results: &str| format!("{style}-{results}/results/prompt.nemo");
        let one = run(&named("1"), style, "a", "", None);
        let two = run(&named("2"), style, "b", "a", Some(&archive("1")));
        let three = run(&named("3"), style, "c", "a, b", Some(&archive("2")));
        assert_eq!(two[..1], one[..]);
        assert_eq!(three[..2], two[..]);
        // What is there already does not touch what is trained: the bytes are those of a table of its own.
        let alone = run(&named("alone"), style, "c", "", None);
        assert_eq!(three[2..], alone[..]);
        let together = run(&named("4"), style, "a, b, c", "", None);
        let names: Vec<&str> = together.iter().map(|(task, _)| task.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let mut different: Vec<&String> = together.iter().map(|(_, hash)| hash).collect();
        different.sort();
        different.dedup();
        assert_eq!(
            different.len(),
            3,
            "each task has virtual tokens of its own"
        );
    }
}
