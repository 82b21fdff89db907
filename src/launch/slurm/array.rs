//! Many jobs handed to Slurm as one array: one number, one line in the queue, a limit on how many run at once.
//!
//! Task `i` of the array runs the script of job `i` as it is (its own environment, `srun`, logs and requeueing); the
//! array's script holds only the `#SBATCH` lines, which all jobs must share, and chooses by `SLURM_ARRAY_TASK_ID`.

use std::path::Path;

use anyhow::Result;
use minijinja::context;
use serde_yaml::Value;

use super::{directives, hyphened};
use crate::diag::Diagnostic;
use crate::launch::quote::shell_quote;
use crate::launch::{Cluster, JobSpec, Script, Templates};

/// Key beside those of sbatch: how many tasks of an array run at once.
pub const LIMIT_KEY: &str = "array_parallelism";

/// `cluster.array_parallelism`; null for no limit.
///
/// # Errors
/// Anything but a positive number.
pub fn limit(cluster: &Cluster) -> Result<Option<usize>> {
    match cluster.section.directives.get(LIMIT_KEY) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(limit) if limit > 0 => Ok(usize::try_from(limit).ok()),
            _ => Err(Diagnostic::configuration(format!(
                "`cluster.{LIMIT_KEY}`: `{}` is not a number of tasks",
                super::python_text(value)
            ))
            .into()),
        },
    }
}

/// `--array` for `count` tasks, of which at most `limit` run at once.
pub fn range(count: usize, limit: Option<usize>) -> String {
    let last = count.saturating_sub(1);
    match limit {
        Some(limit) => format!("0-{last}%{limit}"),
        None => format!("0-{last}"),
    }
}

/// `cluster` as every job of an array must be rendered with, so that the logs are named by array number and task.
pub fn cluster_for(cluster: &Cluster, count: usize, limit: Option<usize>) -> Cluster {
    let mut cluster = cluster.clone();
    cluster
        .section
        .directives
        .insert("array".to_owned(), Value::from(range(count, limit)));
    cluster
}

/// The script that starts `jobs` as one array. `cluster` is that of [`cluster_for`]; the scripts of the jobs are rendered
/// with it too and lie at their paths. The array's own output, which is that of the shells around the jobs, goes to
/// `folder`.
///
/// # Errors
/// Jobs that ask for different things (nodes, tasks, time limit, dependency), which one array cannot.
pub fn render(
    cluster: &Cluster,
    jobs: &[JobSpec],
    folder: &Path,
    templates: &Templates,
) -> Result<Script> {
    let Some(first) = jobs.first() else {
        return Err(Diagnostic::configuration("an array of no jobs").into());
    };
    for job in jobs {
        if job.resources != first.resources || job.dependency != first.dependency {
            return Err(Diagnostic::configuration(format!(
                "jobs `{}` and `{}` ask for different things, and all jobs of an array ask for the same",
                first.paths.folder.display(),
                job.paths.folder.display()
            ))
            .note("nodes, tasks, time limit and dependency must be equal")
            .into());
        }
    }
    let mut directives: Vec<String> = directives(cluster, first).0;
    let log = |extension: &str| {
        let path = folder.join(format!("log-{}_%A_%a.{extension}", first.name));
        shell_quote(&path.display().to_string())
    };
    for (key, extension) in [("output", "out"), ("error", "err")] {
        let flag = format!("{}=", hyphened(key));
        for line in &mut directives {
            if line.starts_with(&flag) {
                *line = format!("{flag}{}", log(extension));
            }
        }
    }
    let scripts: Vec<String> = jobs
        .iter()
        .map(|job| shell_quote(&job.paths.script_file().display().to_string()))
        .collect();
    let text = templates.render("slurm_array.sh.j2", context! { directives, scripts })?;
    Ok(Script { text })
}
