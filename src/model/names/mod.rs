//! Tables of names: our parameter path, the keys a checkpoint may have for it, and the shape it must have.
//!
//! A model's code asks for paths and knows no file format; a format is a table here.

pub mod hugging_face;

/// One parameter.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The model's own path, such as `decoder.3.attention.query`.
    pub path: String,
    /// Keys it may have in the checkpoint; the first that is there is taken.
    pub keys: Vec<String>,
    /// As the checkpoint stores it.
    pub shape: Vec<usize>,
}

impl Slot {
    /// A parameter with one possible key.
    pub fn new(path: impl Into<String>, key: impl Into<String>, shape: &[usize]) -> Self {
        Self {
            path: path.into(),
            keys: vec![key.into()],
            shape: shape.to_vec(),
        }
    }
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

impl NameTable {
    /// Whether `key` is something that the format is known to carry along.
    pub fn is_ignored(&self, key: &str) -> bool {
        self.ignored.iter().any(|piece| key.contains(piece))
    }
}
