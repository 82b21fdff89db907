//! Jobs that run here (`interactive`, and `bcp` with a recorder in place of bcprun), and submission with a recorder in
//! place of sbatch. The recorders are shell scripts; no job of ours runs in these tests.

use std::io::Read;

use crate::sandbox::{Ran, Sandbox};

/// Words of a command line whose inputs are all there.
fn words(sandbox: &Sandbox, cluster_type: &str, more: &[&str]) -> Vec<String> {
    sandbox.write("model/config.json", "{}");
    sandbox.write("rows.jsonl", "");
    let worker = sandbox.path("worker.sh").display().to_string();
    let mut words: Vec<String> = [
        "prompt_learning=t5/squad",
        "evaluation=prompt_t5/squad",
        "prompt_learning.model.language_model_path=model",
        "prompt_learning.model.data.train_ds=[rows.jsonl]",
        "prompt_learning.model.data.validation_ds=[rows.jsonl]",
        "evaluation.language_model_path=model",
        "evaluation.data.test_ds=[rows.jsonl]",
        "evaluation.ground_truth_file_path=null",
    ]
    .map(str::to_owned)
    .to_vec();
    words.push(format!("cluster_type={cluster_type}"));
    words.push(format!("ptune_path={worker}"));
    words.extend(more.iter().map(|word| (*word).to_owned()));
    words
}

