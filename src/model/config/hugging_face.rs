//! `config.json` of a Hugging Face checkpoint, as transformers 4.57 understands it.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::keys::{Keys, activation_named};
use super::{GptConfig, Layout, ModelConfig, NormKind, StackConfig, StackPositions, T5Config};
use crate::diag::suggest::did_you_mean;
use crate::diag::{Diagnostic, Location};
use crate::model::feed_forward::Activation;
use crate::model::position::{Rotary, RotaryScaling};

/// `model_type`s that can be loaded.
const KNOWN: [&str; 7] = ["gpt2", "gpt_neox", "llama", "mistral", "mt5", "qwen2", "t5"];

impl ModelConfig {
    /// Reads `config.json`: the model's sizes and how the checkpoint beside it is laid out.
    ///
    /// # Errors
    /// A [`Diagnostic`] of the job where the file is not JSON, names a model that is not known here, or lacks a size.
    pub fn from_hugging_face(path: &Path) -> Result<(Self, Layout)> {
        let text = fs_err::read_to_string(path)?;
        let value: Value = serde_json::from_str(&text).map_err(|error| {
            Diagnostic::job(format!("not JSON: {error}")).at(Location::column(
                path.display(),
                error.line(),
                error.column(),
            ))
        })?;
        let mut keys = Keys::new(path, value.as_object().cloned().unwrap_or_default());
        let model_type = keys
            .value("model_type")
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned();
        let this = match model_type.as_str() {
            "gpt2" => (Self::Gpt(gpt2(&mut keys)), Layout::Gpt2),
            "llama" | "mistral" | "qwen2" => {
                (Self::Gpt(llama(&mut keys, &model_type)), Layout::Llama)
            }
            "gpt_neox" => (Self::Gpt(gpt_neox(&mut keys)), Layout::GptNeox),
            "t5" | "mt5" => (Self::T5(t5(&mut keys, &model_type)), Layout::T5),
            _ => {
                let mut diagnostic =
                    Diagnostic::job(format!("unknown `model_type`: `{model_type}`"))
                        .at(Location::file(path.display()))
                        .note(format!("expected one of: {}", KNOWN.join(", ")));
                if let Some(near) = did_you_mean(&model_type, KNOWN) {
                    diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
                }
                return Err(diagnostic.into());
            }
        };
        keys.finish()?;
        Ok(this)
    }
}

fn gpt2(keys: &mut Keys<'_>) -> GptConfig {
    let hidden_size = keys.size("n_embd", None);
    let heads = keys.size("n_head", None);
    GptConfig {
        vocab_size: keys.size("vocab_size", None),
        hidden_size,
        layers: keys.layers("n_layer", None),
        heads,
        key_value_heads: heads,
        head_size: keys.divided(("n_embd", hidden_size), ("n_head", heads)),
        feed_forward_size: keys.size("n_inner", Some(4 * hidden_size)),
        max_positions: keys.size("n_positions", Some(1024)),
        rotary: None,
        norm: NormKind::LayerNorm,
        norm_epsilon: keys.number("layer_norm_epsilon", 1e-5),
        activation: keys.activation("activation_function", "gelu_new"),
        gated: false,
        query_key_value_bias: true,
        output_bias: true,
        feed_forward_bias: true,
        parallel_residual: false,
        tied_head: keys.flag("tie_word_embeddings", true),
        scale_scores: keys.flag("scale_attn_weights", true),
        scale_scores_by_layer: keys.flag("scale_attn_by_inverse_layer_idx", false),
    }
}

/// Llama, and what shares its layers: Mistral without its window, Qwen2 with biases of query, key and value.
fn llama(keys: &mut Keys<'_>, model_type: &str) -> GptConfig {
    let hidden_size = keys.size("hidden_size", None);
    let heads = keys.size("num_attention_heads", None);
    let key_value_heads = keys.size("num_key_value_heads", Some(heads));
    keys.divided(
        ("num_attention_heads", heads),
        ("num_key_value_heads", key_value_heads),
    );
    let head_size = match keys.optional_size("head_dim") {
        Some(size) => size,
        None => keys.divided(("hidden_size", hidden_size), ("num_attention_heads", heads)),
    };
    let max_positions = keys.size("max_position_embeddings", Some(2048));
    let mut attention_bias = keys.flag("attention_bias", false);
    let mut output_bias = attention_bias;
    match model_type {
        "qwen2" => {
            (attention_bias, output_bias) = (true, false);
            if keys.flag("use_sliding_window", false) {
                keys.problem(
                    "`use_sliding_window` is true: attention in windows is not computed here",
                );
            }
        }
        "mistral" => {
            // A window at least as wide as the rows can be is none.
            let window = keys.optional_size("sliding_window");
            if window.is_some_and(|window| window < max_positions) {
                keys.problem("`sliding_window` is set: attention in windows is not computed here");
            }
        }
        _ => {}
    }
    GptConfig {
        vocab_size: keys.size("vocab_size", None),
        hidden_size,
        layers: keys.layers("num_hidden_layers", None),
        heads,
        key_value_heads,
        head_size,
        feed_forward_size: keys.size("intermediate_size", None),
        max_positions,
        rotary: Some(rotary(keys, head_size, "rope_theta", max_positions)),
        norm: NormKind::RmsNorm,
        norm_epsilon: keys.number("rms_norm_eps", 1e-6),
        activation: keys.activation("hidden_act", "silu"),
        gated: true,
        query_key_value_bias: attention_bias,
        output_bias,
        feed_forward_bias: keys.flag("mlp_bias", false),
        parallel_residual: false,
        tied_head: keys.flag("tie_word_embeddings", false),
        scale_scores: true,
        scale_scores_by_layer: false,
    }
}

