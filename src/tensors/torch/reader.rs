//! From a zip to a [`StateValue`], or to tensors that are read when they are asked for.
//!
//! Entries are stored, not compressed, so a checkpoint's memory is bounded by its own size; what a hostile file could
//! multiply (shared objects, many views of one storage) is counted against that size.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Cursor;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use indexmap::IndexMap;
use memmap2::Mmap;

use super::pickle::{self, Element, Object, Pickle, TensorRef, Value};
use super::view::{View, candle_dtype, gather, is_contiguous};
use super::{StateValue, TorchError};
use crate::tensors::mapped::MappedTensor;
use crate::tensors::{TensorError, TensorInfo, TensorSource, let_go};

/// Depth to which dicts and lists may nest.
const MAX_DEPTH: usize = 64;
/// How many times its size a file may grow in memory, by views that overlap.
const MAX_GROWTH: usize = 8;
/// What even a small file may grow to: bytes.
const FREE_GROWTH: usize = 1 << 20;

/// Reads the checkpoint in `bytes`. The check sum of every entry it uses is compared.
///
/// # Errors
/// Whatever is wrong with the archive, its pickle or a tensor in it.
pub fn read(bytes: &[u8]) -> Result<StateValue, TorchError> {
    let contents = Contents::parse(bytes)?;
    let limit = bytes
        .len()
        .saturating_mul(MAX_GROWTH)
        .saturating_add(FREE_GROWTH);
    let mut conversion = Conversion {
        contents: &contents,
        bytes,
        checked: HashSet::new(),
        tensors: HashMap::new(),
        left: limit,
    };
    conversion.convert(contents.pickle.root, 0)
}

/// Reads the checkpoint at `path`.
///
/// # Errors
/// As [`read`], and when the file cannot be read.
pub fn read_file(path: &Path) -> Result<StateValue, TorchError> {
    read(&map(path)?)
}

#[expect(
    unsafe_code,
    reason = "mapping a file is unsafe by nature: another process may change it"
)]
pub(in crate::tensors) fn map(path: &Path) -> std::io::Result<Mmap> {
    let file = fs_err::File::open(path)?;
    // SAFETY: the map is read-only and private to its owner. A checkpoint that another process truncates while it is in
    // use ends this process, as it would with any mapped file; nothing here writes to checkpoints in place.
    unsafe { Mmap::map(file.file()) }
}

/// Where things are in a checkpoint.
struct Contents {
    /// Entries by their name without the archive's folder.
    entries: HashMap<String, Entry>,
    pickle: Pickle,
}

#[derive(Clone, Debug)]
struct Entry {
    range: Range<usize>,
    check_sum: u32,
}

impl Contents {
    fn parse(bytes: &[u8]) -> Result<Self, TorchError> {
        if bytes.starts_with(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9") {
            return Err(TorchError::Malformed(
                "the format from before PyTorch 1.6; load it there and save it again".to_owned(),
            ));
        }
        let entries = list_entries(bytes)?;
        let entry = |name: &str| {
            let entry = entries.get(name);
            entry.ok_or_else(|| TorchError::MissingEntry(name.to_owned()))
        };
        if let Ok(order) = entry("byteorder")
            && bytes[order.range.clone()] != *b"little"
        {
            return Err(TorchError::Malformed(
                "its numbers are big-endian".to_owned(),
            ));
        }
        let pickle = entry("data.pkl")?;
        pickle.check("data.pkl", bytes)?;
        let pickle = pickle::load(&bytes[pickle.range.clone()])?;
        Ok(Self { entries, pickle })
    }

    fn storage(&self, key: &str) -> Result<&Entry, TorchError> {
        let name = format!("data/{key}");
        self.entries
            .get(&name)
            .ok_or(TorchError::MissingEntry(name))
    }
}

