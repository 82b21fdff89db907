//! `model_config.yaml` of a base model's `.nemo`: NeMo's GPT in three layouts, and its T5.
//!
//! Keys and defaults are those of NeMo 1.x (`megatron_gpt_model.py`, `megatron_lm_encoder_decoder_model.py`, `mlp.py`).
//! What would change the arithmetic and is not computed here is refused by its name.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::keys::Keys;
use super::{
    GptConfig, Layout, MegatronVariant, ModelConfig, NormKind, StackConfig, StackPositions,
    T5Config,
};
use crate::diag::source::SourceId;
use crate::diag::{Diagnostic, Location};
use crate::model::feed_forward::Activation;
use crate::model::position::{Rotary, RotaryScaling};
use crate::yaml::{self, Node};

/// Rows of the embedding table, which NeMo's configuration does not tell: padded for the ranks that trained it.
pub(crate) type VocabularyOf<'a> = &'a dyn Fn(&str) -> Option<usize>;

impl ModelConfig {
    /// Reads the text of the `model_config.yaml` at `path`: the model's sizes and how its checkpoint is laid out.
    /// `rows_of` tells how many rows the checkpoint's tensor of a name has.
    ///
    /// # Errors
    /// A [`Diagnostic`] of the job where the text is not YAML, the model is not one known here, or a value is not.
    pub(crate) fn from_nemo(
        path: &Path,
        text: &str,
        rows_of: VocabularyOf<'_>,
    ) -> Result<(Self, Layout)> {
        let node = yaml::parse(text, SourceId(0)).map_err(|error| {
            Diagnostic::job(format!("not YAML: {}", error.message)).at(Location::column(
                path.display(),
                error.line,
                error.column,
            ))
        })?;
        let node = node.unwrap_or_else(Node::empty_map);
        let Value::Object(map) = json_of(&node, &Map::new()) else {
            return Err(
                Diagnostic::job("the model's configuration is not a mapping")
                    .at(Location::file(path.display()))
                    .into(),
            );
        };
        if map.contains_key("task_templates") || map.contains_key("virtual_prompt_style") {
            return Err(Diagnostic::job(
                "this is an archive of prompts, which a frozen model is tuned with",
            )
            .at(Location::file(path.display()))
            .note("expected a base model: a GPT or T5 with its weights")
            .into());
        }
        let mut keys = Keys::new(path, map);
        // An encoder-decoder says so by its class, its sections, or its own keys.
        let target = keys.text("target", "");
        let is_t5 = keys.has_section("encoder")
            || target.contains("T5")
            || keys.value("share_token_embeddings").is_some();
        let this = if is_t5 {
            let (config, layout) = t5(&mut keys, rows_of);
            (Self::T5(config), layout)
        } else {
            let (config, layout) = gpt(&mut keys, rows_of);
            (Self::Gpt(config), layout)
        };
        keys.finish()?;
        Ok(this)
    }
}

/// The tree as the reader of keys wants it. A reference to a sibling (`${.encoder_seq_length}`), which some releases
/// left in the file, is replaced by what it names.
fn json_of(node: &Node, siblings: &Map<String, Value>) -> Value {
    use crate::yaml::{Integer, Value as Yaml};
    match &node.value {
        Yaml::Null | Yaml::Bytes(_) => Value::Null,
        Yaml::Bool(value) => Value::Bool(*value),
        Yaml::Int(Integer::Small(value)) => i64::try_from(*value).map_or(Value::Null, Value::from),
        Yaml::Int(value @ Integer::Large(_)) => Value::from(value.to_f64()),
        Yaml::Float(value) => Value::from(*value),
        Yaml::Str(text) => {
            let name = text
                .strip_prefix("${.")
                .and_then(|rest| rest.strip_suffix('}'));
            match name.and_then(|name| siblings.get(name)) {
                Some(value) => value.clone(),
                None => Value::String(text.clone()),
            }
        }
        Yaml::List(items) => items.iter().map(|item| json_of(item, siblings)).collect(),
        Yaml::Map(entries) => {
            let read = |known: &Map<String, Value>| -> Map<String, Value> {
                entries
                    .iter()
                    .filter_map(|(key, node)| {
                        Some((key.as_str()?.to_owned(), json_of(node, known)))
                    })
                    .collect()
            };
            let plain = read(&Map::new());
            Value::Object(read(&plain))
        }
    }
}

/// Which family of layers a GPT has.
#[derive(Clone, Copy, PartialEq)]
enum Layers {
    Megatron,
    TransformerEngine,
    Core,
}

