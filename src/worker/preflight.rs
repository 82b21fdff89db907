//! A look at everything that a job will read, before it waits in a queue: the headers of its checkpoint, its tokenizer,
//! and every row through the templates. No weight is read and nothing is written.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::frozen_model::{Base, Habits, resolve, tokenizer_at, tokenizer_of};
use super::memory::{self, MicroBatch};
use super::run_settings;
use super::tasks::{self, RowFacts};
use super::{conversion, devices};
use crate::config::ResolvedConfig;
use crate::data::dataset::{Architecture, Dataset, DatasetOptions};
use crate::data::jsonl::Purpose;
use crate::diag::checklist::{Checklist, grouped};
use crate::diag::{Diagnostic, Location};
use crate::export::nemo::PromptArchive;
use crate::model::ModelConfig;
use crate::model::checkpoint::Checkpoint;
use crate::model::config::StackPositions;
use crate::prompt::EncoderConfig;
use crate::prompt::template::TaskTemplate;
use crate::quickstart;
use crate::schema::{
    Accelerator, Conversion, Evaluation, Precision, PromptLearning, PromptLearningModel,
    VirtualPromptStyle, WorkerJob, read_section,
};
use crate::tokenize::Tokenizer;
use crate::train::CheckpointFolder;

/// Tells which stage of the same command line writes a path.
type WrittenBy<'a> = dyn Fn(&Path) -> Option<&'static str> + 'a;

/// Looks into the jobs of one command line, in order.
pub struct Preflight {
    /// How long the rows of one job may take.
    time: Duration,
    /// A training looked at before: where it writes its prompts, and its settings.
    tuned: Vec<(PathBuf, PromptLearningModel)>,
}

/// What headers tell of a base model, and its tokenizer.
struct Outline {
    config: ModelConfig,
    parameters: u64,
    facts: RowFacts,
    tokenizer: Tokenizer,
}

impl Preflight {
    /// For the rows of one job, `time` to be tokenised in; what is not done by then is left out and said so.
    pub fn new(time: Duration) -> Self {
        Self {
            time,
            tuned: vec![],
        }
    }

    /// Adds what is found to `list`; returns the rows to train on, where they could be read.
    pub fn look(
        &mut self,
        job: WorkerJob,
        section: &ResolvedConfig,
        written_by: &WrittenBy<'_>,
        list: &mut Checklist,
    ) -> Option<usize> {
        match job {
            WorkerJob::DataPreparation => None,
            WorkerJob::Conversion => {
                let section: Conversion = read_section(section, "").ok()?;
                conversion(&section, written_by, list);
                None
            }
            WorkerJob::PromptLearning => {
                let section: PromptLearning = read_section(section, "").ok()?;
                let rows = self.prompt_learning(&section, written_by, list);
                self.tuned
                    .push((section.model.nemo_path.clone(), section.model));
                rows
            }
            WorkerJob::Evaluation => {
                let section: Evaluation = read_section(section, "").ok()?;
                self.evaluation(&section, written_by, list);
                None
            }
        }
    }

