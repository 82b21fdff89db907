//! The conversion job: a base model from one format to another, or to another partition.
//!
//! Reads a Hugging Face folder, a `.nemo` (archive or folder) or the checkpoints of a NeMo training, and writes a
//! `.nemo` or a Hugging Face folder. One tensor is in memory at a time.

mod tokenizer_files;
mod training_checkpoints;
mod verify;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::DType;
use serde_json::{Map, Value};

use crate::diag::Diagnostic;
use crate::diag::source::SourceId;
use crate::model::checkpoint::Checkpoint;
use crate::model::config::ModelConfig;
use crate::schema::{Conversion, OutputFormat, Precision};
use crate::sys::atomic_file;
use crate::tensors::nemo::{CONFIG_MEMBER, NEMO_2_WAY_OUT, WEIGHTS_MEMBER};
use crate::tensors::nemo_files::NemoFiles;
use crate::tensors::nemo_writer::{self, Content, Member};
use crate::tensors::safetensors;
use crate::tokenize::Tokenizer;
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
    warn_of_ranks(section, &source, &checkpoint);
    check_kind(section, &checkpoint)?;
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
        verify::compare(&checkpoint, &written, dtype(section))?;
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
    if NemoFiles::is_nemo_2(path) && section.model.hparams_file.is_none() {
        return Err(Diagnostic::configuration(format!(
            "`model.checkpoint_folder` holds no model that is read here: {}",
            path.display()
        ))
        .note(NEMO_2_WAY_OUT)
        .into());
    }
    let (text, checkpoint) = training_checkpoints::open(&section.model)?;
    Ok((Source::Training(text), checkpoint))
}

/// The ranks of a training are found by their folders; a section that says otherwise is probably of another model.
fn warn_of_ranks(section: &Conversion, source: &Source, checkpoint: &Checkpoint) {
    let model = &section.model;
    let said = (
        model.tensor_model_parallel_size,
        model.pipeline_model_parallel_size,
    );
    if matches!(source, Source::Training(_)) && said != checkpoint.partition {
        tracing::warn!(
            "`model.tensor_model_parallel_size` and `pipeline_model_parallel_size` say {} and {}, the checkpoints are of {} \
             and {} ranks: these are read",
            said.0,
            said.1,
            checkpoint.partition.0,
            checkpoint.partition.1
        );
    }
}

/// A checkpoint of the other kind would get the wrong name, and be taken for what it is not by the stage behind.
fn check_kind(section: &Conversion, checkpoint: &Checkpoint) -> Result<()> {
    let kind = match checkpoint.config {
        ModelConfig::Gpt(_) => "gpt",
        ModelConfig::T5(_) => "t5",
    };
    let asked = section.model.model_type.as_str();
    if asked == "auto" || asked == kind {
        return Ok(());
    }
    Err(Diagnostic::configuration(format!(
        "`model.model_type` is {asked}, and {} holds a {kind}",
        section.model.checkpoint_folder.display()
    ))
    .hint(format!("conversion.model.model_type={kind}"))
    .into())
}

