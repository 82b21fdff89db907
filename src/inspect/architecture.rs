//! A model's sizes and variants in words.

use serde_json::json;

use super::Facts;
use crate::model::config::{NormKind, StackConfig, StackPositions};
use crate::model::feed_forward::Activation;
use crate::model::{Layout, ModelConfig};

/// The facts of `config`, whose checkpoint follows `layout`.
pub(super) fn facts(config: &ModelConfig, layout: Layout) -> Facts {
    let mut facts = Facts::new();
    facts.insert("layout", json!(layout_name(layout)));
    match config {
        ModelConfig::Gpt(gpt) => {
            facts.insert("model", json!("GPT"));
            facts.insert("layers", json!(gpt.layers));
            facts.insert("hidden_size", json!(gpt.hidden_size));
            facts.insert("heads", json!(gpt.heads));
            if gpt.key_value_heads != gpt.heads {
                facts.insert("key_value_heads", json!(gpt.key_value_heads));
            }
            facts.insert("head_size", json!(gpt.head_size));
            facts.insert("feed_forward_size", json!(gpt.feed_forward_size));
            facts.insert("vocabulary", json!(gpt.vocab_size));
            facts.insert(
                "positions",
                json!(match &gpt.rotary {
                    Some(rotary) => format!(
                        "rotary, {} of {} channels, base {}, trained to {}",
                        rotary.channels, gpt.head_size, rotary.base, gpt.max_positions
                    ),
                    None => format!("{} learned", gpt.max_positions),
                }),
            );
            facts.insert("norm", json!(norm(gpt.norm, gpt.norm_epsilon)));
            facts.insert("activation", json!(activation(gpt.activation, gpt.gated)));
            let biases = [
                (gpt.query_key_value_bias, "query, key and value"),
                (gpt.output_bias, "attention output"),
                (gpt.feed_forward_bias, "feed-forward"),
            ];
            let biases: Vec<&str> = biases
                .into_iter()
                .filter_map(|(has, name)| has.then_some(name))
                .collect();
            facts.insert(
                "biases",
                json!(match biases.len() {
                    0 => "none".to_owned(),
                    3 => "all".to_owned(),
                    _ => biases.join(", "),
                }),
            );
            facts.insert(
                "head",
                json!(if gpt.tied_head { "tied" } else { "its own" }),
            );
        }
        ModelConfig::T5(t5) => {
            facts.insert("model", json!("T5"));
            facts.insert("hidden_size", json!(t5.hidden_size));
            facts.insert("vocabulary", json!(t5.vocab_size));
            if t5.encoder == t5.decoder {
                facts.insert("encoder and decoder", json!(stack(&t5.encoder)));
            } else {
                facts.insert("encoder", json!(stack(&t5.encoder)));
                facts.insert("decoder", json!(stack(&t5.decoder)));
            }
            let bias = if t5.head_bias { " with a bias" } else { "" };
            let head = if t5.tied_head { "tied" } else { "its own" };
            facts.insert("head", json!(format!("{head}{bias}")));
        }
    }
    facts
}

fn stack(stack: &StackConfig) -> String {
    let positions = match stack.positions {
        StackPositions::Learned { count } => format!("{count} learned positions"),
        StackPositions::Relative {
            buckets,
            max_distance,
        } => format!("relative positions ({buckets} buckets to {max_distance})"),
    };
    format!(
        "{} layers, {} heads of {}, feed-forward {} {}, {positions}, {}, {}",
        stack.layers,
        stack.heads,
        stack.head_size,
        stack.feed_forward_size,
        activation(stack.activation, stack.gated),
        norm(stack.norm, stack.norm_epsilon),
        if stack.bias { "biases" } else { "no biases" }
    )
}

fn norm(kind: NormKind, epsilon: f64) -> String {
    let name = match kind {
        NormKind::LayerNorm => "layernorm",
        NormKind::LayerNorm1p => "layernorm1p",
        NormKind::RmsNorm => "rmsnorm",
    };
    format!("{name} (epsilon {epsilon:e})")
}

fn activation(kind: Activation, gated: bool) -> &'static str {
    match (kind, gated) {
        (Activation::Relu, false) => "relu",
        (Activation::Relu, true) => "reglu",
        (Activation::SquaredRelu, false) => "squared relu",
        (Activation::SquaredRelu, true) => "gated squared relu",
        (Activation::GeluTanh, false) => "gelu (tanh)",
        (Activation::GeluTanh, true) => "geglu (tanh)",
        (Activation::GeluErf, false) => "gelu",
        (Activation::GeluErf, true) => "geglu",
        (Activation::Silu, false) => "silu",
        (Activation::Silu, true) => "swiglu",
    }
}

fn layout_name(layout: Layout) -> &'static str {
    match layout {
        Layout::Plain => "ptune",
        Layout::Gpt2 => "Hugging Face GPT-2",
        Layout::Llama => "Hugging Face Llama",
        Layout::GptNeox => "Hugging Face GPT-NeoX",
        Layout::T5 => "Hugging Face T5",
        Layout::MegatronGpt(variant) if variant.legacy_heads => "NeMo GPT, megatron_legacy",
        Layout::MegatronGpt(_) => "NeMo GPT",
        Layout::TransformerEngine => "NeMo GPT with Transformer Engine",
        Layout::MegatronCore => "NeMo GPT on megatron-core",
        Layout::MegatronT5 { encoder, .. } if encoder.legacy_heads => "NeMo T5, megatron_legacy",
        Layout::MegatronT5 { .. } => "NeMo T5",
    }
}
