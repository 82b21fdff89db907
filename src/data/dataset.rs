//! Rows to token ids: NeMo's rules for GPT and T5 (`gpt_prompt_learning_dataset.py`, `t5_prompt_learning_dataset.py`,
//! v1.16), without their mistakes.
//!
//! - **Text beside virtual tokens.** Each run of text between two groups of virtual tokens is tokenised by itself, as
//!   a tokenizer does around special tokens: a sentencepiece tokenizer marks a word's beginning in each of them, a
//!   byte-level one keeps the spaces that stand in the template.
//! - **Where the answer begins (GPT).** Prompt and answer are tokenised as one text, as the frozen model saw text. The
//!   answer begins at the first token that reaches past the prompt as it is when the answer is left out and spaces at
//!   its end are cut. So what is learnt is what has to be generated, the space before the answer included.
//! - **Rows that are too long.** Tokens that came from the truncate field are taken from its end until the row fits
//!   exactly; nothing is tokenised again, so the rest of the row stays as it was: the end-of-text token stays, the
//!   answer stays, and its beginning moves by the number of tokens taken.
//! - **Rows that still do not fit.** In training they are left out and listed. For generation no row is left out:
//!   text tokens are taken from the front, virtual tokens stay.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rayon::prelude::*;

use super::jsonl::{self, Purpose, Record};
use crate::diag::Diagnostic;
use crate::prompt::template::{FilledText, Segment, TaskTemplate};
use crate::tokenize::Tokenizer;

/// The two shapes of frozen model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Decoder only: prompt and answer are one sequence.
    Gpt,
    /// Encoder and decoder: the prompt is encoded, the answer decoded.
    T5,
}

/// How rows become token ids; names as in `model.data`.
#[derive(Clone, Debug)]
pub struct DatasetOptions {
    /// Which kind of model reads the rows.
    pub architecture: Architecture,
    /// What they are for.
    pub purpose: Purpose,
    /// Longest sequence in tokens, virtual ones included (T5: of the encoder). For GPT generation this is the room for
    /// the prompt alone, without the tokens to be generated.
    pub max_seq_length: usize,
    /// Rows shorter than this are left out in training.
    pub min_seq_length: usize,
    /// Put the beginning-of-text token in front.
    pub add_bos: bool,
    /// Put the end-of-text token behind (GPT: behind the answer, only for [`Purpose::Learn`]; T5: behind the encoder's
    /// text).
    pub add_eos: bool,
    /// T5: the decoder starts with the padding token, as Hugging Face's T5 does, instead of beginning-of-text.
    pub decoder_starts_with_pad: bool,
    /// T5: the target ends with end-of-text, else with `<extra_id_1>`.
    pub add_eos_to_decoder_output: bool,
    /// T5: `<extra_id_0>` behind the encoder's text and before the answer.
    pub add_sentinel_to_input: bool,
    /// T5: a token put before the encoder's text (`<extra_id_s>`, `<extra_id_r>`, `<extra_id_x>` of UL2).
    pub ul2_prompt_token: Option<String>,
    /// Virtual token `j` of a row's task has the id `pseudo_token_ids_start + j`; above every real id.
    pub pseudo_token_ids_start: u32,
}

impl DatasetOptions {
    /// NeMo's defaults for this architecture.
    pub fn new(
        architecture: Architecture,
        purpose: Purpose,
        max_seq_length: usize,
        pseudo_token_ids_start: u32,
    ) -> Self {
        Self {
            architecture,
            purpose,
            max_seq_length,
            min_seq_length: 1,
            add_bos: false,
            add_eos: true,
            decoder_starts_with_pad: false,
            add_eos_to_decoder_output: true,
            add_sentinel_to_input: true,
            ul2_prompt_token: None,
            pseudo_token_ids_start,
        }
    }

