//! Binds a resolved configuration to the modules that do the work.
//!
//! A worker reads one file, the resolved YAML that a stage wrote beside its job script, and writes artifacts. It never
//! composes a configuration.

mod answers;
mod conversion;
mod devices;
mod evaluation;
mod frozen_model;
pub mod generation;
mod memory;
pub mod preflight;
mod prompt_health;
mod prompt_learning;
mod report;
mod run_settings;
mod starting_prompts;
mod tasks;
mod training_setup;
mod validation_scores;

use std::path::Path;

use anyhow::Result;

use crate::config::ResolvedConfig;
use crate::diag::Diagnostic;
use crate::schema::{Section, WorkerJob, read_section};

/// Runs `job` with the resolved YAML at `config` and returns the exit status: 0 when done, 75 when told to stop after
/// saving. Errors are told apart by their [`Diagnostic`] class.
pub fn run(job: WorkerJob, config: &Path) -> Result<i32> {
    on_pool(|| match job {
        WorkerJob::PromptLearning => prompt_learning::run(&section(job, config)?),
        WorkerJob::Evaluation => evaluation::run(&section(job, config)?),
        WorkerJob::DataPreparation => Err(Diagnostic::configuration(
            "data preparation needs no worker: `ptune` runs it itself",
        )
        .into()),
        WorkerJob::Conversion => conversion::run(&section(job, config)?),
    })
}

/// Runs `work` on a thread of the pool that shares out every product: from any other, each of the hundreds of them in a
/// step would be handed over and waited for asleep.
fn on_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    /// That of a main thread; a graph of candle is walked by recursion.
    const STACK: usize = 8 << 20;
    let pool = rayon::ThreadPoolBuilder::new().stack_size(STACK);
    if let Err(error) = pool.build_global() {
        tracing::debug!("the pool of threads is as it was: {error}");
    }
    rayon::scope(|_| work())
}

/// The section that a job's resolved YAML holds: the file is the section itself or, when written by hand, may hold it
/// under the job's name.
fn section<S: Section>(job: WorkerJob, config: &Path) -> Result<S> {
    let config = ResolvedConfig::from_file(config)?;
    let is_nested = config
        .get(job.name())
        .is_some_and(|node| node.as_map().is_some());
    Ok(read_section(
        &config,
        if is_nested { job.name() } else { "" },
    )?)
}
