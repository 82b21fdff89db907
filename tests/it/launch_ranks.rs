//! The ranks of a job on this machine: their numbers, their output, their ends. Shell scripts stand in for the worker.
#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::sandbox::{Ran, Sandbox};

/// `ptune ranks` of a shell command.
fn ranks(sandbox: &Sandbox, count: &str, shell: &str) -> Ran {
    sandbox.ptune(&[
        "ranks", "--count", count, "--grace", "1", "--log", "log", "--", "bash", "-c", shell,
    ])
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn each_rank_knows_its_number_and_its_lines_carry_it() {
    let sandbox = Sandbox::new();
    let ran = ranks(
        &sandbox,
        "3",
        "echo $RANK $LOCAL_RANK of $WORLD_SIZE $LOCAL_WORLD_SIZE; printf 'no end of line' >&2",
    );
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(
        sorted(&ran.stdout),
        ["[0] 0 0 of 3 3", "[1] 1 1 of 3 3", "[2] 2 2 of 3 3"]
    );
    assert_eq!(
        sorted(&ran.stderr),
        [
            "[0] no end of line",
            "[1] no end of line",
            "[2] no end of line"
        ]
    );
    let log = sandbox.read("log");
    assert_eq!(log.lines().count(), 6, "{log}");
}

#[test]
fn one_rank_alone_is_not_tagged() {
    let sandbox = Sandbox::new();
    let ran = ranks(&sandbox, "1", "echo out; echo error >&2");
    assert_eq!((&*ran.stdout, &*ran.stderr), ("out\n", "error\n"));
}

#[test]
fn a_rank_that_ends_well_leaves_the_others_to_their_work() {
    let sandbox = Sandbox::new();
    let ran = ranks(
        &sandbox,
        "3",
        "[ $RANK -gt 0 ] && exit 0; sleep 2; echo worked",
    );
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stdout, "[0] worked\n");
}

#[test]
fn a_rank_that_fails_ends_the_others_and_its_exit_status_comes_back() {
    let sandbox = Sandbox::new();
    let start = Instant::now();
    let ran = ranks(
        &sandbox,
        "3",
        "case $RANK in 0) trap 'echo told; exit 4' TERM;; 1) sleep 0.5; exit 3;; 2) trap '' TERM;; esac\n\
         for i in $(seq 300); do sleep 0.1; done",
    );
    assert_eq!(ran.status, Some(3), "{}", ran.stderr);
    assert!(ran.stdout.contains("[0] told"), "{}", ran.stdout);
    assert!(
        ran.stderr
            .contains("rank 1 ended with exit status 3; the others are asked to end"),
        "{}",
        ran.stderr
    );
    // Rank 2 does not listen: it was killed after the second of grace.
    assert!(start.elapsed() < Duration::from_secs(15));
    let ran = ranks(&sandbox, "2", "[ $RANK = 1 ] && kill -KILL $$; sleep 20");
    assert_eq!(ran.status, Some(137), "{}", ran.stderr);
}

#[test]
fn a_command_that_is_not_there_is_named() {
    let sandbox = Sandbox::new();
    let ran = sandbox.expect(&["ranks", "--count", "2", "--", "/no/such"], 1);
    assert!(
        ran.stderr.contains("starting rank 0: `/no/such`"),
        "{}",
        ran.stderr
    );
}

