//! Value overrides of the command line onto the merged tree: change, add, force-add, delete.
//!
//! Follows `ConfigLoaderImpl._apply_overrides_to_config` and `OmegaConf.update`: the tree is closed (*struct mode*), so
//! `key=value` needs a key that exists.

mod delete;
mod unknown;

use super::interpolation::resolve::split_key;
use super::interpolation::{Graph, ResolverContext};
use super::merge::{MergeError, merge_at};
use super::override_grammar::{Element, Override, OverrideKind};
use super::report::Report;
use super::repository::{ConfigRepository, check_interpolations, placed};
use crate::diag::Diagnostic;
use crate::diag::source::Origin;
use crate::diag::suggest::did_you_mean;
use crate::yaml::python_text::{parse_int, repr_of};
use crate::yaml::{Integer, Key, Mapping, Node, Value};
use delete::delete;
use unknown::unknown_key;

/// Applies words in their order; whatever is wrong with them is reported all at once, in that order. Gives warnings.
pub(crate) fn apply(
    root: &mut Node,
    words: &[(&Override, Origin)],
    repository: &ConfigRepository,
    report: &mut Report,
) -> Vec<String> {
    let texts = repository.texts();
    let mut warnings = vec![];
    for (word, origin) in words {
        warnings.extend(python_habit(root, word));
        let Err(problem) = apply_one(root, word, *origin, repository) else {
            continue;
        };
        report.add(placed(problem, *origin, texts));
    }
    warnings
}

/// Words that YAML or Python would read as something else than the text that they are here.
fn python_habit(root: &Node, word: &Override) -> Option<String> {
    let Some(Element::Text(text)) = word.element() else {
        return None;
    };
    let was_bool = || matches!(root.descendant(&word.key)?.value, Value::Bool(_)).then_some(());
    let meant = match text.as_str() {
        "None" => "null",
        "yes" | "Yes" | "on" | "On" => was_bool().map(|()| "true")?,
        "no" | "No" | "off" | "Off" => was_bool().map(|()| "false")?,
        _ => return None,
    };
    let key = &word.input[..word.value_offset];
    Some(format!(
        "`{}` sets the text `{text}`: write `{key}{meant}`, or `{key}'{text}'` if a text is meant",
        word.input
    ))
}

fn refused(title: impl Into<String>) -> Diagnostic {
    Diagnostic::configuration(title).code("ConfigCompositionException")
}

fn other<T>(diagnostic: Diagnostic) -> Result<T, Diagnostic> {
    Err(diagnostic)
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
    repository: &ConfigRepository,
) -> Result<(), Diagnostic> {
    let texts = repository.texts();
    if word.package.is_some() {
        return other(no_such_group(word, repository));
    }
    let key = &word.key;
    let value = match word.element() {
        Some(element) => {
            let mut node = element.to_node();
            set_origin(&mut node, origin);
            check_interpolations(&node, key, texts).map_err(|mut diagnostic| {
                diagnostic.code = Some("ConfigCompositionException");
                diagnostic
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
            let existing = select(root, key)?;
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
            update(root, word, value, true, repository)
        }
        OverrideKind::ForceAdd => {
            let value = value.unwrap_or_else(Node::empty_map);
            update(root, word, value, true, repository)
        }
        OverrideKind::Change => {
            let value = value.unwrap_or_else(Node::empty_map);
            update(root, word, value, false, repository)
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

fn no_such_group(word: &Override, repository: &ConfigRepository) -> Diagnostic {
    let diagnostic = refused(format!(
        "`{}` looks like the choice of a group, and there is no group `{}`",
        word.input, word.key
    ));
    let groups = repository.groups("");
    match did_you_mean(&word.key, groups.iter().map(String::as_str)) {
        Some(near) => diagnostic.hint(format!("did you mean the group `{near}`?")),
        None => diagnostic,
    }
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
fn update(
    root: &mut Node,
    word: &Override,
    value: Node,
    force: bool,
    repository: &ConfigRepository,
) -> Result<(), Diagnostic> {
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
                    return other(not_an_index(word, part, length).code("TypeError"));
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
                return Err(unknown_key(root, word, &path, part, repository));
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
                return other(not_an_index(word, last, length).code("ValueError"));
            };
            if index >= items.len() {
                return other(out_of_range(word, last));
            }
            path.push(Key::Int(Integer::Small(index as i128)));
        }
        Value::Map(mapping) => {
            if !mapping.contains_key(last.as_str()) {
                if !force {
                    return Err(unknown_key(root, word, &path, last, repository));
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
}

fn out_of_range(word: &Override, part: &str) -> Diagnostic {
    refused(format!("`{}`: the list has no item {part}", word.key))
        .hint("a list is replaced as a whole: `key=[a,b]`")
}

fn merge_refused(word: &Override, error: MergeError) -> Diagnostic {
    match error {
        MergeError::NotInStruct {
            path, key, known, ..
        } => {
            let mut diagnostic = refused(format!("there is no `{path}`"));
            if let Some(near) = did_you_mean(&key, known.iter().map(String::as_str)) {
                diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
            }
            diagnostic.hint(format!("to add it, write `+{}`", word.input))
        }
        MergeError::Kinds {
            path, here, there, ..
        } => refused(format!("`{path}` is a {there} and cannot become a {here}")),
    }
}
