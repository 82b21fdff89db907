//! Jobs one can follow: `status`, `logs` and `cancel`, with recorders in place of Slurm's programs that answer as those do.

use crate::sandbox::{Ran, Sandbox};

/// What `prompt_learning` needs to be launched, its worker a script.
fn words(sandbox: &Sandbox, cluster_type: &str, worker: &str, more: &[&str]) -> Vec<String> {
    sandbox.write("model/config.json", "{}");
    sandbox.write("rows.jsonl", "");
    sandbox.script("worker.sh", worker);
    let mut words = [
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
    words.push(format!(
        "ptune_path={}",
        sandbox.path("worker.sh").display()
    ));
    words.extend(more.iter().map(|word| (*word).to_owned()));
    words
}

/// Runs ptune with `bin` in front of `PATH`.
fn run(sandbox: &Sandbox, words: &[&str]) -> Ran {
    let path = ptune::sys::env_vars::get("PATH").unwrap();
    let path = format!("{}:{path}", sandbox.path("bin").display());
    let mut command = sandbox.command(words);
    sandbox.ran(command.env("PATH", path).output().unwrap())
}

fn launch(sandbox: &Sandbox, words: &[String]) -> Ran {
    run(
        sandbox,
        &words.iter().map(String::as_str).collect::<Vec<_>>(),
    )
}

const BOTH: &str = "stages=[prompt_learning,evaluation]";

/// Recorders of a Slurm whose controller has forgotten the job and whose accounting says `lines`.
fn slurm(sandbox: &Sandbox, lines: &str) {
    sandbox.script("bin/sbatch", "echo Submitted batch job 45");
    sandbox.script(
        "bin/scontrol",
        "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1",
    );
    sandbox.script("bin/squeue", "exit 0");
    sandbox.script(
        "bin/sacct",
        &format!("echo \"$@\" > sacct.arguments\nprintf '{lines}'"),
    );
}

#[test]
fn the_accounting_says_how_a_forgotten_job_ended() {
    let sandbox = Sandbox::new();
    slurm(&sandbox, "");
    let job = words(&sandbox, "bcm", "exit 0", &[]);
    assert_eq!(launch(&sandbox, &job).status, Some(0));
    for (lines, expected) in [
        (
            "45|COMPLETED|0:0\\n45.batch|COMPLETED|0:0\\n45.0|COMPLETED|0:0\\n",
            "done",
        ),
        (
            "45|FAILED|1:0\\n45.batch|FAILED|1:0\\n",
            "failed (exit status 1)",
        ),
        (
            "45|FAILED|1:0\\n45.0|OUT_OF_MEMORY|0:125\\n",
            "ended: out of memory",
        ),
        ("45|OUT_OF_MEMORY|0:125\\n", "ended: out of memory"),
        (
            "45|CANCELLED by 1000|0:0\\n45.batch|CANCELLED|0:15\\n",
            "cancelled",
        ),
        (
            "45|TIMEOUT|0:0\\n45.batch|CANCELLED|0:15\\n",
            "ended by its time limit",
        ),
        ("45|PREEMPTED|0:0\\n", "pre-empted"),
        (
            "45|NODE_FAIL|1:0\\n45.batch|CANCELLED|\\n",
            "ended: its node failed",
        ),
        ("", "unknown (Slurm no longer knows job 45)"),
    ] {
        slurm(&sandbox, lines);
        let said = run(&sandbox, &["status"]).stdout;
        assert_eq!(
            said.lines().next().unwrap(),
            format!(
                "nemo-megatron-squad_t5_220m (job 45): {expected}, results/t5_220m/prompt_learning_squad"
            ),
            "{lines}"
        );
    }
    assert_eq!(
        sandbox.read("sacct.arguments"),
        "-nP -j 45 -o JobID,State,ExitCode\n"
    );
    // A controller that is down is not a job that is forgotten.
    sandbox.script(
        "bin/scontrol",
        "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1",
    );
    sandbox.script("bin/sacct", "exit 1");
    let said = run(&sandbox, &["status"]).stdout;
    assert!(
        said.contains("unknown (Slurm does not answer: slurm_load_jobs error: Unable"),
        "{said}"
    );
}

#[test]
fn words_in_the_log_tell_an_end_that_nobody_knows_any_more() {
    let sandbox = Sandbox::new();
    slurm(&sandbox, "");
    let job = words(&sandbox, "bcm", "exit 0", &[]);
    assert_eq!(launch(&sandbox, &job).status, Some(0));
    for (line, expected) in [
        (
            "slurmstepd: error: Detected 1 oom_kill event in StepId=45.0. Some of the step tasks have been OOM Killed.",
            "ended: out of memory",
        ),
        (
            "slurmstepd: error: *** STEP 45.0 ON n1 CANCELLED AT 2026-11-23T10:00:00 DUE TO TIME LIMIT ***",
            "ended by its time limit",
        ),
        (
            "slurmstepd: error: *** JOB 45 ON n1 CANCELLED AT 2026-11-23T10:00:00 DUE TO PREEMPTION ***",
            "pre-empted",
        ),
        (
            "slurmstepd: error: *** JOB 45 ON n1 CANCELLED AT 2026-11-23T10:00:00 DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***",
            "ended: its node failed",
        ),
    ] {
        sandbox.write(
            "results/t5_220m/prompt_learning_squad/log-nemo-megatron-squad_t5_220m_45.err",
            format!("step 1\n{line}\nsrun: error: n1: task 0: Killed\n"),
        );
        let said = run(&sandbox, &["status"]).stdout;
        assert!(said.contains(&format!(": {expected}, ")), "{said}");
    }
}

#[test]
fn commands_without_a_folder_mean_the_last_launch_wherever_its_results_are() {
    let sandbox = Sandbox::new();
    let away = sandbox.path("away from here");
    let base = format!("base_results_dir=\"{}\"", away.display());
    let job = words(
        &sandbox,
        "interactive",
        "echo hello >> \"$PTUNE_LOG_FILE\"",
        &[&base],
    );
    let ran = launch(&sandbox, &job);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let folder = "/sandbox/away from here/t5_220m/prompt_learning_squad";
    assert_eq!(
        sandbox.ptune(&["status"]).stdout,
        format!("squad_t5_220m: done, {folder}\n")
    );
    let ran = sandbox.ptune(&["logs"]);
    assert_eq!(ran.stdout, "hello\n");
    assert_eq!(ran.stderr, format!("squad_t5_220m in {folder}\n"));
    // A dry run is no launch.
    let mut dry = words(
        &sandbox,
        "interactive",
        "exit 0",
        &["base_results_dir=elsewhere"],
    );
    dry.push("--dry-run".to_owned());
    launch(&sandbox, &dry);
    assert_eq!(sandbox.ptune(&["logs"]).stdout, "hello\n");
}

#[cfg(unix)]
#[test]
fn a_chain_here_tells_of_each_stage_while_it_runs_and_afterwards() {
    use std::io::Read;
    for cluster_type in ["interactive", "bcp"] {
        let sandbox = Sandbox::new();
        sandbox.script(
            "bin/bcprun",
            "while [ \"$1\" != --cmd ]; do shift; done; exec bash -c \"$2\"",
        );
        let job = words(
            &sandbox,
            cluster_type,
            "echo started; trap 'exit 75' TERM; for i in $(seq 200); do sleep 0.05; done",
            &[BOTH],
        );
        let path = ptune::sys::env_vars::get("PATH").unwrap();
        let mut child = sandbox
            .command(&job.iter().map(String::as_str).collect::<Vec<_>>())
            .env("PATH", format!("{}:{path}", sandbox.path("bin").display()))
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
        let said = (0..100)
            .map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(20));
                sandbox.ptune(&["status"]).stdout
            })
            .find(|said| said.contains("squad_t5_220m: running, "))
            .expect("it runs");
        assert!(
            said.contains("eval_squad_t5_220m: waits for the stage before it, "),
            "{cluster_type}: {said}"
        );
        let ran = sandbox.ptune(&["cancel"]);
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        assert_eq!(child.wait().unwrap().code(), Some(75), "{cluster_type}");
        let said = sandbox.ptune(&["status"]).stdout;
        assert!(
            said.contains("squad_t5_220m: stopped after saving, "),
            "{said}"
        );
        assert!(
            said.contains(
                "eval_squad_t5_220m: will never start: the job before it did not end well, "
            ),
            "{said}"
        );
        assert_eq!(sandbox.ptune(&["cancel"]).status, Some(1));
        if cluster_type == "bcp" {
            let log = sandbox.ptune(&["logs"]).stdout;
            assert!(log.starts_with("started\n"), "{log}");
        }
    }
}

