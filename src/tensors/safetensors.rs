//! safetensors: one file, or a folder's `model.safetensors.index.json` with its shards.
//!
//! The file is memory-mapped and its header is checked once, when it is opened: sizes against shapes, offsets against
//! the file, no overlap (the `safetensors` crate, format of <https://github.com/huggingface/safetensors>). Tensors are
//! read when they are asked for.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::safetensors::{Dtype, SafeTensors, tensor::Metadata};
use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;

use super::mapped::MappedTensor;
use super::torch::little_endian_bytes;
use super::{TensorError, TensorInfo, TensorSource, let_go};
use crate::sys::atomic_file;

/// File name of a checkpoint in one piece.
pub const SINGLE_FILE: &str = "model.safetensors";
/// File name of the list of a checkpoint's shards.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// A checkpoint in safetensors form, in one file or many.
pub struct SafetensorsFile {
    described: PathBuf,
    shards: Vec<Shard>,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

struct Shard {
    path: PathBuf,
    map: Arc<Mmap>,
}

struct Entry {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

impl SafetensorsFile {
    /// Opens one file.
    ///
    /// # Errors
    /// Where it cannot be mapped or its header does not describe its bytes.
    pub fn open(path: &Path) -> Result<Self, TensorError> {
        let mut this = Self {
            described: path.to_owned(),
            shards: vec![],
            entries: BTreeMap::new(),
            metadata: BTreeMap::new(),
        };
        this.add_shard(path)?;
        Ok(this)
    }

    /// Opens `model.safetensors` in `folder`, or the shards that `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// Where neither is there, a shard is missing or malformed, or a tensor of the list is not in its shard.
    pub fn open_folder(folder: &Path) -> Result<Self, TensorError> {
        let single = folder.join(SINGLE_FILE);
        let index = folder.join(INDEX_FILE);
        if single.is_file() || !index.is_file() {
            return Self::open(&single);
        }
        let malformed = |reason: String| TensorError::Malformed {
            file: index.clone(),
            reason,
        };
        let text = fs_err::read_to_string(&index)?;
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| malformed(format!("not JSON: {error}")))?;
        let map = value
            .get("weight_map")
            .and_then(serde_json::Value::as_object)
            .ok_or_else(|| malformed("no `weight_map` of names to files".to_owned()))?;
        let mut this = Self {
            described: index.clone(),
            shards: vec![],
            entries: BTreeMap::new(),
            metadata: BTreeMap::new(),
        };
        let mut files = BTreeMap::<&str, Vec<&str>>::new();
        for (name, file) in map {
            let file = file
                .as_str()
                .filter(|file| is_plain_file_name(file))
                .ok_or_else(|| malformed(format!("`{name}` has no plain file name: {file}")))?;
            files.entry(file).or_default().push(name);
        }
        for (file, names) in files {
            this.add_shard(&folder.join(file))?;
            if let Some(lost) = names.iter().find(|name| !this.entries.contains_key(**name)) {
                return Err(malformed(format!(
                    "`{lost}` should be in {file} and is not there"
                )));
            }
        }
        Ok(this)
    }

    /// Type and shape of a tensor as the header spells them, also where no tensor here can have that type.
    pub fn stored(&self, name: &str) -> Option<(String, &[usize])> {
        let entry = self.entries.get(name)?;
        Some((format!("{:?}", entry.dtype), &entry.shape))
    }

    /// What the headers say besides tensors (`__metadata__`).
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        let entries = self.metadata.iter();
        entries.map(|(key, text)| (key.as_str(), text.as_str()))
    }

    /// Number of files.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    #[expect(
        unsafe_code,
        reason = "mapping a file is unsafe by nature: another process may change it"
    )]
    fn add_shard(&mut self, path: &Path) -> Result<(), TensorError> {
        let malformed = |reason: String| TensorError::Malformed {
            file: path.to_owned(),
            reason,
        };
        let file = fs_err::File::open(path)?;
        if file.metadata()?.len() < 8 {
            return Err(malformed("too short for a safetensors header".to_owned()));
        }
        // SAFETY: the map is read-only and private to this value. A checkpoint that another process truncates while it
        // is in use ends this process, as it would with any mapped file; nothing here writes to checkpoints in place.
        let map = Arc::new(unsafe { Mmap::map(file.file()) }?);
        let (header, metadata): (usize, Metadata) = SafeTensors::read_metadata(&map)
            .map_err(|error| malformed(format!("not a valid safetensors file: {error}")))?;
        let about = metadata.metadata().iter().flatten();
        self.metadata
            .extend(about.map(|(key, text)| (key.clone(), text.clone())));
        let data = 8_usize
            .checked_add(header)
            .ok_or_else(|| malformed("header length overflows".to_owned()))?;
        let shard = self.shards.len();
        // In order of names, so that of several faults the same one is told each time.
        let tensors: BTreeMap<String, _> = metadata.tensors().into_iter().collect();
        for (name, info) in tensors {
            let (start, end) = info.data_offsets;
            let bounds = data.checked_add(start).zip(data.checked_add(end));
            let (start, end) = bounds
                .filter(|&(start, end)| start <= end && end <= map.len())
                .ok_or_else(|| malformed(format!("tensor `{name}` lies outside of the file")))?;
            let entry = Entry {
                shard,
                dtype: info.dtype,
                shape: info.shape.clone(),
                start,
                end,
            };
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(malformed(format!("tensor `{name}` is in two shards")));
            }
        }
        self.shards.push(Shard {
            path: path.to_owned(),
            map,
        });
        Ok(())
    }
}

