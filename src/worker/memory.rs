//! How much memory a training on the CPU will hold, from the sizes of its model and rows.
//!
//! All numbers are f32 there, but for frozen weights with `trainer.precision=bf16`. A training holds
//!
//! - the frozen weights, in bf16 with a second copy of a table that is also the head;
//! - the prompt encoder four times: values, gradients, two moments of AdamW (other optimizers hold less);
//! - of one micro-batch what its backward needs. Let `N` be its packed positions, `H`, `Q`, `K` the hidden, query and
//!   key widths, `F` the inner width of the feed-forward layers, `U` what enters their activation (`F`, gated `2F`).
//!   Each layer keeps the input of both sub-layers, the turned projections, the sums of the softmax, and `U`:
//!   `N (2H + Q + 2K + heads + U)`. A decoder of T5 keeps the same of its own positions `M`, and for attention to the
//!   encoder `M (H + Q + heads) + 2 N K`;
//! - once, while a layer's backward runs: `N (F + 3H)`, and a block of logits, 256 times the vocabulary.
//!
//! To this comes a constant for the program, its tokenizer, rows and buffers. The peak that trainings on two cores
//! reported at their end (`VmHWM`), beside the estimate:
//!
//! | model | micro-batch | estimate | measured |
//! |---|---|---|---|
//! | quickstart (1.2 M) | 8 rows of at most 127 tokens | 0.13 GB | 0.13 GB |
//! | T5 v1.1 small (77 M), XQuAD | 2 rows of at most 777 tokens | 0.72 GB | 0.83 GB |
//! | the same | 8 rows | 1.57 GB | 1.60 GB |
//! | the same, whose batches of 3 steps had few of the longest rows | 16 rows | 2.66 GB | 2.43 GB |

use crate::model::ModelConfig;
use crate::model::config::StackConfig;

/// Positions whose logits exist at one time, as in the model's head.
const LOGIT_BLOCK: u64 = 256;
/// What a process holds before the model: program, tokenizer, rows, buffers of threads.
const PROGRAM: u64 = 100_000_000;
/// Bytes of a number.
const F32: u64 = 4;
const BF16: u64 = 2;

/// A training's memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// What every training takes.
    pub(super) program: u64,
    /// Frozen weights.
    pub(super) weights: u64,
    /// What is trained, with gradients and moments.
    pub(super) trained: u64,
    /// One micro-batch.
    pub(super) activations: u64,
}

impl Memory {
    /// All of it.
    pub(super) fn total(&self) -> u64 {
        self.program + self.weights + self.trained + self.activations
    }
}

/// The largest micro-batch, in packed positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MicroBatch {
    /// Positions of the GPT's or the encoder's rows.
    pub(super) positions: u64,
    /// Positions of the T5's decoder.
    pub(super) decoder_positions: u64,
}

/// The estimate for a model of `parameters` numbers, held in bf16 where `in_bf16`, with `trained` others that are tuned.
/// `recomputed` layers of each stack keep nothing but their inputs.
pub(super) fn estimate(
    config: &ModelConfig,
    parameters: u64,
    in_bf16: bool,
    recomputed: usize,
    trained: u64,
    batch: MicroBatch,
) -> Memory {
    let (n, m) = (batch.positions, batch.decoder_positions);
    let kept = match config {
        ModelConfig::Gpt(gpt) => {
            let inner = gpt.feed_forward_size * (1 + usize::from(gpt.gated));
            let query = gpt.heads * gpt.head_size;
            let key = gpt.key_value_heads * gpt.head_size;
            let layer = 2 * gpt.hidden_size + query + 2 * key + gpt.heads + inner;
            let recomputed = recomputed.min(gpt.layers);
            let kept = (gpt.layers - recomputed) * layer
                + recomputed * 2 * gpt.hidden_size
                + usize::from(recomputed > 0) * layer;
            n * (kept + gpt.feed_forward_size + 3 * gpt.hidden_size) as u64
                + LOGIT_BLOCK.min(n) * gpt.vocab_size as u64
        }
        ModelConfig::T5(t5) => {
            let hidden = t5.hidden_size;
            let layers = |stack: &StackConfig| {
                let inner = stack.feed_forward_size * (1 + usize::from(stack.gated));
                let layer = 2 * hidden + 3 * stack.heads * stack.head_size + stack.heads + inner;
                let recomputed = recomputed.min(stack.layers);
                (stack.layers - recomputed) * layer
                    + recomputed * 2 * hidden
                    + usize::from(recomputed > 0) * layer
            };
            let (encoder, decoder) = (&t5.encoder, &t5.decoder);
            let width = decoder.heads * decoder.head_size;
            let cross = hidden + width + decoder.heads;
            n * (layers(encoder)
                + 2 * (decoder.layers - recomputed.min(decoder.layers)) * width
                + encoder.feed_forward_size
                + 3 * hidden) as u64
                + m * (layers(decoder) + decoder.layers * cross) as u64
                + LOGIT_BLOCK.min(m) * t5.vocab_size as u64
        }
    };
    let tied_table = match config {
        ModelConfig::Gpt(gpt) if gpt.tied_head => gpt.vocab_size * gpt.hidden_size,
        ModelConfig::T5(t5) if t5.tied_head => t5.vocab_size * t5.hidden_size,
        _ => 0,
    };
    Memory {
        program: PROGRAM,
        weights: if in_bf16 {
            BF16 * (parameters + tied_table as u64)
        } else {
            F32 * parameters
        },
        trained: 4 * F32 * trained,
        activations: F32 * kept,
    }
}
