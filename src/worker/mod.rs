//! Binds a resolved configuration to the modules that do the work.

use std::path::Path;

use crate::schema::WorkerJob;

/// Runs `job` with the resolved YAML at `config` and returns the exit status.
pub fn run(job: WorkerJob, config: &Path) -> anyhow::Result<i32> {
    anyhow::bail!("{} with {} is not built yet", job.name(), config.display())
}