    /// The tokens a T5 decoder starts generating from: one.
    ///
    /// # Errors
    /// A [`Diagnostic`] where the tokenizer has no such token.
    pub fn decoder_start(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        Ok(vec![SpecialIds::find(self, tokenizer)?.decoder_start])
    }
}

/// A row as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Index of its template.
    pub task: usize,
    /// GPT: the whole sequence. T5: what the encoder reads. Virtual tokens included.
    pub input_ids: Vec<u32>,
    /// GPT with answer-only loss: index in `input_ids` of the first token to be learnt.
    pub answer_start: Option<usize>,
    /// T5, [`Purpose::Learn`]: start token, answer, end token; the labels are this without the first.
    pub decoder_ids: Option<Vec<u32>>,
    /// Reference answers, as the row has them.
    pub answers: Vec<String>,
    /// The row's own name.
    pub id: Option<String>,
    /// The file it stands in.
    pub file: Arc<Path>,
    /// Its line, from 1.
    pub line: usize,
}

/// Why a row was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// Longer than `max_seq_length`, and its template names no `truncate_field`.
    TooLongNoTruncateField,
    /// Longer than `max_seq_length` even without its truncate field.
    TooLongWithoutField,
    /// Shorter than `min_seq_length`.
    TooShort,
    /// No token of it would be learnt.
    NothingToLearn,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLongNoTruncateField => {
                "longer than `max_seq_length`, and the template has no `truncate_field`"
            }
            Self::TooLongWithoutField => {
                "longer than `max_seq_length` even without the whole truncate field"
            }
            Self::TooShort => "shorter than `min_seq_length`",
            Self::NothingToLearn => "no token to learn from",
        })
    }
}

/// A row that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file it stands in.
    pub file: Arc<Path>,
    /// Its line, from 1.
    pub line: usize,
    /// Why.
    pub reason: SkipReason,
}

/// What became of the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkipReport {
    /// Rows read.
    pub read: usize,
    /// Rows that became examples.
    pub kept: usize,
    /// Kept rows whose truncate field was shortened.
    pub truncated: usize,
    /// Kept rows (for generation) that lost text at the front because nothing else could be shortened.
    pub cut: usize,
    /// Tokens taken from all of them together.
    pub tokens_dropped: usize,
    /// Rows left out, in order.
    pub skipped: Vec<Skipped>,
}

impl SkipReport {
    /// How many rows were left out for each reason.
    pub fn counts(&self) -> BTreeMap<SkipReason, usize> {
        let mut counts = BTreeMap::new();
        for skipped in &self.skipped {
            *counts.entry(skipped.reason).or_default() += 1;
        }
        counts
    }

    /// Lines for a log: one with the counts, and one for each reason with the first places.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{} rows read, {} kept ({} truncated, {} cut at the front, {} tokens dropped), {} left out",
            self.read,
            self.kept,
            self.truncated,
            self.cut,
            self.tokens_dropped,
            self.skipped.len()
        )];
        for (reason, count) in self.counts() {
            let of_reason = self
                .skipped
                .iter()
                .filter(|skipped| skipped.reason == reason);
            let places: Vec<String> = of_reason
                .take(3)
                .map(|skipped| format!("{}:{}", skipped.file.display(), skipped.line))
                .collect();
            let more = if count > places.len() { ", …" } else { "" };
            lines.push(format!(
                "{count} left out, {reason}: {}{more}",
                places.join(", ")
            ));
        }
        lines
    }
}

/// Examples in the order of their rows.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    /// The rows that were kept.
    pub examples: Vec<Example>,
    /// What became of all of them.
    pub report: SkipReport,
}

