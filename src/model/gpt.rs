//! GPT, told from top to bottom: embeddings, a stack of pre-norm layers, a final norm, a head.
//!
//! GPT-2 (Radford et al. 2019), Llama (Touvron et al. 2023), GPT-NeoX (Black et al. 2022) and what NeMo trains are one
//! model with different positions, norms, activations and biases, all of which is configuration. There is no dropout:
//! the model is frozen.

use std::sync::Arc;

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::attention::{BatchPositions, HeadLayout, SelfAttention};
use super::config::GptConfig;
use super::cross_attention::CrossAttention;
use super::feed_forward::FeedForward;
use super::frozen::{FrozenEmbedding, FrozenLinear, WeightLayout};
use super::head::Head;
use super::norm::Norm;
use super::ops::Engine;
use super::rows::Rows;
use super::stack;
use super::weights::Weights;

/// A frozen decoder-only language model.
#[derive(Clone, Debug)]
pub struct Gpt {
    /// Sizes and variants.
    pub config: GptConfig,
    pub(crate) tokens: FrozenEmbedding,
    /// Learned positions; None where they are rotations.
    pub(crate) positions: Option<FrozenEmbedding>,
    pub(crate) layers: Vec<GptLayer>,
    /// The last layer's attention from the ends of rows: where a loss is, and after.
    last: Option<CrossAttention>,
    pub(crate) norm: Norm,
    pub(crate) head: Head,
}

/// Attention, then feed-forward, each with its norm before it and a sum around it; or both beside each other.
#[derive(Clone, Debug)]
pub(crate) struct GptLayer {
    pub(crate) attention: SelfAttention,
    pub(crate) feed_forward: FeedForward,
    parallel: bool,
}

impl GptLayer {
    /// The layer's result, given its attention's: [N, H] -> [N, H].
    pub(crate) fn finish(&self, x: &Tensor, attended: Tensor, engine: Engine) -> Result<Tensor> {
        if self.parallel {
            // Both read `x`; the attention's result has it in, the feed-forward's has not.
            return Ok((attended + self.feed_forward.forward(x, engine)?)?);
        }
        Ok(self.feed_forward.forward(&attended, engine)?)
    }
}

/// States [N, H] after these layers.
fn through(
    layers: &[GptLayer],
    mut x: Tensor,
    (rows, trained): (&Arc<Rows>, Option<&[u32]>),
    positions: &BatchPositions,
    engine: Engine,
) -> Result<Tensor> {
    if layers.iter().all(|layer| !layer.parallel) {
        let layers = layers
            .iter()
            .map(|layer| (&layer.attention, &layer.feed_forward, positions));
        return Ok(stack::through(&x, layers, rows, trained, engine)?);
    }
    for layer in layers {
        let attended = layer.attention.forward(&x, rows, positions, engine)?;
        x = layer.finish(&x, attended, engine)?;
    }
    Ok(x)
}

impl Gpt {
    /// Takes the parameters out of `weights`.
    ///
    /// # Errors
    /// Where a tensor cannot be read.
    pub fn load(config: GptConfig, weights: &Weights<'_>) -> Result<Self> {
        let norm = |path: &str| weights.norm(path, config.norm, config.norm_epsilon);
        let layer = |number: usize| -> Result<GptLayer> {
            let mut scale = 1.0;
            if config.scale_scores {
                scale /= (config.head_size as f64).sqrt();
            }
            if config.scale_scores_by_layer {
                scale /= (number + 1) as f64;
            }
            Ok(GptLayer {
                attention: SelfAttention {
                    norm: norm(&format!("{number}.attention.norm"))?,
                    query_key_value: weights
                        .linear(&format!("{number}.attention.query_key_value"))?,
                    output: weights.linear(&format!("{number}.attention.output"))?,
                    layout: HeadLayout {
                        heads: config.heads,
                        key_value_heads: config.key_value_heads,
                        head_size: config.head_size,
                        scale,
                        causal: true,
                    },
                    residual: true,
                    recompute: false,
                },
                feed_forward: FeedForward {
                    norm: norm(&format!("{number}.feed_forward.norm"))?,
                    up: weights.linear(&format!("{number}.feed_forward.up"))?,
                    down: weights.linear(&format!("{number}.feed_forward.down"))?,
                    activation: config.activation,
                    gated: config.gated,
                    residual: !config.parallel_residual,
                    recompute: false,
                },
                parallel: config.parallel_residual,
            })
        };
        let tokens = FrozenEmbedding::new(weights.matrix("tokens")?);
        let projection = if config.tied_head {
            FrozenLinear::new(tokens.table().clone(), None, WeightLayout::OutIn)?
        } else {
            weights.linear("head")?
        };
        let positions = weights.optional_matrix("positions")?;
        let layers = (0..config.layers)
            .into_par_iter()
            .map(layer)
            .collect::<Result<Vec<_>>>()?;
        let last = match layers.last() {
            Some(layer) => layer.attention.of_row_ends()?,
            None => None,
        };
        Ok(Self {
            positions: positions.map(FrozenEmbedding::new),
            layers,
            last,
            norm: norm("norm")?,
            head: Head {
                projection,
                scale: 1.0,
            },
            tokens,
            config,
        })
    }

