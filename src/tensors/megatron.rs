//! Megatron's partitions: one checkpoint for each tensor-parallel and pipeline rank, seen as one set of tensors.
//!
//! NeMo names the folders `mp_rank_TT` where layers are only split, and `tp_rank_TT_pp_rank_PPP` where stages follow
//! one another too. A distributed checkpoint ([`super::distributed`]) is one rank. Which dimension of a tensor is split is the model's knowledge: it comes as a table of [`Split`]s.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor};

use super::distributed::DistributedCheckpoint;
use super::mapped::MappedTensor;
use super::nemo::WEIGHTS_MEMBER;
use super::nemo_files::NemoFiles;
use super::torch::TorchFile;
use super::{TensorError, TensorInfo, TensorSource};

/// How tensor-parallel ranks share a tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// Every rank has all of it.
    #[default]
    Replicated,
    /// Each has some of the columns (the second dimension): the weight of a row-parallel layer.
    Columns,
    /// Each has some of the rows: column-parallel layers and vocabularies. With several blocks, a rank holds its share
    /// of each block, one after the other: gate and up projection in one tensor, or query, key and value.
    Rows {
        /// Equal blocks of rows.
        blocks: usize,
    },
}

impl Split {
    /// The whole tensor from the ranks' parts.
    ///
    /// # Errors
    /// Where the parts do not fit together.
    pub fn merge(self, parts: &[Tensor]) -> candle_core::Result<Tensor> {
        match (self, parts) {
            (_, [only]) => Ok(only.clone()),
            (Self::Replicated, _) => Ok(parts[0].clone()),
            (Self::Columns, _) => Tensor::cat(parts, 1),
            (Self::Rows { blocks }, _) => {
                let mut shares = vec![];
                for block in 0..blocks {
                    for part in parts {
                        let rows = part.dim(0)? / blocks;
                        shares.push(part.narrow(0, block * rows, rows)?);
                    }
                }
                Tensor::cat(&shares, 0)
            }
        }
    }

    /// The part of `rank` of `ranks`.
    ///
    /// # Errors
    /// Where the dimension cannot be divided.
    pub fn cut(self, whole: &Tensor, rank: usize, ranks: usize) -> candle_core::Result<Tensor> {
        let divided = |size: usize, by: usize| -> candle_core::Result<usize> {
            if size.is_multiple_of(by) {
                return Ok(size / by);
            }
            candle_core::bail!("{size} cannot be divided by {by}")
        };
        match self {
            Self::Replicated => Ok(whole.clone()),
            Self::Columns => {
                let width = divided(whole.dim(1)?, ranks)?;
                whole.narrow(1, rank * width, width)?.contiguous()
            }
            Self::Rows { blocks } => {
                let share = divided(whole.dim(0)?, blocks * ranks)?;
                let shares = (0..blocks)
                    .map(|block| whole.narrow(0, (block * ranks + rank) * share, share))
                    .collect::<candle_core::Result<Vec<_>>>()?;
                Tensor::cat(&shares, 0)?.contiguous()
            }
        }
    }

    /// The whole shape from the ranks' shapes.
    fn merged_shape(self, parts: &[&[usize]]) -> Vec<usize> {
        let mut shape = parts[0].to_vec();
        let dimension = match self {
            Self::Replicated => return shape,
            Self::Columns => 1,
            Self::Rows { .. } => 0,
        };
        if let Some(size) = shape.get_mut(dimension) {
            *size = parts
                .iter()
                .map(|part| part.get(dimension).copied().unwrap_or(0))
                .fold(0, usize::saturating_add);
        }
        shape
    }
}

/// The weights of a `.nemo`, whole, whatever ranks they were saved by.
pub struct MegatronCheckpoint {
    described: String,
    /// Pipeline stages of tensor-parallel ranks.
    stages: Vec<Vec<Box<dyn TensorSource>>>,
    is_distributed: bool,
    entries: BTreeMap<String, Entry>,
    splits: HashMap<String, Split>,
}

