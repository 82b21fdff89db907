//! Writing the folders of planned jobs and handing the jobs over.

use std::io::Write;

use anyhow::{Context, Result};
use indexmap::IndexMap;

use super::plan::after;
use super::{Plan, PlannedJob, Settings, check_inputs};
use crate::diag::Diagnostic;
use crate::launch::follow::recent;
use crate::launch::quote::shell_quote;
use crate::launch::{ClusterType, Templates, submit};
use crate::schema::JobManifest;
use crate::sys::{atomic_file, clock, process};

/// Exit status of what SIGKILL ended, as a shell shows it.
const KILLED: i32 = 137;

/// How a launch is done.
#[derive(Clone, Debug)]
pub struct Launched<'a> {
    /// Write and show, hand nothing over.
    pub dry_run: bool,
    /// The launcher's arguments, program name first.
    pub command_line: &'a [String],
    /// Chosen options, for the manifest.
    pub choices: &'a IndexMap<String, Option<String>>,
    /// Layout of scripts.
    pub templates: &'a Templates,
}

/// Hands every job of a plan over, each after the one before it, and returns the exit status: that of the job which
/// failed where they run here, else 0. `warn` is told what is odd before anything happens; `out` gets one line a job.
///
/// # Errors
/// Missing inputs on the machine that runs the jobs, a folder that cannot be written, a job that the scheduler refuses.
pub fn launch(
    mut plan: Plan,
    settings: &Settings,
    how: &Launched<'_>,
    warn: &mut dyn FnMut(&Diagnostic),
    out: &mut dyn Write,
) -> Result<i32> {
    let cluster_type = settings.cluster.cluster_type;
    check_inputs::check(&mut plan, settings, how.dry_run)?;
    for warning in &plan.warnings {
        warn(warning);
    }
    if !how.dry_run {
        submit::require_scheduler(cluster_type)?;
    }
    for job in &plan.jobs {
        write_folder(job, settings, how)?;
    }
    if how.dry_run {
        for job in &plan.jobs {
            writeln!(out, "# {}", job.spec.paths.script_file().display())?;
            writeln!(out, "{}", job.script.text)?;
        }
        return Ok(0);
    }
    remember(plan.jobs.iter().map(|job| job.spec.paths.folder.clone()));
    match cluster_type {
        ClusterType::Slurm => queue(&mut plan, settings, how, out),
        ClusterType::Bcp | ClusterType::Interactive => run_here(&plan, settings, how),
    }
}

fn queue(
    plan: &mut Plan,
    settings: &Settings,
    how: &Launched<'_>,
    out: &mut dyn Write,
) -> Result<i32> {
    let mut before: Option<String> = None;
    let mut submitted = vec![];
    for job in &mut plan.jobs {
        if let Some(id) = before.take() {
            job.set_dependency(after(settings, id));
            job.script = settings.cluster.render(&job.spec, how.templates)?.0;
            write_folder(job, settings, how)?;
        }
        let paths = &job.spec.paths;
        let id = submit::sbatch(&paths.script_file())
            .map_err(|error| refused(error, &job.spec.name, &submitted))?;
        atomic_file::write_unflushed(&paths.launcher_log(), format!("Submitted batch job {id}"))?;
        write_manifest(job, settings, how, &Progress::Queued(&id))?;
        writeln!(
            out,
            "submitted {} as job {id}, results in {}",
            job.spec.name,
            paths.folder.display()
        )?;
        submitted.push((id.clone(), paths.folder.clone()));
        before = Some(id);
    }
    Ok(0)
}

/// Why a job was not taken, and what became of those `submitted` before it.
fn refused(
    error: anyhow::Error,
    name: &str,
    submitted: &[(String, std::path::PathBuf)],
) -> anyhow::Error {
    let mut diagnostic = match error.downcast::<Diagnostic>() {
        Ok(diagnostic) => diagnostic.note(format!("job `{name}` is not in the queue")),
        Err(other) => return other.context(format!("submitting `{name}`")),
    };
    for (id, folder) in submitted {
        let folder = folder.display().to_string();
        diagnostic = diagnostic
            .note(format!("job {id}, submitted before it, is"))
            .hint(format!("ptune cancel {}", shell_quote(&folder)));
    }
    diagnostic.into()
}

