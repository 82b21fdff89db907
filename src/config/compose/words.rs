//! The words of the command line, as a text that messages can underline.

use crate::config::override_grammar::advice;
use crate::config::override_grammar::{Override, OverrideValue, parse_override};
use crate::config::report::Report;
use crate::config::repository::placed;
use crate::diag::Diagnostic;
use crate::diag::source::{COMMAND_LINE, Origin, SourceId, SourceMap};

/// The words of a sweep, parsed as those of a command line are.
///
/// # Errors
/// All words that are not in the language.
pub(crate) fn sweep_words(
    words: &[String],
    texts: &SourceMap,
) -> Result<Vec<(Override, Origin)>, Diagnostic> {
    let mut report = Report::default();
    let parsed = parse_words(words, texts, &mut report);
    report.finish(Ok(parsed))
}

/// Parses the words and gives them a text of their own, so that messages can underline them. Words that are not in the
/// language are left out and reported.
pub(super) fn parse_words(
    words: &[String],
    texts: &SourceMap,
    report: &mut Report,
) -> Vec<(Override, Origin)> {
    if words.is_empty() {
        return vec![];
    }
    let one_line: Vec<String> = words
        .iter()
        .map(|word| word.replace(['\n', '\r'], " "))
        .collect();
    let source = texts.add(COMMAND_LINE, one_line.join(" "));
    let mut parsed = vec![];
    let mut column = 1;
    for (index, word) in words.iter().enumerate() {
        let length = word.chars().count();
        match parse_override(word) {
            Ok(word) => parsed.push((word, origin(source, column, length))),
            Err(error) => {
                let before = word[..error.offset.min(word.len())].chars().count();
                let at = origin(source, column + before, 1);
                let mut problem = placed(
                    Diagnostic::configuration(format!("`{word}`: {}", error.message)),
                    at,
                    texts,
                )
                .code(error.code);
                problem.hints = advice(words, index, &error);
                report.add(problem);
                report.leave_out(word);
            }
        }
        column += length + 1;
    }
    parsed
}

pub(super) fn origin(source: SourceId, column: usize, length: usize) -> Origin {
    Origin {
        source,
        line: 1,
        column: column as u32,
        length: length as u32,
    }
}

pub(super) fn check_sweeps(
    words: &[(Override, Origin)],
    multirun: bool,
    texts: &SourceMap,
    report: &mut Report,
) {
    for (word, at) in words {
        if !word.is_sweep() {
            continue;
        }
        let is_hydra = word.key.starts_with("hydra.") || word.key.starts_with("hydra/");
        let diagnostic = if multirun {
            if !is_hydra {
                continue;
            }
            Diagnostic::configuration(format!(
                "`{}`: keys of `hydra` cannot be swept over",
                word.input
            ))
        } else if let Some(OverrideValue::Choice(choice)) = &word.value
            && choice.simple
        {
            let value = &word.input[word.value_offset..];
            let key = &word.input[..word.value_offset];
            Diagnostic::configuration(format!("`{}` has several values", word.input))
                .hint(format!("for a list, write `{key}[{value}]`"))
                .hint(format!("for a text, write `{key}'{value}'`"))
                .hint("for one job each, add `--multirun`")
        } else {
            Diagnostic::configuration(format!(
                "`{}` is a sweep, which needs `--multirun`",
                word.input
            ))
        };
        report.add(placed(diagnostic, *at, texts).code("ConfigCompositionException"));
        report.leave_out(&word.key);
    }
}
