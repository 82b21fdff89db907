//! What Hydra would offer for an unfinished line: groups and their options, keys and their values, file names.
//!
//! Groups are listed without composing; a composition is made only where keys can follow.

use std::collections::BTreeSet;

use super::line::{Line, hydra_options};
use crate::config::interpolation::{Graph, ResolveErrorKind};
use crate::config::override_grammar::parse_override;
use crate::config::{
    ComposeOptions, ComposeRequest, Config, ConfigRepository, compose_with, searched,
};
use crate::yaml::python_text::{key_text, str_of};
use crate::yaml::{Node, Value};

/// The candidates for the last word of a line, sorted. The line is what follows the name of the program; it ends in a
/// blank where a new word begins.
///
/// Rules of `hydra/plugins/completion_plugin.py`. Where Hydra would stop with an error (a word that is not in its
/// language, an option that does not exist), the rest of the line still counts.
pub fn candidates(
    repository: &ConfigRepository,
    config_name: Option<&str>,
    line: &str,
) -> Vec<String> {
    let options = hydra_options();
    let parsed = Line::of(line.split_whitespace(), &options);
    let mut words = parsed.words.clone();
    let word = if line.is_empty() || line.ends_with(' ') {
        String::new()
    } else {
        words.pop().unwrap_or_default()
    };
    if let Some((key, path)) = file_name(&word) {
        return files(path)
            .into_iter()
            .map(|file| format!("{key}{file}"))
            .collect();
    }
    let situation = Situation::new(repository, config_name, words, parsed.has("--multirun"));
    let mut found = BTreeSet::new();
    let options = situation.groups(&word, &mut found);
    if options == GroupOptions::None
        && let Some(config) = situation.compose()
    {
        found.extend(keys(&config, &word));
    }
    found.into_iter().collect()
}

/// What the words before the last one say.
pub(super) struct Situation<'a> {
    repository: &'a ConfigRepository,
    /// The same with what `hydra.searchpath` adds.
    searched: ConfigRepository,
    config_name: Option<&'a str>,
    words: Vec<String>,
    multirun: bool,
}

/// Whether the word names a group that has options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupOptions {
    /// It does, and keys cannot follow.
    Some,
    /// It does not.
    None,
}

impl<'a> Situation<'a> {
    /// Words that are not in the language are left out.
    pub(super) fn new(
        repository: &'a ConfigRepository,
        config_name: Option<&'a str>,
        words: Vec<String>,
        multirun: bool,
    ) -> Self {
        let words: Vec<String> = words
            .into_iter()
            .filter(|word| parse_override(word).is_ok())
            .collect();
        let request = ComposeRequest {
            repository,
            config_name,
            overrides: &words,
        };
        // A file that cannot be read has nothing to say about where others are.
        let searched = searched(&request).unwrap_or_else(|_| repository.with_further(vec![]));
        Self {
            repository,
            searched,
            config_name,
            words,
            multirun,
        }
    }

    /// Where options of groups are.
    pub(super) fn repository(&self) -> &ConfigRepository {
        &self.searched
    }

    /// The configuration of the words so far, where there is one.
    pub(super) fn compose(&self) -> Option<Config> {
        self.compose_of(&self.words, self.multirun)
    }

    /// The configuration of those words that can be composed; groups that must still be chosen are left out.
    pub(super) fn compose_what_works(&self) -> Option<Config> {
        if let Some(config) = self.compose_of(&self.words, true) {
            return Some(config);
        }
        let mut kept = vec![];
        let mut config = self.compose_of(&kept, true);
        for word in &self.words {
            kept.push(word.clone());
            match self.compose_of(&kept, true) {
                Some(with_word) => config = Some(with_word),
                None => {
                    kept.pop();
                }
            }
        }
        config
    }

    fn compose_of(&self, words: &[String], multirun: bool) -> Option<Config> {
        let request = ComposeRequest {
            repository: self.repository,
            config_name: self.config_name,
            overrides: words,
        };
        let options = ComposeOptions {
            multirun,
            ..ComposeOptions::default()
        };
        compose_with(&request, options).ok()
    }

