//! A model of NeMo as a `config.json` of Hugging Face, where transformers has such a model.

use serde_json::{Map, Value, json};

use super::{GptConfig, Layout, ModelConfig, NormKind, StackPositions, T5Config};
use crate::diag::Diagnostic;
use crate::model::feed_forward::Activation;
use crate::model::position::RotaryScaling;

/// A model for transformers: what to write its weights as, and its `config.json`.
#[derive(Debug)]
pub struct HuggingFaceModel {
    /// Sizes; norms are whole.
    pub config: ModelConfig,
    /// Layout of the weights.
    pub layout: Layout,
    /// Keys of `config.json`.
    pub keys: Map<String, Value>,
}

impl ModelConfig {
    /// This model as transformers 4.57 has it: a GPT-2, Llama, Qwen2, GPT-NeoX or T5.
    ///
    /// # Errors
    /// A [`Diagnostic`] that lists everything that the nearest of them has not.
    pub fn to_hugging_face(&self) -> Result<HuggingFaceModel, Box<Diagnostic>> {
        let mut wanted = Wanted::default();
        let (config, layout, keys) = match self {
            Self::Gpt(config) => {
                let whole = GptConfig {
                    norm: match config.norm {
                        NormKind::LayerNorm1p => NormKind::LayerNorm,
                        other => other,
                    },
                    ..config.clone()
                };
                let (layout, keys) = if whole.rotary.is_none() {
                    (Layout::Gpt2, wanted.gpt2(&whole))
                } else if whole.norm == NormKind::RmsNorm {
                    (Layout::Llama, wanted.llama(&whole))
                } else {
                    (Layout::GptNeox, wanted.gpt_neox(&whole))
                };
                (Self::Gpt(whole), layout, keys)
            }
            Self::T5(config) => {
                let keys = wanted.t5(config);
                // transformers scales the decoder's output before a tied head, so the head is written as a tensor.
                let untied = T5Config {
                    tied_head: config.tied_head && config.scale_decoder_output,
                    ..config.clone()
                };
                (Self::T5(untied), Layout::T5, keys)
            }
        };
        if wanted.problems.is_empty() {
            return Ok(HuggingFaceModel {
                config,
                layout,
                keys,
            });
        }
        let mut diagnostic = Diagnostic::job("transformers has no such model");
        diagnostic.notes = wanted.problems;
        Err(Box::new(diagnostic))
    }
}

/// What the nearest model of transformers has not.
#[derive(Default)]
struct Wanted {
    problems: Vec<String>,
}

/// The name that transformers has for it.
fn activation(activation: Activation) -> &'static str {
    match activation {
        Activation::Relu => "relu",
        Activation::SquaredRelu => "relu2",
        Activation::GeluTanh => "gelu_new",
        Activation::GeluErf => "gelu",
        Activation::Silu => "silu",
    }
}

impl Wanted {
    fn unless(&mut self, holds: bool, problem: &str) {
        if !holds {
            self.problems.push(problem.to_owned());
        }
    }

    fn gpt2(&mut self, c: &GptConfig) -> Map<String, Value> {
        self.unless(
            c.norm == NormKind::LayerNorm,
            "RMSNorm with learned positions",
        );
        self.unless(
            !c.gated,
            "a gated feed-forward layer with learned positions",
        );
        self.unless(
            c.query_key_value_bias && c.output_bias && c.feed_forward_bias,
            "learned positions without biases",
        );
        self.unless(
            c.key_value_heads == c.heads && c.heads * c.head_size == c.hidden_size,
            "heads that do not make up the hidden size (`kv_channels`, `num_query_groups`)",
        );
        object(json!({
            "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": c.vocab_size,
            "n_positions": c.max_positions, "n_embd": c.hidden_size, "n_layer": c.layers, "n_head": c.heads,
            "n_inner": c.feed_forward_size, "activation_function": activation(c.activation),
            "layer_norm_epsilon": c.norm_epsilon, "tie_word_embeddings": c.tied_head,
            "scale_attn_weights": c.scale_scores, "scale_attn_by_inverse_layer_idx": c.scale_scores_by_layer,
        }))
    }

    fn llama(&mut self, c: &GptConfig) -> Map<String, Value> {
        self.unless(
            c.gated,
            "RMSNorm with a feed-forward layer that is not gated",
        );
        self.unless(c.scale_scores, "scores that are not scaled");
        let mut rope_scaling = Value::Null;
        if let Some(rotary) = &c.rotary {
            self.unless(
                rotary.channels == c.head_size,
                "RMSNorm with `rotary_percentage` below 1",
            );
            rope_scaling = scaling(rotary.scaling);
        }
        let theta = c.rotary.as_ref().map_or(10_000.0, |rotary| rotary.base);
        let qwen = c.query_key_value_bias && !c.output_bias && !c.feed_forward_bias;
        self.unless(
            qwen || c.query_key_value_bias == c.output_bias,
            "a bias of the attention's output alone",
        );
        self.unless(
            !qwen || c.heads * c.head_size == c.hidden_size,
            "biases of query, key and value alone with `kv_channels`",
        );
        let (class, kind) = if qwen {
            ("Qwen2ForCausalLM", "qwen2")
        } else {
            ("LlamaForCausalLM", "llama")
        };
        let mut keys = object(json!({
            "architectures": [class], "model_type": kind, "vocab_size": c.vocab_size,
            "hidden_size": c.hidden_size, "intermediate_size": c.feed_forward_size, "num_hidden_layers": c.layers,
            "num_attention_heads": c.heads, "num_key_value_heads": c.key_value_heads,
            "hidden_act": activation(c.activation), "max_position_embeddings": c.max_positions,
            "rms_norm_eps": c.norm_epsilon, "rope_theta": theta, "rope_scaling": rope_scaling,
            "tie_word_embeddings": c.tied_head,
        }));
        if !qwen {
            keys.extend(object(json!({
                "head_dim": c.head_size, "attention_bias": c.query_key_value_bias, "mlp_bias": c.feed_forward_bias,
            })));
        }
        keys
    }

