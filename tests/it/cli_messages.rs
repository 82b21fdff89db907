//! What a person sees when something is wrong, and the exit status that a program sees.

use crate::sandbox::Sandbox;

/// Standard error of a command line that must end with `status`.
fn message(status: i32, words: &[&str]) -> String {
    let sandbox = Sandbox::new();
    let ran = sandbox.ptune(words);
    assert_eq!(
        ran.status,
        Some(status),
        "{words:?}\n{}{}",
        ran.stdout,
        ran.stderr
    );
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    ran.stderr
}

#[test]
fn a_mistake_on_the_command_line_names_itself_and_the_nearest_right_word() {
    for (words, parts) in [
        (
            &["wroker"][..],
            &[
                "`wroker` is neither a command",
                "did you mean `ptune worker`?",
            ][..],
        ),
        (
            &["prompt_learning.modle.seed=1"],
            &["modle", "did you mean", "model"],
        ),
        (
            &["prompt_learning.trainer.device=1"],
            &["device", "devices"],
        ),
        (&["prompt_learning=t5/sqaud"], &["t5/sqaud", "t5/squad"]),
        (&["cluster=bcp"], &["bcp", "bcm"]),
        (
            &["cluster_type=slrum"],
            &[
                "`cluster_type`: `slrum` is not known",
                "bcm, bcp, interactive",
            ],
        ),
        (
            &["stages=[promt_learning]"],
            &[
                "`promt_learning` is not known",
                "did you mean `prompt_learning`?",
            ],
        ),
        (&["stages=[]"], &["no stage is asked for"]),
        (
            &["stages=[evaluation,evaluation]"],
            &["`evaluation` stands there twice"],
        ),
        (
            &["stage_dependency=after"],
            &["`stage_dependency`: `after` is not known", "afterok"],
        ),
        (&["--config-name=quikstart"], &["quikstart", "quickstart"]),
        (
            &["--config-dir=nowhere"],
            &["`--config-dir` is not a folder", "nowhere"],
        ),
        (&["--no-such-option"], &["--no-such-option"]),
        (&["worker"], &["<JOB>"]),
        (
            &["worker", "promptlearning", "--config", "x"],
            &[
                "there is no job `promptlearning`",
                "did you mean `prompt_learning`?",
            ],
        ),
        (
            &["worker", "prompt_learning", "--config", "x.yaml"],
            &["the job's configuration is not there", "x.yaml"],
        ),
    ] {
        let text = message(2, words);
        for part in parts {
            assert!(text.contains(part), "{words:?}: no `{part}` in\n{text}");
        }
    }
}

#[test]
fn a_value_of_a_wrong_type_names_its_key() {
    let text = message(2, &["--dry-run", "prompt_learning.trainer.devices=auto"]);
    assert!(text.contains("`prompt_learning.trainer.devices`"), "{text}");
    let text = message(2, &["--dry-run", "prompt_learning.trainer.precision=8"]);
    assert!(text.contains("invalid precision `8`"), "{text}");
}

#[test]
fn all_broken_rules_of_a_section_come_at_once() {
    let text = message(
        2,
        &[
            "--dry-run",
            "prompt_learning.model.global_batch_size=12",
            "prompt_learning.model.optim.name=lion",
            "prompt_learning.model.new_tasks=[other]",
            "+prompt_learning.model.optim.lrr=1",
        ],
    );
    for part in [
        "4 problems in `prompt_learning`",
        "`prompt_learning.model.optim.lrr`: unknown key, did you mean `lr`?",
        "`lion` is not known",
        "12 is not a multiple of 64",
        "there is no template for task `other`",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}

#[test]
fn missing_inputs_are_listed_before_anything_is_started() {
    let text = message(2, &["cluster_type=interactive", "prompt_learning=t5/squad"]);
    for part in [
        "3 files that the jobs read are not there",
        "`prompt_learning.model.language_model_path`: ./results/t5_220m/convert_nemo/results/megatron_t5.nemo",
        "`prompt_learning.model.data.train_ds`: ./data/prompt_data/v1.1/squad_train.jsonl",
        "train-v1.1.json and dev-v1.1.json into ./data/prompt_data/v1.1",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}

#[test]
fn missing_published_files_say_where_to_put_them() {
    let text = message(
        2,
        &["cluster_type=interactive", "stages=[data_preparation]"],
    );
    assert!(
        text.contains("train-v1.1.json") && text.contains("dev-v1.1.json"),
        "{text}"
    );
}

#[test]
fn without_slurm_the_other_ways_are_shown() {
    let sandbox = Sandbox::new();
    let output = sandbox
        .command(&["prompt_learning=t5/squad"])
        .env("PATH", "/nowhere")
        .output()
        .unwrap();
    let ran = sandbox.ran(output);
    assert_eq!(ran.status, Some(2));
    assert!(
        ran.stderr.contains("there is no `sbatch`"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("cluster_type=interactive"),
        "{}",
        ran.stderr
    );
    // Nothing was written.
    assert!(!sandbox.path("results").exists());
}

#[test]
fn the_user_guides_spelling_is_taken_with_a_warning() {
    let sandbox = Sandbox::new();
    let ran = sandbox.scripts(&[
        "--dry-run",
        "prompt_learning.model.sequence_sequence_parallel=True",
    ]);
    assert!(
        ran.stderr.contains("warning: ") && ran.stderr.contains("sequence_parallel=True"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_debug_variable_that_is_neither_yes_nor_no_submits_nothing() {
    let sandbox = Sandbox::new();
    let output = sandbox
        .command(&[])
        .env("NEMO_LAUNCHER_DEBUG", "maybe")
        .output()
        .unwrap();
    let ran = sandbox.ran(output);
    assert_eq!(ran.status, Some(2));
    assert!(
        ran.stderr.contains("`NEMO_LAUNCHER_DEBUG` is `maybe`"),
        "{}",
        ran.stderr
    );
}

#[test]
fn help_and_version_go_to_standard_output() {
    let sandbox = Sandbox::new();
    let ran = sandbox.ptune(&["--help"]);
    assert_eq!(ran.status, Some(0));
    assert!(
        ran.stdout.contains("ptune --config-name=quickstart"),
        "{}",
        ran.stdout
    );
    let ran = sandbox.ptune(&["--version"]);
    assert_eq!(ran.stdout, format!("ptune {}\n", env!("CARGO_PKG_VERSION")));
}

#[cfg(unix)]
#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let sandbox = Sandbox::new();
    let program = env!("CARGO_BIN_EXE_ptune");
    let output = std::process::Command::new("bash")
        .args([
            "-c",
            &format!("set -o pipefail; {program} --cfg job | true"),
        ])
        .current_dir(sandbox.path(""))
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