    /// Options of the group before `=`, else groups that begin as the word does.
    fn groups(&self, word: &str, found: &mut BTreeSet<String>) -> GroupOptions {
        let (prefix, word) = match word.strip_prefix(['+', '~']) {
            Some(rest) => word.split_at(word.len() - rest.len()),
            None => ("", word),
        };
        if let Some((group, _)) = word.rsplit_once('=') {
            let options = self.searched.options(group);
            if options.is_empty() {
                return GroupOptions::None;
            }
            for option in options {
                let name = if group.is_empty() {
                    option
                } else {
                    format!("{group}={option}")
                };
                if name.starts_with(word) {
                    found.insert(format!("{prefix}{name}"));
                }
            }
            return GroupOptions::Some;
        }
        let parent = word.rsplit_once('/').map_or("", |(parent, _)| parent);
        for group in self.searched.groups(parent) {
            let name = if parent.is_empty() {
                group
            } else {
                format!("{parent}/{group}")
            };
            if !name.starts_with(word) {
                continue;
            }
            let has_options = !self.searched.options(&name).is_empty();
            let has_groups = !self.searched.groups(&name).is_empty();
            let mark = match (has_options, has_groups) {
                (true, false) if prefix != "~" => "=",
                (false, true) => "/",
                _ => "",
            };
            found.insert(format!("{prefix}{name}{mark}"));
        }
        GroupOptions::None
    }
}

/// `key=` and the path, where the value is one that begins like a path.
pub(super) fn file_name(word: &str) -> Option<(&str, &str)> {
    let (key, path) = word.split_at(word.rfind('=')? + 1);
    path.starts_with(['.', '/', '\\']).then_some((key, path))
}

/// Files and folders that begin as the path does; what a folder holds, for a folder.
pub(super) fn files(path: &str) -> Vec<String> {
    let (folder, prefix) = if std::path::Path::new(path).is_dir() {
        (path, "")
    } else {
        match path.rsplit_once('/') {
            Some(("", prefix)) => ("/", prefix),
            Some((folder, prefix)) => (folder, prefix),
            None => ("", path),
        }
    };
    let Ok(entries) = fs_err::read_dir(folder) else {
        return vec![];
    };
    let slash = if folder.is_empty() || folder.ends_with('/') {
        ""
    } else {
        "/"
    };
    let mut found: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .map(|name| format!("{folder}{slash}{name}"))
        .collect();
    found.sort();
    found
}

/// Keys that begin as the word does, or the value of the key before `=`.
fn keys(config: &Config, word: &str) -> Vec<String> {
    let (mut graph, root) = Graph::new(config.full(), config.context());
    if let Some(key) = word.strip_suffix(['.', '=']) {
        return match graph.select_from(root, key, true) {
            Ok(Some(id)) => {
                let node = graph.to_node(id);
                if node.is_container() {
                    children(&mut graph, id, "")
                        .into_iter()
                        .map(|child| format!("{word}{child}"))
                        .collect()
                } else {
                    value_text(key, &node)
                        .map(|value| format!("{word}{value}"))
                        .into_iter()
                        .collect()
                }
            }
            Err(error) if error.kind == ResolveErrorKind::MissingMandatory => {
                vec![word.to_owned()]
            }
            Ok(None) | Err(_) => vec![],
        };
    }
    match word.rsplit_once('.') {
        None => children(&mut graph, root, word),
        Some((parent, prefix)) => match graph.select_from(root, parent, false) {
            Ok(Some(id)) => children(&mut graph, id, prefix)
                .into_iter()
                .map(|child| format!("{parent}.{child}"))
                .collect(),
            Ok(None) | Err(_) => vec![],
        },
    }
}

/// `key.` and `key=` for the children of a container. A list's items are looked at behind their interpolations, a
/// mapping's are not.
fn children(
    graph: &mut Graph<'_>,
    id: crate::config::interpolation::NodeId,
    prefix: &str,
) -> Vec<String> {
    let mark = |node: &Node| if node.is_container() { '.' } else { '=' };
    match graph.to_node(id).value {
        Value::Map(mapping) => mapping
            .iter()
            .map(|(key, child)| (key_text(key), mark(child)))
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(name, mark)| format!("{name}{mark}"))
            .collect(),
        Value::List(items) => {
            let mut found = vec![];
            for (index, item) in items.iter().enumerate() {
                let is_missing = item.is_missing();
                if is_missing || index.to_string().starts_with(prefix) {
                    let child = graph.find(id, &index.to_string());
                    let seen = child.and_then(|child| graph.dereference(child).ok());
                    let seen = seen.map(|seen| graph.to_node(seen));
                    found.push(format!("{index}{}", mark(seen.as_ref().unwrap_or(item))));
                }
            }
            found
        }
        _ => vec![],
    }
}

/// A value as the shell shows it: Python's text, `true` and `false` small, nothing for null.
fn value_text(key: &str, node: &Node) -> Option<String> {
    match &node.value {
        Value::Null => None,
        Value::Bool(value) => Some(value.to_string()),
        // An enumeration to Hydra, which prints its full name.
        Value::Str(mode) if key == "hydra.mode" => Some(format!("RunMode.{mode}")),
        _ => Some(str_of(node)),
    }
}
