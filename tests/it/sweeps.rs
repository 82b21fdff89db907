//! `ptune --multirun`: every combination is a job with a results folder of its own, and nothing is written while one of
//! them is wrong. The worker is a shell script.

use crate::sandbox::{Ran, Sandbox};

const OWN_FOLDERS: &str = "prompt_learning.run.results_dir=results/job_${hydra:job.num}";
const RATES: &str = "prompt_learning.model.optim.lr=1e-4,3e-4";

fn sweep(sandbox: &Sandbox, cluster_type: &str, more: &[&str]) -> Ran {
    sandbox.write("model/config.json", "{}");
    sandbox.write("rows.jsonl", "");
    let cluster_type = format!("cluster_type={cluster_type}");
    let worker = format!("ptune_path={}", sandbox.path("worker.sh").display());
    let mut words = vec![
        "-m",
        "hydra.sweep.dir=sweep",
        "hydra.hydra_logging.formatters.simple.format='%(message)s'",
        "prompt_learning=t5/squad",
        "prompt_learning.model.language_model_path=model",
        "prompt_learning.model.data.train_ds=[rows.jsonl]",
        "prompt_learning.model.data.validation_ds=[rows.jsonl]",
        &cluster_type,
        &worker,
    ];
    words.extend(more);
    sandbox.ptune(&words)
}

#[test]
fn every_combination_runs_in_a_folder_of_its_own_and_a_table_says_where() {
    let sandbox = Sandbox::new();
    sandbox.script("worker.sh", "grep '  lr:' \"$4\" >> rates");
    let ran = sweep(&sandbox, "interactive", &[RATES, OWN_FOLDERS]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(
        sandbox.read("rates").replace(' ', ""),
        "lr:0.0001\nlr:0.0003\n"
    );
    assert!(
        ran.stdout.starts_with("Launching 2 jobs locally\n\t#0 : "),
        "{}",
        ran.stdout
    );
    for number in 0..2 {
        let folder = format!("results/job_{number}");
        assert!(sandbox.path(&folder).join("job.json").is_file());
        assert!(
            ran.stdout.contains(&format!("/sandbox/{folder}\n")),
            "{}",
            ran.stdout
        );
    }
    assert!(sandbox.path("sweep/multirun.yaml").is_file());
}

#[test]
fn two_jobs_with_one_folder_are_refused_before_anything_is_written() {
    let sandbox = Sandbox::new();
    let ran = sweep(&sandbox, "interactive", &[RATES]);
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("jobs 0 and 1 of the sweep would both write"),
        "{}",
        ran.stderr
    );
    assert!(!sandbox.path("results").exists() && !sandbox.path("sweep").exists());
    // The hint does what it says.
    let hint = ran.stderr.split("its number: '").nth(1).unwrap();
    let word = hint.split('\'').next().unwrap().replace("/sandbox/", "");
    sandbox.script("worker.sh", "exit 0");
    let ran = sweep(&sandbox, "interactive", &[RATES, &word]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
}

#[test]
fn a_wrong_value_of_the_last_job_stops_all_of_them() {
    let sandbox = Sandbox::new();
    sandbox.script("worker.sh", "echo ran >> calls");
    let rates = "prompt_learning.model.optim.lr=1e-4,fast";
    let ran = sweep(&sandbox, "interactive", &[rates, OWN_FOLDERS]);
    assert_eq!(ran.status, Some(2), "{}", ran.stdout);
    assert!(ran.stderr.contains("job 1"), "{}", ran.stderr);
    assert!(!sandbox.path("calls").exists() && !sandbox.path("results").exists());
}

#[test]
fn a_failed_job_does_not_keep_the_others_from_running_and_its_status_comes_back() {
    let sandbox = Sandbox::new();
    sandbox.script(
        "worker.sh",
        "echo ran >> calls; grep -q 'lr: 0.0003' \"$4\" || exit 3",
    );
    let ran = sweep(&sandbox, "interactive", &[RATES, OWN_FOLDERS]);
    assert_eq!(ran.status, Some(3), "{}", ran.stderr);
    assert_eq!(sandbox.read("calls"), "ran\nran\n");
    // One that was told to stop ends the sweep.
    let sandbox = Sandbox::new();
    sandbox.script("worker.sh", "echo ran >> calls; exit 75");
    let ran = sweep(&sandbox, "interactive", &[RATES, OWN_FOLDERS]);
    assert_eq!(ran.status, Some(75), "{}", ran.stderr);
    assert_eq!(sandbox.read("calls"), "ran\n");
}

#[test]
fn a_dry_run_shows_the_scripts_of_all_jobs() {
    let sandbox = Sandbox::new();
    let ran = sweep(&sandbox, "bcm", &[RATES, OWN_FOLDERS, "--dry-run"]);
    assert!(ran.stdout.contains("#!/bin/bash"), "{}", ran.stderr);
    assert!(
        ran.stdout.contains("#SBATCH --array=0-1\n"),
        "{}",
        ran.stdout
    );
    for number in 0..2 {
        let script = format!("results/job_{number}/nemo-megatron-squad_t5_220m_submission.sh");
        assert!(
            ran.stdout.contains(&format!("  /sandbox/{script}\n")),
            "{}",
            ran.stdout
        );
        assert!(
            sandbox
                .read(&script)
                .contains(&format!("results/job_{number}/log-"))
        );
    }
}