    /// States after the last layer, before the final norm: embeddings [N, H] -> [N, H]. Only those of `trained`
    /// positions need a gradient.
    ///
    /// # Errors
    /// Where a row is longer than the model's positions, or sizes do not fit.
    pub fn hidden(
        &self,
        embeddings: &Tensor,
        rows: &Arc<Rows>,
        trained: Option<&[u32]>,
        engine: Engine,
    ) -> Result<Tensor> {
        rows.check("the input", embeddings.dims2()?.0)?;
        self.check_length(rows.longest())?;
        let (x, positions) = self.place(embeddings, &rows.positions())?; // [N, H]
        through(&self.layers, x, (rows, trained), &positions, engine)
    }

    /// [`Self::hidden`] at `chosen` packed positions alone: [N, H] -> [M, H]. The last layer works from the first of
    /// them in each row on; of what lies before only keys and values are needed there.
    ///
    /// # Errors
    /// As [`Self::hidden`], and where a position is beyond the rows.
    pub fn hidden_at(
        &self,
        embeddings: &Tensor,
        rows: &Arc<Rows>,
        (chosen, trained): (&[u32], Option<&[u32]>),
        engine: Engine,
    ) -> Result<Tensor> {
        let device = embeddings.device();
        let select = |x: &Tensor, positions: &[u32]| {
            x.index_select(&Tensor::from_slice(positions, positions.len(), device)?, 0)
        };
        let (Engine::Fused, Some(last), Some((layer, before))) =
            (engine, &self.last, self.layers.split_last())
        else {
            return Ok(select(
                &self.hidden(embeddings, rows, trained, engine)?,
                chosen,
            )?);
        };
        rows.check("the input", embeddings.dims2()?.0)?;
        self.check_length(rows.longest())?;
        let (x, positions) = self.place(embeddings, &rows.positions())?; // [N, H]
        let x = through(before, x, (rows, trained), &positions, engine)?;
        let counts = rows.counts_since_first_of(chosen);
        let ends = rows.last(&counts);
        let end_rows = Arc::new(Rows::new(counts));
        let turns = positions.rotation.map(|keys| {
            let places = rows.positions();
            let queries: Vec<u32> = ends.iter().map(|&end| places[end as usize]).collect();
            let rotary = self.config.rotary.as_ref();
            let queries = rotary.expect("keys are turned").rotation(&queries);
            (Arc::new(queries), keys)
        });
        let memory = last.norm.apply(&x, engine)?; // [N, H]
        let x = select(&x, &ends)?; // [M, H]
        let attended = last.fused(&x, &end_rows, &memory, rows, turns)?; // [M, H]
        let x = layer.finish(&x, attended, engine)?;
        let places: Vec<u32> = chosen
            .iter()
            .map(|position| ends.partition_point(|end| end < position) as u32)
            .collect();
        Ok(select(&x, &places)?)
    }

    /// Embeddings [N, H] with their learned positions added, or the rotation that attention applies instead.
    pub(crate) fn place(
        &self,
        embeddings: &Tensor,
        positions: &[u32],
    ) -> Result<(Tensor, BatchPositions)> {
        let learned = match &self.positions {
            Some(table) => {
                let learned = table.lookup(positions)?; // [N, H]
                (embeddings + learned.to_dtype(embeddings.dtype())?)?
            }
            None => embeddings.clone(),
        };
        let rotary = self.config.rotary.as_ref();
        let positions = BatchPositions {
            bias: None,
            rotation: rotary.map(|rotary| Arc::new(rotary.rotation(positions))),
        };
        Ok((learned, positions))
    }

    /// Refuses rows beyond the model's positions.
    pub(crate) fn check_length(&self, longest: usize) -> Result<()> {
        ensure!(
            longest <= self.config.max_positions,
            "a row of {longest} positions is longer than the {} that this model was made for",
            self.config.max_positions
        );
        Ok(())
    }

    /// Chooses the layers, by number, whose backward computes again what it needs.
    pub(crate) fn recompute(&mut self, layers: &dyn Fn(usize) -> bool) {
        for (number, layer) in self.layers.iter_mut().enumerate() {
            layer.attention.recompute = layers(number);
            layer.feed_forward.recompute = layers(number);
        }
        if let Some(last) = &mut self.last {
            last.recompute = layers(self.layers.len() - 1);
        }
    }

    /// Device of the weights.
    pub fn device(&self) -> &Device {
        self.tokens.device()
    }

    /// Numbers held; a tied head counts once.
    pub fn parameter_count(&self) -> usize {
        let head = if self.config.tied_head {
            0
        } else {
            self.head.projection.parameter_count()
        };
        let positions = self.positions.as_ref();
        let layers: usize = self
            .layers
            .iter()
            .map(|layer| layer.attention.parameter_count() + layer.feed_forward.parameter_count())
            .sum();
        self.tokens.table().elem_count()
            + positions.map_or(0, |table| table.table().elem_count())
            + layers
            + self.norm.parameter_count()
            + head
    }
}
