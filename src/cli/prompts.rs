//! `ptune export`, `ptune import`, `ptune prompt …`: finished prompts as files.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::DType;
use clap::{Args, Subcommand, ValueEnum};

use crate::diag::Diagnostic;
use crate::export::nemo::PromptArchive;
use crate::export::{self, Architecture, Format, Import, Options, edit};
use crate::schema::TaskTemplateSection;

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// The prompt archive that a prompt learning job wrote
    #[arg(value_name = "PROMPT.nemo")]
    archive: PathBuf,
    /// The program to write for
    #[arg(long, value_name = "FORM", value_enum)]
    to: To,
    /// Folder (peft) or file (the others) to write; nemo and nemo-b end in .nemo
    #[arg(long, short, value_name = "PATH")]
    output: PathBuf,
    /// The task to write; needed where the archive has several and the form holds one
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Stored type, for peft and prompt-embeds
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Stored,
    /// Name of the base model, for peft, nemo and nemo-b; that of the archive where it is not given
    #[arg(long, value_name = "NAME")]
    base_model: Option<String>,
    /// Read what was written and compare it
    #[arg(long)]
    verify: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum To {
    /// Hugging Face PEFT: a folder with a prompt tuning adapter
    Peft,
    /// NumPy [V, H], as T5X's prompt tuning reads it
    #[value(alias = "t5x")]
    Npy,
    /// TensorRT-LLM: NumPy [tasks, V, H] and a JSON of task numbers
    #[value(alias = "tensorrt-llm")]
    TrtLlm,
    /// torch.save of [V, H], for vLLM's prompt_embeds
    #[value(alias = "vllm")]
    PromptEmbeds,
    /// A prompt archive of NeMo 1.10 to 1.16: all tasks, or one
    #[value(alias = "nemo-a")]
    Nemo,
    /// A prompt archive of NeMo 1.17 to 2.0.0, which holds one task
    NemoB,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Stored {
    F32,
    F16,
    Bf16,
}

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// A PEFT folder, a .npy, a .pt with one tensor, or a prompt .nemo of one task
    #[arg(value_name = "PATH")]
    from: PathBuf,
    /// The prompt archive to write
    #[arg(long, short, value_name = "PROMPT.nemo")]
    output: PathBuf,
    /// Name for the task
    #[arg(long, value_name = "NAME")]
    task: String,
    /// How its rows become prompts, such as '<|VIRTUAL_PROMPT_0|>{question} {answer}'
    #[arg(long, value_name = "TEXT")]
    template: String,
    /// The field that holds the answer; it stands last in the template
    #[arg(long, value_name = "FIELD", default_value = "answer")]
    answer_field: String,
    /// The field that is shortened when a row is too long
    #[arg(long, value_name = "FIELD")]
    truncate_field: Option<String>,
    /// The base model; the one that the file names where it is not given
    #[arg(long, value_name = "PATH")]
    language_model_path: Option<PathBuf>,
    /// The base model's kind, where the file does not say it
    #[arg(long, value_enum)]
    architecture: Option<Kind>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Gpt,
    T5,
}

#[derive(Debug, Args)]
pub(super) struct PromptArguments {
    #[command(subcommand)]
    verb: PromptVerb,
}

#[derive(Debug, Subcommand)]
enum PromptVerb {
    /// The tasks of an archive, with a hash of each one's virtual tokens
    List {
        #[arg(value_name = "PROMPT.nemo")]
        archive: PathBuf,
        /// One JSON array
        #[arg(long)]
        json: bool,
    },
    /// Give a task another name
    Rename {
        #[arg(value_name = "PROMPT.nemo")]
        archive: PathBuf,
        #[arg(value_name = "TASK")]
        from: String,
        #[arg(value_name = "NEW_NAME")]
        to: String,
        /// Write here instead of in place
        #[arg(long, short, value_name = "PATH")]
        output: Option<PathBuf>,
    },
    /// Leave tasks out
    Remove {
        #[arg(value_name = "PROMPT.nemo")]
        archive: PathBuf,
        #[arg(value_name = "TASK", required = true)]
        tasks: Vec<String>,
        /// Write here instead of in place
        #[arg(long, short, value_name = "PATH")]
        output: Option<PathBuf>,
    },
    /// Put the tasks of several archives into one
    Merge {
        #[arg(value_name = "PROMPT.nemo", required = true, num_args = 2..)]
        archives: Vec<PathBuf>,
        /// The archive to write
        #[arg(long, short, value_name = "PATH")]
        output: PathBuf,
    },
}

fn open(path: &Path) -> Result<PromptArchive> {
    PromptArchive::open(path).with_context(|| format!("reading {}", path.display()))
}

