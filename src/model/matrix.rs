//! A frozen matrix: a tensor of candle, or numbers used where they lie in a mapped file.
//!
//! On the CPU a checkpoint's matrix is not copied where its numbers are stored as they are used: the file's pages are the
//! model's memory, shared with the system's cache. What has to be widened, sorted or put together is written once, by
//! all threads, to a map without a file in large pages (fresh memory in pages of 4 KiB costs more than the arithmetic).

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use memmap2::MmapMut;
use rayon::prelude::*;

use super::kernels::buffer::Buffer;
use super::ops::{widen, with_f32};
use crate::tensors::TensorInfo;
use crate::tensors::mapped::MappedTensor;

/// A matrix that never changes.
#[derive(Clone, Debug)]
pub struct FrozenMatrix(Held);

#[derive(Clone, Debug)]
enum Held {
    /// Contiguous, detached; of any device.
    Tensor(Tensor),
    /// Of the CPU, in two dimensions.
    Mapped(Arc<MappedTensor>),
}

impl TryFrom<Tensor> for FrozenMatrix {
    type Error = candle_core::Error;

    fn try_from(tensor: Tensor) -> Result<Self> {
        tensor.dims2()?;
        Ok(Self(Held::Tensor(tensor.contiguous()?.detach())))
    }
}

impl FrozenMatrix {
    /// The matrix where it lies in a file; nothing where that is no matrix, or not of a type that kernels read.
    pub fn mapped(tensor: MappedTensor) -> Option<Self> {
        let info = tensor.info();
        let fits = info.shape.len() == 2 && is_float(info.dtype);
        fits.then(|| Self(Held::Mapped(Arc::new(tensor))))
    }

    /// Rows of one part after another, as f32; `order` names the row of the parts that each row of the result is.
    /// Nothing where these are not matrices of one width, or their type is none that is widened here.
    pub fn gathered(parts: &[MappedTensor], order: Option<&[u32]>) -> Option<Self> {
        let width = *parts.first()?.info().shape.get(1)?;
        let mut rows: Vec<(&MappedTensor, usize)> = vec![];
        for part in parts {
            let &[count, columns] = part.info().shape.as_slice() else {
                return None;
            };
            if columns != width || !is_float(part.info().dtype) {
                return None;
            }
            rows.extend((0..count).map(|row| (part, row)));
        }
        let count = rows.len();
        if order.is_some_and(|order| order.iter().any(|&row| row as usize >= count)) {
            return None;
        }
        let bytes = count.checked_mul(width)?.checked_mul(size_of::<f32>())?;
        // A map cannot be empty, and a small one is no gain.
        if bytes < SMALLEST_MAP {
            return None;
        }
        let mut map = MmapMut::map_anon(bytes).ok()?;
        #[cfg(target_os = "linux")]
        if let Err(error) = map.advise(memmap2::Advice::HugePage) {
            tracing::debug!("no large pages: {error}");
        }
        map.par_chunks_mut(width * size_of::<f32>())
            .with_min_len(16)
            .enumerate()
            .for_each(|(row, to)| {
                let from = order.map_or(row, |order| order[row] as usize);
                let (part, row) = rows[from];
                let info = part.info();
                let size = info.dtype.size_in_bytes();
                let from = &part.bytes()[row * width * size..][..width * size];
                let to = to.as_chunks_mut::<4>().0;
                match info.dtype {
                    DType::BF16 => {
                        for (to, from) in to.iter_mut().zip(from.as_chunks::<2>().0) {
                            *to = half::bf16::from_le_bytes(*from).to_f32().to_ne_bytes();
                        }
                    }
                    DType::F16 => {
                        for (to, from) in to.iter_mut().zip(from.as_chunks::<2>().0) {
                            *to = half::f16::from_le_bytes(*from).to_f32().to_ne_bytes();
                        }
                    }
                    _ => to.as_flattened_mut().copy_from_slice(from),
                }
            });
        for part in parts {
            part.let_go();
        }
        let map = Arc::new(map.make_read_only().ok()?);
        let info = TensorInfo {
            dtype: DType::F32,
            shape: vec![count, width],
        };
        MappedTensor::new(map, 0..bytes, info).and_then(Self::mapped)
    }

