//! Reading a section: types, unknown keys and the section's own rules, all reported at once.

mod problems;
mod unknown;
mod wording;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use serde_yaml::Value;

use crate::config::ResolvedConfig;
use crate::diag::Diagnostic;
pub use problems::Problems;
pub use unknown::{UnknownKey, unknown_keys};
use wording::in_plain_words;

/// Values of a wrong type that are looked for in one section.
const MOST_UNREAD: usize = 100;

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
/// One configuration [`Diagnostic`] with all values that are missing or of a wrong type, unknown keys and broken rules,
/// each with its place.
pub fn read_section<S: Section>(config: &ResolvedConfig, key: &str) -> Result<S, Diagnostic> {
    if config.get(key).is_none() {
        return config.extract(key);
    }
    let missing = config.missing(key);
    if !missing.is_empty() {
        return Err(config.missing_report(&missing));
    }
    let (section, problems) = check_section(config, key);
    problems.into_placed_result(config)?;
    Ok(section)
}

/// What is wrong with the section at a dotted key; values that are still to be given are not looked at.
pub fn section_problems<S: Section>(config: &ResolvedConfig, key: &str) -> Problems {
    check_section::<S>(config, key).1
}

fn check_section<S: Section>(config: &ResolvedConfig, key: &str) -> (S, Problems) {
    let mut problems = Problems::of(key);
    let mut value = config.value(key).unwrap_or_default();
    for missing in config.missing(key) {
        let relative = missing.strip_prefix(key).unwrap_or(&missing);
        let relative = relative.trim_start_matches('.');
        problems.add_unread(relative, None);
        let parts: Vec<&str> = relative.split('.').collect();
        remove(&mut value, &parts);
    }
    check_value(value, problems)
}

/// Like [`read_section`], from a value that has no places.
///
/// # Errors
/// As [`read_section`].
pub fn read_value<S: Section>(value: &Value, prefix: &str) -> Result<S, Diagnostic> {
    let (section, problems) = check_value(value.clone(), Problems::of(prefix));
    problems.into_result()?;
    Ok(section)
}

/// serde stops at the first value of a wrong type. That value is noted and taken out, so that its default stands in,
/// and the rest is read again, until all of it is read.
fn check_value<S: Section>(mut value: Value, mut problems: Problems) -> (S, Problems) {
    let unknown = unknown_keys::<S>(&value);
    let mut section = S::default();
    for _ in 0..MOST_UNREAD {
        let error = match serde_path_to_error::deserialize::<_, S>(value.clone()) {
            Ok(read) => {
                section = read;
                break;
            }
            Err(error) => error,
        };
        let path: Vec<String> = error
            .path()
            .iter()
            .filter_map(|segment| match segment {
                Segment::Seq { index } => Some(index.to_string()),
                Segment::Map { key } => Some(key.clone()),
                Segment::Enum { .. } | Segment::Unknown => None,
            })
            .collect();
        problems.add_unread(
            &path.join("."),
            Some(in_plain_words(&error.inner().to_string())),
        );
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        if !remove(&mut value, &parts) {
            break;
        }
    }
    for unknown in unknown {
        problems.add(&unknown.path, unknown.message());
    }
    section.validate(&mut problems);
    (section, problems)
}

/// Takes a value out; of an item of a list the whole list, so that the numbers of the others stay true.
fn remove(value: &mut Value, path: &[&str]) -> bool {
    let Some((last, parents)) = path.split_last() else {
        return false;
    };
    let mut at = &mut *value;
    for part in parents {
        let next = match at {
            Value::Mapping(mapping) => mapping.get_mut(*part),
            Value::Sequence(items) => part
                .parse::<usize>()
                .ok()
                .and_then(|index| items.get_mut(index)),
            _ => None,
        };
        let Some(next) = next else { return false };
        at = next;
    }
    match at {
        Value::Mapping(mapping) => mapping.remove(*last).is_some(),
        Value::Sequence(_) => remove(value, parents),
        _ => false,
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
        assert_eq!(
            error.notes[0],
            "`prompt_learning.trainer.devices`: expected a whole number, 0 or more, found the text `auto`"
        );
    }

    #[test]
    fn every_value_of_a_wrong_type_is_reported_and_rules_go_on_about_the_others() {
        let value = yaml(
            "{trainer: {devices: auto, num_nodes: [1]}, model: {optim: {lr: fast, betas: [a, 0.9]},
              virtual_prompt_style: p-tunning, global_batch_size: 0}}",
        );
        let error = read_value::<PromptLearning>(&value, "p").unwrap_err();
        let notes = error.notes.join("\n");
        for key in [
            "p.trainer.devices",
            "p.trainer.num_nodes",
            "p.model.optim.lr",
            "p.model.optim.betas.0",
            "p.model.virtual_prompt_style",
            "p.model.global_batch_size",
            "p.model.language_model_path",
        ] {
            assert!(notes.contains(&format!("`{key}`")), "{key}: {notes}");
        }
    }
}
