//! The evaluation job as a whole command, on tiny random models.

use crate::sandbox::{Ran, Sandbox};
use crate::tiny_models::{tiny_gpt2, tiny_t5};

const TEMPLATE: &str = "
task_templates:
- taskname: squad
  prompt_template: '{context} {question} {answer}'
  total_virtual_tokens: 0
  virtual_token_splits: []
  truncate_field: context
  answer_only_loss: true
  answer_field: answer
";

fn rows() -> String {
    let mut text: String = (0..7)
        .map(|row| {
            format!(
                "{{\"taskname\":\"squad\",\"context\":\"{}\",\"question\":\"q{row}\",\"answer\":\"a\"}}\n",
                "c".repeat(3 + 5 * row)
            )
        })
        .collect();
    text.push_str(
        "{\"taskname\":\"squad\",\"context\":\"c\",\"question\":\"q\",\"answers\":[\"one\",\"two\"]}\n",
    );
    text
}

fn config(sandbox: &Sandbox, model: &str, batch_size: usize, more: &str) -> String {
    sandbox.write("test.jsonl", rows());
    let text = format!(
        "
run: {{name: eval, results_dir: out}}
trainer: {{devices: 1, num_nodes: 1, accelerator: cpu, precision: 32}}
language_model_path: {model}
data: {{test_ds: [test.jsonl], micro_batch_size: {batch_size}, global_batch_size: {batch_size}}}
inference: {{tokens_to_generate: 6}}
{TEMPLATE}{more}"
    );
    let name = format!("eval{batch_size}.yaml");
    sandbox.write(&name, text);
    name
}

fn evaluate(sandbox: &Sandbox, config: &str, status: i32) -> Ran {
    sandbox.expect(&["worker", "evaluation", "--config", config], status)
}

#[test]
fn every_row_gets_one_prediction_in_its_order_and_the_scores_are_written() {
    for t5 in [false, true] {
        let sandbox = Sandbox::new();
        let model = if t5 {
            tiny_t5(&sandbox.path("model"))
        } else {
            tiny_gpt2(&sandbox.path("model"))
        };
        evaluate(
            &sandbox,
            &config(&sandbox, model.to_str().unwrap(), 3, ""),
            0,
        );
        let metrics: serde_json::Value =
            serde_json::from_str(&sandbox.read("out/results/metrics.json")).unwrap();
        assert_eq!(metrics["count"], 8);
        for key in ["exact_match", "f1", "accuracy", "rouge_l"] {
            let score = metrics[key].as_f64().unwrap();
            assert!((0.0..=100.0).contains(&score), "{key} {score}");
        }
        let lines: Vec<serde_json::Value> = sandbox
            .read("out/results/predictions.jsonl")
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            lines
                .iter()
                .map(|line| line["line"].as_u64().unwrap())
                .collect::<Vec<_>>(),
            (1..=8).collect::<Vec<_>>()
        );
        assert_eq!(lines[7]["answers"], serde_json::json!(["one", "two"]));
        assert_eq!(
            sandbox.read("out/results/predictions.txt").lines().count(),
            8
        );
    }
}

#[test]
fn the_batch_size_changes_no_answer() {
    for t5 in [false, true] {
        let sandbox = Sandbox::new();
        let model = if t5 {
            tiny_t5(&sandbox.path("model"))
        } else {
            tiny_gpt2(&sandbox.path("model"))
        };
        let mut answers = vec![];
        for batch_size in [1, 8] {
            evaluate(
                &sandbox,
                &config(&sandbox, model.to_str().unwrap(), batch_size, ""),
                0,
            );
            answers.push(sandbox.read("out/results/predictions.jsonl"));
        }
        assert_eq!(answers[0], answers[1]);
    }
}

