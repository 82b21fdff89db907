//! What a person sees: a bar on a terminal, plain lines in a log.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::{MetricSink, StepMetrics, ValidationMetrics};
use crate::sys::env_vars;

/// Progress on standard error.
#[derive(Debug)]
pub struct Console {
    max_steps: u64,
    bar: Option<ProgressBar>,
    /// The score told beside the loss.
    headline: Option<String>,
}

impl Console {
    /// For a run of `max_steps` with `steps_done` behind it; `headline` is the score to tell beside the loss.
    pub fn new(max_steps: u64, steps_done: u64, headline: Option<String>) -> Self {
        let on_terminal =
            std::io::stderr().is_terminal() && env_vars::get(env_vars::PTUNE_NO_PROGRESS).is_none();
        let bar = on_terminal.then(|| {
            let bar = ProgressBar::new(max_steps).with_position(steps_done);
            let style =
                ProgressStyle::with_template("{bar:30} {pos}/{len} steps, {eta} left, {msg}")
                    .expect("the template is a constant");
            bar.set_style(style);
            bar.enable_steady_tick(Duration::from_secs(1));
            bar
        });
        Self {
            max_steps,
            bar,
            headline,
        }
    }
}

impl MetricSink for Console {
    fn step(&mut self, metrics: &StepMetrics, log: bool) -> Result<()> {
        if metrics.skipped {
            tracing::warn!(
                "step {} changed nothing: its gradient is not finite when the loss is multiplied by {:.4e}",
                metrics.step,
                metrics.loss_scale.unwrap_or(1.0)
            );
        }
        let tokens_per_second = metrics.tokens as f64 / metrics.step_seconds.max(1e-9);
        if let Some(bar) = &self.bar {
            bar.set_position(metrics.step);
            bar.set_message(format!(
                "loss {:.4}, {tokens_per_second:.0} tokens/s",
                metrics.loss
            ));
        } else if log {
            tracing::info!(
                "step {}/{}: loss {:.4}, lr {:.3e}, gradient norm {:.3}, {tokens_per_second:.0} tokens/s, {:.2} s",
                metrics.step,
                self.max_steps,
                metrics.loss,
                metrics.lr,
                metrics.grad_norm,
                metrics.step_seconds
            );
        }
        Ok(())
    }

    fn validation(&mut self, metrics: &ValidationMetrics) -> Result<()> {
        let line = format!(
            "validation after step {}: val_loss {:.4}{}{}, {:.1} s",
            metrics.step,
            metrics.val_loss,
            self.headline
                .as_ref()
                .and_then(|name| Some((name, metrics.scores.get(name)?)))
                .map_or(String::new(), |(name, score)| format!(
                    ", {name} {score:.1}"
                )),
            if metrics.best { " (best so far)" } else { "" },
            metrics.validation_seconds
        );
        match &self.bar {
            Some(bar) => bar.println(line),
            None => tracing::info!("{line}"),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        Ok(())
    }
}
