//! The prompt learning job as a whole command, on tiny random models.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::sandbox::{Ran, Sandbox};
use crate::tiny_models::{tiny_gpt2, tiny_t5};

const ROWS: usize = 24;

/// Rows whose answers a prompt can learn: always one of two words.
fn rows() -> String {
    (0..ROWS)
        .map(|row| {
            let answer = if row % 2 == 0 { "even" } else { "odd" };
            format!("{{\"taskname\":\"squad\",\"context\":\"row {row}\",\"question\":\"kind\",\"answer\":\"{answer}\"}}\n")
        })
        .collect()
}

/// The resolved YAML of a job in `results`, with `changes` (`key.path=value`) applied.
pub(crate) fn config(sandbox: &Sandbox, model: &Path, results: &str, changes: &[&str]) -> String {
    sandbox.write("train.jsonl", rows());
    let text = format!(
        "
run: {{name: squad_tiny, task_name: squad, results_dir: {results}}}
trainer: {{devices: 1, num_nodes: 1, accelerator: cpu, precision: 32, max_epochs: -1, max_steps: 12,
           log_every_n_steps: 1, val_check_interval: 4, gradient_clip_val: 1.0}}
exp_manager: {{resume_if_exists: true}}
model:
  seed: 1234
  nemo_path: {results}/results/prompt.nemo
  virtual_prompt_style: p-tuning
  language_model_path: {model}
  global_batch_size: 8
  micro_batch_size: 4
  existing_tasks: []
  new_tasks: [squad]
  task_templates:
  - taskname: squad
    prompt_template: '<|VIRTUAL_PROMPT_0|>{{context}} <|VIRTUAL_PROMPT_1|> {{question}} {{answer}}'
    total_virtual_tokens: 5
    virtual_token_splits: [3, 2]
    truncate_field: context
    answer_only_loss: true
    answer_field: answer
  p_tuning: {{encoder_type: tpmlp, encoder_hidden: 32, init_std: 0.1}}
  data: {{train_ds: [train.jsonl], validation_ds: [train.jsonl], add_eos: true}}
  optim: {{name: fused_adam, lr: 0.02, weight_decay: 0.01, betas: [0.9, 0.98],
           sched: {{name: CosineAnnealing, warmup_steps: 2, constant_steps: 0, min_lr: 0.0}}}}
",
        model = model.display()
    );
    let mut value: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    for change in changes {
        let (path, new) = change.split_once('=').unwrap();
        let mut node = &mut value;
        for key in path.split('.') {
            if node.is_null() {
                *node = serde_yaml::Mapping::new().into();
            }
            node = match key.parse::<usize>() {
                Ok(index) => &mut node[index],
                Err(_) => node
                    .as_mapping_mut()
                    .unwrap()
                    .entry(key.into())
                    .or_insert(serde_yaml::Value::Null),
            };
        }
        *node = serde_yaml::from_str(new).unwrap();
    }
    let name = format!("{results}.yaml");
    sandbox.write(&name, serde_yaml::to_string(&value).unwrap());
    name
}

pub(crate) fn train(sandbox: &Sandbox, config: &str, status: i32) -> Ran {
    sandbox.expect(&["worker", "prompt_learning", "--config", config], status)
}

pub(crate) fn metrics(sandbox: &Sandbox, results: &str) -> Vec<serde_json::Value> {
    let text = sandbox.read(&format!("{results}/results/metrics.jsonl"));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Losses of the logged steps.
pub(crate) fn losses(sandbox: &Sandbox, results: &str) -> Vec<f64> {
    metrics(sandbox, results)
        .iter()
        .filter_map(|line| line["loss"].as_f64())
        .collect()
}

#[test]
fn p_tuning_a_gpt_lowers_the_loss_and_leaves_metrics_and_a_prompt_archive() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    let changes = ["model.optim.lr=0.1", "trainer.max_steps=40"];
    train(&sandbox, &config(&sandbox, &model, "a", &changes), 0);
    let losses = losses(&sandbox, "a");
    assert_eq!(losses.len(), 40);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(
        mean(&losses[30..]) < 0.95 * mean(&losses[..5]),
        "{losses:?}"
    );
    let first = &metrics(&sandbox, "a")[0];
    for key in ["step", "loss", "lr", "tokens", "step_seconds", "grad_norm"] {
        assert!(first[key].is_number(), "`{key}` is missing in {first}");
    }
    assert!(sandbox.path("a/results/prompt.nemo").is_file());
}