fn gpt(keys: &mut Keys<'_>, rows_of: VocabularyOf<'_>) -> (GptConfig, Layout) {
    let layers = if keys.flag("mcore_gpt", false) {
        Layers::Core
    } else if keys.flag("transformer_engine", false) {
        Layers::TransformerEngine
    } else {
        Layers::Megatron
    };
    let hidden_size = keys.size("hidden_size", None);
    let heads = keys.size("num_attention_heads", None);
    let head_size = head_size(keys, hidden_size, heads);
    let groups = keys.size("num_query_groups", Some(heads));
    keys.divided(("num_attention_heads", heads), ("num_query_groups", groups));
    if groups != heads && layers != Layers::Core {
        keys.problem("`num_query_groups` needs `mcore_gpt: true`");
    }
    let block = Block::read(keys, layers);
    let sequence = keys.size("encoder_seq_length", Some(512));
    let max_positions = keys.size("max_position_embeddings", Some(sequence));
    let positions = keys.text("position_embedding_type", "learned_absolute");
    let rotary = match positions.as_str() {
        "learned_absolute" => None,
        "rope" => Some(rotary(keys, head_size)),
        other => {
            keys.problem(format!(
                "`position_embedding_type` is `{other}`, which is not computed here (known: learned_absolute, rope)"
            ));
            None
        }
    };
    refuse_gpt_variants(keys);
    let embedding = match layers {
        Layers::Core => "model.embedding.word_embeddings.weight",
        _ => "model.language_model.embedding.word_embeddings.weight",
    };
    let qkv_bias = keys.flag("qkv_bias", false) || keys.flag("add_qkv_bias", false);
    let config = GptConfig {
        vocab_size: vocabulary(keys, embedding, rows_of),
        hidden_size,
        layers: keys.layers("num_layers", None),
        heads,
        key_value_heads: groups,
        head_size,
        feed_forward_size: keys.size("ffn_hidden_size", Some(4 * hidden_size)),
        max_positions,
        rotary,
        norm: block.norm,
        norm_epsilon: block.norm_epsilon,
        activation: block.activation,
        gated: block.gated,
        query_key_value_bias: block.bias || qkv_bias,
        output_bias: block.bias,
        feed_forward_bias: block.bias,
        parallel_residual: false,
        tied_head: keys.flag("share_embeddings_and_output_weights", true),
        scale_scores: block.scale_scores,
        scale_scores_by_layer: false,
    };
    let layout = match layers {
        Layers::Core => Layout::MegatronCore,
        Layers::TransformerEngine => Layout::TransformerEngine,
        Layers::Megatron => Layout::MegatronGpt(block.variant),
    };
    (config, layout)
}

fn head_size(keys: &mut Keys<'_>, hidden_size: usize, heads: usize) -> usize {
    match keys.optional_size("kv_channels") {
        Some(size) => size,
        None => keys.divided(("hidden_size", hidden_size), ("num_attention_heads", heads)),
    }
}

fn vocabulary(keys: &mut Keys<'_>, embedding: &str, rows_of: VocabularyOf<'_>) -> usize {
    rows_of(embedding)
        .filter(|&rows| rows > 0)
        .unwrap_or_else(|| {
            keys.problem(format!("the checkpoint has no tensor `{embedding}`"));
            1
        })
}

fn rotary(keys: &mut Keys<'_>, head_size: usize) -> Rotary {
    let share = keys.number("rotary_percentage", 1.0);
    let channels = (head_size as f64 * share) as usize;
    keys.check_channels(channels, head_size);
    let base = keys.number("rotary_base", 10_000.0);
    let interpolation = keys.value("seq_len_interpolation_factor").is_some();
    let interpolation = interpolation.then(|| keys.number("seq_len_interpolation_factor", 1.0));
    let scaling = match (
        keys.flag("scale_positional_embedding", false),
        interpolation,
    ) {
        (true, Some(_)) => {
            keys.problem(
                "`scale_positional_embedding` and `seq_len_interpolation_factor` together are not computed here",
            );
            RotaryScaling::None
        }
        (true, None) => RotaryScaling::Llama3 {
            factor: keys.number("scale_factor", 8.0),
            low_frequency: keys.number("low_freq_factor", 1.0),
            high_frequency: keys.number("high_freq_factor", 4.0),
            trained_positions: keys.size("old_context_len", Some(8192)),
        },
        (false, Some(factor)) => RotaryScaling::Linear { factor },
        (false, None) => RotaryScaling::None,
    };
    keys.refuse_unless(
        "rotary_interleaved",
        &[json!(false)],
        "only rotation of the two halves of a head is computed here",
    );
    Rotary {
        channels,
        base,
        scaling,
    }
}

