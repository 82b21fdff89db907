//! The language model head and the loss: logits of the positions that have a loss, and of no other.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};
use std::sync::Mutex;

use super::frozen::FrozenLinear;
use super::kernels::buffer::Buffer;
use super::kernels::cross_entropy;
use super::kernels::matmul::Into;
use super::ops::{Engine, contiguous_f32, store, with_f32};

/// Positions whose logits exist at one time: for a vocabulary of 50,000, 50 MB of them.
const POSITION_BLOCK: usize = 256;

/// Turns hidden states into logits.
#[derive(Clone, Debug)]
pub struct Head {
    /// [H] -> [vocabulary]
    pub projection: FrozenLinear,
    /// Factor of the hidden state; T5 with a tied head has one of H^-0.5.
    pub scale: f64,
}

impl Head {
    /// [M, H] -> [M, vocabulary]
    ///
    /// # Errors
    /// Where sizes do not fit.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.projection.forward(&(hidden * self.scale)?)
    }

    /// `Σ weight · cross-entropy(logits(hidden), label)`: [M, H] -> scalar in f32; differentiable in `hidden`.
    ///
    /// # Errors
    /// Where sizes do not fit or a label is beyond the vocabulary.
    pub fn loss(
        &self,
        hidden: &Tensor,
        labels: &[u32],
        weights: &[f32],
        engine: Engine,
    ) -> Result<Tensor> {
        let (count, _) = hidden.dims2()?;
        let vocabulary = self.projection.outputs();
        if labels.len() != count || weights.len() != count {
            candle_core::bail!(
                "{count} positions have a loss, with {} labels and {} weights",
                labels.len(),
                weights.len()
            );
        }
        if let Some(label) = labels.iter().find(|&&label| label as usize >= vocabulary) {
            candle_core::bail!("label {label} is beyond the vocabulary of {vocabulary}");
        }
        match engine {
            Engine::Reference => {
                let device = hidden.device();
                let logits = self.logits(hidden)?.to_dtype(DType::F32)?; // [M, C]
                let largest = logits.max_keepdim(1)?.detach(); // [M, 1]
                let shifted = logits.broadcast_sub(&largest)?; // [M, C]
                let log_sum = shifted.exp()?.sum(1)?.log()?; // [M]
                let labels = Tensor::from_slice(labels, (count, 1), device)?;
                let chosen = shifted.gather(&labels, 1)?.squeeze(1)?; // [M]
                let weights = Tensor::from_slice(weights, count, device)?;
                ((log_sum - chosen)? * weights)?.sum_all()
            }
            Engine::Fused => hidden.contiguous()?.apply_op1(HeadLossOp {
                head: self.clone(),
                labels: labels.to_vec(),
                weights: weights.to_vec(),
                keep: hidden.track_op(),
                gradient: Mutex::new(None),
            }),
        }
    }
}

/// Head, softmax and loss as one op: its gradient is computed on the way, while a block's logits are at hand.
struct HeadLossOp {
    head: Head,
    labels: Vec<u32>,
    weights: Vec<f32>,
    keep: bool,
    /// d loss / d hidden, [M, H].
    gradient: Mutex<Option<Vec<f32>>>,
}

impl HeadLossOp {
    /// The loss, and its gradient by `hidden` to `gradient` where asked for.
    fn run(&self, hidden: &[f32], mut gradient: Option<&mut [f32]>) -> Result<f64> {
        let (width, classes) = (
            self.head.projection.inputs(),
            self.head.projection.outputs(),
        );
        let scale = self.head.scale as f32;
        let mut total = 0.0_f64;
        for (block, hidden) in hidden.chunks(POSITION_BLOCK * width).enumerate() {
            let count = hidden.len() / width;
            let first = block * POSITION_BLOCK;
            let mut scaled = Buffer::dirty(hidden.len());
            super::kernels::attention::scale_into(&mut scaled, hidden, scale);
            let mut logits = Buffer::dirty(count * classes);
            self.head
                .projection
                .apply(&scaled, &mut logits, Into::Overwrite)?;
            let mut losses = vec![0.0_f32; count];
            cross_entropy::in_place(
                classes,
                &mut logits,
                &self.labels[first..first + count],
                &self.weights[first..first + count],
                &mut losses,
            );
            total += losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
            if let Some(gradient) = gradient.as_deref_mut() {
                let gradient = &mut gradient[first * width..(first + count) * width];
                self.head
                    .projection
                    .apply_vjp(&logits, gradient, Into::Overwrite)?;
                for gradient in gradient {
                    *gradient *= scale;
                }
            }
        }
        Ok(total)
    }
}

impl CustomOp1 for HeadLossOp {
    fn name(&self) -> &'static str {
        "head-loss"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let hidden = contiguous_f32(storage, layout)?;
        let mut gradient = self.keep.then(|| vec![0.0; hidden.len()]);
        let loss = self.run(hidden, gradient.as_deref_mut())?;
        if let Some(gradient) = gradient {
            store(&self.gradient, gradient);
        }
        Ok((CpuStorage::F32(vec![loss as f32]), Shape::from(())))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let factor = grad.to_scalar::<f32>()?;
        let kept = self.gradient.lock().ok().and_then(|kept| kept.clone());
        let mut gradient = match kept {
            Some(gradient) => gradient,
            None => with_f32(arg, |hidden| -> Result<Vec<f32>> {
                let mut gradient = vec![0.0; hidden.len()];
                self.run(hidden, Some(&mut gradient))?;
                Ok(gradient)
            })??,
        };
        for gradient in &mut gradient {
            *gradient *= factor;
        }
        Ok(Some(Tensor::from_vec(gradient, arg.shape(), arg.device())?))
    }
}