    fn prompt_learning(
        &self,
        section: &PromptLearning,
        written_by: &WrittenBy<'_>,
        list: &mut Checklist,
    ) -> Option<usize> {
        let model = &section.model;
        if let Err(problem) = devices::check_model_parallel(
            model.tensor_model_parallel_size,
            model.pipeline_model_parallel_size,
        ) {
            list.bad("devices", problem);
        }
        let templates = TaskTemplate::parse_all(&model.task_templates)
            .map_err(|problem| list.bad("templates", problem))
            .ok()?;
        let outline = base(
            &model.language_model_path,
            model.tokenizer_path.as_deref(),
            written_by,
            list,
        )?;
        let options = tasks::dataset_options(&outline.facts, &model.data, Purpose::Learn);
        let rows = Rows {
            outline: &outline,
            templates: &templates,
            options: &options,
            written_by,
        };
        let deadline = Instant::now() + self.time;
        let train = rows.look("training rows", &model.data.train_ds, deadline, list);
        if !model.data.validation_ds.is_empty() {
            rows.look("validation rows", &model.data.validation_ds, deadline, list);
        }
        if let Some(path) = &model.restore_path
            && path.exists()
            && let Err(error) = PromptArchive::open(path)
        {
            list.failed("existing tasks", &error);
        }
        checkpoint_there(section, list);
        let train = train?;
        if section.trainer.accelerator == Accelerator::Gpu && cfg!(feature = "cuda") {
            list.unchecked("memory", "not estimated for a GPU");
        } else {
            list.good("memory", memory_line(section, &outline, &train));
        }
        // Rows that were not tokenised in time count as the others do.
        let report = &train.report;
        Some(report.kept + (report.rows - report.read))
    }

    fn evaluation(
        &self,
        section: &Evaluation,
        written_by: &WrittenBy<'_>,
        list: &mut Checklist,
    ) -> Option<()> {
        let plan = section.plan();
        if let Err(problem) =
            devices::check_model_parallel(plan.model_parallel.0, plan.model_parallel.1)
        {
            list.bad("devices", problem);
        }
        let tuned_with = match &plan.prompt_path {
            None => PromptLearningModel::default(),
            Some(path) => {
                if let Some((_, model)) = self.tuned.iter().find(|(tuned, _)| tuned == path) {
                    list.good("prompts", "those of the training before");
                    model.clone()
                } else if path.exists() {
                    let settings = PromptArchive::open(path).and_then(|archive| archive.settings());
                    let settings = settings
                        .map_err(|error| list.failed("prompts", &error))
                        .ok()?;
                    list.good("prompts", format!("of {}", settings.new_tasks.join(", ")));
                    settings
                } else {
                    list.unchecked("prompts", "not there yet");
                    list.unchecked("rows", "their templates are those of the prompts");
                    return None;
                }
            }
        };
        let sections = if section.task_templates.is_empty() {
            &tuned_with.task_templates
        } else {
            &section.task_templates
        };
        let mut templates = TaskTemplate::parse_all(sections)
            .map_err(|problem| list.bad("templates", problem))
            .ok()?;
        if !plan.virtual_tokens {
            templates = templates
                .iter()
                .map(TaskTemplate::without_virtual_tokens)
                .collect();
        }
        let path = plan
            .language_model_path
            .clone()
            .unwrap_or(tuned_with.language_model_path.clone());
        let tokenizer = section
            .tokenizer_path
            .as_deref()
            .or(tuned_with.tokenizer_path.as_deref());
        let outline = base(&path, tokenizer, written_by, list)?;
        let options = tasks::answer_options(
            &outline.facts,
            &tasks::answer_data(&section.data, &tuned_with.data),
            &section.inference,
        );
        let rows = Rows {
            outline: &outline,
            templates: &templates,
            options: &options,
            written_by,
        };
        rows.look(
            "test rows",
            &plan.test_files,
            Instant::now() + self.time,
            list,
        );
        Some(())
    }
}

/// Whether the results folder holds a checkpoint that the job would go on from, or would refuse after its time in the
/// queue. Rows and weights are not compared.
fn checkpoint_there(section: &PromptLearning, list: &mut Checklist) {
    let name = "resuming";
    let checkpoints = CheckpointFolder::new(section.log_dir().join("checkpoints"));
    let path = checkpoints.last();
    if !path.exists() {
        return;
    }
    if !section.exp_manager.resume_if_exists {
        list.odd(
            name,
            format!(
                "starts over; the checkpoints beside {} are put aside",
                path.display()
            ),
        );
        return;
    }
    let looked = checkpoints.load(&path).and_then(|loaded| {
        let (state, _) = loaded.context("the checkpoint went away")?;
        run_settings::of_section(section)?.check(&path, &state)?;
        Ok(state)
    });
    match looked {
        Err(error) => list.failed(name, &error),
        Ok(state) if state.finished && state.global_step >= state.max_steps => {
            let step = state.global_step;
            list.good(
                name,
                format!("all of the {step} steps of {} are done", path.display()),
            );
        }
        Ok(state) => list.good(
            name,
            format!("at step {} from {}", state.global_step, path.display()),
        ),
    }
}

