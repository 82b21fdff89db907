//! Answers from a model: greedy, by chance or by beam search, batched over packed prompts of different lengths, with a
//! cache of keys and values.
//!
//! There is no padding, on either side: a row's positions and virtual tokens are where the row alone would have them.

mod beam;
mod choice;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use anyhow::Result;
use candle_core::{DType, Tensor};

use crate::model::{LanguageModel, Rows};
use crate::sys::rng::SeededRng;
pub use beam::{BeamSearch, EarlyStopping};
pub use choice::{Sampling, penalise};

/// Streams of the seed from which tokens are drawn begin here, one for each row.
const STREAM: u64 = 3 << 32;

/// How a token is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Strategy {
    /// The likeliest, always.
    #[default]
    Greedy,
    /// By chance.
    Sample(Sampling),
    /// The likeliest of several answers that are written side by side.
    Beam(BeamSearch),
}

/// When to start, how to go on and when to stop.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// Most tokens written for a row.
    pub max_new_tokens: usize,
    /// Fewest tokens written for a row before `eos` may come.
    pub min_new_tokens: usize,
    /// Ends a row; not part of the answer.
    pub eos: Option<u32>,
    /// First ids of a T5's decoder (usually the padding id alone); not part of the answer.
    pub decoder_start: Vec<u32>,
    /// Ids from here on are padding of the vocabulary, which no tokenizer can read, and are never written.
    pub vocabulary: Option<usize>,
    /// How a token is chosen.
    pub strategy: Strategy,
    /// Above 1 makes tokens less likely that were written already or, for a GPT, stand in the prompt; 1 for none.
    pub repetition_penalty: f64,
    /// Also give the log-probability of each token written.
    pub log_probabilities: bool,
    /// Fixes what is drawn: by this and a row's number alone, whatever batch it is in.
    pub seed: u64,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 30,
            min_new_tokens: 0,
            eos: None,
            decoder_start: vec![],
            vocabulary: None,
            strategy: Strategy::Greedy,
            repetition_penalty: 1.0,
            log_probabilities: false,
            seed: 0,
        }
    }
}

/// What is to be continued.
#[derive(Clone, Copy, Debug)]
pub struct Prompts<'a> {
    /// [N, H], virtual tokens included.
    pub embeddings: &'a Tensor,
    /// Rows of `embeddings`.
    pub rows: &'a Rows,
    /// [N] their ids, for the repetition penalty; those beyond the vocabulary stand for virtual tokens. May be empty.
    pub ids: &'a [u32],
    /// A number for each row by which its random numbers are found; empty: 0, 1, 2, …
    pub numbers: &'a [u64],
}

impl<'a> Prompts<'a> {
    /// Prompts for which neither ids nor numbers matter.
    pub fn new(embeddings: &'a Tensor, rows: &'a Rows) -> Self {
        Self {
            embeddings,
            rows,
            ids: &[],
            numbers: &[],
        }
    }

    /// Ids that count as used before anything is written.
    fn used(&self, row: usize, model: &LanguageModel, options: &GenerateOptions) -> BTreeSet<u32> {
        match model {
            LanguageModel::T5(_) => options.decoder_start.iter().copied().collect(),
            LanguageModel::Gpt(_) => self
                .ids
                .get(self.rows.range(row))
                .unwrap_or_default()
                .iter()
                .copied()
                .collect(),
        }
    }
}

/// What was written for a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Its ids, without `eos`.
    pub ids: Vec<u32>,
    /// The natural logarithm of each id's probability after those before it, as the model gives it, and of `eos` where
    /// that ended the row. Empty where it was not asked for.
    pub log_probabilities: Vec<f64>,
    /// Whether it ended by itself: by `eos`, or because the watcher said so.
    pub finished: bool,
}

/// Told the row and all its ids after each token; says whether the row may go on. Beam search tells of every beam.
pub type Watch<'a> = &'a mut dyn FnMut(usize, &[u32]) -> Result<ControlFlow<()>>;

/// For [`generate`] where nobody watches.
///
/// # Errors
/// None.
pub fn unwatched(_: usize, _: &[u32]) -> Result<ControlFlow<()>> {
    Ok(ControlFlow::Continue(()))
}

