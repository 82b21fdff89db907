//! Attention sub-layers: `x + output(attention(norm(x)))`, over packed rows.
//!
//! Each has two equal forms: candle ops on one row after another ([`Engine::Reference`]), and one op over the CPU
//! kernels whose backward is written by hand ([`Engine::Fused`]).

use std::ops::Range;
use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp2, D, DType, Device, Layout, Result, Shape, Tensor};

use super::absorbed::{AbsorbedCrossAttention, SharedMemory};
use super::frozen::FrozenLinear;
use super::intermediate::{Form, Intermediate, Operand, Product};
use super::kernels::attention::{self as kernel, Attention, Columns, ColumnsMut, DistanceBias};
use super::kernels::buffer::Buffer;
use super::kernels::matmul::Into;
use super::kernels::norm as norm_kernel;
use super::kernels::rotary::Rotation;
use super::norm::Norm;
use super::ops::{Engine, contiguous_f32, softmax, with_f32};
pub use super::position::{BatchBias, BatchPositions};
use super::rows::Rows;
use super::stack::{self, Saved, SubLayer, gather, scatter};

/// Sizes and rules that all attentions of a stack share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadLayout {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads, a divisor of `heads`.
    pub key_value_heads: usize,
    /// Numbers in a head.
    pub head_size: usize,
    /// Factor of query · key.
    pub scale: f64,
    /// Whether a position sees only itself and those before it.
    pub causal: bool,
}

impl HeadLayout {
    /// Numbers of all query heads together.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_size
    }

    /// Numbers of all key heads together.
    pub fn key_width(&self) -> usize {
        self.key_value_heads * self.head_size
    }
}

/// Attention of a stack over itself.
#[derive(Clone, Debug)]
pub struct SelfAttention {
    /// Before the projections.
    pub norm: Norm,
    /// Query, key and value side by side: [H] -> [query_width + 2 · key_width].
    pub query_key_value: FrozenLinear,
    /// Back to [H].
    pub output: FrozenLinear,
    /// Sizes and rules.
    pub layout: HeadLayout,
    /// Whether `x` is part of the result; without it the caller adds up (parallel sub-layers).
    pub residual: bool,
    /// Whether the backward computes the projections again instead of keeping them.
    pub recompute: bool,
}

/// Attention of a decoder over an encoder's output.
#[derive(Clone, Debug)]
pub struct CrossAttention {
    /// Before the query's projection.
    pub norm: Norm,
    /// [H] -> [query_width]
    pub query: FrozenLinear,
    /// Key and value side by side: [H] -> [2 · key_width].
    pub key_value: FrozenLinear,
    /// Back to [H].
    pub output: FrozenLinear,
    /// Sizes and rules; causal only where the queries are the last positions of the memory's rows.
    pub layout: HeadLayout,
    /// Whether the backward computes the projections again instead of keeping them.
    pub recompute: bool,
}

/// Rotations of the queries and of the keys of a cross-attention.
type Turns = Option<(Arc<Rotation>, Arc<Rotation>)>;

impl SelfAttention {
    /// `x + output(attention(norm(x)))`: [N, H] -> [N, H].
    ///
    /// # Errors
    /// Where sizes do not fit.
    pub fn forward(
        &self,
        x: &Tensor,
        rows: &Arc<Rows>,
        positions: &BatchPositions,
        engine: Engine,
    ) -> Result<Tensor> {
        match engine {
            Engine::Reference => {
                let projected = self.query_key_value.forward(&self.norm.forward(x)?)?; // [N, Q + 2K]
                let (query, key, value) =
                    split_projection(&self.layout, &projected, positions.rotation.as_deref())?;
                let attended = attend(
                    &self.layout,
                    &query,
                    &key,
                    &value,
                    rows,
                    rows.ranges(),
                    positions.bias.as_ref(),
                )?; // [N, Q]
                let y = self.output.forward(&attended)?; // [N, H]
                if self.residual { x + y } else { Ok(y) }
            }
            Engine::Fused => stack::apply(x, vec![self.sub_layer(rows, positions)], None),
        }
    }

    /// The sub-layer for rows at these positions, over the CPU kernels.
    pub(crate) fn sub_layer(
        &self,
        rows: &Arc<Rows>,
        positions: &BatchPositions,
    ) -> Box<dyn SubLayer> {
        Box::new(SelfAttentionOfRows {
            block: self.clone(),
            rows: rows.clone(),
            positions: positions.clone(),
        })
    }

