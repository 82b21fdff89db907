//! How a learning rate falls, step by step.

use std::f64::consts::PI;

/// The part of `total` steps that is behind after `done` of them; all of it where there are none.
fn progress(done: u64, total: u64) -> f64 {
    if total == 0 {
        1.0
    } else {
        (done as f64 / total as f64).min(1.0)
    }
}

/// The part that is still to come.
pub(super) fn left(done: u64, total: u64) -> f64 {
    1.0 - progress(done, total)
}

pub(super) fn cosine(lr: f64, min_lr: f64, done: u64, total: u64) -> f64 {
    min_lr + (lr - min_lr) * 0.5 * (1.0 + (PI * progress(done, total)).cos())
}

/// (1 − p)^`power`; with `cycle` the stretch is doubled, tripled … when its end is passed.
pub(super) fn polynomial(
    lr: f64,
    min_lr: f64,
    done: u64,
    total: u64,
    power: f64,
    cycle: bool,
) -> f64 {
    let total = if cycle && done > 0 {
        total.saturating_mul(done.div_ceil(total.max(1)))
    } else {
        total
    };
    min_lr + (lr - min_lr) * left(done, total).powf(power)
}

/// 1/√t from the warm-up's end on.
pub(super) fn inverse_root(lr: f64, step: u64, warmup_steps: u64) -> f64 {
    lr / ((step + 1) as f64 / (warmup_steps + 1) as f64).sqrt()
}

/// Noam's rate: rises to step W, falls as 1/√t, both over √`d_model`.
pub(super) fn noam(lr: f64, min_lr: f64, step: u64, warmup_steps: u64, d_model: f64) -> f64 {
    let t = step.max(1) as f64;
    let falling = 1.0 / t.sqrt();
    let factor = if warmup_steps > 0 {
        falling.min(t * (warmup_steps as f64).powf(-1.5))
    } else {
        falling
    };
    let rate = lr * factor / d_model.sqrt();
    if step.max(1) > warmup_steps {
        rate.max(min_lr)
    } else {
        rate
    }
}

/// Falls from the end of warm-up and hold on, as if the hold had not been.
pub(super) fn noam_hold(
    lr: f64,
    min_lr: f64,
    step: u64,
    warmup_steps: u64,
    hold_steps: u64,
    decay_rate: f64,
) -> f64 {
    let power = |steps: u64| (steps as f64).powf(decay_rate).max(1.0);
    (lr * power(warmup_steps) / power(step.saturating_sub(hold_steps))).max(min_lr)
}