/// What layers of a GPT and of a T5's stacks have in common.
struct Block {
    norm: NormKind,
    norm_epsilon: f64,
    activation: Activation,
    gated: bool,
    bias: bool,
    scale_scores: bool,
    scaled_by_layer: bool,
    variant: MegatronVariant,
}

impl Block {
    fn read(keys: &mut Keys<'_>, layers: Layers) -> Self {
        let norm = match keys.text("normalization", "layernorm").as_str() {
            "layernorm" | "low_precision_layernorm" => NormKind::LayerNorm,
            "layernorm1p" => NormKind::LayerNorm1p,
            "rmsnorm" => NormKind::RmsNorm,
            other => {
                keys.problem(format!(
                    "`normalization` is `{other}`, expected layernorm, layernorm1p or rmsnorm"
                ));
                NormKind::LayerNorm
            }
        };
        let norm = match (norm, keys.flag("layernorm_zero_centered_gamma", false)) {
            (NormKind::RmsNorm, true) => {
                keys.problem(
                    "`layernorm_zero_centered_gamma` with rmsnorm (Gemma) is not computed here",
                );
                norm
            }
            (_, true) => NormKind::LayerNorm1p,
            (_, false) => norm,
        };
        let bias = keys.flag("bias", true);
        let (activation, gated, joined_gate) = activation(keys, layers);
        keys.refuse_unless(
            "transformer_block_type",
            &[json!("pre_ln")],
            "only `pre_ln` is computed here",
        );
        keys.refuse_unless("headscale", &[json!(false)], "is not computed here");
        keys.refuse_unless(
            "arch",
            &[json!("transformer")],
            "only `transformer` is known here",
        );
        let scale_scores = keys.flag("normalize_attention_scores", true);
        let scaled_by_layer = keys.flag("apply_query_key_layer_scaling", false);
        if !scale_scores && scaled_by_layer {
            keys.problem(
                "`apply_query_key_layer_scaling: true` with `normalize_attention_scores: false` is not computed here",
            );
        }
        Self {
            norm,
            norm_epsilon: keys.number("layernorm_epsilon", 1e-5),
            activation,
            gated,
            bias,
            scale_scores,
            scaled_by_layer,
            variant: MegatronVariant {
                legacy_heads: keys.flag("megatron_legacy", false),
                joined_gate,
            },
        }
    }
}

/// The activation, whether it is a gate, and whether gate and value are one tensor.
///
/// NeMo's fused kernels use the tanh form of GELU and its plain ones the exact form; `openai_gelu`, where nothing is
/// fused, replaces whatever activation is named by the tanh GELU; Transformer Engine has the tanh form alone.
fn activation(keys: &mut Keys<'_>, layers: Layers) -> (Activation, bool, bool) {
    let name = keys.text("activation", "gelu");
    let fused = keys.flag("bias_activation_fusion", true);
    let openai = keys.flag("openai_gelu", false);
    let (base, joined) = match name.strip_prefix("fast-") {
        Some(base) => (base, true),
        None => (name.as_str(), false),
    };
    let gelu = if fused || openai || layers == Layers::TransformerEngine {
        Activation::GeluTanh
    } else {
        Activation::GeluErf
    };
    let activation = match base {
        "gelu" | "geglu" => gelu,
        "swiglu" => Activation::Silu,
        "reglu" => Activation::Relu,
        "squared-relu" => Activation::SquaredRelu,
        _ => {
            keys.problem(format!(
                "`activation` is `{name}`, expected gelu, geglu, swiglu, reglu (also fast-) or squared-relu"
            ));
            gelu
        }
    };
    let activation = if openai && !fused {
        Activation::GeluTanh
    } else {
        activation
    };
    (activation, base.ends_with("glu"), joined)
}

fn refuse_gpt_variants(keys: &mut Keys<'_>) {
    let nothing = [json!(false), json!(0), json!(1), json!({}), json!([])];
    for (key, what) in [
        (
            "multi_query_attention",
            "its own key layout is not read here",
        ),
        (
            "num_moe_experts",
            "mixtures of experts are not computed here",
        ),
        ("window_size", "attention in windows is not computed here"),
        (
            "sliding_window",
            "attention in windows is not computed here",
        ),
        ("apply_embedding_scaling", "Gemma is not computed here"),
        (
            "mcore_customization_config",
            "customised layers are not computed here",
        ),
        ("drop_layers", "is not computed here"),
        ("parallel_attention", "is not computed here"),
        ("qk_layernorm", "is not computed here"),
        ("attn_logit_softcapping", "is not computed here"),
        ("final_logit_softcapping", "is not computed here"),
    ] {
        keys.refuse_unless(key, &nothing, what);
    }
    let name = keys.text("name", "");
    if matches!(
        name.as_str(),
        "megatron_falcon_gpt" | "megatron_gpt_full_te_layer_autocast"
    ) {
        keys.problem(format!(
            "`name` is `{name}`: its layers are not computed here"
        ));
    }
}