    /// The same with queries at the end of each row alone, which see all of it: its memory is [`Self::norm`] of the whole
    /// rows. Nothing where the projection cannot be cut.
    ///
    /// # Errors
    /// Where the projection has other sizes than the layout says.
    pub(crate) fn of_row_ends(&self) -> Result<Option<CrossAttention>> {
        let (queries, keys) = (self.layout.query_width(), self.layout.key_width());
        let query = self.query_key_value.outputs_in(0..queries)?;
        let key_value = self
            .query_key_value
            .outputs_in(queries..queries + 2 * keys)?;
        Ok(query
            .zip(key_value)
            .map(|(query, key_value)| CrossAttention {
                norm: self.norm.clone(),
                query,
                key_value,
                output: self.output.clone(),
                layout: self.layout,
                recompute: self.recompute,
            }))
    }

    /// Numbers held.
    pub fn parameter_count(&self) -> usize {
        self.norm.parameter_count()
            + self.query_key_value.parameter_count()
            + self.output.parameter_count()
    }
}

impl CrossAttention {
    /// `x + output(attention(norm(x), memory))`: x [N, H] and memory [M, H] -> [N, H].
    ///
    /// # Errors
    /// Where sizes do not fit.
    pub fn forward(
        &self,
        x: &Tensor,
        rows: &Arc<Rows>,
        memory: &Tensor,
        memory_rows: &Arc<Rows>,
        engine: Engine,
    ) -> Result<Tensor> {
        match engine {
            Engine::Reference => {
                let query = self.query.forward(&self.norm.forward(x)?)?; // [N, Q]
                let key_value = self.key_value.forward(memory)?; // [M, 2K]
                let keys = self.layout.key_width();
                let attended = attend(
                    &self.layout,
                    &query,
                    &key_value.narrow(1, 0, keys)?,
                    &key_value.narrow(1, keys, keys)?,
                    rows,
                    memory_rows.ranges(),
                    None,
                )?; // [N, Q]
                x + self.output.forward(&attended)?
            }
            Engine::Fused => self.fused(x, rows, memory, memory_rows, None),
        }
    }

    /// [`Self::fused`] without a projection of the memory; `is_first` of all layers that have `shared`, whose backward
    /// is the last and gives the memory's.
    pub(crate) fn absorbed(
        &self,
        x: &Tensor,
        rows: &Arc<Rows>,
        memory: &Tensor,
        memory_rows: &Arc<Rows>,
        shared: &Arc<SharedMemory>,
        is_first: bool,
    ) -> Result<Tensor> {
        x.contiguous()?.apply_op2(
            &memory.contiguous()?,
            AbsorbedCrossAttention::new(
                self.clone(),
                (rows.clone(), memory_rows.clone()),
                shared.clone(),
                is_first,
                (x.track_op() || memory.track_op()) && !self.recompute,
            ),
        )
    }

    /// [`Self::forward`] over the CPU kernels, queries and keys turned by their positions.
    pub(crate) fn fused(
        &self,
        x: &Tensor,
        rows: &Arc<Rows>,
        memory: &Tensor,
        memory_rows: &Arc<Rows>,
        turns: Turns,
    ) -> Result<Tensor> {
        if turns.is_none() && self.is_absorbed_for(rows, memory_rows) {
            let shared = Arc::<SharedMemory>::default();
            return self.absorbed(x, rows, memory, memory_rows, &shared, true);
        }
        x.contiguous()?.apply_op2(
            &memory.contiguous()?,
            CrossAttentionOp {
                block: self.clone(),
                rows: rows.clone(),
                memory_rows: memory_rows.clone(),
                turns,
                keep: (x.track_op() || memory.track_op()) && !self.recompute,
                saved: Mutex::new(None),
            },
        )
    }

    /// Numbers held.
    pub fn parameter_count(&self) -> usize {
        self.norm.parameter_count()
            + self.query.parameter_count()
            + self.key_value.parameter_count()
            + self.output.parameter_count()
    }
}

