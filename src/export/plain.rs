//! Forms that are a table of numbers and little else: NumPy, TensorRT-LLM's prompt table, vLLM's prompt embeddings.

use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use serde_json::json;

use super::nemo::PromptArchive;
use super::{Architecture, Import, Options, archive_of, broken, npy, one_task, template_in_front};
use crate::diag::Diagnostic;
use crate::sys::atomic_file;
use crate::tensors::torch::{self, StateValue};

/// One task, [V, H] f32: what T5X's prompt tuning reads, prepended to the encoder's input.
pub(super) fn write_npy(
    archive: &PromptArchive,
    output: &Path,
    options: &Options,
) -> Result<Vec<PathBuf>> {
    let (task, rows) = one_task(archive, options)?;
    template_in_front(archive, task, "a prompt file of T5X")?;
    atomic_file::write(output, npy::to_bytes(&rows)?)?;
    Ok(vec![output.to_owned()])
}

/// All tasks, [tasks, V, H] f32 with zeros behind the shorter ones, as `nemo_prompt_convert.py` of TensorRT-LLM lays
/// them out, and beside it a JSON that says which task has which number and how many rows.
pub(super) fn write_table(archive: &PromptArchive, output: &Path) -> Result<Vec<PathBuf>> {
    let mut longest = 0;
    let mut hidden_size = None;
    for (task, rows) in &archive.tasks {
        let (virtual_tokens, width) = rows.dims2()?;
        longest = longest.max(virtual_tokens);
        if *hidden_size.get_or_insert(width) != width {
            return Err(Diagnostic::job(format!(
                "the virtual tokens of task `{task}` are {width} wide, those before it {}",
                hidden_size.unwrap_or(0)
            ))
            .note("one table is for one base model")
            .into());
        }
    }
    let mut padded = vec![];
    for rows in archive.tasks.values() {
        let rows = rows.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let missing = longest - rows.dim(0)?;
        padded.push(rows.pad_with_zeros(0, 0, missing)?); // [V, H]
    }
    let table = Tensor::stack(&padded, 0)?; // [tasks, V, H]

    let settings = archive.settings()?;
    let tasks: serde_json::Map<String, serde_json::Value> = archive
        .tasks
        .iter()
        .enumerate()
        .map(|(index, (task, rows))| {
            let template = settings
                .task_templates
                .iter()
                .find(|one| one.taskname == *task);
            let entry = json!({
                "task_id": index,
                "virtual_tokens": rows.dims()[0],
                "virtual_token_splits": template.map(|one| &one.virtual_token_splits),
                "prompt_template": template.map(|one| &one.prompt_template),
            });
            (task.clone(), entry)
        })
        .collect();
    let map = json!({
        "task_vocab_size": longest,
        "hidden_size": hidden_size,
        "max_prompt_embedding_table_size": longest * archive.tasks.len(),
        "tasks": tasks,
    });
    let map_path = output.with_extension("json");
    let mut text = serde_json::to_string_pretty(&map)?;
    text.push('\n');
    atomic_file::write(output, npy::to_bytes(&table)?)?;
    atomic_file::write(&map_path, text)?;
    Ok(vec![output.to_owned(), map_path])
}

/// One task's rows [V, H] as `torch.save` writes a tensor. A request to vLLM holds them followed by the word embeddings
/// of its own text.
pub(super) fn write_prompt_embeds(
    archive: &PromptArchive,
    output: &Path,
    options: &Options,
) -> Result<Vec<PathBuf>> {
    let (task, rows) = one_task(archive, options)?;
    template_in_front(archive, task, "vLLM's prompt_embeds")?;
    let rows = rows.to_dtype(options.dtype.unwrap_or(DType::F32))?;
    atomic_file::write(output, torch::write(&StateValue::Tensor(rows))?)?;
    Ok(vec![output.to_owned()])
}

pub(super) fn read_npy(path: &Path, import: &Import) -> Result<PromptArchive> {
    let table = npy::read(path)?;
    npy::check_dimensions(path, &table)?;
    archive_of_table(&table, path, import)
}

pub(super) fn read_prompt_embeds(path: &Path, import: &Import) -> Result<PromptArchive> {
    let value = torch::read_file(path).map_err(|error| broken(path, error))?;
    let table = value
        .as_tensor()
        .or_else(|| value.get("prompt_embeddings")?.as_tensor())
        .ok_or_else(|| broken(path, "holds no single tensor and no `prompt_embeddings`"))?
        .to_dtype(DType::F32)?;
    npy::check_dimensions(path, &table)?;
    archive_of_table(&table, path, import)
}

/// From [V, H], or [tasks, V, H] whose rows of zeros at the end are padding.
fn archive_of_table(table: &Tensor, path: &Path, import: &Import) -> Result<PromptArchive> {
    let tables = match table.dims() {
        [_, _] => vec![table.clone()],
        _ => (0..table.dim(0)?)
            .map(|task| without_padding(&table.get(task)?))
            .collect::<Result<_>>()?,
    };
    let named = tables
        .into_iter()
        .enumerate()
        .map(|(index, rows)| (numbered(&import.task, index), rows))
        .collect();
    let architecture = import.architecture.ok_or_else(|| {
        Diagnostic::configuration(format!(
            "`{}` does not say which kind of model it is for",
            path.display()
        ))
        .hint("--architecture t5")
    })?;
    let model = import.language_model_path.clone().unwrap_or_default();
    archive_of(named, import, architecture, model)
}

/// `task`, `task_1`, `task_2`, …
pub(super) fn numbered(task: &str, index: usize) -> String {
    if index == 0 {
        task.to_owned()
    } else {
        format!("{task}_{index}")
    }
}

fn without_padding(rows: &Tensor) -> Result<Tensor> {
    let values = rows.to_vec2::<f32>()?;
    let kept = values
        .iter()
        .rposition(|row| row.iter().any(|value| *value != 0.0))
        .map_or(1, |last| last + 1);
    Ok(rows.narrow(0, 0, kept)?)
}

/// The kind of model that a PEFT `task_type` stands for.
pub(super) fn architecture_of(task_type: &str) -> Option<Architecture> {
    match task_type {
        "CAUSAL_LM" => Some(Architecture::Gpt),
        "SEQ_2_SEQ_LM" => Some(Architecture::T5),
        _ => None,
    }
}
