//! Frozen GPT and T5 models.
//!
//! A model never changes: its weights are plain tensors, no gradient of them is computed, and a loss is differentiable
//! in the input embeddings alone. Batches are packed ([`Rows`]): rows lie end to end, there is no padding.
//!
//! On the CPU a layer is two or three ops over hand-written kernels ([`ops::Engine::Fused`]); on other devices, and
//! in the tests that hold the kernels to account, it is plain candle ops ([`ops::Engine::Reference`]).
//!
//! Letters in shapes: `N` packed positions, `M` positions of a decoder or with a loss, `H` hidden size, `Q` and `K`
//! query and key widths of all heads, `F` inner size of the feed-forward layers, `T` and `S` queries and keys of a row.

mod absorbed;
pub mod attention;
pub mod checkpoint;
pub mod config;
pub mod cross_attention;
mod decoding;
pub mod feed_forward;
pub mod frozen;
pub mod gpt;
pub mod head;
mod head_weights;
mod intermediate;
mod kernels;
mod kv_cache;
pub mod matrix;
mod memory_cache;
pub mod names;
pub mod norm;
pub mod ops;
pub mod position;
mod projected;
mod repeats;
mod rows;
mod stack;
pub mod t5;
pub mod toy;
mod trace;
pub mod trained;
pub mod weights;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};

pub use checkpoint::Checkpoint;
pub use config::{Layout, ModelConfig};
pub use decoding::Decoding;
pub use gpt::Gpt;
pub use ops::Engine;
pub use rows::Rows;
pub use t5::T5;

use crate::tensors::TensorSource;
use crate::tensors::nemo_files::NemoFiles;
use weights::Weights;

/// How a model is loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Type the weights are held in. None: f32 on the CPU, as stored on other devices. The CPU computes in f32
    /// whatever the weights are held in, but for products with weights in bf16: their other operand is rounded to
    /// bf16 too where the processor has instructions for it, and sums are in f32.
    pub dtype: Option<DType>,
    /// Where the weights go.
    pub device: Device,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            dtype: None,
            device: Device::Cpu,
        }
    }
}

/// One packed micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct LmInputs<'a> {
    /// [N, H]: discrete and virtual tokens of the GPT's rows or of the T5's encoder rows.
    pub embeddings: &'a Tensor,
    /// Packed positions, ascending, whose embeddings have a gradient, those of virtual tokens; of the others it may be
    /// left at zero, which saves work. None: all.
    pub trained_positions: Option<&'a [u32]>,
    /// Rows of `embeddings`.
    pub rows: &'a Rows,
    /// T5: the decoder's input ids, packed. GPT: empty.
    pub decoder_ids: &'a [u32],
    /// T5: rows of `decoder_ids`.
    pub decoder_rows: Option<&'a Rows>,
    /// Packed positions (of the decoder for T5) whose output predicts a label.
    pub loss_positions: &'a [u32],
    /// One for each loss position.
    pub labels: &'a [u32],
    /// One for each loss position.
    pub weights: &'a [f32],
}

/// A frozen language model.
#[derive(Clone, Debug)]
pub enum LanguageModel {
    /// Decoder only.
    Gpt(Gpt),
    /// Encoder and decoder.
    T5(T5),
}

impl LanguageModel {
    /// Loads the checkpoint at `path`: a `.nemo` (or the folder one was unpacked to), or a Hugging Face folder.
    ///
    /// # Errors
    /// As [`Self::from_nemo`] and [`Self::from_hugging_face`].
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self> {
        if NemoFiles::is_nemo(path) {
            return Self::from_nemo(&NemoFiles::open(path)?, options);
        }
        Self::from_hugging_face(path, options)
    }

    /// Loads a Hugging Face checkpoint: `config.json` and `model.safetensors` (or its shards) in `folder`.
    ///
    /// # Errors
    /// A [`crate::diag::Diagnostic`] where configuration or weights are not of a model known here; errors that name
    /// the file where one cannot be read.
    pub fn from_hugging_face(folder: &Path, options: &LoadOptions) -> Result<Self> {
        Checkpoint::hugging_face(folder)?
            .model(options)
            .with_context(|| format!("loading the language model from {}", folder.display()))
    }

    /// Loads a base model of NeMo: `model_config.yaml` and `model_weights.ckpt`, of one rank or of many.
    ///
    /// # Errors
    /// As [`Self::from_hugging_face`].
    pub fn from_nemo(files: &NemoFiles, options: &LoadOptions) -> Result<Self> {
        Checkpoint::nemo(files)?
            .model(options)
            .with_context(|| format!("loading the language model from {}", files.path().display()))
    }