/// Words of an `interactive` job of two ranks whose inputs are all there.
fn job(sandbox: &Sandbox, worker: &str) -> Vec<String> {
    sandbox.write("model/config.json", "{}");
    sandbox.write("rows.jsonl", "");
    sandbox.script("worker.sh", worker);
    let path = format!("ptune_path={}", sandbox.path("worker.sh").display());
    [
        "prompt_learning=t5/squad",
        "prompt_learning.model.language_model_path=model",
        "prompt_learning.model.data.train_ds=[rows.jsonl]",
        "prompt_learning.model.data.validation_ds=[rows.jsonl]",
        "prompt_learning.trainer.devices=2",
        "cluster_type=interactive",
        &path,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn started(
    sandbox: &Sandbox,
    words: &[String],
    lines: usize,
) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = sandbox
        .command(&words.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    for _ in 0..lines {
        out.read_line(&mut String::new()).unwrap();
    }
    (child, out)
}

#[test]
fn every_signal_reaches_every_rank_of_a_job() {
    for (signal, status) in [("TERM", 75), ("INT", 75), ("USR1", 75)] {
        let sandbox = Sandbox::new();
        let words = job(
            &sandbox,
            &format!(
                // No `$(…)` once it has started: bash ends, trap or not, when SIGINT ends one.
                "trap 'echo $RANK >> told; sleep 0.3; exit 75' {signal}\necho started\n\
                 for i in {{1..300}}; do sleep 0.05; done"
            ),
        );
        let (mut child, _out) = started(&sandbox, &words, 2);
        let kill = std::process::Command::new("kill")
            .args([&format!("-{signal}"), &child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(status), "{signal}");
        // Once each: a second signal would end a worker that is saving.
        assert_eq!(sorted(&sandbox.read("told")), ["0", "1"], "{signal}");
    }
}

#[test]
fn a_rank_that_a_passed_on_signal_ends_does_not_hurry_the_one_that_saves() {
    let sandbox = Sandbox::new();
    let words = job(
        &sandbox,
        "[ $RANK = 0 ] && trap 'sleep 2; echo saved > saved; exit 75' USR1\necho started\n\
         for i in $(seq 300); do sleep 0.05; done",
    );
    let (mut child, _out) = started(&sandbox, &words, 2);
    let kill = std::process::Command::new("kill")
        .args(["-USR1", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert_eq!(sandbox.read("saved"), "saved\n");
}

#[test]
fn the_command_line_decides_how_many_ranks_run_here_and_the_log_holds_them_all() {
    let sandbox = Sandbox::new();
    let words = job(
        &sandbox,
        "echo \"rank $RANK of $WORLD_SIZE\"; cp \"$4\" saved.yaml; exit $RANK",
    );
    let ran = sandbox.ptune(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ran.status, Some(1), "{}", ran.stderr);
    assert_eq!(
        sorted(&ran.stdout),
        ["[0] rank 0 of 2", "[1] rank 1 of 2"],
        "{}",
        ran.stderr
    );
    let saved: serde_yaml::Value = serde_yaml::from_str(&sandbox.read("saved.yaml")).unwrap();
    assert_eq!(saved["trainer"]["devices"], 2);
    assert_eq!(saved["trainer"]["num_nodes"], 1);
    let ran = sandbox.ptune(&["logs"]);
    assert!(ran.stdout.contains("[1] rank 1 of 2\n"), "{}", ran.stdout);
    // The script is whole: it does the same by hand.
    let script = "results/t5_220m/prompt_learning_squad/squad_t5_220m_submission.sh";
    let by_hand = std::process::Command::new("bash")
        .arg(sandbox.path(script))
        .current_dir(sandbox.path(""))
        .output()
        .unwrap();
    assert_eq!(by_hand.status.code(), Some(1));
    assert_eq!(
        sorted(&String::from_utf8_lossy(&by_hand.stdout)),
        ["[0] rank 0 of 2", "[1] rank 1 of 2"]
    );
}

#[test]
fn several_nodes_are_refused_where_there_is_one() {
    let sandbox = Sandbox::new();
    let mut words = job(&sandbox, "exit 0");
    words.push("prompt_learning.trainer.num_nodes=2".to_owned());
    let ran = sandbox.expect(&words.iter().map(String::as_str).collect::<Vec<_>>(), 2);
    assert!(
        ran.stderr
            .contains("asks for 2 nodes, and `cluster_type=interactive` has this one"),
        "{}",
        ran.stderr
    );
}
