//! The jobs of a sweep as Slurm arrays: one array for each stage, task `i` of every array belonging to configuration `i`.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use indexmap::IndexMap;

use super::hand_over::{Launched, Progress, remember, write_folder, write_manifest};
use super::{Plan, Settings, check_inputs};
use crate::diag::Diagnostic;
use crate::launch::slurm::array;
use crate::launch::{ClusterType, Dependency, JobSpec, submit};
use crate::sys::atomic_file;

/// One configuration of a sweep, planned.
#[derive(Debug)]
pub struct ArrayMember {
    /// Its stages.
    pub plan: Plan,
    /// Where they run.
    pub settings: Settings,
    /// Its chosen options, for the manifests.
    pub choices: IndexMap<String, Option<String>>,
}

/// Whether [`launch_array`] can take these: at least two, on Slurm, of the same stages, that ask for the same things.
pub fn can_be_array(members: &[ArrayMember]) -> bool {
    let Some((first, rest)) = members.split_first() else {
        return false;
    };
    let cluster = &first.settings.cluster;
    !rest.is_empty()
        && cluster.cluster_type == ClusterType::Slurm
        && !cluster.section.directives.contains_key("array")
        && rest.iter().all(|member| {
            member.settings.cluster.section == cluster.section
                && member.settings.cluster.cluster_type == cluster.cluster_type
                && member.settings.after_ok == first.settings.after_ok
                && member.plan.jobs.len() == first.plan.jobs.len()
                && member
                    .plan
                    .jobs
                    .iter()
                    .zip(&first.plan.jobs)
                    .enumerate()
                    .all(|(index, (job, other))| {
                        job.spec.stage == other.spec.stage
                            && job.spec.resources == other.spec.resources
                            && (index > 0 || job.spec.dependency == other.spec.dependency)
                    })
        })
}

/// Submits `members` as one array for each stage, and returns 0. A stage waits for the whole array before it, or with
/// `stage_dependency=afterok` for the success of its own configuration's (Slurm's `aftercorr`). At most
/// `cluster.array_parallelism` tasks run at once, all where it is null. The arrays' scripts and the output of their
/// shells go to `folder`; every job's own script, configuration, logs and manifest lie in its results folder as ever,
/// the manifest with the number `ARRAY_TASK`, so that status, logs and cancel work on each.
///
/// Ask [`can_be_array`] first; `how.choices` is not used.
///
/// # Errors
/// As [`super::launch`].
pub fn launch_array(
    members: &mut [ArrayMember],
    folder: &Path,
    how: &Launched<'_>,
    warn: &mut dyn FnMut(&Diagnostic),
    out: &mut dyn Write,
) -> Result<i32> {
    let count = members.len();
    let mut warned: Vec<Diagnostic> = vec![];
    for member in &mut *members {
        check_inputs::check(&mut member.plan, &member.settings, how.dry_run)?;
        for warning in &member.plan.warnings {
            if !warned.contains(warning) {
                warn(warning);
                warned.push(warning.clone());
            }
        }
    }
    if !how.dry_run {
        submit::require_scheduler(ClusterType::Slurm)?;
        let jobs = members.iter().flat_map(|member| &member.plan.jobs);
        remember(jobs.map(|job| job.spec.paths.folder.clone()));
    }
    let Some(first) = members.first() else {
        return Ok(0);
    };
    let limit = array::limit(&first.settings.cluster)?;
    let stages = first.plan.jobs.len();
    let mut before: Option<String> = None;
    for stage in 0..stages {
        let mut jobs: Vec<JobSpec> = vec![];
        for member in &mut *members {
            let cluster = array::cluster_for(&member.settings.cluster, count, limit);
            let job = &mut member.plan.jobs[stage];
            if stage > 0 {
                let id = before.clone().unwrap_or_else(|| "JOB_ID".to_owned());
                job.set_dependency(if member.settings.after_ok {
                    Dependency::AfterCorresponding(id)
                } else {
                    Dependency::AfterAny(id)
                });
            }
            job.script = cluster.render(&job.spec, how.templates)?.0;
            let how = Launched {
                choices: &member.choices,
                ..how.clone()
            };
            write_folder(job, &member.settings, &how)?;
            jobs.push(job.spec.clone());
        }
        let cluster = array::cluster_for(&members[0].settings.cluster, count, limit);
        let script = array::render(&cluster, &jobs, folder, how.templates)?;
        let path = folder.join(format!("{}_array.sh", jobs[0].name));
        atomic_file::write_unflushed(&path, &script.text)?;
        if how.dry_run {
            writeln!(out, "# {}\n{}", path.display(), script.text)?;
            continue;
        }
        let id = submit::sbatch(&path).with_context(|| format!("submitting {}", path.display()))?;
        for (task, member) in members.iter().enumerate() {
            let job = &member.plan.jobs[stage];
            let task_id = format!("{id}_{task}");
            let launcher_log = format!("Submitted batch job {task_id}");
            atomic_file::write_unflushed(&job.spec.paths.launcher_log(), launcher_log)?;
            let how = Launched {
                choices: &member.choices,
                ..how.clone()
            };
            write_manifest(job, &member.settings, &how, &Progress::Queued(&task_id))?;
        }
        writeln!(
            out,
            "submitted {} as job array {id} of {count} tasks",
            jobs[0].name
        )?;
        before = Some(id);
    }
    Ok(0)
}
