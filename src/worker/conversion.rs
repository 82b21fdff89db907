//! The conversion job: a base model from one format to another, or to another partition.
//!
//! Reads a Hugging Face folder, a `.nemo` (archive or folder) or the checkpoints of a NeMo training, and writes a
//! `.nemo` or a Hugging Face folder. One tensor is in memory at a time.

mod tokenizer_files;
mod training_checkpoints;
mod verify;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::diag::Diagnostic;
use crate::model::checkpoint::Checkpoint;
use crate::model::config::{Layout, ModelConfig};
use crate::schema::{Conversion, OutputFormat};
use crate::sys::atomic_file;
use crate::tensors::nemo::{CONFIG_MEMBER, WEIGHTS_MEMBER};
use crate::tensors::nemo_files::NemoFiles;
use crate::tensors::nemo_writer::{self, Content, Member};
use crate::tensors::safetensors;
use crate::yaml::{self, Integer, Node, Value as Yaml};

/// What is converted.
pub(super) enum Source {
    HuggingFace(PathBuf),
    Nemo(NemoFiles),
    /// Checkpoints of a training: the text of their configuration.
    Training(String),
}

/// Runs the job: 0 when done.
pub(super) fn run(section: &Conversion) -> Result<i32> {
    let started = std::time::Instant::now();
    let given = &section.model.checkpoint_folder;
    let (source, checkpoint) = open(section)?;
    tracing::info!(
        "converting {} of {} tensor-parallel by {} pipeline ranks from {}",
        checkpoint.config.names(checkpoint.layout).architecture,
        checkpoint.partition.0,
        checkpoint.partition.1,
        given.display()
    );
    let results = section.run.results_dir.join("results");
    let written = match section.model.output_format {
        OutputFormat::Nemo => write_nemo(section, &source, &checkpoint, &results)?,
        OutputFormat::HuggingFace => write_hugging_face(section, &source, &checkpoint, &results)?,
    };
    tracing::info!(
        "wrote {} in {:.1} s",
        written.display(),
        started.elapsed().as_secs_f64()
    );
    if section.model.verify {
        verify::compare(&checkpoint, &written)?;
    }
    Ok(0)
}

pub(super) fn open(section: &Conversion) -> Result<(Source, Checkpoint)> {
    let path = &section.model.checkpoint_folder;
    if path.join("config.json").is_file() {
        let checkpoint = Checkpoint::hugging_face(path)?;
        return Ok((Source::HuggingFace(path.clone()), checkpoint));
    }
    if NemoFiles::is_nemo(path) {
        let files = NemoFiles::open(path).map_err(|error| Diagnostic::job(error.to_string()))?;
        let checkpoint = Checkpoint::nemo(&files)?;
        return Ok((Source::Nemo(files), checkpoint));
    }
    if !path.exists() {
        return Err(Diagnostic::configuration(format!(
            "`model.checkpoint_folder` does not exist: {}",
            path.display()
        ))
        .note("expected a Hugging Face folder, a `.nemo`, or the checkpoints of a NeMo training")
        .into());
    }
    let (text, checkpoint) = training_checkpoints::open(&section.model)?;
    Ok((Source::Training(text), checkpoint))
}

/// Tensor-parallel and pipeline ranks of the result: as asked for, else those of the source.
fn partition(section: &Conversion, checkpoint: &Checkpoint) -> (usize, usize) {
    let model = &section.model;
    (
        model
            .output_tensor_model_parallel_size
            .unwrap_or(checkpoint.partition.0)
            .max(1),
        model
            .output_pipeline_model_parallel_size
            .unwrap_or(checkpoint.partition.1)
            .max(1),
    )
}

