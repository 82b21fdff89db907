//! Distributed checkpoints of megatron-core in format `torch_dist`: `.metadata` and `__<rank>_<n>.distcp`.
//!
//! megatron-core saves tensors whole, whatever ranks had parts of them: each rank writes its chunks, and `.metadata`
//! (see [`metadata`]) says where in which tensor they belong. The layers of a transformer are one tensor with one
//! dimension more, `decoder.layers.mlp.linear_fc2.weight` of [L, H, F]; here each layer is seen under a name of its own,
//! `decoder.layers.3.mlp.linear_fc2.weight`, as every other checkpoint has it. Newer versions write such names
//! themselves. What is not of the model (optimizer, states of generators and of Transformer Engine) is not seen.
//! Format and names: `torch/distributed/checkpoint`, `megatron/core/dist_checkpointing/strategies/torch.py`.

mod metadata;
mod tiles;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use memmap2::Mmap;

use self::metadata::{Chunk, Stored};
use self::tiles::{Block, put, volume};
use super::mapped::MappedTensor;
use super::nemo_files::NemoFiles;
use super::torch::{TorchFile, candle_dtype};
use super::{TensorError, TensorInfo, TensorSource, let_go};

/// The description of all tensors.
const METADATA: &str = ".metadata";
/// What megatron-core says about the formats it used.
const BACKENDS: &str = "metadata.json";
/// How many times the size of its files the names of a checkpoint may take.
const MAX_GROWTH: usize = 8;
/// What even a small one may take: bytes.
const FREE_GROWTH: usize = 1 << 20;

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

/// What a name of a model stands for.
struct Entry {
    /// One tensor, or two whose rows follow one another.
    parts: Vec<(Part, usize)>,
    /// Where layers are stacked, the index in their first dimension.
    layer: Option<usize>,
}

/// What a tensor is of the one that a model knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Whole,
    /// megatron-core may save the two projections under a gate apart: first the gate's.
    Gate,
    Up,
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
        let tensors = metadata::read(&bytes, &sizes, &is_of_model).map_err(malformed)?;
        let size = opened.iter().fold(bytes.len(), |sum, file| {
            sum.saturating_add(file.place.len())
        });
        let limit = size.saturating_mul(MAX_GROWTH).saturating_add(FREE_GROWTH);
        let entries = entries(&tensors, limit).map_err(malformed)?;
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

