//! The seam between candle tensors and the kernels' slices, and the differentiable ops that candle lacks.

use std::sync::Mutex;

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor};

use super::kernels::buffer::Buffer;

/// Which of two equal computations a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Fused CPU kernels with hand-written vector-Jacobian products, one op for a block of a layer.
    Fused,
    /// Plain differentiable candle ops: any device, readable, slow. What the other is tested against.
    Reference,
}

/// The numbers of a contiguous `f32` argument of a custom op.
pub(crate) fn contiguous_f32<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let numbers = storage.as_slice::<f32>()?;
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("a kernel of the CPU needs a contiguous argument")
    };
    Ok(&numbers[start..end])
}

/// Whether kernels can take the numbers of a tensor as they lie: in f32 on the CPU, without gaps.
pub(crate) fn is_plain(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == DType::F32 && tensor.is_contiguous()
}

/// Calls `work` with the numbers of a contiguous CPU tensor, widened to `f32` where they are stored shorter.
pub(crate) fn with_f32<T>(tensor: &Tensor, work: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        candle_core::bail!("a kernel of the CPU was given a tensor of another device")
    };
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("a kernel of the CPU was given a tensor with gaps")
    };
    match storage {
        CpuStorage::F32(numbers) => Ok(work(&numbers[start..end])),
        CpuStorage::BF16(numbers) => {
            let mut wide = Buffer::dirty(end - start);
            widen(&numbers[start..end], &mut wide, |x| x.to_f32());
            Ok(work(&wide))
        }
        CpuStorage::F16(numbers) => {
            let mut wide = Buffer::dirty(end - start);
            widen(&numbers[start..end], &mut wide, |x| x.to_f32());
            Ok(work(&wide))
        }
        _ => candle_core::bail!("a kernel of the CPU was given {:?}", tensor.dtype()),
    }
}

/// What a forward pass leaves for its backward.
pub(crate) fn store<T>(place: &Mutex<Option<T>>, saved: T) {
    if let Ok(mut place) = place.lock() {
        *place = Some(saved);
    }
}

/// Takes it; a second backward finds nothing and computes it again.
pub(crate) fn take<T>(place: &Mutex<Option<T>>) -> Option<T> {
    place.lock().ok().and_then(|mut place| place.take())
}

/// `to` from as many shorter numbers.
pub(crate) fn widen<T: Sync>(from: &[T], to: &mut [f32], convert: impl Fn(&T) -> f32 + Sync) {
    use rayon::prelude::*;
    to.par_chunks_mut(1 << 14)
        .zip(from.par_chunks(1 << 14))
        .for_each(|(to, from)| {
            for (to, from) in to.iter_mut().zip(from) {
                *to = convert(from);
            }
        });
}

/// Softmax of the last dimension from differentiable ops; in f32 whatever the type of `scores`.
///
/// # Errors
/// What candle meets.
pub fn softmax(scores: &Tensor) -> Result<Tensor> {
    let wide = scores.to_dtype(DType::F32)?;
    let last = wide.rank() - 1;
    let largest = wide.max_keepdim(last)?.detach();
    let exponentials = wide.broadcast_sub(&largest)?.exp()?;
    let sums = exponentials.sum_keepdim(last)?;
    exponentials.broadcast_div(&sums)?.to_dtype(scores.dtype())
}
