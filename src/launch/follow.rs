//! What has become of a job, from the manifest in its results folder and from the scheduler.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::diag::{Diagnostic, Location};
use crate::schema::JobManifest;
use crate::sys::shutdown::EXIT_STOPPED;

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Written and never handed over (a dry run).
    Written,
    /// In the queue, with Slurm's reason.
    Queued(String),
    /// In the queue for good: the job it waits for did not end as it had to.
    NeverStarts,
    /// Running.
    Running,
    /// Ended well.
    Done,
    /// Told to stop; its state is saved, and the same command goes on from there.
    Stopped,
    /// Ended badly.
    Failed(String),
    /// Cancelled by somebody.
    Cancelled,
    /// Ran into its time limit.
    TimeLimit,
    /// Killed for memory.
    OutOfMemory,
    /// Displaced by a job of higher priority.
    Preempted,
    /// Its node failed.
    NodeFailure,
    /// Nobody knows any more.
    Unknown(String),
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written => f.write_str("written, not handed over"),
            Self::Queued(reason) if reason.is_empty() || reason == "None" => f.write_str("queued"),
            Self::Queued(reason) => write!(f, "queued ({reason})"),
            Self::NeverStarts => {
                f.write_str("will never start: the job before it did not end well")
            }
            Self::Running => f.write_str("running"),
            Self::Done => f.write_str("done"),
            Self::Stopped => f.write_str("stopped after saving"),
            Self::Failed(how) => write!(f, "failed ({how})"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::TimeLimit => f.write_str("ended by its time limit"),
            Self::OutOfMemory => f.write_str("ended: out of memory"),
            Self::Preempted => f.write_str("pre-empted"),
            Self::NodeFailure => f.write_str("ended: its node failed"),
            Self::Unknown(why) => write!(f, "unknown ({why})"),
        }
    }
}

impl JobState {
    /// Whether its logs may say why it ended.
    pub fn is_bad_end(&self) -> bool {
        matches!(
            self,
            Self::Failed(_) | Self::TimeLimit | Self::OutOfMemory | Self::NodeFailure
        )
    }

    /// Whether nothing more will happen by itself.
    pub fn has_ended(&self) -> bool {
        !matches!(self, Self::Queued(_) | Self::Running)
    }
}

/// Reads the manifest of a results folder.
///
/// # Errors
/// There is none, or it is not one of ours.
pub fn read_manifest(folder: &Path) -> Result<JobManifest> {
    let path = folder.join(JobManifest::FILE_NAME);
    if !path.is_file() {
        return Err(
            Diagnostic::configuration("no job was started in this folder")
                .at(Location::file(folder.display()))
                .note(format!(
                    "a results folder holds a `{}`",
                    JobManifest::FILE_NAME
                ))
                .into(),
        );
    }
    let text = fs_err::read_to_string(&path)?;
    serde_json::from_str(&text).with_context(|| format!("reading `{}`", path.display()))
}

/// The results folders below `folder`, the one of the newest job first; not deeper than `depth`.
pub fn find_folders(folder: &Path, depth: usize) -> Vec<PathBuf> {
    fn collect(folder: &Path, depth: usize, found: &mut Vec<(std::time::SystemTime, PathBuf)>) {
        let Ok(entries) = fs_err::read_dir(folder) else {
            return;
        };
        for entry in entries.flatten() {
            if entry.file_name() == JobManifest::FILE_NAME {
                let time = entry.metadata().and_then(|data| data.modified());
                found.extend(time.ok().map(|time| (time, folder.to_owned())));
            } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                collect(&entry.path(), depth - 1, found);
            }
        }
    }
    let mut found = vec![];
    collect(folder, depth, &mut found);
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// How a job stands now.
pub fn state(manifest: &JobManifest) -> JobState {
    if let Some(id) = &manifest.job_id {
        return slurm_state(id);
    }
    match (manifest.exit_status, manifest.process) {
        (Some(0), _) => JobState::Done,
        (Some(EXIT_STOPPED), _) => JobState::Stopped,
        (Some(status), _) => JobState::Failed(exit_text(status)),
        (None, Some(process)) if Path::new(&format!("/proc/{process}")).exists() => {
            JobState::Running
        }
        (None, Some(_)) => JobState::Unknown("its launcher was killed".to_owned()),
        (None, None) => JobState::Written,
    }
}

