//! BLEU of a set of answers (Papineni et al., 2002) as sacrebleu computes it by default: 13a tokens, case kept, n-grams
//! up to four, counts clipped by the references, exponential smoothing.
//!
//! `BLEU = 100 · min(1, exp(1 - r/c)) · (p1 p2 p3 p4)^(1/4)`, where `c` is the length of all answers, `r` that of the
//! references nearest in length, and `pn` the share of all answers' n-grams that a reference has. A `pn` of 0 becomes
//! `1 / (2^k · n-grams)`, `k` counting such orders. sacrebleu gives 0 to a set whose answers are all shorter than four
//! tokens; since that says nothing about them, they have no BLEU here.

use std::collections::BTreeMap;

/// Longest n-gram.
const ORDERS: usize = 4;

/// What one answer adds to the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    matches: [usize; ORDERS],
    totals: [usize; ORDERS],
    length: usize,
    reference_length: usize,
}

impl Counts {
    /// Counts of an answer against its references.
    pub fn new(prediction: &str, references: &[String]) -> Self {
        let tokens = tokens_13a(prediction);
        let references: Vec<Vec<String>> = references.iter().map(|text| tokens_13a(text)).collect();
        let nearest = references
            .iter()
            .map(Vec::len)
            .min_by_key(|length| (length.abs_diff(tokens.len()), *length));
        let mut counts = Self {
            length: tokens.len(),
            reference_length: nearest.unwrap_or(0),
            ..Self::default()
        };
        for order in 1..=ORDERS {
            let mut most: BTreeMap<&[String], usize> = BTreeMap::new();
            for reference in &references {
                for (ngram, count) in ngrams(reference, order) {
                    let entry = most.entry(ngram).or_default();
                    *entry = count.max(*entry);
                }
            }
            counts.totals[order - 1] = (tokens.len() + 1).saturating_sub(order);
            let mut matches = 0;
            for token in tokens.windows(order) {
                if let Some(left) = most.get_mut(token)
                    && *left > 0
                {
                    *left -= 1;
                    matches += 1;
                }
            }
            counts.matches[order - 1] = matches;
        }
        counts
    }

    fn add(&mut self, other: &Self) {
        for order in 0..ORDERS {
            self.matches[order] += other.matches[order];
            self.totals[order] += other.totals[order];
        }
        self.length += other.length;
        self.reference_length += other.reference_length;
    }
}

/// BLEU, 0 to 100, of answers with these counts; nothing where no answer has four tokens.
pub fn bleu<'a>(counts: impl IntoIterator<Item = &'a Counts>) -> Option<f64> {
    let mut sum = Counts::default();
    for one in counts {
        sum.add(one);
    }
    if sum.totals.contains(&0) {
        return None;
    }
    if sum.matches.iter().all(|count| *count == 0) {
        return Some(0.0);
    }
    let (mut smoothing, mut log_precision) = (1.0, 0.0);
    for (&matches, &total) in sum.matches.iter().zip(&sum.totals) {
        let precision = if matches == 0 {
            smoothing *= 2.0;
            1.0 / (smoothing * total as f64)
        } else {
            matches as f64 / total as f64
        };
        log_precision += precision.ln() / ORDERS as f64;
    }
    let brevity = (1.0 - sum.reference_length as f64 / sum.length as f64).min(0.0);
    Some(100.0 * (brevity + log_precision).exp())
}

fn ngrams(tokens: &[String], order: usize) -> BTreeMap<&[String], usize> {
    let mut counts = BTreeMap::new();
    for ngram in tokens.windows(order) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts
}

/// Tokens of the script mteval-v13a: ASCII punctuation stands alone, but for `.`, `,` and `-` among digits and `-` and
/// `'` in words.
fn tokens_13a(text: &str) -> Vec<String> {
    let mut text = text
        .trim_end()
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ");
    if text.contains('&') {
        text = text
            .replace("&quot;", "\"")
            .replace("&amp;", "&")
            .replace("&lt;", "<")
            .replace("&gt;", ">");
    }
    let mut spaced: Vec<char> = vec![' '];
    for c in text.chars() {
        if c.is_ascii()
            && !c.is_ascii_alphanumeric()
            && !matches!(c, '.' | ',' | '-' | '\'')
            && !c.is_ascii_control()
        {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    spaced.push(' ');
    let is_point = |c: char| matches!(c, '.' | ',');
    let spaced = replace_pairs(&spaced, |a, b| {
        (!a.is_ascii_digit() && is_point(b)).then_some([a, ' ', b, ' '])
    });
    let spaced = replace_pairs(&spaced, |a, b| {
        (is_point(a) && !b.is_ascii_digit()).then_some([' ', a, ' ', b])
    });
    let spaced = replace_pairs(&spaced, |a, b| {
        (a.is_ascii_digit() && b == '-').then_some([a, ' ', b, ' '])
    });
    let spaced: String = spaced.into_iter().collect();
    spaced.split_whitespace().map(str::to_owned).collect()
}

/// From the left, each pair that `change` knows replaced; what was replaced is not looked at again.
fn replace_pairs(text: &[char], change: impl Fn(char, char) -> Option<[char; 4]>) -> Vec<char> {
    let mut changed = Vec::with_capacity(text.len() + 8);
    let mut at = 0;
    while at < text.len() {
        let pair = text.get(at + 1).and_then(|&next| change(text[at], next));
        if let Some(pair) = pair {
            changed.extend(pair);
            at += 2;
        } else {
            changed.push(text[at]);
            at += 1;
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_scores_are_those_of_sacrebleu() {
        let cases: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/cases/eval/scores.json")).unwrap();
        for case in cases["tokens"].as_array().unwrap() {
            let expected: Vec<String> = serde_json::from_value(case[1].clone()).unwrap();
            assert_eq!(tokens_13a(case[0].as_str().unwrap()), expected);
        }
        let counts: Vec<Counts> = cases["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| {
                let references: Vec<String> =
                    serde_json::from_value(row["references"].clone()).unwrap();
                Counts::new(row["prediction"].as_str().unwrap(), &references)
            })
            .collect();
        for case in cases["bleu"].as_array().unwrap() {
            let start = case["start"].as_u64().unwrap() as usize;
            let expected = case["score"].as_f64().unwrap();
            let found = bleu(&counts[start..]).unwrap();
            assert!(
                (found - expected).abs() < 1e-9,
                "from {start}: {found} {expected}"
            );
        }
        assert_eq!(bleu(&counts[..0]), None);
    }
}
