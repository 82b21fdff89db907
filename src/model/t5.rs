//! T5, told from top to bottom: an encoder that sees all of its input, a decoder that sees its past and the encoder.
//!
//! T5 1.0, T5 1.1 and mT5 (Raffel et al. 2020, Xue et al. 2021) as transformers computes them, and the T5 that NeMo
//! trains, with LayerNorm, biases, learned or relative positions and stacks of different sizes: all configuration.
//! There is no dropout: the model is frozen.

use std::sync::Arc;

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::absorbed::SharedMemory;
use super::attention::{BatchPositions, HeadLayout, SelfAttention};
use super::config::{StackConfig, StackPositions, T5Config};
use super::cross_attention::CrossAttention;
use super::feed_forward::FeedForward;
use super::frozen::{FrozenEmbedding, FrozenLinear, WeightLayout};
use super::head::Head;
use super::norm::Norm;
use super::ops::Engine;
use super::position::RelativeBias;
use super::rows::Rows;
use super::stack;
use super::weights::Weights;

/// A frozen encoder-decoder language model.
#[derive(Clone, Debug)]
pub struct T5 {
    /// Sizes and variants.
    pub config: T5Config,
    pub(crate) tokens: FrozenEmbedding,
    /// None where the decoder reads `tokens`.
    decoder_tokens: Option<FrozenEmbedding>,
    pub(crate) encoder: Encoder,
    pub(crate) decoder: Decoder,
    pub(crate) head: Head,
}

#[derive(Clone, Debug)]
pub(crate) struct Encoder {
    pub(crate) layers: Vec<EncoderLayer>,
    pub(crate) positions: Positions,
    pub(crate) norm: Norm,
}

#[derive(Clone, Debug)]
pub(crate) struct EncoderLayer {
    pub(crate) attention: SelfAttention,
    pub(crate) feed_forward: FeedForward,
}

#[derive(Clone, Debug)]
pub(crate) struct Decoder {
    pub(crate) layers: Vec<DecoderLayer>,
    pub(crate) positions: Positions,
    pub(crate) norm: Norm,
}

#[derive(Clone, Debug)]
pub(crate) struct DecoderLayer {
    pub(crate) attention: SelfAttention,
    pub(crate) cross_attention: CrossAttention,
    pub(crate) feed_forward: FeedForward,
}

/// How a stack knows where tokens stand.
#[derive(Clone, Debug)]
pub(crate) enum Positions {
    /// A vector for each position, added to the embedding.
    Learned(FrozenEmbedding),
    /// A bias of scores, in every layer the same or multiplied by its number.
    Relative {
        bias: RelativeBias,
        scaled_by_layer: bool,
    },
}

impl Positions {
    fn load(stack: &str, sizes: &StackConfig, weights: &Weights<'_>) -> Result<Self> {
        Ok(match sizes.positions {
            StackPositions::Learned { .. } => Self::Learned(FrozenEmbedding::new(
                weights.matrix(&format!("{stack}.positions"))?,
            )),
            StackPositions::Relative { max_distance, .. } => Self::Relative {
                bias: RelativeBias::new(
                    &weights.get(&format!("{stack}.relative_bias"))?,
                    stack == "encoder",
                    max_distance,
                )?,
                scaled_by_layer: sizes.scale_bias_by_layer,
            },
        })
    }

    /// Embeddings [N, H] with learned positions added, where the stack has them.
    pub(crate) fn place(&self, embeddings: &Tensor, positions: &[u32]) -> Result<Tensor> {
        let Self::Learned(table) = self else {
            return Ok(embeddings.clone());
        };
        let longest = positions.iter().max().map_or(0, |&last| last as usize + 1);
        ensure!(
            longest <= table.count(),
            "a row of {longest} positions is longer than the {} that this model has learned",
            table.count()
        );
        let learned = table.lookup(positions)?; // [N, H]
        Ok((embeddings + learned.to_dtype(embeddings.dtype())?)?)
    }

    /// For each layer what its attention must know of rows up to `longest`.
    pub(crate) fn of_layers(&self, layers: usize, longest: usize) -> Vec<BatchPositions> {
        match self {
            Self::Learned(_) => vec![BatchPositions::default(); layers],
            Self::Relative {
                bias,
                scaled_by_layer,
            } => {
                let with_factor = |factor: f64| BatchPositions {
                    bias: Some(bias.of_batch(longest, factor)),
                    rotation: None,
                };
                if *scaled_by_layer {
                    return (1..=layers)
                        .map(|layer| with_factor(layer as f64))
                        .collect();
                }
                vec![with_factor(1.0); layers]
            }
        }
    }

    fn parameter_count(&self) -> usize {
        match self {
            Self::Learned(table) => table.table().elem_count(),
            Self::Relative { bias, .. } => bias.parameter_count(),
        }
    }
}

