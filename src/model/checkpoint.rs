//! A checkpoint opened but not loaded: sizes, layout and a source of tensors; and the same numbers in another layout.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};

use super::config::{Layout, ModelConfig};
use super::names::{Slot, Stored};
use super::weights::{Weights, in_order};
use super::{LanguageModel, LoadOptions};
use crate::diag::Diagnostic;
use crate::tensors::megatron::{MegatronCheckpoint, Split};
use crate::tensors::nemo;
use crate::tensors::nemo_files::NemoFiles;
use crate::tensors::safetensors::SafetensorsFile;
use crate::tensors::{TensorInfo, TensorSource};

/// A checkpoint whose configuration was understood.
pub struct Checkpoint {
    /// Sizes and variants.
    pub config: ModelConfig,
    /// How its tensors are named and lie.
    pub layout: Layout,
    /// Tensor-parallel and pipeline ranks that wrote it.
    pub partition: (usize, usize),
    source: Box<dyn TensorSource>,
}

impl Checkpoint {
    /// Opens the Hugging Face checkpoint in `folder`: `config.json` and `model.safetensors` (or its shards).
    ///
    /// # Errors
    /// A [`crate::diag::Diagnostic`] where the configuration is of no model known here; errors that name the file where
    /// one cannot be read.
    pub fn hugging_face(folder: &Path) -> Result<Self> {
        let opening = || format!("loading the language model from {}", folder.display());
        let (config, layout) =
            ModelConfig::from_hugging_face(&folder.join("config.json")).with_context(opening)?;
        let source = SafetensorsFile::open_folder(folder).with_context(opening)?;
        Ok(Self {
            config,
            layout,
            partition: (1, 1),
            source: Box::new(source),
        })
    }

    /// Opens a base model of NeMo: `model_config.yaml` and `model_weights.ckpt`, of one rank or of many.
    ///
    /// # Errors
    /// As [`Self::hugging_face`].
    pub fn nemo(files: &NemoFiles) -> Result<Self> {
        let opening = || format!("loading the language model from {}", files.path().display());
        let text = files.read_text(nemo::CONFIG_MEMBER).with_context(opening)?;
        let source = MegatronCheckpoint::open(files).with_context(opening)?;
        let yaml = files.path().join(nemo::CONFIG_MEMBER);
        Self::megatron(&yaml, &text, source).with_context(opening)
    }

    /// Megatron's weights with the configuration `text`, which `path` is the place of in messages.
    ///
    /// # Errors
    /// As [`Self::hugging_face`].
    pub fn megatron(path: &Path, text: &str, mut source: MegatronCheckpoint) -> Result<Self> {
        let (config, layout) = ModelConfig::from_nemo(path, text, &|name| source.rows_of(name))?;
        source.set_splits(config.names(layout).splits());
        Ok(Self {
            config,
            layout,
            partition: source.partition(),
            source: Box::new(source),
        })
    }

    /// Loads the model.
    ///
    /// # Errors
    /// A [`crate::diag::Diagnostic`] that lists every tensor that is missing, misshapen or unknown.
    pub fn model(&self, options: &LoadOptions) -> Result<LanguageModel> {
        let config = self.config.clone();
        LanguageModel::from_source(config, self.layout, self.source.as_ref(), options)
    }

    /// Whether every parameter is there in the shape that the configuration asks for, and nothing else; no number is
    /// read.
    ///
    /// # Errors
    /// A [`crate::diag::Diagnostic`] as [`Self::model`] gives it.
    pub fn check(&self) -> Result<()> {
        let table = self.config.names(self.layout);
        Weights::bind(self.source.as_ref(), &table, None, &Device::Cpu)
            .map_err(|diagnostic| *diagnostic)?;
        Ok(())
    }

    /// Numbers of the model, as its configuration has them.
    pub fn parameter_count(&self) -> u64 {
        let table = self.config.names(self.layout);
        let parts = table.slots.iter().flat_map(|slot| &slot.parts);
        parts
            .map(|part| part.shape.iter().map(|size| *size as u64).product::<u64>())
            .sum()
    }

    /// Type of the stored numbers: that of the word embeddings.
    pub fn dtype(&self) -> Option<DType> {
        let table = self.config.names(self.layout);
        let keys = table.slots.iter().flat_map(|slot| &slot.parts);
        keys.flat_map(|part| &part.keys)
            .find_map(|key| self.source.info(key))
            .map(|info| info.dtype)
    }

