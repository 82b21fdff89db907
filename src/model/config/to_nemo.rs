//! A Hugging Face model as NeMo 1.x describes it, where NeMo has such a model.
//!
//! T5 1.1, mT5 and flan-T5 follow NeMo's own `hf_t5-v1_1_to_nemo.py`; Llama and Qwen2 its converters to megatron-core;
//! GPT-2, which NeMo has no converter for, becomes a GPT before megatron-core.

use serde_json::{Map, Value, json};

use super::vocabulary::padded;
use super::{
    GptConfig, Layout, MegatronVariant, ModelConfig, NormKind, StackConfig, StackPositions,
    T5Config,
};
use crate::diag::Diagnostic;
use crate::model::feed_forward::Activation;
use crate::model::position::RotaryScaling;
use crate::yaml::{Integer, Key, Node, Value as Yaml, to_yaml};

/// A model for NeMo: what to write its weights as, and what its `model_config.yaml` says.
#[derive(Debug)]
pub struct NemoModel {
    /// Sizes, with the vocabulary padded as NeMo pads it.
    pub config: ModelConfig,
    /// Layout of the weights.
    pub layout: Layout,
    /// Keys of `model_config.yaml`, without the tokenizer's.
    pub keys: Map<String, Value>,
}

impl ModelConfig {
    /// This model in NeMo's terms, for so many tensor-parallel ranks and a tokenizer of `tokens`, where its size is
    /// known.
    ///
    /// # Errors
    /// A [`Diagnostic`] that lists everything that NeMo has no words for.
    pub fn to_nemo(
        &self,
        ranks: usize,
        tokens: Option<usize>,
    ) -> Result<NemoModel, Box<Diagnostic>> {
        let mut problems = vec![];
        let (layout, mut keys, as_usual) = match self {
            Self::Gpt(config) if config.rotary.is_some() => {
                let keys = llama(config, &mut problems);
                (Layout::MegatronCore, keys, false)
            }
            Self::Gpt(config) => {
                let layout = Layout::MegatronGpt(MegatronVariant {
                    legacy_heads: false,
                    joined_gate: true,
                });
                (layout, gpt2(config, &mut problems), true)
            }
            Self::T5(config) => {
                let legacy = MegatronVariant {
                    legacy_heads: true,
                    joined_gate: false,
                };
                let layout = Layout::MegatronT5 {
                    encoder: legacy,
                    decoder: legacy,
                };
                (layout, t5(config, &mut problems), false)
            }
        };
        if problems.is_empty() {
            let (rows, divisor) = padded(self.vocab_size(), tokens, ranks, as_usual);
            keys.insert("make_vocab_size_divisible_by".to_owned(), json!(divisor));
            keys.extend(surroundings());
            return Ok(NemoModel {
                config: self.with_vocab_size(rows),
                layout,
                keys,
            });
        }
        problems.dedup();
        let mut diagnostic = Diagnostic::job("NeMo has no such model");
        diagnostic.notes = problems;
        Err(Box::new(diagnostic.hint(
            "`language_model_path` takes the Hugging Face folder as it is",
        )))
    }
}

impl NemoModel {
    /// The text of `model_config.yaml`.
    pub fn yaml(&self) -> String {
        to_yaml(&node_of(&Value::Object(self.keys.clone())))
    }
}

/// Numbers and text as the emitter of OmegaConf's YAML wants them.
fn node_of(value: &Value) -> Node {
    Node::computed(match value {
        Value::Null => Yaml::Null,
        Value::Bool(value) => Yaml::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Yaml::Int(Integer::Small(i128::from(integer))),
            None => Yaml::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Yaml::Str(text.clone()),
        Value::Array(items) => Yaml::List(items.iter().map(node_of).collect()),
        Value::Object(entries) => Yaml::Map(
            entries
                .iter()
                .map(|(key, value)| (Key::Str(key.clone()), node_of(value)))
                .collect(),
        ),
    })
}