/// Continues each prompt. Rows that are finished leave the batch; a GPT's row also ends where the model has no more
/// positions.
///
/// # Errors
/// Where a prompt is empty or longer than the model can read.
pub fn generate(
    model: &LanguageModel,
    prompts: Prompts<'_>,
    options: &GenerateOptions,
    watch: Watch<'_>,
) -> Result<Vec<Answer>> {
    let count = prompts.rows.count();
    if count == 0 || options.max_new_tokens == 0 {
        return Ok(vec![Answer::default(); count]);
    }
    match &options.strategy {
        Strategy::Beam(search) => beam::search(model, prompts, options, *search, watch),
        Strategy::Greedy | Strategy::Sample(_) => one_by_one(model, prompts, options, watch),
    }
}

fn one_by_one(
    model: &LanguageModel,
    prompts: Prompts<'_>,
    options: &GenerateOptions,
    watch: Watch<'_>,
) -> Result<Vec<Answer>> {
    let rows = prompts.rows;
    let mut answers = vec![Answer::default(); rows.count()];
    let mut used: Vec<BTreeSet<u32>> = (0..rows.count())
        .map(|row| prompts.used(row, model, options))
        .collect();
    let mut rngs: Vec<SeededRng> = (0..rows.count())
        .map(|row| {
            let number = prompts.numbers.get(row).copied().unwrap_or(row as u64);
            SeededRng::new(options.seed, STREAM + number)
        })
        .collect();
    let (mut state, mut logits) = model.start_decoding(
        prompts.embeddings,
        rows,
        &options.decoder_start,
        options.max_new_tokens,
        model.engine(),
    )?;
    // Place in the batch -> row of the answers.
    let mut active: Vec<usize> = (0..rows.count()).collect();
    let limit = position_limit(model);
    loop {
        let lengths = state.lengths();
        let (mut going_on, mut next) = (vec![], vec![]);
        for (place, mut logits) in read_logits(&logits, options)?.into_iter().enumerate() {
            let row = active[place];
            let answer = &mut answers[row];
            let raw = options.log_probabilities.then(|| logits.clone());
            restrict(&mut logits, &used[row], answer.ids.len(), options);
            let token = match &options.strategy {
                Strategy::Sample(sampling) => sampling.draw(&logits, &mut rngs[row]),
                _ => choice::likeliest(&logits),
            };
            if let Some(raw) = raw {
                let log_probability = f64::from(raw[token as usize]) - choice::log_sum_exp(&raw);
                answer.log_probabilities.push(log_probability);
            }
            if Some(token) == options.eos {
                answer.finished = true;
                continue;
            }
            answer.ids.push(token);
            used[row].insert(token);
            if watch(row, &answer.ids)?.is_break() {
                answer.finished = true;
                continue;
            }
            let room = limit.is_none_or(|limit| lengths[place] < limit);
            if answer.ids.len() < options.max_new_tokens && room {
                going_on.push(place);
                next.push(token);
            }
        }
        if next.is_empty() {
            return Ok(answers);
        }
        if going_on.len() < active.len() {
            state.keep(&going_on);
            active = going_on.into_iter().map(|place| active[place]).collect();
        }
        logits = state.step(&next)?;
    }
}

/// Positions after which nothing more can be read.
fn position_limit(model: &LanguageModel) -> Option<usize> {
    match model {
        LanguageModel::Gpt(_) => model.max_positions(),
        LanguageModel::T5(t5) => t5.max_decoder_positions(),
    }
}

/// [B, vocabulary] as rows of numbers, each without the vocabulary's padding.
fn read_logits(logits: &Tensor, options: &GenerateOptions) -> Result<Vec<Vec<f32>>> {
    let mut rows: Vec<Vec<f32>> = logits.to_dtype(DType::F32)?.to_vec2()?;
    if let Some(known) = options.vocabulary {
        for row in &mut rows {
            row.truncate(known.max(1));
        }
    }
    Ok(rows)
}

