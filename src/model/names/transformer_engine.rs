//! NeMo's GPT with layers of Transformer Engine and without megatron-core (launcher 23.05 and 23.07):
//! `model.language_model.encoder.layers.0.self_attention.layernorm_qkv.weight`.

use super::megatron_gpt::{IGNORED, ROWS, outer};
use super::{Linear, NameTable, Split, Stored};
use crate::model::config::GptConfig;

/// The table for `config`.
pub fn table(config: &GptConfig) -> NameTable {
    let mut table = NameTable::new("GPT of Transformer Engine", &IGNORED);
    outer(
        &mut table,
        config,
        "model.language_model",
        "encoder.final_layernorm",
        "embedding",
    );
    let (hidden, inner) = (config.hidden_size, config.feed_forward_size);
    let width = config.heads * config.head_size;
    let heads = Stored::Interleaved {
        groups: config.heads,
        widths: vec![config.head_size; 3],
    };
    let (up, up_split) = if config.gated {
        (2 * inner, Split::Rows { blocks: 2 })
    } else {
        (inner, ROWS)
    };
    for layer in 0..config.layers {
        let key = |rest: &str| format!("model.language_model.encoder.layers.{layer}.{rest}");
        for (path, rest) in [
            (
                "attention.norm",
                "self_attention.layernorm_qkv.layer_norm_*",
            ),
            ("feed_forward.norm", "layernorm_mlp.layer_norm_*"),
        ] {
            table.norm(&format!("{layer}.{path}"), &key(rest), hidden, config.norm);
        }
        for (path, rest, outputs, inputs, stored, split) in [
            (
                "attention.query_key_value",
                "self_attention.layernorm_qkv.*",
                3 * width,
                hidden,
                heads.clone(),
                ROWS,
            ),
            (
                "attention.output",
                "self_attention.proj.*",
                hidden,
                width,
                Stored::Plain,
                Split::Columns,
            ),
            (
                "feed_forward.up",
                "layernorm_mlp.fc1_*",
                up,
                hidden,
                Stored::Plain,
                up_split,
            ),
            (
                "feed_forward.down",
                "layernorm_mlp.fc2_*",
                hidden,
                inner,
                Stored::Plain,
                Split::Columns,
            ),
        ] {
            table.linear(&Linear {
                path: &format!("{layer}.{path}"),
                keys: &[key(rest)],
                outputs: &[outputs],
                inputs,
                bias: config.output_bias,
                stored,
                split,
            });
        }
    }
    table
}