#[test]
fn cancel_without_a_folder_ends_every_job_of_the_last_launch() {
    let sandbox = Sandbox::new();
    sandbox.script(
        "bin/sbatch",
        "n=$(($(cat count 2>/dev/null || echo 40) + 1)); echo $n > count; echo \"Submitted batch job $n\"",
    );
    sandbox.script(
        "bin/scontrol",
        "echo \"JobId=$4 JobState=PENDING Reason=Dependency ExitCode=0:0\"",
    );
    sandbox.script("bin/scancel", "echo \"$@\" >> cancelled");
    for folder in ["first", "second"] {
        let base = format!("base_results_dir={folder}");
        let job = words(&sandbox, "bcm", "exit 0", &[BOTH, &base]);
        assert_eq!(launch(&sandbox, &job).status, Some(0));
    }
    let ran = run(&sandbox, &["cancel"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let cancelled = sandbox.read("cancelled");
    let mut cancelled: Vec<&str> = cancelled.lines().collect();
    cancelled.sort_unstable();
    assert_eq!(cancelled, ["43", "44"], "{}", ran.stdout);
}

/// Every argument, ended by a NUL, then what follows `--cmd` on each of the tasks that were asked for.
const RECORDER_FOR_BCPRUN: &str = r#"printf '%s\0' "$@" >> bcprun.arguments; printf '\0' >> bcprun.arguments
nodes=$2; tasks=$4
while [ "$1" != --cmd ]; do shift; done
pids=()
for ((RANK = 0; RANK < nodes * tasks; RANK++)); do export RANK; bash -c "$2" & pids+=($!); done
status=0
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit $status
"#;

#[test]
fn bcprun_gets_every_argument_as_it_was_meant_and_each_stage_its_own_size() {
    let sandbox = Sandbox::new();
    sandbox.script("bin/bcprun", RECORDER_FOR_BCPRUN);
    let base = format!(
        "base_results_dir=\"{}\"",
        sandbox.path("it's $HOME").display()
    );
    let job = words(
        &sandbox,
        "bcp",
        // Bash writes a text of two lines in two pieces, and four tasks write at a time: to a file each.
        "printf '%s %s [%s]\\n' \"$2\" \"$RANK\" \"$ODD\" > \"seen.$2.$RANK\"; [ \"$2\" = prompt_learning ] || exit 5",
        &[
            BOTH,
            &base,
            "bcp_no_redirect=False",
            "+env_vars.ODD=\"a  b'c\\\"d $HOME `id`\n e\"",
            "prompt_learning.trainer.num_nodes=2",
            "prompt_learning.trainer.devices=2",
            "evaluation.trainer.devices=1",
        ],
    );
    let ran = launch(&sandbox, &job);
    assert_eq!(ran.status, Some(5), "{}", ran.stderr);
    let arguments = sandbox.read("bcprun.arguments");
    let calls: Vec<Vec<&str>> = arguments
        .split_terminator("\0\0")
        .map(|call| call.split('\0').collect())
        .collect();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0][..4], ["--nnodes", "2", "--npernode", "2"]);
    assert_eq!(calls[1][..4], ["--nnodes", "1", "--npernode", "1"]);
    assert!(!arguments.contains("-no_redirect"));
    let odd = calls[0]
        .iter()
        .find_map(|word| word.strip_prefix("ODD="))
        .expect("the variable");
    assert_eq!(odd, "a  b'c\"d $HOME `id`\n e");
    for (stage, rank) in [
        ("prompt_learning", 0),
        ("prompt_learning", 3),
        ("evaluation", 0),
    ] {
        let seen = sandbox.read(&format!("seen.{stage}.{rank}"));
        assert_eq!(seen, format!("{stage} {rank} [{odd}]\n"));
    }
    for call in &calls {
        let at = call.iter().position(|word| *word == "--env").unwrap();
        assert_eq!(at, 4, "{call:?}");
        assert_eq!(call[call.len() - 2], "--cmd");
        assert!(
            call[4..call.len() - 2]
                .chunks(2)
                .all(|pair| pair[0] == "--env" && pair[1].contains('='))
        );
    }
}