impl Dataset {
    /// Reads, checks and tokenises the rows of `paths`.
    ///
    /// # Errors
    /// A [`Diagnostic`] for rows that do not fit the templates, for templates or options that do not fit the model or
    /// the tokenizer, and where no row is left.
    pub fn load(
        paths: &[PathBuf],
        templates: &[TaskTemplate],
        tokenizer: &Tokenizer,
        options: &DatasetOptions,
    ) -> Result<Self> {
        check_templates(templates, options)?;
        let encoder = RowEncoder {
            templates,
            tokenizer,
            options,
            special: SpecialIds::find(options, tokenizer)?,
        };
        let records = jsonl::read(paths, templates, options.purpose)?;
        let encoded: Vec<Result<Outcome>> = records
            .into_par_iter()
            .map(|record| encoder.encode(record))
            .collect();
        let mut dataset = Self::default();
        dataset.report.read = encoded.len();
        for outcome in encoded {
            match outcome? {
                Outcome::Kept { example, fit } => {
                    dataset.report.truncated += usize::from(fit.truncated);
                    dataset.report.cut += usize::from(fit.cut);
                    dataset.report.tokens_dropped += fit.dropped;
                    dataset.examples.push(example);
                }
                Outcome::Skipped(skipped) => dataset.report.skipped.push(skipped),
            }
        }
        dataset.report.kept = dataset.examples.len();
        if dataset.examples.is_empty() {
            return Err(no_rows(paths, &dataset.report).into());
        }
        Ok(dataset)
    }
}

/// What the options ask of a template beyond its own checks.
fn check_templates(templates: &[TaskTemplate], options: &DatasetOptions) -> Result<(), Diagnostic> {
    if options.min_seq_length > options.max_seq_length {
        return Err(Diagnostic::configuration(format!(
            "`model.data.min_seq_length` {} is more than the longest sequence, {}",
            options.min_seq_length, options.max_seq_length
        )));
    }
    for template in templates {
        if template.total_virtual_tokens >= options.max_seq_length {
            return Err(Diagnostic::configuration(format!(
                "task `{}` has {} virtual tokens, but a sequence has room for {} tokens in all",
                template.taskname, template.total_virtual_tokens, options.max_seq_length
            )));
        }
        let needs_answer =
            options.architecture == Architecture::T5 && options.purpose == Purpose::Learn;
        if needs_answer && template.answer_field.is_none() {
            return Err(Diagnostic::configuration(format!(
                "task `{}` has no `answer_field`: T5 learns to generate it",
                template.taskname
            ))
            .hint("answer_field: answer"));
        }
    }
    Ok(())
}

fn no_rows(paths: &[PathBuf], report: &SkipReport) -> Diagnostic {
    let mut diagnostic = Diagnostic::job(if report.read == 0 {
        "the data has no rows"
    } else {
        "no row of the data can be used"
    });
    for path in paths {
        diagnostic = diagnostic.at(crate::diag::Location::file(path.display()));
    }
    if report.read > 0 {
        diagnostic.notes.extend(report.lines());
    }
    diagnostic
}

/// The ids around the text, looked up once.
#[derive(Clone, Copy, Debug)]
struct SpecialIds {
    bos: Option<u32>,
    eos: Option<u32>,
    ul2: Option<u32>,
    /// `<extra_id_0>` where T5 is asked to use it.
    sentinel: Option<u32>,
    decoder_start: u32,
    decoder_end: u32,
}

