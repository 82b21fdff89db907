//! Exact match and F1 of question answering, as the SQuAD v1.1 evaluation script defines them
//! (Rajpurkar et al., 2016; `evaluate-v1.1.py`). The original launcher scores with the same rules.
//!
//! For F1 of two answers without any word the script says 0, while they match exactly; so do we.

use std::collections::HashMap;

/// The answer in lower case without ASCII punctuation, articles and needless spaces, in the script's order: an article
/// that only appears once punctuation is gone is removed as well.
pub fn normalize_answer(answer: &str) -> String {
    let lower = answer.to_lowercase();
    let plain: String = lower
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    // `\b(a|an|the)\b` -> a space
    let mut text = String::with_capacity(plain.len());
    let mut word = String::new();
    for c in plain.chars().chain([' ']) {
        if c.is_alphanumeric() {
            word.push(c);
            continue;
        }
        text.push_str(if matches!(word.as_str(), "a" | "an" | "the") {
            " "
        } else {
            &word
        });
        word.clear();
        text.push(c);
    }
    words(&text).collect::<Vec<_>>().join(" ")
}

/// Python's `str.split()`, which also splits at the four separator controls.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
        .filter(|word| !word.is_empty())
}

/// Whether prediction and reference are equal once normalised.
pub fn exact_match(prediction: &str, reference: &str) -> bool {
    normalize_answer(prediction) == normalize_answer(reference)
}

/// Harmonic mean of precision and recall over the words of the normalised answers, repeated words counted.
pub fn f1(prediction: &str, reference: &str) -> f64 {
    let (prediction, reference) = (normalize_answer(prediction), normalize_answer(reference));
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in words(&reference) {
        *left.entry(word).or_default() += 1;
    }
    let mut common = 0usize;
    for word in words(&prediction) {
        if let Some(count) = left.get_mut(word)
            && *count > 0
        {
            *count -= 1;
            common += 1;
        }
    }
    if common == 0 {
        return 0.0;
    }
    let precision = common as f64 / words(&prediction).count() as f64;
    let recall = common as f64 / words(&reference).count() as f64;
    2.0 * precision * recall / (precision + recall)
}

/// Score of one answer against the best of its references.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AnswerScore {
    /// 1 where some reference matches exactly, else 0.
    pub exact_match: f64,
    /// Best F1 over the references, 0 to 1.
    pub f1: f64,
}

/// Scores one prediction; without references it scores 0.
pub fn score(prediction: &str, references: &[String]) -> AnswerScore {
    references
        .iter()
        .fold(AnswerScore::default(), |best, reference| AnswerScore {
            exact_match: best
                .exact_match
                .max(f64::from(u8::from(exact_match(prediction, reference)))),
            f1: best.f1.max(f1(prediction, reference)),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_normalised_as_the_official_script_does() {
        // Each pair is what `normalize_answer` of evaluate-v1.1.py returns (tests/cases/eval/make.py).
        for (answer, normalised) in [
            ("The  Denver Broncos!", "denver broncos"),
            ("a.", ""),
            ("An apple a day, the doctor", "apple day doctor"),
            ("t.h.e cat", "cat"),
            ("Theory of A", "theory of"),
            ("the-end", "theend"),
            ("U.S.A.", "usa"),
            ("Café “Zoë”", "café “zoë”"),
            ("über the “a” hill", "über “ ” hill"),
            ("1,000\u{a0}m\u{1f}x\ty", "1000 m x y"),
            ("ÀÉ", "àé"),
            ("", ""),
        ] {
            assert_eq!(normalize_answer(answer), normalised, "{answer:?}");
        }
    }

    #[test]
    fn f1_counts_repeated_words_and_exact_match_ignores_articles() {
        assert!(exact_match("the Broncos.", "broncos"));
        assert!(!exact_match("broncos", "bronco"));
        // Common words: new, york. Precision 2/3, recall 2/2.
        assert!((f1("new york city", "New York") - 0.8).abs() < 1e-12);
        // `new` occurs twice in the prediction, once in the reference: precision 1/2, recall 1.
        assert!((f1("new new", "new") - 2.0 / 3.0).abs() < 1e-12);
        assert!((f1("a new", "new") - 1.0).abs() < 1e-12);
        assert!(f1("red", "blue").abs() < 1e-12);
        // Both empty: equal, yet no common word.
        assert!(exact_match("the", "") && f1("the", "").abs() < 1e-12);
    }

    #[test]
    fn the_best_reference_counts_for_each_measure() {
        let references = ["Denver".to_owned(), "Denver Broncos team".to_owned()];
        let score = score("denver broncos", &references);
        assert!(score.exact_match.abs() < 1e-12);
        assert!((score.f1 - 0.8).abs() < 1e-12);
        assert_eq!(super::score("x", &[]), AnswerScore::default());
    }
}
