//! Sizes and variants of a model, from the `config.json` of a Hugging Face checkpoint.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value};

use super::feed_forward::Activation;
use crate::diag::suggest::did_you_mean;
use crate::diag::{Diagnostic, Location};

/// A GPT: a decoder alone.
#[derive(Clone, Debug, PartialEq)]
pub struct GptConfig {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// `H`
    pub hidden_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Inner size of the feed-forward layers.
    pub feed_forward_size: usize,
    /// Longest row: the learned positions there are.
    pub max_positions: usize,
    /// Of the feed-forward layers.
    pub activation: Activation,
    /// Added to the variance in norms.
    pub norm_epsilon: f64,
    /// Whether the head is the embedding table.
    pub tied_head: bool,
    /// Whether scores are divided by the root of the head's size.
    pub scale_scores: bool,
    /// Whether scores are also divided by the layer's number, from 1.
    pub scale_scores_by_layer: bool,
}

/// A T5: encoder and decoder with relative positions.
#[derive(Clone, Debug, PartialEq)]
pub struct T5Config {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// `H`
    pub hidden_size: usize,
    /// Numbers in a head; `heads` of them need not make `H`.
    pub head_size: usize,
    /// Heads of every attention.
    pub heads: usize,
    /// Inner size of the feed-forward layers.
    pub feed_forward_size: usize,
    /// Layers of the encoder.
    pub encoder_layers: usize,
    /// Layers of the decoder.
    pub decoder_layers: usize,
    /// Buckets of the relative bias.
    pub relative_buckets: usize,
    /// Distances beyond this share a bucket.
    pub relative_max_distance: usize,
    /// Of the feed-forward layers.
    pub activation: Activation,
    /// Whether the activated gate multiplies a second projection (T5 1.1).
    pub gated: bool,
    /// Added to the mean square in norms.
    pub norm_epsilon: f64,
    /// Whether the head is the embedding table (T5 1.0).
    pub tied_head: bool,
    /// Whether the decoder's output is scaled by H^-0.5 before the head.
    pub scale_decoder_output: bool,
}

/// The model a `config.json` describes.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// GPT-2.
    Gpt(GptConfig),
    /// T5, T5 1.1, mT5.
    T5(T5Config),
}

/// `model_type`s that can be loaded.
const KNOWN: [&str; 3] = ["gpt2", "mt5", "t5"];

impl ModelConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// A [`Diagnostic`] of the job where the file is not JSON, names a model that is not known here, or lacks a size.
    pub fn from_hugging_face(path: &Path) -> Result<Self> {
        let text = fs_err::read_to_string(path)?;
        let value: Value = serde_json::from_str(&text).map_err(|error| {
            Diagnostic::job(format!("not JSON: {error}")).at(Location::column(
                path.display(),
                error.line(),
                error.column(),
            ))
        })?;
        let mut keys = Keys {
            path,
            map: value.as_object().cloned().unwrap_or_default(),
            problems: vec![],
        };
        let model_type = keys
            .map
            .get("model_type")
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned();
        let this = match model_type.as_str() {
            "gpt2" => Self::Gpt(GptConfig::gpt2(&mut keys)),
            "t5" | "mt5" => Self::T5(T5Config::hugging_face(&mut keys, &model_type)),
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

impl GptConfig {
    fn gpt2(keys: &mut Keys<'_>) -> Self {
        let hidden_size = keys.size("n_embd", None);
        let heads = keys.size("n_head", None);
        if heads > 0 && !hidden_size.is_multiple_of(heads) {
            keys.problem(format!(
                "`n_embd` ({hidden_size}) is not a multiple of `n_head` ({heads})"
            ));
        }
        Self {
            vocab_size: keys.size("vocab_size", None),
            hidden_size,
            layers: keys.size("n_layer", None),
            heads,
            feed_forward_size: keys.size("n_inner", Some(4 * hidden_size)),
            max_positions: keys.size("n_positions", Some(1024)),
            activation: keys.activation("activation_function", "gelu_new"),
            norm_epsilon: keys.number("layer_norm_epsilon", 1e-5),
            tied_head: keys.flag("tie_word_embeddings", true),
            scale_scores: keys.flag("scale_attn_weights", true),
            scale_scores_by_layer: keys.flag("scale_attn_by_inverse_layer_idx", false),
        }
    }

    /// Numbers in a head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.heads
    }
}

impl T5Config {
    fn hugging_face(keys: &mut Keys<'_>, model_type: &str) -> Self {
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
        let encoder_layers = keys.size("num_layers", None);
        Self {
            vocab_size: keys.size("vocab_size", None),
            hidden_size: keys.size("d_model", None),
            head_size: keys.size("d_kv", None),
            heads: keys.size("num_heads", None),
            feed_forward_size: keys.size("d_ff", None),
            encoder_layers,
            decoder_layers: keys.size("num_decoder_layers", Some(encoder_layers)),
            relative_buckets: keys.size("relative_attention_num_buckets", Some(32)),
            relative_max_distance: keys.size("relative_attention_max_distance", Some(128)),
            activation: activation.unwrap_or(Activation::Relu),
            gated,
            norm_epsilon: keys.number("layer_norm_epsilon", 1e-6),
            tied_head,
            scale_decoder_output: keys.flag("scale_decoder_outputs", tied_head),
        }
    }
}

/// transformers' name of an activation.
fn activation_named(name: &str) -> Option<Activation> {
    Some(match name {
        "relu" => Activation::Relu,
        "relu2" => Activation::SquaredRelu,
        "gelu" => Activation::GeluErf,
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Activation::GeluTanh,
        "silu" | "swish" => Activation::Silu,
        _ => return None,
    })
}

/// The keys of a `config.json`, and what is wrong with them.
struct Keys<'a> {
    path: &'a Path,
    map: Map<String, Value>,
    problems: Vec<String>,
}

