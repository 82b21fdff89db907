//! Names of Hugging Face checkpoints (the modules of transformers 4.57).

use super::{NameTable, Slot};
use crate::model::config::{GptConfig, T5Config};

/// GPT-2: `transformer.h.0.attn.c_attn.weight`, also without `transformer.`; linear weights are [in, out].
pub fn gpt2(config: &GptConfig) -> NameTable {
    let (hidden, inner) = (config.hidden_size, config.feed_forward_size);
    let mut slots = vec![
        slot("tokens", "wte.weight", &[config.vocab_size, hidden]),
        slot("positions", "wpe.weight", &[config.max_positions, hidden]),
        slot("norm.weight", "ln_f.weight", &[hidden]),
        slot("norm.bias", "ln_f.bias", &[hidden]),
    ];
    if !config.tied_head {
        slots.push(Slot::new(
            "head",
            "lm_head.weight",
            &[config.vocab_size, hidden],
        ));
    }
    for layer in 0..config.layers {
        let mut add = |path: &str, key: &str, shape: &[usize]| {
            slots.push(slot(
                &format!("{layer}.{path}"),
                &format!("h.{layer}.{key}"),
                shape,
            ));
        };
        add("attention.norm.weight", "ln_1.weight", &[hidden]);
        add("attention.norm.bias", "ln_1.bias", &[hidden]);
        add(
            "attention.query_key_value.weight",
            "attn.c_attn.weight",
            &[hidden, 3 * hidden],
        );
        add(
            "attention.query_key_value.bias",
            "attn.c_attn.bias",
            &[3 * hidden],
        );
        add(
            "attention.output.weight",
            "attn.c_proj.weight",
            &[hidden, hidden],
        );
        add("attention.output.bias", "attn.c_proj.bias", &[hidden]);
        add("feed_forward.norm.weight", "ln_2.weight", &[hidden]);
        add("feed_forward.norm.bias", "ln_2.bias", &[hidden]);
        add(
            "feed_forward.up.weight",
            "mlp.c_fc.weight",
            &[hidden, inner],
        );
        add("feed_forward.up.bias", "mlp.c_fc.bias", &[inner]);
        add(
            "feed_forward.down.weight",
            "mlp.c_proj.weight",
            &[inner, hidden],
        );
        add("feed_forward.down.bias", "mlp.c_proj.bias", &[hidden]);
    }
    // The causal masks that old versions saved, and the head's copy of the tied embedding.
    let mut ignored = vec![".attn.bias", ".attn.masked_bias"];
    if config.tied_head {
        ignored.push("lm_head.weight");
    }
    return NameTable {
        architecture: "GPT-2",
        slots,
        ignored,
    };

    fn slot(path: &str, key: &str, shape: &[usize]) -> Slot {
        Slot {
            path: path.to_owned(),
            keys: vec![format!("transformer.{key}"), key.to_owned()],
            shape: shape.to_vec(),
        }
    }
}

/// T5, T5 1.1, mT5, flan-T5: `encoder.block.0.layer.0.SelfAttention.q.weight`; linear weights are [out, in].
pub fn t5(config: &T5Config) -> NameTable {
    let (hidden, inner) = (config.hidden_size, config.heads * config.head_size);
    let mut slots = vec![
        Slot {
            path: "tokens".to_owned(),
            keys: vec![
                "shared.weight".to_owned(),
                "encoder.embed_tokens.weight".to_owned(),
                "decoder.embed_tokens.weight".to_owned(),
            ],
            shape: vec![config.vocab_size, hidden],
        },
        Slot::new("encoder.norm", "encoder.final_layer_norm.weight", &[hidden]),
        Slot::new("decoder.norm", "decoder.final_layer_norm.weight", &[hidden]),
    ];
    if !config.tied_head {
        slots.push(Slot::new(
            "head",
            "lm_head.weight",
            &[config.vocab_size, hidden],
        ));
    }
    for (stack, layers) in [
        ("encoder", config.encoder_layers),
        ("decoder", config.decoder_layers),
    ] {
        slots.push(Slot::new(
            format!("{stack}.relative_bias"),
            format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
            &[config.relative_buckets, config.heads],
        ));
        for layer in 0..layers {
            let mut add = |path: &str, key: &str, shape: &[usize]| {
                slots.push(Slot::new(
                    format!("{stack}.{layer}.{path}"),
                    format!("{stack}.block.{layer}.layer.{key}.weight"),
                    shape,
                ));
            };
            let attentions: &[(&str, &str)] = match stack {
                "encoder" => &[("self_attention", "0.SelfAttention")],
                _ => &[
                    ("self_attention", "0.SelfAttention"),
                    ("cross_attention", "1.EncDecAttention"),
                ],
            };
            for (place, (path, key)) in attentions.iter().enumerate() {
                add(
                    &format!("{path}.norm"),
                    &format!("{place}.layer_norm"),
                    &[hidden],
                );
                add(
                    &format!("{path}.query"),
                    &format!("{key}.q"),
                    &[inner, hidden],
                );
                add(
                    &format!("{path}.key"),
                    &format!("{key}.k"),
                    &[inner, hidden],
                );
                add(
                    &format!("{path}.value"),
                    &format!("{key}.v"),
                    &[inner, hidden],
                );
                add(
                    &format!("{path}.output"),
                    &format!("{key}.o"),
                    &[hidden, inner],
                );
            }
            let last = attentions.len();
            let wide = [config.feed_forward_size, hidden];
            add(
                "feed_forward.norm",
                &format!("{last}.layer_norm"),
                &[hidden],
            );
            if config.gated {
                add(
                    "feed_forward.gate",
                    &format!("{last}.DenseReluDense.wi_0"),
                    &wide,
                );
                add(
                    "feed_forward.value",
                    &format!("{last}.DenseReluDense.wi_1"),
                    &wide,
                );
            } else {
                add(
                    "feed_forward.value",
                    &format!("{last}.DenseReluDense.wi"),
                    &wide,
                );
            }
            add(
                "feed_forward.down",
                &format!("{last}.DenseReluDense.wo"),
                &[hidden, config.feed_forward_size],
            );
        }
    }
    // Copies of the shared embedding, and a cross-attention bias table that an old version saved and never used.
    let mut ignored = vec![
        "embed_tokens.weight",
        ".EncDecAttention.relative_attention_bias.weight",
    ];
    if config.tied_head {
        ignored.push("lm_head.weight");
    }
    NameTable {
        architecture: "T5",
        slots,
        ignored,
    }
}
