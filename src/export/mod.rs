//! Prompts in the files that other programs read and write.
//!
//! [`nemo::PromptArchive`] is the form that everything else starts from and ends in: a table of virtual tokens by task,
//! and the configuration that says how each task's rows become prompts. [`write`] turns one into the files of PEFT,
//! TensorRT-LLM, vLLM or T5X, [`read`] takes those back. A form that cannot hold what the archive says (virtual tokens
//! in the middle of a text, several tasks) is refused with the reason rather than cut down in silence.

pub mod edit;
mod generation_b;
pub mod nemo;
mod npy;
mod peft;
mod plain;

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use indexmap::IndexMap;

use crate::diag::suggest::did_you_mean;
use crate::diag::{Diagnostic, Location};
use crate::prompt::template::TaskTemplate;
use crate::schema::{PromptLearningModel, TaskTemplateSection};
use nemo::PromptArchive;

/// A form of file that prompts can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A folder of Hugging Face PEFT with an adapter of type PROMPT_TUNING.
    Peft,
    /// NumPy, [V, H] f32: T5X's and the published prompts of Lester et al. (2021).
    Npy,
    /// NumPy, [tasks, V, H] f32, and a JSON of which task has which number: TensorRT-LLM's prompt table.
    TensorRtLlm,
    /// What `torch.save` makes of one tensor [V, H]: the first rows of vLLM's `prompt_embeds`.
    PromptEmbeds,
    /// A `.nemo` as NeMo 1.10 to 1.16 has it: a table of tasks.
    NemoA,
    /// A `.nemo` as NeMo 1.17 to 2.0.0 has it: one task and the encoder that gives it.
    NemoB,
}

/// What [`write`] needs to know besides the archive.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The task to write where the form holds one; the archive's only task where this is nothing.
    pub task: Option<String>,
    /// Stored type; f32 where this is nothing. All forms but [`Format::Peft`] and [`Format::PromptEmbeds`] are f32
    /// always.
    pub dtype: Option<DType>,
    /// The base model's name, where it should not be the archive's `language_model_path`.
    pub base_model: Option<String>,
}

/// Which kind of frozen model the prompts are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Decoder only.
    Gpt,
    /// Encoder and decoder; virtual tokens are in the encoder's input.
    T5,
}

/// Writes `archive` in another program's form to `output`, a folder for [`Format::Peft`] and a file for the others, and
/// returns the files written.
///
/// # Errors
/// When the form cannot hold it: the [`Diagnostic`] says why.
pub fn write(
    archive: &PromptArchive,
    format: Format,
    output: &Path,
    options: &Options,
) -> Result<Vec<PathBuf>> {
    match format {
        Format::Peft => peft::write(archive, output, options),
        Format::Npy => plain::write_npy(archive, output, options),
        Format::TensorRtLlm => plain::write_table(archive, output),
        Format::PromptEmbeds => plain::write_prompt_embeds(archive, output, options),
        Format::NemoA => generation_b::write_a(archive, output, options),
        Format::NemoB => generation_b::write_b(archive, output, options),
    }
}

/// What another program's file does not say, and an archive must.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// Name for the task; tasks beyond the first get `_1`, `_2`, … behind it.
    pub task: String,
    /// How its rows become prompts; `total_virtual_tokens` is filled in from the file.
    pub template: TaskTemplateSection,
    /// The base model, where the file does not name the right one.
    pub language_model_path: Option<PathBuf>,
    /// The base model's kind, where the file does not say it.
    pub architecture: Option<Architecture>,
}

/// Reads another program's file or folder; which program's is seen from its content.
///
/// # Errors
/// When it is of no known form or holds something that virtual tokens at a model's input cannot express.
pub fn read(path: &Path, import: &Import) -> Result<PromptArchive> {
    if is_nemo(path) {
        return read_nemo(path, import);
    }
    if peft::is_one(path) {
        return peft::read(path, import);
    }
    let mut start = [0; 6];
    if !path.is_dir() {
        let read = fs_err::File::open(path).and_then(|mut file| file.read(&mut start));
        read.map_err(|error| Diagnostic::configuration(error.to_string()))?;
    }
    match start {
        npy::MAGIC => plain::read_npy(path, import),
        [b'P', b'K', ..] => plain::read_prompt_embeds(path, import),
        _ => Err(Diagnostic::configuration(format!(
            "`{}` is not a prompt file of a kind that can be read",
            path.display()
        ))
        .note("expected a PEFT folder with adapter_config.json, a prompt .nemo, a NumPy file, or what torch.save makes of one tensor")
        .into()),
    }
}

fn is_nemo(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "nemo") || path.join("model_config.yaml").is_file()
}