    /// The same numbers for a model of `config` (which may have a larger vocabulary) in `layout`, in `dtype` or, without
    /// one, each in the type it is stored in.
    ///
    /// # Errors
    /// As [`Self::model`].
    pub fn rewrite<'a>(
        &'a self,
        config: &ModelConfig,
        layout: Layout,
        dtype: Option<DType>,
    ) -> Result<Rewriting<'a>> {
        let table = self.config.names(self.layout);
        let weights = Weights::bind(self.source.as_ref(), &table, None, &Device::Cpu)
            .map_err(|diagnostic| *diagnostic)?;
        Ok(Rewriting {
            weights,
            dtype,
            slots: config.names(layout).slots,
            config: config.clone(),
            layout,
        })
    }
}

/// A checkpoint on its way to another layout: nothing is read before it is asked for.
pub struct Rewriting<'a> {
    weights: Weights<'a>,
    dtype: Option<DType>,
    slots: Vec<Slot>,
    config: ModelConfig,
    layout: Layout,
}

/// What a tensor-parallel rank of a pipeline stage holds: for each of its names where it comes from.
pub struct RankTensors<'a> {
    rewriting: &'a Rewriting<'a>,
    rank: usize,
    ranks: usize,
    /// Name in this rank's file -> slot and part.
    entries: BTreeMap<String, (usize, usize)>,
}