#[test]
fn a_bcp_chain_ends_with_its_first_failure_and_a_redirected_launch_holds_all_output() {
    let sandbox = Sandbox::new();
    sandbox.script("bin/bcprun", RECORDER_FOR_BCPRUN);
    let job = words(
        &sandbox,
        "bcp",
        "echo out; echo 'error: no such model' >&2; exit 4",
        &[BOTH, "prompt_learning.trainer.devices=1"],
    );
    let quoted: Vec<String> = job
        .iter()
        .map(|word| format!("'{}'", word.replace('\'', "'\"'\"'")))
        .collect();
    let line = format!("\"$PTUNE\" {} >> log.txt 2>&1", quoted.join(" "));
    let path = ptune::sys::env_vars::get("PATH").unwrap();
    let status = std::process::Command::new("bash")
        .args(["-c", &line])
        .current_dir(sandbox.path(""))
        .env("PATH", format!("{}:{path}", sandbox.path("bin").display()))
        .env("PTUNE", env!("CARGO_BIN_EXE_ptune"))
        .env("PTUNE_OFFLINE", "1")
        .env("XDG_STATE_HOME", sandbox.path("state"))
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(4));
    let log = sandbox.read("log.txt");
    for part in ["out\n", "error: no such model\n", "not started: evaluation"] {
        assert!(log.contains(part), "no `{part}` in\n{log}");
    }
    let said = sandbox.ptune(&["status"]).stdout;
    assert!(
        said.contains("squad_t5_220m: failed (exit status 4), ")
            && said.contains("    error: no such model\n"),
        "{said}"
    );
}

#[test]
fn a_machine_without_the_scheduler_says_so_before_anything_is_written() {
    for (cluster_type, program) in [("bcp", "bcprun"), ("bcm", "sbatch")] {
        let sandbox = Sandbox::new();
        let job = words(&sandbox, cluster_type, "exit 0", &[]);
        let mut command = sandbox.command(&job.iter().map(String::as_str).collect::<Vec<_>>());
        let ran = sandbox.ran(command.env("PATH", "/nowhere").output().unwrap());
        assert_eq!(ran.status, Some(2), "{}", ran.stderr);
        assert!(
            ran.stderr
                .contains(&format!("there is no `{program}` on this machine")),
            "{}",
            ran.stderr
        );
        assert!(!sandbox.path("results").exists());
    }
}
