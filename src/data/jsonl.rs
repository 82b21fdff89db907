//! Rows of data: one JSON object a line, checked against the task templates.
//!
//! A byte order mark and blank lines are passed over. Everything else that does not fit is told with file and line,
//! all of it at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use rayon::prelude::*;
use serde_json::Value;

use crate::diag::suggest::did_you_mean;
use crate::diag::{Diagnostic, Location};
use crate::prompt::template::TaskTemplate;

/// The key that names a row's task.
const TASKNAME: &str = "taskname";
/// Keys a row may have though its template has no such field: a name for the row, and several reference answers.
const EXTRA_KEYS: [&str; 3] = [TASKNAME, "id", "answers"];
/// Problems told before "and so many more".
const SHOWN: usize = 10;

/// What the rows are for, which decides what they must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The model learns the answer, or its loss is measured: a row needs its answer, one string.
    Learn,
    /// The model writes the answer: a row may lack it, or have a list of them to score against.
    Answer,
}

/// One row of data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Index of its template.
    pub task: usize,
    /// Text of each field of the template that the row has.
    pub fields: IndexMap<String, String>,
    /// Reference answers, for scoring; `answers` where the row has it, else the answer field.
    pub answers: Vec<String>,
    /// The row's own name, where it has one.
    pub id: Option<String>,
    /// The file it stands in.
    pub file: Arc<Path>,
    /// Its line, from 1.
    pub line: usize,
}

/// A problem at a place: column from 1 where it is known, and what is wrong.
struct Problem {
    line: usize,
    column: Option<usize>,
    message: String,
    hint: Option<String>,
}

/// A file of rows as it lies on the disk, or why it cannot be read.
#[derive(Debug)]
pub struct RowFile {
    path: PathBuf,
    bytes: std::io::Result<Vec<u8>>,
}

impl RowFile {
    /// Reads the file at `path`. That it cannot be read is told by [`parse`], with all else that is wrong.
    pub fn read(path: &Path) -> Self {
        Self {
            bytes: fs_err::read(path),
            path: path.to_owned(),
        }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds, where it could be read.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.bytes.as_deref().ok()
    }
}

/// Reads the rows of several files, in order.
///
/// # Errors
/// As [`parse`].
pub fn read(
    paths: &[PathBuf],
    templates: &[TaskTemplate],
    purpose: Purpose,
) -> Result<Vec<Record>, Diagnostic> {
    let files: Vec<RowFile> = paths.iter().map(|path| RowFile::read(path)).collect();
    parse(&files, templates, purpose)
}

/// The rows of several files, in order.
///
/// # Errors
/// One [`Diagnostic`] with all problems of all files, at most ten of them spelt out.
pub fn parse(
    files: &[RowFile],
    templates: &[TaskTemplate],
    purpose: Purpose,
) -> Result<Vec<Record>, Diagnostic> {
    let mut records = Vec::new();
    let mut problems: Vec<(&Path, Problem)> = Vec::new();
    for file in files {
        match parse_file(file, templates, purpose) {
            Ok(of_file) => records.extend(of_file),
            Err(of_file) => {
                problems.extend(of_file.into_iter().map(|problem| (file.path(), problem)));
            }
        }
    }
    if problems.is_empty() {
        Ok(records)
    } else {
        Err(report(problems))
    }
}