pub(super) fn export(arguments: &ExportArguments) -> Result<i32> {
    let archive = open(&arguments.archive)?;
    let format = match arguments.to {
        To::Peft => Format::Peft,
        To::Npy => Format::Npy,
        To::TrtLlm => Format::TensorRtLlm,
        To::PromptEmbeds => Format::PromptEmbeds,
        To::Nemo => Format::NemoA,
        To::NemoB => Format::NemoB,
    };
    let dtype = match arguments.dtype {
        Stored::F32 => DType::F32,
        Stored::F16 => DType::F16,
        Stored::Bf16 => DType::BF16,
    };
    if dtype != DType::F32 && !matches!(format, Format::Peft | Format::PromptEmbeds) {
        return Err(Diagnostic::configuration("prompts are f32 in this form")
            .hint("--dtype f32")
            .into());
    }
    let options = Options {
        task: arguments.task.clone(),
        dtype: Some(dtype),
        base_model: arguments.base_model.clone(),
    };
    let written = export::write(&archive, format, &arguments.output, &options)?;
    let mut out = std::io::stdout().lock();
    for path in &written {
        writeln!(out, "{}", path.display())?;
    }
    if arguments.verify {
        verify(&archive, arguments, dtype)?;
        writeln!(out, "read back: equal")?;
    }
    Ok(0)
}

/// Reads what was written and compares it with the archive's rows in the stored type.
fn verify(archive: &PromptArchive, arguments: &ExportArguments, dtype: DType) -> Result<()> {
    let import = Import {
        task: "task".to_owned(),
        template: TaskTemplateSection {
            prompt_template: "<|VIRTUAL_PROMPT_0|>{text}".to_owned(),
            ..TaskTemplateSection::default()
        },
        architecture: archive.architecture().or(Some(Architecture::Gpt)),
        ..Import::default()
    };
    let read = match arguments.to {
        To::Nemo | To::NemoB => PromptArchive::open(&arguments.output)?,
        _ => export::read(&arguments.output, &import)?,
    };
    let expected: Vec<_> = match (&arguments.task, arguments.to) {
        (_, To::TrtLlm) | (None, _) => archive.tasks.values().collect(),
        (Some(task), _) => archive.tasks.get(task).into_iter().collect(),
    };
    let mut equal = expected.len() == read.tasks.len();
    for (expected, found) in expected.into_iter().zip(read.tasks.values()) {
        let expected = expected.to_dtype(dtype)?.to_dtype(DType::F32)?;
        equal &= expected.to_vec2::<f32>()? == found.to_vec2::<f32>()?;
    }
    if equal {
        return Ok(());
    }
    Err(Diagnostic::job(format!(
        "what was read back from {} differs from the archive",
        arguments.output.display()
    ))
    .note("please report this with the archive's model_config.yaml")
    .into())
}

pub(super) fn import(arguments: &ImportArguments) -> Result<i32> {
    let import = Import {
        task: arguments.task.clone(),
        template: TaskTemplateSection {
            prompt_template: arguments.template.clone(),
            answer_field: Some(arguments.answer_field.clone()),
            truncate_field: arguments.truncate_field.clone(),
            answer_only_loss: true,
            ..TaskTemplateSection::default()
        },
        language_model_path: arguments.language_model_path.clone(),
        architecture: arguments.architecture.map(|kind| match kind {
            Kind::Gpt => Architecture::Gpt,
            Kind::T5 => Architecture::T5,
        }),
    };
    let archive = export::read(&arguments.from, &import)?;
    archive.write(&arguments.output)?;
    print_tasks(&archive, false)?;
    Ok(0)
}

pub(super) fn prompt(arguments: &PromptArguments) -> Result<i32> {
    match &arguments.verb {
        PromptVerb::List { archive, json } => print_tasks(&open(archive)?, *json)?,
        PromptVerb::Rename {
            archive,
            from,
            to,
            output,
        } => {
            let renamed = edit::rename(&open(archive)?, from, to)?;
            renamed.write(output.as_ref().unwrap_or(archive))?;
            print_tasks(&renamed, false)?;
        }
        PromptVerb::Remove {
            archive,
            tasks,
            output,
        } => {
            let left = edit::remove(&open(archive)?, tasks)?;
            left.write(output.as_ref().unwrap_or(archive))?;
            print_tasks(&left, false)?;
        }
        PromptVerb::Merge { archives, output } => {
            let opened = archives
                .iter()
                .map(|path| Ok((path.clone(), open(path)?)))
                .collect::<Result<Vec<_>>>()?;
            let merged = edit::merge(&opened)?;
            merged.write(output)?;
            print_tasks(&merged, false)?;
        }
    }
    Ok(0)
}

fn print_tasks(archive: &PromptArchive, json: bool) -> Result<()> {
    let summaries = edit::summaries(archive)?;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&summaries)?)?;
        return Ok(());
    }
    let widest = summaries.iter().map(|one| one.task.chars().count()).max();
    let width = widest.unwrap_or(0).max(4);
    writeln!(
        out,
        "{:width$}  {:>6}  {:>6}  {:>9}  {:16}  template",
        "task", "tokens", "hidden", "mean norm", "sha256"
    )?;
    for one in &summaries {
        writeln!(
            out,
            "{:width$}  {:>6}  {:>6}  {:>9.3}  {:16}  {}",
            one.task,
            one.virtual_tokens,
            one.hidden_size,
            one.mean_norm,
            &one.sha256[..16],
            one.prompt_template.as_deref().unwrap_or("-")
        )?;
    }
    Ok(())
}
