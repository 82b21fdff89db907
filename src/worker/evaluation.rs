//! The evaluation job: answers generated for rows, scored against their references.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use super::devices::{self, Role};
use super::frozen_model::FrozenModel;
use super::{report, tasks};
use crate::data::collate::Batch;
use crate::data::dataset::Dataset;
use crate::diag::{Diagnostic, Location};
use crate::eval::{EvalReport, squad};
use crate::export::nemo::PromptArchive;
use crate::generate::{GenerateOptions, greedy};
use crate::model::{LanguageModel, Rows};
use crate::prompt::template::TaskTemplate;
use crate::prompt::{PromptTable, SplicePlan};
use crate::schema::{Evaluation, EvaluationPlan, PromptLearningModel};
use crate::sys::atomic_file;

/// One line of `predictions.jsonl`.
#[derive(Serialize)]
struct Prediction<'a> {
    file: String,
    line: usize,
    taskname: &'a str,
    prediction: &'a str,
    answers: &'a [String],
    exact_match: f64,
    f1: f64,
}

/// `metrics.json`.
#[derive(Serialize)]
struct Metrics {
    #[serde(flatten)]
    report: EvalReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    without_virtual_tokens: Option<EvalReport>,
    generated_tokens: usize,
    seconds: f64,
}

/// Answers and their cost.
struct Generated {
    texts: Vec<String>,
    tokens: usize,
    seconds: f64,
}

/// Generates and scores what the section asks for.
pub(super) fn run(section: &Evaluation) -> Result<i32> {
    let plan = section.plan();
    if devices::role(plan.model_parallel.0, plan.model_parallel.1)? == Role::Watches {
        return Ok(0);
    }
    let archive = plan
        .prompt_path
        .as_ref()
        .map(|path| {
            PromptArchive::open(path)
                .with_context(|| format!("reading the prompts from {}", path.display()))
        })
        .transpose()?;
    let tuned_with: PromptLearningModel = match &archive {
        Some(archive) => archive.settings()?,
        None => PromptLearningModel::default(),
    };
    let sections = if section.task_templates.is_empty() {
        &tuned_with.task_templates
    } else {
        &section.task_templates
    };
    let templates = TaskTemplate::parse_all(sections)?;

    let device = devices::device(plan.accelerator)?;
    let model_path: PathBuf = plan
        .language_model_path
        .clone()
        .unwrap_or(tuned_with.language_model_path.clone());
    let frozen = FrozenModel::load(
        &model_path,
        section
            .tokenizer_path
            .as_deref()
            .or(tuned_with.tokenizer_path.as_deref()),
        devices::dtype(plan.precision, &device),
        &device,
    )?;
    let table = match &archive {
        Some(archive) => tasks::table_of(archive, &device)?,
        None => PromptTable::new(),
    };
    check_table(&table, &templates, &frozen, plan.virtual_tokens)?;

    let scorer = Scorer {
        files: tasks::data_files(&plan.test_files, &plan.log_dir)?,
        section,
        plan: &plan,
        tuned_with: &tuned_with,
        frozen: &frozen,
        table: &table,
    };
    let bare: Vec<TaskTemplate> = templates
        .iter()
        .map(TaskTemplate::without_virtual_tokens)
        .collect();
    let baseline = if section.compare_without_virtual_tokens && plan.virtual_tokens {
        let (report, _) = scorer.score(&bare, "without virtual tokens", None)?;
        Some(report)
    } else {
        None
    };
    let templates = if plan.virtual_tokens {
        &templates
    } else {
        &bare
    };
    let (report, generated) = scorer.score(
        templates,
        if plan.virtual_tokens {
            "evaluation"
        } else {
            "without virtual tokens"
        },
        Some(&plan.predictions),
    )?;

    let metrics = Metrics {
        report: report.clone(),
        without_virtual_tokens: baseline.clone(),
        generated_tokens: generated.tokens,
        seconds: generated.seconds,
    };
    let metrics_path = plan.log_dir.join("metrics.json");
    let mut text = serde_json::to_string_pretty(&metrics)?;
    text.push('\n');
    atomic_file::write(&metrics_path, text)?;
    report::evaluation(&report, baseline.as_ref(), &plan, &metrics_path);
    Ok(0)
}

/// Every task with virtual tokens must have them, in the right shape.
fn check_table(
    table: &PromptTable,
    templates: &[TaskTemplate],
    frozen: &FrozenModel,
    virtual_tokens: bool,
) -> Result<()> {
    if !virtual_tokens {
        return Ok(());
    }
    for template in templates
        .iter()
        .filter(|template| template.total_virtual_tokens > 0)
    {
        let embeddings = table.get(&template.taskname)?;
        let expected = [template.total_virtual_tokens, frozen.model.hidden_size()];
        if embeddings.dims() != expected {
            return Err(Diagnostic::configuration(format!(
                "the virtual tokens of task `{}` have shape {:?}, its template and the frozen model need {expected:?}",
                template.taskname,
                embeddings.dims()
            ))
            .note("they were tuned over another frozen model, or the template has another number of virtual tokens")
            .into());
        }
    }
    Ok(())
}

struct Scorer<'a> {
    files: Vec<PathBuf>,
    section: &'a Evaluation,
    plan: &'a EvaluationPlan,
    tuned_with: &'a PromptLearningModel,
    frozen: &'a FrozenModel,
    table: &'a PromptTable,
}

