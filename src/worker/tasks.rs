//! How rows become ids for a frozen model: the settings that follow from its kind.

use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::Device;

use super::frozen_model::FrozenModel;
use crate::data::dataset::DatasetOptions;
use crate::data::jsonl::Purpose;
use crate::export::nemo::PromptArchive;
use crate::prompt::PromptTable;
use crate::quickstart;
use crate::schema::DataSection;

/// Settings of a data set for `frozen`.
///
/// Keys that are null follow the checkpoint: a T5 of Hugging Face starts to write with the pad token and knows no
/// sentinel around an answer, one of NeMo's starts with BOS and a sentinel; both end answers with EOS. Relative
/// positions set no limit to a row's length.
pub(super) fn dataset_options(
    frozen: &FrozenModel,
    data: &DataSection,
    purpose: Purpose,
) -> DatasetOptions {
    let longest = match (data.max_seq_length, frozen.model.max_positions()) {
        (Some(asked), Some(limit)) => asked.min(limit),
        (Some(asked), None) => asked,
        (None, Some(limit)) => limit,
        (None, None) => usize::MAX,
    };
    DatasetOptions {
        architecture: frozen.architecture(),
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
        pseudo_token_ids_start: frozen.pseudo_token_ids_start(),
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

/// The prompt table that an archive holds.
pub(super) fn table_of(archive: &PromptArchive, device: &Device) -> Result<PromptTable> {
    let mut table = PromptTable::new();
    for (task, embeddings) in &archive.tasks {
        table.insert(task.as_str(), &embeddings.to_device(device)?)?;
    }
    Ok(table)
}
