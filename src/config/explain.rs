//! `config explain KEY`: which file, line or word set a value, in order, and what it replaced.
//!
//! Nothing is recorded while composing: the files and words of a composition are walked once more for one key.

use super::compose::Config;
use super::interpolation::resolve::split_key;
use super::override_grammar::OverrideKind;
use crate::diag::Diagnostic;
use crate::diag::suggest::did_you_mean;
use crate::yaml::python_text::key_text;
use crate::yaml::{Key, Node, Value, to_yaml};

/// One place that set a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// `file:line`, or the word of the command line.
    pub place: String,
    /// The file of the defaults list, or nothing for a word.
    pub config: Option<String>,
    /// The value on one line, as it was written; nothing where it was deleted.
    pub value: Option<String>,
    /// Whether a later step replaced it.
    pub replaced: bool,
}

/// The life of one value.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The dotted key.
    pub key: String,
    /// The steps in the order of merging.
    pub steps: Vec<Step>,
    /// The final value as it is written.
    pub written: String,
    /// The value without `${…}`, or why it has none.
    pub resolved: Result<String, String>,
}

impl Config {
    /// Which file, line or word set the value at a dotted key.
    ///
    /// # Errors
    /// A key that does not exist, with the nearest.
    pub fn explain(&self, key: &str) -> Result<Explanation, Diagnostic> {
        let Some(node) = self.full().descendant(key) else {
            return Err(self.no_key(key));
        };
        let parts = split_key(key);
        let mut steps: Vec<Step> = vec![];
        for default in self.defaults_list() {
            let Ok(Some(file)) = self.repository().load(&default.config_path) else {
                continue;
            };
            let package: Vec<String> = if default.package.is_empty() {
                vec![]
            } else {
                split_key(&default.package)
            };
            let Some(inside) = parts.strip_prefix(package.as_slice()) else {
                continue;
            };
            if let Some((node, is_exact)) = find(&file.content, inside) {
                self.add(
                    &mut steps,
                    node,
                    is_exact,
                    Some(default.config_path.clone()),
                    None,
                );
            }
        }
        for (word, _) in self.value_words() {
            let word_parts = split_key(&word.key);
            let value = word
                .element()
                .map(super::override_grammar::Element::to_node);
            if let Some(inside) = parts.strip_prefix(word_parts.as_slice()) {
                if word.kind == OverrideKind::Delete {
                    self.add_word(&mut steps, &word.input, None);
                } else if let Some(value) = &value
                    && let Some((node, _)) = find(value, inside)
                {
                    self.add_word(&mut steps, &word.input, Some(node));
                }
            } else if word_parts.starts_with(&parts) {
                // A word below the key changes a part of it.
                steps.push(Step {
                    place: format!("command line: {}", word.input),
                    config: None,
                    value: value.as_ref().map(one_line),
                    replaced: false,
                });
            }
        }
        let resolved = match self.select(key) {
            Ok(Some(value)) => Ok(one_line(&value)),
            Ok(None) if node.is_null() => Ok("null".to_owned()),
            Ok(None) => Err("it is still ???".to_owned()),
            Err(diagnostic) => Err(diagnostic.title),
        };
        Ok(Explanation {
            key: key.to_owned(),
            steps,
            written: one_line(node),
            resolved,
        })
    }

    fn add(
        &self,
        steps: &mut Vec<Step>,
        node: &Node,
        is_exact: bool,
        config: Option<String>,
        place: Option<String>,
    ) {
        // Mappings are merged; what is not one replaces all that was there.
        if node.as_map().is_none() && !node.is_missing() {
            replace_all(steps);
        }
        let place = place.or_else(|| self.texts().short_place(node.origin));
        steps.push(Step {
            place: place.unwrap_or_default(),
            config,
            value: Some(if is_exact {
                one_line(node)
            } else {
                format!("{} (of the mapping above)", one_line(node))
            }),
            replaced: false,
        });
    }

    fn add_word(&self, steps: &mut Vec<Step>, input: &str, node: Option<&Node>) {
        let place = format!("command line: {input}");
        if let Some(node) = node {
            self.add(steps, node, true, None, Some(place));
        } else {
            replace_all(steps);
            steps.push(Step {
                place,
                config: None,
                value: None,
                replaced: false,
            });
        }
    }

    fn no_key(&self, key: &str) -> Diagnostic {
        let mut diagnostic = Diagnostic::configuration(format!("the configuration has no `{key}`"));
        let mut at = self.full();
        let mut path: Vec<String> = vec![];
        for part in split_key(key) {
            if let Some(child) = at.child(&part) {
                at = child;
                path.push(part);
                continue;
            }
            if let Some(mapping) = at.as_map() {
                let names: Vec<String> = mapping.keys().map(key_text).collect();
                if let Some(near) = did_you_mean(&part, names.iter().map(String::as_str)) {
                    path.push(near.to_owned());
                    diagnostic = diagnostic.hint(format!("did you mean `{}`?", path.join(".")));
                }
            }
            break;
        }
        diagnostic
    }
}

fn replace_all(steps: &mut [Step]) {
    for step in steps {
        step.replaced = true;
    }
}

/// The node at a path, or the scalar above it that stands for the whole.
fn find<'n>(content: &'n Node, path: &[String]) -> Option<(&'n Node, bool)> {
    let mut at = content;
    for part in path {
        match at.child(part) {
            Some(child) => at = child,
            None if at.is_container() => return None,
            None => return Some((at, false)),
        }
    }
    Some((at, true))
}

/// A value on one line, shortened.
fn one_line(node: &Node) -> String {
    const LENGTH: usize = 100;
    let text = match &node.value {
        Value::Map(_) | Value::List(_) => flow(node),
        _ => {
            let mut list = Node::empty_map();
            if let Some(mapping) = list.as_map_mut() {
                mapping.insert(Key::from("k"), node.clone());
            }
            to_yaml(&list)
                .trim_start_matches("k:")
                .lines()
                .map(str::trim)
                .collect::<Vec<_>>()
                .join(" ")
        }
    };
    let text = text.trim();
    if text.chars().count() > LENGTH {
        text.chars().take(LENGTH).chain("…".chars()).collect()
    } else {
        text.to_owned()
    }
}

fn flow(node: &Node) -> String {
    match &node.value {
        Value::Map(mapping) => {
            let pairs: Vec<String> = mapping
                .iter()
                .map(|(key, child)| format!("{}: {}", key_text(key), flow(child)))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        _ => one_line(node),
    }
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.resolved {
            Ok(value) => writeln!(f, "{} = {value}", self.key)?,
            Err(problem) => writeln!(f, "{}: {problem}", self.key)?,
        }
        if self.resolved.as_ref() != Ok(&self.written) {
            writeln!(f, "  written as {}", self.written)?;
        }
        for step in &self.steps {
            let mark = if step.replaced {
                "replaced"
            } else {
                "in force"
            };
            let value = step.value.as_deref().unwrap_or("deleted");
            write!(f, "  {mark}  {value}  <- {}", step.place)?;
            match &step.config {
                Some(config) => writeln!(f, " ({config})")?,
                None => writeln!(f)?,
            }
        }
        if self.steps.is_empty() {
            writeln!(f, "  set by the program")?;
        }
        Ok(())
    }
}
