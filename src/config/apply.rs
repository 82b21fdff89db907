//! Value overrides of the command line onto the merged tree: change, add, force-add, delete.
//!
//! Follows `ConfigLoaderImpl._apply_overrides_to_config` and `OmegaConf.update`: the tree is closed (*struct mode*), so
//! `key=value` needs a key that exists.

use super::interpolation::resolve::split_key;
use super::interpolation::{Graph, ResolverContext};
use super::merge::{MergeError, merge_at};
use super::override_grammar::{Override, OverrideKind};
use super::repository::{check_interpolations, placed};
use crate::diag::Diagnostic;
use crate::diag::source::{Origin, SourceMap};
use crate::diag::suggest::did_you_mean;
use crate::yaml::python_text::{key_text, parse_int, repr_of, str_of};
use crate::yaml::{Integer, Key, Mapping, Node, Value};

/// What went wrong with one word.
enum Refused {
    /// The key does not exist: all of these are reported together.
    Unknown(Diagnostic),
    Other(Diagnostic),
}

/// Applies words in their order; unknown keys are reported all at once.
pub(crate) fn apply(
    root: &mut Node,
    words: &[(&Override, Origin)],
    texts: &SourceMap,
) -> Result<(), Diagnostic> {
    let mut unknown = vec![];
    for (word, origin) in words {
        match apply_one(root, word, *origin, texts) {
            Ok(()) => {}
            Err(Refused::Unknown(diagnostic)) => unknown.push(placed(diagnostic, *origin, texts)),
            Err(Refused::Other(diagnostic)) => {
                unknown.push(placed(diagnostic, *origin, texts));
                break;
            }
        }
    }
    match super::report::together(unknown) {
        Some(diagnostic) => Err(diagnostic),
        None => Ok(()),
    }
}

fn refused(title: impl Into<String>) -> Diagnostic {
    Diagnostic::configuration(title).code("ConfigCompositionException")
}

fn other<T>(diagnostic: Diagnostic) -> Result<T, Refused> {
    Err(Refused::Other(diagnostic))
}

fn set_origin(node: &mut Node, origin: Origin) {
    node.origin = origin;
    match &mut node.value {
        Value::Map(mapping) => mapping
            .values_mut()
            .for_each(|child| set_origin(child, origin)),
        Value::List(items) => items.iter_mut().for_each(|child| set_origin(child, origin)),
        _ => {}
    }
}

fn apply_one(
    root: &mut Node,
    word: &Override,
    origin: Origin,
    texts: &SourceMap,
) -> Result<(), Refused> {
    if word.package.is_some() {
        return other(no_such_group(word));
    }
    let key = &word.key;
    let value = match word.element() {
        Some(element) => {
            let mut node = element.to_node();
            set_origin(&mut node, origin);
            check_interpolations(&node, key, texts).map_err(|mut diagnostic| {
                diagnostic.code = Some("ConfigCompositionException");
                Refused::Other(diagnostic)
            })?;
            if has_null_key(&node) {
                return other(refused(format!("`{}`: null cannot be a key", word.input)));
            }
            Some(node)
        }
        None => None,
    };
    match word.kind {
        OverrideKind::Delete => delete(root, word, value.as_ref()),
        OverrideKind::Add => {
            let value = value.unwrap_or_else(Node::empty_map);
            let existing = select(root, key).map_err(Refused::Other)?;
            if !value.is_container()
                && let Some(existing) = existing
                && !existing.is_null()
            {
                return other(
                    refused(format!(
                        "`{key}` exists already, and `+` adds what does not"
                    ))
                    .note(format!("it is {}", shortened(&repr_of(&existing))))
                    .hint(format!("to change it, write `{}`", &word.input[1..]))
                    .hint(format!("to add or change it, write `+{}`", word.input)),
                );
            }
            update(root, word, value, true)
        }
        OverrideKind::ForceAdd => {
            let value = value.unwrap_or_else(Node::empty_map);
            update(root, word, value, true)
        }
        OverrideKind::Change => {
            let value = value.unwrap_or_else(Node::empty_map);
            update(root, word, value, false)
        }
    }
}

fn has_null_key(node: &Node) -> bool {
    match &node.value {
        Value::Map(mapping) => {
            mapping.contains_key(&Key::Null) || mapping.values().any(has_null_key)
        }
        Value::List(items) => items.iter().any(has_null_key),
        _ => false,
    }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= 60 {
        text.to_owned()
    } else {
        text.chars().take(60).chain("…".chars()).collect()
    }
}

fn no_such_group(word: &Override) -> Diagnostic {
    refused(format!(
        "`{}` looks like the choice of a group, and there is no group `{}`",
        word.input, word.key
    ))
}

