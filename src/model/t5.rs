//! T5, told from top to bottom: an encoder that sees all of its input, a decoder that sees its past and the encoder.
//!
//! T5 1.0, T5 1.1 and mT5 (Raffel et al. 2020, Xue et al. 2021) as transformers computes them, without dropout: the
//! model is frozen. They differ in activation, gate and head, all of which is configuration.

use std::sync::Arc;

use anyhow::Result;
use candle_core::{Device, Tensor};

use super::attention::{BatchBias, CrossAttention, HeadLayout, SelfAttention};
use super::config::T5Config;
use super::feed_forward::FeedForward;
use super::frozen::{FrozenEmbedding, FrozenLinear, WeightLayout};
use super::head::Head;
use super::norm::{Norm, NormKind};
use super::ops::Engine;
use super::position::RelativeBias;
use super::rows::Rows;
use super::weights::Weights;

/// A frozen encoder-decoder language model.
#[derive(Clone, Debug)]
pub struct T5 {
    /// Sizes and variants.
    pub config: T5Config,
    pub(crate) tokens: FrozenEmbedding,
    pub(crate) encoder: Encoder,
    pub(crate) decoder: Decoder,
    pub(crate) head: Head,
}

#[derive(Clone, Debug)]
pub(crate) struct Encoder {
    pub(crate) layers: Vec<EncoderLayer>,
    pub(crate) bias: RelativeBias,
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
    pub(crate) bias: RelativeBias,
    pub(crate) norm: Norm,
}

#[derive(Clone, Debug)]
pub(crate) struct DecoderLayer {
    pub(crate) attention: SelfAttention,
    pub(crate) cross_attention: CrossAttention,
    pub(crate) feed_forward: FeedForward,
}

impl T5 {
    /// Takes the parameters out of `weights`.
    ///
    /// # Errors
    /// Where a tensor cannot be read.
    pub fn load(config: T5Config, weights: &Weights<'_>) -> Result<Self> {
        let parts = Parts {
            config: &config,
            weights,
        };
        let tokens = FrozenEmbedding::new(weights.get("tokens")?)?;
        let head = if config.tied_head {
            tokens.table().clone()
        } else {
            weights.get("head")?
        };
        let encoder = Encoder {
            layers: (0..config.encoder_layers)
                .map(|layer| {
                    let path = format!("encoder.{layer}");
                    Ok(EncoderLayer {
                        attention: parts.self_attention(&path, false)?,
                        feed_forward: parts.feed_forward(&path)?,
                    })
                })
                .collect::<Result<_>>()?,
            bias: parts.relative_bias("encoder", true)?,
            norm: parts.norm("encoder.norm")?,
        };
        let decoder = Decoder {
            layers: (0..config.decoder_layers)
                .map(|layer| {
                    let path = format!("decoder.{layer}");
                    Ok(DecoderLayer {
                        attention: parts.self_attention(&path, true)?,
                        cross_attention: parts.cross_attention(&path)?,
                        feed_forward: parts.feed_forward(&path)?,
                    })
                })
                .collect::<Result<_>>()?,
            bias: parts.relative_bias("decoder", false)?,
            norm: parts.norm("decoder.norm")?,
        };
        let scale = if config.scale_decoder_output {
            (config.hidden_size as f64).powf(-0.5)
        } else {
            1.0
        };
        Ok(Self {
            tokens,
            encoder,
            decoder,
            head: Head {
                projection: FrozenLinear::new(head, None, WeightLayout::OutIn)?,
                scale,
            },
            config,
        })
    }

    /// The encoder's output, after its norm: embeddings [N, H] -> [N, H].
    ///
    /// # Errors
    /// Where sizes do not fit.
    pub fn encode(&self, embeddings: &Tensor, rows: &Arc<Rows>, engine: Engine) -> Result<Tensor> {
        rows.check("the encoder's input", embeddings.dims2()?.0)?;
        let bias = batch_bias(&self.encoder.bias, rows);
        let mut x = embeddings.clone(); // [N, H]
        for layer in &self.encoder.layers {
            x = layer.attention.forward(&x, rows, Some(&bias), engine)?;
            x = layer.feed_forward.forward(&x, engine)?;
        }
        Ok(self.encoder.norm.apply(&x, engine)?)
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
        anyhow::ensure!(
            rows.count() == memory_rows.count(),
            "the decoder has {} rows and the encoder {}",
            rows.count(),
            memory_rows.count()
        );
        let bias = batch_bias(&self.decoder.bias, rows);
        let mut x = self.tokens.lookup(ids)?.to_dtype(memory.dtype())?; // [M, H]
        for layer in &self.decoder.layers {
            x = layer.attention.forward(&x, rows, Some(&bias), engine)?;
            x = layer
                .cross_attention
                .forward(&x, rows, memory, memory_rows, engine)?;
            x = layer.feed_forward.forward(&x, engine)?;
        }
        Ok(x)
    }

