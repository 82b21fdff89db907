//! Learning rate over steps, as NeMo's schedulers compute it (`nemo/core/optim/lr_scheduler.py`).

mod curves;

use anyhow::{Result, bail, ensure};

use curves::{cosine, inverse_root, noam_hold, polynomial};

/// A learning rate for every step.
pub trait Schedule {
    /// The learning rate of optimizer step `step`, counted from 0.
    fn learning_rate(&self, step: u64) -> f64;
}

/// The shape of a schedule, by NeMo's names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// `WarmupPolicy`, `WarmupHoldPolicy`: constant after the warm-up.
    Constant,
    /// `CosineAnnealing`: half a cosine down to `min_lr`; with C = `constant_steps` above 0 Megatron's variant, whose
    /// warm-up begins at 0 and whose last C steps stay at `min_lr`.
    Cosine {
        /// C.
        constant_steps: u64,
    },
    /// `WarmupAnnealing`: a straight line down to `min_lr`.
    Linear,
    /// `PolynomialDecayAnnealing`, `PolynomialHoldDecayAnnealing`: (1 − p)^`power` down to `min_lr`.
    Polynomial {
        /// 1 is a straight line.
        power: f64,
        /// Start anew, over a longer stretch, when the end is reached.
        cycle: bool,
    },
    /// `SquareAnnealing`: the square of what is left, counted from the warm-up's end.
    Square,
    /// `SquareRootAnnealing`: the root of what is left, counted from the first step.
    SquareRoot,
    /// `InverseSquareRootAnnealing`: 1/√t, without end.
    InverseSquareRoot,
    /// `T5InverseSquareRootAnnealing`: 1/√t itself, whatever `lr` is, constant for the first `constant_steps`.
    T5InverseSquareRoot {
        /// Steps at 1/√`constant_steps`.
        constant_steps: u64,
    },
    /// `NoamAnnealing` (Vaswani et al. 2017), in units of 1/√`d_model`.
    Noam {
        /// Width of the model.
        d_model: f64,
    },
    /// `NoamHoldAnnealing` (Kim et al. 2022).
    NoamHold {
        /// 0.5 for Noam's decay, 1 for Squeezeformer's.
        decay_rate: f64,
    },
    /// `StepLR`: times `gamma` every `step_size` steps, without warm-up.
    Steps {
        /// Steps between two changes.
        step_size: u64,
        /// Factor.
        gamma: f64,
    },
    /// `ExponentialLR`: times `gamma` every epoch, without warm-up.
    Exponential {
        /// Steps of an epoch.
        epoch_steps: u64,
        /// Factor.
        gamma: f64,
    },
}

/// A [`Policy`] with its numbers.
#[derive(Clone, Copy, Debug)]
pub struct LearningRate {
    /// Shape.
    pub policy: Policy,
    /// Highest learning rate.
    pub lr: f64,
    /// Lowest learning rate.
    pub min_lr: f64,
    /// W: steps of rising learning rate; step t has `lr · (t+1)/(W+1)`.
    pub warmup_steps: u64,
    /// Steps at `lr` after the warm-up.
    pub hold_steps: u64,
    /// Step at which the lowest learning rate is reached.
    pub max_steps: u64,
}

impl LearningRate {
    /// The same learning rate at every step.
    pub fn constant(lr: f64) -> Self {
        Self {
            policy: Policy::Constant,
            lr,
            min_lr: 0.0,
            warmup_steps: 0,
            hold_steps: 0,
            max_steps: u64::MAX,
        }
    }

    /// Itself, if its numbers go together.
    ///
    /// # Errors
    /// When `lr` is below `min_lr`, when warm-up, holding and constant steps do not fit into the steps, or when a shape
    /// lacks what it needs.
    pub fn checked(self) -> Result<Self> {
        if self.lr < self.min_lr {
            bail!(
                "`optim.lr` is {}, below `optim.sched.min_lr` {}",
                self.lr,
                self.min_lr
            );
        }
        let fits = |what: &str, steps: u64| {
            if self.warmup_steps.saturating_add(steps) > self.max_steps {
                bail!(
                    "`optim.sched.warmup_steps` {} and `{what}` {steps} do not fit into {} training steps",
                    self.warmup_steps,
                    self.max_steps
                );
            }
            Ok(())
        };
        if self.hold_steps > 0 {
            fits("hold_steps", self.hold_steps)?;
        }
        match self.policy {
            Policy::Cosine { constant_steps } if constant_steps > 0 => {
                fits("constant_steps", constant_steps)?;
            }
            Policy::T5InverseSquareRoot { constant_steps } => ensure!(
                constant_steps > 0,
                "`T5InverseSquareRootAnnealing` needs `optim.sched.constant_steps`: its rate is 1/√constant_steps until then"
            ),
            Policy::NoamHold { .. } => ensure!(
                self.warmup_steps > 0,
                "`NoamHoldAnnealing` needs a warm-up: set `optim.sched.warmup_steps`"
            ),
            Policy::Noam { d_model } => ensure!(
                d_model > 0.0,
                "`NoamAnnealing` needs `optim.sched.d_model`, the width of the model"
            ),
            Policy::Steps { step_size, .. } => ensure!(
                step_size > 0,
                "`StepLR` needs `optim.sched.step_size`, the steps between two changes"
            ),
            _ => {}
        }
        Ok(self)
    }

