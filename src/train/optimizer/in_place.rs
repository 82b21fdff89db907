//! Adam on the CPU: each tensor in one pass over its numbers, by all threads, where they lie.
//!
//! A dozen ops of candle would read and write the tensor and its moments a dozen times over fresh memory, which for the
//! prompt encoder of a small model was a tenth of a training step. The arithmetic is that of the ops, number by number.

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result};
use rayon::prelude::*;

use crate::model::ops::contiguous_f32;

/// Numbers that a task handles.
const TASK: usize = 1 << 15;

/// `kept · x + added · f(scale · gradient)`, where `f` is the number itself or its square.
pub(super) struct Moment {
    pub(super) kept: f32,
    pub(super) added: f32,
    pub(super) scale: f32,
    pub(super) squared: bool,
}

/// `kept · x - rate · (first · m) / (√(second · v) + eps)`.
pub(super) struct Update {
    pub(super) kept: f32,
    pub(super) rate: f32,
    pub(super) first: f32,
    pub(super) second: f32,
    pub(super) eps: f32,
}

fn numbers_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(numbers), Some((start, end))) => Ok(&mut numbers[start..end]),
        _ => candle_core::bail!("an update in place needs contiguous tensors of f32"),
    }
}

impl InplaceOp2 for Moment {
    fn name(&self) -> &'static str {
        "adam-moment"
    }

    fn cpu_fwd(
        &self,
        moment: &mut CpuStorage,
        moment_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<()> {
        let moment = numbers_mut(moment, moment_layout)?;
        let gradient = contiguous_f32(gradient, gradient_layout)?;
        moment
            .par_chunks_mut(TASK)
            .zip(gradient.par_chunks(TASK))
            .for_each(|(moment, gradient)| {
                for (moment, gradient) in moment.iter_mut().zip(gradient) {
                    let scaled = gradient * self.scale;
                    let new = if self.squared {
                        scaled * scaled
                    } else {
                        scaled
                    };
                    *moment = *moment * self.kept + new * self.added;
                }
            });
        Ok(())
    }
}

impl InplaceOp3 for Update {
    fn name(&self) -> &'static str {
        "adam-update"
    }

    fn cpu_fwd(
        &self,
        value: &mut CpuStorage,
        value_layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> Result<()> {
        let value = numbers_mut(value, value_layout)?;
        let first = contiguous_f32(first, first_layout)?;
        let second = contiguous_f32(second, second_layout)?;
        value
            .par_chunks_mut(TASK)
            .zip(first.par_chunks(TASK).zip(second.par_chunks(TASK)))
            .for_each(|(value, (first, second))| {
                for (value, (first, second)) in value.iter_mut().zip(first.iter().zip(second)) {
                    let root = (second * self.second).sqrt() + self.eps;
                    let direction = first * self.first / root;
                    *value = *value * self.kept - direction * self.rate;
                }
            });
        Ok(())
    }
}