fn conversion(section: &Conversion, written_by: &WrittenBy<'_>, list: &mut Checklist) {
    let path = &section.model.checkpoint_folder;
    if let Some(stage) = written_by(path) {
        list.unchecked("checkpoint", format!("{stage} writes it"));
    } else if path.exists() {
        match conversion::open(section).and_then(|(_, checkpoint)| {
            checkpoint.check()?;
            Ok(checkpoint)
        }) {
            Ok(checkpoint) => list.good("checkpoint", describe(&checkpoint)),
            Err(error) => list.failed("checkpoint", &error),
        }
    } else {
        list.unchecked("checkpoint", "not there");
    }
}

/// Model and tokenizer.
fn base(
    path: &Path,
    tokenizer_path: Option<&Path>,
    written_by: &WrittenBy<'_>,
    list: &mut Checklist,
) -> Option<Outline> {
    if let Some(stage) = written_by(path) {
        list.unchecked("model", format!("{stage} writes it"));
        list.unchecked("rows", "the model's tokenizer is not there yet");
        return None;
    }
    if !path.exists() && !quickstart::is_builtin(path) {
        list.unchecked("model", "not there");
        list.unchecked("rows", "without the model's tokenizer they cannot be read");
        return None;
    }
    let base = resolve(path)
        .map_err(|error| list.failed("model", &error))
        .ok()?;
    let (checkpoint, tokenizer, habits) = match &base {
        Base::HuggingFace(folder) => (
            Checkpoint::hugging_face(folder.path()),
            match tokenizer_path {
                Some(given) => tokenizer_at(given),
                None => Tokenizer::from_folder(folder.path()),
            },
            Habits::HUGGING_FACE,
        ),
        Base::Nemo(files) => (
            Checkpoint::nemo(files),
            match tokenizer_path {
                Some(given) => tokenizer_at(given),
                None => tokenizer_of(files),
            },
            Habits::of_nemo(files),
        ),
    };
    let checkpoint = checkpoint.map_err(|error| list.failed("model", &error));
    if let Ok(checkpoint) = &checkpoint {
        match checkpoint.check() {
            Ok(()) => list.good("model", describe(checkpoint)),
            Err(error) => list.failed("model", &error),
        }
    }
    let tokenizer = tokenizer
        .map_err(|error| list.failed("tokenizer", &error))
        .ok();
    let (Ok(checkpoint), Some(tokenizer)) = (checkpoint, tokenizer) else {
        list.unchecked("rows", "they need the model and its tokenizer");
        return None;
    };
    let rows = vocabulary(&checkpoint.config);
    let words = format!(
        "{}, {} tokens",
        tokenizer.kind(),
        grouped(tokenizer.vocab_size() as u64)
    );
    if tokenizer.vocab_size() > rows {
        list.odd(
            "tokenizer",
            format!(
                "{words}, and the model has embeddings for {}: is it this model's?",
                grouped(rows as u64)
            ),
        );
    } else {
        list.good("tokenizer", words);
    }
    let (architecture, max_positions) = match &checkpoint.config {
        ModelConfig::Gpt(gpt) => (Architecture::Gpt, Some(gpt.max_positions)),
        ModelConfig::T5(t5) => (
            Architecture::T5,
            match t5.encoder.positions {
                StackPositions::Learned { count } => Some(count),
                StackPositions::Relative { .. } => None,
            },
        ),
    };
    Some(Outline {
        parameters: checkpoint.parameter_count(),
        facts: RowFacts {
            architecture,
            max_positions,
            habits,
            pseudo_token_ids_start: tokenizer.vocab_size().max(rows) as u32,
        },
        config: checkpoint.config,
        tokenizer,
    })
}