    /// Steps from the end of the warm-up to the lowest rate.
    fn decay_steps(&self) -> u64 {
        self.max_steps.saturating_sub(self.warmup_steps)
    }

    fn warmup(&self, step: u64) -> f64 {
        self.lr * (step + 1) as f64 / (self.warmup_steps + 1) as f64
    }

    /// Megatron's cosine: its warm-up begins at 0, its tail is flat.
    fn cosine_with_tail(&self, step: u64, constant_steps: u64) -> f64 {
        let decay_steps = self.decay_steps().saturating_sub(constant_steps);
        if self.warmup_steps > 0 && step <= self.warmup_steps {
            self.lr * step as f64 / self.warmup_steps as f64
        } else if step > self.warmup_steps + decay_steps {
            self.min_lr
        } else {
            cosine(self.lr, self.min_lr, step - self.warmup_steps, decay_steps)
        }
    }

    fn after_warmup(&self, step: u64) -> f64 {
        let (lr, min_lr) = (self.lr, self.min_lr);
        let since_warmup = step - self.warmup_steps.min(step);
        match self.policy {
            Policy::Constant => lr,
            Policy::Cosine { .. } => cosine(lr, min_lr, since_warmup, self.decay_steps()),
            Policy::Linear => polynomial(lr, min_lr, since_warmup, self.decay_steps(), 1.0, false),
            Policy::Polynomial { power, cycle } => {
                // With a hold NeMo counts from its end.
                let held = self.hold_steps;
                polynomial(
                    lr,
                    min_lr,
                    since_warmup - held.min(since_warmup),
                    self.decay_steps().saturating_sub(held),
                    power,
                    cycle,
                )
            }
            Policy::Square => {
                let left = curves::left(since_warmup, self.decay_steps());
                (lr * left * left).max(min_lr)
            }
            Policy::SquareRoot => (lr * curves::left(step, self.max_steps).sqrt()).max(min_lr),
            Policy::InverseSquareRoot => inverse_root(lr, step, self.warmup_steps),
            Policy::NoamHold { decay_rate } => noam_hold(
                lr,
                min_lr,
                step,
                self.warmup_steps,
                self.hold_steps,
                decay_rate,
            ),
            // These have neither warm-up nor end; see `learning_rate`.
            Policy::T5InverseSquareRoot { .. }
            | Policy::Noam { .. }
            | Policy::Steps { .. }
            | Policy::Exponential { .. } => lr,
        }
    }
}

