//! Whether what the jobs read is there, before anything is handed over.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Plan, Settings};
use crate::diag::{Class, Diagnostic};
use crate::launch::ClusterType;
use crate::launch::paths::absolute;
use crate::prepare;
use crate::schema::WorkerJob;

/// Paths of the form `builtin:NAME` are parts of the program.
pub(super) const BUILTIN: &str = "builtin:";

/// Makes SQuAD's rows where the published files lie ready, then looks for everything the jobs read and no earlier job
/// of the chain writes.
///
/// On the machine that runs the jobs a missing file is an error, all of them in one. A login node may not see the
/// cluster's disks, so there it is a warning. A dry run has a report of its own ([`super::dry_run`]).
pub(super) fn check(plan: &mut Plan, settings: &Settings, dry_run: bool) -> Result<()> {
    if dry_run {
        return Ok(());
    }
    match prepare_squad(plan, settings) {
        // The nodes may see what this machine does not, and the way out of it is not theirs.
        Err(error) if settings.cluster.cluster_type == ClusterType::Slurm => {
            let warning = error.downcast::<Diagnostic>()?;
            plan.warnings.push(warning);
        }
        outcome => outcome?,
    }
    let mut written: Vec<PathBuf> = vec![];
    let mut missing: Vec<(String, PathBuf)> = vec![];
    for job in &plan.jobs {
        for input in &job.inputs {
            if input.path.to_string_lossy().starts_with(BUILTIN) {
                continue;
            }
            let path = absolute(&input.path)?;
            let entry = (format!("{}.{}", job.key(), input.key), input.path.clone());
            if !path.exists() && !written.contains(&path) && !missing.contains(&entry) {
                missing.push(entry);
            }
        }
        for output in &job.outputs {
            written.push(absolute(output)?);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut diagnostic = not_there(&missing);
    for hint in hints(&missing, settings) {
        diagnostic = diagnostic.hint(hint);
    }
    if settings.cluster.cluster_type == ClusterType::Slurm {
        diagnostic.title = format!("from this machine, {}", diagnostic.title);
        plan.warnings.push(diagnostic);
        return Ok(());
    }
    diagnostic.class = Class::Configuration;
    Err(diagnostic.into())
}

fn not_there(missing: &[(String, PathBuf)]) -> Diagnostic {
    if let [(key, path)] = missing {
        return Diagnostic::configuration(format!(
            "`{key}`: there is nothing at `{}`",
            path.display()
        ));
    }
    Diagnostic::configuration(format!(
        "{} files that the jobs read are not there",
        missing.len()
    ))
    .first_notes(
        missing
            .iter()
            .map(|(key, path)| format!("`{key}`: {}", path.display())),
    )
}

pub(super) fn hints(missing: &[(String, PathBuf)], settings: &Settings) -> Vec<String> {
    let mut hints = vec![];
    let is_squad = |path: &Path| path.starts_with(squad_folder(settings));
    if missing.iter().any(|(_, path)| is_squad(path)) {
        hints.push(format!(
            "put SQuAD's train-v1.1.json and dev-v1.1.json into {} and run the same command again",
            squad_folder(settings).display()
        ));
        hints.push(
            "or put `data_preparation` in front of `stages`, or name your own rows: \
             prompt_learning.model.data.train_ds=[FILE]"
                .to_owned(),
        );
    }
    if let Some((key, _)) = missing
        .iter()
        .find(|(key, _)| key.ends_with("language_model_path"))
    {
        hints.push(format!(
            "name the frozen base model, a Hugging Face folder or a .nemo: {key}=PATH"
        ));
    }
    hints
}

fn squad_folder(settings: &Settings) -> PathBuf {
    settings.data_dir.join("prompt_data/v1.1")
}

/// Whether a launch of `plan` makes the rows at `path` of SQuAD's files, which lie ready or can be fetched.
pub(super) fn is_prepared_at_launch(path: &Path, plan: &Plan, settings: &Settings) -> bool {
    let folder = squad_folder(settings);
    let is_published_there = ["train-v1.1.json", "dev-v1.1.json"]
        .iter()
        .all(|name| folder.join(name).is_file());
    let reads_squad = plan.jobs.iter().any(|job| {
        job.spec.stage == WorkerJob::PromptLearning
            && job
                .inputs
                .iter()
                .any(|input| input.path.starts_with(&folder) && !input.path.exists())
    });
    let is_prepared_by_a_job = plan
        .jobs
        .iter()
        .any(|job| job.spec.stage == WorkerJob::DataPreparation);
    path.starts_with(&folder)
        && reads_squad
        && !is_prepared_by_a_job
        && (is_published_there || prepare::can_download())
}

/// The original fetches SQuAD and makes these rows while it launches, on the machine that launches; so do we.
fn prepare_squad(plan: &Plan, settings: &Settings) -> Result<()> {
    let folder = squad_folder(settings);
    if is_prepared_at_launch(&folder, plan, settings) {
        for file in prepare::squad_in_place(&folder)? {
            tracing::info!("{} rows in {}", file.rows, file.path.display());
        }
    }
    Ok(())
}