/// Query [N, Q], key and value [N, K] of a projection [N, Q + 2K], the first two turned by their position.
pub(crate) fn split_projection(
    layout: &HeadLayout,
    projected: &Tensor,
    rotation: Option<&Rotation>,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (queries, keys) = (layout.query_width(), layout.key_width());
    let query = projected.narrow(1, 0, queries)?;
    let key = projected.narrow(1, queries, keys)?;
    let value = projected.narrow(1, queries + keys, keys)?;
    match rotation {
        None => Ok((query, key, value)),
        Some(rotation) => Ok((
            turn(&query, layout.head_size, rotation)?,
            turn(&key, layout.head_size, rotation)?,
            value,
        )),
    }
}

/// [N, heads · size] with every head turned, by differentiable candle ops.
fn turn(x: &Tensor, head_size: usize, rotation: &Rotation) -> Result<Tensor> {
    let (count, width) = x.dims2()?;
    let half = rotation.channels() / 2;
    let angles = |numbers: Vec<f32>| {
        Tensor::from_vec(numbers, (count, 1, half), x.device())?.to_dtype(x.dtype())
    };
    let (cosine, sine) = (angles(rotation.cosines())?, angles(rotation.sines())?); // [N, 1, half]
    let heads = x.reshape((count, width / head_size, head_size))?; // [N, heads, size]
    let first = heads.narrow(2, 0, half)?;
    let second = heads.narrow(2, half, half)?;
    let turned = [
        (first.broadcast_mul(&cosine)? - second.broadcast_mul(&sine)?)?,
        (second.broadcast_mul(&cosine)? + first.broadcast_mul(&sine)?)?,
        heads.narrow(2, 2 * half, head_size - 2 * half)?,
    ];
    let kept = if head_size > 2 * half { 3 } else { 2 };
    Tensor::cat(&turned[..kept], 2)?.reshape((count, width))
}

/// Attention by differentiable candle ops, one row after the other: q [N, Q], k and v [M, K] -> [N, Q].
///
/// # Errors
/// Where sizes do not fit.
pub fn attend(
    layout: &HeadLayout,
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    rows: &Rows,
    key_ranges: &[Range<usize>],
    bias: Option<&BatchBias>,
) -> Result<Tensor> {
    // [N, heads · size] -> [heads, T, size]
    let split = |x: &Tensor, range: Range<usize>, heads: usize| -> Result<Tensor> {
        x.narrow(0, range.start, range.len())?
            .reshape((range.len(), heads, layout.head_size))?
            .transpose(0, 1)?
            .contiguous()
    };
    let group = layout.heads / layout.key_value_heads;
    let mut outputs = Vec::with_capacity(rows.count());
    for (range, key_range) in rows.ranges().iter().zip(key_ranges) {
        let (queries, keys) = (range.len(), key_range.len());
        if queries == 0 {
            continue;
        }
        let q = split(query, range.clone(), layout.heads)?; // [heads, T, D]
        let repeat = |x: Tensor| -> Result<Tensor> {
            x.unsqueeze(1)?
                .broadcast_as((layout.key_value_heads, group, keys, layout.head_size))?
                .reshape((layout.heads, keys, layout.head_size))?
                .contiguous()
        };
        let k = repeat(split(key, key_range.clone(), layout.key_value_heads)?)?; // [heads, S, D]
        let v = repeat(split(value, key_range.clone(), layout.key_value_heads)?)?; // [heads, S, D]
        let mut scores = (q.matmul(&k.transpose(1, 2)?)? * layout.scale)?; // [heads, T, S]
        if let Some(bias) = bias {
            let matrix = bias_matrix(bias, layout.heads, queries, keys, query.device())?;
            scores = (scores.to_dtype(DType::F32)? + matrix)?;
        }
        if layout.causal {
            let hidden = causal_mask(queries, keys, query.device())?;
            scores = scores.to_dtype(DType::F32)?.broadcast_add(&hidden)?;
        }
        let probabilities = softmax(&scores)?.to_dtype(v.dtype())?; // [heads, T, S]
        let attended = probabilities.matmul(&v)?; // [heads, T, D]
        outputs.push(attended.transpose(0, 1)?.flatten_from(D::Minus2)?); // [T, heads · D]
    }
    if outputs.is_empty() {
        return query.narrow(0, 0, 0);
    }
    Tensor::cat(&outputs, 0)
}

