//! Bytes to named tensors and back; knows no model.
//!
//! A [`TensorSource`] is anything that holds named tensors: a safetensors file or a folder of shards
//! ([`safetensors`]), or a map in memory ([`InMemory`]). Loading is lazy: a name is looked up in a header, and bytes
//! are touched when the tensor is asked for.

pub mod distributed;
pub mod mapped;
pub mod megatron;
pub mod nemo;
pub mod nemo_files;
pub mod nemo_writer;
pub mod safetensors;
pub mod torch;

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};

/// Lets go of mapped pages whose numbers were copied, so that a model is not in memory twice while it loads. They stay
/// in the system's cache and come back when they are read again.
#[expect(
    unsafe_code,
    reason = "the advice is unsafe for maps that are written to"
)]
fn let_go(map: &memmap2::Mmap, range: std::ops::Range<usize>) {
    // Below this the call costs more than it frees.
    const WORTH_IT: usize = 1 << 20;
    if range.len() < WORTH_IT {
        return;
    }
    #[cfg(unix)]
    {
        // SAFETY: the map is of a file and read-only, so its pages are what the file holds whenever they are read.
        let advised = unsafe {
            map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
        };
        if let Err(error) = advised {
            tracing::debug!("the system keeps the pages of a map: {error}");
        }
    }
}

/// What a header says about a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Type of the stored numbers.
    pub dtype: DType,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
}

/// Why a file or a tensor in it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// The file cannot be opened or mapped; the message names it.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The file is not what its name says.
    #[error("{file}: {reason}")]
    Malformed {
        /// Path of the file.
        file: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The numbers are of a type that no model here uses.
    #[error("{file}: tensor `{name}` holds {dtype}, which is not supported here")]
    UnsupportedDtype {
        /// Path of the file.
        file: String,
        /// Name of the tensor.
        name: String,
        /// The file's name of the type.
        dtype: String,
    },
    /// There is no such tensor.
    #[error("{file}: no tensor `{name}`")]
    Missing {
        /// Path of the file.
        file: String,
        /// Name of the tensor.
        name: String,
    },
    /// candle refused.
    #[error("{file}: tensor `{name}`: {source}")]
    Candle {
        /// Path of the file.
        file: String,
        /// Name of the tensor.
        name: String,
        /// candle's words.
        source: candle_core::Error,
    },
}

/// Named tensors that are loaded one by one.
pub trait TensorSource: Send + Sync {
    /// All names, sorted.
    fn names(&self) -> Vec<String>;
    /// Type and shape, without reading the numbers.
    fn info(&self, name: &str) -> Option<TensorInfo>;
    /// The tensor in its stored type.
    ///
    /// # Errors
    /// [`TensorError::Missing`] where there is none of that name, and what reading it meets.
    fn load(&self, name: &str, device: &Device) -> Result<Tensor, TensorError>;
    /// The tensor where it lies in a mapped file, where it lies so that its numbers can be used there.
    fn mapped(&self, name: &str) -> Option<mapped::MappedTensor> {
        let _ = name;
        None
    }
    /// Where the tensors come from, for messages: usually a path.
    fn describe(&self) -> String;
}

/// Tensors in memory, for tests and for conversions.
#[derive(Clone, Debug, Default)]
pub struct InMemory {
    tensors: BTreeMap<String, Tensor>,
}

impl InMemory {
    /// Holds `tensors` under their names.
    pub fn new(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Self {
        Self {
            tensors: tensors.into_iter().collect(),
        }
    }
}

impl TensorSource for InMemory {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.tensors.get(name).map(|tensor| TensorInfo {
            dtype: tensor.dtype(),
            shape: tensor.dims().to_vec(),
        })
    }

    fn load(&self, name: &str, device: &Device) -> Result<Tensor, TensorError> {
        let tensor = self.tensors.get(name).ok_or_else(|| TensorError::Missing {
            file: self.describe(),
            name: name.to_owned(),
        })?;
        tensor
            .to_device(device)
            .map_err(|source| TensorError::Candle {
                file: self.describe(),
                name: name.to_owned(),
                source,
            })
    }

    fn describe(&self) -> String {
        "tensors in memory".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_in_memory_are_listed_in_order_and_a_missing_one_is_named() {
        let zeros = |n: usize| Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
        let source = InMemory::new([("b".to_owned(), zeros(2)), ("a".to_owned(), zeros(3))]);
        assert_eq!(source.names(), ["a", "b"]);
        assert_eq!(source.info("a").unwrap().shape, [3]);
        let error = source.load("c", &Device::Cpu).unwrap_err();
        assert_eq!(error.to_string(), "tensors in memory: no tensor `c`");
    }
}