impl Entry {
    fn check(&self, name: &str, bytes: &[u8]) -> Result<(), TorchError> {
        let mut sum = flate2::Crc::new();
        sum.update(&bytes[self.range.clone()]);
        if sum.sum() == self.check_sum {
            return Ok(());
        }
        Err(TorchError::Malformed(format!(
            "the check sum of entry `{name}` does not fit: the file is damaged"
        )))
    }
}

/// The entries of the folder that holds `data.pkl`; each stored, inside the file, and apart from the others.
fn list_entries(bytes: &[u8]) -> Result<HashMap<String, Entry>, TorchError> {
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes))?;
    let mut all = vec![];
    for index in 0..zip.len() {
        let entry = zip.by_index(index)?;
        let name = entry.name()?.into_owned();
        if entry.is_dir() {
            continue;
        }
        if entry.compression() != zip::CompressionMethod::Stored
            || entry.size() != entry.compressed_size()
        {
            return Err(TorchError::Malformed(format!(
                "entry `{name}` is compressed, which torch does not do"
            )));
        }
        let range = entry.data_start().and_then(|start| {
            let end = start.checked_add(entry.size())?;
            let range = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
            (range.end <= bytes.len()).then_some(range)
        });
        let range = range.ok_or_else(|| {
            TorchError::Malformed(format!("entry `{name}` reaches past the end of the file"))
        })?;
        all.push((
            name,
            Entry {
                range,
                check_sum: entry.crc32(),
            },
        ));
    }
    all.sort_by_key(|(_, entry)| (entry.range.start, entry.range.end));
    for pair in all.windows(2) {
        if pair[0].1.range.end > pair[1].1.range.start {
            return Err(TorchError::Malformed(format!(
                "entries `{}` and `{}` overlap",
                pair[0].0, pair[1].0
            )));
        }
    }
    let prefix = all
        .iter()
        .filter_map(|(name, _)| name.strip_suffix("data.pkl"))
        .find(|prefix| prefix.is_empty() || prefix.ends_with('/'))
        .ok_or_else(|| TorchError::MissingEntry("data.pkl".into()))?
        .to_owned();
    Ok(all
        .into_iter()
        .filter_map(|(name, entry)| Some((name.strip_prefix(&prefix)?.to_owned(), entry)))
        .collect())
}

/// Makes a [`StateValue`] of a pickle.
struct Conversion<'a> {
    contents: &'a Contents,
    bytes: &'a [u8],
    /// Storages whose check sum was compared.
    checked: HashSet<&'a str>,
    /// Tensors by their object, so that one that stands in two places is read once.
    tensors: HashMap<usize, Tensor>,
    /// Bytes that may still be made.
    left: usize,
}