/// [heads, T, S] from the table of distances.
fn bias_matrix(
    bias: &BatchBias,
    heads: usize,
    queries: usize,
    keys: usize,
    device: &Device,
) -> Result<Tensor> {
    let width = 2 * bias.span - 1;
    let mut matrix = Vec::with_capacity(heads * queries * keys);
    for head in 0..heads {
        for query in 0..queries {
            let position = keys + query - queries;
            let start = head * width + bias.span - 1 - position;
            matrix.extend_from_slice(&bias.distances[start..start + keys]);
        }
    }
    Tensor::from_vec(matrix, (heads, queries, keys), device)
}

/// [T, S]: 0 where a query sees a key, minus infinity where it does not.
fn causal_mask(queries: usize, keys: usize, device: &Device) -> Result<Tensor> {
    let mask: Vec<f32> = (0..queries)
        .flat_map(|query| {
            let position = keys + query - queries;
            (0..keys).map(move |key| {
                if key <= position {
                    0.0
                } else {
                    f32::NEG_INFINITY
                }
            })
        })
        .collect();
    Tensor::from_vec(mask, (queries, keys), device)
}

pub(crate) fn kernel_of<'a>(
    layout: &HeadLayout,
    query_rows: &'a Rows,
    key_ranges: &'a [Range<usize>],
    bias: Option<&'a BatchBias>,
) -> Attention<'a> {
    Attention {
        heads: layout.heads,
        key_value_heads: layout.key_value_heads,
        head_size: layout.head_size,
        scale: layout.scale as f32,
        causal: layout.causal,
        query_rows,
        key_ranges,
        bias: bias.map(|bias| DistanceBias {
            table: &bias.distances,
            span: bias.span,
        }),
    }
}

/// The sub-layer for one batch, keeping the projections and the logarithms of the softmax sums for its backward.
struct SelfAttentionOfRows {
    block: SelfAttention,
    rows: Arc<Rows>,
    positions: BatchPositions,
}

/// What its forward pass leaves.
pub(crate) struct SelfAttentionSaved {
    /// [N, Q + 2K], queries and keys turned by their positions.
    projected: Intermediate,
    /// [N, heads]
    lse: Buffer,
}

impl SelfAttentionOfRows {
    /// The form of what lies between the products.
    fn form(&self) -> Form {
        let block = &self.block;
        let even = block.layout.head_size.is_multiple_of(2);
        match (block.query_key_value.form(), block.output.form()) {
            (Form::Pairs, Form::Pairs) if even => Form::Pairs,
            _ => Form::Numbers,
        }
    }

    /// Numbers of a row of the projection.
    fn stride(&self) -> usize {
        self.block.layout.query_width() + 2 * self.block.layout.key_width()
    }

    /// Where queries, keys and values begin in it.
    fn offsets(&self) -> [usize; 3] {
        let (queries, keys) = (
            self.block.layout.query_width(),
            self.block.layout.key_width(),
        );
        [0, queries, queries + keys]
    }

    fn columns<'a>(&self, projected: &'a Intermediate) -> (Columns<'a>, Columns<'a>, Columns<'a>) {
        let [q, k, v] = self
            .offsets()
            .map(|offset| projected.columns(self.stride(), offset));
        (q, k, v)
    }

    /// The gradient of `x` [N, H] from that of the result and that of the projection.
    fn through_projection(
        &self,
        x: &[f32],
        gradient: &mut [f32],
        dprojected: Intermediate,
    ) -> Result<()> {
        let block = &self.block;
        let mut dnormed = Buffer::dirty(x.len());
        block.query_key_value.multiply_back(
            dprojected.operand(),
            Product::Numbers(&mut dnormed, Into::Overwrite),
        )?;
        drop(dprojected);
        if !block.residual {
            gradient.fill(0.0);
        }
        block
            .norm
            .with_weights(|norm| norm_kernel::add_vjp(x, &dnormed, norm, gradient))
    }

    /// Turns the queries and keys of a projection, or of its gradient, by their positions.
    fn turn(&self, projected: &mut Intermediate, back: bool) {
        let layout = &self.block.layout;
        if let Some(rotation) = &self.positions.rotation {
            let heads = layout.heads + layout.key_value_heads;
            projected.turn(rotation, self.stride(), (heads, layout.head_size), back);
        }
    }
}

