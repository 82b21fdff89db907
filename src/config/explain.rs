//! `config explain KEY`: which file, line or word set a value, in order, and what it replaced.
//!
//! Nothing is recorded while composing: the files and words of a composition are walked once more for one key.

use super::compose::Config;
use super::defaults_list::ResultDefault;
use super::interpolation::Graph;
use super::interpolation::resolve::split_key;
use super::override_grammar::{Element, OverrideKind};
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
    /// The word of the command line that chose that file.
    pub chosen_by: Option<String>,
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
    /// The values that its `${…}` stand for, in their order.
    pub references: Vec<Explanation>,
}

/// Interpolations are followed this far.
const DEPTH: usize = 8;

impl Config {
    /// Which file, line or word set the value at a dotted key.
    ///
    /// # Errors
    /// A key that does not exist, with the nearest.
    pub fn explain(&self, key: &str) -> Result<Explanation, Diagnostic> {
        if self.full().descendant(key).is_none() {
            return Err(self.no_key(key));
        }
        let (mut graph, root) = Graph::new(self.full(), self.context());
        graph.follow();
        // What cannot be resolved is followed as far as it goes.
        if let Some(id) = graph.find(root, key) {
            let _ = graph.resolved_copy(id);
        }
        Ok(self.explained(key, graph.followed(), &mut vec![]))
    }

    /// `above` are the keys whose interpolations lead here.
    fn explained(
        &self,
        key: &str,
        followed: &[(String, String)],
        above: &mut Vec<String>,
    ) -> Explanation {
        let node = self.full().descendant(key);
        let resolved = match self.select(key) {
            Ok(Some(value)) => Ok(one_line(&value)),
            Ok(None) if node.is_some_and(Node::is_null) => Ok("null".to_owned()),
            Ok(None) => Err("it is still ???".to_owned()),
            Err(diagnostic) => Err(diagnostic.title),
        };
        let mut references = vec![];
        // Of a mapping with many `${…}` the values are not told one by one; those of a list's items are.
        if above.len() < DEPTH && node.and_then(Node::as_map).is_none() {
            above.push(key.to_owned());
            let mut told: Vec<&str> = vec![];
            let is_here = |from: &str| {
                let item = from
                    .strip_prefix(key)
                    .and_then(|rest| rest.strip_prefix('.'));
                from == key || item.is_some_and(|item| item.parse::<usize>().is_ok())
            };
            for (_, to) in followed.iter().filter(|(from, _)| is_here(from)) {
                if !told.contains(&to.as_str()) && !above.contains(to) {
                    told.push(to);
                    references.push(self.explained(to, followed, above));
                }
            }
            above.pop();
        }
        Explanation {
            key: key.to_owned(),
            steps: self.steps(key),
            written: node.map(one_line).unwrap_or_default(),
            resolved,
            references,
        }
    }

    fn steps(&self, key: &str) -> Vec<Step> {
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
                self.add(&mut steps, node, is_exact, Some(default), None);
            }
        }
        for (word, _) in self.value_words() {
            let word_parts = split_key(&word.key);
            let value = word.element().map(Element::to_node);
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
                    chosen_by: None,
                    value: value.as_ref().map(one_line),
                    replaced: false,
                });
            }
        }
        steps
    }

    /// The word that chose a file of the defaults list, where one did.
    fn chosen_by(&self, default: &ResultDefault) -> Option<String> {
        let key = default.override_key.as_deref()?;
        let (word, _) = self
            .words()
            .iter()
            .rev()
            .find(|(word, _)| word.key_and_package() == key)?;
        Some(word.input.clone())
    }

    fn add(
        &self,
        steps: &mut Vec<Step>,
        node: &Node,
        is_exact: bool,
        default: Option<&ResultDefault>,
        place: Option<String>,
    ) {
        // Mappings are merged; what is not one replaces all that was there.
        if node.as_map().is_none() && !node.is_missing() {
            replace_all(steps);
        }
        let place = place.or_else(|| self.texts().short_place(node.origin));
        steps.push(Step {
            place: place.unwrap_or_default(),
            config: default.map(|default| default.config_path.clone()),
            chosen_by: default.and_then(|default| self.chosen_by(default)),
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
                chosen_by: None,
                value: None,
                replaced: false,
            });
        }
    }

    fn no_key(&self, key: &str) -> Diagnostic {
        let diagnostic = Diagnostic::configuration(format!("the configuration has no `{key}`"));
        if let Some(near) = nearest_key(self.full(), key) {
            return diagnostic.hint(format!("did you mean `{near}`?"));
        }
        // Only the last part of a key is what people remember.
        let mut same_end = vec![];
        keys_that_end_in(self.root(), "", key, &mut same_end);
        same_end.truncate(5);
        same_end.iter().fold(diagnostic, |diagnostic, key| {
            diagnostic.hint(format!("did you mean `{key}`?"))
        })
    }
}

/// The key up to its first part that does not exist, with the nearest that does in its place.
pub fn nearest_key(root: &Node, key: &str) -> Option<String> {
    let mut at = root;
    let mut path: Vec<String> = vec![];
    for part in split_key(key) {
        if let Some(child) = at.child(&part) {
            at = child;
            path.push(part);
            continue;
        }
        let names: Vec<String> = at.as_map()?.keys().map(key_text).collect();
        let near = did_you_mean(&part, names.iter().map(String::as_str))?;
        path.push(near.to_owned());
        return Some(path.join("."));
    }
    None
}

fn keys_that_end_in(node: &Node, path: &str, end: &str, found: &mut Vec<String>) {
    let Some(mapping) = node.as_map() else {
        return;
    };
    for (key, child) in mapping {
        let name = key_text(key);
        let key = if path.is_empty() {
            name
        } else {
            format!("{path}.{name}")
        };
        if key
            .strip_suffix(end)
            .is_some_and(|rest| rest.ends_with('.'))
        {
            found.push(key.clone());
        }
        keys_that_end_in(child, &key, end, found);
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
pub(super) fn one_line(node: &Node) -> String {
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

impl Explanation {
    fn tell(&self, f: &mut std::fmt::Formatter<'_>, depth: usize) -> std::fmt::Result {
        let indent = "    ".repeat(depth);
        match &self.resolved {
            Ok(value) => writeln!(f, "{indent}{} = {value}", self.key)?,
            Err(problem) => writeln!(f, "{indent}{} has no value: {problem}", self.key)?,
        }
        let width = self
            .steps
            .iter()
            .filter_map(|step| Some(step.value.as_ref()?.chars().count()));
        let width = width.max().unwrap_or(0).clamp(8, 40);
        for (number, step) in self.steps.iter().enumerate() {
            let value = step.value.as_deref().unwrap_or("(deleted)");
            write!(
                f,
                "{indent}  {}. {value:width$}  {}",
                number + 1,
                step.place
            )?;
            if let Some(word) = &step.chosen_by {
                write!(f, ", chosen by {word}")?;
            }
            writeln!(f, "{}", if step.replaced { "  (replaced)" } else { "" })?;
        }
        if self.steps.is_empty() {
            writeln!(f, "{indent}  set by the program")?;
        }
        if !self.references.is_empty() {
            writeln!(f, "{indent}  where")?;
        }
        for reference in &self.references {
            reference.tell(f, depth + 1)?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.tell(f, 0)
    }
}