/// An exit status as a person reads it; a shell shows a signal as 128 and its number.
fn exit_text(status: i32) -> String {
    match status {
        137 => "killed, for memory or by somebody".to_owned(),
        129..=192 => format!("ended by signal {}", status - 128),
        _ => format!("exit status {status}"),
    }
}

fn answer(program: &str, words: &[&str]) -> Option<String> {
    let output = Command::new(program).args(words).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .filter(|text| !text.is_empty())
}

fn slurm_state(id: &str) -> JobState {
    let shown = answer("scontrol", &["show", "job", "-o", id]);
    let field = |name: &str| {
        let text = shown.as_deref()?;
        let at = text.find(&format!("{name}="))? + name.len() + 1;
        text[at..].split_whitespace().next().map(str::to_owned)
    };
    let (state, reason, exit) = match field("JobState") {
        Some(state) => (
            state,
            field("Reason").unwrap_or_default(),
            field("ExitCode").unwrap_or_default(),
        ),
        // A controller forgets a job some minutes after its end; the accounting, where there is one, does not. Where
        // users may not ask the controller, the queue still tells of jobs that have not ended.
        None if let Some(line) =
            answer("squeue", &["-h", "-t", "all", "-j", id, "-o", "%T|%r"]) =>
        {
            let (state, reason) = line.split_once('|').unwrap_or((line.as_str(), ""));
            (state.to_owned(), reason.to_owned(), String::new())
        }
        None => match answer("sacct", &["-nXP", "-j", id, "-o", "State,ExitCode"]) {
            Some(line) => {
                let line = line.lines().last().unwrap_or_default().to_owned();
                let (state, exit) = line.split_once('|').unwrap_or((line.as_str(), ""));
                (
                    state.split(' ').next().unwrap_or_default().to_owned(),
                    String::new(),
                    exit.to_owned(),
                )
            }
            None => return JobState::Unknown(format!("Slurm no longer knows job {id}")),
        },
    };
    classify(&state, &reason, &exit)
}

/// Slurm's words for a job's state, its reason and `status:signal`.
fn classify(state: &str, reason: &str, exit: &str) -> JobState {
    let status = exit.split(':').next().unwrap_or_default();
    match state.trim_end_matches('+') {
        "PENDING" | "CANCELLED" if reason == "DependencyNeverSatisfied" => JobState::NeverStarts,
        "PENDING" | "REQUEUED" | "REQUEUE_HOLD" | "SUSPENDED" | "CONFIGURING" => {
            JobState::Queued(reason.to_owned())
        }
        "RUNNING" | "COMPLETING" | "STAGE_OUT" => JobState::Running,
        "COMPLETED" => JobState::Done,
        "CANCELLED" => JobState::Cancelled,
        "TIMEOUT" | "DEADLINE" => JobState::TimeLimit,
        "OUT_OF_MEMORY" => JobState::OutOfMemory,
        "PREEMPTED" => JobState::Preempted,
        "NODE_FAIL" | "BOOT_FAIL" => JobState::NodeFailure,
        "FAILED" if status == EXIT_STOPPED.to_string() => JobState::Stopped,
        // What the kernel's killer leaves: 128 + SIGKILL.
        "FAILED" if status == "137" => JobState::OutOfMemory,
        "FAILED" => JobState::Failed(
            status
                .parse()
                .map_or_else(|_| "no exit status is known".to_owned(), exit_text),
        ),
        other => JobState::Unknown(other.to_lowercase()),
    }
}

/// The logs of a job that exist: output, then errors.
pub fn logs(manifest: &JobManifest) -> Vec<PathBuf> {
    let Some(log) = &manifest.log_file else {
        return vec![];
    };
    [log.clone(), log.with_extension("err")]
        .into_iter()
        .filter(|path| path.is_file())
        .collect()
}

