//! T5, T5 1.1, mT5 and flan-T5 of Hugging Face: `encoder.block.0.layer.0.SelfAttention.q.weight`.

use super::{Linear, NameTable, Split, Stored};
use crate::model::config::{StackPositions, T5Config};

/// The table for `config`.
pub fn table(config: &T5Config) -> NameTable {
    let hidden = config.hidden_size;
    // Copies of the shared embedding, and a cross-attention bias table that an old version saved and never used.
    let mut table = NameTable::new(
        "T5",
        &[
            "embed_tokens.weight",
            ".EncDecAttention.relative_attention_bias.weight",
        ],
    );
    table.add(
        "encoder.tokens",
        "shared.weight|encoder.embed_tokens.weight|decoder.embed_tokens.weight",
        &[config.vocab_size, hidden],
    );
    for (stack, sizes) in [("encoder", &config.encoder), ("decoder", &config.decoder)] {
        if let StackPositions::Relative { buckets, .. } = sizes.positions {
            table.add(
                format!("{stack}.relative_bias"),
                &format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
                &[buckets, sizes.heads],
            );
        }
        let width = sizes.heads * sizes.head_size;
        let inner = sizes.feed_forward_size;
        for layer in 0..sizes.layers {
            let key = |rest: &str| format!("{stack}.block.{layer}.layer.{rest}");
            let mut linear = |path: &str, keys: &[String], outputs: &[usize], inputs: usize| {
                table.linear(&Linear {
                    path: &format!("{stack}.{layer}.{path}"),
                    keys,
                    outputs,
                    inputs,
                    bias: false,
                    stored: Stored::Plain,
                    split: Split::Replicated,
                });
            };
            let attention = |name: &str| key(&format!("0.SelfAttention.{name}.*"));
            linear(
                "self_attention.query_key_value",
                &["q", "k", "v"].map(attention),
                &[width; 3],
                hidden,
            );
            linear("self_attention.output", &[attention("o")], &[hidden], width);
            let mut sublayers = vec!["self_attention"];
            if stack == "decoder" {
                let attention = |name: &str| key(&format!("1.EncDecAttention.{name}.*"));
                linear("cross_attention.query", &[attention("q")], &[width], hidden);
                linear(
                    "cross_attention.key_value",
                    &["k", "v"].map(attention),
                    &[width; 2],
                    hidden,
                );
                linear(
                    "cross_attention.output",
                    &[attention("o")],
                    &[hidden],
                    width,
                );
                sublayers.push("cross_attention");
            }
            let last = sublayers.len();
            sublayers.push("feed_forward");
            let dense = |name: &str| key(&format!("{last}.DenseReluDense.{name}.*"));
            if sizes.gated {
                linear(
                    "feed_forward.up",
                    &["wi_0", "wi_1"].map(dense),
                    &[inner; 2],
                    hidden,
                );
            } else {
                linear("feed_forward.up", &[dense("wi")], &[inner], hidden);
            }
            linear("feed_forward.down", &[dense("wo")], &[hidden], inner);
            for (place, sublayer) in sublayers.iter().enumerate() {
                table.norm(
                    &format!("{stack}.{layer}.{sublayer}.norm"),
                    &key(&format!("{place}.layer_norm.*")),
                    hidden,
                    sizes.norm,
                );
            }
        }
        table.norm(
            &format!("{stack}.norm"),
            &format!("{stack}.final_layer_norm.*"),
            hidden,
            sizes.norm,
        );
    }
    if config.tied_head {
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
