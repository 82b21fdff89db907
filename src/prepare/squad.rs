//! Files in the form of SQuAD v1.1 (SQuAD, XQuAD and many others) become rows for prompt learning.
//!
//! The split rules are those of NeMo's prompt_learning_squad_preprocessing.py (v1.11 and later): training and validation
//! rows hold the first right answer, the test file none and the ground truth file all; order is kept, nothing is drawn
//! at random. Unlike there, a file that exists is written again when its rows have changed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::python_json::write_line;
use crate::diag::{Diagnostic, Location};
use crate::schema::DataPreparation;
use crate::sys::{atomic_file, env_vars};

/// A file that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Where it is.
    pub path: PathBuf,
    /// How many rows it has.
    pub rows: usize,
    /// Whether it had these rows already.
    pub unchanged: bool,
}

#[derive(Deserialize)]
struct File {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    #[serde(default)]
    title: String,
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    question: String,
    #[serde(default)]
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    text: String,
}

#[derive(Serialize)]
struct Row<'a> {
    taskname: &'a str,
    context: &'a str,
    question: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<RowAnswer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum RowAnswer<'a> {
    First(&'a str),
    All(Vec<&'a str>),
}

#[derive(Clone, Copy)]
enum Answers {
    First,
    All,
    None,
}

/// Makes the four jsonl files of a section.
///
/// # Errors
/// An input file that is missing (with where to put it) or not in SQuAD's form.
pub fn run(section: &DataPreparation) -> Result<Vec<Prepared>> {
    require_inputs(section)?;
    let mut train = read(&section.train_file)?;
    let dev = match (&section.dev_file, section.train_articles) {
        (Some(dev), _) => read(dev)?,
        (None, Some(count)) if count < train.len() => train.split_off(count),
        (None, count) => {
            return Err(Diagnostic::configuration(format!(
                "`data_preparation.train_articles`: {} of {} articles leave none to test on",
                count.unwrap_or(train.len()),
                train.len()
            ))
            .at(Location::file(section.train_file.display()))
            .into());
        }
    };
    let name = |split: &str| {
        section
            .output_dir
            .join(format!("{}_{split}.jsonl", section.save_name_base))
    };
    [
        (name("train"), &train, Answers::First),
        (name("val"), &dev, Answers::First),
        (name("test_ground_truth"), &dev, Answers::All),
        (name("test"), &dev, Answers::None),
    ]
    .into_iter()
    .map(|(path, articles, answers)| write(section, path, articles, answers))
    .collect()
}

/// Makes the files that the shipped SQuAD configurations read, from the published files in the same folder.
///
/// # Errors
/// As [`run`].
pub fn squad_in_place(folder: &Path) -> Result<Vec<Prepared>> {
    run(&DataPreparation {
        output_dir: folder.to_owned(),
        train_file: folder.join("train-v1.1.json"),
        dev_file: Some(folder.join("dev-v1.1.json")),
        train_url: Some(format!("{PUBLISHED}train-v1.1.json")),
        dev_url: Some(format!("{PUBLISHED}dev-v1.1.json")),
        train_sha256: Some(TRAIN_SHA256.to_owned()),
        dev_sha256: Some(DEV_SHA256.to_owned()),
        ..DataPreparation::default()
    })
}

/// Where SQuAD v1.1 is published, and what its files are known by.
const PUBLISHED: &str = "https://rajpurkar.github.io/SQuAD-explorer/dataset/";
const TRAIN_SHA256: &str = "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955";
const DEV_SHA256: &str = "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9";

/// Whether this build may fetch files.
pub fn can_download() -> bool {
    cfg!(feature = "hub") && !env_vars::flag(env_vars::PTUNE_OFFLINE).unwrap_or(true)
}

#[cfg(feature = "hub")]
fn fetch(url: &str, target: &Path, sha256: Option<&str>) -> Result<()> {
    super::download::download(url, target, sha256)
}

#[cfg(not(feature = "hub"))]
fn fetch(_: &str, _: &Path, _: Option<&str>) -> Result<()> {
    anyhow::bail!("this ptune was built without the `hub` feature")
}

/// Fetches what is not there and has a URL.
fn require_inputs(section: &DataPreparation) -> Result<(), Diagnostic> {
    let train = (
        "train_file",
        &section.train_file,
        section.train_url.as_deref(),
        section.train_sha256.as_deref(),
    );
    let dev = section.dev_file.as_ref().map(|path| {
        let (url, sha256) = (section.dev_url.as_deref(), section.dev_sha256.as_deref());
        ("dev_file", path, url, sha256)
    });
    let mut missing = vec![];
    let mut failure = match can_download() {
        true => None,
        false if cfg!(feature = "hub") => Some("PTUNE_OFFLINE is set".to_owned()),
        false => Some("this ptune was built without the `hub` feature".to_owned()),
    };
    for (key, path, url, sha256) in [train].into_iter().chain(dev) {
        if path.is_file() {
            continue;
        }
        match url {
            // Where one file cannot be had the other cannot either.
            Some(url) if failure.is_none() => match fetch(url, path, sha256) {
                Ok(()) => continue,
                Err(error) => failure = Some(format!("{error:#}")),
            },
            _ => {}
        }
        missing.push((key, path, url));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing
        .iter()
        .map(|(_, path, _)| format!("`{}`", path.display()))
        .collect();
    let mut diagnostic = Diagnostic::configuration(format!(
        "the question answering data is not there: {}",
        names.join(", ")
    ));
    if let (Some(failure), true) = (failure, missing.iter().any(|(_, _, url)| url.is_some())) {
        diagnostic = diagnostic.note(format!("it was not fetched: {failure}"));
    }
    for (key, path, url) in missing {
        diagnostic = match url {
            Some(url) => diagnostic.hint(format!(
                "where there is a way out: curl -fL --create-dirs -o {} {url}",
                path.display()
            )),
            None => diagnostic.hint(format!("or name yours: data_preparation.{key}=FILE")),
        };
    }
    Err(diagnostic)
}

fn read(path: &Path) -> Result<Vec<Article>> {
    let text = fs_err::read_to_string(path).context("reading question answering data")?;
    let file: File = serde_json::from_str(&text).map_err(|error| {
        Diagnostic::job(format!("this file is not in SQuAD's form: {error}"))
            .at(Location::column(
                path.display(),
                error.line(),
                error.column(),
            ))
            .note("expected {\"data\": [{\"title\", \"paragraphs\": [{\"context\", \"qas\": [{\"question\", \"answers\": [{\"text\"}]}]}]}]}")
    })?;
    Ok(file.data)
}

fn write(
    section: &DataPreparation,
    path: PathBuf,
    articles: &[Article],
    answers: Answers,
) -> Result<Prepared> {
    let mut bytes = vec![];
    let mut rows = 0;
    for article in articles {
        for paragraph in &article.paragraphs {
            for question in &paragraph.qas {
                let answer = match (answers, question.answers.first()) {
                    (Answers::First, None) => continue,
                    (Answers::First, Some(first)) => Some(RowAnswer::First(&first.text)),
                    (Answers::All, _) => Some(RowAnswer::All(
                        question.answers.iter().map(|a| a.text.as_str()).collect(),
                    )),
                    (Answers::None, _) => None,
                };
                rows += 1;
                write_line(
                    &mut bytes,
                    &Row {
                        taskname: &section.task_name,
                        context: &paragraph.context,
                        question: &question.question,
                        answer,
                        topic: section.include_topic_name.then_some(article.title.as_str()),
                    },
                )?;
            }
        }
    }
    let unchanged = fs_err::read(&path).is_ok_and(|old| old == bytes);
    if !unchanged {
        atomic_file::write(&path, &bytes)?;
    }
    Ok(Prepared {
        path,
        rows,
        unchanged,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"version": "1.1", "data": [
        {"title": "One", "paragraphs": [{"context": "c1", "qas": [
            {"id": "1", "question": "q1", "answers": [{"text": "a", "answer_start": 0}, {"text": "b", "answer_start": 1}]},
            {"id": "2", "question": "q2", "answers": []}]}]},
        {"title": "Two", "paragraphs": [{"context": "c2", "qas": [
            {"id": "3", "question": "q3", "answers": [{"text": "é", "answer_start": 0}]}]}]}]}"#;

    #[test]
    fn splits_follow_the_original_rules() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("train-v1.1.json"), FILE).unwrap();
        fs_err::write(folder.path().join("dev-v1.1.json"), FILE).unwrap();
        let made = squad_in_place(folder.path()).unwrap();
        let rows: Vec<usize> = made.iter().map(|file| file.rows).collect();
        // Questions without answer are left out where an answer is needed, and kept in the test files.
        assert_eq!(rows, [2, 2, 3, 3]);
        let read = |name: &str| fs_err::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            read("squad_train.jsonl").lines().next(),
            Some(r#"{"taskname": "squad", "context": "c1", "question": "q1", "answer": "a"}"#)
        );
        assert_eq!(
            read("squad_test_ground_truth.jsonl"),
            "{\"taskname\": \"squad\", \"context\": \"c1\", \"question\": \"q1\", \"answer\": [\"a\", \"b\"]}\n\
             {\"taskname\": \"squad\", \"context\": \"c1\", \"question\": \"q2\", \"answer\": []}\n\
             {\"taskname\": \"squad\", \"context\": \"c2\", \"question\": \"q3\", \"answer\": [\"\\u00e9\"]}\n"
        );
        assert_eq!(
            read("squad_test.jsonl").lines().last(),
            Some(r#"{"taskname": "squad", "context": "c2", "question": "q3"}"#)
        );
        assert!(
            squad_in_place(folder.path())
                .unwrap()
                .iter()
                .all(|file| file.unchanged)
        );
    }

    #[test]
    fn one_file_is_split_by_article() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        fs_err::write(&path, FILE).unwrap();
        let mut section = DataPreparation {
            output_dir: folder.path().join("out"),
            train_file: path,
            train_articles: Some(1),
            include_topic_name: true,
            ..DataPreparation::default()
        };
        run(&section).unwrap();
        let val = fs_err::read_to_string(folder.path().join("out/squad_val.jsonl")).unwrap();
        assert_eq!(
            val,
            "{\"taskname\": \"squad\", \"context\": \"c2\", \"question\": \"q3\", \"answer\": \"\\u00e9\", \
             \"topic\": \"Two\"}\n"
        );
        section.train_articles = Some(2);
        assert!(
            run(&section)
                .unwrap_err()
                .to_string()
                .contains("leave none to test on")
        );
    }

    #[test]
    fn missing_files_say_where_to_put_them_and_a_bad_one_where_it_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let mut section = DataPreparation {
            train_file: folder.path().join("train-v1.1.json"),
            dev_file: Some(folder.path().join("dev-v1.1.json")),
            train_url: Some("http://127.0.0.1:1/train-v1.1.json".into()),
            ..DataPreparation::default()
        };
        let error = run(&section).unwrap_err().to_string();
        assert!(error.contains("it was not fetched"), "{error}");
        section.train_url = None;
        let error = run(&section).unwrap_err().to_string();
        assert!(
            error.contains("train-v1.1.json") && error.contains("dev-v1.1.json"),
            "{error}"
        );
        fs_err::write(folder.path().join("train-v1.1.json"), "{\n\"data\": 3}").unwrap();
        fs_err::write(folder.path().join("dev-v1.1.json"), FILE).unwrap();
        let error = squad_in_place(folder.path()).unwrap_err().to_string();
        assert!(error.contains("train-v1.1.json:2:"), "{error}");
    }
}
