//! Sizes and variants of a model, whichever program wrote its configuration.
//!
//! [`hugging_face`] reads `config.json`, [`nemo`] the `model_config.yaml` of a `.nemo`. Both say which table of names
//! ([`super::names`]) the checkpoint beside it follows.

mod hugging_face;
mod keys;
mod nemo;
mod to_hugging_face;
mod to_nemo;
mod vocabulary;

use super::feed_forward::Activation;
use super::names::{self, NameTable};
pub use super::norm::NormKind;
use super::position::Rotary;
pub use to_hugging_face::HuggingFaceModel;
pub use to_nemo::NemoModel;

/// A GPT: a decoder alone.
#[derive(Clone, Debug, PartialEq)]
pub struct GptConfig {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// `H`
    pub hidden_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads, a divisor of `heads` (Ainslie et al. 2023).
    pub key_value_heads: usize,
    /// Numbers in a head; `heads` of them need not make `H`.
    pub head_size: usize,
    /// Inner size of the feed-forward layers.
    pub feed_forward_size: usize,
    /// Longest row: the positions that were learned, or that the model was trained with.
    pub max_positions: usize,
    /// Rotation of queries and keys by their position; without one, positions are learned.
    pub rotary: Option<Rotary>,
    /// Which norm.
    pub norm: NormKind,
    /// Added to the variance in norms.
    pub norm_epsilon: f64,
    /// Of the feed-forward layers.
    pub activation: Activation,
    /// Whether the activated gate multiplies a second projection (Shazeer 2020).
    pub gated: bool,
    /// Whether the projection to query, key and value has a bias.
    pub query_key_value_bias: bool,
    /// Whether the projection of the attention's output has one.
    pub output_bias: bool,
    /// Whether those of the feed-forward layers have one.
    pub feed_forward_bias: bool,
    /// Whether the feed-forward layer reads what the attention reads, not what it adds to (GPT-NeoX).
    pub parallel_residual: bool,
    /// Whether the head is the embedding table.
    pub tied_head: bool,
    /// Whether scores are divided by the root of the head's size.
    pub scale_scores: bool,
    /// Whether scores are also divided by the layer's number, from 1.
    pub scale_scores_by_layer: bool,
}

/// A T5: encoder and decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct T5Config {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// `H`
    pub hidden_size: usize,
    /// The stack that reads.
    pub encoder: StackConfig,
    /// The stack that writes.
    pub decoder: StackConfig,
    /// Whether the decoder reads the encoder's embedding table.
    pub shared_tokens: bool,
    /// Whether the head is the decoder's embedding table (T5 1.0).
    pub tied_head: bool,
    /// Whether the head has a bias (Megatron).
    pub head_bias: bool,
    /// Whether the decoder's output is scaled by H^-0.5 before the head.
    pub scale_decoder_output: bool,
}

/// One of the two stacks of a T5.
#[derive(Clone, Debug, PartialEq)]
pub struct StackConfig {
    /// Number of layers.
    pub layers: usize,
    /// Heads of every attention.
    pub heads: usize,
    /// Numbers in a head; `heads` of them need not make `H`.
    pub head_size: usize,
    /// Inner size of the feed-forward layers.
    pub feed_forward_size: usize,
    /// How it knows positions.
    pub positions: StackPositions,
    /// Which norm.
    pub norm: NormKind,
    /// Added to the variance in norms.
    pub norm_epsilon: f64,
    /// Of the feed-forward layers.
    pub activation: Activation,
    /// Whether the activated gate multiplies a second projection (T5 1.1).
    pub gated: bool,
    /// Whether linear layers have a bias.
    pub bias: bool,
    /// Whether scores are divided by the root of the head's size.
    pub scale_scores: bool,
    /// Whether the relative bias is multiplied by the layer's number, from 1: what Megatron's scaling of queries and
    /// keys by layer leaves, which it undoes for the scores alone.
    pub scale_bias_by_layer: bool,
}

