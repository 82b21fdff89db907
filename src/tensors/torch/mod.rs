//! Checkpoints as `torch.save` writes them: a zip of a pickle and one stored entry for each storage.
//!
//! The pickle is run by a restricted machine ([`pickle`]) that knows the few globals of a state dict and calls nothing.
//! The layout is that of PyTorch 1.6 and later (`torch/serialization.py`); `torch.load(weights_only=True)` reads what
//! [`write`] makes.

mod globals;
pub mod pickle;
mod reader;
mod view;
mod writer;

use candle_core::Tensor;
use indexmap::IndexMap;

pub(super) use reader::map;
pub use reader::{TorchFile, read, read_file};
pub(super) use view::candle_dtype;
pub(crate) use writer::little_endian_bytes;
pub use writer::{write, write_tensors};

/// What a state dict holds.
#[derive(Clone, Debug)]
pub enum StateValue {
    /// A tensor.
    Tensor(Tensor),
    /// A mapping with text keys, in its order.
    Dict(IndexMap<String, StateValue>),
    /// A list, a tuple or a set.
    List(Vec<StateValue>),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A whole number.
    Integer(i64),
    /// A fraction.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Nothing, or something that no reader here needs (an optimizer's class, a device).
    Null,
}

impl StateValue {
    /// The mapping, where this is one.
    pub fn as_dict(&self) -> Option<&IndexMap<String, Self>> {
        match self {
            Self::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// The tensor, where this is one.
    pub fn as_tensor(&self) -> Option<&Tensor> {
        match self {
            Self::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The value under `key`, where this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_dict()?.get(key)
    }
}

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TorchError {
    /// The file cannot be read; the message names it.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It is no zip archive.
    #[error("not a torch checkpoint: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// It is an archive, and not a checkpoint that can be trusted.
    #[error("not a torch checkpoint: {0}")]
    Malformed(String),
    /// The archive lacks an entry.
    #[error("the archive has no entry `{0}`")]
    MissingEntry(String),
    /// The pickle breaks off or contradicts itself.
    #[error("the pickle is broken at byte {position}: {reason}")]
    Pickle {
        /// Offset in `data.pkl`.
        position: usize,
        /// What does not fit.
        reason: String,
    },
    /// The pickle asks for something a state dict does not need.
    #[error("the pickle names `{0}`, which is not among the types a checkpoint may hold")]
    ForbiddenGlobal(String),
    /// A tensor reaches outside its storage, or its numbers are of a type that candle lacks.
    #[error("a tensor of storage {storage}: {reason}")]
    Tensor {
        /// Name of the storage's entry.
        storage: String,
        /// What does not fit.
        reason: String,
    },
    /// candle refused.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
