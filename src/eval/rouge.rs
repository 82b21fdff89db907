//! ROUGE-L (Lin, 2004): how much of a reference's words an answer has in the reference's order.
//!
//! `F = 2 P R / (P + R)` with `P = L / words of the answer`, `R = L / words of the reference` and `L` the length of their
//! longest common subsequence. Words are runs of letters and digits in lower case, without stemming: for English what
//! the package rouge_score gives (`rougeL`, no stemmer). It drops every letter beyond a-z; here letters of all scripts
//! count. Scripts without blanks make one word of a phrase.

/// Words as ROUGE counts them.
fn words(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The F-measure against one reference, 0 to 1; 0 where either has no word.
pub fn rouge_l(prediction: &str, reference: &str) -> f64 {
    let (prediction, reference) = (words(prediction), words(reference));
    let common = longest_common_subsequence(&prediction, &reference) as f64;
    if common == 0.0 {
        return 0.0;
    }
    let precision = common / prediction.len() as f64;
    let recall = common / reference.len() as f64;
    2.0 * precision * recall / (precision + recall)
}

fn longest_common_subsequence(a: &[String], b: &[String]) -> usize {
    // lengths[j]: of the part of `a` that was seen and the first j of `b`.
    let mut lengths = vec![0; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (j, other) in b.iter().enumerate() {
            let above = lengths[j + 1];
            lengths[j + 1] = if word == other {
                diagonal + 1
            } else {
                above.max(lengths[j])
            };
            diagonal = above;
        }
    }
    lengths[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_rouge_score() {
        let cases: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/cases/eval/scores.json")).unwrap();
        for row in cases["rows"].as_array().unwrap() {
            let prediction = row["prediction"].as_str().unwrap();
            let references = row["references"].as_array().unwrap();
            let best = references
                .iter()
                .map(|reference| rouge_l(prediction, reference.as_str().unwrap()))
                .fold(0.0, f64::max);
            let expected = row["rouge_l"].as_f64().unwrap();
            assert!(
                (best - expected).abs() < 1e-12,
                "{prediction}: {best} {expected}"
            );
        }
    }

    #[test]
    fn letters_of_every_script_count() {
        assert!((rouge_l("Zoë Müller", "zoë müller") - 1.0).abs() < 1e-12);
        assert!((rouge_l("丹佛 野马", "野马") - 2.0 / 3.0).abs() < 1e-12);
    }
}
