//! What a script does about the end of its time and about being displaced: ask the tasks to save, go back into the
//! queue, and give up when nothing comes of it.

use anyhow::Result;
use minijinja::context;
use serde_yaml::Value;

use super::python_text;
use crate::diag::Diagnostic;
use crate::launch::quote::shell_quote;
use crate::launch::{Cluster, JobSpec};
use crate::schema::{ClusterSection, WorkerJob};
use crate::sys::clock::parse_slurm_time_limit;
use crate::sys::shutdown::EXIT_STOPPED;

/// What `srun` ends with when SIGKILL ended a task.
const EXIT_KILLED: i32 = 128 + 9;

/// What the template is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    /// Whether a job that saved and stopped goes back into the queue.
    requeue: bool,
    /// Times in a row that it may do so without having come further.
    limit: usize,
    /// The exit status that says so.
    stopped: i32,
    /// The exit status of tasks that were killed and may go on from what they saved before.
    killed: Option<i32>,
    /// Where the tasks keep what they have reached; quoted.
    state_folder: String,
    /// Where the script keeps its count; quoted.
    count_file: String,
}

impl Preemption {
    /// Key beside those of sbatch.
    pub const LIMIT_KEY: &'static str = "requeue_without_progress";
    /// The limit where none is given.
    const LIMIT: usize = 3;

    /// Fills in what a `cluster` file of the original does not know; null stays null.
    pub fn add_defaults(section: &mut ClusterSection) {
        for (key, value) in [
            ("signal", Value::from("USR1@120")),
            ("requeue", Value::from(true)),
        ] {
            section.directives.entry(key.to_owned()).or_insert(value);
        }
    }

    /// What `job` asks for, or nothing where its section wants neither signal nor requeueing.
    ///
    /// # Errors
    /// A limit that is not a number.
    pub(super) fn of(cluster: &Cluster, job: &JobSpec) -> Result<Option<Self>> {
        let directives = &cluster.section.directives;
        let is_on = |key| {
            directives
                .get(key)
                .is_some_and(|value| !value.is_null() && *value != Value::Bool(false))
        };
        let limit = match directives.get(Self::LIMIT_KEY) {
            None | Some(Value::Null) => Self::LIMIT,
            Some(value) => value
                .as_u64()
                .and_then(|limit| usize::try_from(limit).ok())
                .ok_or_else(|| {
                    Diagnostic::configuration(format!(
                        "`cluster.{}`: `{}` is not a number of times",
                        Self::LIMIT_KEY,
                        python_text(value)
                    ))
                })?,
        };
        if !is_on("signal") && !is_on("requeue") {
            return Ok(None);
        }
        let quoted = |path: std::path::PathBuf| shell_quote(&path.display().to_string());
        Ok(Some(Self {
            requeue: is_on("requeue"),
            limit,
            stopped: EXIT_STOPPED,
            killed: (job.stage == WorkerJob::PromptLearning).then_some(EXIT_KILLED),
            state_folder: quoted(job.state_folder.clone()),
            count_file: quoted(job.paths.folder.join(format!("{}_requeued", job.name))),
        }))
    }

    /// As the template knows them.
    pub(super) fn values(&self) -> minijinja::Value {
        context! {
            requeue => self.requeue,
            limit => self.limit,
            stopped => self.stopped,
            killed => self.killed,
            state_folder => self.state_folder.clone(),
            count_file => self.count_file.clone(),
        }
    }
}

/// `--signal` for this job, and what is odd about it. Only tuning saves when it is asked to; the signal would end any
/// other job before its time. A signal before the start of a short job becomes one in its middle.
pub(super) fn signal(text: &str, job: &JobSpec) -> (Option<String>, Option<Diagnostic>) {
    if job.stage != WorkerJob::PromptLearning {
        return (None, None);
    }
    let limit = job
        .resources
        .time_limit
        .as_deref()
        .and_then(parse_slurm_time_limit);
    let given = text
        .split_once('@')
        .and_then(|(name, seconds)| Some((name, seconds.parse::<u64>().ok()?)));
    match (given, limit) {
        (Some((name, seconds)), Some(limit)) if seconds >= limit.as_secs() => {
            let half = limit.as_secs() / 2;
            let odd = Diagnostic::configuration(format!(
                "`cluster.signal` is `{text}`, and job `{}` may only run for {} s",
                job.name,
                limit.as_secs()
            ))
            .note(format!("the script asks for `{name}@{half}`"));
            (Some(format!("{name}@{half}")), Some(odd))
        }
        _ => (Some(text.to_owned()), None),
    }
}