    fn gpt_neox(&mut self, c: &GptConfig) -> Map<String, Value> {
        self.unless(
            !c.gated,
            "LayerNorm with rotary positions and a gated feed-forward layer",
        );
        self.unless(
            c.feed_forward_bias,
            "LayerNorm with rotary positions and no biases",
        );
        self.unless(
            c.query_key_value_bias == c.output_bias,
            "biases of query, key and value alone with LayerNorm",
        );
        self.unless(
            c.key_value_heads == c.heads && c.heads * c.head_size == c.hidden_size,
            "heads that do not make up the hidden size (`kv_channels`, `num_query_groups`) with LayerNorm",
        );
        self.unless(c.scale_scores, "scores that are not scaled");
        let Some(rotary) = &c.rotary else {
            return Map::new();
        };
        object(json!({
            "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "vocab_size": c.vocab_size,
            "hidden_size": c.hidden_size, "intermediate_size": c.feed_forward_size, "num_hidden_layers": c.layers,
            "num_attention_heads": c.heads, "hidden_act": activation(c.activation),
            "max_position_embeddings": c.max_positions, "layer_norm_eps": c.norm_epsilon,
            "rotary_pct": rotary.channels as f64 / c.head_size as f64, "rope_theta": rotary.base,
            "rotary_emb_base": rotary.base, "rope_scaling": scaling(rotary.scaling),
            "attention_bias": c.query_key_value_bias, "use_parallel_residual": c.parallel_residual,
            "tie_word_embeddings": c.tied_head,
        }))
    }

    fn t5(&mut self, c: &T5Config) -> Map<String, Value> {
        let (e, d) = (&c.encoder, &c.decoder);
        self.unless(
            (
                e.heads,
                e.head_size,
                e.feed_forward_size,
                e.positions,
                e.activation,
                e.gated,
            ) == (
                d.heads,
                d.head_size,
                d.feed_forward_size,
                d.positions,
                d.activation,
                d.gated,
            ),
            "an encoder and a decoder of different sizes",
        );
        for stack in [e, d] {
            self.unless(stack.norm == NormKind::RmsNorm, "a T5 with LayerNorm");
            self.unless(!stack.bias, "a T5 with biases in its linear layers");
            self.unless(!stack.scale_scores, "a T5 whose scores are scaled");
            self.unless(
                !stack.scale_bias_by_layer,
                "a T5 whose relative bias is multiplied by the layer's number",
            );
        }
        self.unless(c.shared_tokens, "a T5 with two embedding tables");
        self.unless(!c.head_bias, "a T5 with a bias in its head");
        self.problems.dedup();
        let StackPositions::Relative {
            buckets,
            max_distance,
        } = e.positions
        else {
            self.problems.push("a T5 with learned positions".to_owned());
            return Map::new();
        };
        let name = activation(e.activation);
        let projection = match (e.gated, e.activation) {
            (true, Activation::GeluTanh) => "gated-gelu".to_owned(),
            (true, Activation::GeluErf) => {
                // transformers reads `gated-gelu` as the tanh form.
                self.problems
                    .push("a T5 with the exact GELU as a gate".to_owned());
                String::new()
            }
            (true, _) => format!("gated-{name}"),
            (false, _) => name.to_owned(),
        };
        object(json!({
            "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "is_encoder_decoder": true,
            "vocab_size": c.vocab_size, "d_model": c.hidden_size, "d_kv": e.head_size, "d_ff": e.feed_forward_size,
            "num_layers": e.layers, "num_decoder_layers": d.layers, "num_heads": e.heads,
            "relative_attention_num_buckets": buckets, "relative_attention_max_distance": max_distance,
            "layer_norm_epsilon": e.norm_epsilon, "feed_forward_proj": projection,
            "tie_word_embeddings": c.tied_head && c.scale_decoder_output,
            "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
        }))
    }
}

fn scaling(scaling: RotaryScaling) -> Value {
    match scaling {
        RotaryScaling::None => Value::Null,
        RotaryScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RotaryScaling::Llama3 {
            factor,
            low_frequency,
            high_frequency,
            trained_positions,
        } => json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low_frequency,
            "high_freq_factor": high_frequency, "original_max_position_embeddings": trained_positions,
        }),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
