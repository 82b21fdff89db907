//! The factor that keeps gradients in half precision away from zero, found while training.
//!
//! By the rules of NeMo's scaler: it doubles after `growth_interval` good steps in a row; a step whose gradient is not
//! finite is left out, and the `hysteresis`-th of them in a row (and each that follows) halves it.

use serde::{Deserialize, Serialize};

/// Below this a gradient that is not finite is no matter of its scale.
const SMALLEST: f64 = 1e-3;

/// Keys of `model`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScaleOptions {
    /// `native_amp_init_scale`
    pub init_scale: f64,
    /// `native_amp_growth_interval`
    pub growth_interval: u64,
    /// `hysteresis`
    pub hysteresis: u64,
}

impl Default for LossScaleOptions {
    fn default() -> Self {
        Self {
            init_scale: 2f64.powi(32),
            growth_interval: 1000,
            hysteresis: 2,
        }
    }
}

/// The factor and what decides its next change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// What the loss is multiplied by before the backward.
    pub scale: f64,
    /// Good steps since it last changed or a step was left out.
    good_steps: u64,
    /// Steps that may be left out before it is halved.
    patience: u64,
}

impl LossScale {
    /// The factor of a first step.
    pub fn new(options: &LossScaleOptions) -> Self {
        Self {
            scale: options.init_scale,
            good_steps: 0,
            patience: options.hysteresis.max(1),
        }
    }

    /// After a step whose gradient was finite.
    pub fn good(&mut self, options: &LossScaleOptions) {
        self.patience = options.hysteresis.max(1);
        self.good_steps += 1;
        if self.good_steps >= options.growth_interval.max(1) {
            self.good_steps = 0;
            // The largest power of two that f32 holds.
            self.scale = (self.scale * 2.0).min(2f64.powi(127));
        }
    }

    /// After a step that was left out. Whether there is hope that a smaller factor helps.
    pub fn overflow(&mut self) -> bool {
        self.good_steps = 0;
        self.patience = self.patience.saturating_sub(1);
        if self.patience == 0 {
            self.scale *= 0.5;
        }
        self.scale > SMALLEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_after_good_steps_and_falls_when_patience_is_over() {
        let options = LossScaleOptions {
            init_scale: 1024.0,
            growth_interval: 3,
            hysteresis: 2,
        };
        let mut scale = LossScale::new(&options);
        let mut after = |steps: &str| {
            for step in steps.chars() {
                if step == '+' {
                    scale.good(&options);
                } else {
                    assert!(scale.overflow());
                }
            }
            scale.scale
        };
        assert!((after("++") - 1024.0).abs() < 1e-9);
        assert!((after("+") - 2048.0).abs() < 1e-9);
        assert!((after("-") - 2048.0).abs() < 1e-9, "the first is forgiven");
        assert!((after("-") - 1024.0).abs() < 1e-9);
        assert!((after("-") - 512.0).abs() < 1e-9, "and each that follows");
        assert!((after("+-") - 512.0).abs() < 1e-9, "a good step forgives");
        assert!((after("++") - 512.0).abs() < 1e-9, "good steps count anew");
        assert!((after("+") - 1024.0).abs() < 1e-9);
    }

    #[test]
    fn it_gives_up_when_no_factor_helps() {
        let mut scale = LossScale::new(&LossScaleOptions::default());
        let tries = (0..100).take_while(|_| scale.overflow()).count();
        assert!((40..50).contains(&tries), "{tries}");
    }
}
