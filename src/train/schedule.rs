//! Learning rate over steps, as NeMo's schedulers compute it (`nemo/core/optim/lr_scheduler.py`).

use anyhow::{Result, bail};

/// A learning rate for every step.
pub trait Schedule {
    /// The learning rate of optimizer step `step`, counted from 0.
    fn learning_rate(&self, step: u64) -> f64;
}

/// Warm-up, a half cosine down to `min_lr`, and optionally a constant tail.
///
/// With W = `warmup_steps`, C = `constant_steps`, M = `max_steps`:
/// - C = 0: the warm-up ends at step W with `lr · (t+1)/(W+1)`, the cosine runs from W to M;
/// - C > 0: the warm-up is `lr · t/W` (its first step has rate 0), the cosine runs over M − C − W steps, and the last C
///   steps stay at `min_lr`.
#[derive(Clone, Copy, Debug)]
pub struct CosineAnnealing {
    lr: f64,
    min_lr: f64,
    warmup_steps: u64,
    constant_steps: u64,
    max_steps: u64,
}

impl CosineAnnealing {
    /// # Errors
    /// When `lr` is below `min_lr`, or warm-up and constant steps leave no step for the cosine.
    pub fn new(
        lr: f64,
        min_lr: f64,
        warmup_steps: u64,
        constant_steps: u64,
        max_steps: u64,
    ) -> Result<Self> {
        if lr < min_lr {
            bail!("`optim.lr` is {lr}, below `optim.sched.min_lr` {min_lr}");
        }
        if constant_steps > 0 && warmup_steps + constant_steps > max_steps {
            bail!(
                "`optim.sched.warmup_steps` {warmup_steps} and `constant_steps` {constant_steps} do not fit into \
                 {max_steps} training steps"
            );
        }
        Ok(Self {
            lr,
            min_lr,
            warmup_steps,
            constant_steps,
            max_steps,
        })
    }

    fn cosine(&self, done: u64, total: u64) -> f64 {
        let progress = if total == 0 {
            1.0
        } else {
            done as f64 / total as f64
        };
        self.min_lr
            + (self.lr - self.min_lr) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
    }
}

impl Schedule for CosineAnnealing {
    fn learning_rate(&self, step: u64) -> f64 {
        let Self {
            lr,
            min_lr,
            warmup_steps,
            constant_steps,
            max_steps,
        } = *self;
        if constant_steps == 0 {
            return if step <= warmup_steps && warmup_steps > 0 {
                lr * (step + 1) as f64 / (warmup_steps + 1) as f64
            } else if step > max_steps {
                min_lr
            } else {
                self.cosine(step - warmup_steps, max_steps.saturating_sub(warmup_steps))
            };
        }
        let decay_steps = max_steps - constant_steps - warmup_steps;
        if step <= warmup_steps && warmup_steps > 0 {
            lr * step as f64 / warmup_steps as f64
        } else if step <= warmup_steps + decay_steps {
            self.cosine(step - warmup_steps, decay_steps)
        } else {
            min_lr
        }
    }
}

/// The same learning rate at every step, after a warm-up to it.
#[derive(Clone, Copy, Debug)]
pub struct Constant {
    /// Learning rate after the warm-up.
    pub lr: f64,
    /// Steps of the warm-up: step t has `lr · (t+1)/(W+1)`.
    pub warmup_steps: u64,
}

impl Schedule for Constant {
    fn learning_rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            self.lr * (step + 1) as f64 / (self.warmup_steps + 1) as f64
        } else {
            self.lr
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() < 1e-12,
            "{found} instead of {expected}"
        );
    }

    #[test]
    fn without_constant_steps_the_first_step_already_learns() {
        let schedule = CosineAnnealing::new(1.0, 0.1, 4, 0, 24).unwrap();
        assert_close(schedule.learning_rate(0), 0.2);
        assert_close(schedule.learning_rate(4), 1.0);
        assert_close(schedule.learning_rate(14), 0.55); // half way down
        assert_close(schedule.learning_rate(24), 0.1);
        assert_close(schedule.learning_rate(25), 0.1);
    }

    #[test]
    fn with_constant_steps_the_first_step_has_rate_zero_and_the_tail_is_flat() {
        let schedule = CosineAnnealing::new(1.0, 0.0, 4, 10, 34).unwrap();
        assert_close(schedule.learning_rate(0), 0.0);
        assert_close(schedule.learning_rate(1), 0.25);
        assert_close(schedule.learning_rate(4), 1.0);
        assert_close(schedule.learning_rate(14), 0.5);
        assert_close(schedule.learning_rate(24), 0.0);
        assert_close(schedule.learning_rate(30), 0.0);
    }

    #[test]
    fn steps_that_do_not_fit_and_a_floor_above_the_rate_are_refused() {
        assert!(CosineAnnealing::new(1.0, 0.0, 50, 60, 100).is_err());
        assert!(CosineAnnealing::new(1.0, 2.0, 0, 0, 100).is_err());
    }

    #[test]
    fn a_warm_up_longer_than_the_run_never_divides_by_zero() {
        let schedule = CosineAnnealing::new(1.0, 0.0, 50, 0, 20).unwrap();
        for step in 0..60 {
            assert!(schedule.learning_rate(step).is_finite());
        }
    }
}
