//! `report.html`: what a run did, in one file that opens anywhere. Inline SVG, no scripts, light and dark.
//!
//! Everything in it comes from files that jobs leave (`metrics.jsonl`, `metrics.json`, `predictions.jsonl`,
//! `prompts.json`, the resolved configuration), so that it can be made again at any time, without a model.

mod chart;
mod files;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::Value;

use crate::diag::Diagnostic;
use crate::sys::atomic_file;
use chart::{Chart, Series, chart, number, smoothed};
use files::{Files, Prediction};

/// Name of the file in a results folder.
pub const FILE: &str = "report.html";
/// Wrong answers shown.
const WORST: usize = 25;
/// Characters of a text shown.
const SHOWN: usize = 280;
/// Tasks whose virtual tokens are drawn.
const TASKS: usize = 12;

const SCORES: [(&str, &str); 5] = [
    ("exact_match", "exact match"),
    ("f1", "F1"),
    ("accuracy", "accuracy"),
    ("rouge_l", "ROUGE-L"),
    ("bleu", "BLEU"),
];

/// What the template is given.
#[derive(Serialize)]
struct Page {
    version: &'static str,
    title: String,
    subtitle: String,
    folder: String,
    sources: String,
    tiles: Vec<Tile>,
    score_names: [&'static str; SCORES.len()],
    scores: Vec<ScoreRow>,
    loss: Option<Chart>,
    charts: Vec<Chart>,
    prompts: Vec<Task>,
    vocabulary_median: String,
    worst: Vec<Worst>,
    answered: usize,
    configs: Vec<Field>,
}

#[derive(Serialize)]
struct Tile {
    label: &'static str,
    value: String,
    note: String,
}

#[derive(Serialize)]
struct ScoreRow {
    name: String,
    class: &'static str,
    cells: Vec<Cell>,
    count: u64,
}

#[derive(Serialize)]
struct Cell {
    value: String,
    interval: String,
}

#[derive(Serialize)]
struct Task {
    name: String,
    median: String,
    chart: Option<Chart>,
    rows: Vec<VirtualToken>,
}

#[derive(Serialize)]
struct VirtualToken {
    index: usize,
    norm: String,
    nearest: Vec<Word>,
}

#[derive(Serialize)]
struct Word {
    token: String,
    cosine: String,
}

#[derive(Serialize)]
struct Worst {
    task: String,
    place: String,
    prediction: String,
    answers: String,
    f1: String,
    fields: Vec<Field>,
}

#[derive(Serialize)]
struct Field {
    name: String,
    text: String,
}

/// Makes the reports of all results below `folder` and returns their paths.
///
/// # Errors
/// A [`Diagnostic`] where there are none.
pub fn write_all(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Err(
            Diagnostic::configuration(format!("there is no folder {}", folder.display())).into(),
        );
    }
    let found = files::results_below(folder)?;
    if found.is_empty() {
        return Err(Diagnostic::configuration(format!(
            "there are no results in {}",
            folder.display()
        ))
        .note(
            "expected metrics.jsonl of a training or metrics.json of an evaluation in it or below",
        )
        .into());
    }
    found.iter().map(|folder| write(folder)).collect()
}

/// Makes the report of one results folder, the one with `metrics.jsonl` or `metrics.json`, and returns its path.
///
/// # Errors
/// Where a file cannot be read or written.
pub fn write(folder: &Path) -> Result<PathBuf> {
    let files = Files::read(folder)?;
    let html =
        render(&files).with_context(|| format!("making the report of {}", folder.display()))?;
    let path = folder.join(FILE);
    atomic_file::write(&path, html)?;
    Ok(path)
}