/// What the sections of every kind of layer have.
fn block(norm: NormKind, epsilon: f64, bias: bool, scale_scores: bool) -> Map<String, Value> {
    let norm = match norm {
        NormKind::LayerNorm => "layernorm",
        NormKind::LayerNorm1p => "layernorm1p",
        NormKind::RmsNorm => "rmsnorm",
    };
    object(json!({
        "init_method_std": 0.02, "use_scaled_init_method": true,
        "hidden_dropout": 0.0, "attention_dropout": 0.0, "ffn_dropout": 0.0,
        "apply_query_key_layer_scaling": false, "normalization": norm, "layernorm_epsilon": epsilon,
        "persist_layer_norm": true, "bias": bias, "normalize_attention_scores": scale_scores,
        "transformer_block_type": "pre_ln", "headscale": false, "onnx_safe": false,
        "bias_dropout_add_fusion": bias, "masked_softmax_fusion": true, "fp32_residual_connection": false,
        "activations_checkpoint_granularity": null, "activations_checkpoint_method": null,
        "activations_checkpoint_num_layers": null, "sequence_parallel": false,
    }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// `activation`, and what makes NeMo compute it so.
fn activation(
    activation: Activation,
    gated: bool,
    joined: bool,
    problems: &mut Vec<String>,
) -> Map<String, Value> {
    let prefix = if joined { "fast-" } else { "" };
    let (name, openai) = match (activation, gated) {
        (Activation::GeluTanh, false) => ("gelu".to_owned(), true),
        (Activation::GeluErf, false) => ("gelu".to_owned(), false),
        (Activation::SquaredRelu, false) => ("squared-relu".to_owned(), false),
        (Activation::GeluTanh, true) => (format!("{prefix}geglu"), true),
        (Activation::GeluErf, true) => (format!("{prefix}geglu"), false),
        (Activation::Silu, true) => (format!("{prefix}swiglu"), false),
        (Activation::Relu, true) => (format!("{prefix}reglu"), false),
        (other, _) => {
            let gate = if gated { " as a gate" } else { "" };
            problems.push(format!("activation {other:?}{gate}"));
            ("gelu".to_owned(), false)
        }
    };
    object(json!({"activation": name, "openai_gelu": openai, "bias_activation_fusion": false}))
}

/// What says nothing about the model, and NeMo's classes look up all the same when they restore it.
fn surroundings() -> Map<String, Value> {
    object(json!({
        "micro_batch_size": 4, "global_batch_size": 8, "seed": 1234, "resume_from_checkpoint": null,
        "native_amp_init_scale": 4_294_967_296_u64, "native_amp_growth_interval": 1000, "hysteresis": 2,
        "megatron_amp_O2": false, "grad_allreduce_chunk_size_mb": 125, "grad_div_ar_fusion": true,
        "gradient_accumulation_fusion": false, "gradient_as_bucket_view": true, "use_cpu_initialization": false,
        "apex_transformer_log_level": 30, "fp16_lm_cross_entropy": false, "pre_process": true, "post_process": true,
        "optim": {"name": "fused_adam", "lr": 1e-4, "betas": [0.9, 0.999], "weight_decay": 0.01},
    }))
}

fn gpt_keys(config: &GptConfig) -> Map<String, Value> {
    object(json!({
        "target": "nemo.collections.nlp.models.language_modeling.megatron_gpt_model.MegatronGPTModel",
        "encoder_seq_length": config.max_positions, "max_position_embeddings": config.max_positions,
        "num_layers": config.layers, "hidden_size": config.hidden_size,
        "ffn_hidden_size": config.feed_forward_size, "num_attention_heads": config.heads,
        "kv_channels": config.head_size,
        "share_embeddings_and_output_weights": config.tied_head,
        "data": {
            "data_prefix": [], "index_mapping_dir": null, "data_impl": "mmap", "splits_string": "900,50,50",
            "seq_length": config.max_positions, "skip_warmup": true, "num_workers": 0, "dataloader_type": "single",
            "reset_position_ids": false, "reset_attention_mask": false, "eod_mask_loss": false,
        },
    }))
}

fn gpt2(config: &GptConfig, problems: &mut Vec<String>) -> Map<String, Value> {
    if config.scale_scores_by_layer {
        problems.push("scores divided by the layer's number".to_owned());
    }
    let mut keys = gpt_keys(config);
    keys.extend(block(
        config.norm,
        config.norm_epsilon,
        true,
        config.scale_scores,
    ));
    keys.extend(activation(config.activation, config.gated, true, problems));
    keys.extend(object(json!({
        "position_embedding_type": "learned_absolute", "mcore_gpt": false, "transformer_engine": false,
    })));
    keys
}

fn llama(config: &GptConfig, problems: &mut Vec<String>) -> Map<String, Value> {
    if config.parallel_residual {
        problems.push("attention and feed-forward layers beside each other (GPT-NeoX)".to_owned());
    }
    if config.output_bias != config.feed_forward_bias
        || (config.output_bias && !config.query_key_value_bias)
    {
        problems.push("biases in some linear layers and not in others".to_owned());
    }
    let mut keys = gpt_keys(config);
    keys.extend(block(
        config.norm,
        config.norm_epsilon,
        config.output_bias,
        config.scale_scores,
    ));
    keys.extend(activation(config.activation, config.gated, true, problems));
    keys.extend(object(json!({
        "num_query_groups": config.key_value_heads, "qkv_bias": config.query_key_value_bias,
        "position_embedding_type": "rope", "mcore_gpt": true, "transformer_engine": true,
    })));
    if let Some(rotary) = &config.rotary {
        keys.insert(
            "rotary_percentage".to_owned(),
            json!(rotary.channels as f64 / config.head_size as f64),
        );
        keys.insert("rotary_base".to_owned(), json!(rotary.base));
        match rotary.scaling {
            RotaryScaling::None => {}
            RotaryScaling::Linear { factor } => {
                keys.insert("seq_len_interpolation_factor".to_owned(), json!(factor));
            }
            RotaryScaling::Llama3 {
                factor,
                low_frequency,
                high_frequency,
                trained_positions,
            } => keys.extend(object(json!({
                "scale_positional_embedding": true, "scale_factor": factor, "low_freq_factor": low_frequency,
                "high_freq_factor": high_frequency, "old_context_len": trained_positions,
            }))),
        }
    }
    keys
}

fn t5(config: &T5Config, problems: &mut Vec<String>) -> Map<String, Value> {
    if config.tied_head || config.scale_decoder_output {
        problems.push("a head that is the scaled embedding table (T5 1.0)".to_owned());
    }
    let mut stack = |sizes: &StackConfig| -> Value {
        let mut keys = block(
            sizes.norm,
            sizes.norm_epsilon,
            sizes.bias,
            sizes.scale_scores,
        );
        keys.extend(activation(sizes.activation, sizes.gated, false, problems));
        keys.extend(object(json!({
            "arch": "transformer", "num_layers": sizes.layers, "hidden_size": config.hidden_size,
            "ffn_hidden_size": sizes.feed_forward_size, "num_attention_heads": sizes.heads,
            "kv_channels": sizes.head_size, "megatron_legacy": true, "hidden_steps": 32,
            "num_self_attention_per_cross_attention": 1, "grad_div_ar_fusion": true,
        })));
        match sizes.positions {
            StackPositions::Relative {
                buckets,
                max_distance,
            } => keys.extend(object(json!({
                "position_embedding_type": "relative", "relative_attention_num_buckets": buckets,
                "relative_attention_max_distance": max_distance, "relative_position_bias_self_attention_only": true,
            }))),
            StackPositions::Learned { .. } => {
                keys.insert(
                    "position_embedding_type".to_owned(),
                    json!("learned_absolute"),
                );
            }
        }
        Value::Object(keys)
    };
    let (encoder, decoder) = (stack(&config.encoder), stack(&config.decoder));
    object(json!({
        "target": "nemo.collections.nlp.models.language_modeling.megatron_t5_model.MegatronT5Model",
        "seq_length": 512, "max_position_embeddings": 512,
        "share_token_embeddings": config.shared_tokens,
        "share_decoder_tokens_head_embeddings": config.tied_head, "tokens_head_bias": config.head_bias,
        "embedding_init_method_std": 0.02, "embedding_dropout": 0.0, "encoder": encoder, "decoder": decoder,
        "data": {
            "data_prefix": [], "index_mapping_dir": null, "data_impl": "mmap", "splits_string": "949,45,5",
            "seq_length": 512, "seq_length_dec": 128, "skip_warmup": true, "num_workers": 0, "dataloader_type": "single",
            "dataset_type": "t5", "masked_lm_prob": 0.15, "short_seq_prob": 0.0, "max_ngram_size": 10,
            "mean_ngram_size": null, "geometric_dist": true, "permutation": false, "whole_word_masking": false,
            "favor_longer_ngrams": false,
        },
    }))
}
