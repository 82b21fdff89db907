//! Reading a section: types, unknown keys and the section's own rules, all reported at once.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_yaml::Value;

use crate::config::ResolvedConfig;
use crate::diag::Diagnostic;
use crate::diag::suggest::did_you_mean;

/// Problems listed before the rest is only counted.
const SHOWN: usize = 10;

/// What is wrong with a section, each with the key path it is about.
#[derive(Debug, Default)]
pub struct Problems {
    found: Vec<(String, String)>,
    prefix: String,
}

impl Problems {
    /// An empty list about the section at key path `prefix`.
    pub fn of(prefix: &str) -> Self {
        Self {
            found: vec![],
            prefix: prefix.to_owned(),
        }
    }

    /// Adds a problem about `key`, which is relative to the section.
    pub fn add(&mut self, key: &str, problem: impl Into<String>) {
        let path = match (self.prefix.as_str(), key) {
            (prefix, "") => prefix.to_owned(),
            ("", key) => key.to_owned(),
            (prefix, key) => format!("{prefix}.{key}"),
        };
        self.found.push((path, problem.into()));
    }

    /// Adds a problem about `key` unless `holds`.
    pub fn require(&mut self, holds: bool, key: &str, problem: impl Into<String>) {
        if !holds {
            self.add(key, problem);
        }
    }

    /// Key paths and problems in the order found.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.found.iter().map(|(k, p)| (k.as_str(), p.as_str()))
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All of them as one error, or nothing.
    pub fn into_result(self) -> Result<(), Diagnostic> {
        let mut lines: Vec<String> = self
            .found
            .iter()
            .map(|(key, problem)| {
                if key.is_empty() {
                    problem.clone()
                } else {
                    format!("`{key}`: {problem}")
                }
            })
            .collect();
        match lines.len() {
            0 => Ok(()),
            1 => Err(Diagnostic::configuration(lines.remove(0))),
            count => {
                let about = if self.prefix.is_empty() {
                    "the configuration".to_owned()
                } else {
                    format!("`{}`", self.prefix)
                };
                let mut diagnostic =
                    Diagnostic::configuration(format!("{count} problems in {about}"));
                for line in lines.drain(..count.min(SHOWN)) {
                    diagnostic = diagnostic.note(line);
                }
                if !lines.is_empty() {
                    diagnostic = diagnostic.note(format!("… and {} more", lines.len()));
                }
                Err(diagnostic)
            }
        }
    }
}

/// A section that knows its keys (those of its default) and its rules.
pub trait Section: DeserializeOwned + Serialize + Default {
    /// Keys (paths relative to the section, `*` for any list index) that the original accepts and ptune has no use
    /// for; they are let through in silence. A key here covers everything below it.
    const TOLERATED: &'static [&'static str] = &[];

    /// A value with every key present, lists of mappings holding one element, to know the keys from.
    fn specimen() -> Self {
        Self::default()
    }

    /// Adds what is wrong with the values to `problems`.
    fn validate(&self, _problems: &mut Problems) {}
}

/// Reads the section at a dotted key (the empty key is the whole, as in the file a worker is given) and checks it.
///
/// # Errors
/// One configuration [`Diagnostic`] with all unknown keys and broken rules and their places, or with the first value
/// of a wrong type.
pub fn read_section<S: Section>(config: &ResolvedConfig, key: &str) -> Result<S, Diagnostic> {
    let section: S = config.extract(key)?;
    let problems = problems_of(&section, &config.extract(key)?, key);
    let places: Vec<_> = problems
        .iter()
        .take(SHOWN)
        .filter_map(|(path, _)| config.location(path))
        .collect();
    problems.into_result().map_err(|mut diagnostic| {
        for place in places {
            if !diagnostic.locations.contains(&place) {
                diagnostic.locations.push(place);
            }
        }
        diagnostic
    })?;
    Ok(section)
}

/// Like [`read_section`], from a value that has no places.
///
/// # Errors
/// As [`read_section`].
pub fn read_value<S: Section>(value: &Value, prefix: &str) -> Result<S, Diagnostic> {
    let section: S = serde_path_to_error::deserialize(value.clone()).map_err(|error| {
        let path = error.path().to_string();
        let key = match (prefix, path.as_str()) {
            ("", path) => path.to_owned(),
            (prefix, ".") => prefix.to_owned(),
            (prefix, path) => format!("{prefix}.{path}"),
        };
        Diagnostic::configuration(format!("`{key}`: {}", error.into_inner()))
    })?;
    problems_of(&section, value, prefix).into_result()?;
    Ok(section)
}