impl<'a> Conversion<'a> {
    fn charge(&mut self, bytes: usize) -> Result<(), TorchError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(TorchError::Malformed(
                "it describes far more than it holds".to_owned(),
            )),
        }
    }

    fn convert(&mut self, value: Value, depth: usize) -> Result<StateValue, TorchError> {
        if depth > MAX_DEPTH {
            return Err(TorchError::Malformed(format!(
                "values nest deeper than {MAX_DEPTH}"
            )));
        }
        self.charge(size_of::<StateValue>())?;
        let contents = self.contents;
        let Some(object) = contents.pickle.object(value) else {
            return Ok(match value {
                Value::Bool(value) => StateValue::Bool(value),
                Value::Integer(value) => StateValue::Integer(value),
                Value::Float(value) => StateValue::Float(value),
                Value::Null | Value::Global(_) | Value::Object(_) => StateValue::Null,
            });
        };
        Ok(match object {
            Object::Text(text) => {
                self.charge(text.len())?;
                StateValue::Text(text.clone())
            }
            Object::Bytes(bytes) => {
                self.charge(bytes.len())?;
                StateValue::Bytes(bytes.clone())
            }
            Object::Buffer(content) => self.convert(*content, depth + 1)?,
            Object::Tuple(items) | Object::List(items) => {
                let items = items.iter().map(|item| self.convert(*item, depth + 1));
                StateValue::List(items.collect::<Result<_, _>>()?)
            }
            Object::Dict(entries) => {
                let mut dict = IndexMap::new();
                for (key, value) in entries {
                    if let Some(key) = dict_key(&contents.pickle, *key) {
                        self.charge(key.len())?;
                        dict.insert(key, self.convert(*value, depth + 1)?);
                    }
                }
                StateValue::Dict(dict)
            }
            Object::Storage(_) | Object::Record(..) | Object::Opaque => StateValue::Null,
            Object::Tensor(tensor) => StateValue::Tensor(self.tensor(value, tensor)?),
        })
    }

    fn tensor(&mut self, value: Value, tensor: &'a TensorRef) -> Result<Tensor, TorchError> {
        let Value::Object(index) = value else {
            return Err(TorchError::Malformed("a tensor without a place".to_owned()));
        };
        if let Some(known) = self.tensors.get(&index) {
            return Ok(known.clone());
        }
        let key = tensor.storage.key.as_str();
        let entry = self.contents.storage(key)?;
        if self.checked.insert(key) {
            entry.check(&format!("data/{key}"), self.bytes)?;
        }
        let view = View::check(tensor, entry.range.len())?;
        self.charge(view.bytes)?;
        let made = view.read(&self.bytes[entry.range.clone()], &Device::Cpu)?;
        self.tensors.insert(index, made.clone());
        Ok(made)
    }
}

/// Keys are text; whole numbers, as optimizers use them, are written out; no reader here needs others.
fn dict_key(pickle: &Pickle, key: Value) -> Option<String> {
    match (key, pickle.object(key)) {
        (_, Some(Object::Text(text))) => Some(text.clone()),
        (Value::Integer(number), _) => Some(number.to_string()),
        _ => None,
    }
}

/// A checkpoint whose tensors are read when they are asked for; the file is memory-mapped.
///
/// Names of nested dicts are joined with dots. A training checkpoint, which holds its weights under `state_dict`, is
/// read as those weights.
pub struct TorchFile {
    path: PathBuf,
    map: Arc<Mmap>,
    /// Where in the map the checkpoint lies: all of it, but for one inside of an archive.
    place: Range<usize>,
    contents: Contents,
    tensors: BTreeMap<String, TensorRef>,
}

impl TorchFile {
    /// Opens the checkpoint at `path`. No number is read yet, and no check sum of numbers compared.
    ///
    /// # Errors
    /// Where the file cannot be mapped, is not a torch checkpoint, or a tensor does not fit its storage.
    pub fn open(path: &Path) -> Result<Self, TensorError> {
        let map = Arc::new(map(path)?);
        let all = 0..map.len();
        Self::in_map(path, map, all)
    }

    /// Opens the checkpoint that lies at `place` of a mapped file, such as a member of a tar. `path` is for messages.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn in_map(path: &Path, map: Arc<Mmap>, place: Range<usize>) -> Result<Self, TensorError> {
        let malformed = |error: TorchError| TensorError::Malformed {
            file: path.to_owned(),
            reason: error.to_string(),
        };
        let bytes = map.get(place.clone()).ok_or_else(|| {
            malformed(TorchError::Malformed(
                "it lies outside of its archive".to_owned(),
            ))
        })?;
        let contents = Contents::parse(bytes).map_err(malformed)?;
        let mut tensors = BTreeMap::new();
        let limit = bytes
            .len()
            .saturating_mul(MAX_GROWTH)
            .saturating_add(FREE_GROWTH);
        let mut walk = Walk {
            contents: &contents,
            limit,
            left: limit,
            tensors: &mut tensors,
        };
        let root = contents.pickle.root;
        walk.collect(walk.entry(root, "state_dict").unwrap_or(root), "", 0)
            .map_err(malformed)?;
        Ok(Self {
            path: path.to_owned(),
            map,
            place,
            contents,
            tensors,
        })
    }
}

