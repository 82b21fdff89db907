//! Which of two measured values is better, and when training has stood still for long enough.

use indexmap::IndexMap;

/// Everything that was measured at a validation, by name.
pub type Measured = IndexMap<String, f64>;

/// A value to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// Its name among the [`Measured`].
    pub name: String,
    /// Whether more of it is better.
    pub higher_is_better: bool,
}

impl Monitor {
    /// Whether `new` is better than `old` by more than `least`. What is not finite is never better.
    pub fn improves(&self, new: f64, old: Option<f64>, least: f64) -> bool {
        let gain = |old: f64| {
            if self.higher_is_better {
                new - old
            } else {
                old - new
            }
        };
        new.is_finite() && old.is_none_or(|old| old.is_nan() || gain(old) > least)
    }

    /// The place of `value` in a list of values that stands best first.
    pub fn place<T>(&self, value: f64, list: &[(f64, T)]) -> usize {
        list.iter()
            .position(|(other, _)| self.improves(value, Some(*other), 0.0))
            .unwrap_or(list.len())
    }
}

/// Keys of `early_stopping_callback_params`.
#[derive(Clone, Debug)]
pub struct EarlyStopping {
    /// The value watched.
    pub monitor: Monitor,
    /// Validations to wait.
    pub patience: u64,
    /// Smallest improvement that counts.
    pub min_delta: f64,
    /// Say what happens.
    pub verbose: bool,
    /// Stop where the value is not finite.
    pub check_finite: bool,
    /// Stop as soon as the value is better than this.
    pub stopping_threshold: Option<f64>,
    /// Stop as soon as the value is worse than this.
    pub divergence_threshold: Option<f64>,
}

/// What early stopping remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Patience {
    /// The best value that counted.
    pub best: Option<f64>,
    /// Validations since.
    pub waited: u64,
}

impl EarlyStopping {
    /// Takes in a validation. Why training shall stop, if it shall.
    pub fn look(&self, measured: &Measured, patience: &mut Patience) -> Option<String> {
        let name = &self.monitor.name;
        let Some(&value) = measured.get(name) else {
            tracing::debug!("`{name}` was not measured: early stopping does nothing");
            return None;
        };
        if self.check_finite && !value.is_finite() {
            return Some(format!("{name} is {value}"));
        }
        if let Some(threshold) = self.stopping_threshold
            && self.monitor.improves(value, Some(threshold), 0.0)
        {
            return Some(format!("{name} {value:.4} is better than {threshold}"));
        }
        let worst = |threshold: f64| self.monitor.improves(threshold, Some(value), 0.0);
        if let Some(threshold) = self.divergence_threshold
            && worst(threshold)
        {
            return Some(format!("{name} {value:.4} is worse than {threshold}"));
        }
        if self.monitor.improves(value, patience.best, self.min_delta) {
            if self.verbose {
                match patience.best {
                    Some(best) => tracing::info!(
                        "{name} improved by {:.4} to {value:.4}",
                        (best - value).abs()
                    ),
                    None => tracing::info!("{name} is {value:.4} at first"),
                }
            }
            *patience = Patience {
                best: Some(value),
                waited: 0,
            };
            return None;
        }
        patience.waited += 1;
        if patience.waited < self.patience {
            if self.verbose {
                tracing::info!(
                    "{name} did not improve by more than {}: {} of {} validations",
                    self.min_delta,
                    patience.waited,
                    self.patience
                );
            }
            return None;
        }
        let best = patience.best.unwrap_or(f64::NAN);
        Some(format!(
            "{name} did not improve in {} validations; its best was {best:.4}",
            patience.waited
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn early(higher_is_better: bool) -> EarlyStopping {
        EarlyStopping {
            monitor: Monitor {
                name: "x".into(),
                higher_is_better,
            },
            patience: 2,
            min_delta: 0.1,
            verbose: false,
            check_finite: true,
            stopping_threshold: None,
            divergence_threshold: None,
        }
    }

    /// How many of the values were taken in before it stopped.
    fn taken(early: &EarlyStopping, values: &[f64]) -> usize {
        let mut patience = Patience::default();
        values
            .iter()
            .position(|value| {
                let measured = Measured::from([("x".to_owned(), *value)]);
                early.look(&measured, &mut patience).is_some()
            })
            .unwrap_or(values.len())
    }

    #[test]
    fn small_steps_do_not_count_one_by_one_but_do_together() {
        // 0.92 is no improvement over 1.0, 0.85 is.
        assert_eq!(taken(&early(false), &[1.0, 0.92, 0.85, 0.8, 0.79, 0.1]), 4);
        assert_eq!(taken(&early(true), &[0.1, 0.3, 0.3, 0.3, 0.9]), 3);
    }

    #[test]
    fn thresholds_and_values_that_are_no_numbers_stop_at_once() {
        let mut watched = early(false);
        assert_eq!(taken(&watched, &[1.0, f64::NAN, 0.5]), 1);
        watched.check_finite = false;
        assert_eq!(taken(&watched, &[1.0, f64::NAN, 0.5, 0.5, 0.5]), 4);
        watched.stopping_threshold = Some(0.7);
        assert_eq!(taken(&watched, &[1.0, 0.65, 0.5]), 1);
        watched.divergence_threshold = Some(2.0);
        assert_eq!(taken(&watched, &[1.0, 2.5, 0.5]), 1);
    }

    #[test]
    fn a_list_stays_best_first_in_either_direction() {
        let place = |higher, value| {
            let list = if higher {
                [(0.9, ()), (0.5, ())]
            } else {
                [(0.5, ()), (0.9, ())]
            };
            early(higher).monitor.place(value, &list)
        };
        assert_eq!((place(true, 0.7), place(false, 0.7)), (1, 1));
        assert_eq!((place(true, 1.0), place(false, 1.0)), (0, 2));
        assert_eq!((place(true, f64::NAN), place(true, 0.5)), (2, 2));
    }
}
