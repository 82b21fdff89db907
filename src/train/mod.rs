//! The training loop and what it needs. Everything a resumed run must know is in [`TrainState`]; nothing is in statics.

pub mod checkpoint;
pub mod clip;
pub mod fit;
mod gradients;
pub mod loss_scale;
pub mod metrics;
pub mod monitor;
pub mod optimizer;
pub mod options;
pub mod resume;
pub mod schedule;
mod self_test;
pub mod step;
mod validate;

pub use checkpoint::{CheckpointFolder, TrainState};
pub use fit::{FitOptions, FitOutcome, Stop, fit};
pub use optimizer::{AdafactorConfig, AdamConfig, Optimizer, OptimizerConfig, SgdConfig};
pub use resume::{RunSettings, restore};
pub use schedule::{LearningRate, Policy, Schedule};