#[test]
fn a_ground_truth_file_replaces_the_rows_own_answers() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("model"));
    let truth: String = (0..8)
        .map(|row| format!("{{\"answer\":[\"t{row}\",\"u\"]}}\n"))
        .collect();
    sandbox.write("truth.jsonl", truth);
    let config = config(
        &sandbox,
        model.to_str().unwrap(),
        4,
        "ground_truth_file_path: truth.jsonl\n",
    );
    evaluate(&sandbox, &config, 0);
    let predictions = sandbox.read("out/results/predictions.jsonl");
    let third: serde_json::Value =
        serde_json::from_str(predictions.lines().nth(2).unwrap()).unwrap();
    assert_eq!(third["answers"], serde_json::json!(["t2", "u"]));
}

#[test]
fn a_ground_truth_of_another_length_is_refused() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("model"));
    sandbox.write("truth.jsonl", "{\"answer\":\"t\"}\n");
    let config = config(
        &sandbox,
        model.to_str().unwrap(),
        4,
        "ground_truth_file_path: truth.jsonl\n",
    );
    let stderr = evaluate(&sandbox, &config, 1).stderr;
    assert!(
        stderr.contains("truth.jsonl") && stderr.contains('8'),
        "{stderr}"
    );
    assert!(!sandbox.path("out/results/metrics.json").exists());
}

#[test]
fn a_prompt_archive_that_is_missing_or_no_archive_is_named() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("model"));
    sandbox.write("broken.nemo", "hello");
    for (path, status) in [("nowhere.nemo", 2), ("broken.nemo", 1)] {
        let more = format!("virtual_prompt_model_file: {path}\n");
        let config = config(&sandbox, model.to_str().unwrap(), 4, &more);
        let stderr = evaluate(&sandbox, &config, status).stderr;
        assert!(stderr.contains(path), "{stderr}");
    }
}

#[test]
fn drawing_is_fixed_by_its_seed_and_the_settings_of_generation_are_heard() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("model"));
    let run = |batch_size: usize, inference: &str| -> Vec<serde_json::Value> {
        let name = config(&sandbox, model.to_str().unwrap(), batch_size, "");
        let text = sandbox.read(&name).replace(
            "inference: {tokens_to_generate: 6}",
            &format!("inference: {{tokens_to_generate: 6, {inference}}}"),
        );
        sandbox.write(&name, text);
        evaluate(&sandbox, &name, 0);
        let lines = sandbox.read("out/results/predictions.jsonl");
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let drawn = run(8, "greedy: False, temperature: 1.5, seed: 7");
    assert_eq!(drawn, run(3, "greedy: False, temperature: 1.5, seed: 7"));
    assert_ne!(drawn, run(8, "greedy: False, temperature: 1.5, seed: 8"));
    let greedy = run(8, "greedy: True, compute_logprob: True");
    assert!(greedy[0]["log_probability"].as_f64().unwrap() < 0.0);
    let beams = run(8, "num_beams: 4, compute_logprob: True");
    let sum = |rows: &[serde_json::Value]| -> f64 {
        rows.iter()
            .map(|row| row["log_probability"].as_f64().unwrap())
            .sum()
    };
    assert!(
        sum(&beams) > sum(&greedy),
        "beams find likelier answers than the greedy way"
    );
    // A text that the greedy answer holds ends it there.
    let answer = greedy[0]["prediction"].as_str().unwrap();
    let end: String = answer.chars().skip(1).take(1).collect();
    let ended = run(8, &format!("end_strings: [{}]", serde_json::json!(end)));
    assert_eq!(ended[0]["finished"], true);
    assert!(!ended[0]["prediction"].as_str().unwrap().contains(&end));
}

#[test]
fn settings_of_generation_that_cannot_be_are_told_together() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("model"));
    let name = config(&sandbox, model.to_str().unwrap(), 4, "");
    let wrong =
        "inference: {tokens_to_generate: 6, temperature: 0, top_p: 2, num_beams: 4, greedy: False}";
    let text = sandbox
        .read(&name)
        .replace("inference: {tokens_to_generate: 6}", wrong);
    sandbox.write(&name, text);
    let stderr = evaluate(&sandbox, &name, 2).stderr;
    for key in ["temperature", "top_p", "num_beams", "greedy=True"] {
        assert!(stderr.contains(key), "{stderr}");
    }
}

