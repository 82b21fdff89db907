//! How good answers are: scores against references, with an interval that says how sure they are.

pub mod bleu;
pub mod ground_truth;
pub mod rouge;
pub mod squad;

use anyhow::{Result, bail};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::sys::rng::SeededRng;

/// Resamples of a bootstrap interval.
const RESAMPLES: usize = 1000;
/// Stream of the seed from which intervals are drawn.
const STREAM: u64 = 2 << 32;

/// Scores of a set of answers, in percent; the content of `metrics.json`. Intervals are the lower and upper end of the
/// 95 % bootstrap interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvalReport {
    /// Answers equal to a reference once both are normalised, by SQuAD's rules.
    pub exact_match: f64,
    /// Mean of the best word overlap with a reference, by SQuAD's rules: words stand between blanks, so that for Chinese
    /// or Japanese it is nearly exact match.
    pub f1: f64,
    /// Answers equal to a reference as they are, but for blanks around them: NeMo's accuracy, for class labels.
    pub accuracy: f64,
    /// Mean of the best ROUGE-L F-measure over the references.
    pub rouge_l: f64,
    /// BLEU of all answers together; null where none has four tokens.
    pub bleu: Option<f64>,
    /// Answers scored.
    pub count: usize,
    /// Of `exact_match`.
    pub exact_match_interval: [f64; 2],
    /// Of `f1`.
    pub f1_interval: [f64; 2],
    /// Of `accuracy`.
    pub accuracy_interval: [f64; 2],
    /// Of `rouge_l`.
    pub rouge_l_interval: [f64; 2],
    /// Of `bleu`.
    pub bleu_interval: Option<[f64; 2]>,
}

/// All scores of one answer but BLEU, 0 to 1, each against the best of its references; without references 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AnswerScores {
    /// SQuAD's exact match and F1.
    pub squad: squad::AnswerScore,
    /// Whether it equals a reference.
    pub accuracy: f64,
    /// ROUGE-L.
    pub rouge_l: f64,
}

impl AnswerScores {
    /// Scores one answer.
    pub fn new(prediction: &str, references: &[String]) -> Self {
        let is_equal = |reference: &String| prediction.trim() == reference.trim();
        let overlaps = references
            .iter()
            .map(|reference| rouge::rouge_l(prediction, reference));
        Self {
            squad: squad::score(prediction, references),
            accuracy: f64::from(u8::from(references.iter().any(is_equal))),
            rouge_l: overlaps.fold(0.0, f64::max),
        }
    }
}

impl EvalReport {
    /// Scores predictions against their references. `seed` fixes the intervals.
    ///
    /// Every prediction counts: one without references scores 0, as in SQuAD's script an unanswered one does.
    ///
    /// # Errors
    /// When the two lists differ in length or are empty.
    pub fn score(predictions: &[String], references: &[Vec<String>], seed: u64) -> Result<Self> {
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
        let pairs = || predictions.iter().zip(references);
        let scores: Vec<AnswerScores> = pairs()
            .map(|(prediction, references)| AnswerScores::new(prediction, references))
            .collect();
        let counts: Vec<bleu::Counts> = pairs()
            .map(|(prediction, references)| bleu::Counts::new(prediction, references))
            .collect();
        let of = |measure: fn(&AnswerScores) -> f64| {
            let values: Vec<f64> = scores.iter().map(|one| 100.0 * measure(one)).collect();
            (mean(&values), bootstrap_interval(&values, seed))
        };
        let (exact_match, exact_match_interval) = of(|one| one.squad.exact_match);
        let (f1, f1_interval) = of(|one| one.squad.f1);
        let (accuracy, accuracy_interval) = of(|one| one.accuracy);
        let (rouge_l, rouge_l_interval) = of(|one| one.rouge_l);
        let bleu = bleu::bleu(&counts);
        Ok(Self {
            exact_match,
            f1,
            accuracy,
            rouge_l,
            bleu,
            count: scores.len(),
            exact_match_interval,
            f1_interval,
            accuracy_interval,
            rouge_l_interval,
            bleu_interval: bleu.map(|_| {
                bootstrap(counts.len(), seed, |chosen| {
                    bleu::bleu(chosen.iter().map(|index| &counts[*index])).unwrap_or(0.0)
                })
            }),
        })
    }
}

