//! Ten steps of training, whole jobs from the configuration to the archive, against a PyTorch program of its own.
//!
//! `make.py` beside this file trains tiny models in f64 by NeMo's published rules and wrote `cases.json`: the settings of
//! each job, and loss, learning rate and gradient norm of every step and the prompts at the end. Both begin with the
//! parameters in `start_*.nemo`, written by PyTorch. Rows, templates, loss masks, micro-batches, clipping, AdamW,
//! schedule and encoders must all be right for these numbers to agree.

use std::path::{Path, PathBuf};

use ptune::export::nemo::PromptArchive;
use ptune::schema::WorkerJob;
use serde_json::{Value, json};

/// Largest difference allowed: of a number to itself, of virtual tokens to their largest number.
const TOLERANCE: f64 = 1e-4;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/training")
}

/// Runs the job of `case` in `work`; its metrics and archive.
fn train(case: &Value, work: &Path) -> (Vec<Value>, PromptArchive) {
    let kind = case["model"].as_str().unwrap();
    let model = work.join(kind);
    fs_err::create_dir_all(&model).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs_err::copy(folder().join(kind).join(file), model.join(file)).unwrap();
    }
    let weights = folder()
        .join("../fixtures")
        .join(case["weights"].as_str().unwrap())
        .join("model.safetensors");
    fs_err::copy(weights, model.join("model.safetensors")).unwrap();

    let mut job = case["job"].clone();
    let results = work.join(case["name"].as_str().unwrap().replace(' ', "_"));
    let archive = results.join("prompt.nemo");
    job["run"] = json!({"name": "golden", "results_dir": results});
    for (key, value) in [
        ("devices", json!(1)),
        ("num_nodes", json!(1)),
        ("accelerator", json!("cpu")),
        ("precision", json!(32)),
        ("max_epochs", json!(-1)),
        ("log_every_n_steps", json!(1)),
        ("val_check_interval", json!(1000)),
    ] {
        job["trainer"][key] = value;
    }
    job["exp_manager"] =
        json!({"resume_if_exists": false, "checkpoint_callback_params": {"save_top_k": 0}});
    job["model"]["nemo_path"] = json!(archive);
    job["model"]["language_model_path"] = json!(model);
    let start = job["model"]["restore_path"].as_str().unwrap().to_owned();
    job["model"]["restore_path"] = json!(folder().join(start));
    job["model"]["data"]["train_ds"] = json!([folder().join("rows.jsonl")]);
    let config = work.join("job.yaml");
    fs_err::write(&config, serde_yaml::to_string(&job).unwrap()).unwrap();
    let status = ptune::worker::run(WorkerJob::PromptLearning, &config)
        .unwrap_or_else(|error| panic!("{}: {error:#}", case["name"]));
    assert_eq!(status, 0);
    let metrics = fs_err::read_to_string(results.join("results/metrics.jsonl")).unwrap();
    let metrics = metrics
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    (metrics, PromptArchive::open(&archive).unwrap())
}

#[test]
fn ten_steps_of_every_prompt_and_encoder_are_those_of_pytorch() {
    let cases = fs_err::read_to_string(folder().join("cases.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&cases).unwrap();
    assert_eq!(cases.len(), 14);
    let work = tempfile::tempdir().unwrap();
    let mut failed = vec![];
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let (metrics, archive) = train(case, work.path());
        let steps = case["steps"].as_array().unwrap();
        assert_eq!(metrics.len(), steps.len(), "{name}");
        let mut worst = [0.0f64; 3];
        for (found, expected) in metrics.iter().zip(steps) {
            for (worst, key) in worst.iter_mut().zip(["loss", "lr", "grad_norm"]) {
                let (found, expected) = (
                    found[key].as_f64().unwrap(),
                    expected[key].as_f64().unwrap(),
                );
                let difference = (found - expected).abs() / expected.abs().max(1e-9);
                *worst = worst.max(difference);
            }
        }
        let mut rows = 0.0f64;
        for (task, expected) in case["prompts"].as_object().unwrap() {
            let expected: Vec<Vec<f64>> = serde_json::from_value(expected.clone()).unwrap();
            let found: Vec<Vec<f32>> = archive.tasks[task].to_vec2().unwrap();
            assert_eq!(found.len(), expected.len(), "{name}");
            let pairs = found.iter().flatten().zip(expected.iter().flatten());
            let largest = expected
                .iter()
                .flatten()
                .fold(0.0f64, |most, one| most.max(one.abs()));
            for (found, expected) in pairs {
                rows = rows.max((f64::from(*found) - expected).abs() / largest);
            }
        }
        let [loss, lr, grad_norm] = worst;
        println!(
            "{name}: loss {loss:.1e}, lr {lr:.1e}, gradient norm {grad_norm:.1e}, rows {rows:.1e}"
        );
        if loss.max(lr).max(grad_norm).max(rows) >= TOLERANCE {
            failed.push(name);
        }
    }
    assert!(
        failed.is_empty(),
        "differ by more than {TOLERANCE}: {failed:?}"
    );
}
