//! From a [`JobSpec`] to files on disk and a job that runs. Knows schedulers, not training.
//!
//! What a script asks for is decided here in Rust ([`slurm`], [`bcp`], [`local`]); the templates in launcher_scripts/
//! only lay it out. Names of files, order of lines and flags are those of NeMo-Framework-Launcher (commit 26e42fa9),
//! so that what reads its results folders keeps working.

pub mod bcp;
#[cfg(test)]
mod examples;
pub mod follow;
pub mod job;
pub mod local;
pub mod paths;
pub mod quote;
#[cfg(unix)]
pub mod ranks;
pub mod render;
#[cfg(unix)]
mod signals;
pub mod slurm;
pub mod submit;

pub use job::{ClusterType, CommandGroup, Dependency, JobSpec, Resources, Script};
pub use paths::JobPaths;
pub use render::Templates;

use anyhow::Result;

use crate::diag::Diagnostic;
use crate::schema::ClusterSection;

/// What the launcher was told about the place where jobs run.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Which scheduler.
    pub cluster_type: ClusterType,
    /// What it is asked for (Slurm only).
    pub section: ClusterSection,
    /// pyxis image.
    pub container: Option<String>,
    /// `source:target` pairs.
    pub container_mounts: Vec<String>,
    /// BCP: show output in its log tab.
    pub bcp_no_redirect: bool,
    /// Slurm: raise GPU boost clocks first.
    pub enable_vboost: bool,
    /// The original's switch for its own CI: short log names (`NEMO_LAUNCHER_CI`).
    pub short_log_names: bool,
    /// Record GPU memory beside the job (`NEMO_LAUNCHER_MEMORY_MEASURE`).
    pub memory_measure: bool,
}

impl Cluster {
    /// The job's script, and what is odd about the request.
    ///
    /// # Errors
    /// A configuration that this kind of cluster cannot do.
    pub fn render(
        &self,
        job: &JobSpec,
        templates: &Templates,
    ) -> Result<(Script, Vec<Diagnostic>)> {
        match self.cluster_type {
            ClusterType::Slurm => slurm::render(self, job, templates),
            ClusterType::Bcp => bcp::render(self, job, templates),
            ClusterType::Interactive => local::render(job, templates),
        }
    }
}
