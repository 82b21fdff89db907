//! Every command of the README, run as it is written there.
//!
//! Paths that only a cluster has (`/mount`, `/results`) are moved into the test's folder; `sbatch` and `bcprun` are
//! recorders. What cargo is asked to do is what CI does.

use std::path::Path;
use std::process::Command;

use crate::sandbox::{Ran, Sandbox};
use crate::tiny_models::tiny_t5;

/// The shell blocks of the README, in order.
fn commands() -> Vec<String> {
    let readme =
        fs_err::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    readme
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().trim().to_owned())
        .collect()
}

/// A file in SQuAD's form with more articles than the README trains on.
fn xquad() -> String {
    let articles: Vec<_> = (0..40)
        .map(|number| {
            serde_json::json!({"title": format!("t{number}"), "paragraphs": [{
                "context": format!("The {number}th house is red."),
                "qas": [{"id": number.to_string(), "question": "What colour?",
                         "answers": [{"text": "red", "answer_start": 4}]}]}]})
        })
        .collect();
    serde_json::json!({ "version": "1.1", "data": articles }).to_string()
}

fn run(sandbox: &Sandbox, command: &str) -> Ran {
    let root = sandbox.path("").display().to_string();
    let moved = command
        .replace("/mount/", &format!("{root}mount/"))
        .replace(
            "/results/prompt_learning_",
            &format!("{root}log/prompt_learning_"),
        )
        // The rows here are too few for a batch of the README's eight devices, which a dry run would rightly say.
        .replace(
            "--dry-run",
            "--dry-run prompt_learning.model.micro_batch_size=1 prompt_learning.model.global_batch_size=8",
        );
    let path = format!("{}:{}", sandbox.path("bin").display(), std::env!("PATH"));
    let output = Command::new("bash")
        .args(["-c", &moved])
        .current_dir(sandbox.path(""))
        .env("PATH", path)
        .env_remove("NEMO_LAUNCHER_DEBUG")
        .output()
        .unwrap();
    sandbox.ran(output)
}

fn prepared() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.script(
        "bin/ptune",
        &format!("exec {} \"$@\"", env!("CARGO_BIN_EXE_ptune")),
    );
    sandbox.script(
        "bin/sbatch",
        "echo \"$@\" >> sbatch.log\necho Submitted batch job 7",
    );
    sandbox.script("bin/bcprun", "echo \"$@\" >> bcprun.log");
    sandbox.write("xquad.en.json", xquad());
    sandbox.write("log/.keep", "");
    tiny_t5(&sandbox.path("models/my_t5"));
    for model in [
        "gpt3_5b/convert_nemo/results/megatron_gpt",
        "t5_220m/convert_nemo/results/megatron_t5",
        "mt5_390m/convert_nemo/results/megatron_mt5",
    ] {
        sandbox.write(
            &format!("mount/results/{model}.nemo"),
            "not opened by the launcher",
        );
    }
    for file in ["train", "val", "test", "test_ground_truth"] {
        let row =
            "{\"taskname\":\"squad\",\"context\":\"c\",\"question\":\"q\",\"answer\":\"a\"}\n";
        sandbox.write(
            &format!("mount/data/prompt_data/v1.1/squad_{file}.jsonl"),
            row,
        );
    }
    sandbox
}

#[test]
fn every_ptune_command_of_the_readme_runs_as_it_is_written() {
    let sandbox = prepared();
    let commands: Vec<String> = commands()
        .into_iter()
        .filter(|command| !command.starts_with("cargo"))
        .collect();
    assert!(commands.len() >= 10, "the README's commands were not found");
    for command in &commands {
        let ran = run(&sandbox, command);
        let log = if command.contains(">> /results/") {
            fs_err::read_dir(sandbox.path("log"))
                .unwrap()
                .map(|file| fs_err::read_to_string(file.unwrap().path()).unwrap())
                .collect()
        } else {
            String::new()
        };
        // As diff does, for two compositions that differ.
        let status = i32::from(command.starts_with("ptune config diff"));
        assert_eq!(
            ran.status,
            Some(status),
            "{command}\n{}\n{}\n{log}",
            ran.stdout,
            ran.stderr
        );
    }
    for file in [
        "prompt_learning_squad/results/megatron_t5_prompt.nemo",
        "prompt_learning_squad/results/metrics.jsonl",
        "squad_eval/results/predictions.jsonl",
        "squad_eval/results/metrics.json",
        "squad_eval/results/report.html",
        "prompt_learning_squad/results/report.html",
        "prompt_learning_squad/results/prompts.json",
        "zero_shot/results/metrics.json",
    ] {
        assert!(
            sandbox.path("results/my_t5").join(file).is_file(),
            "{file} is missing"
        );
    }
    assert_eq!(
        sandbox.read("sbatch.log").lines().count(),
        2,
        "two stages are submitted, a dry run is not"
    );
    let bcprun = sandbox.read("bcprun.log");
    for model in ["gpt3_5b", "t5_220m", "mt5_390m"] {
        assert!(
            bcprun.contains(model),
            "bcprun was not given the job of {model}:\n{bcprun}"
        );
    }
}

#[test]
fn every_cargo_command_of_the_readme_is_one_that_ci_runs() {
    let ci = fs_err::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/run")).unwrap();
    let ci = ci.replace(" --locked", "");
    for command in commands()
        .iter()
        .filter(|command| command.starts_with("cargo"))
    {
        assert!(
            ci.contains(command.as_str()),
            "`{command}` is not in .ci/run"
        );
    }
}