/// A tensor's numbers as they are stored.
pub(in crate::tensors) struct Numbers<'a> {
    /// Type of the stored numbers.
    pub element: Element,
    /// Sizes, outermost first.
    pub shape: &'a [usize],
    /// The numbers in row-major order.
    pub bytes: Cow<'a, [u8]>,
}

impl TorchFile {
    /// The numbers of a tensor, where they lie if they lie one after the other.
    pub(in crate::tensors) fn numbers(&self, name: &str) -> Result<Numbers<'_>, TorchError> {
        let missing = || TorchError::Malformed(format!("it holds no tensor `{name}`"));
        let tensor = self.tensors.get(name).ok_or_else(missing)?;
        let entry = self.contents.storage(&tensor.storage.key)?;
        let view = View::check(tensor, entry.range.len())?;
        let storage = &self.map[self.place.clone()][entry.range.clone()];
        let element = tensor.storage.element;
        let size = element.size();
        let bytes = if view.count == 0 {
            Cow::Borrowed(&[][..])
        } else if is_contiguous(&tensor.shape, &tensor.strides) {
            let start = tensor.offset * size;
            Cow::Borrowed(&storage[start..start + view.count * size])
        } else {
            Cow::Owned(gather(tensor, storage, view.count, size))
        };
        Ok(Numbers {
            element,
            shape: &tensor.shape,
            bytes,
        })
    }
}

/// Collects the tensors of nested dicts.
struct Walk<'a> {
    contents: &'a Contents,
    /// Bytes one tensor may take.
    limit: usize,
    /// Bytes of names that may still be made.
    left: usize,
    tensors: &'a mut BTreeMap<String, TensorRef>,
}

impl Walk<'_> {
    fn entry(&self, dict: Value, wanted: &str) -> Option<Value> {
        let pickle = &self.contents.pickle;
        let Some(Object::Dict(entries)) = pickle.object(dict) else {
            return None;
        };
        let is_wanted =
            |key: Value| matches!(pickle.object(key), Some(Object::Text(text)) if text == wanted);
        let (_, value) = entries.iter().find(|(key, _)| is_wanted(*key))?;
        matches!(pickle.object(*value), Some(Object::Dict(_))).then_some(*value)
    }

    fn collect(&mut self, value: Value, name: &str, depth: usize) -> Result<(), TorchError> {
        let cost = name.len() + size_of::<TensorRef>();
        let too_much = || TorchError::Malformed("it describes far more than it holds".to_owned());
        self.left = self.left.checked_sub(cost).ok_or_else(too_much)?;
        if depth > MAX_DEPTH {
            return Err(TorchError::Malformed(format!(
                "values nest deeper than {MAX_DEPTH}"
            )));
        }
        let contents = self.contents;
        match contents.pickle.object(value) {
            Some(Object::Dict(entries)) => {
                for (key, value) in entries {
                    let Some(key) = dict_key(&contents.pickle, *key) else {
                        continue;
                    };
                    let name = if name.is_empty() {
                        key
                    } else {
                        format!("{name}.{key}")
                    };
                    self.collect(*value, &name, depth + 1)?;
                }
            }
            Some(Object::Tensor(tensor)) => {
                let entry = contents.storage(&tensor.storage.key)?;
                if View::check(tensor, entry.range.len())?.bytes > self.limit {
                    return Err(too_much());
                }
                self.tensors.insert(name.to_owned(), (**tensor).clone());
            }
            _ => {}
        }
        Ok(())
    }
}

