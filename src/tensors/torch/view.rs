//! A tensor over a storage: whether it lies inside, and its numbers in row-major order.

use candle_core::{DType, Device, Tensor};

use super::TorchError;
use super::pickle::{Element, TensorRef};

/// A view that is known to lie inside of its storage.
pub(super) struct View<'a> {
    tensor: &'a TensorRef,
    /// Number of elements.
    pub(super) count: usize,
    /// Size once read, in bytes.
    pub(super) bytes: usize,
    dtype: DType,
}

impl<'a> View<'a> {
    /// Compares a tensor with the bytes its storage has.
    pub(super) fn check(tensor: &'a TensorRef, storage_bytes: usize) -> Result<Self, TorchError> {
        let refuse = |reason: String| TorchError::Tensor {
            storage: tensor.storage.key.clone(),
            reason,
        };
        let TensorRef {
            storage,
            offset,
            shape,
            strides,
        } = tensor;
        let size = storage.element.size();
        if storage.count.checked_mul(size) != Some(storage_bytes) {
            return Err(refuse(format!(
                "its storage has {storage_bytes} bytes, expected {} elements of {size}",
                storage.count
            )));
        }
        if shape.len() != strides.len() {
            return Err(refuse(format!(
                "shape {shape:?} and strides {strides:?} differ in length"
            )));
        }
        let count = shape
            .iter()
            .try_fold(1usize, |product, size| product.checked_mul(*size));
        let dtype = candle_dtype(storage.element);
        let bytes = count.and_then(|count| count.checked_mul(dtype.size_in_bytes().max(size)));
        let (Some(count), Some(bytes)) = (count, bytes) else {
            return Err(refuse(format!("shape {shape:?} is too large")));
        };
        let last = shape
            .iter()
            .zip(strides)
            .try_fold(*offset, |last, (size, stride)| {
                last.checked_add(size.saturating_sub(1).checked_mul(*stride)?)
            });
        if count > 0 && last.is_none_or(|last| last >= storage.count) {
            return Err(refuse(format!(
                "shape {shape:?} with strides {strides:?} at {offset} reaches outside its {} elements",
                storage.count
            )));
        }
        Ok(Self {
            tensor,
            count,
            bytes,
            dtype,
        })
    }

    pub(super) fn read(&self, storage: &[u8], device: &Device) -> Result<Tensor, TorchError> {
        let TensorRef {
            storage: about,
            offset,
            shape,
            strides,
        } = self.tensor;
        let size = about.element.size();
        let gathered;
        let bytes = if self.count == 0 {
            &[][..]
        } else if is_contiguous(shape, strides) {
            &storage[offset * size..(offset + self.count) * size]
        } else {
            gathered = gather(self.tensor, storage, self.count, size);
            &gathered
        };
        if about.element == Element::I8 {
            let wide: Vec<i16> = bytes
                .iter()
                .map(|byte| i16::from(byte.cast_signed()))
                .collect();
            return Ok(Tensor::from_vec(wide, shape.as_slice(), device)?);
        }
        Ok(Tensor::from_raw_buffer(bytes, self.dtype, shape, device)?)
    }
}

/// candle has no signed bytes and no truth values: they become 16-bit numbers and bytes.
pub(in crate::tensors) fn candle_dtype(element: Element) -> DType {
    match element {
        Element::F64 => DType::F64,
        Element::F32 => DType::F32,
        Element::F16 => DType::F16,
        Element::BF16 => DType::BF16,
        Element::I64 => DType::I64,
        Element::I32 => DType::I32,
        Element::I16 | Element::I8 => DType::I16,
        Element::U8 | Element::Bool => DType::U8,
    }
}

pub(super) fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    for (size, stride) in shape.iter().zip(strides).rev() {
        if *size != 1 && *stride != expected {
            return false;
        }
        expected *= size;
    }
    true
}

/// The elements of a strided view in row-major order; the view is known to lie inside the storage.
pub(super) fn gather(view: &TensorRef, storage: &[u8], count: usize, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count * size);
    let mut index = vec![0usize; view.shape.len()];
    for _ in 0..count {
        let element: usize = view.offset
            + index
                .iter()
                .zip(&view.strides)
                .map(|(i, stride)| i * stride)
                .sum::<usize>();
        bytes.extend_from_slice(&storage[element * size..(element + 1) * size]);
        for dimension in (0..index.len()).rev() {
            index[dimension] += 1;
            if index[dimension] < view.shape[dimension] {
                break;
            }
            index[dimension] = 0;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::pickle::StorageRef;
    use super::*;

    fn reference(offset: usize, shape: &[usize], strides: &[usize]) -> TensorRef {
        TensorRef {
            storage: StorageRef {
                element: Element::U8,
                key: "0".into(),
                count: 6,
            },
            offset,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
        }
    }

    #[test]
    fn a_transposed_view_is_gathered_in_its_own_order() {
        let transposed = reference(0, &[3, 2], &[1, 3]);
        let view = View::check(&transposed, 6).unwrap();
        let tensor = view.read(&[1, 2, 3, 4, 5, 6], &Device::Cpu).unwrap();
        assert_eq!(tensor.to_vec2::<u8>().unwrap(), [[1, 4], [2, 5], [3, 6]]);
    }

    #[test]
    fn a_view_outside_its_storage_is_refused() {
        for (offset, shape, strides) in [
            (1, vec![6], vec![1]),
            (0, vec![2, 3], vec![4, 1]),
            (usize::MAX, vec![1], vec![1]),
            (0, vec![usize::MAX, 2], vec![1, 1]),
            (0, vec![2], vec![1, 1]),
        ] {
            let outside = reference(offset, &shape, &strides);
            assert!(View::check(&outside, 6).is_err(), "{shape:?}");
        }
        assert!(View::check(&reference(0, &[6], &[1]), 5).is_err());
    }
}
