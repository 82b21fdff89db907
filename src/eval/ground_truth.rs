//! Files of right answers: one JSON object a line, whose `answer` (or `answers`) is a text or a list of texts.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::diag::{Diagnostic, Location};

/// The right answers of every row of `path`, in order.
///
/// # Errors
/// A [`Diagnostic`] at the first line that is not such an object.
pub fn read(path: &Path) -> Result<Vec<Vec<String>>> {
    let text = fs_err::read_to_string(path)
        .map_err(|error| Diagnostic::job(format!("cannot read the ground truth: {error}")))?;
    let mut rows = vec![];
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let at = || Location::line(path.display(), index + 1);
        let row: Value = serde_json::from_str(line)
            .map_err(|error| Diagnostic::job(format!("this line is not JSON: {error}")).at(at()))?;
        let answers = row.get("answer").or_else(|| row.get("answers"));
        rows.push(answers.and_then(texts).ok_or_else(|| {
            Diagnostic::job("this row has no right answer")
                .at(at())
                .note("expected `answer` with a text or a list of texts")
        })?);
    }
    Ok(rows)
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_lists_are_read_and_a_row_without_an_answer_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.jsonl");
        fs_err::write(
            &path,
            "{\"answer\":\"a\"}\n\n{\"answer\":[\"b\",\"c\"]}\n{\"answer\":[]}\n",
        )
        .unwrap();
        let rows = read(&path).unwrap();
        assert_eq!(
            rows,
            [vec!["a".to_owned()], vec!["b".into(), "c".into()], vec![]]
        );
        fs_err::write(&path, "{\"answer\":\"a\"}\n{\"question\":\"q\"}\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("truth.jsonl:2"), "{error}");
    }
}