impl SpecialIds {
    fn find(options: &DatasetOptions, tokenizer: &Tokenizer) -> Result<Self> {
        let special = tokenizer.special;
        let need = |id: Option<u32>, name: &str, hint: &str| {
            id.ok_or_else(|| {
                Diagnostic::configuration(format!("the tokenizer has no {name} token"))
                    .at(crate::diag::Location::file(tokenizer.path().display()))
                    .hint(hint)
            })
        };
        let bos = |hint| need(special.bos, "beginning-of-text (`bos`)", hint);
        let eos = |hint| need(special.eos, "end-of-text (`eos`)", hint);
        let mut ids = Self {
            bos: if options.add_bos {
                Some(bos("model.data.add_bos=false")?)
            } else {
                None
            },
            eos: if options.add_eos {
                Some(eos("model.data.add_eos=false")?)
            } else {
                None
            },
            ul2: None,
            sentinel: None,
            decoder_start: 0,
            decoder_end: 0,
        };
        if options.architecture == Architecture::Gpt {
            return Ok(ids);
        }
        if options.add_sentinel_to_input {
            ids.sentinel = Some(tokenizer.sentinel(0)?);
        }
        ids.decoder_start = if options.decoder_starts_with_pad {
            // NeMo falls back on the unknown token as well.
            need(
                special.pad.or(special.unk),
                "padding (`pad`)",
                "model.data.decoder_starts_with_pad=false",
            )?
        } else {
            bos("model.data.decoder_starts_with_pad=true")?
        };
        ids.decoder_end = if options.add_eos_to_decoder_output {
            eos("model.data.add_eos_to_decoder_output=false")?
        } else {
            tokenizer.sentinel(1)?
        };
        if let Some(token) = &options.ul2_prompt_token {
            ids.ul2 = Some(tokenizer.token_to_id(token).ok_or_else(|| {
                Diagnostic::configuration(format!(
                    "`model.data.ul2_prompt_token`: the tokenizer has no token `{token}`"
                ))
                .at(crate::diag::Location::file(tokenizer.path().display()))
            })?);
        }
        Ok(ids)
    }
}

/// Where a token of a row comes from, which decides whether it may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Virtual tokens, special tokens: never dropped.
    Fixed,
    /// Text: dropped from the front, for generation, if nothing else helps.
    Text,
    /// Text of the truncate field: dropped from the end.
    Truncatable,
}

/// Token ids under construction.
#[derive(Default)]
struct Row {
    ids: Vec<u32>,
    sources: Vec<Source>,
    answer_start: Option<usize>,
}

/// How a row was made to fit.
#[derive(Clone, Copy, Debug, Default)]
struct Fit {
    truncated: bool,
    cut: bool,
    dropped: usize,
}

enum Outcome {
    Kept { example: Example, fit: Fit },
    Skipped(Skipped),
}

struct RowEncoder<'a> {
    templates: &'a [TaskTemplate],
    tokenizer: &'a Tokenizer,
    options: &'a DatasetOptions,
    special: SpecialIds,
}

