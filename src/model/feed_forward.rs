//! Feed-forward sub-layers: `x + down(activation(up(norm(x))))`, gated or not.

use candle_core::{Result, Tensor};

use super::frozen::FrozenLinear;
use super::intermediate::{Form, Intermediate, Operand, Product};
use super::kernels::activation as kernel;
pub use super::kernels::activation::Activation;
use super::kernels::buffer::Buffer;
use super::kernels::matmul::Into;
use super::kernels::norm as norm_kernel;
use super::norm::Norm;
use super::ops::Engine;
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
fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
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
    fn run(&self, x: &[f32], y: Option<&mut [f32]>) -> Result<Saved> {
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
            let forward = match form {
                Form::Numbers => kernel::forward,
                Form::Pairs => kernel::forward_pairs,
            };
            forward(
                self.activation,
                self.gated,
                width,
                &u.words,
                &mut hidden.words,
            );
            let y = Product::Numbers(y, Into::Add);
            self.down.multiply(hidden.operand(), y)?;
        }
        Ok(Saved::FeedForward(u))
    }

    fn gradient(
        &self,
        x: &[f32],
        gradient: &mut [f32],
        saved: Saved,
        _needed: Option<&[u32]>,
    ) -> Result<()> {
        let Saved::FeedForward(mut u) = saved else {
            candle_core::bail!("a feed-forward sub-layer was given what another left")
        };
        let count = x.len() / self.up.inputs();
        let width = self.down.inputs();
        {
            let mut dhidden = Intermediate::dirty(u.form, count * width);
            let dy = Operand::Numbers(gradient);
            self.down.multiply_back(dy, dhidden.product())?;
            let vjp_in_place = match u.form {
                Form::Numbers => kernel::vjp_in_place,
                Form::Pairs => kernel::vjp_pairs_in_place,
            };
            vjp_in_place(
                self.activation,
                self.gated,
                width,
                &dhidden.words,
                &mut u.words,
            );
        }
        let mut dnormed = Buffer::dirty(x.len());
        let dx = Product::Numbers(&mut dnormed, Into::Overwrite);
        self.up.multiply_back(u.operand(), dx)?;
        drop(u);
        if !self.residual {
            gradient.fill(0.0);
        }
        self.norm
            .with_weights(|norm| norm_kernel::add_vjp(x, &dnormed, norm, gradient))
    }

    fn residual(&self) -> bool {
        self.residual
    }

    fn recompute(&self) -> bool {
        self.recompute
    }
}
