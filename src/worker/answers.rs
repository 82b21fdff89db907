//! Answers to rows: prompts of similar length generated for together, in the order of the rows again at the end.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::Result;

use super::frozen_model::FrozenModel;
use crate::data::collate::Batch;
use crate::data::dataset::{Dataset, DatasetOptions, Example};
use crate::generate::{
    Answer, BeamSearch, EarlyStopping, GenerateOptions, Prompts, Sampling, Strategy, generate,
};
use crate::model::{LanguageModel, Rows};
use crate::prompt::template::TaskTemplate;
use crate::prompt::{PromptTable, SplicePlan};
use crate::schema::{EarlyStoppingSetting, InferenceSection};
use crate::tokenize::Tokenizer;

/// Rows that a T5 on the CPU writes side by side at least.
const ROWS_AT_ONCE: usize = 48;
/// Positions of their prompts, beyond which no more rows are taken than asked for.
const POSITIONS_AT_ONCE: usize = 12_288;

/// Told the row's index and its text so far, for whoever wants to see an answer while it is written.
pub(super) type Listener<'a> = &'a mut dyn FnMut(usize, &str) -> Result<()>;

/// What was written for a row.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    /// The answer, without what ends it and without blanks around it.
    pub(super) text: String,
    /// Tokens generated.
    pub(super) tokens: usize,
    /// Sum of their log-probabilities, where it was asked for.
    pub(super) log_probability: Option<f64>,
    /// Whether it ended by itself and not for want of room.
    pub(super) finished: bool,
}

/// Answers and their cost.
pub(super) struct Answers {
    /// One for each example, in order.
    pub(super) written: Vec<Written>,
    /// Tokens generated.
    pub(super) tokens: usize,
    /// Time they took.
    pub(super) seconds: f64,
}

/// Everything that answers rows of any data set.
pub(super) struct Answerer<'a> {
    frozen: &'a FrozenModel,
    templates: &'a [TaskTemplate],
    table: &'a PromptTable,
    options: GenerateOptions,
    end_strings: EndStrings<'a>,
    batch_size: usize,
}

impl<'a> Answerer<'a> {
    /// Answers with the virtual tokens of `table`, as `inference` says. `rows` are the settings by which rows become ids,
    /// `seed` is the one to take where `inference` has none.
    ///
    /// # Errors
    /// Where the tokenizer lacks a token that the settings need.
    pub(super) fn new(
        frozen: &'a FrozenModel,
        templates: &'a [TaskTemplate],
        table: &'a PromptTable,
        inference: &'a InferenceSection,
        rows: &DatasetOptions,
        seed: u64,
        batch_size: usize,
    ) -> Result<Self> {
        let decoder_start = match frozen.model {
            LanguageModel::Gpt(_) => vec![],
            LanguageModel::T5(_) => rows.decoder_start(&frozen.tokenizer)?,
        };
        Ok(Self {
            frozen,
            templates,
            table,
            options: generate_options(
                inference,
                frozen.tokenizer.special.eos,
                decoder_start,
                frozen.tokenizer.vocab_size(),
                seed,
            ),
            end_strings: EndStrings {
                tokenizer: &frozen.tokenizer,
                texts: &inference.end_strings,
            },
            batch_size: batch_size.max(1),
        })
    }

    /// One answer for each example, in order.
    pub(super) fn answer(&self, dataset: &Dataset) -> Result<Answers> {
        let examples: Vec<&Example> = dataset.examples.iter().collect();
        self.answer_from(&examples, 0, None)
    }

