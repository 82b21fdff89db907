//! Cross-attention whose key and value weights are absorbed into the query and the result.
//!
//! `q · (M Wk)ᵀ = (q Wkᵀ) · Mᵀ` and `p · (M Wv) = (p · M) Wv`: where the positions with queries are few, as those of
//! a short answer over a long question, multiplying them with the weights costs far less than projecting every position
//! of the memory M in every layer, forward and backward, and nothing of the memory's length has to be kept but one
//! row of probabilities for a query and head. The gradient of the memory by all layers is one product at the end.
//! A bias of the keys adds the same to all scores of a query, so it falls out of the softmax; one of the values adds
//! itself, since probabilities sum to 1.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::attention::{CrossAttention, HeadLayout, store, take};
use super::head_weights::HeadWeights;
use super::kernels::attention::add;
use super::kernels::buffer::Buffer;
use super::kernels::matmul::{Into, Repeated};
use super::kernels::memory_attention::{Memory, MemoryAttention, Piece, pack};
use super::kernels::norm as norm_kernel;
use super::ops::{contiguous_f32, with_f32};
use super::rows::Rows;

/// How much longer a multiplication takes here than in a projection, whose matrices are larger and may be in bf16.
const SLOWER: usize = 2;

/// What the layers that look at one memory share.
#[derive(Default)]
pub(crate) struct SharedMemory {
    /// Of each row, for the products with it.
    packed: OnceLock<Vec<[Repeated; 2]>>,
    /// What those layers have left for its gradient.
    pieces: Mutex<Vec<Piece>>,
}

/// Whether a layer does less arithmetic without projecting the memory.
pub(crate) fn is_cheaper(
    layout: &HeadLayout,
    hidden_size: usize,
    rows: &Rows,
    memory: &Rows,
) -> bool {
    let pairs: usize = rows
        .lengths()
        .iter()
        .zip(memory.lengths())
        .map(|(t, s)| t * s)
        .sum();
    // Multiplications forward and backward.
    let absorbed = 6 * pairs * layout.heads * hidden_size
        + 4 * rows.total() * layout.query_width() * hidden_size;
    let projected =
        4 * memory.total() * layout.key_width() * hidden_size + 7 * pairs * layout.query_width();
    SLOWER * absorbed < projected
}

impl CrossAttention {
    /// Whether the weights of keys and values can be cut into those of heads.
    fn can_be_absorbed(&self) -> bool {
        self.key_value.has_outputs_by(self.layout.head_size)
    }

    /// Whether to leave the memory unprojected for queries in `rows`.
    pub(crate) fn is_absorbed_for(&self, rows: &Rows, memory: &Rows) -> bool {
        self.can_be_absorbed() && is_cheaper(&self.layout, self.key_value.inputs(), rows, memory)
    }

    fn key_weights(&self) -> HeadWeights<'_> {
        HeadWeights::new(&self.key_value, &self.layout, 0)
    }

    fn value_weights(&self) -> HeadWeights<'_> {
        HeadWeights::new(&self.key_value, &self.layout, self.layout.key_width())
    }

    /// Adds the values' bias to what heads have attended to, [N, Q].
    fn add_value_bias(&self, attended: &mut [f32]) -> Result<()> {
        let Some(bias) = self.key_value.bias() else {
            return Ok(());
        };
        let layout = &self.layout;
        let group = layout.heads / layout.key_value_heads;
        with_f32(bias, |bias| {
            let heads = attended.chunks_exact_mut(layout.head_size).enumerate();
            for (index, attended) in heads {
                let head = index % layout.heads / group;
                let start = layout.key_width() + head * layout.head_size;
                add(attended, &bias[start..start + layout.head_size]);
            }
        })
    }
}

/// Whether a decoder that writes up to `steps` tokens of each row does less arithmetic in a layer without keys and values.
pub(crate) fn is_cheaper_to_decode(block: &CrossAttention, steps: usize) -> bool {
    let (layout, hidden_size) = (&block.layout, block.key_value.inputs());
    // For each position of the memory, scores and contexts.
    let absorbed = 2 * steps * layout.heads * hidden_size;
    let projected = 2 * layout.key_width() * hidden_size + 2 * steps * layout.query_width();
    block.can_be_absorbed() && SLOWER * absorbed < projected
}

impl CrossAttention {
    /// `x + output(attention(norm(x), memory))` of new positions [N, H] over ranges of an unprojected memory; without a
    /// backward.
    pub(crate) fn attend_unprojected(
        &self,
        x: &Tensor,
        rows: &Rows,
        memory_ranges: &[Range<usize>],
        memory: &Memory<'_>,
    ) -> Result<Tensor> {
        let mut y = with_f32(x, <[f32]>::to_vec)?;
        let mut normed = Buffer::dirty(y.len());
        self.norm
            .with_weights(|norm| norm_kernel::forward(&y, norm, &mut normed))?;
        let mut query = Buffer::dirty(rows.total() * self.layout.query_width());
        self.query.apply(&normed, &mut query, Into::Overwrite)?;
        attend(
            self,
            kernel_of(self, rows, memory_ranges),
            &mut query,
            memory,
        )?;
        self.output.apply(&query, &mut y, Into::Add)?;
        Tensor::from_vec(y, x.shape(), x.device())
    }
}

/// The sub-layer as one op of the decoder's state and the memory.
pub(crate) struct AbsorbedCrossAttention {
    block: CrossAttention,
    rows: Arc<Rows>,
    memory_rows: Arc<Rows>,
    shared: Arc<SharedMemory>,
    /// Whether this is the first of them, whose backward comes last and hands the gathered gradient on.
    is_first: bool,
    keep: bool,
    saved: Mutex<Option<Saved>>,
}

