//! Distributed checkpoints of megatron-core in format `torch_dist`: `.metadata` and `__<rank>_<n>.distcp`.
//!
//! megatron-core saves tensors whole, whatever ranks had parts of them: each rank writes its chunks, and `.metadata`
//! (see [`metadata`]) says where in which tensor they belong. The layers of a transformer are one tensor with one
//! dimension more, `decoder.layers.mlp.linear_fc2.weight` of [L, H, F]; here each layer is seen under a name of its own,
//! `decoder.layers.3.mlp.linear_fc2.weight`, as every other checkpoint has it. Newer versions write such names
//! themselves. What is not of the model (optimizer, states of generators and of Transformer Engine) is not seen.
//! Format and names: `torch/distributed/checkpoint`, `megatron/core/dist_checkpointing/strategies/torch.py`.

mod metadata;
mod names;
mod tiles;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use memmap2::Mmap;

use self::metadata::{Chunk, Stored};
use self::names::{Entry, shape_of};
use self::tiles::{Block, put, volume};
use super::mapped::MappedTensor;
use super::nemo_files::NemoFiles;
use super::torch::{TorchFile, candle_dtype};
use super::{TensorError, TensorInfo, TensorSource, let_go};

/// The description of all tensors.
const METADATA: &str = ".metadata";
/// What megatron-core says about the formats it used.
const BACKENDS: &str = "metadata.json";
/// A distributed checkpoint, seen as the tensors of a model in one piece.
pub struct DistributedCheckpoint {
    /// The folder of `.metadata`, for messages.
    path: PathBuf,
    files: Vec<File>,
    tensors: Vec<Stored>,
    entries: BTreeMap<String, Entry>,
}

struct File {
    path: PathBuf,
    map: Arc<Mmap>,
    place: Range<usize>,
}

impl DistributedCheckpoint {
    /// Whether there is one among the members.
    pub fn is_in(files: &NemoFiles) -> bool {
        folder_of(files).is_some()
    }

    /// Whether a member of these files belongs to it.
    pub fn has_member(files: &NemoFiles, name: &str) -> bool {
        match folder_of(files) {
            None => false,
            Some("") => {
                let ours = [METADATA, BACKENDS, "common.pt"];
                ours.contains(&name) || (name.ends_with(".distcp") && !name.contains('/'))
            }
            Some(folder) => name.starts_with(folder),
        }
    }

    /// Opens the one that is among the members. Every chunk is known to lie in its file; no number is read.
    ///
    /// # Errors
    /// Where there is none, a file is missing or cut, or the metadata says anything that does not fit.
    pub fn open(files: &NemoFiles) -> Result<Self, TensorError> {
        let folder = folder_of(files).unwrap_or_default();
        let path = files.path().join(folder);
        let malformed = |reason: String| TensorError::Malformed {
            file: path.join(METADATA),
            reason,
        };
        let member = |error: super::nemo::NemoError| malformed(error.to_string());
        check_backend(files, folder).map_err(malformed)?;
        let mut opened: Vec<File> = vec![];
        let mut sizes = HashMap::new();
        for name in files.names() {
            let Some(short) = name.strip_prefix(folder) else {
                continue;
            };
            if short.ends_with(".distcp") {
                let (map, place, path) = files.in_place(name).map_err(member)?;
                sizes.insert(short, (opened.len(), place.len()));
                opened.push(File { path, map, place });
            }
        }
        let bytes = files.read(&format!("{folder}{METADATA}")).map_err(member)?;
        let tensors = metadata::read(&bytes, &sizes, &names::is_of_model).map_err(malformed)?;
        let size = opened.iter().fold(bytes.len(), |sum, file| {
            sum.saturating_add(file.place.len())
        });
        let entries = names::entries(&tensors, names::limit(size)).map_err(malformed)?;
        Ok(Self {
            path,
            files: opened,
            tensors,
            entries,
        })
    }

    fn malformed(&self, name: &str, reason: impl std::fmt::Display) -> TensorError {
        TensorError::Malformed {
            file: self.path.clone(),
            reason: format!("tensor `{name}`: {reason}"),
        }
    }

    fn file_of(&self, chunk: &Chunk) -> Result<TorchFile, TensorError> {
        let file = &self.files[chunk.file];
        TorchFile::in_map(&file.path, file.map.clone(), place_of(file, chunk))
    }

    /// Puts the numbers of a tensor, or of one layer of it, to `target`.
    fn fill(
        &self,
        stored: &Stored,
        layer: Option<usize>,
        target: &mut [u8],
    ) -> Result<(), TensorError> {
        let shape = shape_of(stored, layer);
        let size = stored.element.size();
        for chunk in chunks_of(stored, layer) {
            let item = self.file_of(chunk)?;
            let numbers = item
                .numbers("")
                .map_err(|error| self.malformed(&stored.name, error))?;
            let sizes = &chunk.block.sizes;
            // A chunk may be saved without the dimensions of size one that stacking gave it.
            let is_same = significant(numbers.shape).eq(significant(sizes));
            if !is_same || numbers.element != stored.element {
                return Err(self.malformed(
                    &stored.name,
                    format!(
                        "its chunk at {:?} is of {:?} {:?}, expected {:?} {sizes:?}",
                        chunk.block.offsets, numbers.element, numbers.shape, stored.element
                    ),
                ));
            }
            let (block, bytes) = match layer {
                None => (chunk.block.clone(), &numbers.bytes[..]),
                Some(layer) => {
                    let block = Block {
                        offsets: chunk.block.offsets[1..].to_vec(),
                        sizes: sizes[1..].to_vec(),
                    };
                    // All of these were counted when the checkpoint was opened.
                    let length = volume(&block.sizes).unwrap_or(0) * size;
                    let start = (layer - chunk.block.offsets[0]) * length;
                    (block, &numbers.bytes[start..start + length])
                }
            };
            put(target, shape, &block, bytes, size);
            let file = &self.files[chunk.file];
            let_go(&file.map, place_of(file, chunk));
        }
        Ok(())
    }
}

