//! GPT-NeoX and Pythia of Hugging Face: `gpt_neox.layers.0.attention.query_key_value.weight`, heads one after another.

use super::{Linear, NameTable, Split, Stored};
use crate::model::config::GptConfig;

/// The table for `config`.
pub fn table(config: &GptConfig) -> NameTable {
    let (hidden, inner) = (config.hidden_size, config.feed_forward_size);
    // Masks and frequencies that old versions saved.
    let mut table = NameTable::new(
        "GPT-NeoX",
        &[
            ".attention.bias",
            ".attention.masked_bias",
            "rotary_emb.inv_freq",
        ],
    );
    let key = |rest: &str| format!("gpt_neox.{rest}|{rest}");
    table.add(
        "tokens",
        &key("embed_in.weight"),
        &[config.vocab_size, hidden],
    );
    let heads = Stored::Interleaved {
        groups: config.heads,
        widths: vec![config.head_size; 3],
    };
    for layer in 0..config.layers {
        let in_layer = |rest: &str| key(&format!("layers.{layer}.{rest}"));
        for (path, rest) in [
            ("attention.norm", "input_layernorm.*"),
            ("feed_forward.norm", "post_attention_layernorm.*"),
        ] {
            table.norm(
                &format!("{layer}.{path}"),
                &in_layer(rest),
                hidden,
                config.norm,
            );
        }
        for (path, rest, outputs, inputs, stored, bias) in [
            (
                "attention.query_key_value",
                "attention.query_key_value.*",
                3 * hidden,
                hidden,
                heads.clone(),
                config.query_key_value_bias,
            ),
            (
                "attention.output",
                "attention.dense.*",
                hidden,
                hidden,
                Stored::Plain,
                config.output_bias,
            ),
            (
                "feed_forward.up",
                "mlp.dense_h_to_4h.*",
                inner,
                hidden,
                Stored::Plain,
                true,
            ),
            (
                "feed_forward.down",
                "mlp.dense_4h_to_h.*",
                hidden,
                inner,
                Stored::Plain,
                true,
            ),
        ] {
            table.linear(&Linear {
                path: &format!("{layer}.{path}"),
                keys: &[in_layer(rest)],
                outputs: &[outputs],
                inputs,
                bias,
                stored,
                split: Split::Replicated,
            });
        }
    }
    table.norm("norm", &key("final_layer_norm.*"), hidden, config.norm);
    if config.tied_head {
        table.ignored.push("embed_out.weight");
    } else {
        table.add(
            "head.weight",
            "embed_out.weight",
            &[config.vocab_size, hidden],
        );
    }
    table
}