/// What the options forbid or make less likely, for a row that has `written` tokens.
fn restrict(scores: &mut [f32], used: &BTreeSet<u32>, written: usize, options: &GenerateOptions) {
    if (options.repetition_penalty - 1.0).abs() > f64::EPSILON {
        choice::penalise(scores, used.iter().copied(), options.repetition_penalty);
    }
    if written < options.min_new_tokens
        && let Some(eos) = options.eos
        && let Some(score) = scores.get_mut(eos as usize)
    {
        *score = f32::NEG_INFINITY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    use crate::model::config::GptConfig;
    use crate::model::{Engine, LmInputs, ModelConfig, toy};
    use crate::sys::rng::SeededRng;

    fn models() -> [LanguageModel; 5] {
        let neox = GptConfig {
            parallel_residual: true,
            ..toy::gpt_config()
        };
        [
            toy::random(ModelConfig::Gpt(toy::gpt_config()), 3).unwrap(),
            toy::random(ModelConfig::T5(toy::t5_config()), 4).unwrap(),
            toy::random(ModelConfig::Gpt(toy::llama_config()), 5).unwrap(),
            toy::random(ModelConfig::Gpt(neox), 6).unwrap(),
            toy::random(ModelConfig::T5(toy::megatron_t5_config()), 7).unwrap(),
        ]
    }

    fn prompts() -> Vec<Vec<u32>> {
        let mut rng = SeededRng::new(5, 0);
        [9, 1, 23, 4]
            .map(|length| (0..length).map(|_| rng.below(96) as u32).collect())
            .to_vec()
    }

    fn continued(
        model: &LanguageModel,
        prompts: &[Vec<u32>],
        options: &GenerateOptions,
    ) -> Vec<Vec<u32>> {
        let rows = Rows::new(prompts.iter().map(Vec::len).collect::<Vec<_>>());
        let embeddings = model.embed_tokens(&prompts.concat()).unwrap();
        generate(
            model,
            Prompts::new(&embeddings, &rows),
            options,
            &mut unwatched,
        )
        .unwrap()
        .into_iter()
        .map(|answer| answer.ids)
        .collect()
    }

    /// The same, one row at a time, everything computed anew for each token by the reference engine.
    fn without_a_cache(
        model: &LanguageModel,
        prompt: &[u32],
        options: &GenerateOptions,
    ) -> Vec<u32> {
        let mut answer = vec![];
        while answer.len() < options.max_new_tokens {
            let (input, decoder_ids) = match model {
                LanguageModel::Gpt(_) => ([prompt, &answer].concat(), vec![]),
                LanguageModel::T5(_) => (
                    prompt.to_vec(),
                    [options.decoder_start.as_slice(), &answer].concat(),
                ),
            };
            if model
                .max_positions()
                .is_some_and(|limit| input.len() > limit)
            {
                break;
            }
            let decoder_rows = Rows::new([decoder_ids.len()]);
            let inputs = LmInputs {
                embeddings: &model.embed_tokens(&input).unwrap(),
                trained_positions: None,
                rows: &Rows::new([input.len()]),
                decoder_ids: &decoder_ids,
                decoder_rows: Some(&decoder_rows).filter(|rows| rows.total() > 0),
                loss_positions: &[],
                labels: &[],
                weights: &[],
            };
            let logits = model.last_logits(&inputs, Engine::Reference).unwrap();
            let token = choice::likeliest(&read_logits(&logits, options).unwrap()[0]);
            if Some(token) == options.eos {
                break;
            }
            answer.push(token);
        }
        answer
    }

    #[test]
    fn rows_of_different_lengths_with_a_cache_equal_single_rows_without() {
        for model in models() {
            let mut options = GenerateOptions {
                max_new_tokens: 12,
                decoder_start: vec![0],
                ..GenerateOptions::default()
            };
            let free = continued(&model, &prompts(), &options);
            assert!(free.iter().all(|answer| answer.len() == 12));
            // A token that ends some rows early and others not.
            options.eos = Some(free[0][5]);
            let answers = continued(&model, &prompts(), &options);
            assert!(answers[0].len() <= 5);
            let lengths: std::collections::BTreeSet<usize> = answers.iter().map(Vec::len).collect();
            assert!(
                lengths.len() > 1,
                "rows should end at different steps: {answers:?}"
            );
            for (prompt, answer) in prompts().iter().zip(&answers) {
                assert_eq!(answer, &without_a_cache(&model, prompt, &options));
            }
        }
    }

    #[test]
    fn what_is_drawn_depends_on_seed_and_number_and_not_on_the_batch() {
        let options = |seed| GenerateOptions {
            max_new_tokens: 8,
            decoder_start: vec![0],
            strategy: Strategy::Sample(Sampling {
                temperature: 1.5,
                top_k: 0,
                top_p: 0.95,
            }),
            seed,
            ..GenerateOptions::default()
        };
        let draw = |model: &LanguageModel, order: &[usize], seed: u64| -> Vec<Vec<u32>> {
            let chosen: Vec<Vec<u32>> = order.iter().map(|row| prompts()[*row].clone()).collect();
            let rows = Rows::new(chosen.iter().map(Vec::len).collect::<Vec<_>>());
            let embeddings = model.embed_tokens(&chosen.concat()).unwrap();
            let numbers: Vec<u64> = order.iter().map(|row| *row as u64).collect();
            let prompts = Prompts {
                numbers: &numbers,
                ..Prompts::new(&embeddings, &rows)
            };
            let answers = generate(model, prompts, &options(seed), &mut unwatched).unwrap();
            answers.into_iter().map(|answer| answer.ids).collect()
        };
        for model in models() {
            let together = draw(&model, &[0, 1, 2, 3], 1);
            assert_ne!(together, draw(&model, &[0, 1, 2, 3], 2));
            let reversed = draw(&model, &[3, 2, 1, 0], 1);
            for row in 0..4 {
                assert_eq!(together[row], reversed[3 - row]);
                assert_eq!(together[row], draw(&model, &[row], 1)[0]);
            }
        }
    }

    #[test]
    fn ids_beyond_the_tokenizers_vocabulary_are_never_written() {
        let logits = Tensor::new(
            &[[0.0f32, 2.0, 1.0, 9.0], [3.0, 0.0, 0.0, 4.0]],
            &Device::Cpu,
        );
        let logits = logits.unwrap();
        for (vocabulary, expected) in [(None, [3, 3]), (Some(3), [1, 0]), (Some(99), [3, 3])] {
            let options = GenerateOptions {
                vocabulary,
                ..GenerateOptions::default()
            };
            let rows = read_logits(&logits, &options).unwrap();
            assert_eq!([0, 1].map(|row| choice::likeliest(&rows[row])), expected);
        }
    }

    #[test]
    fn the_cache_of_the_reference_engine_gives_the_same_logits() {
        for model in models() {
            let prompts = prompts();
            let rows = Rows::new(prompts.iter().map(Vec::len).collect::<Vec<_>>());
            let embeddings = model.embed_tokens(&prompts.concat()).unwrap();
            let run = |engine| {
                let (mut state, mut logits) = model
                    .start_decoding(&embeddings, &rows, &[0, 7], 5, engine)
                    .unwrap();
                let mut all = vec![logits];
                state.keep(&[0, 2, 3]);
                for ids in [[1, 2, 3], [4, 5, 6]] {
                    logits = state.step(&ids).unwrap();
                    all.push(logits);
                }
                // Rows that go on several times, on their own from there, in another order.
                for (sources, ids) in [([2, 0, 2], [7, 8, 9]), ([2, 2, 1], [1, 1, 5])] {
                    state.fork(&sources);
                    all.push(state.step(&ids).unwrap());
                }
                Tensor::cat(&all, 0).unwrap()
            };
            let difference = (run(Engine::Fused) - run(Engine::Reference))
                .unwrap()
                .abs()
                .unwrap();
            let largest = difference.max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(largest < 1e-4, "logits differ by {largest}");
        }
    }

    #[test]
    fn a_gpt_stops_where_its_positions_end_and_refuses_a_longer_prompt() {
        let [gpt, ..] = models();
        let options = GenerateOptions {
            max_new_tokens: 30,
            ..GenerateOptions::default()
        };
        let answers = continued(&gpt, &[vec![1; 60], vec![2; 3]], &options);
        // 60 positions are taken; 4 more can be read and the last of them predicts one token that cannot.
        assert_eq!((answers[0].len(), answers[1].len()), (5, 30));
        let embeddings = gpt.embed_tokens(&[1; 65]).unwrap();
        let rows = Rows::new([65]);
        let prompts = Prompts::new(&embeddings, &rows);
        let error = generate(&gpt, prompts, &options, &mut unwatched).unwrap_err();
        assert!(error.to_string().contains("longer than the 64"), "{error}");
    }
}