impl T5 {
    /// Takes the parameters out of `weights`.
    ///
    /// # Errors
    /// Where a tensor cannot be read.
    pub fn load(config: T5Config, weights: &Weights<'_>) -> Result<Self> {
        let parts = |stack| Parts {
            stack: config.stack(stack),
            name: stack,
            weights,
        };
        let tokens = FrozenEmbedding::new(weights.matrix("encoder.tokens")?);
        let decoder_tokens = weights.optional_matrix("decoder.tokens")?;
        let decoder_tokens = decoder_tokens.map(FrozenEmbedding::new);
        let projection = if config.tied_head {
            let table = decoder_tokens.as_ref().unwrap_or(&tokens).table().clone();
            let bias = weights.optional("head.bias")?;
            FrozenLinear::new(table, bias, WeightLayout::OutIn)?
        } else {
            weights.linear("head")?
        };
        let encoder = parts("encoder");
        let encoder = Encoder {
            layers: (0..config.encoder.layers)
                .into_par_iter()
                .map(|layer| {
                    Ok(EncoderLayer {
                        attention: encoder.self_attention(layer, false)?,
                        feed_forward: encoder.feed_forward(layer)?,
                    })
                })
                .collect::<Result<_>>()?,
            positions: Positions::load("encoder", &config.encoder, weights)?,
            norm: encoder.norm("norm")?,
        };
        let decoder = parts("decoder");
        let decoder = Decoder {
            layers: (0..config.decoder.layers)
                .into_par_iter()
                .map(|layer| {
                    Ok(DecoderLayer {
                        attention: decoder.self_attention(layer, true)?,
                        cross_attention: decoder.cross_attention(layer)?,
                        feed_forward: decoder.feed_forward(layer)?,
                    })
                })
                .collect::<Result<_>>()?,
            positions: Positions::load("decoder", &config.decoder, weights)?,
            norm: decoder.norm("norm")?,
        };
        let scale = if config.scale_decoder_output {
            (config.hidden_size as f64).powf(-0.5)
        } else {
            1.0
        };
        Ok(Self {
            tokens,
            decoder_tokens,
            encoder,
            decoder,
            head: Head { projection, scale },
            config,
        })
    }

    /// The encoder's output, after its norm: embeddings [N, H] -> [N, H]. Only those of `trained` positions need a gradient.
    ///
    /// # Errors
    /// Where sizes do not fit, or a row is longer than the learned positions.
    pub fn encode(
        &self,
        embeddings: &Tensor,
        rows: &Arc<Rows>,
        trained: Option<&[u32]>,
        engine: Engine,
    ) -> Result<Tensor> {
        rows.check("the encoder's input", embeddings.dims2()?.0)?;
        let encoder = &self.encoder;
        let x = encoder.positions.place(embeddings, &rows.positions())?; // [N, H]
        let positions = encoder
            .positions
            .of_layers(encoder.layers.len(), rows.longest());
        let layers = encoder.layers.iter().zip(&positions);
        let layers =
            layers.map(|(layer, positions)| (&layer.attention, &layer.feed_forward, positions));
        let x = stack::through(&x, layers, rows, trained, engine)?;
        Ok(encoder.norm.apply(&x, engine)?)
    }

    /// The decoder's states before its final norm: ids of packed rows, one for each row of `memory` [N, H] -> [M, H].
    ///
    /// # Errors
    /// Where sizes do not fit or an id is unknown.
    pub fn decode(
        &self,
        ids: &[u32],
        rows: &Arc<Rows>,
        memory: &Tensor,
        memory_rows: &Arc<Rows>,
        engine: Engine,
    ) -> Result<Tensor> {
        rows.check("the decoder's input", ids.len())?;
        ensure!(
            rows.count() == memory_rows.count(),
            "the decoder has {} rows and the encoder {}",
            rows.count(),
            memory_rows.count()
        );
        let stack = &self.decoder;
        let mut x = self
            .embed_decoder(ids, &rows.positions())?
            .to_dtype(memory.dtype())?; // [M, H]
        let positions = stack
            .positions
            .of_layers(stack.layers.len(), rows.longest());
        // Where keys and values are projected, each layer gives the memory a gradient; else all of them one.
        let shared = Arc::<SharedMemory>::default();
        let absorbed = engine == Engine::Fused
            && stack
                .layers
                .iter()
                .all(|layer| layer.cross_attention.is_absorbed_for(rows, memory_rows));
        for (number, (layer, positions)) in stack.layers.iter().zip(&positions).enumerate() {
            x = layer.attention.forward(&x, rows, positions, engine)?;
            let cross = &layer.cross_attention;
            x = if absorbed {
                cross.absorbed(&x, rows, memory, memory_rows, &shared, number == 0)?
            } else {
                cross.forward(&x, rows, memory, memory_rows, engine)?
            };
            x = layer.feed_forward.forward(&x, engine)?;
        }
        Ok(x)
    }

