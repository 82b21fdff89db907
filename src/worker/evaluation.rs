//! The evaluation job: answers generated for rows, scored against their references.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::answers::{Answerer, Answers, Written};
use super::devices::{self, Role};
use super::frozen_model::FrozenModel;
use super::{report, tasks};
use crate::data::dataset::Dataset;
use crate::diag::{Diagnostic, Location};
use crate::eval::{AnswerScores, Scores, lacks_blanks};
use crate::export::nemo::PromptArchive;
use crate::prompt::PromptTable;
use crate::prompt::template::TaskTemplate;
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
    rouge_l: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_probability: Option<f64>,
    tokens: usize,
    /// Ended by itself, not by `tokens_to_generate`.
    finished: bool,
}

/// `metrics.json`.
#[derive(Serialize)]
struct Metrics {
    #[serde(flatten)]
    scores: Scores,
    #[serde(skip_serializing_if = "Option::is_none")]
    without_virtual_tokens: Option<Scores>,
    generated_tokens: usize,
    seconds: f64,
}

/// Generates and scores what the section asks for.
pub(super) fn run(section: &Evaluation) -> Result<i32> {
    let plan = section.plan();
    if devices::role(plan.model_parallel.0, plan.model_parallel.1)? == Role::Watches {
        return Ok(0);
    }
    if section.inference.all_probs {
        tracing::warn!(
            "`inference.all_probs`: probabilities of the whole vocabulary are not written; `compute_logprob` gives those of the answers"
        );
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
        let (scores, _) = scorer.score(&bare, "without virtual tokens", None)?;
        Some(scores)
    } else {
        None
    };
    let templates = if plan.virtual_tokens {
        &templates
    } else {
        &bare
    };
    let (scores, generated) = scorer.score(
        templates,
        if plan.virtual_tokens {
            "evaluation"
        } else {
            "without virtual tokens"
        },
        Some(&plan.predictions),
    )?;

    let metrics = Metrics {
        scores: scores.clone(),
        without_virtual_tokens: baseline.clone(),
        generated_tokens: generated.tokens,
        seconds: generated.seconds,
    };
    let metrics_path = plan.log_dir.join("metrics.json");
    let mut text = serde_json::to_string_pretty(&metrics)?;
    text.push('\n');
    atomic_file::write(&metrics_path, text)?;
    report::page(&plan.log_dir);
    report::evaluation(&scores, baseline.as_ref(), &plan, &metrics_path);
    Ok(0)
}

/// Every task with virtual tokens must have them, in the right shape.
pub(super) fn check_table(
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
    ) -> Result<(Scores, Answers)> {
        let options = tasks::answer_options(
            &self.frozen.row_facts(),
            &tasks::answer_data(&self.section.data, &self.tuned_with.data),
            &self.section.inference,
        );
        let dataset = Dataset::load(&self.files, templates, &self.frozen.tokenizer, &options)
            .context("reading the evaluation data")?;
        report::dataset(what, &dataset);
        let mut generated = Answerer::new(
            self.frozen,
            templates,
            self.table,
            &self.section.inference,
            &options,
            self.tuned_with.seed,
            self.plan.batch_size,
        )?
        .answer(&dataset)?;
        for written in &mut generated.written {
            written.text = self.answer_of(&written.text);
        }
        let answers: Vec<String> = generated
            .written
            .iter()
            .map(|written| written.text.clone())
            .collect();
        let references = self.references(&dataset)?;
        if predictions.is_some() && lacks_blanks(references.iter().flatten().map(String::as_str)) {
            tracing::warn!(
                "most answers are in a script without blanks between words: F1 and ROUGE-L count words, and say little here"
            );
        }
        let tasks: Vec<&str> = dataset
            .examples
            .iter()
            .map(|example| templates[example.task].taskname.as_str())
            .collect();
        let scores = Scores::new(&answers, &references, &tasks, self.tuned_with.seed)?;
        if let Some(path) = predictions {
            write_predictions(path, &dataset, templates, &generated.written, &references)?;
        }
        Ok((scores, generated))
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
    answers: &[Written],
    references: &[Vec<String>],
) -> Result<()> {
    let mut plain = String::new();
    let mut lines = String::new();
    for (index, example) in dataset.examples.iter().enumerate() {
        plain.push_str(&answers[index].text.replace(['\n', '\r'], " "));
        plain.push('\n');
        let scores = AnswerScores::new(&answers[index].text, &references[index]);
        let line = serde_json::to_string(&Prediction {
            file: example.file.display().to_string(),
            line: example.line,
            taskname: &templates[example.task].taskname,
            prediction: &answers[index].text,
            log_probability: answers[index].log_probability,
            tokens: answers[index].tokens,
            finished: answers[index].finished,
            answers: &references[index],
            exact_match: scores.squad.exact_match,
            f1: scores.squad.f1,
            rouge_l: scores.rouge_l,
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
