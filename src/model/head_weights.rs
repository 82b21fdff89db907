//! The weights of one head after another, out of a frozen projection to all of them.

use candle_core::Result;

use super::attention::HeadLayout;
use super::frozen::{FrozenLinear, WeightPart};
use super::kernels::matmul::{MatMut, MatRef};

/// Keys' or values' weights by query head: queries in groups share those of a key-value head.
#[derive(Clone, Copy)]
pub(crate) struct HeadWeights<'a> {
    projection: &'a FrozenLinear,
    layout: &'a HeadLayout,
    /// First output of the first head.
    first: usize,
}

impl<'a> HeadWeights<'a> {
    /// Of the outputs of `projection` from `first` on.
    pub(crate) fn new(projection: &'a FrozenLinear, layout: &'a HeadLayout, first: usize) -> Self {
        Self {
            projection,
            layout,
            first,
        }
    }

    /// Each head's numbers times its weight transposed: [N, heads · size] -> [N, heads, H].
    pub(crate) fn widen(&self, heads: &[f32], wide: &mut [f32]) -> Result<()> {
        let (size, hidden) = (self.layout.head_size, self.projection.inputs());
        self.for_each_head(
            |head, count, weight| {
                let (stride, wide_stride) = (self.layout.query_width(), self.layout.heads * hidden);
                let left = MatRef::packed(heads, count, stride).columns(head * size, size);
                let mut out = MatMut::packed(wide, count, wide_stride);
                weight.multiply_back(left, out.columns(head * hidden, hidden));
            },
            heads.len(),
        )
    }

    /// Each head's [H] times its weight: [N, heads, H] -> [N, heads · size].
    pub(crate) fn narrow(&self, wide: &[f32], heads: &mut [f32]) -> Result<()> {
        let (size, hidden) = (self.layout.head_size, self.projection.inputs());
        let length = heads.len();
        self.for_each_head(
            |head, count, weight| {
                let (stride, wide_stride) = (self.layout.query_width(), self.layout.heads * hidden);
                let left = MatRef::packed(wide, count, wide_stride).columns(head * hidden, hidden);
                let mut out = MatMut::packed(heads, count, stride);
                weight.multiply(left, out.columns(head * size, size));
            },
            length,
        )
    }

    /// Calls `work` with each head, the number of positions, and the head's weight [H, size].
    fn for_each_head(
        &self,
        mut work: impl FnMut(usize, usize, &WeightPart<'_>),
        length: usize,
    ) -> Result<()> {
        let layout = self.layout;
        let count = length / layout.query_width();
        let size = layout.head_size;
        let starts = (0..layout.key_value_heads).map(|head| self.first + head * size);
        self.projection
            .with_outputs_in(starts.map(|start| start..start + size), |parts| {
                let group = layout.heads / layout.key_value_heads;
                for head in 0..layout.heads {
                    work(head, count, &parts[head / group]);
                }
            })
    }
}
