//! Keys that a section neither knows nor tolerates.

use serde_yaml::Value;

use super::Section;
use crate::diag::suggest::did_you_mean;

/// A key nobody reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKey {
    /// Path relative to the section.
    pub path: String,
    /// The known key of the same mapping that looks most like it.
    pub nearest: Option<String>,
}

impl UnknownKey {
    pub(super) fn message(&self) -> String {
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