fn gpt_neox(keys: &mut Keys<'_>) -> GptConfig {
    let hidden_size = keys.size("hidden_size", None);
    let heads = keys.size("num_attention_heads", None);
    let head_size = keys.divided(("hidden_size", hidden_size), ("num_attention_heads", heads));
    let max_positions = keys.size("max_position_embeddings", Some(2048));
    let share = keys.number("rotary_pct", 0.25);
    let bias = keys.flag("attention_bias", true);
    let base = match keys.value("rope_theta") {
        Some(_) => "rope_theta",
        None => "rotary_emb_base",
    };
    let mut rotary = rotary(keys, head_size, base, max_positions);
    rotary.channels = (head_size as f64 * share) as usize;
    keys.check_channels(rotary.channels, head_size);
    GptConfig {
        vocab_size: keys.size("vocab_size", None),
        hidden_size,
        layers: keys.layers("num_hidden_layers", None),
        heads,
        key_value_heads: heads,
        head_size,
        feed_forward_size: keys.size("intermediate_size", None),
        max_positions,
        rotary: Some(rotary),
        norm: NormKind::LayerNorm,
        norm_epsilon: keys.number("layer_norm_eps", 1e-5),
        activation: keys.activation("hidden_act", "gelu"),
        gated: false,
        query_key_value_bias: bias,
        output_bias: bias,
        feed_forward_bias: true,
        parallel_residual: keys.flag("use_parallel_residual", true),
        tied_head: keys.flag("tie_word_embeddings", false),
        scale_scores: true,
        scale_scores_by_layer: false,
    }
}

/// `rope_theta` and `rope_scaling`, which transformers 5 writes together as `rope_parameters`.
fn rotary(keys: &mut Keys<'_>, head_size: usize, base: &str, max_positions: usize) -> Rotary {
    let section = if keys.has_section("rope_parameters") {
        "rope_parameters"
    } else {
        "rope_scaling"
    };
    let outside = keys.number(base, 10_000.0);
    let base = keys.section(section, |keys| keys.number("rope_theta", outside));
    keys.check_channels(head_size, head_size);
    let kind = keys.value(section).map(|scaling| {
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
        kind.and_then(Value::as_str).unwrap_or("default").to_owned()
    });
    let scaling = keys.section(section, |keys| match kind.as_deref() {
        None | Some("default") => RotaryScaling::None,
        Some("linear") => RotaryScaling::Linear {
            factor: keys.number("factor", 1.0),
        },
        Some("llama3") => RotaryScaling::Llama3 {
            factor: keys.number("factor", 8.0),
            low_frequency: keys.number("low_freq_factor", 1.0),
            high_frequency: keys.number("high_freq_factor", 4.0),
            trained_positions: keys.size("original_max_position_embeddings", Some(max_positions)),
        },
        Some(kind) => {
            keys.problem(format!(
                "`rope_type` is `{kind}`, which is not computed here (known: default, linear, llama3)"
            ));
            RotaryScaling::None
        }
    });
    Rotary {
        channels: head_size,
        base,
        scaling,
    }
}