#[test]
fn several_tasks_have_a_score_each_in_the_shape_of_gpt() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("model"));
    let rows: String = (0..6)
        .map(|row| {
            let task = ["short", "long"][row % 2];
            format!("{{\"taskname\":\"{task}\",\"text\":\"t{row}\",\"answer\":\"a\"}}\n")
        })
        .collect();
    sandbox.write("test.jsonl", rows);
    let template = |task: &str, text: &str| {
        format!(
            "- {{taskname: {task}, prompt_template: '{text}{{text}}{{answer}}', total_virtual_tokens: 0, \
             virtual_token_splits: [], answer_field: answer}}\n"
        )
    };
    sandbox.write(
        "eval.yaml",
        format!(
            "run: {{name: eval, results_dir: out}}\ntrainer: {{accelerator: cpu}}\n\
             model: {{language_model_path: {}, nemo_model: null, eval_batch_size: 4, prompt_dataset_paths: test.jsonl}}\n\
             inference: {{tokens_to_generate: 3}}\ntask_templates:\n{}{}",
            model.display(),
            template("short", ""),
            template("long", "And now for something else: ")
        ),
    );
    evaluate(&sandbox, "eval.yaml", 0);
    let metrics: serde_json::Value =
        serde_json::from_str(&sandbox.read("out/results/metrics.json")).unwrap();
    assert_eq!(metrics["count"], 6);
    for task in ["short", "long"] {
        assert_eq!(metrics["tasks"][task]["count"], 3, "{metrics}");
    }
}

#[test]
fn the_stage_scores_each_kind_of_model_from_the_command_line() {
    for (option, model_key, data_key, prompt_key, t5) in [
        (
            "prompt_gpt3/squad",
            "model.language_model_path",
            "model.prompt_dataset_paths",
            "model.nemo_model",
            false,
        ),
        (
            "prompt_llama/squad",
            "model.language_model_path",
            "model.prompt_dataset_paths",
            "model.nemo_model",
            false,
        ),
        (
            "prompt_t5/squad",
            "language_model_path",
            "data.test_ds",
            "virtual_prompt_model_file",
            true,
        ),
        (
            "prompt_mt5/squad",
            "language_model_path",
            "data.test_ds",
            "virtual_prompt_model_file",
            true,
        ),
    ] {
        let sandbox = Sandbox::new();
        let model = if t5 {
            tiny_t5(&sandbox.path("model"))
        } else {
            tiny_gpt2(&sandbox.path("model"))
        };
        let test = sandbox.write("test.jsonl", rows());
        let truth = if t5 {
            "ground_truth_file_path"
        } else {
            "model.ground_truth_file_path"
        };
        let words = [
            "stages=[evaluation]".to_owned(),
            "cluster_type=interactive".to_owned(),
            format!("evaluation={option}"),
            format!("evaluation.{model_key}={}", model.display()),
            format!("evaluation.{data_key}=[{}]", test.display()),
            format!("evaluation.{prompt_key}=null"),
            format!("evaluation.{truth}=null"),
            "evaluation.trainer.accelerator=cpu".to_owned(),
            "evaluation.inference.tokens_to_generate=5".to_owned(),
            "evaluation.inference.num_beams=2".to_owned(),
            "evaluation.run.results_dir=out".to_owned(),
            "evaluation.task_templates=[{taskname: squad, prompt_template: '{context} {question} {answer}', \
             answer_field: answer, total_virtual_tokens: 0, virtual_token_splits: []}]"
                .to_owned(),
        ];
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        if option == "prompt_llama/squad" {
            words.push("evaluation.model.tensor_model_parallel_size=1");
        }
        sandbox.expect(&words, 0);
        let metrics: serde_json::Value =
            serde_json::from_str(&sandbox.read("out/results/metrics.json")).unwrap();
        assert_eq!(metrics["count"], 8, "{option}");
        let report = sandbox.read("out/results/report.html");
        assert!(
            report.contains("task_templates"),
            "the report of {option} has its configuration"
        );
    }
}
