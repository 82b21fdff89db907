//! Numbers used where they lie in a mapped file (or in a map without a file), without a copy.

use std::ops::Range;
use std::sync::Arc;

use candle_core::DType;
use memmap2::Mmap;

use super::TensorInfo;

/// A tensor of a map: its numbers end to end in row-major order, as this machine reads them.
#[derive(Clone, Debug)]
pub struct MappedTensor {
    map: Arc<Mmap>,
    range: Range<usize>,
    info: TensorInfo,
}

impl MappedTensor {
    /// The numbers at `range` of `map`. Nothing where they do not lie as a slice of this type would: the processor
    /// reads numbers the other way round, they stand at an odd place, or their count is not that of the shape.
    pub fn new(map: Arc<Mmap>, range: Range<usize>, info: TensorInfo) -> Option<Self> {
        let size = info.dtype.size_in_bytes();
        let count = info
            .shape
            .iter()
            .try_fold(1_usize, |count, size| count.checked_mul(*size))?;
        let bytes = map.get(range.clone())?;
        let fits = cfg!(target_endian = "little")
            && Some(bytes.len()) == count.checked_mul(size)
            && bytes.as_ptr().addr().is_multiple_of(size);
        fits.then_some(Self { map, range, info })
    }

    /// Of a tensor of several dimensions the part at `index` of the first, which it then lacks.
    pub fn part(&self, index: usize) -> Option<Self> {
        let (parts, shape) = self.info.shape.split_first()?;
        let size = self.range.len().checked_div(*parts)?;
        if index >= *parts {
            return None;
        }
        let start = self.range.start + index * size;
        let info = TensorInfo {
            dtype: self.info.dtype,
            shape: shape.to_vec(),
        };
        Self::new(self.map.clone(), start..start + size, info)
    }

    /// Type and shape.
    pub fn info(&self) -> &TensorInfo {
        &self.info
    }

    /// The bytes of all numbers.
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }

    /// The numbers, where they are f32.
    #[expect(
        unsafe_code,
        reason = "bytes of a map are numbers wherever they are aligned"
    )]
    pub fn as_f32(&self) -> Option<&[f32]> {
        if self.info.dtype != DType::F32 {
            return None;
        }
        // SAFETY: every pattern of bits is an f32, and `align_to` leaves what is not aligned to the other two parts.
        let (before, numbers, after) = unsafe { self.bytes().align_to::<f32>() };
        (before.is_empty() && after.is_empty()).then_some(numbers)
    }

    /// The numbers, where they are bf16.
    #[expect(
        unsafe_code,
        reason = "bytes of a map are numbers wherever they are aligned"
    )]
    pub fn as_bf16(&self) -> Option<&[half::bf16]> {
        if self.info.dtype != DType::BF16 {
            return None;
        }
        // SAFETY: a bf16 is 16 bits of any pattern, and `align_to` leaves what is not aligned to the other two parts.
        let (before, numbers, after) = unsafe { self.bytes().align_to::<half::bf16>() };
        (before.is_empty() && after.is_empty()).then_some(numbers)
    }

    /// Lets go of the pages: see [`super::let_go`]. They come back when they are read again.
    pub fn let_go(&self) {
        super::let_go(&self.map, self.range.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_as_they_lie_where_they_lie_right() {
        let mut map = memmap2::MmapMut::map_anon(16).unwrap();
        map[4..8].copy_from_slice(&1.5_f32.to_le_bytes());
        map[8..12].copy_from_slice(&(-2.0_f32).to_le_bytes());
        let map = Arc::new(map.make_read_only().unwrap());
        let tensor = |range: Range<usize>, shape: &[usize]| {
            let info = TensorInfo {
                dtype: DType::F32,
                shape: shape.to_vec(),
            };
            MappedTensor::new(map.clone(), range, info)
        };
        assert_eq!(
            tensor(4..12, &[2, 1]).unwrap().as_f32().unwrap(),
            [1.5, -2.0]
        );
        let brains = TensorInfo {
            dtype: DType::BF16,
            shape: vec![2],
        };
        let brains = MappedTensor::new(map.clone(), 6..10, brains).unwrap();
        let numbers = brains.as_bf16().unwrap();
        assert_eq!(numbers, [half::bf16::from_f32(1.5), half::bf16::ZERO]);
        assert!(brains.as_f32().is_none());
        let second = tensor(4..12, &[2, 1]).unwrap().part(1).unwrap();
        assert_eq!(second.as_f32().unwrap(), [-2.0]);
        assert_eq!(second.info().shape, [1]);
        assert!(tensor(4..12, &[2, 1]).unwrap().part(2).is_none());
        assert!(tensor(4..12, &[2, 1]).unwrap().part(0).is_some());
        assert!(tensor(5..13, &[2]).is_none(), "at an odd place");
        assert!(tensor(4..12, &[3]).is_none(), "of another size");
        assert!(tensor(12..20, &[2]).is_none(), "outside of the map");
        assert!(tensor(4..12, &[usize::MAX, 2]).is_none(), "too large");
    }
}