struct Entry {
    stage: usize,
    /// The name in that stage's files, which count their layers from zero.
    name: String,
}

impl MegatronCheckpoint {
    /// Opens every rank's checkpoint in `files`.
    ///
    /// # Errors
    /// Where there is none, a rank is missing, or one cannot be read.
    pub fn open(files: &NemoFiles) -> Result<Self, TensorError> {
        let malformed = |reason: String| TensorError::Malformed {
            file: files.path().to_owned(),
            reason,
        };
        let mut members = BTreeMap::new();
        for name in files.names() {
            if name == WEIGHTS_MEMBER {
                members.insert((0, 0), name);
            } else if let Some(folder) = name.strip_suffix(&format!("/{WEIGHTS_MEMBER}"))
                && let Some((tensor_rank, stage)) = ranks_of(folder)
            {
                members.insert((stage, tensor_rank), name);
            }
        }
        if members.is_empty() && DistributedCheckpoint::is_in(files) {
            let whole: Box<dyn TensorSource> = Box::new(DistributedCheckpoint::open(files)?);
            let mut this = Self::of_sources(files.path(), vec![((0, 0), whole)])?;
            this.is_distributed = true;
            return Ok(this);
        }
        if members.is_empty() {
            return Err(malformed(match unread(files) {
                Some(kind) => format!(
                    "its weights are a distributed checkpoint of megatron-core ({kind}), which is not read here; format \
                     `torch_dist` is. NeMo 1.x converts it: `scripts/checkpoint_converters/convert_zarr_to_torch_dist.py`; \
                     or to a Hugging Face folder: `convert_*_nemo_to_hf.py` in the same place"
                ),
                None => {
                    let names: Vec<&str> = files.names().take(10).collect();
                    format!("it has no `{WEIGHTS_MEMBER}` (found: {})", names.join(", "))
                }
            }));
        }
        let ranks = members
            .into_iter()
            .map(|(place, name)| Ok((place, files.torch(name)?)))
            .collect::<Result<Vec<_>, TensorError>>()?;
        Self::of_ranks(files.path(), ranks)
    }

    /// Checkpoints of these ranks, each with its pipeline stage and tensor-parallel rank; `path` is for messages.
    ///
    /// # Errors
    /// Where a rank is missing.
    pub fn of_ranks(
        path: &Path,
        ranks: Vec<((usize, usize), TorchFile)>,
    ) -> Result<Self, TensorError> {
        let boxed = |(place, file)| (place, Box::new(file) as Box<dyn TensorSource>);
        Self::of_sources(path, ranks.into_iter().map(boxed).collect())
    }

    fn of_sources(
        path: &Path,
        ranks: Vec<((usize, usize), Box<dyn TensorSource>)>,
    ) -> Result<Self, TensorError> {
        let count = |each: fn(&(usize, usize)) -> usize| {
            1 + ranks
                .iter()
                .map(|(place, _)| each(place))
                .max()
                .unwrap_or(0)
        };
        let (depth, width) = (count(|place| place.0), count(|place| place.1));
        let mut files: BTreeMap<(usize, usize), Box<dyn TensorSource>> =
            ranks.into_iter().collect();
        let mut stages = vec![];
        for stage in 0..depth {
            let mut ranks = vec![];
            for rank in 0..width {
                let file = files.remove(&(stage, rank));
                ranks.push(file.ok_or_else(|| TensorError::Malformed {
                    file: path.to_owned(),
                    reason: format!(
                        "the weights of tensor rank {rank}, pipeline rank {stage} are missing, of {width} x {depth}"
                    ),
                })?);
            }
            stages.push(ranks);
        }
        Ok(Self {
            described: path.display().to_string(),
            entries: global_names(&stages),
            stages,
            is_distributed: false,
            splits: HashMap::new(),
        })
    }

    /// Says which dimension of each tensor is split. Without it every tensor counts as replicated.
    pub fn set_splits(&mut self, splits: impl IntoIterator<Item = (String, Split)>) {
        self.splits = splits.into_iter().collect();
    }