impl<'a> Rewriting<'a> {
    /// The tensors of one rank of one stage, of `ranks` by `stages`.
    ///
    /// # Errors
    /// Where layers cannot be shared out evenly.
    pub fn rank(
        &'a self,
        (rank, ranks): (usize, usize),
        (stage, stages): (usize, usize),
    ) -> Result<RankTensors<'a>> {
        let mut entries = BTreeMap::new();
        for (number, slot) in self.slots.iter().enumerate() {
            for (stage_of_it, offset) in self.stages_of(&slot.path, stages)? {
                if stage_of_it != stage {
                    continue;
                }
                for (part, about) in slot.parts.iter().enumerate() {
                    for key in self.written_keys(&slot.path, &about.keys, stage, stages) {
                        entries.insert(local(&key, offset), (number, part));
                    }
                }
            }
        }
        if stages > 1 && stage + 1 == stages {
            // Megatron keeps a copy of the tied table where the head is.
            let (tied, key, path) = match (&self.config, self.layout) {
                (ModelConfig::Gpt(config), Layout::MegatronCore) => {
                    (config.tied_head, "model.output_layer.weight", "tokens")
                }
                (ModelConfig::Gpt(config), _) => {
                    (config.tied_head, "model.word_embeddings.weight", "tokens")
                }
                (ModelConfig::T5(config), _) => (
                    config.tied_head,
                    "enc_dec_model.word_embeddings.weight",
                    "encoder.tokens",
                ),
            };
            let slot = self.slots.iter().position(|slot| slot.path == path);
            if let (true, Some(slot)) = (tied, slot) {
                entries.insert(key.to_owned(), (slot, 0));
            }
        }
        Ok(RankTensors {
            rewriting: self,
            rank,
            ranks,
            entries,
        })
    }

    /// The pipeline stages that hold a parameter, and how many layers of its stack come before them.
    fn stages_of(&self, path: &str, stages: usize) -> Result<Vec<(usize, usize)>> {
        if stages == 1 {
            return Ok(vec![(0, 0)]);
        }
        if let ModelConfig::T5(config) = &self.config
            && !(config.tied_head && config.shared_tokens)
        {
            return Err(Diagnostic::configuration(
                "a T5 whose head or embedding tables are its own cannot be shared out to pipeline ranks",
            )
            .note("NeMo's T5 in stages has one table for encoder, decoder and head")
            .hint("conversion.model.output_pipeline_model_parallel_size=1")
            .into());
        }
        let share = |layers: usize, stages: usize| -> Result<usize> {
            if stages == 0 || !layers.is_multiple_of(stages) {
                return Err(Diagnostic::configuration(format!(
                    "{layers} layers cannot be shared out evenly to {stages} pipeline ranks"
                ))
                .hint("conversion.model.output_pipeline_model_parallel_size=1")
                .into());
            }
            Ok(layers / stages)
        };
        let layer = |rest: &str| rest.split('.').next()?.parse::<usize>().ok();
        let last = stages - 1;
        Ok(match &self.config {
            ModelConfig::Gpt(config) => match layer(path) {
                Some(layer) => {
                    let per = share(config.layers, stages)?;
                    vec![(layer / per, layer / per * per)]
                }
                None if matches!(path, "tokens" | "positions") => vec![(0, 0)],
                None => vec![(last, 0)],
            },
            ModelConfig::T5(config) => {
                // Half of the stages are the encoder's.
                let split = stages / 2;
                let (stack, rest) = path.split_once('.').unwrap_or(("", path));
                let (first, count) = match stack {
                    "encoder" => (0, split),
                    _ => (split, stages - split),
                };
                match (layer(rest), rest) {
                    (Some(layer), _) => {
                        let per = share(config.stack(stack).layers, count)?;
                        vec![(first + layer / per, layer / per * per)]
                    }
                    // Each stage of a stack has the table of biases.
                    (None, "relative_bias") => {
                        (first..first + count).map(|stage| (stage, 0)).collect()
                    }
                    (None, "tokens") if stack == "encoder" => vec![(0, 0), (split, 0)],
                    (None, "tokens" | "positions") => vec![(first, 0)],
                    (None, _) if rest.starts_with("norm") => vec![(first + count - 1, 0)],
                    _ => vec![(last, 0)],
                }
            }
        })
    }

    /// Of the keys that a part may have, those that are written.
    fn written_keys(
        &self,
        path: &str,
        keys: &[String],
        stage: usize,
        stages: usize,
    ) -> Vec<String> {
        let shares_tables = matches!(self.layout, Layout::MegatronT5 { .. });
        if !shares_tables || path != "encoder.tokens" {
            return vec![keys[0].clone()];
        }
        // NeMo stores a shared table under both names, each in the stages that use it.
        match (stages, stage) {
            (1, _) => keys.to_vec(),
            (_, 0) => vec![keys[0].clone()],
            _ => keys.iter().skip(1).cloned().collect(),
        }
    }

    /// One part of a parameter, whole over all ranks, as the layout stores it.
    fn part(&self, slot: &Slot, part: usize) -> Result<Tensor> {
        let (tensor, from) = self
            .weights
            .as_stored(self.source_of(&slot.path))?
            .with_context(|| {
                format!(
                    "the checkpoint has no `{}`, which the other layout needs",
                    slot.path
                )
            })?;
        let dtype = self.dtype.unwrap_or(tensor.dtype());
        // In the same order on both sides nothing is computed, so that no bit changes.
        let stored = if *from == slot.stored {
            tensor
        } else {
            arrange(&in_models_order(tensor, from)?, &slot.stored)?
        };
        let dimension = usize::from(slot.stored == Stored::InOut);
        let rows: usize = slot.parts.iter().map(|part| part.shape[dimension]).sum();
        let stored = if is_vocabulary(&slot.path) && stored.dim(0)? < rows {
            with_more_rows(&stored, rows)?
        } else {
            stored
        };
        let before = &slot.parts[..part];
        let start = before.iter().map(|part| part.shape[dimension]).sum();
        let rows = slot.parts[part].shape[dimension];
        Ok(stored
            .narrow(dimension, start, rows)?
            .to_dtype(dtype)?
            .contiguous()?)
    }

    /// The source's parameter for a slot: where a model does without one, what it uses in its place.
    fn source_of<'s>(&self, path: &'s str) -> &'s str {
        let candidates: &[&str] = match path {
            "head.weight" => &["head.weight", "decoder.tokens", "encoder.tokens", "tokens"],
            "decoder.tokens" => &["decoder.tokens", "encoder.tokens"],
            _ => return path,
        };
        let found = candidates.iter().find(|path| self.weights.has(path));
        found.copied().unwrap_or(path)
    }
}

