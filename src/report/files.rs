//! The files that jobs leave, read as far as they are there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;

/// Levels of folders that are looked into for results.
const DEPTH: usize = 5;

/// What was found about a run.
#[derive(Default)]
pub(super) struct Files {
    pub(super) folder: PathBuf,
    /// Names of the files used.
    pub(super) sources: Vec<String>,
    /// Lines of `metrics.jsonl`: steps and validations.
    pub(super) metrics: Vec<Value>,
    /// `metrics.json`
    pub(super) scores: Option<Value>,
    /// `predictions.jsonl`
    pub(super) predictions: Vec<Prediction>,
    /// `prompts.json`
    pub(super) prompts: Option<Value>,
    /// Name and text of each resolved configuration; this job's first.
    pub(super) configs: Vec<(String, String)>,
}

/// A line of `predictions.jsonl`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Prediction {
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) taskname: String,
    pub(super) prediction: String,
    pub(super) answers: Vec<String>,
    pub(super) f1: f64,
}

impl Files {
    /// Reads the results in `folder`; those of the tuning too, where an evaluation's configuration names it.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut files = Self {
            folder: folder.to_owned(),
            ..Self::default()
        };
        files.scores = files.json(&folder.join("metrics.json"));
        files.configs = configs(folder)?;
        if let Some(text) = files.text(&folder.join("predictions.jsonl")) {
            files.predictions = lines(&text);
        }
        let tuning = files
            .config()
            .and_then(|config| Some(config["run"]["prompt_learning_dir"].as_str()?.to_owned()));
        let mut trained_in = folder.to_owned();
        if !folder.join("metrics.jsonl").is_file()
            && let Some(tuning) = tuning
        {
            trained_in = Path::new(&tuning).join("results");
            if trained_in.is_dir() {
                files.configs.extend(configs(&trained_in)?);
            }
        }
        if let Some(text) = files.text(&trained_in.join("metrics.jsonl")) {
            files.metrics = lines(&text);
        }
        files.prompts = files.json(&trained_in.join("prompts.json"));
        Ok(files)
    }

    fn text(&mut self, path: &Path) -> Option<String> {
        let text = fs_err::read_to_string(path).ok()?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.sources.push(name.into_owned());
        Some(text)
    }

    fn json(&mut self, path: &Path) -> Option<Value> {
        serde_json::from_str(&self.text(path)?).ok()
    }

    /// This job's configuration.
    fn config(&self) -> Option<serde_yaml::Value> {
        serde_yaml::from_str(&self.configs.first()?.1).ok()
    }

    /// The job's name, else that of its folder.
    pub(super) fn title(&self) -> String {
        let name = self
            .config()
            .and_then(|config| Some(config["run"]["name"].as_str()?.to_owned()));
        name.unwrap_or_else(|| {
            let folder = self.folder.components().rev();
            let mut names = folder.map(|part| part.as_os_str().to_string_lossy().into_owned());
            names
                .find(|name| name != "results")
                .unwrap_or_else(|| "results".to_owned())
        })
    }

    /// What kind of run it is.
    pub(super) fn subtitle(&self) -> String {
        let config = self.configs.iter().find_map(|(_, text)| {
            let config: serde_yaml::Value = serde_yaml::from_str(text).ok()?;
            config["model"]["virtual_prompt_style"].as_str()?;
            Some(config)
        });
        let kind = if self.scores.is_some() {
            "evaluation"
        } else {
            "training"
        };
        let Some(config) = config else {
            return kind.to_owned();
        };
        let model = &config["model"];
        let tasks: Vec<&str> = model["new_tasks"]
            .as_sequence()
            .into_iter()
            .flatten()
            .filter_map(serde_yaml::Value::as_str)
            .collect();
        format!(
            "{kind}: {} of {} over {}",
            model["virtual_prompt_style"].as_str().unwrap_or_default(),
            tasks.join(", "),
            model["language_model_path"].as_str().unwrap_or_default()
        )
    }
}

/// Each line that is an object of this kind; the last of a killed run may be half a line.
fn lines<T: for<'a> Deserialize<'a>>(text: &str) -> Vec<T> {
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// The resolved configurations that stages wrote beside their scripts, in the folder of the results or above it.
fn configs(results: &Path) -> Result<Vec<(String, String)>> {
    let mut found = BTreeMap::new();
    for folder in [Some(results), results.parent()].into_iter().flatten() {
        if !folder.is_dir() {
            continue;
        }
        for entry in fs_err::read_dir(folder)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.ends_with("_hydra.yaml") {
                found.insert(name, fs_err::read_to_string(&path)?);
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// Folders with results, `folder` itself among them.
pub(super) fn results_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    let mut folders = vec![folder.to_owned()];
    for _ in 0..=DEPTH {
        let mut below = vec![];
        for folder in folders {
            if folder.join("metrics.jsonl").is_file() || folder.join("metrics.json").is_file() {
                found.push(folder);
                continue;
            }
            for entry in fs_err::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() && !path.is_symlink() {
                    below.push(path);
                }
            }
        }
        folders = below;
    }
    found.sort();
    Ok(found)
}

/// The fields of the rows that predictions are about, but for the answer; empty where the file has gone.
pub(super) fn rows_of(predictions: &[&Prediction]) -> Vec<Vec<(String, String)>> {
    let mut texts: BTreeMap<&str, Option<String>> = BTreeMap::new();
    predictions
        .iter()
        .map(|prediction| {
            let text = texts
                .entry(&prediction.file)
                .or_insert_with(|| fs_err::read_to_string(&prediction.file).ok());
            let line = text
                .as_ref()
                .and_then(|text| text.lines().nth(prediction.line.checked_sub(1)?));
            let row: Option<Value> = line.and_then(|line| serde_json::from_str(line).ok());
            let Some(Value::Object(row)) = row else {
                return vec![];
            };
            row.into_iter()
                .filter(|(name, _)| {
                    !matches!(name.as_str(), "taskname" | "answer" | "answers" | "id")
                })
                .filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())))
                .collect()
        })
        .collect()
}
