//! What is wrong with a section, gathered until all of it is known.

use crate::config::{ResolvedConfig, together};
use crate::diag::Diagnostic;

#[derive(Debug)]
struct Problem {
    key: String,
    text: String,
    hint: Option<String>,
}

/// What is wrong with a section, each with the key path it is about.
#[derive(Debug, Default)]
pub struct Problems {
    found: Vec<Problem>,
    prefix: String,
    /// Keys, relative to the section, whose values could not be read: the rules see defaults in their place.
    unread: Vec<String>,
}

impl Problems {
    /// An empty list about the section at key path `prefix`.
    pub fn of(prefix: &str) -> Self {
        Self {
            found: vec![],
            prefix: prefix.to_owned(),
            unread: vec![],
        }
    }

    fn path(&self, key: &str) -> String {
        match (self.prefix.as_str(), key) {
            (prefix, "") => prefix.to_owned(),
            ("", key) => key.to_owned(),
            (prefix, key) => format!("{prefix}.{key}"),
        }
    }

    /// Adds a problem about `key`, which is relative to the section. Nothing is said about keys whose value could not
    /// be read: that has been said.
    pub fn add(&mut self, key: &str, problem: impl Into<String>) {
        if self.knows(&[key]) {
            self.found.push(Problem {
                key: self.path(key),
                text: problem.into(),
                hint: None,
            });
        }
    }

    /// Adds a problem about `key` unless `holds`.
    pub fn require(&mut self, holds: bool, key: &str, problem: impl Into<String>) {
        if !holds {
            self.add(key, problem);
        }
    }

    /// A value that cannot be read, or is still to be given: rules about it are silent from here on.
    pub(super) fn add_unread(&mut self, key: &str, problem: Option<(String, Option<String>)>) {
        if let Some((text, hint)) = problem {
            self.found.push(Problem {
                key: self.path(key),
                text,
                hint,
            });
        }
        self.unread.push(key.to_owned());
    }

    /// Whether the values of all these keys were read, so that a rule about them together can be trusted.
    pub fn knows(&self, keys: &[&str]) -> bool {
        let below = |inner: &str, outer: &str| {
            outer.is_empty()
                || inner
                    .strip_prefix(outer)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        !self.unread.iter().any(|unread| {
            keys.iter()
                .any(|key| below(key, unread) || (!key.is_empty() && below(unread, key)))
        })
    }

    /// Key paths and problems in the order found.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.found
            .iter()
            .map(|problem| (problem.key.as_str(), problem.text.as_str()))
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Each as a message of its own, with its place.
    pub fn into_diagnostics(self, config: &ResolvedConfig) -> Vec<Diagnostic> {
        self.found
            .iter()
            .map(|problem| {
                let diagnostic = config.with_place(problem.diagnostic(), &problem.key);
                match &problem.hint {
                    Some(hint) => diagnostic.hint(hint),
                    None => diagnostic,
                }
            })
            .collect()
    }

    /// All of them as one error with their places, or nothing.
    ///
    /// # Errors
    /// One [`Diagnostic`] of class configuration.
    pub fn into_placed_result(self, config: &ResolvedConfig) -> Result<(), Diagnostic> {
        let count = self.found.len();
        let about = self.about();
        match together(self.into_diagnostics(config)) {
            None => Ok(()),
            Some(mut diagnostic) => {
                if count > 1 {
                    diagnostic.title = format!("{count} problems in {about}");
                }
                Err(diagnostic)
            }
        }
    }

    fn about(&self) -> String {
        if self.prefix.is_empty() {
            "the configuration".to_owned()
        } else {
            format!("`{}`", self.prefix)
        }
    }

    /// All of them as one error without places, or nothing.
    ///
    /// # Errors
    /// One [`Diagnostic`] of class configuration.
    pub fn into_result(self) -> Result<(), Diagnostic> {
        let about = self.about();
        match &self.found[..] {
            [] => Ok(()),
            [problem] => Err(match &problem.hint {
                Some(hint) => problem.diagnostic().hint(hint),
                None => problem.diagnostic(),
            }),
            problems => {
                let title = format!("{} problems in {about}", problems.len());
                Err(Diagnostic::configuration(title)
                    .first_notes(problems.iter().map(Problem::line)))
            }
        }
    }
}

impl Problem {
    fn line(&self) -> String {
        if self.key.is_empty() {
            self.text.clone()
        } else {
            format!("`{}`: {}", self.key, self.text)
        }
    }

    fn diagnostic(&self) -> Diagnostic {
        Diagnostic::configuration(self.line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_ten_problems_are_counted() {
        let mut problems = Problems::of("a");
        for index in 0..22 {
            problems.add("b", index.to_string());
        }
        let error = problems.into_result().unwrap_err();
        assert_eq!(error.title, "22 problems in `a`");
        assert_eq!(error.notes.len(), 11);
        assert_eq!(error.notes[10], "… and 12 more");
    }

    #[test]
    fn rules_are_silent_about_values_that_could_not_be_read() {
        let mut problems = Problems::of("a");
        problems.add_unread("model.data", None);
        problems.add("model.data.train_ds", "is empty");
        problems.add("model", "is odd");
        problems.add("models", "is odd");
        assert_eq!(
            problems.iter().collect::<Vec<_>>(),
            [("a.models", "is odd")]
        );
    }
}
