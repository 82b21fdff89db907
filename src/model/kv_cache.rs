//! Keys and values of the past, so that a new token costs one position's work.
//!
//! Each row has a place of its own length plus the tokens it may grow by; dropping a finished row moves nothing.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::attention::{
    BatchBias, BatchPositions, HeadLayout, SelfAttention, attend, kernel_of, split_projection,
};
use super::cross_attention::CrossAttention;
use super::kernels::attention::{self as kernel, Columns, ColumnsMut};
use super::kernels::buffer::Buffer;
use super::kernels::pairs::Form;
use super::kernels::rotary::Rotation;
use super::ops::{Engine, contiguous_f32, with_f32};
use super::rows::Rows;

/// Which rows are still being written, and where their keys and values lie.
#[derive(Clone, Debug)]
pub(crate) struct CacheRows {
    /// What is filled of each active row.
    filled: Vec<Range<usize>>,
    /// End of each active row's place.
    limits: Vec<usize>,
    /// Positions of all places together.
    capacity: usize,
}

impl CacheRows {
    /// Empty places for rows that will hold up to `limits` positions.
    pub(crate) fn new(limits: &[usize]) -> Self {
        let mut capacity = 0;
        let mut filled = vec![];
        let mut ends = vec![];
        for limit in limits {
            filled.push(capacity..capacity);
            capacity += limit;
            ends.push(capacity);
        }
        Self {
            filled,
            limits: ends,
            capacity,
        }
    }

    /// Makes room for new positions at the end of each active row and says where each goes.
    fn grow(&mut self, new: &Rows) -> Result<Vec<usize>> {
        let mut places = Vec::with_capacity(new.total());
        for ((filled, &limit), &count) in
            self.filled.iter_mut().zip(&self.limits).zip(new.lengths())
        {
            if filled.end + count > limit {
                candle_core::bail!("a row grows beyond its place in the cache");
            }
            places.extend(filled.end..filled.end + count);
            filled.end += count;
        }
        Ok(places)
    }

    /// Positions held by each active row.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        self.filled.iter().map(ExactSizeIterator::len).collect()
    }

    /// Keeps only these of the active rows.
    pub(crate) fn keep(&mut self, active: &[usize]) {
        self.filled = active.iter().map(|&row| self.filled[row].clone()).collect();
        self.limits = active.iter().map(|&row| self.limits[row]).collect();
    }

    /// Goes on with `sources` of the active rows, any of them several times, and says what has to be copied where. The
    /// first to go on from a row stays in its place; the others take places of rows that do not go on, or new ones.
    fn fork(&mut self, sources: &[usize]) -> Vec<(Range<usize>, usize)> {
        let mut free: Vec<Range<usize>> = (0..self.filled.len())
            .filter(|row| !sources.contains(row))
            .map(|row| self.filled[row].start..self.limits[row])
            .collect();
        let mut stays = vec![true; self.filled.len()];
        let (mut filled, mut limits, mut copies) = (vec![], vec![], vec![]);
        for &source in sources {
            let from = self.filled[source].clone();
            if std::mem::take(&mut stays[source]) {
                limits.push(self.limits[source]);
                filled.push(from);
                continue;
            }
            let size = self.limits[source] - from.start;
            // The smallest that fits, so that rows of one prompt go on using one another's places.
            let fits = (0..free.len()).filter(|&place| free[place].len() >= size);
            let place = match fits.min_by_key(|&place| free[place].len()) {
                Some(place) => free.swap_remove(place),
                None => {
                    self.capacity += size;
                    self.capacity - size..self.capacity
                }
            };
            limits.push(place.start + size);
            filled.push(place.start..place.start + from.len());
            copies.push((from, place.start));
        }
        (self.filled, self.limits) = (filled, limits);
        copies
    }
}

/// Keys and values of one layer.
#[derive(Debug)]
pub(crate) enum LayerCache {
    /// Side by side, [capacity, 2K].
    Fused(Buffer),
    /// Of each row ever started, [T, K] twice; the index is kept beside it.
    Reference(Vec<Option<(Tensor, Tensor)>>),
}

/// Keys and values of a stack's self-attention.
#[derive(Debug)]
pub(crate) struct KvCache {
    pub(crate) rows: CacheRows,
    layers: Vec<LayerCache>,
    /// Row of `LayerCache::Reference` for each active row.
    active: Vec<usize>,
    /// Numbers of one position in a layer: 2K.
    width: usize,
}

