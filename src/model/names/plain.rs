//! The model's own paths as keys: random models of tests and benches, and the list of what a model consists of.

use super::{Linear, NameTable, Split, Stored, module};
use crate::model::config::{GptConfig, StackConfig, StackPositions, T5Config};

/// Every parameter of a GPT.
pub fn gpt(config: &GptConfig) -> NameTable {
    let mut table = NameTable::new("GPT", &[]);
    let hidden = config.hidden_size;
    table.add("tokens", "tokens", &[config.vocab_size, hidden]);
    if config.rotary.is_none() {
        table.add("positions", "positions", &[config.max_positions, hidden]);
    }
    for layer in 0..config.layers {
        let path = |rest: &str| format!("{layer}.{rest}");
        let norm = path("attention.norm");
        table.norm(&norm, &module(&norm), hidden, config.norm);
        let queries = config.heads * config.head_size;
        let keys = config.key_value_heads * config.head_size;
        linear(
            &mut table,
            &path("attention.query_key_value"),
            queries + 2 * keys,
            hidden,
            config.query_key_value_bias,
        );
        linear(
            &mut table,
            &path("attention.output"),
            hidden,
            queries,
            config.output_bias,
        );
        let norm = path("feed_forward.norm");
        table.norm(&norm, &module(&norm), hidden, config.norm);
        let inner = config.feed_forward_size;
        linear(
            &mut table,
            &path("feed_forward.up"),
            if config.gated { 2 * inner } else { inner },
            hidden,
            config.feed_forward_bias,
        );
        linear(
            &mut table,
            &path("feed_forward.down"),
            hidden,
            inner,
            config.feed_forward_bias,
        );
    }
    table.norm("norm", "norm.*", hidden, config.norm);
    if !config.tied_head {
        table.add("head.weight", "head.weight", &[config.vocab_size, hidden]);
    }
    table
}

/// Every parameter of a T5.
pub fn t5(config: &T5Config) -> NameTable {
    let mut table = NameTable::new("T5", &[]);
    let hidden = config.hidden_size;
    let vocabulary = [config.vocab_size, hidden];
    table.add("encoder.tokens", "encoder.tokens", &vocabulary);
    if !config.shared_tokens {
        table.add("decoder.tokens", "decoder.tokens", &vocabulary);
    }
    for (stack, sizes) in [("encoder", &config.encoder), ("decoder", &config.decoder)] {
        match sizes.positions {
            StackPositions::Learned { count } => {
                let path = format!("{stack}.positions");
                table.add(&path, &path, &[count, hidden]);
            }
            StackPositions::Relative { buckets, .. } => {
                let path = format!("{stack}.relative_bias");
                table.add(&path, &path, &[buckets, sizes.heads]);
            }
        }
        for layer in 0..sizes.layers {
            stack_layer(&mut table, &format!("{stack}.{layer}"), sizes, hidden);
        }
        let norm = format!("{stack}.norm");
        table.norm(&norm, &module(&norm), hidden, sizes.norm);
    }
    if !config.tied_head {
        table.add("head.weight", "head.weight", &vocabulary);
    }
    if config.head_bias {
        table.add("head.bias", "head.bias", &[config.vocab_size]);
    }
    table
}

fn stack_layer(table: &mut NameTable, layer: &str, sizes: &StackConfig, hidden: usize) {
    let width = sizes.heads * sizes.head_size;
    let path = |rest: &str| format!("{layer}.{rest}");
    let mut attentions = vec![("self_attention", vec![("query_key_value", 3 * width)])];
    if layer.starts_with("decoder") {
        attentions.push((
            "cross_attention",
            vec![("query", width), ("key_value", 2 * width)],
        ));
    }
    for (attention, projections) in attentions {
        let norm = path(&format!("{attention}.norm"));
        table.norm(&norm, &module(&norm), hidden, sizes.norm);
        for (projection, outputs) in projections {
            let path = path(&format!("{attention}.{projection}"));
            linear(table, &path, outputs, hidden, sizes.bias);
        }
        linear(
            table,
            &path(&format!("{attention}.output")),
            hidden,
            width,
            sizes.bias,
        );
    }
    let norm = path("feed_forward.norm");
    table.norm(&norm, &module(&norm), hidden, sizes.norm);
    let inner = sizes.feed_forward_size;
    let up = if sizes.gated { 2 * inner } else { inner };
    linear(table, &path("feed_forward.up"), up, hidden, sizes.bias);
    linear(table, &path("feed_forward.down"), hidden, inner, sizes.bias);
}

fn linear(table: &mut NameTable, path: &str, outputs: usize, inputs: usize, bias: bool) {
    table.linear(&Linear {
        path,
        keys: &[module(path)],
        outputs: &[outputs],
        inputs,
        bias,
        stored: Stored::Plain,
        split: Split::Replicated,
    });
}