    /// The same for rows that are numbered from `first` on, which decides what is drawn; told of each token. Beam
    /// search tells nothing: its texts change.
    pub(super) fn answer_from(
        &self,
        examples: &[&Example],
        first: u64,
        mut listener: Option<Listener<'_>>,
    ) -> Result<Answers> {
        let started = Instant::now();
        let mut order: Vec<usize> = (0..examples.len()).collect();
        order.sort_by_key(|index| examples[*index].input_ids.len());
        let mut written = vec![Written::default(); order.len()];
        let (mut tokens, mut done) = (0, 0);
        let rows = self.rows_at_once(listener.is_some());
        let mut rest = &order[..];
        while !rest.is_empty() {
            let count = self.batch_of(rest, rows, examples);
            let indices;
            (indices, rest) = rest.split_at(count);
            let heard: Option<Listener<'_>> = match &mut listener {
                Some(listener) => Some(&mut **listener),
                None => None,
            };
            let answers = self.answer_batch(indices, examples, first, heard)?;
            for (index, answer) in indices.iter().zip(answers) {
                tokens += answer.ids.len();
                written[*index] = self.written(answer)?;
            }
            done += indices.len();
            tracing::debug!("generated for {done} of {} rows", order.len());
        }
        Ok(Answers {
            written,
            tokens,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// Rows to write side by side. A step of few rows takes as long as reading the weights does: on the CPU a T5, which
    /// encodes its rows in parts anyway and keeps little of each, takes more than asked for.
    fn rows_at_once(&self, is_watched: bool) -> usize {
        let is_t5_on_cpu = match &self.frozen.model {
            LanguageModel::T5(t5) => t5.device().is_cpu(),
            LanguageModel::Gpt(_) => false,
        };
        let is_single = !matches!(self.options.strategy, Strategy::Beam(_));
        if is_t5_on_cpu && is_single && !is_watched {
            self.batch_size.max(ROWS_AT_ONCE)
        } else {
            self.batch_size
        }
    }

    /// How many of the rows `order` to take next, `most` or those of so many positions, but never fewer than asked for.
    fn batch_of(&self, order: &[usize], most: usize, examples: &[&Example]) -> usize {
        let mut positions = 0;
        let fitting = order.iter().take(most).take_while(|index| {
            positions += examples[**index].input_ids.len();
            positions <= POSITIONS_AT_ONCE
        });
        fitting.count().max(self.batch_size).min(order.len())
    }

    fn answer_batch(
        &self,
        indices: &[usize],
        examples: &[&Example],
        first: u64,
        mut listener: Option<Listener<'_>>,
    ) -> Result<Vec<Answer>> {
        let batch = Batch::to_answer(indices.iter().map(|index| examples[*index]));
        let splice = SplicePlan::new(
            &batch.input_ids,
            &batch.row_lengths,
            &batch.row_tasks,
            self.frozen.pseudo_token_ids_start(),
            |task| self.templates[task].total_virtual_tokens,
        )?;
        let embeddings = splice.embed(&self.frozen.model, |task| {
            Ok(self.table.get(&self.templates[task].taskname)?.clone())
        })?; // [N, H]
        let numbers: Vec<u64> = indices.iter().map(|index| first + *index as u64).collect();
        let streams = !matches!(self.options.strategy, Strategy::Beam(_));
        generate(
            &self.frozen.model,
            Prompts {
                embeddings: &embeddings,
                rows: &Rows::new(batch.row_lengths),
                ids: &batch.input_ids,
                numbers: &numbers,
            },
            &self.options,
            &mut |row, ids| {
                let flow = self.end_strings.check(ids)?;
                if let Some(listener) = listener.as_deref_mut().filter(|_| streams) {
                    let text = self.frozen.tokenizer.decode(ids)?;
                    listener(indices[row], self.end_strings.cut(&text))?;
                }
                Ok(flow)
            },
        )
    }

    fn written(&self, answer: Answer) -> Result<Written> {
        let text = self.frozen.tokenizer.decode(&answer.ids)?;
        Ok(Written {
            text: self.end_strings.cut(&text).trim().to_owned(),
            tokens: answer.ids.len(),
            log_probability: self
                .options
                .log_probabilities
                .then(|| answer.log_probabilities.iter().sum()),
            finished: answer.finished,
        })
    }
}

/// The generator's options for a section.
fn generate_options(
    inference: &InferenceSection,
    eos: Option<u32>,
    decoder_start: Vec<u32>,
    vocabulary: usize,
    seed: u64,
) -> GenerateOptions {
    let strategy = if inference.num_beams > 1 {
        Strategy::Beam(BeamSearch {
            beams: inference.num_beams,
            length_penalty: inference.length_penalty,
            early_stopping: match inference.early_stopping {
                EarlyStoppingSetting::Flag(false) => EarlyStopping::Estimate,
                EarlyStoppingSetting::Flag(true) => EarlyStopping::Yes,
                EarlyStoppingSetting::Word(_) => EarlyStopping::Never,
            },
        })
    } else if inference.greedy {
        Strategy::Greedy
    } else {
        Strategy::Sample(Sampling {
            temperature: inference.temperature,
            top_k: inference.top_k,
            top_p: inference.top_p,
        })
    };
    GenerateOptions {
        max_new_tokens: inference.tokens_to_generate,
        min_new_tokens: inference.min_tokens_to_generate,
        eos,
        decoder_start,
        vocabulary: Some(vocabulary),
        strategy,
        repetition_penalty: inference.repetition_penalty,
        log_probabilities: inference.compute_logprob,
        seed: inference.seed.unwrap_or(seed),
    }
}

/// Texts that end an answer, wherever in a token they begin or end.
struct EndStrings<'a> {
    tokenizer: &'a Tokenizer,
    texts: &'a [String],
}

impl EndStrings<'_> {
    fn check(&self, ids: &[u32]) -> Result<ControlFlow<()>> {
        if self.texts.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let text = self.tokenizer.decode(ids)?;
        Ok(if self.cut(&text).len() < text.len() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    }

    /// What stands before the first of them.
    fn cut<'t>(&self, text: &'t str) -> &'t str {
        let ends = self.texts.iter().filter_map(|end| text.find(end.as_str()));
        &text[..ends.min().unwrap_or(text.len())]
    }
}