fn t5(keys: &mut Keys<'_>, rows_of: VocabularyOf<'_>) -> (T5Config, Layout) {
    if keys.flag("mcore_t5", false) {
        keys.problem(
            "`mcore_t5` is true: a T5 on megatron-core has another key layout, which is not read here, nor by NeMo's prompt learning",
        );
    }
    let sequence = keys.size("seq_length", Some(512));
    let max_positions = keys.size("max_position_embeddings", Some(sequence));
    let split = keys.has_section("encoder");
    let (hidden_size, encoder, encoder_variant) =
        keys.section("encoder", |keys| stack(keys, max_positions, true));
    let (decoder_hidden, decoder, decoder_variant) =
        keys.section("decoder", |keys| stack(keys, max_positions, false));
    if decoder_hidden != hidden_size {
        keys.problem(format!(
            "`encoder.hidden_size` ({hidden_size}) and `decoder.hidden_size` ({decoder_hidden}) differ"
        ));
    }
    let tied_head = keys.flag("share_decoder_tokens_head_embeddings", true);
    // Before encoder and decoder had sections of their own, the tied head had a bias and the untied one none.
    let head_bias = if split {
        keys.flag("tokens_head_bias", true)
    } else {
        tied_head
    };
    let config = T5Config {
        vocab_size: vocabulary(
            keys,
            "enc_dec_model.encoder_embedding.word_embeddings.weight",
            rows_of,
        ),
        hidden_size,
        encoder,
        decoder,
        shared_tokens: keys.flag("share_token_embeddings", true),
        tied_head,
        head_bias,
        scale_decoder_output: false,
    };
    let layout = Layout::MegatronT5 {
        encoder: encoder_variant,
        decoder: decoder_variant,
    };
    (config, layout)
}

