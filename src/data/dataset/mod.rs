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

mod encoder;
mod options;
mod report;
mod row;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use rayon::prelude::*;

use super::cache::RowCache;
use super::jsonl::{self, Purpose, RowFile};
use crate::diag::Diagnostic;
use crate::prompt::template::TaskTemplate;
use crate::tokenize::Tokenizer;
use encoder::{Outcome, RowEncoder};
use options::SpecialIds;
pub use options::{Architecture, DatasetOptions};
pub use report::{SkipReason, SkipReport, Skipped};

/// Rows tokenised between two looks at the clock.
const PORTION: usize = 1024;

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
        Self::load_until(paths, templates, tokenizer, options, None)
    }

    /// The same, except that no further row is tokenised after `deadline`; `report.read` then stays below
    /// `report.rows`. All rows are read and checked against the templates.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_until(
        paths: &[PathBuf],
        templates: &[TaskTemplate],
        tokenizer: &Tokenizer,
        options: &DatasetOptions,
        deadline: Option<Instant>,
    ) -> Result<Self> {
        let encoder = checked(templates, tokenizer, options)?;
        let files: Vec<RowFile> = paths.iter().map(|path| RowFile::read(path)).collect();
        Self::encode(&encoder, &files, deadline)
    }

    /// As [`Self::load`], but takes what is in `cache` where these very rows were tokenised before in this very way, and
    /// leaves there what it had to tokenise.
    ///
    /// # Errors
    /// As [`Self::load`]; a cache that cannot be read or written is none.
    pub fn load_cached(
        paths: &[PathBuf],
        templates: &[TaskTemplate],
        tokenizer: &Tokenizer,
        options: &DatasetOptions,
        cache: &RowCache,
    ) -> Result<Self> {
        let encoder = checked(templates, tokenizer, options)?;
        let files: Vec<RowFile> = paths.iter().map(|path| RowFile::read(path)).collect();
        let Some(key) = cache.key(&files, templates, tokenizer, options)? else {
            return Self::encode(&encoder, &files, None);
        };
        if let Some(dataset) = cache.find(&key, paths) {
            return Ok(dataset);
        }
        let started = Instant::now();
        let dataset = Self::encode(&encoder, &files, None)?;
        cache.put(&key, paths, &dataset, started.elapsed());
        Ok(dataset)
    }

    fn encode(
        encoder: &RowEncoder<'_>,
        files: &[RowFile],
        deadline: Option<Instant>,
    ) -> Result<Self> {
        let mut records = jsonl::parse(files, encoder.templates, encoder.options.purpose)?;
        let mut dataset = Self::default();
        dataset.report.rows = records.len();
        let portion = if deadline.is_some() {
            PORTION
        } else {
            records.len()
        };
        while !records.is_empty() {
            let rest = records.split_off(portion.min(records.len()));
            let encoded: Vec<Result<Outcome>> = std::mem::replace(&mut records, rest)
                .into_par_iter()
                .map(|record| encoder.encode(record))
                .collect();
            dataset.report.read += encoded.len();
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
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break;
            }
        }
        dataset.report.kept = dataset.examples.len();
        if dataset.examples.is_empty() {
            return Err(no_rows(files, &dataset.report).into());
        }
        Ok(dataset)
    }
}

/// What makes rows to ids, once everything is checked that can be wrong before a row is read.
fn checked<'a>(
    templates: &'a [TaskTemplate],
    tokenizer: &'a Tokenizer,
    options: &'a DatasetOptions,
) -> Result<RowEncoder<'a>> {
    check_templates(templates, options)?;
    Ok(RowEncoder {
        templates,
        tokenizer,
        options,
        special: SpecialIds::find(options, tokenizer)?,
    })
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

fn no_rows(files: &[RowFile], report: &SkipReport) -> Diagnostic {
    let mut diagnostic = Diagnostic::job(if report.read == 0 {
        "the data has no rows"
    } else {
        "no row of the data can be used"
    });
    for file in files {
        diagnostic = diagnostic.at(crate::diag::Location::file(file.path().display()));
    }
    if report.read > 0 {
        diagnostic.notes.extend(report.lines());
    }
    diagnostic
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
    fn every_t5_option_puts_its_token_where_it_belongs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        fs_err::write(&path, row("one", "one")).unwrap();
        let tokenizer = toy_tokenizer(&["one", " Q", " two", " A", "two", "<extra_id_s>"]);
        let load = |options: &DatasetOptions| {
            let example = Dataset::load(
                std::slice::from_ref(&path),
                &[gpt_template()],
                &tokenizer,
                options,
            )
            .unwrap()
            .examples
            .remove(0);
            let names = |ids: &[u32]| -> Vec<String> {
                let name = |id: &u32| tokenizer.id_to_token(*id).unwrap_or("*".to_owned());
                ids.iter().map(name).collect()
            };
            (
                names(&example.input_ids),
                names(&example.decoder_ids.unwrap()),
            )
        };
        let base = DatasetOptions {
            add_eos: false,
            ..hugging_face_t5(Purpose::Learn, 100)
        };
        let text = ["*", "*", "one", "ĠQ", ":", "Ġtwo", "ĠA", ":"];
        let answer = ["<pad>", "one", "</s>"];
        let row = |before: &[&str], after: &[&str]| -> Vec<String> {
            let parts = [before, &text, after].concat();
            parts.iter().map(|part| (*part).to_owned()).collect()
        };
        assert_eq!(load(&base).0, row(&[], &[]));
        assert_eq!(load(&base).1, answer);
        let ul2 = DatasetOptions {
            ul2_prompt_token: Some("<extra_id_s>".to_owned()),
            add_bos: true,
            add_eos: true,
            ..base.clone()
        };
        assert_eq!(load(&ul2).0, row(&["<s>", "<extra_id_s>"], &["</s>"]));
        assert_eq!(load(&ul2).1, answer);
        let bos = DatasetOptions {
            decoder_starts_with_pad: false,
            add_eos_to_decoder_output: false,
            ..base.clone()
        };
        assert_eq!(load(&bos).1, ["<s>", "one", "<extra_id_1>"]);
        let sentinel = DatasetOptions {
            add_sentinel_to_input: true,
            ..base
        };
        assert_eq!(load(&sentinel).0, row(&[], &["<extra_id_0>"]));
        assert_eq!(load(&sentinel).1, ["<pad>", "<extra_id_0>", "one", "</s>"]);
    }

    #[test]
    fn a_truncated_t5_row_keeps_its_end_and_its_answer() {
        let rows = [row("one red red green green blue", "two")];
        let whole = load(&rows, gpt_template(), &hugging_face_t5(Purpose::Learn, 100)).unwrap();
        let length = whole.examples[0].input_ids.len();
        let cut = load(
            &rows,
            gpt_template(),
            &hugging_face_t5(Purpose::Learn, length - 4),
        )
        .unwrap();
        assert_eq!(
            pieces(&cut.examples[0].input_ids),
            [
                "*", "*", "one", "_red", "_Q", ":", "_two", "_A", ":", "</s>"
            ]
        );
        assert_eq!(cut.examples[0].decoder_ids, whole.examples[0].decoder_ids);
        assert_eq!(cut.report.tokens_dropped, 4);
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
