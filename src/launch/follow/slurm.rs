//! What Slurm says about a job: the controller first, then the queue, then the accounting, where there is one.

use std::process::Command;

use super::{JobState, exit_text};
use crate::sys::shutdown::EXIT_STOPPED;

/// What a program printed, or why it did not.
fn answer(program: &str, words: &[&str]) -> Result<String, String> {
    let output = match Command::new(program).args(words).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(format!("there is no `{program}` on this machine"));
        }
        Err(error) => return Err(format!("`{program}`: {error}")),
    };
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !text.is_empty() {
        return Ok(text);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(words.lines().next().unwrap_or_default().trim().to_owned())
}

/// How job `id` stands; a task of an array is `ARRAY_TASK`.
pub(super) fn state(id: &str) -> JobState {
    let why = match answer("scontrol", &["show", "job", "-o", id]) {
        Ok(line) => match of_controller(&line) {
            Some(state) => return state,
            None => String::new(),
        },
        Err(why) => why,
    };
    // A controller forgets a job some minutes after its end; the accounting does not. Where users may not ask the
    // controller, the queue still tells of jobs that have not ended.
    if let Ok(line) = answer("squeue", &["-h", "-t", "all", "-j", id, "-o", "%T|%r"])
        && let Some((state, reason)) = line.lines().next().unwrap_or_default().split_once('|')
    {
        return classify(state, reason, "");
    }
    if let Ok(text) = answer("sacct", &["-nP", "-j", id, "-o", "JobID,State,ExitCode"])
        && let Some(state) = of_accounting(&text, id)
    {
        return state;
    }
    JobState::Unknown(if why.is_empty() || why.contains("Invalid job id") {
        format!("Slurm no longer knows job {id}")
    } else {
        format!("Slurm does not answer: {why}")
    })
}

/// A line of `scontrol show job -o`.
fn of_controller(line: &str) -> Option<JobState> {
    let field = |name: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    Some(classify(
        field("JobState")?,
        field("Reason").unwrap_or_default(),
        field("ExitCode").unwrap_or_default(),
    ))
}

/// Lines of `sacct -nP -o JobID,State,ExitCode`: the job, then its steps. A step that was killed for memory explains the
/// failure of its job.
fn of_accounting(text: &str, id: &str) -> Option<JobState> {
    let mut job = None;
    let mut step_was_killed = false;
    for line in text.lines() {
        let mut fields = line.split('|');
        let (Some(name), Some(state)) = (fields.next(), fields.next()) else {
            continue;
        };
        // `CANCELLED by 1000`
        let state = state.split(' ').next().unwrap_or_default();
        if name == id {
            job = Some(classify(state, "", fields.next().unwrap_or_default()));
        } else if state == "OUT_OF_MEMORY" {
            step_was_killed = true;
        }
    }
    match job? {
        JobState::Failed(_) if step_was_killed => Some(JobState::OutOfMemory),
        state => Some(state),
    }
}

/// Slurm's words for a job's state, its reason and `status:signal`.
fn classify(state: &str, reason: &str, exit: &str) -> JobState {
    let (status, signal) = exit.split_once(':').unwrap_or((exit, "0"));
    match state.trim_end_matches('+') {
        "PENDING" | "CANCELLED" if reason == "DependencyNeverSatisfied" => JobState::NeverStarts,
        "PENDING" | "REQUEUED" | "REQUEUE_FED" | "REQUEUE_HOLD" | "RESV_DEL_HOLD"
        | "SPECIAL_EXIT" | "SUSPENDED" | "CONFIGURING" => JobState::Queued(reason.to_owned()),
        "RUNNING" | "COMPLETING" | "RESIZING" | "SIGNALING" | "STAGE_OUT" | "STOPPED" => {
            JobState::Running
        }
        "COMPLETED" => JobState::Done,
        "CANCELLED" => JobState::Cancelled,
        "TIMEOUT" | "DEADLINE" => JobState::TimeLimit,
        "OUT_OF_MEMORY" => JobState::OutOfMemory,
        "PREEMPTED" => JobState::Preempted,
        "NODE_FAIL" | "BOOT_FAIL" => JobState::NodeFailure,
        "FAILED" if status == EXIT_STOPPED.to_string() => JobState::Stopped,
        // What the kernel's killer leaves: SIGKILL, told by a shell or by Slurm itself.
        "FAILED" if status == "137" || signal == "9" => JobState::OutOfMemory,
        "FAILED" if signal == "53" => {
            JobState::Failed("Slurm could not write its logs or start it on the node".to_owned())
        }
        "FAILED" => JobState::Failed(match (status.parse(), signal.parse::<i32>()) {
            (_, Ok(signal)) if signal != 0 => exit_text(128 + signal),
            (Ok(status), _) => exit_text(status),
            _ => "no exit status is known".to_owned(),
        }),
        other => JobState::Unknown(other.to_lowercase()),
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
            ("FAILED", "0:9", "ended: out of memory"),
            ("FAILED", "0:11", "failed (ended by signal 11)"),
            ("FAILED", "134:0", "failed (ended by signal 6)"),
            ("FAILED", "", "failed (no exit status is known)"),
            ("OUT_OF_MEMORY", "0:125", "ended: out of memory"),
            ("TIMEOUT", "0:0", "ended by its time limit"),
            ("PREEMPTED", "0:0", "pre-empted"),
            ("NODE_FAIL", "1:0", "ended: its node failed"),
            ("CANCELLED+", "0:0", "cancelled"),
        ] {
            assert_eq!(
                classify(state, "", exit).to_string(),
                expected,
                "{state} {exit}"
            );
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
    }

    #[test]
    fn lines_of_the_accounting_are_of_a_job_and_its_steps() {
        let of = |text| of_accounting(text, "45_1").map(|state| state.to_string());
        assert_eq!(
            of("45_1|CANCELLED by 1000|0:0\n45_1.batch|CANCELLED|0:15\n").as_deref(),
            Some("cancelled")
        );
        assert_eq!(
            of("45_1|FAILED|1:0\n45_1.batch|FAILED|1:0\n45_1.0|OUT_OF_MEMORY|0:125\n").as_deref(),
            Some("ended: out of memory")
        );
        assert_eq!(
            of("45_1|COMPLETED|0:0\n45_1.0|OUT_OF_MEMORY|0:125\n").as_deref(),
            Some("done")
        );
        assert_eq!(of("45_10|COMPLETED|0:0\n"), None);
    }
}