fn render(files: &Files) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("report", include_str!("report.html.j2"))?;
    let points = |key: &str| -> Vec<(f64, f64)> {
        let rows = files.metrics.iter();
        rows.filter_map(|row| Some((row["step"].as_f64()?, number_of(&row[key])?)))
            .collect()
    };
    let small = (480.0, 190.0);
    let lines = |key| {
        let line = Series {
            class: "train",
            points: points(key),
            joined: true,
            ..Series::default()
        };
        [line]
    };
    let charts: Vec<Chart> = [
        chart("learning rate", "step", small, &lines("lr"), &[], true),
        chart(
            "gradient norm",
            "step",
            small,
            &lines("grad_norm"),
            &[],
            true,
        ),
        chart("tokens a second", "step", small, &speed(files), &[], true),
        chart(
            "scores at validation",
            "step",
            small,
            &[
                validation_score("exact match", "train", points("val_exact_match")),
                validation_score("F1", "val", points("val_f1")),
            ],
            &[],
            true,
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    let (prompts, vocabulary_median) = virtual_tokens(files.prompts.as_ref());
    let page = Page {
        version: env!("CARGO_PKG_VERSION"),
        title: files.title(),
        subtitle: files.subtitle(),
        folder: files.folder.display().to_string(),
        sources: files.sources.join(", "),
        tiles: tiles(files),
        score_names: SCORES.map(|(_, name)| name),
        scores: scores(files.scores.as_ref()),
        loss: loss(&points("loss"), points("val_loss")),
        charts,
        prompts,
        vocabulary_median,
        worst: worst(&files.predictions),
        answered: files.predictions.len(),
        configs: files
            .configs
            .iter()
            .map(|(name, text)| Field {
                name: name.clone(),
                text: text.clone(),
            })
            .collect(),
    };
    let html = environment.get_template("report")?.render(Serde(page))?;
    Ok(html)
}

fn validation_score(label: &'static str, class: &'static str, points: Vec<(f64, f64)>) -> Series {
    Series {
        label,
        class,
        points,
        joined: true,
        marked: true,
    }
}

/// JSON has no NaN and no infinity: what was one of them stands there as null.
fn number_of(value: &Value) -> Option<f64> {
    if value.is_null() {
        return None;
    }
    value.as_f64()
}

fn loss(train: &[(f64, f64)], validation: Vec<(f64, f64)>) -> Option<Chart> {
    let is_long = train.len() > 50;
    let series = [
        Series {
            label: "training loss",
            class: if is_long { "raw" } else { "train" },
            points: train.to_vec(),
            joined: true,
            ..Series::default()
        },
        Series {
            label: "its running mean",
            class: "train",
            points: if is_long { smoothed(train) } else { vec![] },
            joined: true,
            ..Series::default()
        },
        Series {
            label: "validation loss",
            class: "val",
            points: validation,
            joined: true,
            marked: true,
        },
    ];
    chart("loss", "step", (960.0, 320.0), &series, &[], false)
}

fn speed(files: &Files) -> [Series; 1] {
    let points = files.metrics.iter().filter_map(|row| {
        let seconds = row["step_seconds"]
            .as_f64()
            .filter(|seconds| *seconds > 0.0)?;
        Some((row["step"].as_f64()?, row["tokens"].as_f64()? / seconds))
    });
    [Series {
        class: "train",
        points: points.collect(),
        joined: true,
        ..Series::default()
    }]
}

fn tiles(files: &Files) -> Vec<Tile> {
    let mut tiles = vec![];
    let mut tile = |label, value: String, note: String| tiles.push(Tile { label, value, note });
    if let Some(scores) = &files.scores {
        for (key, name) in SCORES.iter().take(2) {
            if let Some(score) = scores[*key].as_f64() {
                let bare = scores["without_virtual_tokens"][*key].as_f64();
                let note = bare.map_or(String::new(), |bare| {
                    format!("{bare:.1} without virtual tokens")
                });
                tile(name, format!("{score:.1}"), note);
            }
        }
    }
    let steps = files
        .metrics
        .iter()
        .filter_map(|row| row["step"].as_u64())
        .max();
    if let Some(steps) = steps {
        let rows = files
            .metrics
            .iter()
            .filter_map(|row| row["consumed_samples"].as_u64())
            .max();
        let note = rows.map_or(String::new(), |rows| format!("{rows} rows seen"));
        tile("steps", steps.to_string(), note);
    }
    let best = files
        .metrics
        .iter()
        .filter_map(|row| Some((row["val_loss"].as_f64()?, row["step"].as_u64()?)))
        .min_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((loss, step)) = best {
        tile(
            "best validation loss",
            number(loss),
            format!("at step {step}"),
        );
    }
    let mut rates: Vec<f64> = speed(files)[0].points.iter().map(|point| point.1).collect();
    rates.sort_by(f64::total_cmp);
    if let Some(median) = rates.get(rates.len() / 2) {
        tile(
            "tokens a second",
            format!("{median:.0}"),
            "median of the logged steps".into(),
        );
    }
    tiles
}

fn scores(scores: Option<&Value>) -> Vec<ScoreRow> {
    let Some(scores) = scores else {
        return vec![];
    };
    let row = |name: &str, class, scores: &Value| ScoreRow {
        name: name.to_owned(),
        class,
        count: scores["count"].as_u64().unwrap_or(0),
        cells: SCORES
            .iter()
            .map(|(key, _)| {
                let interval = &scores[format!("{key}_interval")];
                let ends = interval[0].as_f64().zip(interval[1].as_f64());
                Cell {
                    value: scores[*key]
                        .as_f64()
                        .map_or("–".into(), |value| format!("{value:.1}")),
                    interval: ends
                        .map_or(String::new(), |(low, high)| format!("{low:.1} – {high:.1}")),
                }
            })
            .collect(),
    };
    let mut rows = vec![];
    for (name, class, scores) in [
        ("with virtual tokens", "main", scores),
        (
            "without virtual tokens",
            "",
            &scores["without_virtual_tokens"],
        ),
    ] {
        if scores.is_null() {
            continue;
        }
        rows.push(row(name, class, scores));
        for (task, scores) in scores["tasks"].as_object().into_iter().flatten() {
            rows.push(row(task, "task", scores));
        }
    }
    rows
}

fn virtual_tokens(prompts: Option<&Value>) -> (Vec<Task>, String) {
    let Some(prompts) = prompts else {
        return (vec![], String::new());
    };
    let vocabulary = &prompts["vocabulary"];
    let of = |key: &str| vocabulary[key].as_f64().unwrap_or(0.0);
    let band = (of("norm_p5"), of("norm_median"), of("norm_p95"));
    let tasks = prompts["tasks"]
        .as_object()
        .into_iter()
        .flatten()
        .take(TASKS);
    let tasks = tasks
        .map(|(name, rows)| {
            let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
            let norms: Vec<f64> = rows.iter().filter_map(|row| row["norm"].as_f64()).collect();
            let points = norms
                .iter()
                .enumerate()
                .map(|(index, norm)| (index as f64, *norm));
            let series = Series {
                class: "train",
                points: points.collect(),
                marked: true,
                ..Series::default()
            };
            let mut sorted = norms.clone();
            sorted.sort_by(f64::total_cmp);
            Task {
                name: name.clone(),
                median: sorted
                    .get(sorted.len() / 2)
                    .map_or("–".into(), |norm| number(*norm)),
                chart: chart("norm", "token", (960.0, 220.0), &[series], &[band], true),
                rows: rows
                    .iter()
                    .enumerate()
                    .map(|(index, row)| VirtualToken {
                        index,
                        norm: row["norm"].as_f64().map_or("–".into(), number),
                        nearest: row["nearest"]
                            .as_array()
                            .into_iter()
                            .flatten()
                            .map(|word| Word {
                                token: word["token"].as_str().unwrap_or_default().to_owned(),
                                cosine: format!("{:.2}", word["cosine"].as_f64().unwrap_or(0.0)),
                            })
                            .collect(),
                    })
                    .collect(),
            }
        })
        .collect();
    (tasks, number(band.1))
}

fn worst(predictions: &[Prediction]) -> Vec<Worst> {
    let mut order: Vec<&Prediction> = predictions.iter().filter(|row| row.f1 < 1.0).collect();
    order.sort_by(|a, b| a.f1.total_cmp(&b.f1));
    order.truncate(WORST);
    let rows = files::rows_of(&order);
    order
        .iter()
        .zip(rows)
        .map(|(row, fields)| {
            let file = Path::new(&row.file).file_name().unwrap_or_default();
            let answers: Vec<String> = row.answers.iter().map(|text| shortened(text)).collect();
            Worst {
                task: row.taskname.clone(),
                place: format!("{}:{}", file.to_string_lossy(), row.line),
                prediction: shortened(&row.prediction),
                answers: answers.join(" · "),
                f1: format!("{:.2}", row.f1),
                fields: fields
                    .into_iter()
                    .map(|(name, text)| Field {
                        name,
                        text: shortened(&text),
                    })
                    .collect(),
            }
        })
        .collect()
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fmt::Write;

    fn write_file(folder: &Path, name: &str, text: impl AsRef<[u8]>) {
        let path = folder.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    fn tuning(folder: &Path, steps: u64) {
        let mut lines = String::new();
        for step in 1..=steps {
            let loss = if step == 7 {
                Value::Null
            } else {
                json!(4.0 / step as f64)
            };
            let row = json!({"step": step, "loss": loss, "lr": 1e-3, "grad_norm": 0.5, "tokens": 800,
                "step_seconds": 0.25, "epoch": 0, "consumed_samples": 8 * step});
            writeln!(lines, "{row}").unwrap();
            if step % 10 == 0 {
                let row = json!({"step": step, "val_loss": 5.0 / step as f64, "validation_seconds": 1.0, "best": true});
                writeln!(lines, "{row}").unwrap();
            }
        }
        // A line that a run was killed in.
        lines.push_str("{\"step\": 99999, \"lo");
        write_file(folder, "results/metrics.jsonl", lines);
        write_file(
            folder,
            "squad_hydra.yaml",
            "run: {name: squad_t5, task_name: squad}\nmodel: {seed: 1}\n",
        );
        let prompts = json!({"vocabulary": {"size": 10, "norm_p5": 1.0, "norm_median": 2.0, "norm_p95": 3.0},
            "tasks": {"squad": [{"norm": 2.5, "nearest": [{"token": "</script><b>", "cosine": 0.5}]}, {"norm": 0.5, "nearest": []}]}});
        write_file(folder, "results/prompts.json", prompts.to_string());
    }

    #[test]
    fn the_report_of_an_evaluation_tells_the_whole_story_and_escapes_what_users_wrote() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        tuning(&root.join("tuning"), 60);
        let rows = "{\"taskname\":\"squad\",\"question\":\"<img src=x onerror=alert(1)>\",\"context\":\"c\",\"answer\":\"a\"}\n";
        write_file(root, "rows.jsonl", rows);
        let score = |f1: f64| {
            json!({"exact_match": 40.0, "f1": f1, "accuracy": 39.0, "rouge_l": 60.0, "bleu": 20.0,
            "count": 2, "exact_match_interval": [30.0, 50.0], "f1_interval": [f1 - 5.0, f1 + 5.0]})
        };
        let mut scores = score(61.5);
        scores["without_virtual_tokens"] = score(12.25);
        scores["tasks"] = json!({"squad": score(61.5), "<i>": score(7.0)});
        write_file(root, "eval/results/metrics.json", scores.to_string());
        let file = root.join("rows.jsonl").display().to_string();
        let predictions = format!(
            "{}\n{}\n",
            json!({"file": file, "line": 1, "taskname": "squad", "prediction": "<script>alert(2)</script>",
                "answers": ["a & b"], "exact_match": 0.0, "f1": 0.1}),
            json!({"file": file, "line": 2, "taskname": "squad", "prediction": "fine", "answers": ["fine"],
                "exact_match": 1.0, "f1": 1.0})
        );
        write_file(root, "eval/results/predictions.jsonl", predictions);
        let config = format!(
            "run: {{name: eval_squad, prompt_learning_dir: {}}}\n",
            root.join("tuning").display()
        );
        write_file(root, "eval/eval_hydra.yaml", config);

        let written = write_all(&root.join("eval")).unwrap();
        assert_eq!(written, [root.join("eval/results/report.html")]);
        let html = fs_err::read_to_string(&written[0]).unwrap();
        for text in [
            "eval_squad",
            "61.5",
            "56.5 – 66.5",
            "12.2",
            "without virtual tokens",
            "validation loss",
            "gradient norm",
            "&lt;script&gt;alert(2)",
            "a &amp; b",
            "&lt;img src=x",
            "&lt;i&gt;",
            "prefers-color-scheme: dark",
            "norm of one virtual token",
            "prompt_learning_dir",
        ] {
            assert!(html.contains(text), "`{text}` is missing");
        }
        for text in ["<script", "<img", "<i>", "http:", "https:"] {
            assert!(!html.contains(text), "`{text}` must not be there");
        }
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
        // Equal files give an equal report.
        write_all(root).unwrap();
        assert_eq!(fs_err::read_to_string(&written[0]).unwrap(), html);
    }

    #[test]
    fn a_long_run_makes_no_long_report() {
        let root = tempfile::tempdir().unwrap();
        tuning(root.path(), 40_000);
        let path = write_all(root.path()).unwrap().remove(0);
        let size = fs_err::metadata(path).unwrap().len();
        assert!(size < 200_000, "{size} bytes");
    }

    #[test]
    fn a_folder_without_results_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let error = write_all(root.path()).unwrap_err().to_string();
        assert!(error.contains("there are no results"), "{error}");
    }
}