/// One stack: its hidden size, the rest, and how its layers are stored.
fn stack(
    keys: &mut Keys<'_>,
    max_positions: usize,
    is_encoder: bool,
) -> (usize, StackConfig, MegatronVariant) {
    let hidden_size = keys.size("hidden_size", None);
    let heads = keys.size("num_attention_heads", None);
    let head_size = head_size(keys, hidden_size, heads);
    let block = Block::read(keys, Layers::Megatron);
    let positions = match keys
        .text("position_embedding_type", "learned_absolute")
        .as_str()
    {
        "relative" => {
            if !is_encoder && !keys.flag("relative_position_bias_self_attention_only", true) {
                keys.problem(
                    "`relative_position_bias_self_attention_only: false` is not computed here",
                );
            }
            StackPositions::Relative {
                buckets: keys.size("relative_attention_num_buckets", Some(32)),
                max_distance: keys.size("relative_attention_max_distance", Some(128)),
            }
        }
        "learned_absolute" => StackPositions::Learned {
            count: max_positions,
        },
        other => {
            keys.problem(format!(
                "`position_embedding_type` is `{other}`, which is not computed here (known: learned_absolute, relative)"
            ));
            StackPositions::Learned {
                count: max_positions,
            }
        }
    };
    let config = StackConfig {
        layers: keys.layers("num_layers", None),
        heads,
        head_size,
        feed_forward_size: keys.size("ffn_hidden_size", Some(4 * hidden_size)),
        positions,
        norm: block.norm,
        norm_epsilon: block.norm_epsilon,
        activation: block.activation,
        gated: block.gated,
        bias: block.bias,
        scale_scores: block.scale_scores,
        scale_bias_by_layer: block.scaled_by_layer,
    };
    (hidden_size, config, block.variant)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPT: &str = "
encoder_seq_length: 128
max_position_embeddings: ${.encoder_seq_length}
num_layers: 2
hidden_size: 16
ffn_hidden_size: 64
num_attention_heads: 4
layernorm_epsilon: 1.0e-05
";

    fn read(text: &str) -> Result<(ModelConfig, Layout)> {
        ModelConfig::from_nemo(Path::new("x.nemo/model_config.yaml"), text, &|_| Some(96))
    }

    fn read_gpt(more: &str) -> (GptConfig, Layout) {
        match read(&format!("{GPT}{more}")).unwrap() {
            (ModelConfig::Gpt(config), layout) => (config, layout),
            _ => panic!("not a GPT"),
        }
    }

    #[test]
    fn a_gpt_has_nemos_defaults_and_its_layout_follows_two_flags() {
        let (config, layout) = read_gpt("");
        assert_eq!(
            (config.vocab_size, config.max_positions, config.head_size),
            (96, 128, 4)
        );
        assert_eq!(config.activation, Activation::GeluTanh);
        assert!(config.tied_head && config.output_bias && config.rotary.is_none());
        assert_eq!(layout, Layout::MegatronGpt(MegatronVariant::default()));
        assert_eq!(
            read_gpt("transformer_engine: true\n").1,
            Layout::TransformerEngine
        );
        assert_eq!(
            read_gpt("transformer_engine: true\nmcore_gpt: true\n").1,
            Layout::MegatronCore
        );
    }

    #[test]
    fn gelu_is_exact_only_where_nemo_computes_it_so() {
        for (keys, expected) in [
            ("bias_activation_fusion: false", Activation::GeluErf),
            (
                "bias_activation_fusion: false\nopenai_gelu: true",
                Activation::GeluTanh,
            ),
            (
                "bias_activation_fusion: false\ntransformer_engine: true",
                Activation::GeluTanh,
            ),
            (
                "bias_activation_fusion: false\nactivation: fast-swiglu",
                Activation::Silu,
            ),
            (
                "bias_activation_fusion: false\nactivation: swiglu\nopenai_gelu: true",
                Activation::GeluTanh,
            ),
            ("activation: squared-relu", Activation::SquaredRelu),
        ] {
            assert_eq!(read_gpt(keys).0.activation, expected, "{keys}");
        }
        assert!(read_gpt("activation: fast-geglu").0.gated);
    }

    #[test]
    fn what_is_not_computed_here_is_refused_by_its_key() {
        for (more, part) in [
            (
                "position_embedding_type: alibi",
                "`position_embedding_type` is `alibi`",
            ),
            ("num_moe_experts: 8", "`num_moe_experts` is 8"),
            (
                "transformer_block_type: normformer",
                "`transformer_block_type`",
            ),
            ("num_query_groups: 2", "`num_query_groups` needs"),
            ("activation: approx-gelu", "`activation` is `approx-gelu`"),
            ("task_templates: []", "an archive of prompts"),
        ] {
            let text = read(&format!("{GPT}{more}\n")).unwrap_err().to_string();
            assert!(text.contains(part), "{part} not in {text}");
        }
    }

    #[test]
    fn a_t5_before_its_sections_has_both_stacks_of_one_shape_and_a_head_bias() {
        let (config, layout) = read(&format!(
            "{GPT}seq_length: 64\nshare_token_embeddings: true\nkv_channels: 8\n"
        ))
        .unwrap();
        let ModelConfig::T5(config) = config else {
            panic!("not a T5")
        };
        assert_eq!(config.encoder, config.decoder);
        assert_eq!(config.encoder.head_size, 8);
        assert!(config.head_bias && config.tied_head && config.shared_tokens);
        assert_eq!(
            layout,
            Layout::MegatronT5 {
                encoder: MegatronVariant::default(),
                decoder: MegatronVariant::default()
            }
        );
    }

    #[test]
    fn stacks_with_sections_of_their_own_differ_and_the_megatron_core_form_is_refused() {
        let text = "
target: nemo.collections.nlp.models.language_modeling.megatron_t5_model.MegatronT5Model
max_position_embeddings: 64
tokens_head_bias: false
encoder: {num_layers: 2, hidden_size: 16, ffn_hidden_size: 32, num_attention_heads: 2, activation: geglu}
decoder: {num_layers: 3, hidden_size: 16, ffn_hidden_size: 24, num_attention_heads: 4, megatron_legacy: true,
          position_embedding_type: relative, apply_query_key_layer_scaling: true}
";
        let (ModelConfig::T5(config), layout) = read(text).unwrap() else {
            panic!("not a T5")
        };
        assert_eq!((config.encoder.layers, config.decoder.layers), (2, 3));
        assert!(config.encoder.gated && !config.decoder.gated && !config.head_bias);
        assert!(config.decoder.scale_bias_by_layer);
        assert_eq!(
            config.encoder.positions,
            StackPositions::Learned { count: 64 }
        );
        let Layout::MegatronT5 { encoder, decoder } = layout else {
            panic!("not a T5")
        };
        assert!(!encoder.legacy_heads && decoder.legacy_heads);
        let refused = read(&format!("{text}mcore_t5: true\n"))
            .unwrap_err()
            .to_string();
        assert!(refused.contains("`mcore_t5` is true"), "{refused}");
    }
}
