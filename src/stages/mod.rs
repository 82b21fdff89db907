//! The stages of a command line, planned as jobs: all of them are read, checked and laid out before the first is
//! handed over.

mod array;
mod check;
mod check_inputs;
mod conversion;
mod data_preparation;
mod dry_run;
mod evaluation;
mod hand_over;
mod plan;
mod prompt_learning;
mod settings;
mod sweep;

use std::path::PathBuf;

pub use array::{ArrayMember, can_be_array, launch_array};
pub use check::check;
pub use dry_run::{LookInside, WrittenBy, dry_run};
pub use hand_over::{Launched, launch};
pub use plan::{Plan, PlannedJob, plan};
pub use settings::{Settings, asked_for, switch};
pub use sweep::Sweep;

use crate::launch::Resources;
use crate::schema::WorkerJob;

/// A file or folder that a job reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The key that names it, relative to the stage's section.
    pub key: &'static str,
    /// Where it should be.
    pub path: PathBuf,
}

/// What the launcher needs to know of a stage's section.
pub trait Stage {
    /// Which job it is.
    fn job(&self) -> WorkerJob;
    /// `run.name`.
    fn name(&self) -> &str;
    /// `run.results_dir`.
    fn results_dir(&self) -> &std::path::Path;
    /// `run.dependency`.
    fn dependency(&self) -> Option<&str>;
    /// Nodes, tasks and time.
    fn resources(&self) -> Resources;
    /// What must be there when the job starts.
    fn inputs(&self) -> Vec<Input>;
    /// What is there when it has ended.
    fn outputs(&self) -> Vec<PathBuf>;
    /// Where the job keeps what it has reached.
    fn state_folder(&self) -> PathBuf {
        self.results_dir().join("results")
    }
    /// Devices and parallel sizes, for the stages that set variables for CUDA.
    fn devices(&self) -> Option<Devices> {
        None
    }
}

/// What the variables for CUDA are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Devices {
    /// `trainer.devices`.
    pub trainer_devices: usize,
    /// Tensor parallel size.
    pub tensor_parallel: usize,
}