/// The type that is asked for; none: as stored.
fn dtype(section: &Conversion) -> Option<DType> {
    section.model.precision.map(|precision| match precision {
        Precision::Float32 => DType::F32,
        Precision::Float16 => DType::F16,
        Precision::BFloat16 => DType::BF16,
    })
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
    let yaml_of = |text: &str| yaml::parse(text, SourceId(0));
    let (config, layout, mut yaml, artifacts) = match source {
        Source::HuggingFace(folder) => {
            let is_t5 = matches!(checkpoint.config, ModelConfig::T5(_));
            let (tokenizer, members) = tokenizer_files::of_folder(folder, is_t5, &section.model)?;
            let tokens = tokenizer_files::size(folder, &tokenizer, &members, is_t5);
            let model = checkpoint
                .config
                .to_nemo(ranks, tokens)
                .map_err(|diagnostic| *diagnostic)?;
            say_rows(&checkpoint.config, &model.config);
            let mut yaml = yaml_of(&model.yaml())?.unwrap_or_else(Node::empty_map);
            set(&mut yaml, "tokenizer", tokenizer.value);
            let rows = checkpoint.config.vocab_size();
            if model.config.vocab_size() > rows {
                set(
                    &mut yaml,
                    ROWS_BEFORE,
                    Yaml::Int(Integer::Small(rows as i128)),
                );
            }
            for (key, version) in [
                ("nemo_version", NEMO_VERSION),
                ("ptune_version", env!("CARGO_PKG_VERSION")),
            ] {
                set(&mut yaml, key, Yaml::Str(version.to_owned()));
            }
            (model.config, model.layout, yaml, members)
        }
        Source::Nemo(files) => {
            let text = files.read_text(CONFIG_MEMBER)?;
            let yaml = yaml_of(&text)?.unwrap_or_else(Node::empty_map);
            let config = checkpoint.config.clone();
            let members = tokenizer_files::of_archive(files)?;
            (config, checkpoint.layout, yaml, members)
        }
        Source::Training(text) => {
            let mut yaml = yaml_of(text)?.unwrap_or_else(Node::empty_map);
            let members = tokenizer_files::of_training(&mut yaml, &section.model)?;
            let is_t5 = matches!(checkpoint.config, ModelConfig::T5(_));
            set(&mut yaml, "target", Yaml::Str(target(is_t5)));
            let config = checkpoint.config.clone();
            (config, checkpoint.layout, yaml, members)
        }
    };
    let config = match source {
        // NeMo counts the rows for the ranks that share them.
        Source::Nemo(_) | Source::Training(_) if ranks != checkpoint.partition.0 => {
            let tokens = match source {
                Source::Nemo(files) => Tokenizer::from_nemo_files(files).ok(),
                _ => None,
            };
            let (padded, divisor) =
                config.for_ranks(ranks, tokens.as_ref().map(Tokenizer::vocab_size));
            say_rows(&config, &padded);
            let divisor = Yaml::Int(Integer::Small(divisor as i128));
            set(&mut yaml, "make_vocab_size_divisible_by", divisor);
            padded
        }
        _ => config,
    };
    for (key, number) in [
        ("tensor_model_parallel_size", ranks),
        ("pipeline_model_parallel_size", stages),
    ] {
        set(&mut yaml, key, Yaml::Int(Integer::Small(number as i128)));
    }
    if matches!(config, ModelConfig::T5(_)) {
        let split = Yaml::Int(Integer::Small((stages / 2) as i128));
        set(&mut yaml, "pipeline_model_parallel_split_rank", split);
    }
    let dtype = dtype(section);
    if let Some(stored) = match source {
        Source::HuggingFace(_) => dtype.or(checkpoint.dtype()),
        _ => dtype,
    } {
        set(&mut yaml, "precision", precision_key(stored));
    }
    let rewriting = checkpoint.rewrite(&config, layout, dtype)?;
    let mut members: Vec<Member<'_>> = artifacts;
    members.insert(
        0,
        Member {
            name: CONFIG_MEMBER.to_owned(),
            content: Content::Bytes(yaml::to_yaml(&yaml).into_bytes()),
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

/// Says so where the table had to grow: the softmax runs over the new rows too.
fn say_rows(before: &ModelConfig, after: &ModelConfig) {
    let (before, after) = (before.vocab_size(), after.vocab_size());
    if after > before {
        tracing::info!(
            "the embedding table grows from {before} to {after} rows, as NeMo pads it: the new ones are the mean of the \
             others, which raises no loss by more than {:.1e}",
            (after as f64 / before as f64).ln()
        );
    }
}

/// NeMo's class of a model.
fn target(is_t5: bool) -> String {
    let (module, class) = if is_t5 { ("t5", "T5") } else { ("gpt", "GPT") };
    format!(
        "nemo.collections.nlp.models.language_modeling.megatron_{module}_model.Megatron{class}Model"
    )
}

fn precision_key(dtype: DType) -> Yaml {
    match dtype {
        DType::BF16 => Yaml::Str("bf16".to_owned()),
        DType::F16 => Yaml::Int(Integer::Small(16)),
        _ => Yaml::Int(Integer::Small(32)),
    }
}

/// Key of `model_config.yaml`, ours: rows of the table before it was padded, so that the way back can leave the others.
const ROWS_BEFORE: &str = "ptune_unpadded_vocab_size";

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
            let model = without_padding(source, checkpoint)?
                .to_hugging_face()
                .map_err(|diagnostic| *diagnostic)?;
            (model.config, model.layout, model.keys)
        }
    };
    let dtype = dtype(section);
    if let Some(dtype) = dtype.or(checkpoint.dtype()) {
        keys.insert("torch_dtype".to_owned(), Value::from(torch_name(dtype)));
    }
    match source {
        Source::Nemo(files) => tokenizer_files::to_folder(files, &folder, layout)?,
        _ => tokenizer_files::given_to_folder(&section.model, &folder, layout)?,
    }
    let rewriting = checkpoint.rewrite(&config, layout, dtype)?;
    let tensors = rewriting.rank((0, 1), (0, 1))?;
    safetensors::write_folder(&folder, &tensors.list()?, MAX_SHARD, |name| {
        tensors.load(name)
    })
    .with_context(|| format!("writing {}", folder.display()))?;
    write_json(&folder.join("config.json"), &keys)?;
    Ok(folder)
}

/// The model with the rows it had before it was padded for NeMo, where the archive tells.
fn without_padding(source: &Source, checkpoint: &Checkpoint) -> Result<ModelConfig> {
    let rows = checkpoint.config.vocab_size();
    let before = match source {
        Source::Nemo(files) => yaml::parse(&files.read_text(CONFIG_MEMBER)?, SourceId(0))?
            .and_then(|node| match node.child(ROWS_BEFORE)?.value {
                Yaml::Int(Integer::Small(rows)) => usize::try_from(rows).ok(),
                _ => None,
            })
            .filter(|before| (1..rows).contains(before)),
        _ => None,
    };
    Ok(checkpoint.config.with_vocab_size(before.unwrap_or(rows)))
}

/// Bytes of a file's tensors, as transformers cuts them.
const MAX_SHARD: usize = 5_000_000_000;

fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        DType::F64 => "float64",
        _ => "float32",
    }
}

fn write_json(path: &Path, keys: &Map<String, Value>) -> Result<()> {
    let mut text = serde_json::to_string_pretty(keys)?;
    text.push('\n');
    atomic_file::write(path, text)?;
    Ok(())
}
