//! A configuration without `${…}`: what typed sections are made from, and the file between launcher and worker.

use std::path::Path;

use indexmap::IndexMap;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use super::compose::set;
use super::defaults_list::shortened;
use super::repository::{load_text, placed};
use crate::diag::source::{Origin, SourceMap};
use crate::diag::suggest::did_you_mean;
use crate::diag::{Diagnostic, Location};
use crate::yaml::python_text::key_text;
use crate::yaml::{Integer, Key, Mapping, Node, Value, to_yaml};

/// A configuration in which no `${…}` is left; `???` may be, where nobody needs the value.
#[derive(Clone, Debug)]
pub struct ResolvedConfig {
    root: Node,
    texts: SourceMap,
    /// Values that are `???` because they refer to one, each with the key and the place of that one.
    because: Vec<(String, (String, Origin))>,
}

impl ResolvedConfig {
    /// A resolved tree with the texts its origins point into.
    pub(crate) fn new(
        root: Node,
        texts: SourceMap,
        because: Vec<(String, (String, Origin))>,
    ) -> Self {
        Self {
            root,
            texts,
            because,
        }
    }

    /// The whole tree.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// The value at a dotted key (`prompt_learning.run.name`, `stages.0`), the whole for the empty key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.root.descendant(key)
    }

    /// The text at a dotted key, where there is one that is not `???`.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key)
            .filter(|node| !node.is_missing())
            .and_then(Node::as_str)
    }

    /// The value at a dotted key as serde's tree.
    pub fn value(&self, key: &str) -> Option<serde_yaml::Value> {
        self.get(key).map(to_serde)
    }

    /// `file:line:column` of the value at a dotted key, or of its nearest written parent.
    pub fn location(&self, key: &str) -> Option<Location> {
        let mut at = key;
        loop {
            if let Some(node) = self.get(at)
                && node.origin.is_written()
            {
                return self.texts.location(node.origin);
            }
            at = at.rsplit_once('.')?.0;
        }
    }

    /// A message with the place of the value at a dotted key, or of its nearest written parent.
    pub(crate) fn with_place(&self, diagnostic: Diagnostic, key: &str) -> Diagnostic {
        let mut at = key;
        loop {
            if let Some(node) = self.get(at)
                && node.origin.is_written()
            {
                return placed(diagnostic, node.origin, &self.texts);
            }
            match at.rsplit_once('.') {
                Some((parent, _)) => at = parent,
                None => return diagnostic,
            }
        }
    }

    /// The part at a dotted key as a configuration of its own, under its last name or at the root.
    pub fn select_subtree(&self, key: &str) -> Option<Self> {
        // Keys of a section of its own are other keys.
        Some(Self::new(
            self.get(key)?.clone(),
            self.texts.clone(),
            vec![],
        ))
    }

    /// Sets the value at a dotted key; mappings on the way are made, scalars on the way are replaced.
    pub fn set(&mut self, key: &str, node: Node) {
        set(&mut self.root, key, node);
    }

    /// Sets a text at a dotted key, as [`Self::set`] does.
    pub fn set_text(&mut self, key: &str, text: impl Into<String>) {
        self.set(key, Node::text(text));
    }

    /// Sets an integer at a dotted key, as [`Self::set`] does.
    pub fn set_integer(&mut self, key: &str, value: i64) {
        self.set(key, Node::computed(Value::Int(value.into())));
    }

    /// Dotted keys that are still `???` at or below a key, in order.
    pub fn missing(&self, key: &str) -> Vec<String> {
        let mut found = vec![];
        if let Some(node) = self.get(key) {
            collect_missing(node, key, &mut found);
        }
        found
    }

    /// The section at a dotted key as a type.
    ///
    /// # Errors
    /// A [`Diagnostic`] of class configuration: all keys that are still `???` in one report, or the first value that
    /// does not fit with its key path and its place.
    pub fn extract<T: DeserializeOwned>(&self, key: &str) -> Result<T, Diagnostic> {
        let Some(node) = self.get(key) else {
            return Err(self.no_such_section(key));
        };
        let missing = self.missing(key);
        if !missing.is_empty() {
            return Err(self.missing_report(&missing));
        }
        serde_path_to_error::deserialize(to_serde(node))
            .map_err(|error| self.does_not_fit(key, &error))
    }

    fn no_such_section(&self, key: &str) -> Diagnostic {
        let mut diagnostic = Diagnostic::configuration(format!("the configuration has no `{key}`"));
        let (parent, last) = key.rsplit_once('.').unwrap_or(("", key));
        if let Some(mapping) = self.get(parent).and_then(Node::as_map) {
            let names: Vec<&str> = mapping.keys().filter_map(Key::as_str).collect();
            if let Some(near) = did_you_mean(last, names.iter().copied()) {
                diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
            }
        }
        diagnostic
    }

    /// One report for every key that must still be given. Values that only refer to one are told of with it.
    pub fn missing_report(&self, keys: &[String]) -> Diagnostic {
        const SHOWN: usize = 10;
        let mut needed: IndexMap<&str, (Origin, Vec<&str>)> = IndexMap::new();
        for key in keys {
            // What a value refers to may itself have become `???` before it.
            let mut root = None;
            let mut at = key;
            for _ in 0..=self.because.len() {
                let Some((_, found)) = self.because.iter().find(|(from, _)| from == at) else {
                    break;
                };
                at = &found.0;
                root = Some(found);
            }
            if let Some((target, origin)) = root {
                let entry = needed.entry(target).or_insert((*origin, vec![]));
                entry.1.push(key);
            } else {
                let origin = self.get(key).map_or(Origin::COMPUTED, |node| node.origin);
                needed.entry(key).or_insert((origin, vec![]));
            }
        }
        let by = |users: &[&str]| match users {
            [] => None,
            users => {
                let users: Vec<String> = users.iter().map(|key| format!("`{key}`")).collect();
                let users: Vec<&str> = users.iter().map(String::as_str).collect();
                Some(format!("needed by {}", shortened(&users)))
            }
        };
        let words: Vec<String> = needed
            .keys()
            .take(SHOWN)
            .map(|key| format!("{key}=…"))
            .collect();
        let mut diagnostic;
        if let (1, Some((key, (origin, users)))) = (needed.len(), needed.first()) {
            diagnostic = Diagnostic::configuration(format!("`{key}` must be given"));
            diagnostic = placed(diagnostic, *origin, &self.texts);
            diagnostic.notes.extend(by(users));
        } else {
            diagnostic =
                Diagnostic::configuration(format!("{} values must be given", needed.len()));
            for (key, (origin, users)) in needed.iter().take(SHOWN) {
                let place = self.texts.location(*origin);
                let place = place.map(|place| place.to_string());
                let facts: Vec<String> = place.into_iter().chain(by(users)).collect();
                diagnostic = diagnostic.note(format!("`{key}` is ???: {}", facts.join(", ")));
            }
            if needed.len() > SHOWN {
                diagnostic = diagnostic.note(format!("… and {} more", needed.len() - SHOWN));
            }
        }
        diagnostic.code = Some("MissingMandatoryValue");
        diagnostic.hint(format!("add to the command line: {}", words.join(" ")))
    }

    fn does_not_fit(
        &self,
        key: &str,
        error: &serde_path_to_error::Error<serde_yaml::Error>,
    ) -> Diagnostic {
        let mut path = key.to_owned();
        for segment in error.path() {
            let part = match segment {
                Segment::Seq { index } => index.to_string(),
                Segment::Map { key } => key.clone(),
                Segment::Enum { .. } | Segment::Unknown => continue,
            };
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&part);
        }
        let message = error.inner().to_string();
        let message = message.split(" at line ").next().unwrap_or(&message);
        let mut names = message.split('`').skip(1).step_by(2);
        let hint = message
            .starts_with("unknown ")
            .then(|| names.next())
            .flatten()
            .and_then(|wrong| did_you_mean(wrong, names))
            .map(|near| format!("did you mean `{near}`?"));
        let mut diagnostic = Diagnostic::configuration(format!("`{path}`: {message}"));
        diagnostic = self.with_place(diagnostic, &path);
        match hint {
            Some(hint) => diagnostic.hint(hint),
            None => diagnostic,
        }
    }

    /// As `OmegaConf.to_yaml` prints it.
    pub fn to_yaml(&self) -> String {
        to_yaml(&self.root)
    }

    /// Reads a resolved file back.
    ///
    /// # Errors
    /// A file that cannot be read or is not YAML, and one in which `${…}` is left.
    pub fn from_file(path: &Path) -> Result<Self, Diagnostic> {
        let text = fs_err::read_to_string(path).map_err(|error| {
            Diagnostic::configuration(format!("cannot read the configuration: {error}"))
        })?;
        Self::from_text(&path.display().to_string(), &text)
    }

    /// Reads a resolved text back; `name` is what messages call it.
    pub fn from_text(name: &str, text: &str) -> Result<Self, Diagnostic> {
        let texts = SourceMap::new();
        let source = texts.add(name, text);
        let root = load_text(text, source, &texts)?;
        if let Some((key, node)) = first_interpolation(&root, "") {
            return Err(placed(
                Diagnostic::configuration(format!("`{key}` is not resolved"))
                    .note("this file is made by the launcher and has no `${…}` in it"),
                node.origin,
                &texts,
            ));
        }
        Ok(Self::new(root, texts, vec![]))
    }
}

