//! One row to token ids.

use anyhow::Result;

use super::Example;
use super::options::{Architecture, DatasetOptions, SpecialIds};
use super::report::{SkipReason, Skipped};
use super::row::{Fit, Row, Source};
use crate::data::jsonl::{Purpose, Record};
use crate::prompt::template::{FilledText, Segment, TaskTemplate};
use crate::tokenize::Tokenizer;

pub(super) enum Outcome {
    Kept { example: Example, fit: Fit },
    Skipped(Skipped),
}

pub(super) struct RowEncoder<'a> {
    pub(super) templates: &'a [TaskTemplate],
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) options: &'a DatasetOptions,
    pub(super) special: SpecialIds,
}

impl RowEncoder<'_> {
    pub(super) fn encode(&self, record: Record) -> Result<Outcome> {
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