impl RowEncoder<'_> {
    fn encode(&self, record: Record) -> Result<Outcome> {
        let template = &self.templates[record.task];
        let options = self.options;
        let is_gpt = options.architecture == Architecture::Gpt;
        let learns = options.purpose == Purpose::Learn;
        let skip = |record: Record, reason| {
            Ok(Outcome::Skipped(Skipped {
                file: record.file,
                line: record.line,
                reason,
            }))
        };

        let mut row = Row::default();
        row.push_special(self.special.bos);
        row.push_special(self.special.ul2);
        let text_of = |name: &str| record.fields.get(name).map_or("", String::as_str);
        for segment in template.fill(text_of, is_gpt && learns) {
            match segment {
                Segment::Virtual(tokens) => {
                    let start = options.pseudo_token_ids_start;
                    row.push(tokens.map(|token| (start + token as u32, Source::Fixed)));
                }
                Segment::Text(text) => self.push_text(&mut row, &text)?,
            }
        }
        row.push_special(self.special.sentinel);
        if !is_gpt || learns {
            row.push_special(self.special.eos);
        }

        let mut fit = row.drop_truncatable(options.max_seq_length);
        if row.ids.len() > options.max_seq_length {
            if learns {
                return skip(
                    record,
                    match template.truncate_field {
                        Some(_) => SkipReason::TooLongWithoutField,
                        None => SkipReason::TooLongNoTruncateField,
                    },
                );
            }
            row.drop_front_text(options.max_seq_length, &mut fit);
        }
        if learns && row.ids.len() < options.min_seq_length {
            return skip(record, SkipReason::TooShort);
        }
        if row.ids.is_empty() {
            return skip(record, SkipReason::NothingToLearn);
        }

        let answer_only = is_gpt && learns && template.answer_only_loss;
        let answer_start = if answer_only {
            Some(row.answer_start.unwrap_or(row.ids.len()))
        } else {
            None
        };
        if is_gpt && learns {
            let first = answer_start.unwrap_or(0).max(1);
            if !row
                .ids
                .iter()
                .skip(first)
                .any(|id| *id < options.pseudo_token_ids_start)
            {
                return skip(record, SkipReason::NothingToLearn);
            }
        }
        let decoder_ids = if !is_gpt && learns {
            let answer = template.answer_field.as_deref().map_or("", text_of);
            let mut ids = vec![self.special.decoder_start];
            ids.extend(self.special.sentinel);
            ids.extend(self.tokenizer.encode(answer.trim_matches(' '))?);
            ids.push(self.special.decoder_end);
            Some(ids)
        } else {
            None
        };
        Ok(Outcome::Kept {
            example: Example {
                task: record.task,
                input_ids: row.ids,
                answer_start,
                decoder_ids,
                answers: record.answers,
                id: record.id,
                file: record.file,
                line: record.line,
            },
            fit,
        })
    }

    fn push_text(&self, row: &mut Row, filled: &FilledText) -> Result<()> {
        let encoded = self.tokenizer.encode_with_offsets(&filled.text)?;
        let before = row.ids.len();
        if let Some(start) = filled.answer_start {
            let first = encoded.offsets.iter().position(|token| token.end > start);
            row.answer_start = Some(before + first.unwrap_or(encoded.ids.len()));
        }
        let bytes = filled.text.as_bytes();
        row.push(
            encoded
                .ids
                .into_iter()
                .zip(encoded.offsets)
                .map(|(id, token)| {
                    let is_inside = |field: &std::ops::Range<usize>| {
                        // A token may begin with the space in front of the field.
                        let start = (token.start..token.end)
                            .find(|at| bytes[*at] != b' ')
                            .unwrap_or(token.start);
                        token.start < token.end && start >= field.start && token.end <= field.end
                    };
                    let source = if filled.truncatable.iter().any(is_inside) {
                        Source::Truncatable
                    } else {
                        Source::Text
                    };
                    (id, source)
                }),
        );
        Ok(())
    }
}

impl Row {
    fn push(&mut self, tokens: impl Iterator<Item = (u32, Source)>) {
        for (id, source) in tokens {
            self.ids.push(id);
            self.sources.push(source);
        }
    }

    fn push_special(&mut self, id: Option<u32>) {
        self.push(id.into_iter().map(|id| (id, Source::Fixed)));
    }

    /// Takes tokens from the end of the truncate field until the row has `max` tokens, or none of the field is left.
    fn drop_truncatable(&mut self, max: usize) -> Fit {
        let excess = self.ids.len().saturating_sub(max);
        let candidates = (0..self.ids.len())
            .rev()
            .filter(|at| self.sources[*at] == Source::Truncatable);
        let dropped: Vec<usize> = candidates.take(excess).collect();
        self.remove(&dropped);
        Fit {
            truncated: !dropped.is_empty(),
            cut: false,
            dropped: dropped.len(),
        }
    }

    /// Takes text tokens from the front until the row has `max` tokens.
    fn drop_front_text(&mut self, max: usize, fit: &mut Fit) {
        let excess = self.ids.len().saturating_sub(max);
        let candidates = (0..self.ids.len()).filter(|at| self.sources[*at] != Source::Fixed);
        let mut dropped: Vec<usize> = candidates.take(excess).collect();
        dropped.reverse();
        self.remove(&dropped);
        fit.cut = !dropped.is_empty();
        fit.dropped += dropped.len();
    }

