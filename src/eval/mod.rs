//! How good answers are: scores against references, with an interval that says how sure they are.

pub mod ground_truth;
pub mod squad;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::sys::rng::SeededRng;

/// Resamples of a bootstrap interval.
const RESAMPLES: usize = 1000;
/// Stream of the seed from which intervals are drawn.
const STREAM: u64 = 2 << 32;

/// Scores of a set of answers, in percent; the content of `metrics.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    /// Answers equal to a reference once both are normalised.
    pub exact_match: f64,
    /// Mean of the best word overlap with a reference.
    pub f1: f64,
    /// Answers scored.
    pub count: usize,
    /// 95 % bootstrap interval of `exact_match`: lower and upper end.
    pub exact_match_interval: [f64; 2],
    /// 95 % bootstrap interval of `f1`: lower and upper end.
    pub f1_interval: [f64; 2],
}

impl EvalReport {
    /// Scores predictions against their references by SQuAD's rules. `seed` fixes the intervals.
    ///
    /// Every prediction counts: one without references scores 0, as in the official script an unanswered one does.
    ///
    /// # Errors
    /// When the two lists differ in length or are empty.
    pub fn squad(predictions: &[String], references: &[Vec<String>], seed: u64) -> Result<Self> {
        if predictions.len() != references.len() {
            bail!(
                "{} predictions, but references for {}",
                predictions.len(),
                references.len()
            );
        }
        if predictions.is_empty() {
            bail!("no answers to score");
        }
        let scores: Vec<squad::AnswerScore> = predictions
            .iter()
            .zip(references)
            .map(|(prediction, references)| squad::score(prediction, references))
            .collect();
        let exact_match: Vec<f64> = scores
            .iter()
            .map(|score| 100.0 * score.exact_match)
            .collect();
        let f1: Vec<f64> = scores.iter().map(|score| 100.0 * score.f1).collect();
        Ok(Self {
            exact_match: mean(&exact_match),
            f1: mean(&f1),
            count: scores.len(),
            exact_match_interval: bootstrap_interval(&exact_match, seed),
            f1_interval: bootstrap_interval(&f1, seed),
        })
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The 95 % percentile interval of the mean of `values` (Efron, 1979): between which means 95 % of resamples fall.
/// Equal input gives an equal interval. Without values it is [0, 0].
pub fn bootstrap_interval(values: &[f64], seed: u64) -> [f64; 2] {
    if values.is_empty() {
        return [0.0; 2];
    }
    let mut rng = SeededRng::new(seed, STREAM);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            (0..values.len())
                .map(|_| values[rng.below(values.len())])
                .sum::<f64>()
                / values.len() as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let tail = RESAMPLES / 40;
    [means[tail], means[RESAMPLES - 1 - tail]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_report_is_the_mean_in_percent_over_all_answers() {
        let predictions = texts(&["the red house", "blue", "nothing", "one two"]);
        let references = [
            texts(&["red house"]),
            texts(&["red", "Blue!"]),
            vec![],
            texts(&["two"]),
        ];
        let report = EvalReport::squad(&predictions, &references, 1).unwrap();
        assert!((report.exact_match - 50.0).abs() < 1e-9, "{report:?}");
        let f1 = 100.0 * (1.0 + 1.0 + 0.0 + 2.0 / 3.0) / 4.0;
        assert!((report.f1 - f1).abs() < 1e-9, "{report:?}");
        assert_eq!(report.count, 4);
        assert_eq!(
            report,
            EvalReport::squad(&predictions, &references, 1).unwrap()
        );
        assert!(EvalReport::squad(&predictions, &references[..2], 1).is_err());
        assert!(EvalReport::squad(&[], &[], 1).is_err());
    }

    #[test]
    fn an_interval_narrows_with_the_number_of_values_and_covers_their_mean() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 2) * 100.0).collect();
        let [low, high] = bootstrap_interval(&values, 7);
        // A mean of 400 fair coins has a standard error of 2.5, and 1.96 of these lie on each side.
        assert!(
            (low - 45.1).abs() < 1.0 && (high - 54.9).abs() < 1.0,
            "[{low}, {high}]"
        );
        let [low, high] = bootstrap_interval(&[3.0; 5], 7);
        assert!((low - 3.0).abs() < 1e-12 && (high - 3.0).abs() < 1e-12);
    }
}
