//! Models of any size with random weights, for tests and benches: right in every way but what they say.

use anyhow::Result;
use candle_core::{Device, Tensor};

use super::config::{GptConfig, T5Config};
use super::feed_forward::Activation;
use super::{LanguageModel, LoadOptions, ModelConfig, names};
use crate::sys::rng::SeededRng;
use crate::tensors::InMemory;

/// A GPT of 2 layers and 24 channels.
pub fn gpt_config() -> GptConfig {
    GptConfig {
        vocab_size: 96,
        hidden_size: 24,
        layers: 2,
        heads: 3,
        feed_forward_size: 40,
        max_positions: 64,
        activation: Activation::GeluTanh,
        norm_epsilon: 1e-5,
        tied_head: true,
        scale_scores: true,
        scale_scores_by_layer: false,
    }
}

/// A T5 1.1 of 2 layers and 24 channels, whose heads together are wider than its states.
pub fn t5_config() -> T5Config {
    T5Config {
        vocab_size: 96,
        hidden_size: 24,
        head_size: 10,
        heads: 3,
        feed_forward_size: 40,
        encoder_layers: 2,
        decoder_layers: 2,
        relative_buckets: 8,
        relative_max_distance: 16,
        activation: Activation::GeluTanh,
        gated: true,
        norm_epsilon: 1e-6,
        tied_head: false,
        scale_decoder_output: false,
    }
}

/// A model of `config` with weights drawn from `seed`.
///
/// # Errors
/// Where the sizes do not fit together.
pub fn random(config: ModelConfig, seed: u64) -> Result<LanguageModel> {
    let table = match &config {
        ModelConfig::Gpt(config) => names::hugging_face::gpt2(config),
        ModelConfig::T5(config) => names::hugging_face::t5(config),
    };
    let mut rng = SeededRng::new(seed, 0);
    let mut tensors = vec![];
    for slot in &table.slots {
        let count = slot.shape.iter().product();
        let is_norm_weight = slot.path.contains("norm") && !slot.path.ends_with("bias");
        // Large enough that attention and logits are far from uniform, small enough that activations stay bounded.
        let (mean, std) = match slot.shape.as_slice() {
            _ if is_norm_weight => (1.0, 0.1),
            [_] => (0.0, 0.1),
            _ if slot.path == "tokens" || slot.path.ends_with("relative_bias") => (0.0, 1.0),
            [rows, _] => (0.0, 1.0 / (*rows as f64).sqrt()),
            _ => (0.0, 0.1),
        };
        let numbers: Vec<f32> = rng
            .normals(count, std)
            .into_iter()
            .map(|number| number + mean)
            .collect();
        let tensor = Tensor::from_vec(numbers, slot.shape.as_slice(), &Device::Cpu)?;
        tensors.push((slot.keys[0].clone(), tensor));
    }
    LanguageModel::from_source(config, &InMemory::new(tensors), &LoadOptions::default())
}