    /// Builds a model of `config` from a source whose tensors are named and laid out as `layout` says.
    ///
    /// # Errors
    /// As [`Self::from_hugging_face`].
    pub fn from_source(
        config: ModelConfig,
        layout: Layout,
        source: &dyn TensorSource,
        options: &LoadOptions,
    ) -> Result<Self> {
        let table = config.names(layout);
        let weights = Weights::bind(source, &table, options.dtype, &options.device)
            .map_err(|diagnostic| *diagnostic)?;
        Ok(match config {
            ModelConfig::Gpt(config) => Self::Gpt(Gpt::load(config, &weights)?),
            ModelConfig::T5(config) => Self::T5(T5::load(config, &weights)?),
        })
    }

    /// Embeddings of token ids: [N] -> [N, H], frozen, no gradient; in the type of [`Self::dtype`].
    ///
    /// # Errors
    /// Where an id is beyond the vocabulary.
    pub fn embed_tokens(&self, ids: &[u32]) -> Result<Tensor> {
        Ok(self.tokens().lookup(ids)?)
    }

    fn tokens(&self) -> &frozen::FrozenEmbedding {
        match self {
            Self::Gpt(gpt) => &gpt.tokens,
            Self::T5(t5) => &t5.tokens,
        }
    }

    /// `H`
    pub fn hidden_size(&self) -> usize {
        self.tokens().size()
    }

    /// Rows of the embedding table; ids below it are tokens.
    pub fn vocab_size(&self) -> usize {
        self.tokens().count()
    }

    /// Longest row (of the encoder for T5): the positions that were learned or, of a GPT, trained with.
    pub fn max_positions(&self) -> Option<usize> {
        match self {
            Self::Gpt(gpt) => Some(gpt.config.max_positions),
            Self::T5(t5) => t5.max_positions(),
        }
    }

    /// Device of the weights.
    pub fn device(&self) -> &Device {
        self.tokens().device()
    }

    /// Type of embeddings and hidden states: f32 on the CPU, the weights' own elsewhere.
    pub fn dtype(&self) -> DType {
        match self.device() {
            Device::Cpu => DType::F32,
            _ => self.tokens().table().dtype(),
        }
    }

    /// Numbers held; tied tables count once.
    pub fn parameter_count(&self) -> usize {
        match self {
            Self::Gpt(gpt) => gpt.parameter_count(),
            Self::T5(t5) => t5.parameter_count(),
        }
    }

    /// Chooses the layers, by number in their stack, that keep their input alone for the backward and compute the rest
    /// again: less memory for a third more time. On the CPU; scores of attention are never kept.
    pub fn recompute(&mut self, layers: impl Fn(usize) -> bool) {
        match self {
            Self::Gpt(gpt) => gpt.recompute(&layers),
            Self::T5(t5) => t5.recompute(&layers),
        }
    }

    /// The engine for the device at hand.
    pub fn engine(&self) -> Engine {
        match self.device() {
            Device::Cpu => Engine::Fused,
            _ => Engine::Reference,
        }
    }

    /// Sum over loss positions of weight × cross-entropy: a scalar in f32, differentiable in `embeddings` only.
    ///
    /// # Errors
    /// Where sizes do not fit, an id or label is beyond the vocabulary, or a row is too long.
    pub fn loss(&self, inputs: &LmInputs<'_>) -> Result<Tensor> {
        self.loss_with(inputs, self.engine())
    }

    /// [`Self::loss`] by a chosen engine; [`Engine::Fused`] is for the CPU.
    ///
    /// # Errors
    /// As [`Self::loss`].
    pub fn loss_with(&self, inputs: &LmInputs<'_>, engine: Engine) -> Result<Tensor> {
        let count = match self {
            Self::Gpt(_) => inputs.rows.total(),
            Self::T5(_) => inputs.decoder_rows.map_or(0, Rows::total),
        };
        ensure!(
            inputs
                .loss_positions
                .iter()
                .all(|&position| (position as usize) < count),
            "a loss position lies beyond the {count} positions of the batch"
        );
        let (hidden, norm, head) = match self {
            Self::Gpt(gpt) => {
                let rows = Arc::new(inputs.rows.clone());
                let chosen = inputs.loss_positions;
                let hidden = gpt.hidden_at(
                    inputs.embeddings,
                    &rows,
                    (chosen, inputs.trained_positions),
                    engine,
                )?; // [M, H]
                (hidden, &gpt.norm, &gpt.head)
            }
            Self::T5(_) => {
                let (hidden, norm, head) = self.hidden(inputs, engine)?; // [M, H]
                let chosen = Tensor::from_slice(
                    inputs.loss_positions,
                    inputs.loss_positions.len(),
                    hidden.device(),
                )?;
                (hidden.index_select(&chosen, 0)?, norm, head)
            }
        };
        let hidden = norm.apply(&hidden, engine)?; // [M, H]
        Ok(head.loss(&hidden, inputs.labels, inputs.weights, engine)?)
    }