impl Scorer<'_> {
    /// Generates an answer for every row, writes them when `predictions` says where, and scores them.
    fn score(
        &self,
        templates: &[TaskTemplate],
        what: &str,
        predictions: Option<&PathBuf>,
    ) -> Result<(EvalReport, Generated)> {
        let options = tasks::answer_options(
            &self.frozen.row_facts(),
            &tasks::answer_data(&self.section.data, &self.tuned_with.data),
            self.section.inference.tokens_to_generate,
        );
        let dataset = Dataset::load(&self.files, templates, &self.frozen.tokenizer, &options)
            .context("reading the evaluation data")?;
        report::dataset(what, &dataset);
        let start = match self.frozen.model {
            LanguageModel::Gpt(_) => vec![],
            LanguageModel::T5(_) => options.decoder_start(&self.frozen.tokenizer)?,
        };
        let generated = self.generate(&dataset, templates, start)?;
        let answers: Vec<String> = generated
            .texts
            .iter()
            .map(|text| self.answer_of(text))
            .collect();
        let references = self.references(&dataset)?;
        let report = EvalReport::squad(&answers, &references, self.tuned_with.seed)?;
        if let Some(path) = predictions {
            write_predictions(path, &dataset, templates, &answers, &references)?;
        }
        Ok((report, generated))
    }

    /// One answer text for each example, in order. Rows of similar length are generated for together.
    fn generate(
        &self,
        dataset: &Dataset,
        templates: &[TaskTemplate],
        decoder_start: Vec<u32>,
    ) -> Result<Generated> {
        let started = Instant::now();
        let tokenizer = &self.frozen.tokenizer;
        let options = GenerateOptions {
            max_new_tokens: self.section.inference.tokens_to_generate,
            eos: tokenizer.special.eos,
            decoder_start,
            vocabulary: Some(self.frozen.tokenizer.vocab_size()),
        };
        let mut order: Vec<usize> = (0..dataset.examples.len()).collect();
        order.sort_by_key(|index| dataset.examples[*index].input_ids.len());
        let mut texts = vec![String::new(); order.len()];
        let (mut tokens, mut done) = (0, 0);
        for indices in order.chunks(self.plan.batch_size.max(1)) {
            let batch = Batch::to_answer(indices.iter().map(|index| &dataset.examples[*index]));
            let splice = SplicePlan::new(
                &batch.input_ids,
                &batch.row_lengths,
                &batch.row_tasks,
                self.frozen.pseudo_token_ids_start(),
                |task| templates[task].total_virtual_tokens,
            )?;
            let embeddings = splice.embed(&self.frozen.model, |task| {
                Ok(self.table.get(&templates[task].taskname)?.clone())
            })?; // [N, H]
            let answers = greedy(
                &self.frozen.model,
                &embeddings,
                &Rows::new(batch.row_lengths),
                &options,
            )?;
            for (index, ids) in indices.iter().zip(&answers) {
                tokens += ids.len();
                texts[*index] = tokenizer.decode(ids)?;
            }
            done += indices.len();
            tracing::debug!("generated for {done} of {} rows", order.len());
        }
        Ok(Generated {
            texts,
            tokens,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// What follows the last `split_string` of a generated text.
    fn answer_of(&self, text: &str) -> String {
        let answer = match &self.section.split_string {
            Some(split) if !split.is_empty() => text.rsplit(split.as_str()).next().unwrap_or(text),
            _ => text,
        };
        answer.trim().to_owned()
    }

    /// All right answers of each example: those of the ground truth file where there is one, else the rows' own.
    fn references(&self, dataset: &Dataset) -> Result<Vec<Vec<String>>> {
        let Some(path) = &self.plan.ground_truth else {
            return Ok(dataset
                .examples
                .iter()
                .map(|example| example.answers.clone())
                .collect());
        };
        let truth = crate::eval::ground_truth::read(path)?;
        let rows = row_numbers(&self.files, dataset);
        let read = dataset.report.read;
        if truth.len() != read {
            return Err(Diagnostic::job(format!(
                "the ground truth has {} rows, the evaluated files have {read}",
                truth.len()
            ))
            .at(Location::file(path.display()))
            .note("its rows must be those of the evaluated files, in their order")
            .into());
        }
        Ok(rows.into_iter().map(|row| truth[row].clone()).collect())
    }
}

/// One answer a line at `path`, and all about each row beside it as jsonl.
fn write_predictions(
    path: &Path,
    dataset: &Dataset,
    templates: &[TaskTemplate],
    answers: &[String],
    references: &[Vec<String>],
) -> Result<()> {
    let mut plain = String::new();
    let mut lines = String::new();
    for (index, example) in dataset.examples.iter().enumerate() {
        plain.push_str(&answers[index].replace(['\n', '\r'], " "));
        plain.push('\n');
        let score = squad::score(&answers[index], &references[index]);
        let line = serde_json::to_string(&Prediction {
            file: example.file.display().to_string(),
            line: example.line,
            taskname: &templates[example.task].taskname,
            prediction: &answers[index],
            answers: &references[index],
            exact_match: score.exact_match,
            f1: score.f1,
        })?;
        lines.push_str(&line);
        lines.push('\n');
    }
    atomic_file::write(path, plain)?;
    atomic_file::write(&path.with_extension("jsonl"), lines)?;
    Ok(())
}

/// The place of each example among all rows of the files, those that were left out included.
fn row_numbers(files: &[PathBuf], dataset: &Dataset) -> Vec<usize> {
    let place = |file: &Path, line: usize| {
        (
            files
                .iter()
                .position(|known| known == file)
                .unwrap_or(usize::MAX),
            line,
        )
    };
    let skipped: Vec<(usize, usize)> = dataset
        .report
        .skipped
        .iter()
        .map(|skipped| place(&skipped.file, skipped.line))
        .collect();
    dataset
        .examples
        .iter()
        .enumerate()
        .map(|(index, example)| {
            let here = place(&example.file, example.line);
            index + skipped.iter().filter(|other| **other < here).count()
        })
        .collect()
}
