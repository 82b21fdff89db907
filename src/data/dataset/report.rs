//! What became of the rows: how many were kept, shortened, left out, and why.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

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

impl SkipReason {
    /// All of them, in an order that stays.
    pub const ALL: [Self; 4] = [
        Self::TooLongNoTruncateField,
        Self::TooLongWithoutField,
        Self::TooShort,
        Self::NothingToLearn,
    ];
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
    /// Rows of the files.
    pub rows: usize,
    /// Rows tokenised: all, unless a deadline was set.
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