fn write_nemo(
    section: &Conversion,
    source: &Source,
    checkpoint: &Checkpoint,
    results: &Path,
) -> Result<PathBuf> {
    let (ranks, stages) = partition(section, checkpoint);
    let (config, layout, mut yaml) = match source {
        Source::HuggingFace(_) => {
            let model = checkpoint
                .config
                .to_nemo(ranks)
                .map_err(|diagnostic| *diagnostic)?;
            let node = yaml::parse(&model.yaml(), crate::diag::source::SourceId(0))?;
            (model.config, model.layout, node)
        }
        Source::Nemo(files) => {
            let text = files.read_text(CONFIG_MEMBER)?;
            let node = yaml::parse(&text, crate::diag::source::SourceId(0))?;
            (checkpoint.config.clone(), checkpoint.layout, node)
        }
        Source::Training(text) => {
            let node = yaml::parse(text, crate::diag::source::SourceId(0))?;
            (checkpoint.config.clone(), checkpoint.layout, node)
        }
    };
    let yaml = yaml.get_or_insert_with(Node::empty_map);
    for (key, number) in [
        ("tensor_model_parallel_size", ranks),
        ("pipeline_model_parallel_size", stages),
    ] {
        set(yaml, key, Yaml::Int(Integer::Small(number as i128)));
    }
    if matches!(config, ModelConfig::T5(_)) {
        let split = Yaml::Int(Integer::Small((stages / 2) as i128));
        set(yaml, "pipeline_model_parallel_split_rank", split);
    }
    // Members borrow it until they are written.
    let rewriting = checkpoint.rewrite(&config, layout)?;
    let mut members = match source {
        Source::HuggingFace(folder) => {
            let is_t5 = matches!(config, ModelConfig::T5(_));
            let (tokenizer, members) = tokenizer_files::of_folder(folder, is_t5, &section.model)?;
            set(yaml, "tokenizer", tokenizer.value);
            set(yaml, "nemo_version", Yaml::Str(NEMO_VERSION.to_owned()));
            set(
                yaml,
                "ptune_version",
                Yaml::Str(env!("CARGO_PKG_VERSION").to_owned()),
            );
            members
        }
        Source::Nemo(files) => tokenizer_files::of_archive(files)?,
        Source::Training(_) => tokenizer_files::of_training(yaml, &section.model)?,
    };
    members.insert(
        0,
        Member {
            name: CONFIG_MEMBER.to_owned(),
            content: Content::Bytes(yaml::to_yaml(yaml).into_bytes()),
        },
    );
    for stage in 0..stages {
        for rank in 0..ranks {
            let tensors = rewriting.rank((rank, ranks), (stage, stages))?;
            members.push(Member {
                name: match (ranks, stages) {
                    (1, 1) => WEIGHTS_MEMBER.to_owned(),
                    (_, 1) => format!("mp_rank_{rank:02}/{WEIGHTS_MEMBER}"),
                    _ => format!("tp_rank_{rank:02}_pp_rank_{stage:03}/{WEIGHTS_MEMBER}"),
                },
                content: Content::Tensors {
                    tensors: tensors.list()?,
                    load: Box::new(move |name| tensors.load(name)),
                },
            });
        }
    }
    nemo_writer::check_names(&members)?;
    let path = results.join(&section.run.nemo_file_name);
    if section.run.pack_nemo_file {
        nemo_writer::write_archive(&path, &members)?;
        return Ok(path);
    }
    let folder = path.with_extension("");
    nemo_writer::write_folder(&folder, &members)?;
    Ok(folder)
}

/// The release whose layout is written.
const NEMO_VERSION: &str = "1.20.0";

fn set(map: &mut Node, key: &str, value: Yaml) {
    if let Some(entries) = map.as_map_mut() {
        entries.insert(crate::yaml::Key::Str(key.to_owned()), Node::computed(value));
    }
}

fn write_hugging_face(
    section: &Conversion,
    source: &Source,
    checkpoint: &Checkpoint,
    results: &Path,
) -> Result<PathBuf> {
    let folder = results.join(section.run.nemo_file_name.with_extension(""));
    let (config, layout, mut keys) = match source {
        Source::HuggingFace(_) => {
            return Err(Diagnostic::configuration(
                "`model.checkpoint_folder` is of Hugging Face already",
            )
            .hint("conversion.model.output_format=nemo")
            .into());
        }
        _ => {
            let model = checkpoint
                .config
                .to_hugging_face()
                .map_err(|diagnostic| *diagnostic)?;
            (model.config, model.layout, model.keys)
        }
    };
    if let Some(dtype) = checkpoint.dtype() {
        keys.insert("dtype".to_owned(), Value::from(torch_name(dtype)));
    }
    if let Source::Nemo(files) = source {
        tokenizer_files::to_folder(files, &folder, layout == Layout::T5)?;
    }
    let rewriting = checkpoint.rewrite(&config, layout)?;
    let tensors = rewriting.rank((0, 1), (0, 1))?;
    safetensors::write(
        &folder.join(safetensors::SINGLE_FILE),
        &tensors.list()?,
        |name| tensors.load(name),
    )
    .with_context(|| format!("writing {}", folder.display()))?;
    write_json(&folder.join("config.json"), &keys)?;
    Ok(folder)
}

fn torch_name(dtype: candle_core::DType) -> &'static str {
    match dtype {
        candle_core::DType::BF16 => "bfloat16",
        candle_core::DType::F16 => "float16",
        candle_core::DType::F64 => "float64",
        _ => "float32",
    }
}

fn write_json(path: &Path, keys: &Map<String, Value>) -> Result<()> {
    let mut text = serde_json::to_string_pretty(keys)?;
    text.push('\n');
    atomic_file::write(path, text)?;
    Ok(())
}