#[test]
fn every_prompt_encoder_lowers_the_loss_and_resumes_to_the_same_bytes() {
    for (encoder, settings) in [
        ("mlp", "encoder_hidden: 32, num_layers: 2"),
        // Dropout draws are part of what must come back.
        ("lstm", "encoder_hidden: 12, num_layers: 2, dropout: 0.2"),
        ("BigLSTM", "encoder_hidden: 12, num_layers: 1"),
        ("embedding", "{}"),
    ] {
        let sandbox = Sandbox::new();
        let model = tiny_gpt2(&sandbox.path("gpt2"));
        let settings = settings.trim_matches(['{', '}']);
        let p_tuning = format!("model.p_tuning={{encoder_type: {encoder}, {settings}}}");
        let changes = ["model.optim.lr=0.05", "trainer.max_steps=24", &p_tuning];
        let straight = config(&sandbox, &model, "a", &changes);
        train(&sandbox, &straight, 0);
        let losses = losses(&sandbox, "a");
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        assert!(
            mean(&losses[20..]) < 0.97 * mean(&losses[..4]),
            "{encoder}: {losses:?}"
        );

        // A run that starts where the first one was after step 20 ends with the same numbers.
        let last = "trainer.resume_from_checkpoint=a/results/checkpoints/";
        let names: Vec<String> = fs_err::read_dir(sandbox.path("a/results/checkpoints"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let middle = names
            .iter()
            .find(|name| name.contains("step=20"))
            .unwrap_or_else(|| panic!("{names:?}"));
        let from = format!("{last}{middle}");
        let changes = [changes.as_slice(), &[&from]].concat();
        train(&sandbox, &config(&sandbox, &model, "b", &changes), 0);
        let resumed = self::losses(&sandbox, "b");
        assert_eq!(resumed, losses[20..], "{encoder}");
    }
}

#[test]
fn prompt_tuning_a_t5_lowers_the_loss_from_every_first_value() {
    for (name, init) in [
        (
            "random",
            "{new_prompt_init_methods: [random], new_prompt_init_text: [null]}",
        ),
        (
            "text",
            "{new_prompt_init_methods: [text], new_prompt_init_text: [answer in one word]}",
        ),
        (
            "vocab",
            "{new_prompt_init_methods: [vocab], new_prompt_init_text: [null]}",
        ),
    ] {
        let sandbox = Sandbox::new();
        let model = tiny_t5(&sandbox.path("t5"));
        let init = format!("model.prompt_tuning={init}");
        let changes = [
            "model.virtual_prompt_style=prompt-tuning",
            "model.optim.lr=0.3",
            &init,
        ];
        train(&sandbox, &config(&sandbox, &model, "a", &changes), 0);
        let losses = losses(&sandbox, "a");
        assert!(losses[11] < 0.9 * losses[0], "{name}: {losses:?}");
    }
}

#[test]
fn two_runs_with_one_seed_write_equal_bytes_and_another_seed_does_not() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    let archive = |results: &str, changes: &[&str]| {
        // The archive holds its own path, so both runs are given the same one in turn.
        let mut changes = changes.to_vec();
        changes.push("model.nemo_path=prompt.nemo");
        train(&sandbox, &config(&sandbox, &model, results, &changes), 0);
        fs_err::read(sandbox.path("prompt.nemo")).unwrap()
    };
    let first = archive("a", &[]);
    assert!(
        first == archive("b", &[]),
        "the archives of two equal runs differ"
    );
    assert!(
        first != archive("c", &["model.seed=1235"]),
        "the seed changes nothing"
    );
}

#[test]
fn a_run_stopped_by_a_signal_exits_75_and_resumes_to_the_bytes_of_an_undisturbed_one() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    let changes = [
        "trainer.max_steps=400",
        "model.nemo_path=prompt.nemo",
        "trainer.val_check_interval=50",
        "model.optim.lr=0.001",
    ];
    train(&sandbox, &config(&sandbox, &model, "whole", &changes), 0);
    let undisturbed = fs_err::read(sandbox.path("prompt.nemo")).unwrap();
    fs_err::remove_file(sandbox.path("prompt.nemo")).unwrap();

    let config = config(&sandbox, &model, "stopped", &changes);
    let child = sandbox
        .command(&["worker", "prompt_learning", "--config", &config])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !sandbox.path("stopped/results/metrics.jsonl").exists()
        || losses(&sandbox, "stopped").len() < 5
    {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "the run did not start"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let id = child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-USR1", &id])
            .status()
            .unwrap()
            .success()
    );
    let stopped = sandbox.ran(child.wait_with_output().unwrap());
    assert_eq!(stopped.status, Some(75), "{}", stopped.stderr);
    assert!(
        !sandbox.path("prompt.nemo").exists(),
        "a stopped run must not pretend to be done"
    );
    assert!(
        losses(&sandbox, "stopped").len() < 400,
        "the signal came too late to test anything"
    );

    train(&sandbox, &config, 0);
    assert!(
        undisturbed == fs_err::read(sandbox.path("prompt.nemo")).unwrap(),
        "the resumed run went another way"
    );
    assert_eq!(losses(&sandbox, "stopped").len(), 400);
}