fn vocabulary(config: &ModelConfig) -> usize {
    match config {
        ModelConfig::Gpt(gpt) => gpt.vocab_size,
        ModelConfig::T5(t5) => t5.vocab_size,
    }
}

/// `GPT-2, 12 layers, hidden size 768, 124.4 M parameters in f32`.
fn describe(checkpoint: &Checkpoint) -> String {
    let (layers, hidden, positions) = match &checkpoint.config {
        ModelConfig::Gpt(gpt) => (
            format!("{} layers", gpt.layers),
            gpt.hidden_size,
            format!(", {} positions", grouped(gpt.max_positions as u64)),
        ),
        ModelConfig::T5(t5) => (
            format!("{} + {} layers", t5.encoder.layers, t5.decoder.layers),
            t5.hidden_size,
            match t5.encoder.positions {
                StackPositions::Learned { count } => {
                    format!(", {} positions", grouped(count as u64))
                }
                StackPositions::Relative { .. } => String::new(),
            },
        ),
    };
    let (tensor, pipeline) = checkpoint.partition;
    let ranks = if tensor * pipeline > 1 {
        format!(", saved by {tensor} x {pipeline} ranks")
    } else {
        String::new()
    };
    format!(
        "{}, {layers}, hidden size {hidden}{positions}, {:.1} M parameters{}{ranks}",
        checkpoint.config.names(checkpoint.layout).architecture,
        checkpoint.parameter_count() as f64 / 1e6,
        checkpoint
            .dtype()
            .map_or(String::new(), |dtype| format!(" in {}", dtype.as_str()))
    )
}

/// Rows of a job, and what they pass through.
struct Rows<'a> {
    outline: &'a Outline,
    templates: &'a [TaskTemplate],
    options: &'a DatasetOptions,
    written_by: &'a WrittenBy<'a>,
}