impl KvCache {
    /// An empty cache of `layers` layers for rows that will hold up to `limits` positions.
    pub(crate) fn new(
        layers: usize,
        layout: &HeadLayout,
        limits: &[usize],
        engine: Engine,
    ) -> Self {
        let rows = CacheRows::new(limits);
        let layer = || match engine {
            Engine::Fused => {
                LayerCache::Fused(Buffer::dirty(rows.capacity * 2 * layout.key_width()))
            }
            Engine::Reference => LayerCache::Reference(vec![None; limits.len()]),
        };
        Self {
            layers: (0..layers).map(|_| layer()).collect(),
            active: (0..limits.len()).collect(),
            width: 2 * layout.key_width(),
            rows,
        }
    }

    /// Keeps only these of the active rows.
    pub(crate) fn keep(&mut self, active: &[usize]) {
        self.rows.keep(active);
        self.active = active.iter().map(|&row| self.active[row]).collect();
    }

    /// Goes on with `sources` of the active rows, in this order; a row named several times goes on several times, each
    /// on its own from here.
    pub(crate) fn fork(&mut self, sources: &[usize]) {
        let copies = self.rows.fork(sources);
        let width = self.width;
        let mut taken = vec![false; self.active.len()];
        let mut active = Vec::with_capacity(sources.len());
        for &source in sources {
            let mut slot = self.active[source];
            if std::mem::replace(&mut taken[source], true) {
                for layer in &mut self.layers {
                    if let LayerCache::Reference(cache) = layer {
                        cache.push(cache[self.active[source]].clone());
                        slot = cache.len() - 1;
                    }
                }
            }
            active.push(slot);
        }
        self.active = active;
        for layer in &mut self.layers {
            if let LayerCache::Reference(cache) = layer {
                for slot in (0..cache.len()).filter(|slot| !self.active.contains(slot)) {
                    cache[slot] = None;
                }
            }
            if let LayerCache::Fused(cache) = layer {
                if cache.len() < self.rows.capacity * width {
                    let mut larger = Buffer::dirty(self.rows.capacity * width);
                    larger[..cache.len()].copy_from_slice(cache);
                    *cache = larger;
                }
                for (from, to) in &copies {
                    cache.copy_within(from.start * width..from.end * width, to * width);
                }
            }
        }
    }

    /// Starts a step of `new` positions for each active row.
    pub(crate) fn begin(&mut self, new: &Rows) -> Result<Step> {
        Ok(Step {
            places: self.rows.grow(new)?,
            new: new.clone(),
        })
    }

    /// `x + output(attention(norm(x)))` of new positions [M, H] over all that are in the cache and themselves.
    pub(crate) fn attend(
        &mut self,
        layer: usize,
        block: &SelfAttention,
        x: &Tensor,
        step: &Step,
        positions: &BatchPositions,
    ) -> Result<Tensor> {
        let bias = positions.bias.as_ref();
        let layout = &block.layout;
        let (queries, keys) = (layout.query_width(), layout.key_width());
        let engine = match self.layers[layer] {
            LayerCache::Fused(_) => Engine::Fused,
            LayerCache::Reference(_) => Engine::Reference,
        };
        let normed = block.norm.apply(x, engine)?;
        let mut projected = block.query_key_value.forward(&normed)?; // [M, Q + 2K]
        let attended = match &mut self.layers[layer] {
            LayerCache::Fused(cache) => {
                let stride = queries + 2 * keys;
                if let Some(rotation) = &positions.rotation {
                    projected = projected.apply_op1_no_bwd(&Turn { layout, rotation })?;
                }
                with_f32(&projected, |projected| {
                    for (projected, &place) in projected.chunks_exact(stride).zip(&step.places) {
                        cache[place * 2 * keys..(place + 1) * 2 * keys]
                            .copy_from_slice(&projected[queries..]);
                    }
                })?;
                projected.apply_op1_no_bwd(&CachedAttention {
                    layout,
                    key_value: cache,
                    rows: &step.new,
                    key_ranges: &self.rows.filled,
                    bias,
                })?
            }
            LayerCache::Reference(cache) => {
                let (query, key, value) =
                    split_projection(layout, &projected, positions.rotation.as_deref())?;
                let (mut all_keys, mut all_values) = (vec![], vec![]);
                for (range, &row) in step.new.ranges().iter().zip(&self.active) {
                    let mut k = key.narrow(0, range.start, range.len())?;
                    let mut v = value.narrow(0, range.start, range.len())?;
                    if let Some((past_k, past_v)) = &cache[row] {
                        k = Tensor::cat(&[past_k, &k], 0)?;
                        v = Tensor::cat(&[past_v, &v], 0)?;
                    }
                    cache[row] = Some((k.clone(), v.clone()));
                    all_keys.push(k);
                    all_values.push(v);
                }
                let key_rows = Rows::new(self.rows.lengths());
                let (key, value) = (Tensor::cat(&all_keys, 0)?, Tensor::cat(&all_values, 0)?);
                attend(
                    layout,
                    &query,
                    &key,
                    &value,
                    &step.new,
                    key_rows.ranges(),
                    bias,
                )?
            }
        }; // [M, Q]
        let y = block.output.forward(&attended)?; // [M, H]
        if block.residual { x + y } else { Ok(y) }
    }
}