    /// Rows and columns.
    pub fn sizes(&self) -> (usize, usize) {
        let sizes = match &self.0 {
            Held::Tensor(tensor) => tensor.dims(),
            Held::Mapped(mapped) => mapped.info().shape.as_slice(),
        };
        (sizes[0], sizes[1])
    }

    /// Count of numbers.
    pub fn elem_count(&self) -> usize {
        let (rows, columns) = self.sizes();
        rows * columns
    }

    /// Type of the numbers.
    pub fn dtype(&self) -> DType {
        match &self.0 {
            Held::Tensor(tensor) => tensor.dtype(),
            Held::Mapped(mapped) => mapped.info().dtype,
        }
    }

    /// Where the numbers are.
    pub fn device(&self) -> &Device {
        match &self.0 {
            Held::Tensor(tensor) => tensor.device(),
            Held::Mapped(_) => &Device::Cpu,
        }
    }

    /// The matrix as a tensor; a copy of one that is mapped.
    ///
    /// # Errors
    /// What candle meets.
    pub fn tensor(&self) -> Result<Tensor> {
        match &self.0 {
            Held::Tensor(tensor) => Ok(tensor.clone()),
            Held::Mapped(mapped) => {
                let info = mapped.info();
                Tensor::from_raw_buffer(mapped.bytes(), info.dtype, &info.shape, &Device::Cpu)
            }
        }
    }

    /// The rows of `ids`, in order: [N, columns], in f32 on the CPU, in the type of the matrix elsewhere.
    ///
    /// # Errors
    /// What candle meets. An id must be a row.
    pub fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        let width = self.sizes().1;
        let mapped = match &self.0 {
            Held::Tensor(tensor) => {
                let ids = Tensor::from_slice(ids, ids.len(), tensor.device())?;
                let rows = tensor.index_select(&ids, 0)?; // [N, columns]
                if tensor.device().is_cpu() {
                    return rows.to_dtype(DType::F32);
                }
                return Ok(rows);
            }
            Held::Mapped(mapped) => mapped,
        };
        let dtype = mapped.info().dtype;
        let size = width * dtype.size_in_bytes();
        let mut bytes = Vec::with_capacity(ids.len() * size);
        for &id in ids {
            bytes.extend_from_slice(&mapped.bytes()[id as usize * size..][..size]);
        }
        Tensor::from_raw_buffer(&bytes, dtype, &[ids.len(), width], &Device::Cpu)?
            .to_dtype(DType::F32)
    }

    /// Calls `pack` with the numbers, where they are in bf16 and on the CPU, and lets go of mapped pages afterwards.
    ///
    /// # Errors
    /// What candle meets.
    pub(crate) fn pack_bf16_on_cpu<T>(
        &self,
        pack: impl FnOnce(&[half::bf16]) -> T,
    ) -> Result<Option<T>> {
        if self.dtype() != DType::BF16 || !self.device().is_cpu() {
            return Ok(None);
        }
        match &self.0 {
            Held::Tensor(tensor) => Ok(Some(pack(&tensor.flatten_all()?.to_vec1()?))),
            Held::Mapped(mapped) => {
                let packed = mapped.as_bf16().map(pack);
                mapped.let_go();
                Ok(packed)
            }
        }
    }

    /// Calls `work` with the numbers of a matrix of the CPU, widened to `f32` where they are stored shorter.
    ///
    /// # Errors
    /// For a matrix of another device or type.
    pub(crate) fn with_f32<T>(&self, work: impl FnOnce(&[f32]) -> T) -> Result<T> {
        let mapped = match &self.0 {
            Held::Tensor(tensor) => return with_f32(tensor, work),
            Held::Mapped(mapped) => mapped,
        };
        if let Some(numbers) = mapped.as_f32() {
            return Ok(work(numbers));
        }
        let pairs = mapped.bytes().as_chunks::<2>().0;
        let mut wide = Buffer::dirty(self.elem_count());
        match mapped.info().dtype {
            DType::BF16 => widen(pairs, &mut wide, |x| half::bf16::from_le_bytes(*x).to_f32()),
            DType::F16 => widen(pairs, &mut wide, |x| half::f16::from_le_bytes(*x).to_f32()),
            other => candle_core::bail!("a kernel of the CPU was given {other:?}"),
        }
        Ok(work(&wide))
    }
}

