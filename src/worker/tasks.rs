//! How rows become ids for a frozen model: the settings that follow from its kind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use candle_core::Device;

use super::frozen_model::Habits;
use crate::data::cache::RowCache;
use crate::data::dataset::{Architecture, DatasetOptions};
use crate::data::jsonl::Purpose;
use crate::export::nemo::PromptArchive;
use crate::prompt::PromptTable;
use crate::quickstart;
use crate::schema::{DataSection, EvaluationData, InferenceSection};
use crate::sys::env_vars;

/// What of a frozen model decides how its rows become ids.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowFacts {
    /// Its shape.
    pub(super) architecture: Architecture,
    /// Longest row, where positions are limited.
    pub(super) max_positions: Option<usize>,
    /// How a T5's rows were written in its pretraining.
    pub(super) habits: Habits,
    /// First id that stands for a virtual token.
    pub(super) pseudo_token_ids_start: u32,
}

/// Settings of a data set for a frozen model.
///
/// Keys that are null follow the checkpoint: a T5 of Hugging Face starts to write with the pad token and knows no
/// sentinel around an answer, one of NeMo's starts with BOS and a sentinel; both end answers with EOS. Relative
/// positions set no limit to a row's length.
pub(super) fn dataset_options(
    frozen: &RowFacts,
    data: &DataSection,
    purpose: Purpose,
) -> DatasetOptions {
    let longest = match (data.max_seq_length, frozen.max_positions) {
        (Some(asked), Some(limit)) => asked.min(limit),
        (Some(asked), None) => asked,
        (None, Some(limit)) => limit,
        (None, None) => usize::MAX,
    };
    DatasetOptions {
        architecture: frozen.architecture,
        purpose,
        max_seq_length: longest,
        min_seq_length: data.min_seq_length,
        add_bos: data.add_bos,
        add_eos: data.add_eos,
        decoder_starts_with_pad: data
            .decoder_starts_with_pad
            .unwrap_or(frozen.habits.decoder_starts_with_pad),
        add_eos_to_decoder_output: data.add_eos_to_decoder_output.unwrap_or(true),
        add_sentinel_to_input: data.add_sentinel_to_input.unwrap_or(frozen.habits.sentinel),
        ul2_prompt_token: data.ul2_prompt_token.clone(),
        pseudo_token_ids_start: frozen.pseudo_token_ids_start,
    }
}

/// The same for the answers of an evaluation: `tokens_to_generate` positions of a decoder-only model stay free, and its
/// prompt begins with BOS where `add_BOS` says so.
pub(super) fn answer_options(
    frozen: &RowFacts,
    data: &DataSection,
    inference: &InferenceSection,
) -> DatasetOptions {
    let mut options = dataset_options(frozen, data, Purpose::Answer);
    if frozen.architecture == Architecture::Gpt {
        options.add_bos = inference.add_bos.unwrap_or(options.add_bos);
        if let Some(limit) = frozen.max_positions {
            let room = limit.saturating_sub(inference.tokens_to_generate);
            options.max_seq_length = options.max_seq_length.min(room.max(1));
        }
    }
    options
}

/// Settings of an evaluation's rows: its own, else those that the prompt was tuned with.
pub(super) fn answer_data(asked: &EvaluationData, tuned: &DataSection) -> DataSection {
    DataSection {
        max_seq_length: asked.max_seq_length.or(tuned.max_seq_length),
        add_eos: asked.add_eos.unwrap_or(tuned.add_eos),
        add_bos: asked.add_bos.unwrap_or(tuned.add_bos),
        decoder_starts_with_pad: asked
            .decoder_starts_with_pad
            .or(tuned.decoder_starts_with_pad),
        add_sentinel_to_input: asked.add_sentinel_to_input.or(tuned.add_sentinel_to_input),
        ..tuned.clone()
    }
}

/// The files of rows to read. Built-in ones are written below `log_dir` first, where one can look at them.
pub(super) fn data_files(paths: &[PathBuf], log_dir: &Path) -> Result<Vec<PathBuf>> {
    let folder = log_dir.join("data");
    paths
        .iter()
        .map(|path| quickstart::unpack_rows(path, &folder))
        .collect()
}

/// Where tokenised rows are kept, if anywhere.
pub(super) fn row_cache(data: &DataSection) -> Option<RowCache> {
    /// Bytes of all rows together.
    const MOST: u64 = 4 << 30;
    if !data.cache {
        return None;
    }
    if let Some(folder) = &data.cache_dir {
        return Some(RowCache::new(folder.clone(), Duration::ZERO, u64::MAX));
    }
    let folder = env_vars::get(env_vars::XDG_CACHE_HOME)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(env_vars::get(env_vars::HOME)?).join(".cache")))?;
    let folder = folder.join("ptune/rows");
    Some(RowCache::new(folder, Duration::from_secs(1), MOST))
}

/// The prompt table that an archive holds.
pub(super) fn table_of(archive: &PromptArchive, device: &Device) -> Result<PromptTable> {
    let mut table = PromptTable::new();
    for (task, embeddings) in &archive.tasks {
        table.insert(task.as_str(), &embeddings.to_device(device)?)?;
    }
    Ok(table)
}
