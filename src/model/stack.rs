//! Sub-layers one after another as one op: `x + f(x)` in place, with the gradient of a sum around a sub-layer never
//! copied.
//!
//! As an op each, candle would hand every result over in fresh memory and add every gradient to one of zeros: as much
//! traffic as the sub-layers' own.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::attention::SelfAttentionSaved;
use super::intermediate::Intermediate;
use super::kernels::buffer::Buffer;
use super::ops::{contiguous_f32, with_f32};

/// A sub-layer over packed rows on the CPU.
pub(crate) trait SubLayer: Send + Sync {
    /// Adds the sub-layer's result for `x` [N, H] to `y` (where asked for) and gives what the backward needs.
    fn run(&self, x: &[f32], y: Option<&mut [f32]>) -> Result<Saved>;

    /// Turns the gradient of the result [N, H] into that of `x`: where `needed` names positions, of these alone, with
    /// zeros elsewhere or not as the sub-layer finds it easier.
    fn gradient(
        &self,
        x: &[f32],
        gradient: &mut [f32],
        saved: Saved,
        needed: Option<&[u32]>,
    ) -> Result<()>;

    /// Whether `x` is part of the result.
    fn residual(&self) -> bool;

    /// Whether the backward computes again what it needs.
    fn recompute(&self) -> bool;
}

/// What a sub-layer leaves for its backward.
pub(crate) enum Saved {
    /// Of a self-attention.
    Attention(SelfAttentionSaved),
    /// Of a feed-forward sub-layer: [N, F] or [N, 2F].
    FeedForward(Intermediate),
}

/// One sub-layer's input (of all but the first, whose input is the op's) and what it left.
struct Kept {
    x: Option<Buffer>,
    saved: Option<Saved>,
}

/// Sub-layers from the first to the last.
struct Stack {
    sub_layers: Vec<Box<dyn SubLayer>>,
    /// Positions whose gradient is asked for; None: all.
    needed: Option<Vec<u32>>,
    keep: bool,
    kept: Mutex<Option<Vec<Kept>>>,
}

/// The sub-layers' result: [N, H] -> [N, H]; the gradient of `x` may be zero but at `needed` positions.
///
/// # Errors
/// Where sizes do not fit.
pub(crate) fn apply(
    x: &Tensor,
    sub_layers: Vec<Box<dyn SubLayer>>,
    needed: Option<&[u32]>,
) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Stack {
        keep: x.track_op(),
        sub_layers,
        needed: needed.map(<[u32]>::to_vec),
        kept: Mutex::new(None),
    })
}

impl Stack {
    /// The result, and what the backward needs.
    fn run(&self, x: &[f32]) -> Result<(Vec<f32>, Vec<Kept>)> {
        let mut y = x.to_vec();
        let mut kept = Vec::with_capacity(self.sub_layers.len());
        for (number, layer) in self.sub_layers.iter().enumerate() {
            let input = (number > 0).then(|| {
                let mut input = Buffer::dirty(y.len());
                copy(&y, &mut input);
                input
            });
            if !layer.residual() {
                y.fill(0.0);
            }
            let saved = layer.run(input.as_deref().unwrap_or(x), Some(&mut y))?;
            if self.keep {
                kept.push(Kept {
                    x: input,
                    saved: (!layer.recompute()).then_some(saved),
                });
            }
        }
        Ok((y, kept))
    }

    fn gradient(&self, x: &[f32], gradient: &mut [f32], kept: Vec<Kept>) -> Result<()> {
        // What a layer kept is free as soon as it has been used.
        for (number, (layer, kept)) in self.sub_layers.iter().zip(kept).enumerate().rev() {
            let x = kept.x.as_deref().unwrap_or(x);
            let saved = match kept.saved {
                Some(saved) => saved,
                None => layer.run(x, None)?,
            };
            let needed = self.needed.as_deref().filter(|_| number == 0);
            layer.gradient(x, gradient, saved, needed)?;
        }
        Ok(())
    }
}

/// Rows of `width` words at these positions, end to end.
pub(crate) fn gather(from: &[f32], width: usize, positions: &[u32]) -> Buffer {
    let mut rows = Buffer::dirty(positions.len() * width);
    for (row, &position) in rows.chunks_exact_mut(width.max(1)).zip(positions) {
        row.copy_from_slice(&from[position as usize * width..][..width]);
    }
    rows
}

/// Zeros but at these positions, where `rows` go.
pub(crate) fn scatter(rows: &[f32], width: usize, positions: &[u32], to: &mut [f32]) {
    to.fill(0.0);
    for (row, &position) in rows.chunks_exact(width.max(1)).zip(positions) {
        to[position as usize * width..][..width].copy_from_slice(row);
    }
}

/// Copies with all threads.
fn copy(from: &[f32], to: &mut [f32]) {
    const PART: usize = 1 << 16;
    to.par_chunks_mut(PART)
        .zip(from.par_chunks(PART))
        .for_each(|(to, from)| to.copy_from_slice(from));
}

impl CustomOp1 for Stack {
    fn name(&self) -> &'static str {
        "frozen-layers"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (y, kept) = self.run(contiguous_f32(storage, layout)?)?;
        if self.keep
            && let Ok(mut place) = self.kept.lock()
        {
            *place = Some(kept);
        }
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let kept = self.kept.lock().ok().and_then(|mut kept| kept.take());
        let grad = grad.contiguous()?;
        let mut dx = with_f32(&grad, <[f32]>::to_vec)?;
        with_f32(arg, |x| {
            // A second backward finds nothing and computes all of it again.
            let kept = match kept {
                Some(kept) => kept,
                None => self.run(x)?.1,
            };
            self.gradient(x, &mut dx, kept)
        })??;
        Ok(Some(Tensor::from_vec(dx, arg.shape(), arg.device())?))
    }
}