impl Rows<'_> {
    fn look(
        &self,
        name: &str,
        paths: &[PathBuf],
        deadline: Instant,
        list: &mut Checklist,
    ) -> Option<Dataset> {
        if let Some(stage) = paths.iter().find_map(|path| (self.written_by)(path)) {
            list.unchecked(name, format!("{stage} writes them"));
            return None;
        }
        if paths
            .iter()
            .any(|path| !path.exists() && !quickstart::is_builtin(path))
        {
            list.unchecked(name, "not there");
            return None;
        }
        let dataset = match self.load(paths, deadline) {
            Ok(dataset) => dataset,
            Err(error) => {
                list.failed(name, &error);
                return None;
            }
        };
        let report = &dataset.report;
        let lengths = dataset.examples.iter().map(|row| row.input_ids.len());
        let limit = match self.options.max_seq_length {
            usize::MAX => String::new(),
            limit => format!(" of {}", grouped(limit as u64)),
        };
        let mut text = if report.read < report.rows {
            format!(
                "the first {} of {} rows in the time there was",
                grouped(report.read as u64),
                grouped(report.rows as u64)
            )
        } else {
            format!("{} rows", grouped(report.rows as u64))
        };
        let _ = write!(
            text,
            ", {} kept; longest {}{limit} tokens, mean {:.0}",
            grouped(report.kept as u64),
            grouped(lengths.clone().max().unwrap_or(0) as u64),
            lengths.sum::<usize>() as f64 / dataset.examples.len().max(1) as f64
        );
        list.good(name, text);
        let shortened = [
            (report.truncated, "truncated"),
            (report.cut, "cut at the front"),
        ];
        for (count, what) in shortened.into_iter().filter(|(count, _)| *count > 0) {
            list.odd(
                "",
                format!(
                    "{} {what}, {} tokens lost in all",
                    grouped(count as u64),
                    grouped(report.tokens_dropped as u64)
                ),
            );
        }
        for line in report.lines().into_iter().skip(1) {
            list.odd("", line);
        }
        if let Some(problem) = self.beyond_vocabulary(&dataset) {
            list.bad(name, problem);
        }
        Some(dataset)
    }

    /// The rows, those that are part of the program from a folder that is gone again afterwards.
    fn load(&self, paths: &[PathBuf], deadline: Instant) -> Result<Dataset> {
        let folder = tempfile::tempdir().context("making a temporary folder")?;
        let paths: Vec<PathBuf> = paths
            .iter()
            .map(|path| quickstart::unpack_rows(path, folder.path()))
            .collect::<Result<_>>()?;
        Dataset::load_until(
            &paths,
            self.templates,
            &self.outline.tokenizer,
            self.options,
            Some(deadline),
        )
    }

    /// Tokens that the model has no embedding for.
    fn beyond_vocabulary(&self, dataset: &Dataset) -> Option<Diagnostic> {
        let rows = vocabulary(&self.outline.config) as u32;
        let start = self.options.pseudo_token_ids_start;
        let is_beyond = |id: &&u32| **id >= rows && **id < start;
        let (example, id) = dataset.examples.iter().find_map(|example| {
            let decoder = example.decoder_ids.iter().flatten();
            let id = example.input_ids.iter().chain(decoder).find(is_beyond)?;
            Some((example, *id))
        })?;
        let token = self.outline.tokenizer.id_to_token(id).unwrap_or_default();
        Some(
            Diagnostic::job(format!(
                "token `{token}` has the id {id}, and the model has embeddings for {rows} tokens"
            ))
            .at(Location::line(example.file.display(), example.line))
            .note("the tokenizer is not the one that the model was trained with")
            .hint("prompt_learning.model.tokenizer_path=FILE"),
        )
    }
}

/// The estimate in words, with what it is made of.
fn memory_line(section: &PromptLearning, outline: &Outline, train: &Dataset) -> String {
    let model = &section.model;
    let longest = |length: &dyn Fn(&crate::data::dataset::Example) -> usize| {
        train.examples.iter().map(length).max().unwrap_or(0)
    };
    let micro = model.micro_batch_size.min(train.examples.len().max(1));
    let row = longest(&|row| row.input_ids.len());
    let answer = longest(&|row| row.decoder_ids.as_ref().map_or(0, Vec::len));
    let hidden = match &outline.config {
        ModelConfig::Gpt(gpt) => gpt.hidden_size,
        ModelConfig::T5(t5) => t5.hidden_size,
    };
    let memory = memory::estimate(
        &outline.config,
        outline.parameters,
        section.trainer.precision == Precision::BFloat16,
        model.recomputed_layers(usize::MAX),
        trained(model, hidden),
        MicroBatch {
            positions: (micro * row) as u64,
            decoder_positions: (micro * answer) as u64,
        },
    );
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    format!(
        "about {:.2} GB: program {:.2}, weights {:.2}, trained {:.2}, {micro} rows of {row} tokens {:.2}",
        gigabytes(memory.total()),
        gigabytes(memory.program),
        gigabytes(memory.weights),
        gigabytes(memory.trained),
        gigabytes(memory.activations)
    )
}

/// Numbers that are tuned: the rows, or the encoder that makes them.
fn trained(model: &PromptLearningModel, hidden: usize) -> u64 {
    let tokens: usize = model
        .task_templates
        .iter()
        .map(|template| template.total_virtual_tokens)
        .max()
        .unwrap_or(0);
    let count = match model.virtual_prompt_style {
        VirtualPromptStyle::PTuning => {
            EncoderConfig::of_section(&model.p_tuning, tokens, hidden, model.seed).parameter_count()
        }
        _ => tokens * hidden * model.new_tasks.len(),
    };
    count as u64
}
