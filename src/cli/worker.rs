//! `ptune worker JOB --config FILE`: what job scripts call.

use anyhow::Result;

use super::arguments::WorkerArguments;
use crate::config::ResolvedConfig;
use crate::diag::suggest::did_you_mean;
use crate::diag::{Diagnostic, Location};
use crate::prepare;
use crate::schema::{DataPreparation, WorkerJob, read_section};

pub(super) fn run(arguments: &WorkerArguments) -> Result<i32> {
    let names = WorkerJob::ALL.map(WorkerJob::name);
    let Some(job) = WorkerJob::from_name(&arguments.job) else {
        let diagnostic = Diagnostic::configuration(format!("there is no job `{}`", arguments.job))
            .note(format!("expected one of: {}", names.join(", ")));
        return Err(match did_you_mean(&arguments.job, names) {
            Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
            None => diagnostic,
        }
        .into());
    };
    if !arguments.config.is_file() {
        return Err(
            Diagnostic::configuration("the job's configuration is not there")
                .at(Location::file(arguments.config.display()))
                .note("a stage writes it beside its job script, as NAME_hydra.yaml")
                .into(),
        );
    }
    match job {
        WorkerJob::DataPreparation => {
            let config = ResolvedConfig::from_file(&arguments.config)?;
            let section: DataPreparation = read_section(&config, "")?;
            for file in prepare::run(&section)? {
                let note = if file.unchanged { " (unchanged)" } else { "" };
                tracing::info!("{} rows in {}{note}", file.rows, file.path.display());
            }
            Ok(0)
        }
        _ => run_tensor_job(job, arguments),
    }
}

#[cfg(feature = "worker")]
fn run_tensor_job(job: WorkerJob, arguments: &WorkerArguments) -> Result<i32> {
    crate::worker::run(job, &arguments.config)
}

#[cfg(not(feature = "worker"))]
fn run_tensor_job(job: WorkerJob, _: &WorkerArguments) -> Result<i32> {
    Err(Diagnostic::configuration(format!(
        "this ptune was built without the `worker` feature and cannot run {} jobs",
        job.name()
    ))
    .hint("cargo install ptune  (the feature is on by default)")
    .into())
}
