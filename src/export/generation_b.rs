//! Prompt `.nemo` archives in the layouts of both generations of NeMo: A (1.10 to 1.16) and B (1.17 to 2.0.0).
//!
//! A is a table of many tasks. B has one task, `new_tasks[0]`, and beside its row in the table the network that made it:
//! `embeddings` and a head. B's encoder does not look at the task's name, A's does, so an encoder goes along only where
//! it gives the task's virtual tokens without the name. Otherwise they are written as B's prompt tuning, the encoder
//! `embedding`, whose weight is its output: nothing is lost of the prompt, and training can go on from it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use indexmap::IndexMap;
use serde_yaml::{Mapping, Value};

use super::nemo::PromptArchive;
use super::{Architecture, Options};
use crate::diag::Diagnostic;
use crate::prompt::encoder::{EncoderConfig, PromptEncoder};
use crate::schema::{PTuningSection, PromptEncoderType};
use crate::sys::rng::SeededRng;
use crate::tensors::nemo::NemoArchive;
use crate::tensors::torch::StateValue;

/// The release whose layout is written: the last of generation B whose GPT works.
const NEMO_VERSION: &str = "1.20.0";
/// Largest difference, relative to the largest value, at which an encoder counts as the one that made the rows.
const SAME_ROWS: f32 = 1e-5;

/// Writes `archive`, of either generation, in the layout of generation A: all tasks, or the one of `options`.
pub(super) fn write_a(
    archive: &PromptArchive,
    output: &Path,
    options: &Options,
) -> Result<Vec<PathBuf>> {
    check(archive, output, options)?;
    let mut settings = archive.settings()?;
    let mut tasks = archive.tasks.clone();
    if options.task.is_some() {
        let (task, _) = super::one_task(archive, options)?;
        tasks.retain(|name, _| name == task);
        settings
            .task_templates
            .retain(|template| template.taskname == task);
    }
    if let Some(base_model) = &options.base_model {
        settings.language_model_path = base_model.into();
    }
    let config = parsed(archive)?;
    let precision = config.get("precision").cloned();
    let rows = tasks.iter().map(|(task, rows)| (task.as_str(), rows));
    let is_t5 = architecture(archive)? == Architecture::T5;
    let mut written = PromptArchive::new(
        settings,
        precision.unwrap_or_else(|| "32".into()),
        rows,
        is_t5,
    )?;
    if options.task.is_none() {
        written.encoder.clone_from(&archive.encoder);
    }
    written.write(output)?;
    Ok(vec![output.to_owned()])
}

/// Writes one task of `archive` in the layout of generation B.
pub(super) fn write_b(
    archive: &PromptArchive,
    output: &Path,
    options: &Options,
) -> Result<Vec<PathBuf>> {
    check(archive, output, options)?;
    let (task, rows) = super::one_task(archive, options)?;
    architecture(archive)?;
    let settings = archive.settings()?;
    let template = settings
        .task_templates
        .iter()
        .find(|template| template.taskname == task)
        .ok_or_else(|| {
            Diagnostic::configuration(format!("the archive has no template of task `{task}`")).note(
                "NeMo 1.17 and later builds the prompt from `task_templates` in model_config.yaml",
            )
        })?;
    let (virtual_tokens, hidden_size) = rows.dims2()?;
    let mut p_tuning = settings.p_tuning.clone();
    let mut encoder = archive.encoder.clone();
    if !gives(&p_tuning, &encoder, &rows)? {
        if !encoder.is_empty() {
            tracing::warn!(
                "the archive's prompt encoder stays behind: it reads the name of the task, which those of NeMo 1.17 and later do not"
            );
        }
        encoder = IndexMap::from([("embedding.weight".to_owned(), rows.clone())]);
        p_tuning.encoder_type = PromptEncoderType::Embedding;
    }
    let sizes = EncoderConfig::of_section(&p_tuning, virtual_tokens, hidden_size, 0);
    // What is null there is taken for a width by NeMo.
    p_tuning.encoder_hidden = Some(sizes.encoder_hidden);

    let mut config = parsed(archive)?;
    for (key, value) in [
        ("virtual_prompt_style", Value::from("p-tuning")),
        ("existing_tasks", Value::Sequence(vec![])),
        ("new_tasks", Value::Sequence(vec![task.into()])),
        ("task_templates", serde_yaml::to_value([template])?),
        ("p_tuning", serde_yaml::to_value(&p_tuning)?),
        ("nemo_version", NEMO_VERSION.into()),
    ] {
        config.insert(key.into(), value);
    }
    if let Some(base_model) = &options.base_model {
        config.insert("language_model_path".into(), base_model.as_str().into());
    }
    NemoArchive {
        model_config: super::nemo::yaml_of(&Value::Mapping(config)),
        weights: StateValue::Dict(modules(task, &rows, &encoder)?),
    }
    .write(output)?;
    Ok(vec![output.to_owned()])
}

/// The state dict: the task's row of the table, and one mapping for each module of the encoder.
fn modules(
    task: &str,
    rows: &Tensor,
    encoder: &IndexMap<String, Tensor>,
) -> Result<IndexMap<String, StateValue>> {
    let mut modules: IndexMap<&str, IndexMap<String, StateValue>> = IndexMap::new();
    let row = format!("prompt_table.{task}.prompt_embeddings.weight");
    let rows = StateValue::Tensor(rows.contiguous()?);
    modules.insert("prompt_table", IndexMap::from([(row, rows)]));
    for (name, tensor) in encoder {
        let (module, name) = match name.split_once('.') {
            Some(("embedding", rest)) => ("embeddings", rest),
            Some(("lstm_head", rest)) => ("lstm_head", rest),
            Some(("mlp_head", rest)) => ("mlp_head", rest),
            _ => ("tpmlp", name.as_str()),
        };
        let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
        let entries = modules.entry(module).or_default();
        entries.insert(name.to_owned(), StateValue::Tensor(tensor));
    }
    Ok(modules
        .into_iter()
        .map(|(module, entries)| (module.to_owned(), StateValue::Dict(entries)))
        .collect())
}