fn run(sandbox: &Sandbox, cluster_type: &str, more: &[&str]) -> Ran {
    let words = words(sandbox, cluster_type, more);
    sandbox.ptune(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

const BOTH: &str = "stages=[prompt_learning,evaluation]";

#[test]
fn stages_run_here_one_after_another_and_their_output_is_seen() {
    let sandbox = Sandbox::new();
    sandbox.script("worker.sh", "echo \"$@\" >> calls; echo seen; exit 0");
    let ran = run(&sandbox, "interactive", &[BOTH]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let folder = sandbox
        .path("")
        .canonicalize()
        .unwrap()
        .display()
        .to_string();
    assert_eq!(
        sandbox.read("calls").replace(&folder, "."),
        "worker prompt_learning --config ./results/t5_220m/prompt_learning_squad/squad_t5_220m_hydra.yaml\n\
         worker evaluation --config ./results/t5_220m/squad_eval/eval_squad_t5_220m_hydra.yaml\n"
    );
    assert_eq!(ran.stdout, "seen\nseen\n");
}

#[test]
fn the_exit_status_of_a_failed_stage_comes_back_and_the_next_does_not_start() {
    let sandbox = Sandbox::new();
    sandbox.script("worker.sh", "echo \"$2\" >> calls; exit 3");
    let ran = run(&sandbox, "interactive", &[BOTH]);
    assert_eq!(ran.status, Some(3));
    assert_eq!(sandbox.read("calls"), "prompt_learning\n");
    assert!(
        ran.stderr.contains("not started: evaluation"),
        "{}",
        ran.stderr
    );
}

#[test]
fn this_machine_runs_one_rank_whatever_the_file_for_clusters_says() {
    let sandbox = Sandbox::new();
    sandbox.script("worker.sh", "cp \"$4\" saved.yaml");
    let ran = run(
        &sandbox,
        "interactive",
        &["prompt_learning.model.global_batch_size=16"],
    );
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let saved: serde_yaml::Value = serde_yaml::from_str(&sandbox.read("saved.yaml")).unwrap();
    assert_eq!(saved["trainer"]["devices"], 1);
    assert_eq!(saved["trainer"]["num_nodes"], 1);
}

#[cfg(unix)]
#[test]
fn a_signal_is_passed_on_and_the_launcher_waits_for_the_job_to_save() {
    let sandbox = Sandbox::new();
    sandbox.script(
        "worker.sh",
        "trap 'sleep 0.2; echo saved > saved; exit 75' TERM\necho started\nfor i in $(seq 200); do sleep 0.05; done",
    );
    let words = words(&sandbox, "interactive", &[]);
    let mut child = sandbox
        .command(&words.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut started = [0; 8];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut started)
        .unwrap();
    let kill = std::process::Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert_eq!(sandbox.read("saved"), "saved\n");
}

/// Writes its arguments, one a line, then runs what follows `--cmd` on this one node.
const RECORDER_FOR_BCPRUN: &str = r#"printf '%s\n' "$@" > bcprun.arguments
while [ "$1" != --cmd ]; do shift; done
exec bash -c "$2"
"#;

fn with_recorders(sandbox: &Sandbox, words: &[String]) -> Ran {
    let path = std::env::join_paths(std::iter::once(sandbox.path("bin")).chain(
        std::env::split_paths(&ptune::sys::env_vars::get("PATH").unwrap()),
    ))
    .unwrap();
    let output = sandbox
        .command(&words.iter().map(String::as_str).collect::<Vec<_>>())
        .env("PATH", path)
        .output()
        .unwrap();
    sandbox.ran(output)
}

#[test]
fn bcprun_gets_its_arguments_and_the_job_its_exit_status() {
    let sandbox = Sandbox::new();
    sandbox.script("bin/bcprun", RECORDER_FOR_BCPRUN);
    sandbox.script("worker.sh", "echo \"worker says $MY\"; exit 7");
    let words = words(
        &sandbox,
        "bcp",
        &[
            BOTH,
            "+env_vars.MY='a b'",
            "prompt_learning.trainer.devices=2",
            "prompt_learning.trainer.num_nodes=2",
        ],
    );
    let ran = with_recorders(&sandbox, &words);
    assert_eq!(ran.status, Some(7), "{}", ran.stderr);
    assert!(ran.stdout.contains("worker says a b"), "{}", ran.stdout);
    let arguments = sandbox.read("bcprun.arguments");
    let arguments: Vec<&str> = arguments.lines().collect();
    assert_eq!(
        arguments[..5],
        ["--nnodes", "2", "--npernode", "2", "-no_redirect"]
    );
    assert!(
        arguments.windows(2).any(|pair| pair == ["--env", "MY=a b"]),
        "{arguments:?}"
    );
    // The output is in the log as well.
    let folder = sandbox.path("results/t5_220m/prompt_learning_squad");
    let log = fs_err::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "out"))
        .unwrap();
    assert_eq!(fs_err::read_to_string(log).unwrap(), "worker says a b\n");
}

#[test]
fn sbatch_gets_every_script_and_each_job_waits_for_the_one_before() {
    let sandbox = Sandbox::new();
    sandbox.script(
        "bin/sbatch",
        "n=$(($(cat count 2>/dev/null || echo 40) + 1)); echo $n > count; echo \"Submitted batch job $n\"",
    );
    let words = words(&sandbox, "bcm", &[BOTH]);
    let ran = with_recorders(&sandbox, &words);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(
        ran.stdout,
        "submitted nemo-megatron-squad_t5_220m as job 41, results in /sandbox/results/t5_220m/prompt_learning_squad\n\
         submitted nemo-megatron-eval_squad_t5_220m as job 42, results in /sandbox/results/t5_220m/squad_eval\n"
    );
    let script =
        sandbox.read("results/t5_220m/squad_eval/nemo-megatron-eval_squad_t5_220m_submission.sh");
    assert!(
        script.contains("#SBATCH --dependency=afterany:41\n"),
        "{script}"
    );
    assert_eq!(
        sandbox.read("results/t5_220m/squad_eval/launcher.log"),
        "Submitted batch job 42"
    );
    let saved =
        sandbox.read("results/t5_220m/squad_eval/nemo-megatron-eval_squad_t5_220m_hydra.yaml");
    assert!(saved.contains("dependency: afterany:41"), "{saved}");
}

#[test]
fn a_job_that_sbatch_refuses_is_an_error_with_its_words() {
    let sandbox = Sandbox::new();
    sandbox.script(
        "bin/sbatch",
        "echo 'sbatch: error: Invalid generic resource (gres) specification' >&2; exit 1",
    );
    let words = words(&sandbox, "bcm", &[]);
    let ran = with_recorders(&sandbox, &words);
    assert_eq!(ran.status, Some(1));
    assert!(
        ran.stderr.contains("Invalid generic resource"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("cluster.gpus_per_node=null"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_chain_that_is_refused_halfway_says_what_is_in_the_queue_and_how_to_take_it_out() {
    let sandbox = Sandbox::new();
    sandbox.script(
        "bin/sbatch",
        "[ -e first ] && { echo 'sbatch: error: Invalid account' >&2; exit 1; }; touch first; echo 'Submitted batch job 41'",
    );
    let ran = with_recorders(&sandbox, &words(&sandbox, "bcm", &[BOTH]));
    assert_eq!(ran.status, Some(1));
    for line in [
        "= sbatch: error: Invalid account",
        "= job `nemo-megatron-eval_squad_t5_220m` is not in the queue",
        "= job 41, submitted before it, is",
        "ptune cancel /sandbox/results/t5_220m/prompt_learning_squad",
    ] {
        assert!(ran.stderr.contains(line), "{line}: {}", ran.stderr);
    }
    // The command line is what the user has just typed.
    assert!(!ran.stderr.contains(BOTH), "{}", ran.stderr);
}

#[test]
fn results_that_cannot_be_written_are_an_error_with_the_key_that_says_where() {
    let sandbox = Sandbox::new();
    sandbox.write("results", "a file where the folder would be");
    let ran = run(&sandbox, "interactive", &[]);
    assert_eq!(ran.status, Some(1));
    assert!(
        ran.stderr.starts_with(
            "error: the results folder cannot be made\n  = failed to create directory `"
        ) && ran.stderr.contains("base_results_dir=FOLDER"),
        "{}",
        ran.stderr
    );
}

#[test]
fn published_squad_files_become_rows_before_the_job_starts() {
    let sandbox = Sandbox::new();
    let file = r#"{"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": [{"question": "q", "answers": [{"text": "a"}]}]}]}]}"#;
    sandbox.write("data/prompt_data/v1.1/train-v1.1.json", file);
    sandbox.write("data/prompt_data/v1.1/dev-v1.1.json", file);
    sandbox.script("worker.sh", "exit 0");
    sandbox.write("model/config.json", "{}");
    let worker = format!("ptune_path={}", sandbox.path("worker.sh").display());
    let ran = sandbox.ptune(&[
        "prompt_learning=t5/squad",
        "cluster_type=interactive",
        "prompt_learning.model.language_model_path=model",
        &worker,
    ]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(
        sandbox.read("data/prompt_data/v1.1/squad_val.jsonl"),
        "{\"taskname\": \"squad\", \"context\": \"c\", \"question\": \"q\", \"answer\": \"a\"}\n"
    );
}

#[test]
fn the_data_preparation_stage_runs_by_itself() {
    let sandbox = Sandbox::new();
    let article = |title: &str| {
        format!(
            r#"{{"title": "{title}", "paragraphs": [{{"context": "c", "qas": [{{"question": "{title}?", "answers": [{{"text": "a"}}]}}]}}]}}"#
        )
    };
    sandbox.write(
        "x.json",
        format!(
            r#"{{"data": [{}, {}, {}]}}"#,
            article("one"),
            article("two"),
            article("three")
        ),
    );
    let ran = sandbox.ptune(&[
        "stages=[data_preparation]",
        "data_preparation=squad/prepare_xquad",
        "data_preparation.train_file=x.json",
        "data_preparation.train_articles=2",
        "cluster_type=interactive",
    ]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(
        sandbox
            .read("data/prompt_data/v1.1/squad_train.jsonl")
            .lines()
            .count(),
        2
    );
    assert!(
        sandbox
            .read("data/prompt_data/v1.1/squad_test.jsonl")
            .contains("three?")
    );
}

#[test]
fn a_folder_tells_how_its_job_stands() {
    let sandbox = Sandbox::new();
    sandbox.script(
        "worker.sh",
        "echo '04:05:06 INFO step 1' >> \"$PTUNE_LOG_FILE\"\n\
         printf 'error: a row is too long\\n  --> rows.jsonl:7\\n' >> \"$PTUNE_LOG_FILE\"\nexit 1",
    );
    assert_eq!(run(&sandbox, "interactive", &[]).status, Some(1));
    let ran = sandbox.ptune(&["status"]);
    assert_eq!(
        ran.stdout,
        "squad_t5_220m: failed (exit status 1), results/t5_220m/prompt_learning_squad\n    \
         error: a row is too long\n      --> rows.jsonl:7\n"
    );
    let ran = sandbox.ptune(&["logs", "results/t5_220m/prompt_learning_squad"]);
    assert!(
        ran.stdout.starts_with("04:05:06 INFO step 1\n"),
        "{}",
        ran.stdout
    );
    let ran = sandbox.ptune(&["cancel"]);
    assert_eq!(ran.status, Some(1));
    assert!(ran.stderr.contains("cannot be cancelled"), "{}", ran.stderr);
    let ran = sandbox.ptune(&["status", "nowhere"]);
    assert_eq!(ran.status, Some(2));
    assert!(
        ran.stderr.contains("no job was started in this folder"),
        "{}",
        ran.stderr
    );
}

#[cfg(unix)]
#[test]
fn a_running_job_can_be_cancelled_by_its_folder_and_saves_first() {
    let sandbox = Sandbox::new();
    sandbox.script(
        "worker.sh",
        "trap 'echo saved > saved; exit 75' TERM\necho started\nfor i in $(seq 200); do sleep 0.05; done",
    );
    let words = words(&sandbox, "interactive", &[]);
    let mut child = sandbox
        .command(&words.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut started = [0; 8];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut started)
        .unwrap();
    // The launcher notes the process just after it has started it.
    let is_running = || sandbox.ptune(&["status"]).stdout.contains(": running, ");
    assert!((0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        is_running()
    }));
    assert_eq!(sandbox.ptune(&["cancel"]).status, Some(0));
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert_eq!(sandbox.read("saved"), "saved\n");
    let ran = sandbox.ptune(&["status"]);
    assert!(
        ran.stdout.contains("stopped after saving"),
        "{}",
        ran.stdout
    );
}