/// Where a chunk's checkpoint lies in the map of its file.
fn place_of(file: &File, chunk: &Chunk) -> Range<usize> {
    file.place.start + chunk.range.start..file.place.start + chunk.range.end
}

fn significant(shape: &[usize]) -> impl Iterator<Item = usize> {
    shape.iter().copied().filter(|size| *size != 1)
}

/// The chunks with numbers of a layer, or all.
fn chunks_of(stored: &Stored, layer: Option<usize>) -> impl Iterator<Item = &Chunk> {
    stored.chunks.iter().filter(move |chunk| match layer {
        Some(layer) => {
            let first = chunk.block.offsets[0];
            (first..first + chunk.block.sizes[0]).contains(&layer)
        }
        None => true,
    })
}

/// The folder that has `.metadata`, with its slash: the shortest where there are several.
fn folder_of(files: &NemoFiles) -> Option<&str> {
    files
        .names()
        .filter_map(|name| name.strip_suffix(METADATA))
        .filter(|folder| folder.is_empty() || folder.ends_with('/'))
        .min_by_key(|folder| folder.len())
}

/// Compares what megatron-core says about the format. Without its file, `.metadata` says enough.
fn check_backend(files: &NemoFiles, folder: &str) -> Result<(), String> {
    let name = format!("{folder}{BACKENDS}");
    if !files.contains(&name) {
        return Ok(());
    }
    let text = files.read_text(&name).map_err(|error| error.to_string())?;
    let about: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("{name} is not JSON: {error}"))?;
    match about
        .get("sharded_backend")
        .and_then(|backend| backend.as_str())
    {
        None | Some("torch_dist") => {}
        Some(other) => {
            return Err(format!(
                "{name} says that its format is `{other}`; `torch_dist` is read"
            ));
        }
    }
    let version = about.get("sharded_backend_version");
    if let Some(version) = version.and_then(serde_json::Value::as_i64)
        && version > 1
    {
        tracing::warn!("{name} says version {version} of `torch_dist`; 1 is known here");
    }
    Ok(())
}

impl TensorSource for DistributedCheckpoint {
    fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let entry = self.entries.get(name)?;
        let first = &self.tensors[entry.parts[0].1];
        let mut shape = shape_of(first, entry.layer).to_vec();
        for (_, part) in &entry.parts[1..] {
            let more = shape_of(&self.tensors[*part], entry.layer).first()?;
            let rows = shape.first_mut()?;
            *rows = rows.checked_add(*more)?;
        }
        Some(TensorInfo {
            dtype: candle_dtype(first.element),
            shape,
        })
    }

    fn load(&self, name: &str, device: &Device) -> Result<Tensor, TensorError> {
        let (Some(entry), Some(info)) = (self.entries.get(name), self.info(name)) else {
            return Err(TensorError::Missing {
                file: self.describe(),
                name: name.to_owned(),
            });
        };
        let size = info.dtype.size_in_bytes();
        // No more than the files hold: the chunks were compared with their places.
        let bytes = volume(&info.shape).and_then(|count| count.checked_mul(size));
        let bytes = bytes.ok_or_else(|| self.malformed(name, "it is too large"))?;
        let mut numbers = vec![0; bytes];
        let mut rest = &mut numbers[..];
        for (_, part) in &entry.parts {
            let stored = &self.tensors[*part];
            let count = volume(shape_of(stored, entry.layer)).unwrap_or(0);
            let (target, behind) = rest.split_at_mut(count * size);
            self.fill(stored, entry.layer, target)?;
            rest = behind;
        }
        Tensor::from_raw_buffer(&numbers, info.dtype, &info.shape, device).map_err(|source| {
            TensorError::Candle {
                file: self.describe(),
                name: name.to_owned(),
                source,
            }
        })
    }

    fn mapped(&self, name: &str) -> Option<MappedTensor> {
        let entry = self.entries.get(name)?;
        let &[(_, part)] = entry.parts.as_slice() else {
            return None;
        };
        let stored = &self.tensors[part];
        let info = self.info(name)?;
        let mut chunks = chunks_of(stored, entry.layer);
        let chunk = chunks.next()?;
        if chunks.next().is_some() {
            return None;
        }
        let whole = self.file_of(chunk).ok()?.mapped("")?;
        let mapped = match entry.layer {
            // Several layers in a chunk: one of them.
            Some(layer) if whole.info().shape == chunk.block.sizes => {
                whole.part(layer - chunk.block.offsets[0])?
            }
            _ => whole,
        };
        (*mapped.info() == info).then_some(mapped)
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_in_place_is_what_is_loaded() {
        let cases =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/distributed");
        for file in ["whole.nemo", "stacked.nemo"] {
            let files = NemoFiles::open(&cases.join(file)).unwrap();
            let source = DistributedCheckpoint::open(&files).unwrap();
            let mut in_place = 0;
            for name in source.names() {
                let loaded = source.load(&name, &Device::Cpu).unwrap();
                let Some(mapped) = source.mapped(&name) else {
                    continue;
                };
                assert_eq!(mapped.info().shape, loaded.dims(), "{name}");
                let numbers: Vec<f32> = loaded.flatten_all().unwrap().to_vec1().unwrap();
                assert_eq!(mapped.as_f32().unwrap(), numbers, "{name}");
                in_place += 1;
            }
            // Not all: torch aligns numbers in a chunk, and begins a chunk wherever the one before it ends.
            assert!(in_place > 0, "{file}");
        }
    }
}
