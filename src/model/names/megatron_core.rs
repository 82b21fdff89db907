//! NeMo's GPT on megatron-core: `model.decoder.layers.0.self_attention.linear_qkv.weight`, queries in groups.
//!
//! Norms are part of the linear layer behind them with Transformer Engine, and modules of their own without.

use super::megatron_gpt::{IGNORED, ROWS, outer};
use super::{Linear, NameTable, Split, Stored};
use crate::model::config::GptConfig;

/// The table for `config`.
pub fn table(config: &GptConfig) -> NameTable {
    let mut table = NameTable::new("megatron-core GPT", &IGNORED);
    outer(
        &mut table,
        config,
        "model",
        "decoder.final_layernorm",
        "embedding",
    );
    let (hidden, inner) = (config.hidden_size, config.feed_forward_size);
    let (size, groups) = (config.head_size, config.key_value_heads);
    let queries = config.heads * size;
    let grouped = Stored::Interleaved {
        groups,
        widths: vec![queries / groups, size, size],
    };
    let (up, up_split) = if config.gated {
        (2 * inner, Split::Rows { blocks: 2 })
    } else {
        (inner, ROWS)
    };
    for layer in 0..config.layers {
        let key = |rest: &str| {
            let keys = rest.split('|');
            let keys: Vec<String> = keys
                .map(|rest| format!("model.decoder.layers.{layer}.{rest}"))
                .collect();
            keys.join("|")
        };
        for (path, rest) in [
            (
                "attention.norm",
                "self_attention.linear_qkv.layer_norm_*|input_layernorm.*",
            ),
            (
                "feed_forward.norm",
                "mlp.linear_fc1.layer_norm_*|pre_mlp_layernorm.*",
            ),
        ] {
            table.norm(&format!("{layer}.{path}"), &key(rest), hidden, config.norm);
        }
        for (path, rest, outputs, inputs, stored, split, bias) in [
            (
                "attention.query_key_value",
                "self_attention.linear_qkv.*",
                queries + 2 * groups * size,
                hidden,
                grouped.clone(),
                ROWS,
                config.query_key_value_bias,
            ),
            (
                "attention.output",
                "self_attention.linear_proj.*",
                hidden,
                queries,
                Stored::Plain,
                Split::Columns,
                config.output_bias,
            ),
            (
                "feed_forward.up",
                "mlp.linear_fc1.*",
                up,
                hidden,
                Stored::Plain,
                up_split,
                config.feed_forward_bias,
            ),
            (
                "feed_forward.down",
                "mlp.linear_fc2.*",
                hidden,
                inner,
                Stored::Plain,
                Split::Columns,
                config.feed_forward_bias,
            ),
        ] {
            table.linear(&Linear {
                path: &format!("{layer}.{path}"),
                keys: &[key(rest)],
                outputs: &[outputs],
                inputs,
                bias,
                stored,
                split,
            });
        }
    }
    table
}