/// The first lines of the last error in a job's logs: what a program of ours said, else what looks most like an error,
/// else the last lines of the error log.
pub fn first_error_lines(manifest: &JobManifest, count: usize) -> Vec<String> {
    let texts: Vec<String> = logs(manifest)
        .iter()
        .rev()
        .filter_map(|path| fs_err::read(path).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect();
    let lines: Vec<Vec<&str>> = texts.iter().map(|text| text.lines().collect()).collect();
    let excerpt = |lines: &[&str], at: usize| -> Vec<String> {
        lines[at..]
            .iter()
            // Slurm's own words about the tasks that ended come after.
            .take_while(|line| !line.starts_with("srun: error:"))
            .take(count)
            .map(|line| (*line).to_owned())
            .collect()
    };
    let looks_bad = |line: &&str| {
        [
            "error",
            "panicked at",
            "not found",
            "No such file",
            "Killed",
        ]
        .iter()
        .any(|word| line.contains(word))
            && !line.starts_with("srun: error:")
    };
    for lines in &lines {
        if let Some(at) = lines.iter().rposition(|line| line.starts_with("error: ")) {
            return excerpt(lines, at);
        }
    }
    for lines in &lines {
        if let Some(at) = lines.iter().position(looks_bad) {
            return excerpt(lines, at);
        }
    }
    lines.first().map_or_else(Vec::new, |lines| {
        lines[lines.len().saturating_sub(count)..]
            .iter()
            .map(|line| (*line).to_owned())
            .collect()
    })
}

/// Asks a job to end: Slurm's is cancelled, one on this machine gets SIGTERM and may save.
///
/// # Errors
/// The job is not running, or may not be ended by this user.
pub fn cancel(manifest: &JobManifest) -> Result<()> {
    let (program, words) = match (&manifest.job_id, manifest.process) {
        (Some(id), _) => ("scancel", vec![id.clone()]),
        (None, Some(process)) if state(manifest) == JobState::Running => (
            "kill",
            vec!["-TERM".to_owned(), "--".to_owned(), format!("-{process}")],
        ),
        _ => {
            return Err(Diagnostic::job(format!(
                "job `{}` cannot be cancelled: {}",
                manifest.job_name,
                state(manifest)
            ))
            .into());
        }
    };
    let output = Command::new(program)
        .args(&words)
        .output()
        .with_context(|| format!("running `{program}`"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(
            Diagnostic::job(format!("`{program} {}` failed", words.join(" ")))
                .note(String::from_utf8_lossy(&output.stderr).trim().to_owned())
                .into(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_slurm_job_is_told_apart() {
        for (state, exit, expected) in [
            ("COMPLETED", "0:0", "done"),
            ("FAILED", "1:0", "failed (exit status 1)"),
            ("FAILED", "75:0", "stopped after saving"),
            ("FAILED", "137:0", "ended: out of memory"),
            ("OUT_OF_MEMORY", "0:125", "ended: out of memory"),
            ("TIMEOUT", "0:0", "ended by its time limit"),
            ("PREEMPTED", "0:0", "pre-empted"),
            ("NODE_FAIL", "1:0", "ended: its node failed"),
            ("CANCELLED+", "0:0", "cancelled"),
        ] {
            assert_eq!(classify(state, "", exit).to_string(), expected);
        }
        assert_eq!(
            classify("PENDING", "Dependency", "0:0").to_string(),
            "queued (Dependency)"
        );
        assert!(!classify("RUNNING", "", "").has_ended());
        assert_eq!(
            classify("PENDING", "DependencyNeverSatisfied", "0:0"),
            JobState::NeverStarts
        );
        assert_eq!(
            classify("FAILED", "", "134:0").to_string(),
            "failed (ended by signal 6)"
        );
    }

    #[test]
    fn the_last_error_of_ours_is_shown_before_slurms_words_about_it() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a.out");
        fs_err::write(&log, "an error happened\nand more\n").unwrap();
        let manifest = JobManifest {
            ptune_version: String::new(),
            created: String::new(),
            command_line: vec![],
            choices: indexmap::IndexMap::new(),
            stage: crate::schema::WorkerJob::Evaluation,
            job_name: "a".into(),
            cluster_type: "bcm".into(),
            config_file: "a".into(),
            script_file: "a".into(),
            log_file: Some(log.clone()),
            job_id: None,
            process: None,
            exit_status: None,
        };
        assert_eq!(
            first_error_lines(&manifest, 3),
            ["an error happened", "and more"]
        );
        let error = "error: old\nerror: new\nhint: this\nsrun: error: n1: task 0: Exited with exit code 1\n";
        fs_err::write(log.with_extension("err"), error).unwrap();
        assert_eq!(
            first_error_lines(&manifest, 3),
            ["error: new", "hint: this"]
        );
    }
}