impl SubLayer for SelfAttentionOfRows {
    fn run(&self, x: &[f32], y: Option<&mut [f32]>) -> Result<Saved> {
        let block = &self.block;
        let count = self.rows.total();
        let form = self.form();
        let mut projected = Intermediate::dirty(form, count * self.stride());
        {
            let normed = Intermediate::normed(form, &block.norm, x)?;
            let product = projected.product();
            block.query_key_value.multiply(normed.operand(), product)?;
        }
        self.turn(&mut projected, false);
        let queries = block.layout.query_width();
        let mut attended = Intermediate::dirty(form, count * queries);
        let mut lse = Buffer::dirty(count * block.layout.heads);
        let [out] = attended.columns_mut(queries, [0]);
        kernel::forward_in(
            form,
            &kernel_of(
                &block.layout,
                &self.rows,
                self.rows.ranges(),
                self.positions.bias.as_ref(),
            ),
            self.columns(&projected),
            &out,
            &ColumnsMut::new(&mut lse, block.layout.heads, 0),
        );
        if let Some(y) = y {
            let y = Product::Numbers(y, Into::Add);
            block.output.multiply(attended.operand(), y)?;
        }
        Ok(Saved::Attention(SelfAttentionSaved { projected, lse }))
    }

    fn gradient(
        &self,
        x: &[f32],
        gradient: &mut [f32],
        saved: Saved,
        needed: Option<&[u32]>,
    ) -> Result<()> {
        let Saved::Attention(saved) = saved else {
            candle_core::bail!("a self-attention was given what another sub-layer left")
        };
        let block = &self.block;
        let count = self.rows.total();
        let form = saved.projected.form;
        let queries = block.layout.query_width();
        let mut dattended = Intermediate::dirty(form, count * queries);
        block
            .output
            .multiply_back(Operand::Numbers(gradient), dattended.product())?;
        let mut dprojected = Intermediate::dirty(form, count * self.stride());
        let [dq, dk, dv] = dprojected.columns_mut(self.stride(), self.offsets());
        kernel::vjp_in(
            form,
            &kernel_of(
                &block.layout,
                &self.rows,
                self.rows.ranges(),
                self.positions.bias.as_ref(),
            ),
            self.columns(&saved.projected),
            &saved.lse,
            dattended.columns(queries, 0),
            (&dq, &dk, &dv),
        );
        drop((saved, dattended));
        self.turn(&mut dprojected, true);
        if let Some(needed) = needed {
            // Words of any other position would be multiplied for nothing.
            let hidden = block.query_key_value.inputs();
            dprojected.words = gather(&dprojected.words, form.words(self.stride()), needed);
            let x = gather(x, hidden, needed); // [P, H]
            let mut dx = gather(gradient, hidden, needed); // [P, H]
            self.through_projection(&x, &mut dx, dprojected)?;
            scatter(&dx, hidden, needed, gradient);
            return Ok(());
        }
        self.through_projection(x, gradient, dprojected)
    }

    fn residual(&self) -> bool {
        self.block.residual
    }