fn parse_file(
    file: &RowFile,
    templates: &[TaskTemplate],
    purpose: Purpose,
) -> Result<Vec<Record>, Vec<Problem>> {
    let whole_file = |message: String, hint: Option<&str>| {
        vec![Problem {
            line: 0,
            column: None,
            message,
            hint: hint.map(str::to_owned),
        }]
    };
    let path = file.path();
    let bytes = file.bytes.as_deref().map_err(|error| {
        // The path is told beside the message; fs_err has it inside as well.
        let message =
            std::error::Error::source(error).map_or(error.to_string(), ToString::to_string);
        whole_file(format!("the data file cannot be read: {message}"), None)
    })?;
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()]
            .split(|byte| *byte == b'\n')
            .count();
        let message = "not UTF-8 text".to_owned();
        let hint = Some(format!("iconv -t UTF-8 {0} > {0}.utf8", path.display()));
        vec![Problem {
            line,
            column: None,
            message,
            hint,
        }]
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('[') {
        return Err(whole_file(
            "one JSON array; expected one object a line".to_owned(),
            Some(&format!("jq -c '.[]' {0} > {0}l", path.display())),
        ));
    }
    let file: Arc<Path> = Arc::from(path);
    let lines: Vec<&str> = text.split('\n').collect();
    let parsed: Vec<Result<Option<Record>, Vec<Problem>>> = lines
        .par_iter()
        .enumerate()
        .map(|(index, line)| {
            if line.trim().is_empty() {
                return Ok(None);
            }
            parse_line(line, index + 1, &file, templates, purpose).map(Some)
        })
        .collect();
    let mut records = Vec::with_capacity(parsed.len());
    let mut problems = Vec::new();
    for line in parsed {
        match line {
            Ok(record) => records.extend(record),
            Err(of_line) => problems.extend(of_line),
        }
    }
    if problems.is_empty() {
        Ok(records)
    } else {
        Err(problems)
    }
}

fn parse_line(
    text: &str,
    line: usize,
    file: &Arc<Path>,
    templates: &[TaskTemplate],
    purpose: Purpose,
) -> Result<Record, Vec<Problem>> {
    let one = |message: String, hint: Option<String>| {
        vec![Problem {
            line,
            column: None,
            message,
            hint,
        }]
    };
    let value: Value = serde_json::from_str(text).map_err(|error| {
        let detail = error.to_string();
        // serde_json counts lines of this one line; the column is what helps.
        let detail = detail
            .split(" at line ")
            .next()
            .unwrap_or(&detail)
            .to_owned();
        let column = Some(column_in_characters(text, error.column()));
        vec![Problem {
            line,
            column,
            message: format!("not JSON: {detail}"),
            hint: None,
        }]
    })?;
    let Value::Object(mut object) = value else {
        return Err(one(
            format!("{}; expected a JSON object", kind(&value)),
            None,
        ));
    };
    let tasknames = || templates.iter().map(|template| template.taskname.as_str());
    let known_tasks = || tasknames().collect::<Vec<_>>().join("`, `");
    let task = match object.get(TASKNAME) {
        Some(Value::String(name)) => {
            let Some(task) = tasknames().position(|known| known == name) else {
                let hint =
                    did_you_mean(name, tasknames()).map(|known| format!("did you mean `{known}`?"));
                let message = format!(
                    "unknown task `{name}`; the templates are for `{}`",
                    known_tasks()
                );
                return Err(one(message, hint));
            };
            task
        }
        Some(other) => {
            return Err(one(
                format!("`{TASKNAME}` is {}; expected a string", kind(other)),
                None,
            ));
        }
        None => {
            let hint = format!(
                "add \"{TASKNAME}\": \"{}\"",
                tasknames().next().unwrap_or("…")
            );
            return Err(one(format!("no `{TASKNAME}`"), Some(hint)));
        }
    };
    let template = &templates[task];
    let names = template.fields();
    let mut problems = Vec::new();
    let mut problem = |message: String, hint: Option<String>| {
        problems.push(Problem {
            line,
            column: None,
            message,
            hint,
        });
    };
    let is_answer = |name: &str| template.answer_field.as_deref() == Some(name);
    let mut answers = Vec::new();
    let mut fields = IndexMap::with_capacity(names.len());
    for name in &names {
        match object.shift_remove(*name) {
            Some(Value::String(text)) => {
                if is_answer(name) {
                    answers.push(text.clone());
                }
                fields.insert((*name).to_owned(), text);
            }
            Some(Value::Array(list)) if is_answer(name) && purpose == Purpose::Answer => {
                match strings(list) {
                    Some(list) => answers = list,
                    None => problem(
                        format!("field `{name}` is a list, but not of strings"),
                        None,
                    ),
                }
            }
            Some(other) => {
                let hint = (is_answer(name) && other.is_array()).then(|| {
                    "several answers are for evaluation; training needs one string".to_owned()
                });
                problem(
                    format!("field `{name}` is {}; expected a string", kind(&other)),
                    hint,
                );
            }
            None if is_answer(name) && purpose == Purpose::Answer => {}
            None => {
                let hint = did_you_mean(name, object.keys().map(String::as_str))
                    .map(|near| format!("it has `{near}`: did you mean `{name}`?"));
                problem(
                    format!(
                        "no field `{name}`, which the template of `{}` asks for",
                        template.taskname
                    ),
                    hint,
                );
            }
        }
    }
    let id = match object.shift_remove("id") {
        Some(Value::String(id)) => Some(id),
        Some(Value::Number(id)) => Some(id.to_string()),
        _ => None,
    };
    match object.shift_remove("answers") {
        None | Some(Value::Null) => {}
        Some(value) => match reference_answers(value) {
            Some(list) => answers = list,
            None => problem("`answers` is not a list of strings".to_owned(), None),
        },
    }
    for key in object.keys().filter(|key| *key != TASKNAME) {
        let hint = did_you_mean(key, names.iter().copied().chain(EXTRA_KEYS))
            .map(|near| format!("did you mean `{near}`?"))
            .or_else(|| {
                Some(format!(
                    "leave it out, or put `{{{key}}}` into the template"
                ))
            });
        let message = format!(
            "unknown field `{key}`; the template of `{}` has `{}`",
            template.taskname,
            names.join("`, `")
        );
        problem(message, hint);
    }
    if problems.is_empty() {
        Ok(Record {
            task,
            fields,
            answers,
            id,
            file: Arc::clone(file),
            line,
        })
    } else {
        Err(problems)
    }
}

