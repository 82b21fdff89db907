//! Handing a script over: to `sbatch`, or to a shell here whose exit status is the job's.

use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, anyhow};
use tokio::process::Command;

use super::ClusterType;
#[cfg(unix)]
use super::signals;
use super::slurm::parse_job_id;
use crate::diag::Diagnostic;

pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")
}

/// Gives `script` to `sbatch` and returns the job's number.
///
/// # Errors
/// There is no `sbatch`, it refuses the job, or its answer has no number.
pub fn sbatch(script: &Path) -> Result<String> {
    runtime()?.block_on(async {
        let output = Command::new("sbatch")
            .arg(script)
            // A job that is put back into the queue writes on in its logs.
            .env("SBATCH_OPEN_MODE", "append")
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => no_slurm(),
                _ => anyhow!(error).context("running `sbatch`"),
            })?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let mut diagnostic = Diagnostic::job(format!("sbatch refused `{}`", script.display()));
            for line in stderr
                .lines()
                .filter(|line| !line.trim().is_empty())
                .take(10)
            {
                diagnostic = diagnostic.note(line.trim().to_owned());
            }
            // The first message of every cluster without GPUs, or whose GPUs Slurm does not count.
            if stderr.contains("generic resource") {
                diagnostic = diagnostic.hint("cluster.gpus_per_node=null");
            }
            return Err(diagnostic.into());
        }
        parse_job_id(&stdout).ok_or_else(|| {
            Diagnostic::job("sbatch took the job and did not say its number")
                .note(format!("it printed: {}", stdout.trim()))
                .hint("see `squeue --me` for the job")
                .into()
        })
    })
}

fn no_slurm() -> anyhow::Error {
    Diagnostic::configuration("there is no `sbatch` on this machine, and `cluster_type` is `bcm`")
        .hint("run this on a login node of the cluster")
        .hint("or run the stages here: cluster_type=interactive")
        .hint("or see the scripts without submitting them: --dry-run")
        .into()
}

/// Whether what takes the jobs of a cluster can be found: `sbatch`, or `bcprun`.
///
/// # Errors
/// It cannot.
pub fn require_scheduler(cluster_type: ClusterType) -> Result<()> {
    let path = crate::sys::env_vars::get("PATH").unwrap_or_default();
    let is_there =
        |program| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    match cluster_type {
        ClusterType::Slurm if !is_there("sbatch") => Err(no_slurm()),
        ClusterType::Bcp if !is_there("bcprun") => Err(Diagnostic::configuration(
            "there is no `bcprun` on this machine, and `cluster_type` is `bcp`",
        )
        .hint("run this inside a multi-node job of Base Command Platform")
        .hint("or run the stages on this machine alone: cluster_type=interactive")
        .hint("or see the scripts without running them: --dry-run")
        .into()),
        _ => Ok(()),
    }
}

/// Runs `script` here, in a process group of its own, and waits for it. SIGINT, SIGTERM and SIGUSR1 are passed on, once
/// each time, so that the job can save and end; the launcher itself stays until it has. `started` is told the number of
/// the process, which is also that of its group.
///
/// # Errors
/// `bash` cannot be started.
pub fn run_here(script: &Path, started: &mut dyn FnMut(u32) -> Result<()>) -> Result<i32> {
    runtime()?.block_on(async {
        let mut command = Command::new("bash");
        command.arg(script);
        #[cfg(unix)]
        command.process_group(0);
        #[cfg(unix)]
        let mut signals = signals::Forwarded::listen()?;
        let mut child = command
            .spawn()
            .with_context(|| format!("running `bash {}`", script.display()))?;
        if let Some(id) = child.id() {
            started(id)?;
        }
        loop {
            #[cfg(unix)]
            tokio::select! {
                status = child.wait() => return Ok(exit_status(status?)),
                signal = signals.next() => signals::send_to_group(child.id(), signal),
            }
            #[cfg(not(unix))]
            return Ok(exit_status(child.wait().await?));
        }
    })
}

/// As a shell shows it: 128 and the signal's number for a process that a signal ended.
pub(super) fn exit_status(status: ExitStatus) -> i32 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return 128 + signal;
    }
    status.code().unwrap_or(1)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn run(text: &str) -> i32 {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("a.sh");
        fs_err::write(&script, text).unwrap();
        run_here(&script, &mut |_| Ok(())).unwrap()
    }

    #[test]
    fn the_exit_status_of_a_script_comes_back() {
        assert_eq!(run("exit 0"), 0);
        assert_eq!(run("exit 75"), 75);
        assert_eq!(run("kill -KILL $$"), 137);
        a_signal_sent_to_the_launcher_reaches_the_script_which_may_finish();
    }

    /// Not a test of its own: signals belong to the whole process, and tests of one process run at the same time.
    fn a_signal_sent_to_the_launcher_reaches_the_script_which_may_finish() {
        // The script signals its parent, this test process, which passes the signal on.
        let status = run(
            "trap 'exit 75' USR1\nkill -USR1 $PPID\nfor i in $(seq 100); do sleep 0.05; done\nexit 1",
        );
        assert_eq!(status, 75);
    }
}
