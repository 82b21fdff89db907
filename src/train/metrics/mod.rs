//! Where the numbers of a run go.

mod console;
mod json_lines;
mod tensorboard;

pub use console::Console;
pub use json_lines::JsonLines;
pub use tensorboard::TensorBoard;

use anyhow::Result;
use serde::Serialize;

use super::monitor::Measured;

/// One optimizer step.
#[derive(Clone, Debug, Serialize)]
pub struct StepMetrics {
    /// Steps done, from 1.
    pub step: u64,
    /// Mean over the step's micro-batches of their mean cross-entropy in nats.
    pub loss: f64,
    /// Learning rate of this step.
    pub lr: f64,
    /// Norm of the gradient before clipping; not finite (null in a file) where the step was left out.
    pub grad_norm: f64,
    /// Tokens that went through the frozen model: encoder or decoder-only input and decoder input, virtual ones counted.
    pub tokens: usize,
    /// Wall time of the step.
    pub step_seconds: f64,
    /// Passes over the data begun, from 0.
    pub epoch: u64,
    /// Examples seen so far.
    pub consumed_samples: u64,
    /// Half precision: the factor of the loss in this step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// Whether nothing was changed, for the gradient was not finite at this factor.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
}

impl StepMetrics {
    /// Tokens through the frozen model in a second of the step.
    pub fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.step_seconds.max(1e-9)
    }
}

/// One pass over the validation data.
#[derive(Clone, Debug, Serialize)]
pub struct ValidationMetrics {
    /// Steps done before it.
    pub step: u64,
    /// Mean over batches of their mean cross-entropy in nats.
    pub val_loss: f64,
    /// Scores of generated answers, in percent: `val_exact_match`, `val_f1` …
    #[serde(flatten)]
    pub scores: Measured,
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
    fn finish(&mut self) -> Result<()> {
        self.persist()
    }
}
