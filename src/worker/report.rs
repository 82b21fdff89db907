//! What a job says of its data and its results.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::devices;
use crate::data::dataset::Dataset;
use crate::eval::{EvalReport, Scores};
use crate::schema::{EvaluationPlan, PromptLearning};
use crate::sys::atomic_file;
use crate::train::FitOutcome;

/// Counts of a data set, and every kind of row that was shortened or left out.
pub(super) fn dataset(what: &str, dataset: &Dataset) {
    let lengths = dataset
        .examples
        .iter()
        .map(|example| example.input_ids.len());
    let mut lines = dataset.report.lines().into_iter();
    tracing::info!(
        "{what} data: {}; {} tokens in the longest row, {:.0} on average",
        lines.next().unwrap_or_default(),
        lengths.clone().max().unwrap_or(0),
        lengths.sum::<usize>() as f64 / dataset.examples.len().max(1) as f64
    );
    for line in lines {
        tracing::warn!("{what} data: {line}");
    }
}

/// Name of the list of rows that were left out.
pub(super) const LEFT_OUT: &str = "skipped.jsonl";

/// Lists the rows of these data sets that were left out in `skipped.jsonl` in `folder`: `data`, `file`, `line`, `reason`.
/// Where there are none there is no file.
pub(super) fn left_out(folder: &Path, sets: &[(&str, &Dataset)]) -> Result<()> {
    let path = folder.join(LEFT_OUT);
    let mut text = String::new();
    let mut count = 0usize;
    for (what, dataset) in sets {
        for skipped in &dataset.report.skipped {
            let line = json!({
                "data": what,
                "file": skipped.file.display().to_string(),
                "line": skipped.line,
                "reason": skipped.reason.to_string(),
            });
            text.push_str(&line.to_string());
            text.push('\n');
            count += 1;
        }
    }
    if count > 0 {
        atomic_file::write_unflushed(&path, text)?;
        tracing::warn!("{count} rows were left out: {}", path.display());
    } else if path.exists() {
        fs_err::remove_file(&path)?;
    }
    Ok(())
}

/// `report.html` of the results in `folder`. A job that has done its work does not fail for want of it.
pub(super) fn page(folder: &Path) {
    match crate::report::write(folder) {
        Ok(path) => tracing::info!("report: {}", path.display()),
        Err(error) => tracing::warn!("the report could not be made: {error:#}"),
    }
}

/// The end of a training: where things are and what to type next.
pub(super) fn training(section: &PromptLearning, outcome: &FitOutcome, elapsed: Duration) {
    let memory = devices::peak_memory_bytes().map_or(String::new(), |bytes| {
        format!(", {:.2} GB of memory at most", bytes as f64 / 1e9)
    });
    tracing::info!(
        "{} steps in {:.1} s{memory}{}",
        outcome.state.global_step,
        elapsed.as_secs_f64(),
        outcome
            .val_loss
            .map_or(String::new(), |loss| format!(", val_loss {loss:.4}"))
    );
    tracing::info!("prompts: {}", section.model.nemo_path.display());
    tracing::info!(
        "metrics: {}",
        section.log_dir().join("metrics.jsonl").display()
    );
}

/// The end of an evaluation: the scores, and where things are.
pub(super) fn evaluation(
    scores: &Scores,
    baseline: Option<&Scores>,
    plan: &EvaluationPlan,
    metrics: &Path,
) {
    let line = |what: &str, report: &EvalReport| {
        format!(
            "{what:<24} exact match {:5.1}   F1 {:5.1}   {} rows   (95 %: {:.1} to {:.1}, {:.1} to {:.1}; accuracy \
             {:.1}, ROUGE-L {:.1}, BLEU {})",
            report.exact_match,
            report.f1,
            report.count,
            report.exact_match_interval[0],
            report.exact_match_interval[1],
            report.f1_interval[0],
            report.f1_interval[1],
            report.accuracy,
            report.rouge_l,
            report.bleu.map_or("–".into(), |bleu| format!("{bleu:.1}"))
        )
    };
    let say = |what: &str, scores: &Scores| {
        tracing::info!("{}", line(what, &scores.all));
        for (task, report) in &scores.tasks {
            tracing::info!("{}", line(&format!("  {task}"), report));
        }
    };
    if let Some(baseline) = baseline {
        say("without virtual tokens", baseline);
    }
    let what = if plan.virtual_tokens && plan.prompt_path.is_some() {
        "with virtual tokens"
    } else {
        "without virtual tokens"
    };
    say(what, scores);
    tracing::info!(
        "predictions: {}",
        plan.predictions.with_extension("jsonl").display()
    );
    tracing::info!("metrics: {}", metrics.display());
    if plan
        .language_model_path
        .as_deref()
        .is_some_and(crate::quickstart::is_builtin)
    {
        tracing::info!(
            "next: your own rows and model (README, \"Your data\"): ptune stages=[prompt_learning,evaluation] \
             cluster_type=interactive prompt_learning=t5/squad evaluation=prompt_t5/squad \
             prompt_learning.model.language_model_path=FOLDER evaluation.language_model_path=FOLDER \
             prompt_learning.model.data.train_ds=[ROWS.jsonl] evaluation.data.test_ds=[ROWS.jsonl] \
             evaluation.ground_truth_file_path=null"
        );
    }
}