/// A list of strings, or the object `{"text": […]}` that Hugging Face's copy of SQuAD has.
fn reference_answers(value: Value) -> Option<Vec<String>> {
    match value {
        Value::Array(list) => strings(list),
        Value::Object(mut object) => match object.shift_remove("text")? {
            Value::Array(list) => strings(list),
            _ => None,
        },
        _ => None,
    }
}

fn strings(list: Vec<Value>) -> Option<Vec<String>> {
    list.into_iter()
        .map(|item| {
            if let Value::String(text) = item {
                Some(text)
            } else {
                None
            }
        })
        .collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// serde_json counts bytes, people count characters.
fn column_in_characters(line: &str, column_in_bytes: usize) -> usize {
    let before = column_in_bytes.saturating_sub(1);
    line.char_indices()
        .take_while(|(at, _)| *at < before)
        .count()
        + 1
}

fn report(problems: Vec<(&Path, Problem)>) -> Diagnostic {
    let place = |path: &Path, problem: &Problem| match (problem.line, problem.column) {
        (0, _) => Location::file(path.display()),
        (line, None) => Location::line(path.display(), line),
        (line, Some(column)) => Location::column(path.display(), line, column),
    };
    if let [(path, problem)] = problems.as_slice() {
        let mut diagnostic = Diagnostic::job(problem.message.clone()).at(place(path, problem));
        diagnostic.hints.extend(problem.hint.clone());
        return diagnostic;
    }
    let mut diagnostic = Diagnostic::job(format!("{} problems in the data", problems.len()));
    for (path, problem) in problems.iter().take(SHOWN) {
        diagnostic
            .notes
            .push(format!("{}: {}", place(path, problem), problem.message));
        if let Some(hint) = &problem.hint
            && !diagnostic.hints.contains(hint)
        {
            diagnostic.hints.push(hint.clone());
        }
    }
    if problems.len() > SHOWN {
        diagnostic
            .notes
            .push(format!("… and {} more", problems.len() - SHOWN));
    }
    diagnostic
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::schema::TaskTemplateSection;

    pub(in crate::data) fn squad_template() -> TaskTemplate {
        let section = TaskTemplateSection {
            taskname: "squad".to_owned(),
            prompt_template: "<|VIRTUAL_PROMPT_0|>{context} {question} {answer}".to_owned(),
            total_virtual_tokens: 3,
            virtual_token_splits: vec![3],
            truncate_field: Some("context".to_owned()),
            answer_only_loss: true,
            answer_field: Some("answer".to_owned()),
        };
        TaskTemplate::parse_all(&[section]).unwrap().remove(0)
    }

    fn read_text(text: impl AsRef<[u8]>, purpose: Purpose) -> Result<Vec<Record>, Diagnostic> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        fs_err::write(&path, text).unwrap();
        read(&[path], &[squad_template()], purpose)
    }

    const GOOD: &str = r#"{"taskname": "squad", "context": "c", "question": "q", "answer": "a"}"#;

    #[test]
    fn a_byte_order_mark_and_blank_lines_are_passed_over() {
        let rows = read_text(
            format!("\u{feff}\r\n{GOOD}\r\n\n  \n{GOOD}"),
            Purpose::Learn,
        )
        .unwrap();
        assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 5]);
        assert_eq!(rows[0].fields["question"], "q");
        assert_eq!(rows[0].answers, ["a"]);
    }

    #[test]
    fn a_line_that_is_not_json_is_told_with_line_and_column() {
        let broken = GOOD.replace("\"c\"", "\"é\" x");
        let diagnostic = read_text(format!("{GOOD}\n{broken}\n"), Purpose::Learn).unwrap_err();
        assert!(diagnostic.title.starts_with("not JSON"), "{diagnostic}");
        assert_eq!(diagnostic.class, crate::diag::Class::Job);
        let place = &diagnostic.locations[0];
        assert_eq!(place.line, Some(2));
        let before_x = &broken[..broken.find(" x,").unwrap()];
        let column = before_x.chars().count() + 2;
        assert_eq!(place.column, Some(column), "{diagnostic}");
    }

    #[test]
    fn every_kind_of_unfit_row_has_its_message() {
        let message = |row: &str| read_text(row, Purpose::Learn).unwrap_err().to_string();
        assert!(message("[1, 2]").contains("one JSON array"));
        assert!(message("3").contains("a number; expected a JSON object"));
        assert!(message(r#"{"context": "c"}"#).contains("no `taskname`"));
        assert!(message(r#"{"taskname": "squat"}"#).contains("did you mean `squad`?"));
        assert!(message(&GOOD.replace("\"q\"", "7")).contains("field `question` is a number"));
        assert!(message(&GOOD.replace("\"a\"", "[\"a\"]")).contains("training needs one string"));
        let unknown = message(&GOOD.replace("\"question\"", "\"qestion\""));
        assert!(
            unknown.contains("no field `question`") && unknown.contains("unknown field `qestion`"),
            "{unknown}"
        );
        let not_text = read_text(b"{}\n\xff\n", Purpose::Learn).unwrap_err();
        assert!(not_text.title.contains("not UTF-8"));
        assert_eq!(not_text.locations[0].line, Some(2));
    }

    #[test]
    fn at_most_ten_problems_are_spelt_out() {
        let diagnostic = read_text("{\n".repeat(14), Purpose::Learn).unwrap_err();
        assert_eq!(diagnostic.title, "14 problems in the data");
        assert_eq!(diagnostic.notes.len(), 11);
        assert_eq!(diagnostic.notes[10], "… and 4 more");
    }

    #[test]
    fn a_missing_file_is_told_beside_the_problems_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there.jsonl");
        fs_err::write(&there, "{").unwrap();
        let paths = [folder.path().join("absent.jsonl"), there];
        let diagnostic = read(&paths, &[squad_template()], Purpose::Learn).unwrap_err();
        assert_eq!(diagnostic.notes.len(), 2);
        assert!(
            diagnostic.notes[0].contains("absent.jsonl: the data file cannot be read"),
            "{diagnostic}"
        );
    }

    #[test]
    fn rows_to_answer_may_lack_the_answer_or_have_several() {
        let rows = [
            r#"{"taskname": "squad", "context": "c", "question": "q", "id": 7}"#,
            r#"{"taskname": "squad", "context": "c", "question": "q", "answer": ["a", "b"]}"#,
            r#"{"taskname": "squad", "context": "c", "question": "q", "answer": "a", "answers": ["b", "c"]}"#,
            r#"{"taskname": "squad", "context": "c", "question": "q", "answers": {"text": ["d"], "answer_start": [1]}}"#,
        ];
        let rows = read_text(rows.join("\n"), Purpose::Answer).unwrap();
        let answers: Vec<&[String]> = rows.iter().map(|row| row.answers.as_slice()).collect();
        assert_eq!(answers, [&[] as &[&str], &["a", "b"], &["b", "c"], &["d"]]);
        assert_eq!(rows[0].id.as_deref(), Some("7"));
    }
}
