//! Feed-forward sub-layers: `x + down(activation(up(norm(x))))`, gated or not.

use candle_core::{Result, Tensor};

use super::frozen::FrozenLinear;
use super::intermediate::{Form, Intermediate, Operand, Product};
use super::kernels::activation as kernel;
pub use super::kernels::activation::Activation;
use super::kernels::buffer::Buffer;
use super::kernels::matmul::Into;
use super::norm::Norm;
use super::ops::Engine;
use super::repeats::Repeats;
use super::stack::{self, Saved, SubLayer};

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
            Engine::Fused => stack::apply(x, vec![Box::new(self.clone())], None),
        }
    }

    /// The form of what lies between the products.
    fn form(&self) -> Form {
        match (self.up.form(), self.down.form()) {
            (Form::Pairs, Form::Pairs) => Form::Pairs,
            _ => Form::Numbers,
        }
    }

    /// Numbers held.
    pub fn parameter_count(&self) -> usize {
        self.norm.parameter_count() + self.up.parameter_count() + self.down.parameter_count()
    }
}

/// An activation by differentiable candle ops.
pub(super) fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Relu => x.relu(),
        Activation::SquaredRelu => x.relu()?.sqr(),
        Activation::GeluTanh => x.gelu(),
        Activation::GeluErf => x.gelu_erf(),
        Activation::Silu => x.silu(),
    }
}

/// Keeps what enters the activation for the backward.
impl SubLayer for FeedForward {
    fn run(&self, x: &[f32], _: Option<&Repeats>, y: Option<&mut [f32]>) -> Result<Saved> {
        let count = x.len() / self.up.inputs();
        let form = self.form();
        let mut u = Intermediate::dirty(form, count * self.up.outputs());
        {
            let normed = Intermediate::normed(form, &self.norm, x)?;
            self.up.multiply(normed.operand(), u.product())?;
        }
        if let Some(y) = y {
            let width = self.down.inputs();
            let mut hidden = Intermediate::dirty(form, count * width);
            let kind = (self.activation, self.gated);
            kernel::forward(form, kind, width, &u.words, &mut hidden.words);
            let y = Product::Numbers(y, Into::Add);
            self.down.multiply(hidden.operand(), y)?;
        }
        Ok(Saved::FeedForward(u))
    }

    fn gradient(&self, dy: &[f32], saved: Saved, needed: Option<&[u32]>) -> Result<Buffer> {
        let Saved::FeedForward(mut u) = saved else {
            candle_core::bail!("a feed-forward sub-layer was given what another left")
        };
        let count = dy.len() / self.down.outputs();
        let width = self.down.inputs();
        {
            let mut dhidden = Intermediate::dirty(u.form, count * width);
            self.down
                .multiply_back(Operand::Numbers(dy), dhidden.product())?;
            let kind = (self.activation, self.gated);
            kernel::vjp_in_place(u.form, kind, width, &dhidden.words, &mut u.words);
        }
        self.up.input_gradient(u, needed)
    }

    fn norm(&self) -> &Norm {
        &self.norm
    }

    fn residual(&self) -> bool {
        self.residual
    }

    fn recompute(&self) -> bool {
        self.recompute
    }
}
