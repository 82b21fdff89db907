//! Messages for keys that do not exist: what was probably meant, beside it, elsewhere in the tree, or among the groups.

use super::refused;
use crate::config::defaults_list::shortened;
use crate::config::override_grammar::{Element, Override};
use crate::config::repository::ConfigRepository;
use crate::diag::Diagnostic;
use crate::diag::suggest::did_you_mean;
use crate::yaml::python_text::key_text;
use crate::yaml::{Key, Node};

/// Keys elsewhere in the tree that are offered.
const OFFERED: usize = 3;

/// The message for a key that does not exist: the nearest one, and how to add it.
pub(super) fn unknown_key(
    root: &Node,
    word: &Override,
    parent: &[Key],
    part: &str,
    repository: &ConfigRepository,
) -> Diagnostic {
    let parent: Vec<String> = parent.iter().map(key_text).collect();
    let with = |last: &str| {
        let mut path = parent.clone();
        path.push(last.to_owned());
        path.join(".")
    };
    let full = with(part);
    let mut diagnostic = refused(if full == word.key {
        format!("there is no `{}`", word.key)
    } else {
        format!("there is no `{full}`, so `{}` cannot be changed", word.key)
    });
    let value = &word.input[word.value_offset.min(word.input.len())..];
    let siblings: Vec<String> = at(root, &parent)
        .and_then(Node::as_map)
        .map(|mapping| mapping.keys().map(key_text).collect())
        .unwrap_or_default();
    let rest = word.key.strip_prefix(&full).unwrap_or("");
    let meant = did_you_mean(part, siblings.iter().map(String::as_str))
        .map(|near| format!("{}{rest}", with(near)))
        // A sibling that looks alike and has no such key below it helps nobody.
        .filter(|key| rest.is_empty() || root.descendant(key).is_some());
    let group = group_meant(word, repository);
    let others = elsewhere(root, &word.key);
    if let Some(key) = meant {
        diagnostic = diagnostic.hint(format!("did you mean `{key}={value}`?"));
    } else if let Some(group) = group {
        diagnostic = diagnostic.hint(format!("did you mean `{group}`?"));
    } else if !others.is_empty() {
        let others: Vec<String> = others
            .iter()
            .map(|key| format!("`{key}={value}`"))
            .collect();
        diagnostic = diagnostic.hint(format!("did you mean {}?", others.join(" or ")));
    } else if !siblings.is_empty() && !parent.is_empty() {
        let names: Vec<&str> = siblings.iter().map(String::as_str).collect();
        diagnostic = diagnostic.note(format!(
            "keys of `{}`: {}",
            parent.join("."),
            shortened(&names)
        ));
    }
    if word.key.contains('/') {
        let groups = repository.groups("");
        let first = word.key.split('/').next().unwrap_or("");
        diagnostic = match did_you_mean(first, groups.iter().map(String::as_str)) {
            Some(near) if near != first => {
                diagnostic.hint(format!("did you mean the group `{near}`?"))
            }
            _ => diagnostic.note(format!("there is no group `{}`", word.key)),
        };
        return diagnostic;
    }
    let plain = word.input.trim_start_matches(['+', '~']);
    diagnostic.hint(format!("to add a new key, write `+{plain}`"))
}

fn at<'n>(root: &'n Node, path: &[String]) -> Option<&'n Node> {
    path.iter().try_fold(root, |node, part| node.child(part))
}

/// `t5=squad` for the group `prompt_learning/t5`, `squad=…` for an option: the word that chooses it.
fn group_meant(word: &Override, repository: &ConfigRepository) -> Option<String> {
    let option = word.element().and_then(Element::as_text)?;
    if word.key.contains(['.', '/']) {
        return None;
    }
    let groups = repository.groups("");
    for group in &groups {
        if repository.groups(group).contains(&word.key) {
            let options = repository.options(&format!("{group}/{}", word.key));
            let near = did_you_mean(option, options.iter().map(String::as_str))?;
            return Some(format!("{group}={}/{near}", word.key));
        }
    }
    let near = did_you_mean(&word.key, groups.iter().map(String::as_str))?;
    Some(format!("{near}={option}"))
}

/// Keys elsewhere in the tree that end in what was typed (`optim.lr` is at `prompt_learning.model.optim.lr`), else
/// those whose last part is the same or nearly so.
fn elsewhere(root: &Node, key: &str) -> Vec<String> {
    let mut keys = vec![];
    if let Some(mapping) = root.as_map() {
        for (name, node) in mapping {
            if name.as_str() != Some("hydra") {
                collect(node, &key_text(name), &mut keys);
            }
        }
    }
    let last = key.rsplit('.').next().unwrap_or(key);
    let ends_in = |text: &str| -> Vec<String> {
        let dotted = format!(".{text}");
        keys.iter()
            .filter(|known| known.ends_with(&dotted))
            .cloned()
            .collect()
    };
    let mut found = ends_in(key);
    if found.is_empty() {
        found = ends_in(last);
        // Of several with that last part, those that share more of what was typed.
        let shared = |known: &str| {
            key.split('.')
                .filter(|part| known.split('.').any(|k| k == *part))
                .count()
        };
        let best = found.iter().map(|known| shared(known)).max().unwrap_or(0);
        found.retain(|known| shared(known) == best);
    }
    if found.is_empty() {
        let leaves = keys
            .iter()
            .map(|known| known.rsplit('.').next().unwrap_or(known));
        if let Some(near) = did_you_mean(last, leaves).filter(|near| differs_by_a_slip(last, near))
        {
            found = ends_in(near);
        }
    }
    found.truncate(OFFERED);
    found
}

/// Far from where it was typed, a key must look very much alike to be offered.
fn differs_by_a_slip(typed: &str, near: &str) -> bool {
    typed.len() > 3 && strsim::damerau_levenshtein(typed, near) <= 2
}

fn collect(node: &Node, path: &str, keys: &mut Vec<String>) {
    keys.push(path.to_owned());
    if let Some(mapping) = node.as_map() {
        for (key, child) in mapping {
            collect(child, &format!("{path}.{}", key_text(key)), keys);
        }
    }
}