    fn recompute(&self) -> bool {
        self.block.recompute
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

/// The cross-attention sub-layer as one op of the decoder's state and the encoder's output.
struct CrossAttentionOp {
    block: CrossAttention,
    rows: Arc<Rows>,
    memory_rows: Arc<Rows>,
    turns: Turns,
    keep: bool,
    saved: Mutex<Option<CrossAttentionSaved>>,
}

struct CrossAttentionSaved {
    /// [N, Q]
    query: Buffer,
    /// [M, 2K]
    key_value: Buffer,
    /// [N, heads]
    lse: Buffer,
}

impl CrossAttentionOp {
    fn columns<'a>(
        &self,
        saved: &'a CrossAttentionSaved,
    ) -> (Columns<'a>, Columns<'a>, Columns<'a>) {
        let (queries, keys) = (
            self.block.layout.query_width(),
            self.block.layout.key_width(),
        );
        let key_value = |offset| Columns {
            data: &saved.key_value,
            stride: 2 * keys,
            offset,
        };
        let query = Columns {
            data: &saved.query,
            stride: queries,
            offset: 0,
        };
        (query, key_value(0), key_value(keys))
    }

    /// Turns queries and keys, or their gradients, by their positions.
    fn turn(&self, query: &mut [f32], key_value: &mut [f32], back: bool) {
        let layout = &self.block.layout;
        if let Some((queries, keys)) = &self.turns {
            let size = layout.head_size;
            queries.apply(query, layout.query_width(), layout.heads, size, back);
            let stride = 2 * layout.key_width();
            keys.apply(key_value, stride, layout.key_value_heads, size, back);
        }
    }

    /// Adds the sub-layer's result to `y` (where asked for) and gives what the backward needs.
    fn run(&self, x: &[f32], memory: &[f32], y: Option<&mut [f32]>) -> Result<CrossAttentionSaved> {
        let block = &self.block;
        let (count, memory_count) = (self.rows.total(), self.memory_rows.total());
        let queries = block.layout.query_width();
        let mut normed = Buffer::dirty(x.len());
        block
            .norm
            .with_weights(|norm| norm_kernel::forward(x, norm, &mut normed))?;
        let mut saved = CrossAttentionSaved {
            query: Buffer::dirty(count * queries),
            key_value: Buffer::dirty(memory_count * block.key_value.outputs()),
            lse: Buffer::dirty(count * block.layout.heads),
        };
        block
            .query
            .apply(&normed, &mut saved.query, Into::Overwrite)?;
        block
            .key_value
            .apply(memory, &mut saved.key_value, Into::Overwrite)?;
        self.turn(&mut saved.query, &mut saved.key_value, false);
        let mut attended = Buffer::dirty(count * queries);
        let mut lse = Buffer::dirty(count * block.layout.heads);
        let (q, k, v) = self.columns(&saved);
        kernel::forward(
            &kernel_of(&block.layout, &self.rows, self.memory_rows.ranges(), None),
            q,
            k,
            v,
            &ColumnsMut::new(&mut attended, queries, 0),
            &ColumnsMut::new(&mut lse, block.layout.heads, 0),
        );
        saved.lse = lse;
        if let Some(y) = y {
            block.output.apply(&attended, y, Into::Add)?;
        }
        Ok(saved)
    }

    fn gradient(
        &self,
        x: &[f32],
        memory_length: usize,
        dy: &[f32],
        saved: CrossAttentionSaved,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let block = &self.block;
        let count = self.rows.total();
        let (queries, keys) = (block.layout.query_width(), block.layout.key_width());
        let mut dattended = Buffer::dirty(count * queries);
        block
            .output
            .apply_vjp(dy, &mut dattended, Into::Overwrite)?;
        let mut dquery = Buffer::dirty(count * queries);
        let mut dkey_value = Buffer::dirty(self.memory_rows.total() * 2 * keys);
        let [dk, dv] = ColumnsMut::split(&mut dkey_value, 2 * keys, [0, keys]);
        kernel::vjp(
            &kernel_of(&block.layout, &self.rows, self.memory_rows.ranges(), None),
            self.columns(&saved),
            &saved.lse,
            Columns {
                data: &dattended,
                stride: queries,
                offset: 0,
            },
            (&ColumnsMut::new(&mut dquery, queries, 0), &dk, &dv),
        );
        self.turn(&mut dquery, &mut dkey_value, true);
        let mut dnormed = Buffer::dirty(x.len());
        block
            .query
            .apply_vjp(&dquery, &mut dnormed, Into::Overwrite)?;
        let mut dx = dy.to_vec();
        block
            .norm
            .with_weights(|norm| norm_kernel::add_vjp(x, &dnormed, norm, &mut dx))?;
        let mut dmemory = vec![0.0; memory_length];
        block
            .key_value
            .apply_vjp(&dkey_value, &mut dmemory, Into::Overwrite)?;
        Ok((dx, dmemory))
    }
}

impl CustomOp2 for CrossAttentionOp {
    fn name(&self) -> &'static str {
        "cross-attention"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, memory) = (contiguous_f32(s1, l1)?, contiguous_f32(s2, l2)?);
        let mut y = x.to_vec();
        let saved = self.run(x, memory, Some(&mut y))?;
        if self.keep {
            store(&self.saved, saved);
        }
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        memory: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (dx, dmemory) = with_f32(x, |x| {
            with_f32(memory, |memory| -> Result<_> {
                let saved = match take(&self.saved) {
                    Some(saved) => saved,
                    None => self.run(x, memory, None)?,
                };
                with_f32(&grad, |dy| self.gradient(x, memory.len(), dy, saved))?
            })
        })???;
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), x.device())?),
            Some(Tensor::from_vec(dmemory, memory.shape(), memory.device())?),
        ))
    }
}