    /// Removes the tokens at `places`, highest first.
    fn remove(&mut self, places: &[usize]) {
        let Some((&last, _)) = places.split_first() else {
            return;
        };
        debug_assert!(places.is_sorted_by(|a, b| a > b), "highest first");
        let mut is_removed = vec![false; last + 1];
        for place in places {
            is_removed[*place] = true;
        }
        let keep = |at: usize| !is_removed.get(at).copied().unwrap_or(false);
        let mut at = 0;
        self.ids.retain(|_| {
            at += 1;
            keep(at - 1)
        });
        at = 0;
        self.sources.retain(|_| {
            at += 1;
            keep(at - 1)
        });
        self.answer_start = self
            .answer_start
            .map(|start| start - places.iter().filter(|place| **place < start).count());
    }
}

#[cfg(test)]
mod tests {
    use super::super::collate::Batch;
    use super::super::jsonl::tests::squad_template;
    use super::*;
    use crate::schema::TaskTemplateSection;
    use crate::tokenize::tests::toy_tokenizer;

    /// First virtual id.
    const START: u32 = 1000;

    fn tokenizer() -> Tokenizer {
        toy_tokenizer(&[
            "red", " red", " green", " blue", "one", " one", " two", " three", "Q", " Q", ":", " A",
        ])
    }

    fn template(prompt_template: &str, splits: &[usize]) -> TaskTemplate {
        let section = TaskTemplateSection {
            taskname: "squad".to_owned(),
            prompt_template: prompt_template.to_owned(),
            total_virtual_tokens: splits.iter().sum(),
            virtual_token_splits: splits.to_vec(),
            truncate_field: Some("context".to_owned()),
            answer_only_loss: true,
            answer_field: Some("answer".to_owned()),
        };
        TaskTemplate::parse_all(&[section]).unwrap().remove(0)
    }

    fn gpt_template() -> TaskTemplate {
        template(
            "<|VIRTUAL_PROMPT_0|>{context} Q: {question} A: {answer}",
            &[2],
        )
    }

    fn row(context: &str, answer: &str) -> String {
        serde_json::json!({"taskname": "squad", "context": context, "question": "two", "answer": answer}).to_string()
    }

