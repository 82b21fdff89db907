//! NeMo's T5 and mT5 before megatron-core:
//! `enc_dec_model.enc_dec_model.decoder.model.layers.0.inter_attention.query.weight`.

use super::megatron_gpt::{self, Layer, ROWS};
use super::{NameTable, Split, Stored};
use crate::model::config::{MegatronVariant, StackPositions, T5Config};

/// The table for `config`, whose stacks may be stored differently.
pub fn table(config: &T5Config, encoder: MegatronVariant, decoder: MegatronVariant) -> NameTable {
    // The last stage's copy of the tied embedding, and what Transformer Engine leaves.
    let mut table = NameTable::new(
        "Megatron T5",
        &["_extra_state", "enc_dec_model.word_embeddings.weight"],
    );
    let hidden = config.hidden_size;
    let vocabulary = [config.vocab_size, hidden];
    let tokens = |stack: &str| format!("enc_dec_model.{stack}_embedding.word_embeddings.weight");
    // A shared table is stored in both places, in partitions in the stages that use it.
    let first = if config.shared_tokens {
        format!("{}|{}", tokens("encoder"), tokens("decoder"))
    } else {
        tokens("encoder")
    };
    table.add("encoder.tokens", &first, &vocabulary).split = ROWS;
    if !config.shared_tokens {
        let second = tokens("decoder");
        table.add("decoder.tokens", &second, &vocabulary).split = ROWS;
    }
    for (stack, sizes, variant) in [
        ("encoder", &config.encoder, encoder),
        ("decoder", &config.decoder, decoder),
    ] {
        match sizes.positions {
            StackPositions::Learned { count } => {
                // Where the word table is shared, NeMo's decoder uses the encoder's embedding module as a whole.
                let key = format!("enc_dec_model.{stack}_embedding.position_embeddings.weight");
                table.add(format!("{stack}.positions"), &key, &[count, hidden]);
            }
            StackPositions::Relative { buckets, .. } => {
                let key = format!(
                    "enc_dec_model.{stack}_relative_position_embedding.relative_position_embedding.weight"
                );
                table.add(
                    format!("{stack}.relative_bias"),
                    &key,
                    &[buckets, sizes.heads],
                );
            }
        }
        let stack_key = format!("enc_dec_model.enc_dec_model.{stack}.model");
        for layer in 0..sizes.layers {
            let path = format!("{stack}.{layer}");
            let layer = Layer {
                path: &path,
                attention: "self_attention",
                key: &format!("{stack_key}.layers.{layer}"),
                hidden,
                heads: sizes.heads,
                head_size: sizes.head_size,
                inner: sizes.feed_forward_size,
                gated: sizes.gated,
                bias: sizes.bias,
                norm: sizes.norm,
                variant,
            };
            megatron_gpt::layer(&mut table, &layer);
            if stack == "decoder" {
                cross_attention(&mut table, &layer);
                layer.norm(&mut table, "cross_attention", "post_attention_layernorm");
                layer.norm(&mut table, "feed_forward", "post_inter_attention_layernorm");
            } else {
                layer.norm(&mut table, "feed_forward", "post_attention_layernorm");
            }
        }
        table.norm(
            &format!("{stack}.norm"),
            &format!("{stack_key}.final_layernorm.*"),
            hidden,
            sizes.norm,
        );
    }
    if !config.tied_head {
        let head = "enc_dec_model.tokens_head.weight";
        table.add("head.weight", head, &vocabulary).split = ROWS;
    }
    if config.head_bias {
        let bias = "enc_dec_model.tokens_head.bias";
        table.add("head.bias", bias, &[config.vocab_size]).split = ROWS;
    }
    table
}

fn cross_attention(table: &mut NameTable, layer: &Layer<'_>) {
    let (hidden, width) = (layer.hidden, layer.heads * layer.head_size);
    layer.linear(
        table,
        "cross_attention.query",
        &["inter_attention.query"],
        (width, hidden),
        (Stored::Plain, ROWS),
    );
    layer.linear(
        table,
        "cross_attention.key_value",
        &["inter_attention.key_value"],
        (2 * width, hidden),
        layer.projections(2),
    );
    layer.linear(
        table,
        "cross_attention.output",
        &["inter_attention.dense"],
        (hidden, width),
        (Stored::Plain, Split::Columns),
    );
}
