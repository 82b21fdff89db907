//! What a pickle may name: the classes and functions of state dicts, of what trainings leave beside them, and of the
//! description of a distributed checkpoint. Everything else is refused; nothing of it is ever called.

use super::TorchError;

/// Classes of the `.metadata` of `torch.distributed.checkpoint` whose fields are read. None of them is ever made:
/// see [`super::pickle::load_metadata`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// `Metadata`: all tensors and where they are.
    Metadata,
    /// `TensorStorageMetadata`: type, shape and chunks of a tensor.
    Tensor,
    /// `TensorProperties`: its state is a tuple that begins with the type.
    Properties,
    /// `BytesStorageMetadata`: something that is no tensor.
    Bytes,
    /// `ChunkStorageMetadata`: offsets and sizes of a chunk.
    Chunk,
    /// `MetadataIndex`: name and offset of a chunk.
    Index,
    /// `_StorageInfo`: file, offset and length of a chunk.
    Place,
}

/// Classes and functions that a state dict may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`
    RebuildParameter,
    /// `torch.Size`
    Size,
    /// `torch.device`
    Device,
    /// A storage class of the legacy kind, which names the element type.
    Storage(Element),
    /// `torch.<dtype>` as a value; without an element where no storage here has this type.
    Dtype(Option<Element>),
    /// `set`, `frozenset`
    Set,
    /// `_codecs.encode`: how protocol 2 spells bytes.
    Encode,
    /// `bytearray`, which protocol 2 makes of bytes.
    ByteArray,
    /// `io.BytesIO`, which Transformer Engine leaves in state dicts.
    BytesIo,
    /// `collections.defaultdict`
    DefaultDict,
    /// A class whose objects are read by their fields.
    Record(Record),
    /// A class that stands beside the weights in training checkpoints: see [`is_inert`].
    Inert,
}

/// Element types of storages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 64-bit float
    F64,
    /// 32-bit float
    F32,
    /// IEEE half
    F16,
    /// bfloat16
    BF16,
    /// signed 64 bits
    I64,
    /// signed 32 bits
    I32,
    /// signed 16 bits
    I16,
    /// signed 8 bits
    I8,
    /// unsigned 8 bits
    U8,
    /// a byte for a truth value
    Bool,
}

