//! The encoder's output as the layers of a decoder look at it, step after step.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::cross_attention::CrossAttention;
use super::kernels::matmul::Repeated;
use super::kernels::memory_attention::{Memory, pack};
use super::kv_cache::CrossCache;
use super::ops::{Engine, with_f32};
use super::rows::Rows;

/// The memory of rows that are being written.
pub(crate) struct MemoryCache {
    form: Form,
    /// What each row of the memory holds.
    ranges: Vec<Range<usize>>,
    /// Row of the memory of each active row.
    active: Vec<usize>,
}

enum Form {
    /// Keys and values of each layer, computed once.
    Projected(Vec<CrossCache>),
    /// The memory itself [M, H], and every row of it packed once for all layers.
    Whole(Tensor, Vec<[Repeated; 2]>),
}

impl MemoryCache {
    /// A memory [M, H] of `rows` for `layers` that look at it up to `steps` times.
    pub(crate) fn new<'a>(
        layers: impl Iterator<Item = &'a CrossAttention> + Clone,
        memory: Tensor,
        rows: &Rows,
        steps: usize,
        engine: Engine,
    ) -> Result<Self> {
        let is_absorbed = layers
            .clone()
            .all(|layer| layer.is_absorbed_to_decode(steps));
        let form = if engine == Engine::Fused && memory.device().is_cpu() && is_absorbed {
            let packed = with_f32(&memory, |numbers| {
                pack(numbers, memory.dims()[1], rows.ranges())
            })?;
            Form::Whole(memory, packed)
        } else {
            let layers = layers.map(|layer| CrossCache::new(layer, &memory));
            Form::Projected(layers.collect::<Result<_>>()?)
        };
        Ok(Self {
            form,
            ranges: rows.ranges().to_vec(),
            active: (0..rows.count()).collect(),
        })
    }

    /// Goes on with `sources` of the active rows, in this order.
    pub(crate) fn choose(&mut self, sources: &[usize]) {
        self.active = sources.iter().map(|&row| self.active[row]).collect();
    }

    /// `x + output(attention(norm(x), memory))` of new positions [N, H] in layer `layer`.
    pub(crate) fn attend(
        &self,
        layer: usize,
        block: &CrossAttention,
        x: &Tensor,
        rows: &Rows,
        engine: Engine,
    ) -> Result<Tensor> {
        let ranges: Vec<Range<usize>> = self
            .active
            .iter()
            .map(|&row| self.ranges[row].clone())
            .collect();
        match &self.form {
            Form::Projected(layers) => layers[layer].attend(block, x, rows, &ranges, engine),
            Form::Whole(memory, packed) => with_f32(memory, |numbers| {
                let packed = self.active.iter().map(|&row| &packed[row]);
                block.attend_unprojected(x, rows, &ranges, &Memory::new(numbers, packed))
            })?,
        }
    }
}