/// The value at a key, interpolations resolved; nothing where it is absent or `???`.
fn select(root: &Node, key: &str) -> Result<Option<Node>, Diagnostic> {
    let (mut graph, id) = Graph::new(root, ResolverContext::default());
    match graph.select(id, key) {
        Ok(found) => Ok(found.map(|id| graph.to_node(id))),
        Err(error) => Err(refused(format!("`{key}` cannot be resolved: {error}"))),
    }
}

/// `OmegaConf.update(config, key, value, merge=True, force_add=…)`.
fn update(root: &mut Node, word: &Override, value: Node, force: bool) -> Result<(), Refused> {
    let parts = split_key(&word.key);
    let (last, leading) = parts
        .split_last()
        .expect("splitting gives at least one part");
    let mut path: Vec<Key> = vec![];
    for part in leading {
        let parent =
            super::merge::find_mut(root, &path).expect("every parent was just seen or made");
        let known = match &mut parent.value {
            Value::Map(mapping) => mapping.contains_key(part.as_str()),
            Value::List(items) => {
                let length = items.len();
                if index_of(part).is_none() {
                    return other(not_an_index(word, part, length));
                }
                index_of(part).is_some_and(|index| index < length)
            }
            _ => false,
        };
        if !known {
            if parent.as_list().is_some() {
                return other(out_of_range(word, part));
            }
            if !force {
                return Err(Refused::Unknown(unknown_key(root, word, &path, part)));
            }
        }
        let parent =
            super::merge::find_mut(root, &path).expect("every parent was just seen or made");
        let empty = Node {
            value: Value::Map(Mapping::new()),
            origin: value.origin,
        };
        match &mut parent.value {
            Value::Map(mapping) => {
                let child = mapping
                    .entry(Key::from(part.as_str()))
                    .or_insert_with(|| empty.clone());
                if !child.is_container() {
                    *child = empty;
                }
                path.push(Key::from(part.as_str()));
            }
            Value::List(items) => {
                let index = index_of(part).unwrap_or(0);
                if let Some(child) = items.get_mut(index)
                    && !child.is_container()
                {
                    *child = empty;
                }
                path.push(Key::Int(Integer::Small(index as i128)));
            }
            _ => {}
        }
    }
    let parent = super::merge::find_mut(root, &path).expect("every parent was just seen or made");
    match &mut parent.value {
        Value::List(items) => {
            let Some(index) = index_of(last) else {
                let length = items.len();
                return other(not_an_index(word, last, length));
            };
            if index >= items.len() {
                return other(out_of_range(word, last));
            }
            path.push(Key::Int(Integer::Small(index as i128)));
        }
        Value::Map(mapping) => {
            if !mapping.contains_key(last.as_str()) {
                if !force {
                    return Err(Refused::Unknown(unknown_key(root, word, &path, last)));
                }
                mapping.insert(Key::from(last.as_str()), value);
                return Ok(());
            }
            path.push(Key::from(last.as_str()));
        }
        _ => {}
    }
    let child = super::merge::find_mut(root, &path).expect("the key was just seen");
    if value.is_container() && child.is_container() {
        return merge_at(root, &path, &value, !force, &ResolverContext::default())
            .map_err(|error| merge_refused(word, error));
    }
    *child = value;
    Ok(())
}

fn index_of(part: &str) -> Option<usize> {
    match parse_int(part)? {
        Integer::Small(index) => usize::try_from(index).ok(),
        Integer::Large(_) => None,
    }
}

fn not_an_index(word: &Override, part: &str, length: usize) -> Diagnostic {
    Diagnostic::configuration(format!(
        "`{}`: this is a list of {length} items, and `{part}` is not the number of one",
        word.key
    ))
    .code("ValueError")
}

fn out_of_range(word: &Override, part: &str) -> Diagnostic {
    refused(format!("`{}`: the list has no item {part}", word.key))
        .hint("a list is replaced as a whole: `key=[a,b]`")
}

fn merge_refused(word: &Override, error: MergeError) -> Refused {
    match error {
        MergeError::NotInStruct {
            path, key, known, ..
        } => {
            let mut diagnostic = refused(format!("there is no `{path}`"));
            if let Some(near) = did_you_mean(&key, known.iter().map(String::as_str)) {
                diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
            }
            Refused::Unknown(diagnostic.hint(format!("to add it, write `+{}`", word.input)))
        }
        MergeError::Kinds {
            path, here, there, ..
        } => Refused::Other(refused(format!(
            "`{path}` is a {there} and cannot become a {here}"
        ))),
    }
}

