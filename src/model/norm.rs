//! The norms of the models: LayerNorm, LayerNorm with its weight stored less one, RMSNorm.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};

use super::frozen::wide_on_cpu;
use super::kernels::norm::{self as kernel, NormWeights};
use super::ops::{Engine, contiguous_f32, with_f32};

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Mean off, over the standard deviation, weight and bias.
    LayerNorm,
    /// The same, in checkpoints that store the weight less one; whole once it is loaded.
    LayerNorm1p,
    /// Over the root mean square, weight only.
    RmsNorm,
}

/// A frozen norm.
#[derive(Clone, Debug)]
pub struct Norm {
    kind: NormKind,
    weight: Tensor,
    bias: Option<Tensor>,
    epsilon: f64,
}

impl Norm {
    /// A norm of this weight [H] and bias [H].
    ///
    /// # Errors
    /// Where the numbers cannot be widened.
    pub fn new(
        kind: NormKind,
        weight: &Tensor,
        bias: Option<&Tensor>,
        epsilon: f64,
    ) -> Result<Self> {
        Ok(Self {
            kind,
            weight: wide_on_cpu(weight)?,
            bias: bias.map(wide_on_cpu).transpose()?,
            epsilon,
        })
    }

    /// Numbers of a row.
    pub(crate) fn width(&self) -> usize {
        self.weight.elem_count()
    }

    /// Numbers held.
    pub fn parameter_count(&self) -> usize {
        self.weight.elem_count() + self.bias.as_ref().map_or(0, Tensor::elem_count)
    }

    /// The norm of each row by differentiable candle ops: [N, H] -> [N, H]. Computed in f32.
    ///
    /// # Errors
    /// Where the sizes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let wide = x.to_dtype(DType::F32)?;
        let centred = match self.kind {
            NormKind::LayerNorm | NormKind::LayerNorm1p => {
                wide.broadcast_sub(&wide.mean_keepdim(1)?)?
            }
            NormKind::RmsNorm => wide,
        };
        let variance = centred.sqr()?.mean_keepdim(1)?; // [N, 1]
        let deviation = (variance + self.epsilon)?.sqrt()?;
        let normed = centred
            .broadcast_div(&deviation)?
            .to_dtype(x.dtype())?
            .broadcast_mul(&self.weight)?; // [N, H]
        match &self.bias {
            Some(bias) => normed.broadcast_add(bias),
            None => Ok(normed),
        }
    }

    /// The norm of each row by either engine: [N, H] -> [N, H].
    ///
    /// # Errors
    /// Where the sizes do not fit.
    pub fn apply(&self, x: &Tensor, engine: Engine) -> Result<Tensor> {
        match engine {
            Engine::Reference => self.forward(x),
            Engine::Fused => x.contiguous()?.apply_op1(NormOp(self.clone())),
        }
    }

    /// Calls `work` with the numbers, for the kernels.
    pub(crate) fn with_weights<T>(&self, work: impl FnOnce(NormWeights<'_>) -> T) -> Result<T> {
        let epsilon = self.epsilon as f32;
        let centred = self.kind != NormKind::RmsNorm;
        with_f32(&self.weight, |weight| match &self.bias {
            Some(bias) => with_f32(bias, |bias| {
                work(NormWeights {
                    weight,
                    bias: Some(bias),
                    epsilon,
                    centred,
                })
            }),
            None => Ok(work(NormWeights {
                weight,
                bias: None,
                epsilon,
                centred,
            })),
        })?
    }
}

/// The norm alone as an op over the CPU kernels.
struct NormOp(Norm);

impl CustomOp1 for NormOp {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous_f32(storage, layout)?;
        let mut y = vec![0.0; x.len()];
        self.0
            .with_weights(|norm| kernel::forward(x, norm, &mut y))?;
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let dx = with_f32(arg, |x| {
            with_f32(&grad, |dy| {
                let mut dx = vec![0.0; x.len()];
                self.0
                    .with_weights(|norm| kernel::add_vjp(x, dy, norm, &mut dx))?;
                Ok::<_, candle_core::Error>(dx)
            })
        })???;
        Ok(Some(Tensor::from_vec(dx, arg.shape(), arg.device())?))
    }
}
