//! What a person sees: a bar on a terminal, plain lines in a log.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

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
    first_step: u64,
    started: Instant,
    /// When the last plain line was written.
    last_line: Instant,
}

/// A log that nothing is written to for longer leaves its reader in doubt whether the job still runs.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);

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
            first_step: steps_done,
            started: Instant::now(),
            last_line: Instant::now(),
        }
    }

    /// About how long the steps behind `step` will take, validations included; nothing in the first minute.
    fn time_left(&self, step: u64, elapsed: Duration) -> Option<String> {
        let (done, left) = (
            step.saturating_sub(self.first_step),
            self.max_steps.saturating_sub(step),
        );
        if done == 0 || left == 0 || elapsed < Duration::from_secs(60) {
            return None;
        }
        let seconds = elapsed.as_secs_f64() / done as f64 * left as f64;
        let minutes = (seconds / 60.0).ceil() as u64;
        Some(match minutes {
            0..120 => format!("{minutes} min left"),
            _ => format!("{:.1} h left", seconds / 3600.0),
        })
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
        let tokens_per_second = metrics.tokens_per_second();
        if let Some(bar) = &self.bar {
            bar.set_position(metrics.step);
            bar.set_message(format!(
                "loss {:.4}, {tokens_per_second:.0} tokens/s",
                metrics.loss
            ));
        } else if log || self.last_line.elapsed() >= LONGEST_SILENCE {
            self.last_line = Instant::now();
            let left = self
                .time_left(metrics.step, self.started.elapsed())
                .map_or(String::new(), |left| format!(", {left}"));
            tracing::info!(
                "step {}/{}: loss {:.4}, lr {:.3e}, gradient norm {:.3}, {tokens_per_second:.0} tokens/s, {:.2} s{left}",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_that_of_the_steps_of_this_process() {
        let console = Console::new(100, 40, None);
        let left = |step, minutes: u64| console.time_left(step, Duration::from_secs(60 * minutes));
        assert_eq!(left(50, 5).unwrap(), "25 min left");
        assert_eq!(left(41, 5).unwrap(), "4.9 h left");
        assert_eq!(left(40, 5), None, "no step was made here");
        assert_eq!(left(100, 5), None, "nothing is left");
        assert_eq!(left(50, 0), None, "too early to tell");
    }
}
