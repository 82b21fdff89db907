//! `model.report_validation_metric`: answers to the validation rows, generated and scored while training.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::answers::Answerer;
use super::frozen_model::FrozenModel;
use super::tasks;
use crate::data::dataset::{Dataset, DatasetOptions, Example};
use crate::eval::{EvalReport, Scores};
use crate::model::LanguageModel;
use crate::prompt::PromptTable;
use crate::prompt::template::TaskTemplate;
use crate::schema::{InferenceSection, PromptLearningModel};
use crate::train::monitor::Measured;

/// The validation rows as questions, and how they are answered.
pub(super) struct ValidationScores<'a> {
    frozen: &'a FrozenModel,
    templates: &'a [TaskTemplate],
    dataset: Dataset,
    options: DatasetOptions,
    inference: InferenceSection,
    /// Rows that are answered, from the first.
    rows: usize,
    batch_size: usize,
    seed: u64,
}

impl<'a> ValidationScores<'a> {
    /// Reads the rows of `paths` once more, without their answers. At most `rows` of them are answered each time.
    pub(super) fn new(
        section: &PromptLearningModel,
        paths: &[PathBuf],
        frozen: &'a FrozenModel,
        templates: &'a [TaskTemplate],
        rows: usize,
        batch_size: usize,
    ) -> Result<Self> {
        // As NeMo's T5 does: the likeliest tokens, `decoder_seq_length` of them at most.
        let inference = match frozen.model {
            LanguageModel::Gpt(_) => section.inference.clone(),
            LanguageModel::T5(_) => InferenceSection {
                greedy: true,
                tokens_to_generate: section.decoder_seq_length,
                ..section.inference.clone()
            },
        };
        let options = tasks::answer_options(&frozen.row_facts(), &section.data, &inference);
        let dataset = Dataset::load(paths, templates, &frozen.tokenizer, &options)
            .context("reading the validation data to score answers")?;
        Ok(Self {
            frozen,
            templates,
            rows: rows.min(dataset.examples.len()),
            dataset,
            options,
            inference,
            batch_size,
            seed: section.seed,
        })
    }

    /// Scores in percent of what these virtual tokens answer, by the names that can be monitored.
    pub(super) fn measure(&self, table: &PromptTable) -> Result<Measured> {
        let examples: Vec<&Example> = self.dataset.examples.iter().take(self.rows).collect();
        let answers = Answerer::new(
            self.frozen,
            self.templates,
            table,
            &self.inference,
            &self.options,
            self.seed,
            self.batch_size,
        )?
        .answer_from(&examples, 0, None)?;
        let texts: Vec<String> = answers
            .written
            .into_iter()
            .map(|written| written.text)
            .collect();
        let references: Vec<Vec<String>> = examples
            .iter()
            .map(|example| example.answers.clone())
            .collect();
        let names: Vec<&str> = examples
            .iter()
            .map(|example| self.templates[example.task].taskname.as_str())
            .collect();
        let scores = Scores::new(&texts, &references, &names, self.seed)?;
        let mut measured = named(&scores.all, "");
        for (task, report) in &scores.tasks {
            measured.extend(named(report, &format!("/{task}")));
        }
        Ok(measured)
    }
}

fn named(report: &EvalReport, end: &str) -> Measured {
    let mut measured = Measured::from([
        (format!("val_exact_match{end}"), report.exact_match),
        (format!("val_f1{end}"), report.f1),
        (format!("val_accuracy{end}"), report.accuracy),
        (format!("val_rouge_l{end}"), report.rouge_l),
    ]);
    // No answer of four tokens has a BLEU of 0 for whoever monitors it.
    measured.insert(format!("val_bleu{end}"), report.bleu.unwrap_or(0.0));
    measured
}
