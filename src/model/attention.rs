//! Attention sub-layers: `x + output(attention(norm(x)))`, over packed rows.
//!
//! Each has two equal forms: candle ops on one row after another ([`Engine::Reference`]), and one op over the CPU
//! kernels whose backward is written by hand ([`Engine::Fused`]).

use std::ops::Range;
use std::sync::Arc;

use candle_core::{D, DType, Device, Result, Tensor};

use super::cross_attention::CrossAttention;
use super::frozen::FrozenLinear;
use super::intermediate::{Form, Intermediate, Operand, Product};
use super::kernels::attention::{self as kernel, Attention, Columns, ColumnsMut, DistanceBias};
use super::kernels::buffer::Buffer;
use super::kernels::matmul::Into;
use super::kernels::rotary::Rotation;
use super::norm::Norm;
use super::ops::{Engine, softmax};
pub use super::position::{BatchBias, BatchPositions};
use super::repeats::Repeats;
use super::rows::Rows;
use super::stack::{self, Saved, SubLayer};

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

    /// Queries, keys and values of any rows: [M, H] -> [M, Q + 2K].
    fn projected(&self, x: &[f32]) -> Result<Intermediate> {
        let (form, block) = (self.form(), &self.block);
        let count = x.len() / block.query_key_value.inputs();
        let mut projected = Intermediate::dirty(form, count * self.stride());
        let normed = Intermediate::normed(form, &block.norm, x)?;
        let product = projected.product();
        block.query_key_value.multiply(normed.operand(), product)?;
        Ok(projected)
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
    fn run(&self, x: &[f32], repeats: Option<&Repeats>, y: Option<&mut [f32]>) -> Result<Saved> {
        let block = &self.block;
        let count = self.rows.total();
        let form = self.form();
        let mut projected = match repeats {
            None => self.projected(x)?,
            Some(repeats) => {
                let once = repeats.once(x, block.norm.width());
                repeats.spread(&self.projected(&once)?, self.stride())
            }
        };
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

    fn gradient(&self, dy: &[f32], saved: Saved, needed: Option<&[u32]>) -> Result<Buffer> {
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
            .multiply_back(Operand::Numbers(dy), dattended.product())?;
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
        block.query_key_value.input_gradient(dprojected, needed)
    }

    fn norm(&self) -> &Norm {
        &self.block.norm
    }

    fn residual(&self) -> bool {
        self.block.residual
    }

    fn recompute(&self) -> bool {
        self.block.recompute
    }
}