/// The one task of a prompt `.nemo` under another name and with another template.
fn read_nemo(path: &Path, import: &Import) -> Result<PromptArchive> {
    let archive = PromptArchive::open(path)?;
    if archive.tasks.len() > 1 {
        return Err(Diagnostic::configuration(format!(
            "{} holds several tasks, each with a template of its own",
            path.display()
        ))
        .hint(format!(
            "ptune export {} --to nemo --task {} --output one.nemo",
            path.display(),
            archive.tasks.keys().next().map_or("NAME", String::as_str)
        ))
        .into());
    }
    let architecture = archive
        .architecture()
        .or(import.architecture)
        .ok_or_else(|| {
            broken(path, "the file does not say what its model is").hint("--architecture t5")
        })?;
    let base_model = archive.settings()?.language_model_path;
    let tasks = archive.tasks.into_values();
    archive_of(
        tasks.map(|rows| (import.task.clone(), rows)).collect(),
        import,
        architecture,
        import.language_model_path.clone().unwrap_or(base_model),
    )
}

/// Only the rows of a file of any kind, a prompt `.nemo` included: task name to [V, H], f32. The one task of a file that
/// has no names has the name `prompt`.
///
/// # Errors
/// As those of [`read`] and [`PromptArchive::open`].
pub fn read_rows(path: &Path) -> Result<IndexMap<String, Tensor>> {
    if is_nemo(path) {
        return Ok(PromptArchive::open(path)?.tasks);
    }
    let import = Import {
        task: "prompt".to_owned(),
        template: TaskTemplateSection {
            prompt_template: "<|VIRTUAL_PROMPT_0|>{text}".to_owned(),
            ..TaskTemplateSection::default()
        },
        // What the rows are for is known to who asks; it only must not be missing.
        architecture: Some(Architecture::Gpt),
        ..Import::default()
    };
    Ok(read(path, &import)?.tasks)
}

/// The archive of tasks that were read: [V, H] each.
fn archive_of(
    tasks: Vec<(String, Tensor)>,
    import: &Import,
    architecture: Architecture,
    language_model_path: PathBuf,
) -> Result<PromptArchive> {
    let mut model = PromptLearningModel {
        language_model_path,
        ..PromptLearningModel::default()
    };
    for (task, rows) in &tasks {
        let virtual_tokens = rows.dim(0)?;
        model.task_templates.push(TaskTemplateSection {
            taskname: task.clone(),
            total_virtual_tokens: virtual_tokens,
            virtual_token_splits: vec![virtual_tokens],
            ..import.template.clone()
        });
    }
    // A template that evaluation would refuse is refused here.
    TaskTemplate::parse_all(&model.task_templates)?;
    let rows = tasks.iter().map(|(task, rows)| (task.as_str(), rows));
    PromptArchive::new(model, "32", rows, architecture == Architecture::T5)
}

/// The rows [V, H] of the one task that is asked for, on the CPU.
fn one_task<'a>(archive: &'a PromptArchive, options: &Options) -> Result<(&'a str, Tensor)> {
    let names = || {
        let names: Vec<&str> = archive.tasks.keys().map(String::as_str).collect();
        format!("it holds: {}", names.join(", "))
    };
    let (task, rows) = match &options.task {
        Some(task) => archive.tasks.get_key_value(task).ok_or_else(|| {
            let missing = Diagnostic::configuration(format!("the archive has no task `{task}`"))
                .note(names());
            match did_you_mean(task, archive.tasks.keys().map(String::as_str)) {
                Some(near) => missing.hint(format!("--task {near}")),
                None => missing,
            }
        })?,
        None if archive.tasks.len() == 1 => archive.tasks.get_index(0).expect("one entry"),
        None => {
            let first = archive.tasks.keys().next().map_or("NAME", String::as_str);
            return Err(Diagnostic::configuration(
                "the archive has several tasks, and this form holds one",
            )
            .note(names())
            .hint(format!("--task {first}"))
            .into());
        }
    };
    Ok((task, rows.to_device(&Device::Cpu)?.to_dtype(DType::F32)?))
}

/// The template of `task`, where the archive has one, after making sure that all its virtual tokens stand at the very
/// beginning: that is where `program` puts them, whatever the template says.
fn template_in_front(
    archive: &PromptArchive,
    task: &str,
    program: &str,
) -> Result<Option<TaskTemplateSection>> {
    let settings = archive.settings()?;
    let Some(template) = settings
        .task_templates
        .into_iter()
        .find(|template| template.taskname == task)
    else {
        return Ok(None);
    };
    let text = template.prompt_template.as_str();
    let used = template
        .virtual_token_splits
        .iter()
        .filter(|split| **split > 0);
    let in_front = text.trim_start().starts_with("<|VIRTUAL_PROMPT_0|>");
    if used.count() > 1 || !in_front {
        return Err(Diagnostic::configuration(format!(
            "the template of task `{task}` cannot be said in {program}"
        ))
        .note(format!(
            "{program} puts all virtual tokens in front of the text"
        ))
        .note(format!(
            "this template splits them {:?}: {text}",
            template.virtual_token_splits
        ))
        .hint("ptune export … --to trt-llm  # its token ids may stand anywhere")
        .into());
    }
    Ok(Some(template))
}

/// What is wrong with a file of another program.
fn broken(path: &Path, what: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::job(what.to_string()).at(Location::file(path.display()))
}
