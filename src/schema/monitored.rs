//! The values of a training that `monitor` may name.

use crate::diag::suggest::did_you_mean;

/// A value that can be monitored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Monitored {
    /// Its name in `metrics.jsonl`.
    pub name: &'static str,
    /// Whether more of it is better.
    pub higher_is_better: bool,
    /// Whether it is there only with `model.report_validation_metric`.
    pub is_score: bool,
    /// Whether it needs validation rows.
    pub of_validation: bool,
}

const fn loss(name: &'static str, of_validation: bool) -> Monitored {
    Monitored {
        name,
        higher_is_better: false,
        is_score: false,
        of_validation,
    }
}

const fn score(name: &'static str) -> Monitored {
    Monitored {
        name,
        higher_is_better: true,
        is_score: true,
        of_validation: true,
    }
}

/// Other spellings, NeMo's and PyTorch Lightning's habits among them, and what they mean.
const NAMES: [(&str, Monitored); 19] = [
    ("val_loss", loss("val_loss", true)),
    ("validation_loss", loss("val_loss", true)),
    ("reduced_train_loss", loss("reduced_train_loss", false)),
    ("train_loss", loss("reduced_train_loss", false)),
    ("loss", loss("reduced_train_loss", false)),
    ("val_exact_match", score("val_exact_match")),
    ("val_em", score("val_exact_match")),
    ("exact_match", score("val_exact_match")),
    ("val_f1", score("val_f1")),
    ("f1", score("val_f1")),
    ("val_accuracy", score("val_accuracy")),
    ("val_acc", score("val_accuracy")),
    ("validation_accuracy", score("val_accuracy")),
    ("accuracy", score("val_accuracy")),
    ("val_rouge_l", score("val_rouge_l")),
    ("val_rouge", score("val_rouge_l")),
    ("rouge", score("val_rouge_l")),
    ("val_bleu", score("val_bleu")),
    ("bleu", score("val_bleu")),
];

/// What a name means.
///
/// # Errors
/// What to say where it is none of the known names.
pub fn canonical_metric(name: &str) -> Result<Monitored, String> {
    if let Some((_, known)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*known);
    }
    let mut names: Vec<&str> = NAMES.iter().map(|(_, known)| known.name).collect();
    names.dedup();
    let nearest = did_you_mean(name, NAMES.iter().map(|(known, _)| *known));
    Err(match nearest {
        Some(nearest) => format!("`{name}` is not measured, did you mean `{nearest}`?"),
        None => format!(
            "`{name}` is not measured, expected one of {}",
            names.join(", ")
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_mean_the_same_and_unknown_names_are_told() {
        assert_eq!(canonical_metric("val_em").unwrap().name, "val_exact_match");
        assert!(canonical_metric("val_f1").unwrap().higher_is_better);
        assert!(!canonical_metric("val_loss").unwrap().is_score);
        let said = canonical_metric("val_los").unwrap_err();
        assert!(said.contains("did you mean `val_loss`?"), "{said}");
        let said = canonical_metric("perplexity").unwrap_err();
        assert!(
            said.contains("val_loss, reduced_train_loss, val_exact_match"),
            "{said}"
        );
    }
}