/// Below this the allocator's memory does as well: bytes.
const SMALLEST_MAP: usize = 1 << 20;

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::BF16 | DType::F16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rows` x 512 numbers counted on from `first`, in a map without a file.
    fn counted(first: usize, rows: usize, dtype: DType) -> MappedTensor {
        let numbers = (first..first + rows * 512).map(|number| (number % 250) as f32);
        let bytes: Vec<u8> = match dtype {
            DType::BF16 => numbers
                .flat_map(|number| half::bf16::from_f32(number).to_le_bytes())
                .collect(),
            DType::F16 => numbers
                .flat_map(|number| half::f16::from_f32(number).to_le_bytes())
                .collect(),
            _ => numbers.flat_map(f32::to_le_bytes).collect(),
        };
        let mut map = MmapMut::map_anon(bytes.len()).unwrap();
        map.copy_from_slice(&bytes);
        let info = TensorInfo {
            dtype,
            shape: vec![rows, 512],
        };
        let map = Arc::new(map.make_read_only().unwrap());
        MappedTensor::new(map, 0..bytes.len(), info).unwrap()
    }

    fn numbers(matrix: &FrozenMatrix) -> Vec<f32> {
        matrix.with_f32(<[f32]>::to_vec).unwrap()
    }

    #[test]
    fn parts_are_put_together_widened_and_sorted_as_candle_does_it() {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let parts = [counted(0, 400, dtype), counted(7, 200, dtype)];
            let tensors = parts.clone().map(|part| {
                let matrix = FrozenMatrix::mapped(part).unwrap();
                matrix.tensor().unwrap().to_dtype(DType::F32).unwrap()
            });
            let whole = Tensor::cat(&tensors, 0).unwrap();
            let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let joined = FrozenMatrix::gathered(&parts, None).unwrap();
            assert_eq!(numbers(&joined), flat(&whole), "{dtype:?}");

            let order: Vec<u32> = (0..600).map(|row| (row * 7) % 600).collect();
            let sorted = FrozenMatrix::gathered(&parts, Some(&order)).unwrap();
            let ids = Tensor::from_slice(&order, 600, &Device::Cpu).unwrap();
            let expected = whole.index_select(&ids, 0).unwrap();
            assert_eq!(numbers(&sorted), flat(&expected), "{dtype:?}");
            assert!(FrozenMatrix::gathered(&parts, Some(&[600])).is_none());
        }
    }

    #[test]
    fn a_mapped_matrix_gives_the_numbers_and_rows_of_a_tensor() {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let mapped = FrozenMatrix::mapped(counted(3, 5, dtype)).unwrap();
            let tensor = FrozenMatrix::try_from(mapped.tensor().unwrap()).unwrap();
            assert_eq!(numbers(&mapped), numbers(&tensor), "{dtype:?}");
            let rows = |matrix: &FrozenMatrix| {
                let rows = matrix.rows(&[4, 0, 4]).unwrap();
                assert_eq!(rows.dtype(), DType::F32);
                rows.to_vec2::<f32>().unwrap()
            };
            assert_eq!(rows(&mapped), rows(&tensor), "{dtype:?}");
        }
    }
}