    /// Device of the weights.
    pub fn device(&self) -> &Device {
        self.tokens.table().device()
    }

    /// Numbers held; a tied head counts once.
    pub fn parameter_count(&self) -> usize {
        let head = if self.config.tied_head {
            0
        } else {
            self.head.projection.parameter_count()
        };
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
            + encoder
            + self.encoder.bias.parameter_count()
            + self.encoder.norm.parameter_count()
            + decoder
            + self.decoder.bias.parameter_count()
            + self.decoder.norm.parameter_count()
            + head
    }
}

/// The relative bias of every distance in a batch.
fn batch_bias(bias: &RelativeBias, rows: &Rows) -> BatchBias {
    let span = rows.longest().max(1);
    BatchBias {
        distances: Arc::new(bias.distances(span)),
        span,
    }
}

/// Builds sub-layers from the checkpoint's tensors.
struct Parts<'a> {
    config: &'a T5Config,
    weights: &'a Weights<'a>,
}

impl Parts<'_> {
    fn norm(&self, path: &str) -> Result<Norm> {
        Ok(Norm::new(
            NormKind::RmsNorm,
            self.weights.get(path)?,
            None,
            self.config.norm_epsilon,
        ))
    }

    fn linear(&self, path: &str) -> Result<FrozenLinear> {
        Ok(FrozenLinear::new(
            self.weights.get(path)?,
            None,
            WeightLayout::OutIn,
        )?)
    }

    /// Projections of one input, side by side.
    fn stacked(&self, path: &str, names: &[&str]) -> Result<FrozenLinear> {
        let weights = names
            .iter()
            .map(|name| self.weights.get(&format!("{path}.{name}")))
            .collect::<Result<Vec<_>>>()?;
        Ok(FrozenLinear::stacked(&weights, WeightLayout::OutIn)?)
    }

    /// T5 does not scale its scores: the initialisation of its weights does.
    fn layout(&self, causal: bool) -> HeadLayout {
        HeadLayout {
            heads: self.config.heads,
            key_value_heads: self.config.heads,
            head_size: self.config.head_size,
            scale: 1.0,
            causal,
        }
    }

    fn self_attention(&self, path: &str, causal: bool) -> Result<SelfAttention> {
        let path = format!("{path}.self_attention");
        Ok(SelfAttention {
            norm: self.norm(&format!("{path}.norm"))?,
            query_key_value: self.stacked(&path, &["query", "key", "value"])?,
            output: self.linear(&format!("{path}.output"))?,
            layout: self.layout(causal),
        })
    }

    fn cross_attention(&self, path: &str) -> Result<CrossAttention> {
        let path = format!("{path}.cross_attention");
        Ok(CrossAttention {
            norm: self.norm(&format!("{path}.norm"))?,
            query: self.linear(&format!("{path}.query"))?,
            key_value: self.stacked(&path, &["key", "value"])?,
            output: self.linear(&format!("{path}.output"))?,
            layout: self.layout(false),
        })
    }

    fn feed_forward(&self, path: &str) -> Result<FeedForward> {
        let path = format!("{path}.feed_forward");
        let inner: &[&str] = if self.config.gated {
            &["gate", "value"]
        } else {
            &["value"]
        };
        Ok(FeedForward {
            norm: self.norm(&format!("{path}.norm"))?,
            up: self.stacked(&path, inner)?,
            down: self.linear(&format!("{path}.down"))?,
            activation: self.config.activation,
            gated: self.config.gated,
        })
    }

    fn relative_bias(&self, stack: &str, bidirectional: bool) -> Result<RelativeBias> {
        let table = self.weights.get(&format!("{stack}.relative_bias"))?;
        Ok(RelativeBias::new(
            &table,
            bidirectional,
            self.config.relative_max_distance,
        )?)
    }
}