    /// Logits of every position (of the decoder for T5): [N, vocabulary]. For tests and comparisons: training and
    /// generation never compute them all.
    ///
    /// # Errors
    /// As [`Self::loss`].
    pub fn logits(&self, inputs: &LmInputs<'_>, engine: Engine) -> Result<Tensor> {
        let (hidden, norm, head) = self.hidden(inputs, engine)?;
        Ok(head.logits(&norm.apply(&hidden, engine)?)?)
    }

    /// States before the final norm, that norm, and the head.
    fn hidden(
        &self,
        inputs: &LmInputs<'_>,
        engine: Engine,
    ) -> Result<(Tensor, &norm::Norm, &head::Head)> {
        let rows = Arc::new(inputs.rows.clone());
        match self {
            Self::Gpt(gpt) => Ok((
                gpt.hidden(inputs.embeddings, &rows, inputs.trained_positions, engine)?,
                &gpt.norm,
                &gpt.head,
            )),
            Self::T5(t5) => {
                let decoder_rows = inputs
                    .decoder_rows
                    .context("a T5 was given no decoder rows")?;
                let memory =
                    t5.encode(inputs.embeddings, &rows, inputs.trained_positions, engine)?; // [N, H]
                let hidden = t5.decode(
                    inputs.decoder_ids,
                    &Arc::new(decoder_rows.clone()),
                    &memory,
                    &rows,
                    engine,
                )?; // [M, H]
                Ok((hidden, &t5.decoder.norm, &t5.head))
            }
        }
    }
}