impl Element {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

/// What a pickle may name.
#[derive(Clone, Copy)]
pub(super) enum Vocabulary {
    /// State dicts and what trainings leave beside them.
    StateDict,
    /// The same, and the description of a distributed checkpoint.
    Metadata,
}

impl Vocabulary {
    /// What the name stands for.
    ///
    /// # Errors
    /// [`TorchError::ForbiddenGlobal`]
    pub(super) fn global(self, module: &str, name: &str) -> Result<Global, TorchError> {
        let known = match self {
            Self::StateDict => None,
            Self::Metadata => global_of_metadata(module, name),
        };
        known.map_or_else(|| global(module, name), Ok)
    }
}

/// The classes of a distributed checkpoint's `.metadata`, as PyTorch 2.0 and later name them.
fn global_of_metadata(module: &str, name: &str) -> Option<Global> {
    let record = match (module, name) {
        ("torch.distributed.checkpoint.metadata", "Metadata")
        | ("megatron.core.dist_checkpointing.strategies.torch", "MCoreMetadata") => {
            Record::Metadata
        }
        ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata") => Record::Tensor,
        ("torch.distributed.checkpoint.metadata", "BytesStorageMetadata") => Record::Bytes,
        ("torch.distributed.checkpoint.metadata", "ChunkStorageMetadata") => Record::Chunk,
        ("torch.distributed.checkpoint.metadata", "MetadataIndex") => Record::Index,
        (
            "torch.distributed.checkpoint.metadata"
            | "torch.distributed._shard.sharded_tensor.metadata",
            "TensorProperties",
        ) => Record::Properties,
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo") => Record::Place,
        // megatron-core keeps the plans of all ranks beside the metadata.
        (
            "torch.distributed.checkpoint.planner",
            "SavePlan" | "WriteItem" | "WriteItemType" | "TensorWriteData" | "BytesIOWriteData",
        )
        | (
            "torch.distributed.checkpoint.metadata",
            "_MEM_FORMAT_ENCODING" | "MEM_FORMAT_ENCODING" | "StorageMeta",
        )
        | ("torch.distributed._shard.sharded_tensor.metadata", "MEM_FORMAT_ENCODING")
        | ("torch.distributed.checkpoint.filesystem", "_StoragePrefix")
        | ("torch.serialization", "_get_layout") => return Some(Global::Inert),
        (
            "torch",
            "uint16" | "uint32" | "uint64" | "complex32" | "complex64" | "complex128"
            | "float8_e4m3fn" | "float8_e4m3fnuz" | "float8_e5m2" | "float8_e5m2fnuz"
            | "float8_e8m0fnu",
        ) => return Some(Global::Dtype(None)),
        _ => return None,
    };
    Some(Global::Record(record))
}

fn global(module: &str, name: &str) -> Result<Global, TorchError> {
    let element = |name: &str| {
        Some(match name {
            "DoubleStorage" => Element::F64,
            "FloatStorage" => Element::F32,
            "HalfStorage" => Element::F16,
            "BFloat16Storage" => Element::BF16,
            "LongStorage" => Element::I64,
            "IntStorage" => Element::I32,
            "ShortStorage" => Element::I16,
            "CharStorage" => Element::I8,
            "ByteStorage" => Element::U8,
            "BoolStorage" => Element::Bool,
            _ => return None,
        })
    };
    let dtype = |name: &str| {
        Some(match name {
            "float64" => Element::F64,
            "float32" => Element::F32,
            "float16" => Element::F16,
            "bfloat16" => Element::BF16,
            "int64" => Element::I64,
            "int32" => Element::I32,
            "int16" => Element::I16,
            "int8" => Element::I8,
            "uint8" => Element::U8,
            "bool" => Element::Bool,
            _ => return None,
        })
    };
    let found = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
        ("torch", "Size") => Some(Global::Size),
        ("torch", "device") => Some(Global::Device),
        ("__builtin__" | "builtins", "set" | "frozenset") => Some(Global::Set),
        ("__builtin__" | "builtins", "bytearray") => Some(Global::ByteArray),
        ("_codecs", "encode") => Some(Global::Encode),
        ("_io" | "io", "BytesIO") => Some(Global::BytesIo),
        ("collections", "defaultdict") => Some(Global::DefaultDict),
        ("torch", name) if dtype(name).is_some() => Some(Global::Dtype(dtype(name))),
        ("torch" | "torch.storage", name) if element(name).is_some() => {
            element(name).map(Global::Storage)
        }
        _ if is_inert(module, name) => Some(Global::Inert),
        _ => None,
    };
    found.ok_or_else(|| TorchError::ForbiddenGlobal(format!("{module}.{name}")))
}

/// Packages whose objects a training leaves in its checkpoints.
const INERT_PACKAGES: &[&str] = &[
    "apex",
    "lightning",
    "lightning_fabric",
    "megatron",
    "nemo",
    "omegaconf",
    "pytorch_lightning",
    "transformer_engine",
    "typing",
];

/// Whether a global stands for something beside the weights: hyperparameters, callbacks, loops, a generator's state.
/// Nothing is ever made or called of it: calling it gives [`super::pickle::Object::Opaque`], in which nothing is looked for.
fn is_inert(module: &str, name: &str) -> bool {
    let package = module.split('.').next().unwrap_or(module);
    if INERT_PACKAGES.contains(&package) {
        return true;
    }
    match module {
        "__builtin__" | "builtins" => matches!(
            name,
            "dict"
                | "list"
                | "tuple"
                | "int"
                | "long"
                | "float"
                | "complex"
                | "bool"
                | "str"
                | "unicode"
                | "bytes"
                | "object"
                | "type"
                | "slice"
                | "range"
                | "xrange"
                | "NoneType"
        ),
        "types" => name == "NoneType",
        "collections" => matches!(name, "Counter" | "deque"),
        "_operator" | "operator" => name == "getitem", // `typing.Optional[int]` is written as a call of it
        "pathlib" | "pathlib._local" => name.ends_with("Path"),
        "datetime" => matches!(
            name,
            "datetime" | "date" | "time" | "timedelta" | "timezone"
        ),
        "argparse" => name == "Namespace",
        "enum" => matches!(name, "Enum" | "IntEnum"),
        "numpy" => matches!(name, "dtype" | "ndarray"),
        "numpy.core.multiarray" | "numpy._core.multiarray" => {
            matches!(name, "scalar" | "_reconstruct")
        }
        "torch.torch_version" => name == "TorchVersion",
        _ => false,
    }
}
