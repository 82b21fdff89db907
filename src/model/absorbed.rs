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

use candle_core::{Result, Tensor};

use super::cross_attention::{Attending, CrossAttention};
use super::head_weights::HeadWeights;
use super::kernels::attention::add;
use super::kernels::buffer::Buffer;
use super::kernels::matmul::Repeated;
use super::kernels::memory_attention::{Memory, MemoryAttention, Piece, pack};
use super::ops::with_f32;
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

impl CrossAttention {
    /// Whether the weights of keys and values can be cut into those of heads.
    fn can_be_absorbed(&self) -> bool {
        self.key_value.has_outputs_by(self.layout.head_size)
    }

    /// Whether a layer whose weights can be cut does less arithmetic without projecting the memory, for queries in `rows`.
    pub(crate) fn is_absorbed_for(&self, rows: &Rows, memory: &Rows) -> bool {
        let (layout, hidden_size) = (&self.layout, self.key_value.inputs());
        let lengths = rows.lengths().iter().zip(memory.lengths());
        let pairs: usize = lengths.map(|(t, s)| t * s).sum();
        // Multiplications forward and backward.
        let absorbed = 6 * pairs * layout.heads * hidden_size
            + 4 * rows.total() * layout.query_width() * hidden_size;
        let projected = 4 * memory.total() * layout.key_width() * hidden_size
            + 7 * pairs * layout.query_width();
        self.can_be_absorbed() && SLOWER * absorbed < projected
    }

    /// The same for a decoder that writes up to `steps` tokens of each row.
    pub(crate) fn is_absorbed_to_decode(&self, steps: usize) -> bool {
        let (layout, hidden_size) = (&self.layout, self.key_value.inputs());
        // For each position of the memory, scores and contexts.
        let absorbed = 2 * steps * layout.heads * hidden_size;
        let projected = 2 * layout.key_width() * hidden_size + 2 * steps * layout.query_width();
        self.can_be_absorbed() && SLOWER * absorbed < projected
    }

    fn key_weights(&self) -> HeadWeights<'_> {
        HeadWeights::new(&self.key_value, &self.layout, 0)
    }

    fn value_weights(&self) -> HeadWeights<'_> {
        HeadWeights::new(&self.key_value, &self.layout, self.layout.key_width())
    }

    /// Adds the values' bias to what heads have attended to, [N, Q].
    fn add_value_bias(&self, attended: &mut [f32]) -> Result<()> {
        let layout = &self.layout;
        let group = layout.heads / layout.key_value_heads;
        self.key_value.with_bias(|bias| {
            let Some(bias) = bias else { return };
            let heads = attended.chunks_exact_mut(layout.head_size).enumerate();
            for (index, attended) in heads {
                let head = index % layout.heads / group;
                let start = layout.key_width() + head * layout.head_size;
                add(attended, &bias[start..start + layout.head_size]);
            }
        })
    }

    /// Queries [N, Q] become what they have attended to [N, Q].
    fn attend_absorbed(
        &self,
        kernel: MemoryAttention<'_>,
        query: &mut [f32],
        memory: &Memory<'_>,
    ) -> Result<AbsorbedSaved> {
        let wide = query.len() / self.layout.head_size * kernel.hidden_size;
        let mut queries = Buffer::dirty(wide);
        self.key_weights().widen(query, &mut queries)?;
        let mut probabilities = Buffer::dirty(kernel.score_count());
        let mut contexts = Buffer::dirty(wide);
        kernel.forward(&queries, memory, &mut probabilities, &mut contexts);
        self.value_weights().narrow(&contexts, query)?;
        self.add_value_bias(query)?;
        Ok(AbsorbedSaved {
            queries,
            probabilities,
        })
    }

    /// `x + output(attention(norm(x), memory))` of new positions [N, H] over ranges of an unprojected memory; without a
    /// backward.
    pub(crate) fn attend_unprojected(
        &self,
        x: &Tensor,
        rows: &Rows,
        memory_ranges: &[Range<usize>],
        memory: &Memory<'_>,
    ) -> Result<Tensor> {
        let y = with_f32(x, |x| {
            let mut y = x.to_vec();
            self.around(x, Some(&mut y), |mut query| {
                let kernel = kernel_of(self, rows, memory_ranges);
                self.attend_absorbed(kernel, &mut query, memory)?;
                Ok((query, ()))
            })?;
            Ok::<_, candle_core::Error>(y)
        })??;
        Tensor::from_vec(y, x.shape(), x.device())
    }
}

/// Attending to the memory itself.
pub(crate) struct Absorbed {
    pub(crate) rows: Arc<Rows>,
    pub(crate) memory_rows: Arc<Rows>,
    pub(crate) shared: Arc<SharedMemory>,
    /// Whether this is the first of the layers that share it, whose backward comes last and hands the gathered gradient on.
    pub(crate) is_first: bool,
}

/// What a forward pass leaves.
pub(crate) struct AbsorbedSaved {
    /// [N · heads, H]
    queries: Buffer,
    /// Of each row [T · heads, S], end to end.
    probabilities: Buffer,
}

impl Absorbed {
    /// The memory with what all layers share.
    fn memory<'m>(&'m self, numbers: &'m [f32], hidden_size: usize) -> Memory<'m> {
        let ranges = self.memory_rows.ranges();
        let packed = self
            .shared
            .packed
            .get_or_init(|| pack(numbers, hidden_size, ranges));
        Memory::new(numbers, packed)
    }
}

impl Attending for Absorbed {
    type Saved = AbsorbedSaved;

    fn attend(
        &self,
        block: &CrossAttention,
        mut query: Buffer,
        memory: &[f32],
    ) -> Result<(Buffer, AbsorbedSaved)> {
        let kernel = kernel_of(block, &self.rows, self.memory_rows.ranges());
        let memory = self.memory(memory, kernel.hidden_size);
        let saved = block.attend_absorbed(kernel, &mut query, &memory)?;
        Ok((query, saved))
    }

    fn gradient(
        &self,
        block: &CrossAttention,
        memory: &[f32],
        dattended: Buffer,
        saved: AbsorbedSaved,
    ) -> Result<(Buffer, Option<Vec<f32>>)> {
        let kernel = kernel_of(block, &self.rows, self.memory_rows.ranges());
        let AbsorbedSaved {
            queries,
            probabilities,
        } = saved;
        let mut dcontexts = Buffer::dirty(queries.len());
        block.value_weights().widen(&dattended, &mut dcontexts)?;
        let mut dscores = Buffer::dirty(probabilities.len());
        let mut dqueries = Buffer::dirty(queries.len());
        kernel.vjp(
            &self.memory(memory, kernel.hidden_size),
            &probabilities,
            &dcontexts,
            &mut dscores,
            &mut dqueries,
        );
        let mut dquery = dattended;
        block.key_weights().narrow(&dqueries, &mut dquery)?;
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
        Ok((dquery, dmemory))
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
