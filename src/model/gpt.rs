//! GPT, told from top to bottom: embeddings, a stack of pre-norm layers, a final norm, a head.
//!
//! GPT-2 (Radford et al. 2019) as transformers computes it, without dropout: the model is frozen.

use std::sync::Arc;

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};

use super::attention::{HeadLayout, SelfAttention};
use super::config::GptConfig;
use super::feed_forward::FeedForward;
use super::frozen::{FrozenEmbedding, FrozenLinear, WeightLayout};
use super::head::Head;
use super::norm::{Norm, NormKind};
use super::ops::Engine;
use super::rows::Rows;
use super::weights::Weights;

/// A frozen decoder-only language model.
#[derive(Clone, Debug)]
pub struct Gpt {
    /// Sizes and variants.
    pub config: GptConfig,
    pub(crate) tokens: FrozenEmbedding,
    pub(crate) positions: FrozenEmbedding,
    pub(crate) layers: Vec<GptLayer>,
    pub(crate) norm: Norm,
    pub(crate) head: Head,
}

/// Attention, then feed-forward, each with its norm before it and a sum around it.
#[derive(Clone, Debug)]
pub(crate) struct GptLayer {
    pub(crate) attention: SelfAttention,
    pub(crate) feed_forward: FeedForward,
}

impl Gpt {
    /// Takes the parameters of a GPT-2 out of `weights`.
    ///
    /// # Errors
    /// Where a tensor cannot be read.
    pub fn load(config: GptConfig, weights: &Weights<'_>) -> Result<Self> {
        let norm = |path: &str| -> Result<Norm> {
            let bias = format!("{path}.bias");
            Ok(Norm::new(
                NormKind::LayerNorm,
                weights.get(&format!("{path}.weight"))?,
                Some(weights.get(&bias)?),
                config.norm_epsilon,
            ))
        };
        let linear = |path: &str| -> Result<FrozenLinear> {
            Ok(FrozenLinear::new(
                weights.get(&format!("{path}.weight"))?,
                Some(weights.get(&format!("{path}.bias"))?),
                WeightLayout::InOut,
            )?)
        };
        let layer = |number: usize| -> Result<GptLayer> {
            let mut scale = 1.0;
            if config.scale_scores {
                scale /= (config.head_size() as f64).sqrt();
            }
            if config.scale_scores_by_layer {
                scale /= (number + 1) as f64;
            }
            Ok(GptLayer {
                attention: SelfAttention {
                    norm: norm(&format!("{number}.attention.norm"))?,
                    query_key_value: linear(&format!("{number}.attention.query_key_value"))?,
                    output: linear(&format!("{number}.attention.output"))?,
                    layout: HeadLayout {
                        heads: config.heads,
                        key_value_heads: config.heads,
                        head_size: config.head_size(),
                        scale,
                        causal: true,
                    },
                },
                feed_forward: FeedForward {
                    norm: norm(&format!("{number}.feed_forward.norm"))?,
                    up: linear(&format!("{number}.feed_forward.up"))?,
                    down: linear(&format!("{number}.feed_forward.down"))?,
                    activation: config.activation,
                    gated: false,
                },
            })
        };
        let tokens = FrozenEmbedding::new(weights.get("tokens")?)?;
        let head = if config.tied_head {
            tokens.table().clone()
        } else {
            weights.get("head")?
        };
        Ok(Self {
            positions: FrozenEmbedding::new(weights.get("positions")?)?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            norm: norm("norm")?,
            head: Head {
                projection: FrozenLinear::new(head, None, WeightLayout::OutIn)?,
                scale: 1.0,
            },
            tokens,
            config,
        })
    }

    /// States after the last layer, before the final norm: embeddings [N, H] -> [N, H].
    ///
    /// # Errors
    /// Where a row is longer than the learned positions, or sizes do not fit.
    pub fn hidden(&self, embeddings: &Tensor, rows: &Arc<Rows>, engine: Engine) -> Result<Tensor> {
        rows.check("the input", embeddings.dims2()?.0)?;
        self.check_length(rows.longest())?;
        let positions = self.positions.lookup(&rows.positions())?; // [N, H]
        let mut x = (embeddings + positions.to_dtype(embeddings.dtype())?)?; // [N, H]
        for layer in &self.layers {
            x = layer.attention.forward(&x, rows, None, engine)?;
            x = layer.feed_forward.forward(&x, engine)?;
        }
        Ok(x)
    }

    /// Refuses rows beyond the learned positions.
    pub(crate) fn check_length(&self, longest: usize) -> Result<()> {
        ensure!(
            longest <= self.config.max_positions,
            "a row of {longest} positions is longer than the {} that this model has learned",
            self.config.max_positions
        );
        Ok(())
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
        let layers: usize = self
            .layers
            .iter()
            .map(|layer| layer.attention.parameter_count() + layer.feed_forward.parameter_count())
            .sum();
        self.tokens.table().elem_count()
            + self.positions.table().elem_count()
            + layers
            + self.norm.parameter_count()
            + head
    }
}
