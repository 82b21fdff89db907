//! Models of any size with random weights, for tests and benches: right in every way but what they say.

use anyhow::Result;
use candle_core::{Device, Tensor};

use super::config::{GptConfig, Layout, NormKind, StackConfig, StackPositions, T5Config};
use super::feed_forward::Activation;
use super::position::{Rotary, RotaryScaling};
use super::{LanguageModel, LoadOptions, ModelConfig};
use crate::sys::rng::SeededRng;
use crate::tensors::InMemory;

/// A GPT of 2 layers and 24 channels.
pub fn gpt_config() -> GptConfig {
    GptConfig {
        vocab_size: 96,
        hidden_size: 24,
        layers: 2,
        heads: 3,
        key_value_heads: 3,
        head_size: 8,
        feed_forward_size: 40,
        max_positions: 64,
        rotary: None,
        norm: NormKind::LayerNorm,
        norm_epsilon: 1e-5,
        activation: Activation::GeluTanh,
        gated: false,
        query_key_value_bias: true,
        output_bias: true,
        feed_forward_bias: true,
        parallel_residual: false,
        tied_head: true,
        scale_scores: true,
        scale_scores_by_layer: false,
    }
}

/// A Llama of 2 layers and 24 channels: rotary positions, queries in groups, a gate, no biases.
pub fn llama_config() -> GptConfig {
    GptConfig {
        heads: 4,
        key_value_heads: 2,
        head_size: 6,
        rotary: Some(Rotary {
            channels: 6,
            base: 10_000.0,
            scaling: RotaryScaling::None,
        }),
        norm: NormKind::RmsNorm,
        activation: Activation::Silu,
        gated: true,
        query_key_value_bias: false,
        output_bias: false,
        feed_forward_bias: false,
        tied_head: false,
        ..gpt_config()
    }
}

/// A T5 1.1 of 2 layers and 24 channels, whose heads together are wider than its states.
pub fn t5_config() -> T5Config {
    let stack = StackConfig {
        layers: 2,
        heads: 3,
        head_size: 10,
        feed_forward_size: 40,
        positions: StackPositions::Relative {
            buckets: 8,
            max_distance: 16,
        },
        norm: NormKind::RmsNorm,
        norm_epsilon: 1e-6,
        activation: Activation::GeluTanh,
        gated: true,
        bias: false,
        scale_scores: false,
        scale_bias_by_layer: false,
    };
    T5Config {
        vocab_size: 96,
        hidden_size: 24,
        encoder: stack.clone(),
        decoder: stack,
        shared_tokens: true,
        tied_head: false,
        head_bias: false,
        scale_decoder_output: false,
    }
}

/// A T5 as NeMo trains it: learned positions, LayerNorm and biases everywhere, stacks of different sizes.
pub fn megatron_t5_config() -> T5Config {
    let mut config = t5_config();
    for stack in [&mut config.encoder, &mut config.decoder] {
        stack.positions = StackPositions::Learned { count: 64 };
        stack.norm = NormKind::LayerNorm;
        stack.bias = true;
        stack.scale_scores = true;
    }
    config.decoder.layers = 1;
    config.decoder.heads = 2;
    config.decoder.feed_forward_size = 28;
    T5Config {
        tied_head: true,
        head_bias: true,
        ..config
    }
}

/// A model of `config` with weights drawn from `seed`.
///
/// # Errors
/// Where the sizes do not fit together.
pub fn random(config: ModelConfig, seed: u64) -> Result<LanguageModel> {
    random_with(config, seed, &LoadOptions::default())
}

/// [`random`], held as `options` say: the same numbers before they are rounded.
///
/// # Errors
/// As [`random`].
pub fn random_with(config: ModelConfig, seed: u64, options: &LoadOptions) -> Result<LanguageModel> {
    let table = config.names(Layout::Plain);
    let mut rng = SeededRng::new(seed, 0);
    let mut tensors = vec![];
    for slot in &table.slots {
        let part = &slot.parts[0];
        let count = part.shape.iter().product();
        let is_norm_weight = slot.path.contains("norm") && !slot.path.ends_with("bias");
        // Large enough that attention and logits are far from uniform, small enough that activations stay bounded.
        let (mean, std) = match part.shape.as_slice() {
            _ if is_norm_weight => (1.0, 0.1),
            [_] => (0.0, 0.1),
            _ if slot.path.ends_with("tokens") || slot.path.ends_with("relative_bias") => {
                (0.0, 1.0)
            }
            [_, inputs] => (0.0, 1.0 / (*inputs as f64).sqrt()),
            _ => (0.0, 0.1),
        };
        let numbers: Vec<f32> = rng
            .normals(count, std)
            .into_iter()
            .map(|number| number + mean)
            .collect();
        let tensor = Tensor::from_vec(numbers, part.shape.as_slice(), &Device::Cpu)?;
        tensors.push((part.keys[0].clone(), tensor));
    }
    let source = InMemory::new(tensors);
    LanguageModel::from_source(config, Layout::Plain, &source, options)
}