fn shape_of(stored: &Stored, layer: Option<usize>) -> &[usize] {
    match layer {
        Some(_) => &stored.shape[1..],
        None => &stored.shape,
    }
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

/// Whether a name is that of a model's tensor, not of an optimizer's, a generator's or Transformer Engine's state.
fn is_of_model(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or(name);
    let is_beside = ["optimizer", "opt_param_scheduler", "chained_", "rng_state"]
        .iter()
        .any(|prefix| first.starts_with(prefix));
    !is_beside && !name.contains("._extra_state")
}

/// The names that a model knows: those of NeMo 2 begin with `module.`, those of Megatron-LM with the part itself.
fn plain(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("module.") {
        return format!("model.{rest}");
    }
    match name.split('.').next() {
        Some("decoder" | "embedding" | "output_layer") => format!("model.{name}"),
        _ => name.to_owned(),
    }
}

/// Where layers are stacked, what stands before and behind their number.
fn stacked(name: &str) -> Option<(&str, &str)> {
    let end = name.find(".layers.")? + ".layers.".len();
    let (before, behind) = name.split_at(end);
    (!behind.starts_with(|first: char| first.is_ascii_digit())).then_some((before, behind))
}

/// Every name with what it stands for; together they take less than `limit` bytes.
fn entries(tensors: &[Stored], limit: usize) -> Result<BTreeMap<String, Entry>, String> {
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    let mut left = limit;
    let mut add = |name: String, tensor: usize, layer: Option<usize>| {
        let cost = name.len() + 2 * size_of::<Entry>();
        left = left
            .checked_sub(cost)
            .ok_or("it describes far more than it holds")?;
        let (name, part) = match (name.strip_suffix("_w"), name.strip_suffix("_v")) {
            (Some(plain), _) if plain.contains(".linear_fc1.") => (plain.to_owned(), Part::Gate),
            (_, Some(plain)) if plain.contains(".linear_fc1.") => (plain.to_owned(), Part::Up),
            _ => (name, Part::Whole),
        };
        let entry = entries.entry(name).or_insert(Entry {
            parts: vec![],
            layer,
        });
        entry.parts.push((part, tensor));
        entry.parts.sort_unstable();
        Ok::<_, String>(())
    };
    for (number, tensor) in tensors.iter().enumerate() {
        let name = plain(&tensor.name);
        match (stacked(&name), tensor.shape.first()) {
            (Some((before, behind)), Some(layers)) => {
                for layer in 0..*layers {
                    add(format!("{before}{layer}.{behind}"), number, Some(layer))?;
                }
            }
            _ => add(name, number, None)?,
        }
    }
    for (name, entry) in &entries {
        let shape = |tensor: usize| shape_of(&tensors[tensor], entry.layer);
        let fits = match entry.parts[..] {
            [(Part::Whole, _)] => true,
            [(Part::Gate, gate), (Part::Up, up)] => {
                tensors[gate].element == tensors[up].element
                    && !shape(gate).is_empty()
                    && shape(gate) == shape(up)
            }
            _ => false,
        };
        if !fits {
            let parts = entry.parts.iter();
            let names: Vec<&str> = parts
                .map(|(_, part)| tensors[*part].name.as_str())
                .collect();
            return Err(format!("`{}` cannot be `{name}`", names.join("` and `")));
        }
    }
    Ok(entries)
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
    fn names_are_those_of_a_model_in_one_piece() {
        assert_eq!(
            stacked("model.decoder.layers.mlp.linear_fc1.weight"),
            Some(("model.decoder.layers.", "mlp.linear_fc1.weight"))
        );
        assert_eq!(stacked("model.decoder.layers.3.mlp.weight"), None);
        assert_eq!(stacked("model.output_layer.weight"), None);
        for (name, expected) in [
            ("module.decoder.x", "model.decoder.x"),
            ("embedding.x", "model.embedding.x"),
            ("model.decoder.x", "model.decoder.x"),
        ] {
            assert_eq!(plain(name), expected);
        }
        assert!(is_of_model("model.output_layer.weight"));
        for name in [
            "optimizer.state.exp_avg.model.output_layer.weight",
            "chained_0.optimizer.state",
            "rng_state/shard_0.0_1.1",
            "model.decoder.layers.mlp.linear_fc1._extra_state/shard_0_2",
        ] {
            assert!(!is_of_model(name), "{name}");
        }
    }

    fn stored(name: &str, shape: &[usize]) -> Stored {
        Stored {
            name: name.to_owned(),
            element: super::super::torch::pickle::Element::F32,
            shape: shape.to_vec(),
            chunks: vec![],
        }
    }

    #[test]
    fn layers_that_would_take_more_than_the_files_and_names_that_meet_are_refused() {
        let many = [stored("model.decoder.layers.a", &[usize::MAX, 0])];
        let error = entries(&many, 1 << 20).err().unwrap();
        assert!(error.contains("far more than it holds"), "{error}");
        let twice = [stored("module.a", &[2]), stored("model.a", &[2])];
        let error = entries(&twice, 1 << 20).err();
        assert!(error.is_some_and(|error| error.contains("`module.a` and `model.a` cannot be `model.a`")));
        let halves = [
            stored("model.decoder.layers.0.mlp.linear_fc1.weight_v", &[2, 3]),
            stored("model.decoder.layers.0.mlp.linear_fc1.weight_w", &[2, 3]),
        ];
        let found = entries(&halves, 1 << 20).ok().unwrap();
        let entry = &found["model.decoder.layers.0.mlp.linear_fc1.weight"];
        assert_eq!(entry.parts, [(Part::Gate, 1), (Part::Up, 0)]);
        assert!(entries(&halves[..1], 1 << 20).is_err());
    }
}