/// The message for a key that does not exist: the nearest one, and how to add it.
fn unknown_key(root: &Node, word: &Override, parent: &[Key], part: &str) -> Diagnostic {
    let at = |path: &[Key]| {
        let mut node = Some(root);
        for key in path {
            node = node.and_then(|node| node.child(&key_text(key)));
        }
        node
    };
    let mut full: Vec<String> = parent.iter().map(key_text).collect();
    full.push(part.to_owned());
    let full = full.join(".");
    let mut diagnostic = refused(if full == word.key {
        format!("there is no `{}`", word.key)
    } else {
        format!("there is no `{full}`, so `{}` cannot be changed", word.key)
    });
    let siblings: Vec<String> = at(parent)
        .and_then(Node::as_map)
        .map(|mapping| mapping.keys().map(key_text).collect())
        .unwrap_or_default();
    let rest = word.key.strip_prefix(&full).unwrap_or("");
    if let Some(near) = did_you_mean(part, siblings.iter().map(String::as_str)) {
        let mut path: Vec<String> = parent.iter().map(key_text).collect();
        path.push(near.to_owned());
        diagnostic = diagnostic.hint(format!("did you mean `{}{rest}`?", path.join(".")));
    } else if let Some(found) = elsewhere(root, &word.key) {
        diagnostic = diagnostic.hint(format!("did you mean `{found}`?"));
    } else if !siblings.is_empty() && !parent.is_empty() {
        let names: Vec<&str> = siblings.iter().map(String::as_str).collect();
        diagnostic = diagnostic.note(format!(
            "keys of `{}`: {}",
            super::merge::path_text(parent),
            super::defaults_list::shortened(&names)
        ));
    }
    if word.key.contains('/') {
        diagnostic = diagnostic.note(format!("there is no group `{}`", word.key));
    }
    let plain = word.input.trim_start_matches(['+', '~']);
    diagnostic.hint(format!("to add a new key, write `+{plain}`"))
}

/// A key below some section that ends in the words that were typed (`trainer.max_steps` is at
/// `prompt_learning.trainer.max_steps`).
fn elsewhere(root: &Node, key: &str) -> Option<String> {
    let mapping = root.as_map()?;
    mapping.iter().find_map(|(section, node)| {
        let section = section.as_str()?;
        node.as_map()?;
        node.descendant(key).map(|_| format!("{section}.{key}"))
    })
}

fn delete(root: &mut Node, word: &Override, value: Option<&Node>) -> Result<(), Refused> {
    let key = &word.key;
    let existing = select(root, key).map_err(Refused::Other)?;
    let Some(existing) = existing.filter(|node| !node.is_null()) else {
        return Err(Refused::Unknown(delete_unknown(root, word)));
    };
    if let Some(value) = value.filter(|value| !value.is_null())
        && !python_equal(&existing, value)
    {
        return other(refused(format!(
            "`{key}` is {} and not {}, so it is not deleted",
            shortened(&str_of(&existing)),
            shortened(&str_of(value))
        )));
    }
    if super::hydra_schema::is_fixed(key) {
        return other(refused(format!(
            "`{key}` is a fixed part of the configuration and cannot be deleted"
        )));
    }
    let (parent, last) = key.rsplit_once('.').unwrap_or(("", key));
    let parts: Vec<Key> = if parent.is_empty() {
        vec![]
    } else {
        split_key(parent)
            .iter()
            .map(|part| Key::from(part.as_str()))
            .collect()
    };
    match super::merge::find_mut(root, &parts).map(|node| &mut node.value) {
        Some(Value::Map(mapping)) => {
            mapping.shift_remove(last);
            Ok(())
        }
        Some(Value::List(_)) => other(
            Diagnostic::configuration(format!("`{key}`: an item of a list cannot be deleted"))
                .code("TypeError")
                .hint("a list is replaced as a whole: `key=[a,b]`"),
        ),
        _ => Err(Refused::Unknown(delete_unknown(root, word))),
    }
}

fn delete_unknown(root: &Node, word: &Override) -> Diagnostic {
    let mut diagnostic = refused(format!("there is no `{}` to delete", word.key));
    let (parent, last) = word.key.rsplit_once('.').unwrap_or(("", &word.key));
    if root.descendant(&word.key).is_some() {
        return diagnostic.note("its value is null or ???, which counts as absent");
    }
    if let Some(mapping) = root.descendant(parent).and_then(Node::as_map) {
        let names: Vec<String> = mapping.keys().map(key_text).collect();
        if let Some(near) = did_you_mean(last, names.iter().map(String::as_str)) {
            let dot = if parent.is_empty() { "" } else { "." };
            diagnostic = diagnostic.hint(format!("did you mean `~{parent}{dot}{near}`?"));
        }
    }
    diagnostic
}

/// Python's `==`.
fn python_equal(a: &Node, b: &Node) -> bool {
    let number = |value: &Value| match value {
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Int(value) => Some(value.to_f64()),
        Value::Float(value) => Some(*value),
        _ => None,
    };
    match (&a.value, &b.value) {
        (Value::Null, Value::Null) => true,
        (Value::Str(a), Value::Str(b)) => a == b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| python_equal(a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| python_equal(a, b)))
        }
        (a, b) => number(a).is_some_and(|a| number(b) == Some(a)),
    }
}