fn problems_of<S: Section>(section: &S, value: &Value, prefix: &str) -> Problems {
    let mut problems = Problems::of(prefix);
    for unknown in unknown_keys::<S>(value) {
        problems.add(&unknown.path, unknown.message());
    }
    section.validate(&mut problems);
    problems
}

/// A key nobody reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKey {
    /// Path relative to the section.
    pub path: String,
    /// The known key of the same mapping that looks most like it.
    pub nearest: Option<String>,
}

impl UnknownKey {
    fn message(&self) -> String {
        match &self.nearest {
            Some(nearest) => format!("unknown key, did you mean `{nearest}`?"),
            None => "unknown key".to_owned(),
        }
    }
}

/// The keys of `value` that section `S` neither knows nor tolerates.
pub fn unknown_keys<S: Section>(value: &Value) -> Vec<UnknownKey> {
    let mut found = vec![];
    // Sections are plain data, which always becomes a value.
    if let Ok(known) = serde_yaml::to_value(S::specimen()) {
        walk(value, &known, "", "", S::TOLERATED, &mut found);
    }
    found
}

/// `path` is what the user sees (`task_templates.0.x`), `pattern` what TOLERATED is written in (`task_templates.*.x`).
fn walk(
    value: &Value,
    known: &Value,
    path: &str,
    pattern: &str,
    tolerated: &[&str],
    found: &mut Vec<UnknownKey>,
) {
    let join = |parent: &str, key: &str| {
        if parent.is_empty() {
            key.to_owned()
        } else {
            format!("{parent}.{key}")
        }
    };
    match (value, known) {
        (Value::Mapping(given), Value::Mapping(names)) => {
            for (key, inner) in given {
                let Some(key) = key.as_str() else {
                    found.push(UnknownKey {
                        path: join(path, &format!("{key:?}")),
                        nearest: None,
                    });
                    continue;
                };
                let (path, pattern) = (join(path, key), join(pattern, key));
                if tolerated.contains(&pattern.as_str()) {
                    continue;
                }
                match names.get(key) {
                    Some(names) => walk(inner, names, &path, &pattern, tolerated, found),
                    None => found.push(UnknownKey {
                        path,
                        nearest: did_you_mean(key, names.keys().filter_map(Value::as_str))
                            .map(str::to_owned),
                    }),
                }
            }
        }
        (Value::Sequence(given), Value::Sequence(names)) => {
            // Only lists of mappings have keys; their specimen has one element.
            if let Some(names) = names.first() {
                for (index, inner) in given.iter().enumerate() {
                    let path = join(path, &index.to_string());
                    walk(inner, names, &path, &join(pattern, "*"), tolerated, found);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::PromptLearning;

    fn yaml(text: &str) -> Value {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn an_unknown_key_is_reported_with_the_nearest_name_and_its_path() {
        let value = yaml("model: {optim: {lrr: 1.0}, task_templates: [{tasknam: a}]}");
        assert_eq!(
            unknown_keys::<PromptLearning>(&value),
            [
                UnknownKey {
                    path: "model.optim.lrr".into(),
                    nearest: Some("lr".into())
                },
                UnknownKey {
                    path: "model.task_templates.0.tasknam".into(),
                    nearest: Some("taskname".into())
                },
            ]
        );
    }

    #[test]
    fn a_key_that_only_the_original_reads_is_let_through() {
        let value = yaml("{model: {native_amp_init_scale: 1}, trainer: {benchmark: false}}");
        assert_eq!(unknown_keys::<PromptLearning>(&value), []);
    }

    #[test]
    fn a_value_of_a_wrong_type_names_its_key_path() {
        let value = yaml("trainer: {devices: auto}");
        let error = read_value::<PromptLearning>(&value, "prompt_learning").unwrap_err();
        assert!(
            error
                .title
                .starts_with("`prompt_learning.trainer.devices`: invalid type"),
            "{}",
            error.title
        );
    }

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
}