/// Writes one file, asking `load` for one tensor after another, so that no more than one is in memory.
///
/// # Errors
/// Where `load` fails, a type has no name in the format, or the file cannot be written.
pub fn write(
    path: &Path,
    tensors: &[(String, TensorInfo)],
    mut load: impl FnMut(&str) -> anyhow::Result<Tensor>,
) -> anyhow::Result<()> {
    let mut header = serde_json::Map::new();
    header.insert(
        "__metadata__".to_owned(),
        serde_json::json!({"format": "pt"}),
    );
    let mut end = 0;
    for (name, info) in tensors {
        let start = end;
        end += info.shape.iter().product::<usize>() * info.dtype.size_in_bytes();
        let dtype = match info.dtype {
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            DType::F64 => "F64",
            other => anyhow::bail!("{name} is of type {other:?}, which is not written"),
        };
        header.insert(
            name.clone(),
            serde_json::json!({"dtype": dtype, "shape": info.shape, "data_offsets": [start, end]}),
        );
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    atomic_file::write_with(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for (name, info) in tensors {
            let tensor = load(name).map_err(|error| std::io::Error::other(format!("{error:#}")))?;
            let bytes = little_endian_bytes(&tensor).map_err(std::io::Error::other)?;
            if tensor.dims() != info.shape || tensor.dtype() != info.dtype {
                return Err(std::io::Error::other(format!(
                    "{name} is not of the type and shape that were announced"
                )));
            }
            file.write_all(&bytes)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// Writes a checkpoint into `folder` as transformers does: one file, or where its tensors are of more than `limit` bytes,
/// shards of at most as many (a tensor is never cut) and the list of them.
///
/// # Errors
/// As [`write`].
pub fn write_folder(
    folder: &Path,
    tensors: &[(String, TensorInfo)],
    limit: usize,
    mut load: impl FnMut(&str) -> anyhow::Result<Tensor>,
) -> anyhow::Result<()> {
    let size =
        |info: &TensorInfo| info.shape.iter().product::<usize>() * info.dtype.size_in_bytes();
    let mut shards: Vec<Vec<(String, TensorInfo)>> = vec![];
    let (mut total, mut filled) = (0, 0);
    for (name, info) in tensors {
        let bytes = size(info);
        total += bytes;
        if shards.is_empty() || filled + bytes > limit {
            shards.push(vec![]);
            filled = 0;
        }
        filled += bytes;
        let last = shards.last_mut().expect("one was just added");
        last.push((name.clone(), info.clone()));
    }
    // What an earlier run left would be read in place of the shards, or beside them.
    let (single, index) = (folder.join(SINGLE_FILE), folder.join(INDEX_FILE));
    for stale in [&single, &index] {
        if stale.is_file() {
            fs_err::remove_file(stale)?;
        }
    }
    if shards.len() < 2 {
        return write(&single, tensors, load);
    }
    let mut places = serde_json::Map::new();
    for (number, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        write(&folder.join(&file), shard, &mut load)?;
        for (name, _) in shard {
            places.insert(name.clone(), file.as_str().into());
        }
    }
    let list = serde_json::json!({"metadata": {"total_size": total}, "weight_map": places});
    atomic_file::write(&index, format!("{list:#}\n"))?;
    Ok(())
}

/// No folders, so that an index cannot point outside of its checkpoint.
fn is_plain_file_name(name: &str) -> bool {
    !name.is_empty() && Path::new(name).file_name() == Some(std::ffi::OsStr::new(name))
}

fn candle_dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F64 => DType::F64,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::U32 => DType::U32,
        Dtype::U8 | Dtype::BOOL => DType::U8,
        _ => return None,
    })
}

impl TensorSource for SafetensorsFile {
    fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let entry = self.entries.get(name)?;
        Some(TensorInfo {
            dtype: candle_dtype(entry.dtype)?,
            shape: entry.shape.clone(),
        })
    }

    fn load(&self, name: &str, device: &Device) -> Result<Tensor, TensorError> {
        let entry = self.entries.get(name).ok_or_else(|| TensorError::Missing {
            file: self.describe(),
            name: name.to_owned(),
        })?;
        let shard = &self.shards[entry.shard];
        let file = || shard.path.display().to_string();
        let dtype = candle_dtype(entry.dtype).ok_or_else(|| TensorError::UnsupportedDtype {
            file: file(),
            name: name.to_owned(),
            dtype: format!("{:?}", entry.dtype),
        })?;
        let bytes = &shard.map[entry.start..entry.end];
        let tensor =
            Tensor::from_raw_buffer(bytes, dtype, &entry.shape, device).map_err(|source| {
                TensorError::Candle {
                    file: file(),
                    name: name.to_owned(),
                    source,
                }
            })?;
        let_go(&shard.map, entry.start..entry.end);
        Ok(tensor)
    }

    fn mapped(&self, name: &str) -> Option<MappedTensor> {
        let entry = self.entries.get(name)?;
        let map = &self.shards[entry.shard].map;
        MappedTensor::new(map.clone(), entry.start..entry.end, self.info(name)?)
    }

    fn describe(&self) -> String {
        self.described.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn save(path: &Path, tensors: &[(&str, Vec<f32>)]) {
        let tensors: HashMap<String, Tensor> = tensors
            .iter()
            .map(|(name, values)| {
                let tensor = Tensor::new(values.as_slice(), &Device::Cpu).unwrap();
                ((*name).to_owned(), tensor)
            })
            .collect();
        candle_core::safetensors::save(&tensors, path).unwrap();
    }

    #[test]
    fn a_single_file_gives_back_what_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        save(&folder.path().join(SINGLE_FILE), &[("w", vec![1.0, -2.5])]);
        let source = SafetensorsFile::open_folder(folder.path()).unwrap();
        assert_eq!(source.names(), ["w"]);
        assert_eq!(source.info("w").unwrap().dtype, DType::F32);
        let tensor = source.load("w", &Device::Cpu).unwrap();
        assert_eq!(tensor.to_vec1::<f32>().unwrap(), [1.0, -2.5]);
    }

    #[test]
    fn shards_are_read_through_the_index_and_a_lost_tensor_is_named() {
        let folder = tempfile::tempdir().unwrap();
        save(&folder.path().join("one.safetensors"), &[("a", vec![1.0])]);
        save(&folder.path().join("two.safetensors"), &[("b", vec![2.0])]);
        let index = folder.path().join(INDEX_FILE);
        let mut map = serde_json::json!({"a": "one.safetensors", "b": "two.safetensors"});
        let write = |map: &serde_json::Value| {
            let text = serde_json::json!({ "weight_map": map }).to_string();
            fs_err::write(&index, text).unwrap();
        };
        write(&map);
        let source = SafetensorsFile::open_folder(folder.path()).unwrap();
        assert_eq!(source.names(), ["a", "b"]);
        let b = source.load("b", &Device::Cpu).unwrap();
        assert_eq!(b.to_vec1::<f32>().unwrap(), [2.0]);

        map["c"] = "two.safetensors".into();
        write(&map);
        let error = SafetensorsFile::open_folder(folder.path()).err().unwrap();
        assert!(
            error
                .to_string()
                .contains("`c` should be in two.safetensors")
        );

        map["c"] = "../two.safetensors".into();
        write(&map);
        let error = SafetensorsFile::open_folder(folder.path()).err().unwrap();
        assert!(error.to_string().contains("no plain file name"));
    }

    #[test]
    fn a_folder_is_written_in_shards_of_a_size_and_replaces_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let info = |count: usize| TensorInfo {
            dtype: DType::F32,
            shape: vec![count],
        };
        let tensors = [("a", 4), ("b", 2), ("c", 9)].map(|(name, n)| (name.to_owned(), info(n)));
        let load = |name: &str| {
            let count = tensors
                .iter()
                .find(|entry| entry.0 == name)
                .unwrap()
                .1
                .shape[0];
            Ok(Tensor::full(count as f32, count, &Device::Cpu)?)
        };
        write_folder(folder.path(), &tensors, 1 << 20, load).unwrap();
        assert!(folder.path().join(SINGLE_FILE).is_file());
        write_folder(folder.path(), &tensors, 24, load).unwrap();
        assert!(!folder.path().join(SINGLE_FILE).exists());
        let index = fs_err::read_to_string(folder.path().join(INDEX_FILE)).unwrap();
        assert!(
            index.contains("model-00002-of-00002.safetensors"),
            "{index}"
        );
        assert!(index.contains("\"total_size\": 60"), "{index}");
        let source = SafetensorsFile::open_folder(folder.path()).unwrap();
        let c = source.load("c", &Device::Cpu).unwrap();
        assert_eq!(c.to_vec1::<f32>().unwrap(), [9.0; 9]);
        assert_eq!(source.names(), ["a", "b", "c"]);
    }

    #[test]
    fn a_truncated_file_and_a_lying_header_are_errors_that_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SINGLE_FILE);
        save(&path, &[("w", vec![1.0; 8])]);
        let bytes = fs_err::read(&path).unwrap();
        for cut in [0, 4, 8, 20, bytes.len() - 1] {
            fs_err::write(&path, &bytes[..cut]).unwrap();
            let error = SafetensorsFile::open(&path).err().unwrap();
            assert!(error.to_string().contains(SINGLE_FILE), "{error}");
        }
        let mut lying = bytes;
        lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        fs_err::write(&path, lying).unwrap();
        assert!(SafetensorsFile::open(&path).is_err());
    }
}