impl RankTensors<'_> {
    /// Names, types and shapes.
    ///
    /// # Errors
    /// Where a tensor cannot be shared out evenly.
    pub fn list(&self) -> Result<Vec<(String, TensorInfo)>> {
        let of_slot = |&(slot, part): &(usize, usize)| -> Result<TensorInfo> {
            let slot = &self.rewriting.slots[slot];
            let mut shape = slot.parts[part].shape.clone();
            let dimension = match slot.split {
                Split::Replicated => None,
                Split::Columns => Some(1),
                Split::Rows { .. } => Some(0),
            };
            if let Some(dimension) = dimension {
                if !shape[dimension].is_multiple_of(self.ranks) {
                    return Err(Diagnostic::configuration(format!(
                        "`{}` with {} rows or columns cannot be shared out evenly to {} tensor-parallel ranks",
                        slot.path, shape[dimension], self.ranks
                    ))
                    .hint("conversion.model.output_tensor_model_parallel_size=1")
                    .into());
                }
                shape[dimension] /= self.ranks;
            }
            let rewriting = self.rewriting;
            let stored = || {
                let path = rewriting.source_of(&slot.path);
                rewriting.weights.stored_dtype(path)
            };
            let dtype = rewriting.dtype.or_else(stored).with_context(|| {
                format!(
                    "the checkpoint has no `{}`, which the other layout needs",
                    slot.path
                )
            })?;
            Ok(TensorInfo { dtype, shape })
        };
        self.entries
            .iter()
            .map(|(name, entry)| Ok((name.clone(), of_slot(entry)?)))
            .collect()
    }

    /// The tensor of a name.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn load(&self, name: &str) -> Result<Tensor> {
        let &(slot, part) = self
            .entries
            .get(name)
            .with_context(|| format!("`{name}` is not in this rank's list"))?;
        let slot = &self.rewriting.slots[slot];
        let whole = self.rewriting.part(slot, part)?;
        if self.ranks == 1 {
            return Ok(whole);
        }
        Ok(slot.split.cut(&whole, self.rank, self.ranks)?)
    }
}

/// `a.layers.7.b` in a stage that has 6 layers before it is `a.layers.1.b`.
fn local(key: &str, offset: usize) -> String {
    let found = key.split_once(".layers.").and_then(|(stack, rest)| {
        let (layer, rest) = rest.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        Some(format!("{stack}.layers.{}.{rest}", layer - offset))
    });
    found.unwrap_or_else(|| key.to_owned())
}

fn is_vocabulary(path: &str) -> bool {
    path.ends_with("tokens") || path.starts_with("head.")
}

/// Rows that no token has: the mean of those there are, so that their logit is the mean of all and never the largest.
fn with_more_rows(table: &Tensor, rows: usize) -> candle_core::Result<Tensor> {
    let missing = rows - table.dim(0)?;
    let mean = table
        .to_dtype(DType::F32)?
        .mean_keepdim(0)?
        .to_dtype(table.dtype())?;
    let mut shape = table.dims().to_vec();
    shape[0] = missing;
    Tensor::cat(&[table, &mean.broadcast_as(shape)?.contiguous()?], 0)
}

/// Stored numbers as the model computes with them; differences from one as f32, whose sum half precision would round.
fn in_models_order(tensor: Tensor, stored: &Stored) -> candle_core::Result<Tensor> {
    match stored {
        Stored::Plain => Ok(tensor),
        Stored::InOut => tensor.t(),
        Stored::LessOne => tensor.to_dtype(DType::F32)? + 1.0,
        Stored::Interleaved { groups, widths } => in_order(&tensor, *groups, widths),
    }
}

/// The opposite of [`in_models_order`].
fn arrange(tensor: &Tensor, stored: &Stored) -> candle_core::Result<Tensor> {
    match stored {
        Stored::Plain => Ok(tensor.clone()),
        Stored::InOut => tensor.t(),
        Stored::LessOne => tensor.to_dtype(DType::F32)? - 1.0,
        Stored::Interleaved { groups, widths } => in_turns(tensor, *groups, widths),
    }
}

/// The opposite of sorting by projection: see [`Stored::Interleaved`].
fn in_turns(rows: &Tensor, groups: usize, widths: &[usize]) -> candle_core::Result<Tensor> {
    let mut start = 0;
    let mut projections = vec![];
    for &width in widths {
        let projection = rows.narrow(0, start, groups * width)?;
        let mut shape = vec![groups, width];
        shape.extend(&rows.dims()[1..]);
        projections.push(projection.reshape(shape)?); // [groups, width, …]
        start += groups * width;
    }
    Tensor::cat(&projections, 1)?.flatten(0, 1)
}