impl Schedule for LearningRate {
    fn learning_rate(&self, step: u64) -> f64 {
        match self.policy {
            Policy::Cosine { constant_steps } if constant_steps > 0 => {
                return self.cosine_with_tail(step, constant_steps);
            }
            Policy::T5InverseSquareRoot { constant_steps } => {
                return if step > self.max_steps {
                    self.min_lr
                } else {
                    1.0 / (step.max(constant_steps).max(1) as f64).sqrt()
                };
            }
            Policy::Noam { d_model } => {
                return curves::noam(self.lr, self.min_lr, step, self.warmup_steps, d_model);
            }
            Policy::Steps {
                step_size: every,
                gamma,
            }
            | Policy::Exponential {
                epoch_steps: every,
                gamma,
            } => {
                let times = i32::try_from(step / every.max(1)).unwrap_or(i32::MAX);
                return self.lr * gamma.powi(times);
            }
            _ => {}
        }
        if self.warmup_steps > 0 && step <= self.warmup_steps {
            self.warmup(step)
        } else if self.hold_steps > 0 && step < self.warmup_steps + self.hold_steps {
            self.lr
        } else if step > self.max_steps {
            self.min_lr
        } else {
            self.after_warmup(step)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Made by `make_schedules.py` beside it, from the formulas.
    const TABLE: &str = include_str!("../../../tests/cases/training/schedules.json");

    fn policy(case: &Value) -> Policy {
        let number = |key: &str| case[key].as_f64().unwrap();
        let steps = |key: &str| case[key].as_u64().unwrap_or(0);
        match case["policy"].as_str().unwrap() {
            "Constant" => Policy::Constant,
            "Cosine" => Policy::Cosine {
                constant_steps: steps("constant_steps"),
            },
            "Linear" => Policy::Linear,
            "Polynomial" => Policy::Polynomial {
                power: number("power"),
                cycle: case["cycle"].as_bool().unwrap(),
            },
            "Square" => Policy::Square,
            "SquareRoot" => Policy::SquareRoot,
            "InverseSquareRoot" => Policy::InverseSquareRoot,
            "T5InverseSquareRoot" => Policy::T5InverseSquareRoot {
                constant_steps: steps("constant_steps"),
            },
            "Noam" => Policy::Noam {
                d_model: number("d_model"),
            },
            "NoamHold" => Policy::NoamHold {
                decay_rate: number("decay_rate"),
            },
            "Steps" => Policy::Steps {
                step_size: steps("step_size"),
                gamma: number("gamma"),
            },
            "Exponential" => Policy::Exponential {
                epoch_steps: steps("epoch_steps"),
                gamma: number("gamma"),
            },
            other => panic!("{other}"),
        }
    }

    #[test]
    fn every_schedule_equals_the_table_of_its_formula_at_every_step() {
        let table: Value = serde_json::from_str(TABLE).unwrap();
        let cases = table.as_array().unwrap();
        assert!(cases.len() >= 18);
        for case in cases {
            let steps = |key: &str| case[key].as_u64().unwrap_or(0);
            let schedule = LearningRate {
                policy: policy(case),
                lr: case["lr"].as_f64().unwrap(),
                min_lr: case["min_lr"].as_f64().unwrap(),
                warmup_steps: steps("warmup_steps"),
                hold_steps: steps("hold_steps"),
                max_steps: steps("max_steps"),
            };
            let schedule = schedule.checked().unwrap();
            for (step, expected) in case["rates"].as_array().unwrap().iter().enumerate() {
                let found = schedule.learning_rate(step as u64);
                let expected = expected.as_f64().unwrap();
                assert!(
                    (found - expected).abs() <= 1e-12,
                    "{} at step {step}: {found} instead of {expected}",
                    case["name"]
                );
            }
        }
    }

    fn cosine_of(lr: f64, min_lr: f64, warmup: u64, constant: u64, steps: u64) -> LearningRate {
        LearningRate {
            policy: Policy::Cosine {
                constant_steps: constant,
            },
            lr,
            min_lr,
            warmup_steps: warmup,
            hold_steps: 0,
            max_steps: steps,
        }
    }

    #[test]
    fn steps_that_do_not_fit_and_a_floor_above_the_rate_are_refused() {
        assert!(cosine_of(1.0, 0.0, 50, 60, 100).checked().is_err());
        assert!(cosine_of(1.0, 2.0, 0, 0, 100).checked().is_err());
        let hold = LearningRate {
            policy: Policy::Linear,
            hold_steps: 60,
            ..cosine_of(1.0, 0.0, 50, 0, 100)
        };
        assert!(hold.checked().is_err());
        let without = |policy| LearningRate {
            policy,
            ..LearningRate::constant(1.0)
        };
        for policy in [
            Policy::T5InverseSquareRoot { constant_steps: 0 },
            Policy::NoamHold { decay_rate: 0.5 },
            Policy::Noam { d_model: 0.0 },
            Policy::Steps {
                step_size: 0,
                gamma: 0.1,
            },
        ] {
            assert!(without(policy).checked().is_err(), "{policy:?}");
        }
    }

    #[test]
    fn a_warm_up_longer_than_the_run_never_divides_by_zero() {
        for policy in [
            Policy::Cosine { constant_steps: 0 },
            Policy::Linear,
            Policy::Polynomial {
                power: 2.0,
                cycle: true,
            },
            Policy::Square,
            Policy::SquareRoot,
        ] {
            for max_steps in [0, 20, 50] {
                let schedule = LearningRate {
                    policy,
                    max_steps,
                    ..cosine_of(1.0, 0.0, 50, 0, 20)
                };
                for step in 0..60 {
                    let rate = schedule.learning_rate(step);
                    assert!((0.0..=1.0).contains(&rate), "{policy:?} {step}: {rate}");
                }
            }
        }
    }
}