    /// Tensor-parallel and pipeline ranks.
    pub fn partition(&self) -> (usize, usize) {
        (self.stages[0].len(), self.stages.len())
    }

    /// Whether it is a distributed checkpoint, whose tensors are whole whatever ranks wrote them.
    pub fn is_distributed(&self) -> bool {
        self.is_distributed
    }

    /// Rows of `name` over all tensor-parallel ranks, if it is split by rows.
    pub fn rows_of(&self, name: &str) -> Option<usize> {
        let entry = self.entries.get(name)?;
        self.stages[entry.stage]
            .iter()
            .map(|file| file.info(&entry.name)?.shape.first().copied())
            .try_fold(0_usize, |sum, rows| sum.checked_add(rows?))
    }

    fn split(&self, name: &str) -> Split {
        self.splits.get(name).copied().unwrap_or_default()
    }
}

/// `mp_rank_03`, `tp_rank_03_pp_rank_001`, also with a folder before it: tensor rank and stage.
pub fn ranks_of(folder: &str) -> Option<(usize, usize)> {
    let folder = folder.rsplit('/').next()?;
    // More ranks than any cluster has would only be a way to make us loop.
    let number = |text: &str| text.parse::<usize>().ok().filter(|&rank| rank < 4096);
    if let Some(rank) = folder.strip_prefix("mp_rank_") {
        return Some((number(rank)?, 0));
    }
    let (tensor, stage) = folder.strip_prefix("tp_rank_")?.split_once("_pp_rank_")?;
    Some((number(tensor)?, number(stage)?))
}

/// The format of a distributed checkpoint among the members that is not read, by the files it is known by.
fn unread(files: &NemoFiles) -> Option<&'static str> {
    let has = |known: fn(&str) -> bool| files.names().any(known);
    if has(|name| name.ends_with("/.zarray")) {
        Some("format `zarr`: a folder with `.zarray` for each tensor")
    } else if has(|name| name.ends_with(".distcp")) {
        Some("its `.metadata` is missing")
    } else if has(|name| name.starts_with("model_weights/")) {
        Some("folder `model_weights`")
    } else {
        None
    }
}

/// Names as a model in one piece has them: layers of later stages counted on from those before.
fn global_names(stages: &[Vec<Box<dyn TensorSource>>]) -> BTreeMap<String, Entry> {
    let mut entries = BTreeMap::new();
    let mut before: HashMap<String, usize> = HashMap::new();
    for (stage, ranks) in stages.iter().enumerate() {
        let mut here: HashMap<String, usize> = HashMap::new();
        for name in ranks[0].names() {
            let plain = plain(&name);
            let global = match layer_of(&plain) {
                Some((stack, layer, rest)) => {
                    let offset = before.get(stack).copied().unwrap_or(0);
                    let count = here.entry(stack.to_owned()).or_default();
                    *count = (*count).max(layer + 1);
                    format!("{stack}{}{rest}", offset.saturating_add(layer))
                }
                None => plain,
            };
            // The first stage that has a tensor has the one that is used; the head's copy in the last is the same.
            entries.entry(global).or_insert(Entry { stage, name });
        }
        // In any order: every stack adds to its own count.
        let mut here: Vec<_> = here.into_iter().collect();
        here.sort();
        for (stack, count) in here {
            *before.entry(stack).or_default() += count;
        }
    }
    entries
}

/// Without the wrapper that half-precision optimisation leaves in names.
fn plain(name: &str) -> String {
    match name.split_once(".module.") {
        Some((model, rest)) if matches!(model, "model" | "enc_dec_model") => {
            format!("{model}.{rest}")
        }
        _ => name.to_owned(),
    }
}

