//! Sub-layers one after another as one op: `x + f(x)` in place, with the gradient of a sum around a sub-layer never
//! copied.
//!
//! As an op each, candle would hand every result over in fresh memory and add every gradient to one of zeros: as much
//! traffic as the sub-layers' own.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::attention::{SelfAttention, SelfAttentionSaved};
use super::feed_forward::FeedForward;
use super::intermediate::{Intermediate, gather};
use super::kernels::buffer::Buffer;
use super::kernels::norm as norm_kernel;
use super::norm::Norm;
use super::ops::{Engine, contiguous_f32, store, take, with_f32};
use super::position::BatchPositions;
use super::repeats::Repeats;
use super::rows::Rows;

/// A sub-layer over packed rows on the CPU.
pub(crate) trait SubLayer: Send + Sync {
    /// Adds the sub-layer's result for `x` [N, H], of which some rows may be known to be equal, to `y` (where asked for)
    /// and gives what the backward needs.
    fn run(&self, x: &[f32], repeats: Option<&Repeats>, y: Option<&mut [f32]>) -> Result<Saved>;

    /// The gradient of `norm(x)` [N, H] from that of the result, or [P, H] of these positions alone.
    fn gradient(&self, dy: &[f32], saved: Saved, needed: Option<&[u32]>) -> Result<Buffer>;

    /// What `x` goes through first.
    fn norm(&self) -> &Norm;

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

/// Layers of an attention and a feed-forward sub-layer each, by either engine: [N, H] -> [N, H]; the gradient of `x` may be
/// zero but at `needed` positions.
///
/// # Errors
/// Where sizes do not fit.
pub(crate) fn through<'a>(
    x: &Tensor,
    layers: impl Iterator<Item = (&'a SelfAttention, &'a FeedForward, &'a BatchPositions)>,
    rows: &Arc<Rows>,
    needed: Option<&[u32]>,
    engine: Engine,
) -> Result<Tensor> {
    if engine == Engine::Fused {
        let sub_layers = layers.flat_map(|(attention, feed_forward, positions)| {
            let attention = attention.sub_layer(rows, positions);
            [attention, Box::new(feed_forward.clone())]
        });
        return apply(x, sub_layers.collect(), needed);
    }
    let mut x = x.clone();
    for (attention, feed_forward, positions) in layers {
        x = attention.forward(&x, rows, positions, engine)?;
        x = feed_forward.forward(&x, engine)?;
    }
    Ok(x)
}

impl Stack {
    /// Equal rows of a sub-layer's input: only the first of many, which stands before all layers, has any to speak of.
    fn repeats(&self, number: usize, x: &[f32]) -> Option<Repeats> {
        let [first, _, ..] = &*self.sub_layers else {
            return None;
        };
        (number == 0).then(|| Repeats::of(x, first.norm().width()))?
    }

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
            let repeats = self.repeats(number, x);
            let from = input.as_deref().unwrap_or(x);
            let saved = layer.run(from, repeats.as_ref(), Some(&mut y))?;
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
                None => layer.run(x, self.repeats(number, x).as_ref(), None)?,
            };
            let needed = self.needed.as_deref().filter(|_| number == 0);
            let dnormed = layer.gradient(gradient, saved, needed)?;
            if !layer.residual() {
                gradient.fill(0.0);
            }
            let add_vjp = |x: &[f32], dx: &mut [f32]| {
                let norm = layer.norm();
                norm.with_weights(|norm| norm_kernel::add_vjp(x, &dnormed, norm, dx))
            };
            match needed {
                None => add_vjp(x, gradient)?,
                Some(needed) => {
                    let width = layer.norm().width();
                    let mut dx = gather(gradient, width, needed); // [P, H]
                    add_vjp(&gather(x, width, needed), &mut dx)?;
                    scatter(&dx, width, needed, gradient);
                }
            }
        }
        Ok(())
    }
}

/// Zeros but at these positions, where `rows` go.
fn scatter(rows: &[f32], width: usize, positions: &[u32], to: &mut [f32]) {
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
        if self.keep {
            store(&self.kept, kept);
        }
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let kept = take(&self.kept);
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