/// How a stack of a T5 knows where tokens stand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StackPositions {
    /// A learned vector for each position, added to the embedding.
    Learned {
        /// How many there are.
        count: usize,
    },
    /// A learned number for each head and bucket of distances, added to the scores.
    Relative {
        /// Buckets.
        buckets: usize,
        /// Distances beyond this share a bucket.
        max_distance: usize,
    },
}

/// The sizes of a model.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// A decoder alone.
    Gpt(GptConfig),
    /// Encoder and decoder.
    T5(T5Config),
}

/// How the checkpoint beside a configuration names and lays out its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The model's own paths.
    Plain,
    /// Hugging Face GPT-2.
    Gpt2,
    /// Hugging Face Llama, Mistral, Qwen2.
    Llama,
    /// Hugging Face GPT-NeoX.
    GptNeox,
    /// Hugging Face T5.
    T5,
    /// NeMo's GPT before megatron-core.
    MegatronGpt(MegatronVariant),
    /// NeMo's GPT with Transformer Engine's layers.
    TransformerEngine,
    /// NeMo's GPT on megatron-core.
    MegatronCore,
    /// NeMo's T5 before megatron-core.
    MegatronT5 {
        /// Of the encoder's layers.
        encoder: MegatronVariant,
        /// Of the decoder's layers.
        decoder: MegatronVariant,
    },
}

/// How NeMo's own layers lay out projections that share a tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MegatronVariant {
    /// All queries, then all keys, then all values (`megatron_legacy`); else head by head.
    pub legacy_heads: bool,
    /// Gate and value in one tensor (`fast-…glu`).
    pub joined_gate: bool,
}

impl ModelConfig {
    /// The table of names of a checkpoint of `layout`.
    ///
    /// # Panics
    /// Where the layout is of the other kind of model, which no reader of configurations returns.
    pub fn names(&self, layout: Layout) -> NameTable {
        match (self, layout) {
            (Self::Gpt(config), Layout::Plain) => names::plain::gpt(config),
            (Self::T5(config), Layout::Plain) => names::plain::t5(config),
            (Self::Gpt(config), Layout::Gpt2) => names::gpt2::table(config),
            (Self::Gpt(config), Layout::Llama) => names::llama::table(config),
            (Self::Gpt(config), Layout::GptNeox) => names::gpt_neox::table(config),
            (Self::T5(config), Layout::T5) => names::t5::table(config),
            (Self::Gpt(config), Layout::MegatronGpt(variant)) => {
                names::megatron_gpt::table(config, variant)
            }
            (Self::Gpt(config), Layout::TransformerEngine) => {
                names::transformer_engine::table(config)
            }
            (Self::Gpt(config), Layout::MegatronCore) => names::megatron_core::table(config),
            (Self::T5(config), Layout::MegatronT5 { encoder, decoder }) => {
                names::megatron_t5::table(config, encoder, decoder)
            }
            (_, layout) => unreachable!("{layout:?} is a layout of the other kind of model"),
        }
    }
}

impl ModelConfig {
    /// Rows of the embedding table.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Gpt(config) => config.vocab_size,
            Self::T5(config) => config.vocab_size,
        }
    }

    /// The same model with so many rows.
    pub fn with_vocab_size(&self, rows: usize) -> Self {
        let mut this = self.clone();
        match &mut this {
            Self::Gpt(config) => config.vocab_size = rows,
            Self::T5(config) => config.vocab_size = rows,
        }
        this
    }

    /// For other ranks: this model with the rows they can share, and the `make_vocab_size_divisible_by` that makes NeMo
    /// count as many. `tokens` is the size of the tokenizer, where it is known.
    pub fn for_ranks(&self, ranks: usize, tokens: Option<usize>) -> (Self, usize) {
        let (rows, divisor) = vocabulary::padded(self.vocab_size(), tokens, ranks, false);
        (self.with_vocab_size(rows), divisor)
    }
}

impl T5Config {
    /// Heads, layers and so on of the stack of this name.
    pub fn stack(&self, name: &str) -> &StackConfig {
        match name {
            "encoder" => &self.encoder,
            _ => &self.decoder,
        }
    }
}
