//! Llama, Mistral and Qwen2 of Hugging Face: `model.layers.0.self_attn.q_proj.weight`, also without `model.`.

use super::{Linear, NameTable, Split, Stored};
use crate::model::config::GptConfig;

/// The table for `config`.
pub fn table(config: &GptConfig) -> NameTable {
    let (hidden, inner) = (config.hidden_size, config.feed_forward_size);
    let queries = config.heads * config.head_size;
    let keys = config.key_value_heads * config.head_size;
    // Frequencies that old versions saved.
    let mut table = NameTable::new("Llama", &["rotary_emb.inv_freq"]);
    let key = |rest: &str| format!("model.{rest}|{rest}");
    table.add(
        "tokens",
        &key("embed_tokens.weight"),
        &[config.vocab_size, hidden],
    );
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
        let attention = ["q_proj", "k_proj", "v_proj"];
        let attention = attention.map(|name| in_layer(&format!("self_attn.{name}.*")));
        let up = ["gate_proj", "up_proj"].map(|name| in_layer(&format!("mlp.{name}.*")));
        for (path, parts, outputs, inputs, bias) in [
            (
                "attention.query_key_value",
                &attention[..],
                &[queries, keys, keys][..],
                hidden,
                config.query_key_value_bias,
            ),
            (
                "attention.output",
                &[in_layer("self_attn.o_proj.*")],
                &[hidden],
                queries,
                config.output_bias,
            ),
            (
                "feed_forward.up",
                &up,
                &[inner, inner],
                hidden,
                config.feed_forward_bias,
            ),
            (
                "feed_forward.down",
                &[in_layer("mlp.down_proj.*")],
                &[hidden],
                inner,
                config.feed_forward_bias,
            ),
        ] {
            table.linear(&Linear {
                path: &format!("{layer}.{path}"),
                keys: parts,
                outputs,
                inputs,
                bias,
                stored: Stored::Plain,
                split: Split::Replicated,
            });
        }
    }
    table.norm("norm", &key("norm.*"), hidden, config.norm);
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