#[test]
fn a_second_task_is_added_without_changing_a_byte_of_the_first() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    train(&sandbox, &config(&sandbox, &model, "first", &[]), 0);
    let changes = [
        "model.restore_path=first/results/prompt.nemo",
        "model.existing_tasks=[squad]",
        "model.new_tasks=[other]",
        "model.data.train_ds=[other.jsonl]",
        "model.data.validation_ds=[]",
        "model.task_templates=[{taskname: squad, prompt_template: '<|VIRTUAL_PROMPT_0|>{context} <|VIRTUAL_PROMPT_1|> \
         {question} {answer}', total_virtual_tokens: 5, virtual_token_splits: [3, 2], truncate_field: context, \
         answer_only_loss: true, answer_field: answer}, {taskname: other, prompt_template: \
         '<|VIRTUAL_PROMPT_0|>{question} {answer}', total_virtual_tokens: 7, virtual_token_splits: [7], \
         truncate_field: null, answer_only_loss: true, answer_field: answer}]",
    ];
    let config = config(&sandbox, &model, "second", &changes);
    let other: String = (0..ROWS)
        .map(|row| {
            format!("{{\"taskname\":\"other\",\"question\":\"q{row}\",\"answer\":\"yes\"}}\n")
        })
        .collect();
    sandbox.write("other.jsonl", other);
    train(&sandbox, &config, 0);
    let open = |path: &str| ptune::export::nemo::PromptArchive::open(&sandbox.path(path)).unwrap();
    let (first, second) = (
        open("first/results/prompt.nemo"),
        open("second/results/prompt.nemo"),
    );
    assert_eq!(second.tasks.keys().collect::<Vec<_>>(), ["squad", "other"]);
    let bits = |archive: &ptune::export::nemo::PromptArchive| -> Vec<u32> {
        let rows = archive.tasks["squad"]
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        rows.iter().map(|value| value.to_bits()).collect()
    };
    assert_eq!(bits(&first), bits(&second));
    assert_eq!(second.tasks["other"].dims(), [7, 16]);
}

/// Runs a job that must fail, and returns what it said. Nothing may be left where results would be.
#[track_caller]
fn refused(rows: Option<&str>, changes: &[&str], status: i32) -> String {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    let config = config(&sandbox, &model, "a", changes);
    if let Some(rows) = rows {
        sandbox.write("train.jsonl", rows);
    }
    let stderr = train(&sandbox, &config, status).stderr;
    assert!(!sandbox.path("a/results/prompt.nemo").exists());
    assert!(
        stderr.starts_with("error: ") || stderr.contains("\nerror: "),
        "{stderr}"
    );
    stderr
}

#[test]
fn a_line_that_is_not_json_is_named_with_file_and_line() {
    let said = refused(Some(&format!("{}{{oops\n", rows())), &[], 1);
    assert!(
        said.contains(&format!("train.jsonl:{}", ROWS + 1)),
        "{said}"
    );
}

#[test]
fn an_unknown_field_of_a_row_is_named_with_file_line_and_the_fields_of_the_template() {
    let row = "{\"taskname\":\"squad\",\"contxt\":\"c\",\"question\":\"q\",\"answer\":\"a\"}\n";
    let said = refused(Some(&format!("{}{row}", rows())), &[], 1);
    assert!(
        said.contains(&format!("train.jsonl:{}", ROWS + 1)),
        "{said}"
    );
    assert!(
        said.contains("`contxt`") && said.contains("`context`"),
        "{said}"
    );
}

#[test]
fn a_missing_data_file_is_named() {
    let said = refused(None, &["model.data.train_ds=[nowhere.jsonl]"], 1);
    assert!(said.contains("nowhere.jsonl"), "{said}");
}

#[test]
fn splits_that_do_not_add_up_are_a_configuration_error() {
    let said = refused(
        None,
        &["model.task_templates.0.virtual_token_splits=[3, 3]"],
        2,
    );
    assert!(
        said.contains("virtual_token_splits") && said.contains('6') && said.contains('5'),
        "{said}"
    );
}

#[test]
fn a_missing_model_folder_is_a_configuration_error() {
    let said = refused(None, &["model.language_model_path=/nowhere/gpt2"], 2);
    assert!(said.contains("/nowhere/gpt2"), "{said}");
}

#[test]
fn a_checkpoint_whose_shapes_do_not_fit_its_config_is_refused_with_the_tensor() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    let config_json = sandbox
        .read("gpt2/config.json")
        .replace("\"n_embd\":16", "\"n_embd\":32");
    assert!(config_json.contains("\"n_embd\":32"));
    sandbox.write("gpt2/config.json", config_json);
    let config = config(&sandbox, &model, "a", &[]);
    let stderr = train(&sandbox, &config, 1).stderr;
    assert!(
        stderr.contains("wte.weight") && stderr.contains("model.safetensors"),
        "{stderr}"
    );
    assert!(!sandbox.path("a").join("results/prompt.nemo").exists());
}

#[test]
fn a_learning_rate_that_explodes_stops_with_advice_and_saves_nothing() {
    let said = refused(
        None,
        &[
            "model.optim.lr=1e38",
            "model.virtual_prompt_style=prompt-tuning",
            "model.optim.sched=null",
        ],
        1,
    );
    assert!(said.contains("optim.lr"), "{said}");
}
