//! Feed-forward sub-layers: `x + down(activation(up(norm(x))))`, gated or not.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::attention::{start, store, take};
use super::frozen::FrozenLinear;
use super::intermediate::{Form, Intermediate, Operand, Product};
use super::kernels::activation as kernel;
pub use super::kernels::activation::Activation;
use super::kernels::buffer::Buffer;
use super::kernels::matmul::Into;
use super::kernels::norm as norm_kernel;
use super::norm::Norm;
use super::ops::{Engine, contiguous_f32, with_f32};

/// A feed-forward sub-layer with its norm.
#[derive(Clone, Debug)]
pub struct FeedForward {
    /// Before the first projection.
    pub norm: Norm,
    /// [H] -> [F], or gate and value side by side: [H] -> [2F].
    pub up: FrozenLinear,
    /// [F] -> [H]
    pub down: FrozenLinear,
    /// Between them.
    pub activation: Activation,
    /// Whether the activated first half multiplies the second (Shazeer 2020).
    pub gated: bool,
    /// Whether `x` is part of the result; without it the caller adds up (parallel sub-layers).
    pub residual: bool,
    /// Whether the backward computes what enters the activation again instead of keeping it.
    pub recompute: bool,
}

impl FeedForward {
    /// `x + down(activation(up(norm(x))))`: [N, H] -> [N, H].
    ///
    /// # Errors
    /// Where sizes do not fit.
    pub fn forward(&self, x: &Tensor, engine: Engine) -> Result<Tensor> {
        match engine {
            Engine::Reference => {
                let u = self.up.forward(&self.norm.forward(x)?)?; // [N, F] or [N, 2F]
                let width = self.down.inputs();
                let hidden = if self.gated {
                    let gate = activate(self.activation, &u.narrow(1, 0, width)?)?;
                    (gate * u.narrow(1, width, width)?)?
                } else {
                    activate(self.activation, &u)?
                }; // [N, F]
                let y = self.down.forward(&hidden)?; // [N, H]
                if self.residual { x + y } else { Ok(y) }
            }
            Engine::Fused => x.contiguous()?.apply_op1(FeedForwardOp {
                block: self.clone(),
                keep: x.track_op() && !self.recompute,
                saved: Mutex::new(None),
            }),
        }
    }

    /// Numbers held.
    pub fn parameter_count(&self) -> usize {
        self.norm.parameter_count() + self.up.parameter_count() + self.down.parameter_count()
    }
}

/// An activation by differentiable candle ops.
fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Relu => x.relu(),
        Activation::SquaredRelu => x.relu()?.sqr(),
        Activation::GeluTanh => x.gelu(),
        Activation::GeluErf => x.gelu_erf(),
        Activation::Silu => x.silu(),
    }
}

/// The sub-layer as one op, keeping what enters the activation for its backward.
struct FeedForwardOp {
    block: FeedForward,
    keep: bool,
    /// [N, F] or [N, 2F]
    saved: Mutex<Option<Intermediate>>,
}

impl FeedForwardOp {
    /// The form of what lies between the products.
    fn form(&self) -> Form {
        match (self.block.up.form(), self.block.down.form()) {
            (Form::Pairs, Form::Pairs) => Form::Pairs,
            _ => Form::Numbers,
        }
    }

    /// Adds the sub-layer's result to `y` (where asked for) and gives what the backward needs.
    fn run(&self, x: &[f32], y: Option<&mut [f32]>) -> Result<Intermediate> {
        let block = &self.block;
        let count = x.len() / block.up.inputs();
        let form = self.form();
        let mut u = Intermediate::dirty(form, count * block.up.outputs());
        {
            let normed = Intermediate::normed(form, &block.norm, x)?;
            block.up.multiply(normed.operand(), u.product())?;
        }
        if let Some(y) = y {
            let width = block.down.inputs();
            let mut hidden = Intermediate::dirty(form, count * width);
            let forward = match form {
                Form::Numbers => kernel::forward,
                Form::Pairs => kernel::forward_pairs,
            };
            forward(
                block.activation,
                block.gated,
                width,
                &u.words,
                &mut hidden.words,
            );
            let y = Product::Numbers(y, Into::Add);
            block.down.multiply(hidden.operand(), y)?;
        }
        Ok(u)
    }

    fn gradient(&self, x: &[f32], dy: &[f32], mut u: Intermediate) -> Result<Vec<f32>> {
        let block = &self.block;
        let count = x.len() / block.up.inputs();
        let width = block.down.inputs();
        {
            let mut dhidden = Intermediate::dirty(u.form, count * width);
            let dy = Operand::Numbers(dy);
            block.down.multiply_back(dy, dhidden.product())?;
            let vjp_in_place = match u.form {
                Form::Numbers => kernel::vjp_in_place,
                Form::Pairs => kernel::vjp_pairs_in_place,
            };
            vjp_in_place(
                block.activation,
                block.gated,
                width,
                &dhidden.words,
                &mut u.words,
            );
        }
        let mut dnormed = Buffer::dirty(x.len());
        let dx = Product::Numbers(&mut dnormed, Into::Overwrite);
        block.up.multiply_back(u.operand(), dx)?;
        drop(u);
        let mut dx = start(dy, block.residual);
        block
            .norm
            .with_weights(|norm| norm_kernel::add_vjp(x, &dnormed, norm, &mut dx))?;
        Ok(dx)
    }
}

impl CustomOp1 for FeedForwardOp {
    fn name(&self) -> &'static str {
        "feed-forward"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous_f32(storage, layout)?;
        let mut y = start(x, self.block.residual);
        let saved = self.run(x, Some(&mut y))?;
        if self.keep {
            store(&self.saved, saved);
        }
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let dx = with_f32(arg, |x| -> Result<Vec<f32>> {
            let saved = match take(&self.saved) {
                Some(saved) => saved,
                None => self.run(x, None)?,
            };
            with_f32(&grad, |dy| self.gradient(x, dy, saved))?
        })??;
        Ok(Some(Tensor::from_vec(dx, arg.shape(), arg.device())?))
    }
}