/// Scores of all answers, and of each task where there are several.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Of all.
    #[serde(flatten)]
    pub all: EvalReport,
    /// Of each task, in the order of the templates; empty where there is one.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub tasks: IndexMap<String, EvalReport>,
}

impl Scores {
    /// Scores predictions, `tasks` naming each one's task.
    ///
    /// # Errors
    /// As [`EvalReport::score`].
    pub fn new(
        predictions: &[String],
        references: &[Vec<String>],
        tasks: &[&str],
        seed: u64,
    ) -> Result<Self> {
        let all = EvalReport::score(predictions, references, seed)?;
        let mut rows: IndexMap<&str, (Vec<String>, Vec<Vec<String>>)> = IndexMap::new();
        for ((prediction, references), task) in predictions.iter().zip(references).zip(tasks) {
            let of_task = rows.entry(task).or_default();
            of_task.0.push(prediction.clone());
            of_task.1.push(references.clone());
        }
        if rows.len() < 2 {
            rows.clear();
        }
        let tasks = rows
            .into_iter()
            .map(|(task, (predictions, references))| {
                let report = EvalReport::score(&predictions, &references, seed)?;
                Ok((task.to_owned(), report))
            })
            .collect::<Result<_>>()?;
        Ok(Self { all, tasks })
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The 95 % percentile interval of the mean of `values` (Efron, 1979): between which means 95 % of resamples fall.
/// Equal input gives an equal interval. Without values it is [0, 0].
pub fn bootstrap_interval(values: &[f64], seed: u64) -> [f64; 2] {
    bootstrap(values.len(), seed, |chosen| {
        chosen.iter().map(|index| values[*index]).sum::<f64>() / values.len() as f64
    })
}

/// The same of any score: `score` is given the places of a resample.
fn bootstrap(count: usize, seed: u64, score: impl Fn(&[usize]) -> f64) -> [f64; 2] {
    if count == 0 {
        return [0.0; 2];
    }
    let mut rng = SeededRng::new(seed, STREAM);
    let mut chosen = vec![0; count];
    let mut scores: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            chosen.fill_with(|| rng.below(count));
            score(&chosen)
        })
        .collect();
    scores.sort_by(f64::total_cmp);
    let tail = RESAMPLES / 40;
    [scores[tail], scores[RESAMPLES - 1 - tail]]
}

/// Whether most of these texts are in a script that puts no blanks between words (Chinese, Japanese, Thai, Khmer, Lao,
/// Burmese), where scores that count words say little.
pub fn lacks_blanks<'a>(texts: impl IntoIterator<Item = &'a str>) -> bool {
    let (mut without, mut letters) = (0usize, 0usize);
    for c in texts.into_iter().flat_map(str::chars) {
        letters += usize::from(c.is_alphabetic());
        without += usize::from(matches!(c,
            '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
            | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{2fa1f}'));
    }
    2 * without > letters
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
        let report = EvalReport::score(&predictions, &references, 1).unwrap();
        assert!((report.exact_match - 50.0).abs() < 1e-9, "{report:?}");
        let f1 = 100.0 * (1.0 + 1.0 + 0.0 + 2.0 / 3.0) / 4.0;
        assert!((report.f1 - f1).abs() < 1e-9, "{report:?}");
        assert_eq!(report.count, 4);
        // Only the first reference `Blue!` of the second row is no equal text, and no other is.
        assert!(report.accuracy.abs() < 1e-9, "{report:?}");
        let labels = [texts(&["yes"]), texts(&["no", "yes"])];
        let accuracy = EvalReport::score(&texts(&[" yes", "Yes"]), &labels, 1).unwrap();
        assert!((accuracy.accuracy - 50.0).abs() < 1e-9, "{accuracy:?}");
        assert_eq!(
            report,
            EvalReport::score(&predictions, &references, 1).unwrap()
        );
        assert!(EvalReport::score(&predictions, &references[..2], 1).is_err());
        assert!(EvalReport::score(&[], &[], 1).is_err());
    }

    #[test]
    fn scripts_without_blanks_are_known() {
        assert!(lacks_blanks(["丹佛野马队", "2016 年"]));
        assert!(!lacks_blanks(["Denver Broncos", "野马"]));
        assert!(!lacks_blanks([]));
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