impl TensorSource for TorchFile {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.tensors.get(name).map(|tensor| TensorInfo {
            dtype: candle_dtype(tensor.storage.element),
            shape: tensor.shape.clone(),
        })
    }

    fn load(&self, name: &str, device: &Device) -> Result<Tensor, TensorError> {
        let tensor = self.tensors.get(name).ok_or_else(|| TensorError::Missing {
            file: self.describe(),
            name: name.to_owned(),
        })?;
        let read = || {
            let entry = self.contents.storage(&tensor.storage.key)?;
            let view = View::check(tensor, entry.range.len())?;
            let bytes = &self.map[self.place.clone()][entry.range.clone()];
            let tensor = view.read(bytes, device)?;
            let start = self.place.start + entry.range.start;
            let_go(&self.map, start..start + entry.range.len());
            Ok::<_, TorchError>(tensor)
        };
        read().map_err(|error| TensorError::Malformed {
            file: self.path.clone(),
            reason: format!("tensor `{name}`: {error}"),
        })
    }

    fn mapped(&self, name: &str) -> Option<MappedTensor> {
        let tensor = self.tensors.get(name)?;
        let TensorRef {
            storage,
            offset,
            shape,
            strides,
        } = tensor;
        // Signed bytes are widened when they are read.
        if storage.element == Element::I8 || !is_contiguous(shape, strides) {
            return None;
        }
        let entry = self.contents.storage(&storage.key).ok()?;
        let view = View::check(tensor, entry.range.len()).ok()?;
        let size = storage.element.size();
        let start = self.place.start + entry.range.start + offset * size;
        let range = start..start + view.count * size;
        MappedTensor::new(self.map.clone(), range, self.info(name)?)
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;

    fn case(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/cases/torch")
            .join(name)
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        tensor
            .flatten_all()
            .unwrap()
            .to_dtype(DType::F64)
            .unwrap()
            .to_vec1()
            .unwrap()
    }

    #[test]
    fn every_element_type_of_torch_is_read() {
        let state = read_file(&case("dtypes.pt")).unwrap();
        for (name, dtype) in [
            ("float64", DType::F64),
            ("float32", DType::F32),
            ("float16", DType::F16),
            ("bfloat16", DType::BF16),
            ("int64", DType::I64),
            ("int32", DType::I32),
            ("int16", DType::I16),
            ("int8", DType::I16),
            ("uint8", DType::U8),
            ("bool", DType::U8),
        ] {
            let tensor = state.get(name).and_then(StateValue::as_tensor).unwrap();
            let expected = match name {
                "uint8" => [3.0, 2.0, 1.0, 0.0, 1.0, 2.0],
                "bool" => [1.0, 1.0, 1.0, 0.0, 1.0, 1.0],
                _ => [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0],
            };
            assert_eq!(
                (tensor.dtype(), numbers(tensor)),
                (dtype, expected.to_vec()),
                "{name}"
            );
        }
    }

    #[test]
    fn views_of_one_storage_are_read_eagerly_and_lazily() {
        let state = read_file(&case("views.pt")).unwrap();
        let lazy = TorchFile::open(&case("views.pt")).unwrap();
        for (name, shape, expected) in [
            (
                "transposed",
                vec![4, 3],
                vec![0., 4., 8., 1., 5., 9., 2., 6., 10., 3., 7., 11.],
            ),
            ("column", vec![3], vec![1., 5., 9.]),
            ("slice", vec![2, 2], vec![5., 6., 9., 10.]),
            ("expanded", vec![2, 4], vec![0., 1., 2., 3., 0., 1., 2., 3.]),
            ("empty", vec![0, 4], vec![]),
            ("number", vec![], vec![11.]),
        ] {
            let tensor = state.get(name).and_then(StateValue::as_tensor).unwrap();
            assert_eq!(
                (tensor.dims(), numbers(tensor)),
                (shape.as_slice(), expected.clone()),
                "{name}"
            );
            assert_eq!(lazy.info(name).unwrap().shape, shape, "{name}");
            assert_eq!(
                numbers(&lazy.load(name, &Device::Cpu).unwrap()),
                expected,
                "{name}"
            );
        }
        assert_eq!(lazy.names().len(), 7);
    }

    #[test]
    fn a_training_checkpoint_is_read_whole_or_as_its_weights() {
        let state = read_file(&case("checkpoint.pt")).unwrap();
        assert!(matches!(
            state.get("big"),
            Some(StateValue::Integer(1_099_511_627_776))
        ));
        assert!(matches!(
            state.get("negative"),
            Some(StateValue::Integer(-7))
        ));
        assert!(matches!(state.get("name"), Some(StateValue::Text(name)) if name == "größe"));
        assert!(matches!(state.get("buffer"), Some(StateValue::Bytes(bytes)) if bytes == b"extra"));
        assert!(matches!(state.get("raw"), Some(StateValue::Bytes(bytes)) if bytes == b"\x00\xff"));
        assert!(matches!(state.get("tags"), Some(StateValue::List(items)) if items.len() == 1));
        let step = state
            .get("optimizer")
            .and_then(|value| value.get("state")?.get("0")?.get("step"));
        assert!(matches!(step, Some(StateValue::Integer(5))));
        assert_eq!(
            state
                .get("parameter")
                .and_then(StateValue::as_tensor)
                .unwrap()
                .dims(),
            [3]
        );

        let weights = TorchFile::open(&case("checkpoint.pt")).unwrap();
        assert_eq!(weights.names(), ["bias", "weight"]);
        assert_eq!(weights.info("weight").unwrap().shape, [3, 2]);
        let missing = weights.load("wieght", &Device::Cpu).unwrap_err();
        assert!(
            missing.to_string().contains("no tensor `wieght`"),
            "{missing}"
        );
    }

    #[test]
    fn a_checkpoint_of_lightning_gives_its_weights_and_lets_its_hyperparameters_go() {
        let weights = TorchFile::open(&case("lightning.ckpt")).unwrap();
        assert_eq!(weights.names().len(), 28);
        let table = weights
            .load(
                "model.language_model.embedding.word_embeddings.weight",
                &Device::Cpu,
            )
            .unwrap();
        assert_eq!(table.dims(), [32, 8]);
        let state = read_file(&case("lightning.ckpt")).unwrap();
        let hyper = state.get("hyper_parameters").unwrap().get("cfg");
        assert!(matches!(hyper, Some(StateValue::Null)), "{hyper:?}");
        assert!(matches!(
            state.get("global_step"),
            Some(StateValue::Integer(2))
        ));
        let moments = state.get("optimizer_states");
        assert!(matches!(moments, Some(StateValue::List(items)) if items.len() == 1));
    }

    #[test]
    fn the_newest_pickle_protocol_is_read_and_the_oldest_format_refused_by_name() {
        let state = read_file(&case("protocol5.pt")).unwrap();
        assert!(matches!(state.get("raw"), Some(StateValue::Bytes(bytes)) if bytes == b"\x00\xff"));
        assert_eq!(
            numbers(state.get("x").and_then(StateValue::as_tensor).unwrap()),
            [1.0, 1.0]
        );
        let legacy = read_file(&case("legacy.pt")).unwrap_err();
        assert!(
            legacy.to_string().contains("before PyTorch 1.6"),
            "{legacy}"
        );
    }

    #[test]
    fn a_flipped_bit_in_the_numbers_is_noticed() {
        let mut bytes = fs_err::read(case("prompt_table.pt")).unwrap();
        let range = list_entries(&bytes).unwrap()["data/0"].range.clone();
        read(&bytes).unwrap();
        bytes[range.start + 5] ^= 1;
        let error = read(&bytes).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }

    #[test]
    fn every_cut_and_many_flips_of_a_checkpoint_are_errors_or_values_but_no_panic() {
        let bytes = fs_err::read(case("views.pt")).unwrap();
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut flipped = bytes.clone();
                flipped[at] ^= flip;
                drop(read(&flipped));
            }
        }
    }
}
