//! NeMo's GPT before megatron-core: `model.language_model.encoder.layers.0.self_attention.query_key_value.weight`.

use super::{Linear, NameTable, Split, Stored};
use crate::model::config::{GptConfig, MegatronVariant, NormKind};

/// Column-parallel layers and vocabularies.
pub(super) const ROWS: Split = Split::Rows { blocks: 1 };

/// The table for `config`.
pub fn table(config: &GptConfig, variant: MegatronVariant) -> NameTable {
    let mut table = NameTable::new("Megatron GPT", &IGNORED);
    outer(
        &mut table,
        config,
        "model.language_model",
        "encoder.final_layernorm",
        "embedding",
    );
    for layer in 0..config.layers {
        let layer = Layer {
            path: &layer.to_string(),
            attention: "attention",
            key: &format!("model.language_model.encoder.layers.{layer}"),
            hidden: config.hidden_size,
            heads: config.heads,
            head_size: config.head_size,
            inner: config.feed_forward_size,
            gated: config.gated,
            bias: config.output_bias,
            norm: config.norm,
            variant,
        };
        self::layer(&mut table, &layer);
        layer.norm(&mut table, "feed_forward", "post_attention_layernorm");
    }
    table
}

/// What NeMo saves beside the parameters: states of Transformer Engine, frequencies, the last stage's copy of the tied
/// embedding.
pub(super) const IGNORED: [&str; 3] = [
    "_extra_state",
    "rotary_pos_emb.inv_freq",
    "model.word_embeddings.weight",
];

/// Embeddings, final norm and head, below `prefix`.
pub(super) fn outer(
    table: &mut NameTable,
    config: &GptConfig,
    prefix: &str,
    final_norm: &str,
    embedding: &str,
) {
    let hidden = config.hidden_size;
    let vocabulary = [config.vocab_size, hidden];
    let tokens = format!("{prefix}.{embedding}.word_embeddings.weight");
    table.add("tokens", &tokens, &vocabulary).split = ROWS;
    if config.rotary.is_none() {
        table.add(
            "positions",
            &format!("{prefix}.{embedding}.position_embeddings.weight"),
            &[config.max_positions, hidden],
        );
    }
    table.norm(
        "norm",
        &format!("{prefix}.{final_norm}.*"),
        hidden,
        config.norm,
    );
    if config.tied_head {
        table.ignored.push("output_layer.weight");
    } else {
        let head = format!("{prefix}.output_layer.weight");
        table.add("head.weight", &head, &vocabulary).split = ROWS;
    }
}

/// A layer as NeMo's own `ParallelTransformer` names it, in a GPT or a T5.
pub(super) struct Layer<'a> {
    /// Our path of the layer.
    pub(super) path: &'a str,
    /// Our name of its self-attention.
    pub(super) attention: &'a str,
    /// Key of the layer.
    pub(super) key: &'a str,
    pub(super) hidden: usize,
    pub(super) heads: usize,
    pub(super) head_size: usize,
    pub(super) inner: usize,
    pub(super) gated: bool,
    pub(super) bias: bool,
    pub(super) norm: NormKind,
    pub(super) variant: MegatronVariant,
}

impl Layer<'_> {
    /// `count` projections of all heads in one tensor.
    pub(super) fn projections(&self, count: usize) -> (Stored, Split) {
        if self.variant.legacy_heads {
            return (Stored::Plain, Split::Rows { blocks: count });
        }
        let stored = Stored::Interleaved {
            groups: self.heads,
            widths: vec![self.head_size; count],
        };
        (stored, ROWS)
    }

    /// Adds a linear layer of ours, `path`, from the keys `names`.
    pub(super) fn linear(
        &self,
        table: &mut NameTable,
        path: &str,
        names: &[&str],
        (outputs, inputs): (usize, usize),
        (stored, split): (Stored, Split),
    ) {
        let keys: Vec<String> = names
            .iter()
            .map(|name| format!("{}.{name}.*", self.key))
            .collect();
        table.linear(&Linear {
            path: &format!("{}.{path}", self.path),
            keys: &keys,
            outputs: &vec![outputs; names.len()],
            inputs,
            bias: self.bias,
            stored,
            split,
        });
    }

    /// Adds a norm of ours, `path`, from the key `name`.
    pub(super) fn norm(&self, table: &mut NameTable, path: &str, name: &str) {
        table.norm(
            &format!("{}.{path}.norm", self.path),
            &format!("{}.{name}.*", self.key),
            self.hidden,
            self.norm,
        );
    }
}

/// Self-attention and feed-forward of a layer.
pub(super) fn layer(table: &mut NameTable, layer: &Layer<'_>) {
    let (hidden, width, inner) = (layer.hidden, layer.heads * layer.head_size, layer.inner);
    let attention = layer.attention;
    layer.norm(table, attention, "input_layernorm");
    layer.linear(
        table,
        &format!("{attention}.query_key_value"),
        &["self_attention.query_key_value"],
        (3 * width, hidden),
        layer.projections(3),
    );
    layer.linear(
        table,
        &format!("{attention}.output"),
        &["self_attention.dense"],
        (hidden, width),
        (Stored::Plain, Split::Columns),
    );
    let plain = (Stored::Plain, ROWS);
    let up = "feed_forward.up";
    match (layer.gated, layer.variant.joined_gate) {
        (false, _) => layer.linear(table, up, &["mlp.dense_h_to_4h"], (inner, hidden), plain),
        (true, false) => layer.linear(
            table,
            up,
            &["mlp.dense_h_to_4h", "mlp.dense_h_to_4h_2"],
            (inner, hidden),
            plain,
        ),
        (true, true) => layer.linear(
            table,
            up,
            &["mlp.dense_h_to_4h"],
            (2 * inner, hidden),
            (Stored::Plain, Split::Rows { blocks: 2 }),
        ),
    }
    layer.linear(
        table,
        "feed_forward.down",
        &["mlp.dense_4h_to_h"],
        (hidden, inner),
        (Stored::Plain, Split::Columns),
    );
}