/// Gives memory kept for the next step back to the system, for example before a long evaluation.
pub fn release_buffers() {
    kernels::buffer::release_all();
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::sys::rng::SeededRng;

    fn configs() -> Vec<(&'static str, ModelConfig)> {
        let neox = config::GptConfig {
            parallel_residual: true,
            ..toy::llama_config()
        };
        // Heads so large that attention to few positions is cheaper without projecting what it looks at.
        let grouped = config::GptConfig {
            key_value_heads: 1,
            head_size: 64,
            ..toy::gpt_config()
        };
        let large = |mut config: config::T5Config| {
            for stack in [&mut config.encoder, &mut config.decoder] {
                stack.head_size = 64;
                stack.scale_scores = true;
            }
            ModelConfig::T5(config)
        };
        vec![
            ("gpt, large heads in groups", ModelConfig::Gpt(grouped)),
            ("t5, large heads", large(toy::t5_config())),
            ("nemo t5, large heads", large(toy::megatron_t5_config())),
            ("gpt", ModelConfig::Gpt(toy::gpt_config())),
            ("llama", ModelConfig::Gpt(toy::llama_config())),
            ("neox", ModelConfig::Gpt(neox)),
            ("t5", ModelConfig::T5(toy::t5_config())),
            ("nemo t5", ModelConfig::T5(toy::megatron_t5_config())),
        ]
    }

    /// Loss and its gradient by the embeddings. Rows of a GPT have their losses at the end, at the start, or nowhere.
    fn step(model: &LanguageModel, engine: Engine) -> (f32, Vec<f32>) {
        step_at(model, engine, None)
    }

    fn step_at(model: &LanguageModel, engine: Engine, trained: Option<&[u32]>) -> (f32, Vec<f32>) {
        let mut rng = SeededRng::new(5, 0);
        let rows = Rows::new([9, 1, 14, 6]);
        let count = rows.total() * model.hidden_size();
        let embeddings = Tensor::from_vec(
            rng.normals(count, 1.0),
            (rows.total(), model.hidden_size()),
            &Device::Cpu,
        )
        .unwrap();
        let embeddings = Var::from_tensor(&embeddings).unwrap();
        let is_t5 = matches!(model, LanguageModel::T5(_));
        let decoder_rows = Rows::new([2, 1, 3, 2]);
        let loss_positions: Vec<u32> = if is_t5 {
            (0..8).collect()
        } else {
            vec![6, 7, 10, 14, 18]
        };
        let mut ids = |count| -> Vec<u32> {
            (0..count)
                .map(|_| rng.below(model.vocab_size()) as u32)
                .collect()
        };
        let (decoder_ids, labels) = (ids(8), ids(loss_positions.len()));
        let loss = model
            .loss_with(
                &LmInputs {
                    embeddings: &embeddings,
                    trained_positions: trained,
                    rows: &rows,
                    decoder_ids: if is_t5 { &decoder_ids } else { &[] },
                    decoder_rows: is_t5.then_some(&decoder_rows),
                    loss_positions: &loss_positions,
                    labels: &labels,
                    weights: &vec![0.2; labels.len()],
                },
                engine,
            )
            .unwrap();
        let gradient = loss.backward().unwrap().get(&embeddings).unwrap().clone();
        (
            loss.to_scalar().unwrap(),
            gradient.flatten_all().unwrap().to_vec1().unwrap(),
        )
    }

    fn norm(numbers: impl Iterator<Item = f32>) -> f64 {
        numbers.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
    }

    /// Asserts that two steps differ by no more than `tolerance` of their size.
    fn assert_alike(
        name: &str,
        found: &(f32, Vec<f32>),
        expected: &(f32, Vec<f32>),
        tolerance: f64,
    ) {
        let loss = f64::from((found.0 - expected.0).abs() / expected.0);
        assert!(
            loss < tolerance,
            "{name}: loss {} and {}",
            found.0,
            expected.0
        );
        let difference = norm(found.1.iter().zip(&expected.1).map(|(a, b)| a - b));
        let size = norm(expected.1.iter().copied());
        assert!(
            difference < tolerance * size,
            "{name}: gradients differ by {difference} of {size}"
        );
    }

    #[test]
    fn the_fused_engine_gives_the_loss_and_gradient_of_plain_ops() {
        for (name, config) in configs() {
            let model = toy::random(config, 7).unwrap();
            let fused = step(&model, Engine::Fused);
            assert_alike(name, &fused, &step(&model, Engine::Reference), 2e-5);
        }
    }

    #[test]
    fn the_gradient_at_trained_positions_is_that_of_all_positions() {
        let trained = [0, 1, 9, 12, 13, 29];
        for (name, config) in configs() {
            for dtype in [DType::F32, DType::BF16] {
                let options = LoadOptions {
                    dtype: Some(dtype),
                    ..LoadOptions::default()
                };
                let model = toy::random_with(config.clone(), 7, &options).unwrap();
                let (loss, all) = step(&model, Engine::Fused);
                let (same, some) = step_at(&model, Engine::Fused, Some(&trained));
                assert!(loss.to_bits() == same.to_bits(), "{name}");
                let hidden = model.hidden_size();
                for position in trained {
                    let range = position as usize * hidden..(position as usize + 1) * hidden;
                    for (some, all) in some[range.clone()].iter().zip(&all[range]) {
                        assert!((some - all).abs() <= 1e-6 + 1e-4 * all.abs(), "{name}");
                    }
                }
            }
        }
    }

    #[test]
    fn few_queries_of_large_heads_look_at_a_memory_that_is_not_projected() {
        let (answers, questions) = (Rows::new([2, 1, 3, 2]), Rows::new([9, 1, 14, 6]));
        for (name, config) in configs() {
            let ModelConfig::T5(config) = config else {
                continue;
            };
            let LanguageModel::T5(t5) = toy::random(ModelConfig::T5(config), 7).unwrap() else {
                unreachable!()
            };
            for layer in &t5.decoder.layers {
                let absorbed = layer.cross_attention.is_absorbed_for(&answers, &questions);
                assert_eq!(absorbed, name.contains("large"), "{name}");
                let long = Rows::new([40; 4]);
                assert!(!layer.cross_attention.is_absorbed_for(&long, &questions));
            }
        }
    }

    #[test]
    fn a_layer_that_is_computed_again_gives_the_same_bits() {
        for (name, config) in configs() {
            let mut model = toy::random(config, 7).unwrap();
            let kept = step(&model, Engine::Fused);
            for chosen in [1, 2] {
                model.recompute(|layer| layer < chosen);
                assert!(
                    step(&model, Engine::Fused) == kept,
                    "{name}, {chosen} layers"
                );
            }
        }
    }

    #[test]
    fn weights_in_bf16_give_the_loss_and_gradient_of_f32_within_their_rounding() {
        for (name, config) in configs() {
            let wide = toy::random(config.clone(), 7).unwrap();
            let options = LoadOptions {
                dtype: Some(DType::BF16),
                ..LoadOptions::default()
            };
            let short = toy::random_with(config, 7, &options).unwrap();
            let found = step(&short, Engine::Fused);
            // Each product rounds by up to 2^-9 of a number, and toys of random weights pass on what they get.
            assert_alike(name, &found, &step(&wide, Engine::Fused), 0.08);
            // Both engines multiply by the same packed weights.
            assert_alike(name, &found, &step(&short, Engine::Reference), 0.05);
        }
    }
}
