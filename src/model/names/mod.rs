//! Tables of names: our parameter paths, the keys a checkpoint has for them, their shapes, and how their numbers lie.
//!
//! A model's code asks for paths and knows no file format; a format is a table here, one file for each. A table says
//! also how tensor-parallel ranks split each tensor, so that partitions are merged and cut by it.
//!
//! Paths of a GPT: `tokens`, `positions`, `{layer}.attention.{norm,query_key_value,output}.{weight,bias}`,
//! `{layer}.feed_forward.{norm,up,down}.{weight,bias}`, `norm.{weight,bias}`, `head.weight`. A T5 has the same below
//! `encoder.` and `decoder.`, where attention is `self_attention` or `cross_attention.{norm,query,key_value,output}`,
//! and tables `encoder.tokens`, `decoder.tokens`, `{stack}.positions`, `{stack}.relative_bias`.
//! `query_key_value` is all queries, then all keys, then all values; a gated `up` is the gate, then what it gates.

pub mod gpt2;
pub mod gpt_neox;
pub mod llama;
pub mod megatron_core;
pub mod megatron_gpt;
pub mod megatron_t5;
pub mod plain;
pub mod t5;
pub mod transformer_engine;

use crate::model::config::NormKind;
pub use crate::tensors::megatron::Split;

/// A piece of a parameter as a checkpoint stores it.
#[derive(Clone, Debug)]
pub struct Part {
    /// Keys it may have; the first that is there is taken.
    pub keys: Vec<String>,
    /// As stored, whole over all ranks.
    pub shape: Vec<usize>,
}

/// How the numbers of a parameter lie, compared with what the model computes with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stored {
    /// The same; linear weights are [out, in].
    #[default]
    Plain,
    /// A linear weight as [in, out].
    InOut,
    /// Less one (LayerNorm1P).
    LessOne,
    /// Output rows of several projections in turns: `groups` times rows of the first, then of the second, and so on.
    Interleaved {
        /// Attention heads, or groups of them that share a key.
        groups: usize,
        /// Rows of each projection in a group.
        widths: Vec<usize>,
    },
}

/// One parameter.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The model's own path, such as `3.attention.output.weight`.
    pub path: String,
    /// Tensors that make it, one after the other by output rows.
    pub parts: Vec<Part>,
    /// How its numbers lie.
    pub stored: Stored,
    /// How ranks share each part.
    pub split: Split,
}

/// All parameters of a model in one format.
#[derive(Clone, Debug)]
pub struct NameTable {
    /// For messages: `GPT-2`, `T5`.
    pub architecture: &'static str,
    /// Every parameter.
    pub slots: Vec<Slot>,
    /// Pieces of keys that checkpoints of this format may hold and no model needs (masks, tied copies).
    pub ignored: Vec<&'static str>,
}

/// A linear layer for [`NameTable::linear`].
pub struct Linear<'a> {
    /// Path without `.weight`.
    pub path: &'a str,
    /// Keys of its parts, see [`NameTable::add`].
    pub keys: &'a [String],
    /// Output rows of each part.
    pub outputs: &'a [usize],
    /// Input columns.
    pub inputs: usize,
    /// Whether it has a bias.
    pub bias: bool,
    /// How the numbers lie.
    pub stored: Stored,
    /// How ranks share the weight; a bias goes along with rows and is replicated with columns.
    pub split: Split,
}

impl NameTable {
    /// An empty table.
    pub fn new(architecture: &'static str, ignored: &[&'static str]) -> Self {
        Self {
            architecture,
            slots: vec![],
            ignored: ignored.to_vec(),
        }
    }

    /// Adds one parameter of one part. `key` may name alternatives, divided by `|`.
    pub fn add(&mut self, path: impl Into<String>, key: &str, shape: &[usize]) -> &mut Slot {
        self.slots.push(Slot {
            path: path.into(),
            parts: vec![Part {
                keys: key.split('|').map(str::to_owned).collect(),
                shape: shape.to_vec(),
            }],
            stored: Stored::Plain,
            split: Split::Replicated,
        });
        self.slots.last_mut().expect("one was just added")
    }

    /// Adds weight and bias of a linear layer. In keys, `*` stands for `weight` or `bias`.
    pub fn linear(&mut self, linear: &Linear<'_>) {
        let kinds: &[&str] = if linear.bias {
            &["weight", "bias"]
        } else {
            &["weight"]
        };
        for &kind in kinds {
            let is_bias = kind == "bias";
            let parts = linear.keys.iter().zip(linear.outputs);
            self.slots.push(Slot {
                path: format!("{}.{kind}", linear.path),
                parts: parts
                    .map(|(key, &outputs)| Part {
                        keys: key.split('|').map(|key| key.replace('*', kind)).collect(),
                        shape: match (is_bias, &linear.stored) {
                            (true, _) => vec![outputs],
                            (false, Stored::InOut) => vec![linear.inputs, outputs],
                            (false, _) => vec![outputs, linear.inputs],
                        },
                    })
                    .collect(),
                stored: match (&linear.stored, is_bias) {
                    (Stored::InOut, true) => Stored::Plain,
                    (stored, _) => stored.clone(),
                },
                split: match (linear.split, is_bias) {
                    (Split::Columns, true) => Split::Replicated,
                    (split, _) => split,
                },
            });
        }
    }

    /// Adds weight and, but for RMSNorm, bias of a norm. In `key`, `*` stands for `weight` or `bias`.
    pub fn norm(&mut self, path: &str, key: &str, size: usize, kind: NormKind) {
        let weight = self.add(
            format!("{path}.weight"),
            &key.replace('*', "weight"),
            &[size],
        );
        if kind == NormKind::LayerNorm1p {
            weight.stored = Stored::LessOne;
        }
        if kind != NormKind::RmsNorm {
            self.add(format!("{path}.bias"), &key.replace('*', "bias"), &[size]);
        }
    }

    /// Whether `key` is something that the format is known to carry along.
    pub fn is_ignored(&self, key: &str) -> bool {
        self.ignored.iter().any(|piece| key.contains(piece))
    }

    /// How ranks share each tensor, by key.
    pub fn splits(&self) -> impl Iterator<Item = (String, Split)> {
        self.slots.iter().flat_map(|slot| {
            let keys = slot.parts.iter().flat_map(|part| part.keys.iter());
            keys.map(|key| (key.clone(), slot.split))
        })
    }
}

/// `*` behind `key` where it is a module's name.
fn module(key: &str) -> String {
    format!("{key}.*")
}
