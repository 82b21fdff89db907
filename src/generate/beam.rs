//! Beam search: several answers of a row are written side by side, and the likeliest that ends is taken.
//!
//! The bookkeeping is that of transformers 4.57 (its vectorised `_beam_search`), so that the settings of a model's
//! `generation_config.json` give the same answers: twice as many continuations as beams are looked at, only the first
//! half of them may end, an answer's score is the sum of its log-probabilities by its length (`eos` counted) to the
//! power of `length_penalty`.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{
    Answer, GenerateOptions, Prompts, Watch, choice, position_limit, read_logits, restrict,
};
use crate::model::LanguageModel;

/// When a row's search ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// When the best running beam, scored at its present length, is no better than the worst finished answer.
    #[default]
    Estimate,
    /// As soon as there are as many finished answers as beams.
    Yes,
    /// When no running beam could win at any length up to the longest.
    Never,
}

/// Settings of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeamSearch {
    /// Answers written side by side.
    pub beams: usize,
    /// Power of the length by which a score is divided: above 0 favours long answers, below 0 short ones.
    pub length_penalty: f64,
    /// When to stop.
    pub early_stopping: EarlyStopping,
}

/// A running beam.
#[derive(Clone, Debug)]
struct Beam {
    ids: Vec<u32>,
    log_probabilities: Vec<f64>,
    /// Sum of the processed log-probabilities.
    score: f64,
    used: BTreeSet<u32>,
}

/// A row's search.
struct Search {
    row: usize,
    running: Vec<Beam>,
    /// Finished answers and their scores, the best first.
    finished: Vec<(f64, Answer)>,
    done: bool,
}

/// A continuation of a beam of one row.
struct Continuation {
    beam: usize,
    token: u32,
    score: f64,
}

/// Each row's best answer.
pub(super) fn search(
    model: &LanguageModel,
    prompts: Prompts<'_>,
    options: &GenerateOptions,
    search: BeamSearch,
    watch: Watch<'_>,
) -> Result<Vec<Answer>> {
    let count = prompts.rows.count();
    let (mut state, logits) = model.start_decoding(
        prompts.embeddings,
        prompts.rows,
        &options.decoder_start,
        options.max_new_tokens,
        model.engine(),
    )?;
    let mut rows: Vec<Search> = (0..count)
        .map(|row| Search {
            row,
            running: vec![Beam {
                ids: vec![],
                log_probabilities: vec![],
                score: 0.0,
                used: prompts.used(row, model, options),
            }],
            finished: vec![],
            done: false,
        })
        .collect();
    let limit = position_limit(model);
    let mut answers = vec![Answer::default(); count];
    let mut logits = read_logits(&logits, options)?;
    loop {
        let lengths = state.lengths();
        let (mut sources, mut next) = (vec![], vec![]);
        let mut first = 0;
        for one in &mut rows {
            let beams = one.running.len();
            let room = limit.is_none_or(|limit| lengths[first] < limit);
            let chosen = one.advance(
                &mut logits[first..first + beams],
                options,
                search,
                room,
                &mut *watch,
            )?;
            for (beam, token) in chosen {
                sources.push(first + beam);
                next.push(token);
            }
            first += beams;
        }
        for one in rows.iter_mut().filter(|one| one.done) {
            answers[one.row] = one.best();
        }
        rows.retain(|one| !one.done);
        if rows.is_empty() {
            return Ok(answers);
        }
        state.fork(&sources);
        logits = read_logits(&state.step(&next)?, options)?;
    }
}

impl Search {
    /// Takes the logits of each running beam, and says which beams go on with which tokens.
    fn advance(
        &mut self,
        logits: &mut [Vec<f32>],
        options: &GenerateOptions,
        search: BeamSearch,
        room: bool,
        watch: Watch<'_>,
    ) -> Result<Vec<(usize, u32)>> {
        let written = self.running[0].ids.len();
        let mut raw = vec![];
        for (beam, logits) in self.running.iter().zip(logits.iter_mut()) {
            let norm = choice::log_sum_exp(logits) as f32;
            for logit in logits.iter_mut() {
                *logit -= norm;
            }
            if options.log_probabilities {
                raw.push(logits.clone());
            }
            restrict(logits, &beam.used, written, options);
        }
        let best = self.best_continuations(logits, 2 * search.beams);
        let length = (written + 1) as f64;
        let is_last = written + 1 >= options.max_new_tokens || !room;
        let (mut running, mut chosen) = (vec![], vec![]);
        let mut all_end = true;
        let is_full =
            search.early_stopping == EarlyStopping::Yes && self.finished.len() >= search.beams;
        for (rank, continuation) in best.iter().enumerate() {
            let Continuation { beam, token, score } = *continuation;
            let before = &self.running[beam];
            let mut log_probabilities = before.log_probabilities.clone();
            if let Some(raw) = raw.get(beam) {
                log_probabilities.push(f64::from(raw[token as usize]));
            }
            let mut ids = before.ids.clone();
            let is_eos = Some(token) == options.eos;
            if !is_eos {
                ids.push(token);
            }
            let is_answer = is_eos || watch(self.row, &ids)?.is_break();
            if !is_answer && !is_last {
                all_end = false;
                if running.len() < search.beams {
                    let mut used = before.used.clone();
                    used.insert(token);
                    chosen.push((beam, token));
                    running.push(Beam {
                        ids,
                        log_probabilities,
                        score,
                        used,
                    });
                }
            } else if rank < search.beams && !is_full {
                let answer = Answer {
                    ids,
                    log_probabilities,
                    finished: is_answer,
                };
                self.finished
                    .push((score / length.powf(search.length_penalty), answer));
            }
        }
        // Equal scores stay in the order in which they were found.
        self.finished.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.finished.truncate(search.beams);
        self.running = running;

        let can_improve = self.running.first().is_some_and(|beam| {
            let longest = match search.early_stopping {
                EarlyStopping::Never if search.length_penalty > 0.0 => {
                    options.max_new_tokens as f64
                }
                _ => length,
            };
            self.finished.len() < search.beams
                || beam.score / longest.powf(search.length_penalty)
                    > self.finished[search.beams - 1].0
        });
        let is_enough =
            search.early_stopping == EarlyStopping::Yes && self.finished.len() >= search.beams;
        self.done = all_end || !can_improve || is_enough;
        Ok(if self.done { vec![] } else { chosen })
    }

    /// The `count` best continuations of all beams; of equal ones the first.
    fn best_continuations(&self, scores: &[Vec<f32>], count: usize) -> Vec<Continuation> {
        let mut best: Vec<Continuation> = Vec::with_capacity(count + 1);
        for (beam, scores) in scores.iter().enumerate() {
            for (token, &log_probability) in scores.iter().enumerate() {
                let score = self.running[beam].score + f64::from(log_probability);
                if best.len() == count && score <= best[count - 1].score {
                    continue;
                }
                let place = best.partition_point(|other| other.score >= score);
                best.insert(
                    place,
                    Continuation {
                        beam,
                        token: token as u32,
                        score,
                    },
                );
                best.truncate(count);
            }
        }
        best
    }

    fn best(&mut self) -> Answer {
        if self.finished.is_empty() {
            return self
                .running
                .first()
                .map_or_else(Answer::default, |beam| Answer {
                    ids: beam.ids.clone(),
                    log_probabilities: beam.log_probabilities.clone(),
                    finished: false,
                });
        }
        self.finished.swap_remove(0).1
    }
}