    /// What enters the decoder for ids at these places of their rows: [M] -> [M, H].
    pub(crate) fn embed_decoder(&self, ids: &[u32], positions: &[u32]) -> Result<Tensor> {
        let table = self.decoder_tokens.as_ref().unwrap_or(&self.tokens);
        self.decoder.positions.place(&table.lookup(ids)?, positions)
    }

    /// Longest row of the encoder, where positions are learned.
    pub fn max_positions(&self) -> Option<usize> {
        match self.config.encoder.positions {
            StackPositions::Learned { count } => Some(count),
            StackPositions::Relative { .. } => None,
        }
    }

    /// Longest row of the decoder, where positions are learned.
    pub fn max_decoder_positions(&self) -> Option<usize> {
        match self.config.decoder.positions {
            StackPositions::Learned { count } => Some(count),
            StackPositions::Relative { .. } => None,
        }
    }

    /// Chooses the layers of both stacks, by number, whose backward computes again what it needs.
    pub(crate) fn recompute(&mut self, layers: &dyn Fn(usize) -> bool) {
        for (number, layer) in self.encoder.layers.iter_mut().enumerate() {
            layer.attention.recompute = layers(number);
            layer.feed_forward.recompute = layers(number);
        }
        for (number, layer) in self.decoder.layers.iter_mut().enumerate() {
            layer.attention.recompute = layers(number);
            layer.cross_attention.recompute = layers(number);
            layer.feed_forward.recompute = layers(number);
        }
    }

    /// Device of the weights.
    pub fn device(&self) -> &Device {
        self.tokens.device()
    }

    /// Numbers held; a tied head counts once.
    pub fn parameter_count(&self) -> usize {
        let mut head = self.head.projection.parameter_count();
        if self.config.tied_head {
            head -= self.tokens.table().elem_count();
        }
        let decoder_tokens = self.decoder_tokens.as_ref();
        let encoder: usize = self
            .encoder
            .layers
            .iter()
            .map(|layer| layer.attention.parameter_count() + layer.feed_forward.parameter_count())
            .sum();
        let decoder: usize = self
            .decoder
            .layers
            .iter()
            .map(|layer| {
                layer.attention.parameter_count()
                    + layer.cross_attention.parameter_count()
                    + layer.feed_forward.parameter_count()
            })
            .sum();
        self.tokens.table().elem_count()
            + decoder_tokens.map_or(0, |table| table.table().elem_count())
            + encoder
            + self.encoder.positions.parameter_count()
            + self.encoder.norm.parameter_count()
            + decoder
            + self.decoder.positions.parameter_count()
            + self.decoder.norm.parameter_count()
            + head
    }
}

/// Builds sub-layers of a stack from the checkpoint's tensors.
struct Parts<'a> {
    stack: &'a StackConfig,
    name: &'a str,
    weights: &'a Weights<'a>,
}

impl Parts<'_> {
    fn norm(&self, path: &str) -> Result<Norm> {
        let path = format!("{}.{path}", self.name);
        self.weights
            .norm(&path, self.stack.norm, self.stack.norm_epsilon)
    }

    fn linear(&self, path: &str) -> Result<FrozenLinear> {
        self.weights.linear(&format!("{}.{path}", self.name))
    }

    fn layout(&self, causal: bool) -> HeadLayout {
        HeadLayout {
            heads: self.stack.heads,
            key_value_heads: self.stack.heads,
            head_size: self.stack.head_size,
            scale: if self.stack.scale_scores {
                (self.stack.head_size as f64).powf(-0.5)
            } else {
                1.0
            },
            causal,
        }
    }

    fn self_attention(&self, layer: usize, causal: bool) -> Result<SelfAttention> {
        let path = |rest: &str| format!("{layer}.self_attention.{rest}");
        Ok(SelfAttention {
            norm: self.norm(&path("norm"))?,
            query_key_value: self.linear(&path("query_key_value"))?,
            output: self.linear(&path("output"))?,
            layout: self.layout(causal),
            residual: true,
            recompute: false,
        })
    }

    fn cross_attention(&self, layer: usize) -> Result<CrossAttention> {
        let path = |rest: &str| format!("{layer}.cross_attention.{rest}");
        Ok(CrossAttention {
            norm: self.norm(&path("norm"))?,
            query: self.linear(&path("query"))?,
            key_value: self.linear(&path("key_value"))?,
            output: self.linear(&path("output"))?,
            layout: self.layout(false),
            recompute: false,
        })
    }

    fn feed_forward(&self, layer: usize) -> Result<FeedForward> {
        let path = |rest: &str| format!("{layer}.feed_forward.{rest}");
        Ok(FeedForward {
            norm: self.norm(&path("norm"))?,
            up: self.linear(&path("up"))?,
            down: self.linear(&path("down"))?,
            activation: self.stack.activation,
            gated: self.stack.gated,
            residual: true,
            recompute: false,
        })
    }
}