fn t5(keys: &mut Keys<'_>, model_type: &str) -> T5Config {
    let projection = keys.text(
        "feed_forward_proj",
        if model_type == "mt5" {
            "gated-gelu"
        } else {
            "relu"
        },
    );
    let (gated, name) = match projection.strip_prefix("gated-") {
        Some(name) => (true, name.to_owned()),
        None => (false, projection.clone()),
    };
    // transformers: "gated-gelu" has always meant the tanh form.
    let activation = if projection == "gated-gelu" {
        Some(Activation::GeluTanh)
    } else {
        activation_named(&name)
    };
    if activation.is_none() {
        keys.problem(format!(
            "`feed_forward_proj` is `{projection}`, which is not known here"
        ));
    }
    let tied_head = keys.flag("tie_word_embeddings", model_type == "t5");
    let layers = keys.layers("num_layers", None);
    let encoder = StackConfig {
        layers,
        heads: keys.size("num_heads", None),
        head_size: keys.size("d_kv", None),
        feed_forward_size: keys.size("d_ff", None),
        positions: StackPositions::Relative {
            buckets: keys.size("relative_attention_num_buckets", Some(32)),
            max_distance: keys.size("relative_attention_max_distance", Some(128)),
        },
        norm: NormKind::RmsNorm,
        norm_epsilon: keys.number("layer_norm_epsilon", 1e-6),
        activation: activation.unwrap_or(Activation::Relu),
        gated,
        bias: false,
        // T5 does not scale its scores: the initialisation of its weights does.
        scale_scores: false,
        scale_bias_by_layer: false,
    };
    keys.refuse_unless(
        "is_encoder_decoder",
        &[json!(true)],
        "an encoder alone cannot answer",
    );
    T5Config {
        vocab_size: keys.size("vocab_size", None),
        hidden_size: keys.size("d_model", None),
        decoder: StackConfig {
            layers: keys.layers("num_decoder_layers", Some(layers)),
            ..encoder.clone()
        },
        encoder,
        shared_tokens: true,
        tied_head,
        head_bias: false,
        scale_decoder_output: keys.flag("scale_decoder_outputs", tied_head),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &serde_json::Value) -> Result<ModelConfig> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs_err::write(&path, json.to_string()).unwrap();
        Ok(ModelConfig::from_hugging_face(&path)?.0)
    }

    fn t5(changes: serde_json::Value) -> serde_json::Value {
        let mut config = serde_json::json!({
            "model_type": "t5", "vocab_size": 100, "d_model": 8, "d_kv": 4, "num_heads": 3, "d_ff": 16,
            "num_layers": 2
        });
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    #[test]
    fn t5_defaults_are_those_of_transformers() {
        let ModelConfig::T5(config) = read(&t5(serde_json::json!({}))).unwrap() else {
            panic!("not a T5")
        };
        let encoder = &config.encoder;
        assert_eq!(
            (encoder.activation, encoder.gated),
            (Activation::Relu, false)
        );
        assert!(config.tied_head && config.scale_decoder_output);
        assert_eq!(config.decoder.layers, 2);
        assert_eq!(
            config.decoder.positions,
            StackPositions::Relative {
                buckets: 32,
                max_distance: 128
            }
        );
        let changes =
            serde_json::json!({"feed_forward_proj": "gated-gelu", "tie_word_embeddings": false});
        let ModelConfig::T5(config) = read(&t5(changes)).unwrap() else {
            panic!("not a T5")
        };
        assert_eq!(
            (config.decoder.activation, config.decoder.gated),
            (Activation::GeluTanh, true)
        );
        assert!(!config.tied_head && !config.scale_decoder_output);
    }

    #[test]
    fn all_mistakes_of_a_configuration_are_told_together_with_its_path() {
        let changes =
            serde_json::json!({"d_model": -1, "d_ff": "x", "feed_forward_proj": "gated-magic"});
        let text = read(&t5(changes)).unwrap_err().to_string();
        for part in [
            "config.json",
            "`d_model` is -1",
            "`d_ff` is \"x\"",
            "gated-magic",
        ] {
            assert!(text.contains(part), "{part} not in {text}");
        }
    }

    #[test]
    fn an_unknown_model_type_names_the_known_ones() {
        let text = read(&serde_json::json!({"model_type": "gpt3"}))
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("unknown `model_type`: `gpt3`") && text.contains("did you mean `gpt2`?"),
            "{text}"
        );
    }

    #[test]
    fn what_is_not_computed_here_is_refused_by_name() {
        let llama = |changes: serde_json::Value| {
            let mut config = serde_json::json!({
                "model_type": "mistral", "vocab_size": 100, "hidden_size": 8, "num_attention_heads": 2,
                "num_hidden_layers": 1, "intermediate_size": 16, "max_position_embeddings": 64
            });
            for (key, value) in changes.as_object().unwrap() {
                config[key] = value.clone();
            }
            read(&config)
        };
        let ModelConfig::Gpt(config) = llama(serde_json::json!({"sliding_window": 64})).unwrap()
        else {
            panic!("not a GPT")
        };
        assert_eq!((config.head_size, config.key_value_heads), (4, 2));
        for (changes, part) in [
            (
                serde_json::json!({"sliding_window": 32}),
                "`sliding_window` is set",
            ),
            (
                serde_json::json!({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}),
                "in `rope_scaling`: `rope_type` is `yarn`",
            ),
            (
                serde_json::json!({"num_attention_heads": 3}),
                "`hidden_size` (8) is not a multiple of `num_attention_heads` (3)",
            ),
            (serde_json::json!({"head_dim": 3}), "rotates 3 of 3"),
        ] {
            let text = llama(changes).unwrap_err().to_string();
            assert!(text.contains(part), "{part} not in {text}");
        }
    }
}