fn run_here(plan: &Plan, settings: &Settings, how: &Launched<'_>) -> Result<i32> {
    let count = plan.jobs.len();
    for (index, job) in plan.jobs.iter().enumerate() {
        let paths = &job.spec.paths;
        tracing::info!(
            "stage {} of {count}: {} in {}",
            index + 1,
            job.key(),
            paths.folder.display()
        );
        let mut started = None;
        let kills_before = process::kills_for_memory();
        let status = submit::run_here(&paths.script_file(), &mut |id| {
            started = Some(id);
            write_manifest(job, settings, how, &Progress::Started(id))
        })?;
        let ended = Progress::Ended {
            process: started,
            status,
            out_of_memory: status == KILLED && process::kills_for_memory() > kills_before,
        };
        write_manifest(job, settings, how, &ended)?;
        if status != 0 {
            let rest: Vec<&str> = plan.jobs[index + 1..].iter().map(PlannedJob::key).collect();
            let not_started = if rest.is_empty() {
                String::new()
            } else {
                format!("; not started: {}", rest.join(", "))
            };
            tracing::error!(
                "stage {} ended with exit status {status}{not_started}",
                job.key()
            );
            return Ok(status);
        }
    }
    Ok(0)
}

/// Notes the folders of a launch for commands that name none. Without a place for that they have to name one.
pub(super) fn remember(folders: impl Iterator<Item = std::path::PathBuf>) {
    if let Err(error) = recent::remember(folders.collect()) {
        tracing::debug!("the launch is not remembered: {error:#}");
    }
}

/// Everything in a job's folder that is there before the job runs.
pub(super) fn write_folder(
    job: &PlannedJob,
    settings: &Settings,
    how: &Launched<'_>,
) -> Result<()> {
    let paths = &job.spec.paths;
    fs_err::create_dir_all(paths.results()).map_err(|error| {
        Diagnostic::job("the results folder cannot be made")
            .note(error.to_string())
            .hint("base_results_dir=FOLDER, one that you may write to and every node sees")
    })?;
    atomic_file::write_unflushed(&paths.config_file(), job.section.to_yaml())?;
    atomic_file::write_unflushed(&paths.script_file(), &job.script.text)?;
    let command_line: Vec<String> = how
        .command_line
        .iter()
        .map(|word| shell_quote(word))
        .collect();
    atomic_file::write_unflushed(&paths.command_file(), command_line.join(" \\\n  "))?;
    write_manifest(job, settings, how, &Progress::Written)
}

/// How far a job has come.
pub(super) enum Progress<'a> {
    Written,
    Queued(&'a str),
    Started(u32),
    Ended {
        process: Option<u32>,
        status: i32,
        out_of_memory: bool,
    },
}

pub(super) fn write_manifest(
    job: &PlannedJob,
    settings: &Settings,
    how: &Launched<'_>,
    progress: &Progress<'_>,
) -> Result<()> {
    let paths = &job.spec.paths;
    let (job_id, process, exit_status) = match *progress {
        Progress::Written => (None, None, None),
        Progress::Queued(id) => (Some(id), None, None),
        Progress::Started(process) => (None, Some(process), None),
        Progress::Ended {
            process, status, ..
        } => (None, process, Some(status)),
    };
    let log_file = match (settings.cluster.cluster_type, job_id) {
        (ClusterType::Slurm, Some(id)) => Some(paths.log_file(id, "out")),
        (ClusterType::Slurm, None) => None,
        (ClusterType::Bcp | ClusterType::Interactive, _) => job.spec.log_file.clone(),
    };
    let own = std::process::id();
    let runs_here = settings.cluster.cluster_type != ClusterType::Slurm && !how.dry_run;
    let manifest = JobManifest {
        ptune_version: env!("CARGO_PKG_VERSION").to_owned(),
        created: clock::timestamp(),
        command_line: how.command_line.to_vec(),
        choices: how.choices.clone(),
        stage: job.spec.stage,
        job_name: job.spec.name.clone(),
        cluster_type: settings.cluster.cluster_type.name().to_owned(),
        config_file: paths.config_file(),
        script_file: paths.script_file(),
        log_file,
        job_id: job_id.map(str::to_owned),
        process,
        exit_status,
        out_of_memory: matches!(
            progress,
            Progress::Ended {
                out_of_memory: true,
                ..
            }
        ),
        host: runs_here.then(process::host_name).flatten(),
        process_started: process.and_then(process::start_time),
        launcher: runs_here
            .then(|| process::start_time(own))
            .flatten()
            .map(|started| (own, started)),
    };
    let mut text = serde_json::to_string_pretty(&manifest).context("writing the job's manifest")?;
    text.push('\n');
    atomic_file::write_unflushed(&paths.folder.join(JobManifest::FILE_NAME), text)?;
    Ok(())
}