/// `a.layers.3.b` as `a.layers.`, 3, `.b`.
fn layer_of(name: &str) -> Option<(&str, usize, &str)> {
    let end = name.find(".layers.")? + ".layers.".len();
    let (stack, rest) = name.split_at(end);
    let digits = rest.find('.')?;
    let layer: usize = rest[..digits].parse().ok()?;
    (layer < 1 << 20).then_some((stack, layer, &rest[digits..]))
}

impl TensorSource for MegatronCheckpoint {
    fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let entry = self.entries.get(name)?;
        let parts: Vec<TensorInfo> = self.stages[entry.stage]
            .iter()
            .map(|file| file.info(&entry.name))
            .collect::<Option<_>>()?;
        let shapes: Vec<&[usize]> = parts.iter().map(|info| info.shape.as_slice()).collect();
        Some(TensorInfo {
            dtype: parts[0].dtype,
            shape: self.split(name).merged_shape(&shapes),
        })
    }

    fn load(&self, name: &str, device: &Device) -> Result<Tensor, TensorError> {
        let entry = self.entries.get(name).ok_or_else(|| TensorError::Missing {
            file: self.describe(),
            name: name.to_owned(),
        })?;
        let split = self.split(name);
        let ranks = &self.stages[entry.stage];
        let used = match split {
            Split::Replicated => &ranks[..1],
            _ => &ranks[..],
        };
        let parts = used
            .iter()
            .map(|file| file.load(&entry.name, device))
            .collect::<Result<Vec<_>, _>>()?;
        split.merge(&parts).map_err(|source| TensorError::Candle {
            file: self.describe(),
            name: name.to_owned(),
            source,
        })
    }

    fn mapped(&self, name: &str) -> Option<MappedTensor> {
        let entry = self.entries.get(name)?;
        match (self.split(name), self.stages[entry.stage].as_slice()) {
            (Split::Replicated, [file, ..]) | (_, [file]) => file.mapped(&entry.name),
            _ => None,
        }
    }

    fn describe(&self) -> String {
        self.described.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_cut_tensor_make_the_whole_again() {
        let whole = Tensor::arange(0f32, 48.0, &Device::Cpu)
            .unwrap()
            .reshape((12, 4))
            .unwrap();
        for split in [
            Split::Replicated,
            Split::Columns,
            Split::Rows { blocks: 1 },
            Split::Rows { blocks: 3 },
        ] {
            let parts: Vec<Tensor> = (0..2)
                .map(|rank| split.cut(&whole, rank, 2).unwrap())
                .collect();
            let shapes: Vec<&[usize]> = parts.iter().map(Tensor::dims).collect();
            assert_eq!(split.merged_shape(&shapes), [12, 4], "{split:?}");
            let merged = split.merge(&parts).unwrap();
            assert_eq!(
                merged.to_vec2::<f32>().unwrap(),
                whole.to_vec2::<f32>().unwrap(),
                "{split:?}"
            );
        }
        // A rank's share of three blocks: rows 2 and 3 of each four, for the second rank of two.
        let part = Split::Rows { blocks: 3 }.cut(&whole, 1, 2).unwrap();
        let first: Vec<f32> = part
            .narrow(1, 0, 1)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        assert_eq!(first, [8.0, 12.0, 24.0, 28.0, 40.0, 44.0]);
        assert!(Split::Rows { blocks: 5 }.cut(&whole, 0, 2).is_err());
    }

    #[test]
    fn folders_of_ranks_and_layers_are_told_by_their_names() {
        assert_eq!(ranks_of("mp_rank_03"), Some((3, 0)));
        assert_eq!(ranks_of("x/tp_rank_01_pp_rank_002"), Some((1, 2)));
        assert_eq!(ranks_of("mp_rank_x"), None);
        assert_eq!(
            layer_of("model.decoder.layers.12.mlp.weight"),
            Some(("model.decoder.layers.", 12, ".mlp.weight"))
        );
        assert_eq!(layer_of("model.layers"), None);
        assert_eq!(plain("model.module.a.module.b"), "model.a.module.b");
        assert_eq!(plain("model.a"), "model.a");
    }
}