impl Keys<'_> {
    fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// A value that is there and not null.
    fn value(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn size(&mut self, key: &str, default: Option<usize>) -> usize {
        let problem = match (self.value(key), default) {
            (None, Some(default)) => return default,
            (None, None) => format!("`{key}` is missing"),
            (Some(value), _) => match value.as_u64().and_then(|size| usize::try_from(size).ok()) {
                // 2^31 is beyond any size of a model and far from overflow in products of two.
                Some(size @ 1..=0x7fff_ffff) => return size,
                _ => format!("`{key}` is {value}, expected a positive whole number"),
            },
        };
        self.problem(problem);
        1
    }

    fn number(&mut self, key: &str, default: f64) -> f64 {
        match self
            .value(key)
            .map(|value| (value.as_f64(), value.to_string()))
        {
            None => default,
            Some((Some(number), _)) => number,
            Some((None, value)) => {
                self.problem(format!("`{key}` is {value}, expected a number"));
                default
            }
        }
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        match self
            .value(key)
            .map(|value| (value.as_bool(), value.to_string()))
        {
            None => default,
            Some((Some(flag), _)) => flag,
            Some((None, value)) => {
                self.problem(format!("`{key}` is {value}, expected true or false"));
                default
            }
        }
    }

    fn text(&mut self, key: &str, default: &str) -> String {
        match self.value(key).map(|value| (value.as_str(), value)) {
            None => default.to_owned(),
            Some((Some(text), _)) => text.to_owned(),
            Some((None, value)) => {
                let problem = format!("`{key}` is {value}, expected text");
                self.problem(problem);
                default.to_owned()
            }
        }
    }

    fn activation(&mut self, key: &str, default: &str) -> Activation {
        let name = self.text(key, default);
        activation_named(&name).unwrap_or_else(|| {
            self.problem(format!("`{key}` is `{name}`, which is not known here"));
            Activation::Relu
        })
    }

    fn finish(self) -> Result<()> {
        if self.problems.is_empty() {
            return Ok(());
        }
        let mut diagnostic = Diagnostic::job("the model's configuration cannot be used")
            .at(Location::file(self.path.display()));
        diagnostic.notes = self.problems;
        Err(diagnostic.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &serde_json::Value) -> Result<ModelConfig> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs_err::write(&path, json.to_string()).unwrap();
        ModelConfig::from_hugging_face(&path)
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
        assert_eq!((config.activation, config.gated), (Activation::Relu, false));
        assert!(config.tied_head && config.scale_decoder_output);
        assert_eq!((config.decoder_layers, config.relative_buckets), (2, 32));
        let changes =
            serde_json::json!({"feed_forward_proj": "gated-gelu", "tie_word_embeddings": false});
        let ModelConfig::T5(config) = read(&t5(changes)).unwrap() else {
            panic!("not a T5")
        };
        assert_eq!(
            (config.activation, config.gated),
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
}