fn join(path: &str, part: &str) -> String {
    if path.is_empty() {
        part.to_owned()
    } else {
        format!("{path}.{part}")
    }
}

fn first_interpolation<'n>(node: &'n Node, path: &str) -> Option<(String, &'n Node)> {
    match &node.value {
        Value::Map(mapping) => mapping
            .iter()
            .find_map(|(key, child)| first_interpolation(child, &join(path, &key_text(key)))),
        Value::List(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, child)| first_interpolation(child, &join(path, &index.to_string()))),
        _ => node.is_interpolation().then(|| (path.to_owned(), node)),
    }
}

fn collect_missing(node: &Node, path: &str, found: &mut Vec<String>) {
    match &node.value {
        Value::Map(mapping) => {
            for (key, child) in mapping {
                collect_missing(child, &join(path, &key_text(key)), found);
            }
        }
        Value::List(items) => {
            for (index, child) in items.iter().enumerate() {
                collect_missing(child, &join(path, &index.to_string()), found);
            }
        }
        _ if node.is_missing() => found.push(path.to_owned()),
        _ => {}
    }
}

/// The neutral tree that typed sections deserialise from.
fn to_serde(node: &Node) -> serde_yaml::Value {
    match &node.value {
        Value::Null => serde_yaml::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => integer_to_serde(value),
        Value::Float(value) => (*value).into(),
        Value::Str(text) => text.as_str().into(),
        Value::Bytes(bytes) => {
            serde_yaml::Value::Sequence(bytes.iter().map(|byte| u64::from(*byte).into()).collect())
        }
        Value::List(items) => serde_yaml::Value::Sequence(items.iter().map(to_serde).collect()),
        Value::Map(mapping) => serde_yaml::Value::Mapping(mapping_to_serde(mapping)),
    }
}

fn mapping_to_serde(mapping: &Mapping) -> serde_yaml::Mapping {
    mapping
        .iter()
        .map(|(key, child)| {
            let key = match key {
                Key::Str(text) => text.as_str().into(),
                Key::Int(value) => integer_to_serde(value),
                Key::Float(value) => (*value).into(),
                Key::Bool(value) => (*value).into(),
                Key::Null | Key::Bytes(_) => serde_yaml::Value::Null,
            };
            (key, to_serde(child))
        })
        .collect()
}

fn integer_to_serde(value: &Integer) -> serde_yaml::Value {
    match value {
        Integer::Small(value) => i64::try_from(*value)
            .map(serde_yaml::Value::from)
            .or_else(|_| u64::try_from(*value).map(serde_yaml::Value::from))
            .unwrap_or_else(|_| (*value as f64).into()),
        Integer::Large(_) => value.to_f64().into(),
    }
}