/// What a forward pass leaves.
struct Saved {
    /// [N · heads, H]
    queries: Buffer,
    /// Of each row [T · heads, S], end to end.
    probabilities: Buffer,
}

impl AbsorbedCrossAttention {
    pub(crate) fn new(
        block: CrossAttention,
        (rows, memory_rows): (Arc<Rows>, Arc<Rows>),
        shared: Arc<SharedMemory>,
        is_first: bool,
        keep: bool,
    ) -> Self {
        Self {
            block,
            rows,
            memory_rows,
            shared,
            is_first,
            keep,
            saved: Mutex::new(None),
        }
    }

    /// The memory with what all layers share.
    fn memory<'m>(&'m self, numbers: &'m [f32]) -> Memory<'m> {
        let packed = self.shared.packed.get_or_init(|| {
            let hidden_size = self.block.key_value.inputs();
            pack(numbers, hidden_size, self.memory_rows.ranges())
        });
        Memory::new(numbers, packed)
    }

    fn kernel(&self) -> MemoryAttention<'_> {
        kernel_of(&self.block, &self.rows, self.memory_rows.ranges())
    }

    /// Adds the sub-layer's result to `y` (where asked for) and gives what the backward needs.
    fn run(&self, x: &[f32], memory: &[f32], y: Option<&mut [f32]>) -> Result<Saved> {
        let block = &self.block;
        let mut normed = Buffer::dirty(x.len());
        block
            .norm
            .with_weights(|norm| norm_kernel::forward(x, norm, &mut normed))?;
        let mut query = Buffer::dirty(self.rows.total() * block.layout.query_width());
        block.query.apply(&normed, &mut query, Into::Overwrite)?;
        let mut attended = query;
        let saved = attend(block, self.kernel(), &mut attended, &self.memory(memory))?;
        if let Some(y) = y {
            block.output.apply(&attended, y, Into::Add)?;
        }
        Ok(saved)
    }

    fn gradient(
        &self,
        x: &[f32],
        memory: &[f32],
        dy: &[f32],
        saved: Saved,
    ) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        let block = &self.block;
        let kernel = self.kernel();
        let mut dattended = Buffer::dirty(self.rows.total() * block.layout.query_width());
        block
            .output
            .apply_vjp(dy, &mut dattended, Into::Overwrite)?;
        let mut dcontexts = Buffer::dirty(saved.queries.len());
        block.value_weights().widen(&dattended, &mut dcontexts)?;
        let mut dscores = Buffer::dirty(saved.probabilities.len());
        let mut dqueries = Buffer::dirty(saved.queries.len());
        kernel.vjp(
            &self.memory(memory),
            &saved.probabilities,
            &dcontexts,
            &mut dscores,
            &mut dqueries,
        );
        let mut dquery = dattended;
        block.key_weights().narrow(&dqueries, &mut dquery)?;
        let mut dnormed = Buffer::dirty(x.len());
        block
            .query
            .apply_vjp(&dquery, &mut dnormed, Into::Overwrite)?;
        let mut dx = dy.to_vec();
        block
            .norm
            .with_weights(|norm| norm_kernel::add_vjp(x, &dnormed, norm, &mut dx))?;
        let Saved {
            queries,
            probabilities,
        } = saved;
        let Ok(mut pieces) = self.shared.pieces.lock() else {
            candle_core::bail!("another layer's backward failed")
        };
        pieces.push(Piece {
            probabilities,
            dscores,
            queries,
            dcontexts,
        });
        let dmemory = self.is_first.then(|| {
            let mut dmemory = vec![0.0; memory.len()];
            kernel.memory_gradient(&pieces, &mut dmemory);
            pieces.clear();
            dmemory
        });
        Ok((dx, dmemory))
    }
}

impl CustomOp2 for AbsorbedCrossAttention {
    fn name(&self) -> &'static str {
        "absorbed-cross-attention"
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
                with_f32(&grad, |dy| self.gradient(x, memory, dy, saved))?
            })
        })???;
        let dmemory =
            dmemory.map(|dmemory| Tensor::from_vec(dmemory, memory.shape(), memory.device()));
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), x.device())?),
            dmemory.transpose()?,
        ))
    }
}

/// The kernel for queries in `rows` over these ranges of the memory.
fn kernel_of<'a>(
    block: &CrossAttention,
    rows: &'a Rows,
    memory_ranges: &'a [Range<usize>],
) -> MemoryAttention<'a> {
    MemoryAttention {
        heads: block.layout.heads,
        hidden_size: block.key_value.inputs(),
        scale: block.layout.scale as f32,
        causal: block.layout.causal,
        query_rows: rows,
        memory_ranges,
    }
}

/// Queries [N, Q] become what they have attended to [N, Q].
fn attend(
    block: &CrossAttention,
    kernel: MemoryAttention<'_>,
    query: &mut [f32],
    memory: &Memory<'_>,
) -> Result<Saved> {
    let wide = query.len() / block.layout.head_size * kernel.hidden_size;
    let mut queries = Buffer::dirty(wide);
    block.key_weights().widen(query, &mut queries)?;
    let mut probabilities = Buffer::dirty(kernel.score_count());
    let mut contexts = Buffer::dirty(wide);
    kernel.forward(&queries, memory, &mut probabilities, &mut contexts);
    block.value_weights().narrow(&contexts, query)?;
    block.add_value_bias(query)?;
    Ok(Saved {
        queries,
        probabilities,
    })
}
