//! GPT-2 of Hugging Face: `transformer.h.0.attn.c_attn.weight`, also without `transformer.`; linear weights [in, out].

use super::{Linear, NameTable, Split, Stored};
use crate::model::config::GptConfig;

/// The table for `config`.
pub fn table(config: &GptConfig) -> NameTable {
    let (hidden, inner) = (config.hidden_size, config.feed_forward_size);
    // The causal masks that old versions saved.
    let mut table = NameTable::new("GPT-2", &[".attn.bias", ".attn.masked_bias"]);
    let key = |rest: &str| format!("transformer.{rest}|{rest}");
    table.add("tokens", &key("wte.weight"), &[config.vocab_size, hidden]);
    table.add(
        "positions",
        &key("wpe.weight"),
        &[config.max_positions, hidden],
    );
    for layer in 0..config.layers {
        let norms = [
            ("attention.norm", "ln_1.*"),
            ("feed_forward.norm", "ln_2.*"),
        ];
        for (path, rest) in norms {
            table.norm(
                &format!("{layer}.{path}"),
                &key(&format!("h.{layer}.{rest}")),
                hidden,
                config.norm,
            );
        }
        for (path, rest, outputs, inputs) in [
            (
                "attention.query_key_value",
                "attn.c_attn.*",
                3 * hidden,
                hidden,
            ),
            ("attention.output", "attn.c_proj.*", hidden, hidden),
            ("feed_forward.up", "mlp.c_fc.*", inner, hidden),
            ("feed_forward.down", "mlp.c_proj.*", hidden, inner),
        ] {
            table.linear(&Linear {
                path: &format!("{layer}.{path}"),
                keys: &[key(&format!("h.{layer}.{rest}"))],
                outputs: &[outputs],
                inputs,
                bias: true,
                stored: Stored::InOut,
                split: Split::Replicated,
            });
        }
    }
    table.norm("norm", &key("ln_f.*"), hidden, config.norm);
    if config.tied_head {
        // The head's copy of the tied embedding.
        table.ignored.push("lm_head.weight");
    } else {
        table.add(
            "head.weight",
            "lm_head.weight",
            &[config.vocab_size, hidden],
        );
    }
    table
}