/// New positions of each active row, and where in the cache they go.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) new: Rows,
    places: Vec<usize>,
}

/// Keys and values of the encoder's output for one decoder layer, computed once: [N, 2K].
#[derive(Clone, Debug)]
pub(crate) struct CrossCache(Tensor);

impl CrossCache {
    pub(crate) fn new(block: &CrossAttention, memory: &Tensor) -> Result<Self> {
        Ok(Self(block.key_value.forward(memory)?.detach()))
    }

    /// `x + output(attention(norm(x), memory))` of new positions [M, H].
    pub(crate) fn attend(
        &self,
        block: &CrossAttention,
        x: &Tensor,
        rows: &Rows,
        memory_ranges: &[Range<usize>],
        engine: Engine,
    ) -> Result<Tensor> {
        let layout = &block.layout;
        let query = block.query.forward(&block.norm.apply(x, engine)?)?; // [M, Q]
        let attended = match engine {
            Engine::Fused => with_f32(&self.0, |key_value| {
                query.apply_op1_no_bwd(&CachedAttention {
                    layout,
                    key_value,
                    rows,
                    key_ranges: memory_ranges,
                    bias: None,
                })
            })??,
            Engine::Reference => {
                let keys = layout.key_width();
                let (key, value) = (self.0.narrow(1, 0, keys)?, self.0.narrow(1, keys, keys)?);
                attend(layout, &query, &key, &value, rows, memory_ranges, None)?
            }
        }; // [M, Q]
        x + block.output.forward(&attended)?
    }
}

/// Turns queries and keys of a projection [M, Q + 2K] by their positions; without a backward.
struct Turn<'a> {
    layout: &'a HeadLayout,
    rotation: &'a Rotation,
}

impl CustomOp1 for Turn<'_> {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut turned = contiguous_f32(storage, layout)?.to_vec();
        let heads = self.layout;
        self.rotation.apply(
            Form::Numbers,
            &mut turned,
            heads.query_width() + 2 * heads.key_width(),
            (heads.heads + heads.key_value_heads, heads.head_size),
            false,
        );
        Ok((CpuStorage::F32(turned), layout.shape().clone()))
    }
}

/// Attention of the first columns of its argument over keys and values in a buffer; without a backward.
struct CachedAttention<'a> {
    layout: &'a HeadLayout,
    key_value: &'a [f32],
    rows: &'a Rows,
    key_ranges: &'a [Range<usize>],
    bias: Option<&'a BatchBias>,
}

impl CustomOp1 for CachedAttention<'_> {
    fn name(&self) -> &'static str {
        "cached-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let query = contiguous_f32(storage, layout)?;
        let (count, stride) = layout.shape().dims2()?;
        let (width, keys) = (self.layout.query_width(), self.layout.key_width());
        let mut out = vec![0.0; count * width];
        let mut lse = Buffer::dirty(count * self.layout.heads);
        let key_value = |offset| Columns {
            data: self.key_value,
            stride: 2 * keys,
            offset,
        };
        let query = Columns {
            data: query,
            stride,
            offset: 0,
        };
        kernel::forward(
            &kernel_of(self.layout, self.rows, self.key_ranges, self.bias),
            query,
            key_value(0),
            key_value(keys),
            &ColumnsMut::new(&mut out, width, 0),
            &ColumnsMut::new(&mut lse, self.layout.heads, 0),
        );
        Ok((CpuStorage::F32(out), (count, width).into()))
    }
}
