//! Where the numbers of a run go.

mod console;
mod json_lines;

pub use console::Console;
pub use json_lines::JsonLines;

use anyhow::Result;
use serde::Serialize;

/// One optimizer step.
#[derive(Clone, Debug, Serialize)]
pub struct StepMetrics {
    /// Steps done, from 1.
    pub step: u64,
    /// Mean over the step's micro-batches of their mean cross-entropy in nats.
    pub loss: f64,
    /// Learning rate of this step.
    pub lr: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens that went through the frozen model: encoder or decoder-only input and decoder input, virtual ones counted.
    pub tokens: usize,
    /// Wall time of the step.
    pub step_seconds: f64,
    /// Passes over the data begun, from 0.
    pub epoch: u64,
    /// Examples seen so far.
    pub consumed_samples: u64,
}

/// One pass over the validation data.
#[derive(Clone, Debug, Serialize)]
pub struct ValidationMetrics {
    /// Steps done before it.
    pub step: u64,
    /// Mean over batches of their mean cross-entropy in nats.
    pub val_loss: f64,
    /// Wall time of the validation.
    pub validation_seconds: f64,
    /// Whether no earlier validation was better.
    pub best: bool,
}

/// Takes what a run reports.
pub trait MetricSink {
    /// After an optimizer step; `log` says whether this is one of every `log_every_n_steps`.
    fn step(&mut self, metrics: &StepMetrics, log: bool) -> Result<()>;
    /// After a validation.
    fn validation(&mut self, metrics: &ValidationMetrics) -> Result<()>;
    /// Before a checkpoint is saved: what was reported so far must be there when a run goes on from it, even if the
    /// machine loses its power in between.
    fn persist(&mut self) -> Result<()> {
        Ok(())
    }
    /// At the end of the run.
    fn finish(&mut self) -> Result<()>;
}