/// Whether generation B's encoder with these parameters, which sees no name, has `rows` as its output.
fn gives(
    section: &PTuningSection,
    parameters: &IndexMap<String, Tensor>,
    rows: &Tensor,
) -> Result<bool> {
    // Not a type that NeMo has.
    if section.encoder_type == PromptEncoderType::BigLstm {
        return Ok(false);
    }
    let Ok(output) = output_of(section, parameters) else {
        return Ok(false);
    };
    if output.dims() != rows.dims() {
        return Ok(false);
    }
    let largest =
        |tensor: Tensor| -> Result<f32> { Ok(tensor.abs()?.max_all()?.to_scalar::<f32>()?) };
    let scale = largest(rows.clone())?;
    Ok(largest((output - rows)?)? <= SAME_ROWS * scale)
}

/// The output [V, H] of an encoder without a task's name.
fn output_of(section: &PTuningSection, parameters: &IndexMap<String, Tensor>) -> Result<Tensor> {
    let embedding = parameters
        .get("embedding.weight")
        .context("the archive holds no `embeddings`")?;
    let (virtual_tokens, hidden_size) = embedding.dims2()?;
    let mut config = EncoderConfig::of_section(section, virtual_tokens, hidden_size, 0);
    let first = parameters
        .get("first.weight")
        .or_else(|| parameters.get("mlp_head.0.weight"));
    // The width inside is seen in the weights: what a configuration leaves open differs from release to release.
    config.encoder_hidden = match (section.encoder_type, first) {
        (PromptEncoderType::TpMlp | PromptEncoderType::Mlp, Some(weight)) => weight.dim(0)?,
        (PromptEncoderType::Lstm, Some(weight)) => weight.dim(0)? / 2,
        _ => config.encoder_hidden,
    };
    let encoder = PromptEncoder::new(&config, &mut SeededRng::new(0, 0), &Device::Cpu)?;
    encoder.load(parameters)?;
    Ok(encoder.forward(None)?.detach())
}

/// Fills in rows that generation B left at zero: it writes the table's row only while validating, so that an archive made
/// right after a training step holds zeros there. What the encoder gives is the prompt.
///
/// # Errors
/// When the rows are zeros and the encoder that would give them is not in the archive.
pub(super) fn fill_zeros(archive: &mut PromptArchive, path: &Path) -> Result<()> {
    if !archive.encoder.contains_key("embedding.weight") {
        return Ok(());
    }
    let zeros = |rows: &Tensor| -> Result<bool> {
        Ok(rows.elem_count() > 0 && rows.abs()?.max_all()?.to_scalar::<f32>()? == 0.0)
    };
    let mut empty = vec![];
    for (task, rows) in &archive.tasks {
        if zeros(rows)? {
            empty.push(task.clone());
        }
    }
    if empty.is_empty() {
        return Ok(());
    }
    let output = archive
        .settings()
        .and_then(|settings| output_of(&settings.p_tuning, &archive.encoder))
        .map_err(|error| {
            Diagnostic::job(format!(
                "{}: the virtual tokens of `{}` are all zero, and its encoder does not give them",
                path.display(),
                empty.join("`, `")
            ))
            .note("NeMo 1.17 and later leaves zeros where it saved right after a training step")
            .note(format!("{error:#}"))
        })?;
    tracing::info!(
        "{}: the virtual tokens of `{}` are all zero, as NeMo 1.17 and later leaves them where it saved right after a \
         training step; they are computed by the archive's encoder",
        path.display(),
        empty.join("`, `")
    );
    for task in empty {
        archive.tasks.insert(task, output.clone());
    }
    Ok(())
}

/// What both layouts ask of an archive, and of the name of the file.
fn check(archive: &PromptArchive, output: &Path, options: &Options) -> Result<()> {
    if output.extension().is_none_or(|end| end != "nemo") {
        return Err(Diagnostic::configuration(format!(
            "`{}` does not end in .nemo, by which NeMo knows its archives",
            output.display()
        ))
        .hint(format!("--output {}.nemo", output.display()))
        .into());
    }
    let wanted = |task: &&String| options.task.as_ref().is_none_or(|asked| asked == *task);
    let dotted = archive.tasks.keys().filter(wanted);
    if let Some(task) = dotted.into_iter().find(|task| task.contains('.')) {
        return Err(Diagnostic::configuration(format!(
            "NeMo takes no task name with a dot: `{task}`"
        ))
        .note("it is the name of a module in PyTorch there")
        .hint(format!(
            "ptune prompt rename PROMPT.nemo {task} {}",
            task.replace('.', "_")
        ))
        .into());
    }
    Ok(())
}

/// NeMo chooses the class to build by it.
fn architecture(archive: &PromptArchive) -> Result<Architecture> {
    archive.architecture().ok_or_else(|| {
        Diagnostic::configuration("the archive does not say whether its model is a GPT or a T5")
            .note("`target` in its model_config.yaml names NeMo's class")
            .into()
    })
}

fn parsed(archive: &PromptArchive) -> Result<Mapping> {
    serde_yaml::from_str(&archive.model_config)
        .context("reading model_config.yaml of the prompt archive")
}