    fn load(rows: &[String], template: TaskTemplate, options: &DatasetOptions) -> Result<Dataset> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        fs_err::write(&path, rows.join("\n")).unwrap();
        Dataset::load(&[path], &[template], &tokenizer(), options)
    }

    fn gpt(purpose: Purpose, max_seq_length: usize) -> DatasetOptions {
        DatasetOptions::new(Architecture::Gpt, purpose, max_seq_length, START)
    }

    fn hugging_face_t5(purpose: Purpose, max_seq_length: usize) -> DatasetOptions {
        DatasetOptions {
            decoder_starts_with_pad: true,
            add_sentinel_to_input: false,
            ..DatasetOptions::new(Architecture::T5, purpose, max_seq_length, START)
        }
    }

    /// The pieces of a row, virtual tokens as `*`.
    fn pieces(ids: &[u32]) -> Vec<String> {
        let tokenizer = tokenizer();
        let piece = |id: &u32| {
            if *id >= START {
                "*".to_owned()
            } else {
                tokenizer.id_to_token(*id).unwrap()
            }
        };
        ids.iter().map(|id| piece(id).replace('Ġ', "_")).collect()
    }

    #[test]
    fn a_gpt_row_is_virtual_tokens_text_and_end_and_learns_from_the_answer_on() {
        let dataset = load(
            &[row("one red", "blue")],
            gpt_template(),
            &gpt(Purpose::Learn, 100),
        )
        .unwrap();
        let example = &dataset.examples[0];
        let expected = [
            "*", "*", "one", "_red", "_Q", ":", "_two", "_A", ":", "_blue", "</s>",
        ];
        assert_eq!(pieces(&example.input_ids), expected);
        assert_eq!(example.input_ids[..2], [START, START + 1]);
        assert_eq!(example.answer_start, Some(9));
        assert_eq!(example.answers, ["blue"]);
    }

    #[test]
    fn a_truncated_row_fits_exactly_and_keeps_answer_start_and_end() {
        let context = "one red red green green blue";
        let whole = load(
            &[row(context, "blue")],
            gpt_template(),
            &gpt(Purpose::Learn, 100),
        )
        .unwrap();
        let length = whole.examples[0].input_ids.len();
        for max in (length - 6)..length {
            let cut = load(
                &[row(context, "blue")],
                gpt_template(),
                &gpt(Purpose::Learn, max),
            )
            .unwrap();
            let example = &cut.examples[0];
            assert_eq!(example.input_ids.len(), max);
            let start = example.answer_start.unwrap();
            assert_eq!(
                pieces(&example.input_ids[start..]),
                ["_blue", "</s>"],
                "max {max}"
            );
            assert_eq!(
                pieces(&example.input_ids[start - 5..start]),
                ["_Q", ":", "_two", "_A", ":"]
            );
            assert_eq!(
                (cut.report.truncated, cut.report.tokens_dropped),
                (1, length - max)
            );
        }
        // The context's last words go first.
        let cut = load(
            &[row(context, "blue")],
            gpt_template(),
            &gpt(Purpose::Learn, length - 5),
        )
        .unwrap();
        assert_eq!(
            pieces(&cut.examples[0].input_ids)[..4],
            ["*", "*", "one", "_Q"]
        );
    }

    #[test]
    fn rows_that_cannot_fit_are_listed_in_training_and_cut_at_the_front_for_generation() {
        let rows = [row("one", "blue"), row("one red", &" blue".repeat(20))];
        let trained = load(&rows, gpt_template(), &gpt(Purpose::Learn, 11)).unwrap();
        assert_eq!(trained.examples.len(), 1);
        assert_eq!(trained.report.skipped[0].line, 2);
        assert_eq!(trained.report.counts()[&SkipReason::TooLongWithoutField], 1);
        assert!(
            trained.report.lines()[1].contains("rows.jsonl:2"),
            "{:?}",
            trained.report.lines()
        );

        let answered = load(&rows, gpt_template(), &gpt(Purpose::Answer, 5)).unwrap();
        assert_eq!(answered.examples.len(), 2);
        assert_eq!(
            pieces(&answered.examples[1].input_ids),
            ["*", "*", "_two", "_A", ":"]
        );
        assert_eq!(answered.report.cut, 2);
    }

    #[test]
    fn a_prompt_to_answer_ends_where_the_answer_began_in_training() {
        let learn = load(
            &[row("one", "blue")],
            gpt_template(),
            &gpt(Purpose::Learn, 100),
        )
        .unwrap();
        let answer = load(
            &[row("one", "blue")],
            gpt_template(),
            &gpt(Purpose::Answer, 100),
        )
        .unwrap();
        let (learn, answer) = (&learn.examples[0], &answer.examples[0]);
        assert_eq!(
            answer.input_ids,
            learn.input_ids[..learn.answer_start.unwrap()]
        );
        assert_eq!(answer.answer_start, None);
        assert_eq!(answer.answers, ["blue"]);
    }

    #[test]
    fn the_space_before_the_answer_is_learnt_where_it_is_a_token_of_its_own() {
        // ` zz` is not one token, so the space, the letters and the end are four labels.
        let dataset = load(
            &[row("one", "zz")],
            gpt_template(),
            &gpt(Purpose::Learn, 100),
        )
        .unwrap();
        let batch = Batch::to_learn(Architecture::Gpt, &dataset.examples, START);
        assert_eq!(pieces(&batch.labels), ["_", "z", "z", "</s>"]);
    }

    #[test]
    fn a_row_without_anything_to_learn_is_left_out_and_an_empty_answer_learns_its_end() {
        let ends = load(
            &[row("one", " ")],
            gpt_template(),
            &gpt(Purpose::Learn, 100),
        )
        .unwrap();
        assert_eq!(
            Batch::to_learn(Architecture::Gpt, &ends.examples, START).labels,
            [1]
        );
        let options = DatasetOptions {
            add_eos: false,
            ..gpt(Purpose::Learn, 100)
        };
        let kept = load(
            &[row("one", "red"), row("one", "")],
            gpt_template(),
            &options,
        )
        .unwrap();
        assert_eq!(kept.report.counts()[&SkipReason::NothingToLearn], 1);
        let nothing = load(&[row("one", "")], gpt_template(), &options).unwrap_err();
        assert!(
            nothing
                .to_string()
                .contains("no row of the data can be used"),
            "{nothing}"
        );
    }

    #[test]
    fn text_between_markers_is_tokenised_by_itself() {
        let split = template(
            "<|VIRTUAL_PROMPT_0|>{context}<|VIRTUAL_PROMPT_1|> Q: {question} A: {answer}",
            &[1, 2],
        );
        let dataset = load(&[row("one", "red")], split, &gpt(Purpose::Learn, 100)).unwrap();
        let expected = [
            "*", "one", "*", "*", "_Q", ":", "_two", "_A", ":", "_red", "</s>",
        ];
        assert_eq!(pieces(&dataset.examples[0].input_ids), expected);
        assert_eq!(dataset.examples[0].input_ids[2], START + 1);
    }

    #[test]
    fn t5_encodes_the_prompt_and_decodes_the_answer() {
        let rows = [row("one", "blue")];
        let nemo = DatasetOptions::new(Architecture::T5, Purpose::Learn, 100, START);
        let example = load(&rows, gpt_template(), &nemo)
            .unwrap()
            .examples
            .remove(0);
        let text = ["*", "*", "one", "_Q", ":", "_two", "_A", ":"];
        assert_eq!(
            pieces(&example.input_ids),
            [&text[..], &["<extra_id_0>", "</s>"]].concat()
        );
        // The toy vocabulary has no `blue` without its space.
        let decoder = pieces(&example.decoder_ids.unwrap());
        assert_eq!(decoder, ["<s>", "<extra_id_0>", "b", "l", "u", "e", "</s>"]);

        let plain = load(&rows, gpt_template(), &hugging_face_t5(Purpose::Learn, 100))
            .unwrap()
            .examples
            .remove(0);
        assert_eq!(pieces(&plain.input_ids), [&text[..], &["</s>"]].concat());
        assert_eq!(
            pieces(&plain.decoder_ids.unwrap()),
            ["<pad>", "b", "l", "u", "e", "</s>"]
        );

        let answered = load(
            &rows,
            gpt_template(),
            &hugging_face_t5(Purpose::Answer, 100),
        )
        .unwrap();
        assert_eq!(answered.examples[0].input_ids, plain.input_ids);
        assert_eq!(answered.examples[0].decoder_ids, None);
    }

    #[test]
    fn options_that_do_not_fit_the_model_are_told_before_the_data_is_read() {
        let message =
            |options: &DatasetOptions| load(&[], gpt_template(), options).unwrap_err().to_string();
        assert!(message(&gpt(Purpose::Learn, 2)).contains("has 2 virtual tokens"));
        let ul2 = DatasetOptions {
            ul2_prompt_token: Some("<extra_id_s>".to_owned()),
            ..hugging_face_t5(Purpose::Learn, 100)
        };
        assert!(message(&ul2).contains("`<extra_id_s>`"));
        let without_answer = TaskTemplate {
            answer_field: None,
            ..squad_template()
        };
        let t5 = load(&[], without_answer, &hugging_face_t5(Purpose::Learn, 100)).unwrap_err();
        assert!(t5.to_string().contains("no `answer_field`"), "{t5}");
        assert!(message(&gpt(Purpose::Learn, 100)).contains("the data has no rows"));
    }
}
