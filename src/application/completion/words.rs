//! Words of the configuration as ptune completes them. Where Hydra lists every folder as a group, these are the ones
//! that the defaults list knows (others only after `+`), options in folders below the group are options too
//! (`prompt_learning=t5/squad`), lists are completed item by item, and values come with quotes where they need them.

use super::candidates::Situation;
use super::helpful::{Candidate, KnownValues, paths};
use crate::config::interpolation::{Graph, NodeId};
use crate::config::override_grammar::{Element, OverrideValue, parse_override};
use crate::config::{Config, ConfigRepository};
use crate::yaml::python_text::key_text;
use crate::yaml::{Node, Value};

/// Folders below a group are looked into this far.
const DEPTH: usize = 4;

/// What can follow, without order.
pub(super) fn of(
    situation: &Situation<'_>,
    known: &[KnownValues<'_>],
    word: &str,
) -> Vec<Candidate> {
    let body = word.trim_start_matches(['+', '~']);
    let (prefix, body) = word.split_at(word.len() - body.len());
    if !matches!(prefix, "" | "+" | "++" | "~") {
        return vec![];
    }
    let mut found = match body.split_once('=') {
        Some((key, value)) => {
            let mut values = after_equals(situation, known, key, value);
            if values.is_empty() && !value.is_empty() {
                values = paths(value, false);
            }
            let before = format!("{key}=");
            for candidate in &mut values {
                candidate.text.insert_str(0, &before);
            }
            values
        }
        None => {
            let config = situation.compose_what_works();
            let mut found = groups(situation, config.as_ref(), prefix, body);
            if let Some(config) = &config {
                found.extend(config_keys(config, prefix, body));
            }
            found
        }
    };
    for candidate in &mut found {
        candidate.text.insert_str(0, prefix);
    }
    found
}

/// Keys without what a word does with them, for `--package` and `config explain`.
pub(super) fn keys(situation: &Situation<'_>, word: &str) -> Vec<Candidate> {
    let Some(config) = situation.compose_what_works() else {
        return vec![];
    };
    let mut found = config_keys(&config, "~", word);
    // A mapping is a key too.
    if let Some(parent) = word.strip_suffix('.')
        && config
            .full()
            .descendant(parent)
            .is_some_and(Node::is_container)
    {
        found.push(Candidate::whole(parent, "all of it"));
    }
    found
}

fn after_equals(
    situation: &Situation<'_>,
    known: &[KnownValues<'_>],
    key: &str,
    value: &str,
) -> Vec<Candidate> {
    let group = key.split_once('@').map_or(key, |(group, _)| group);
    let options = options_below(situation.repository(), group, DEPTH);
    if !options.is_empty() {
        return items(&options, value);
    }
    if value.starts_with(['.', '/', '~']) {
        return paths(value, false);
    }
    if let Some(known) = known.iter().find(|known| known.key == key) {
        let values: Vec<String> = known
            .values
            .iter()
            .map(|value| (*value).to_owned())
            .collect();
        let value = match value {
            "" if known.is_list => "[",
            _ => value,
        };
        return items(&values, value);
    }
    let Some(config) = situation.compose_what_works() else {
        return vec![];
    };
    let Ok(Some(node)) = config.select(key) else {
        return vec![];
    };
    let values = match &node.value {
        Value::Null => vec![],
        Value::Bool(_) => vec!["true".to_owned(), "false".to_owned()],
        _ => word_of(&node).into_iter().collect(),
    };
    values
        .into_iter()
        .filter(|text| text.starts_with(value))
        .map(|text| Candidate::whole(text, ""))
        .collect()
}

/// Names of options in a group and in the folders below it.
fn options_below(repository: &ConfigRepository, group: &str, depth: usize) -> Vec<String> {
    if group.is_empty() || group.split('/').any(|part| part == "..") || depth == 0 {
        return vec![];
    }
    let mut found = repository.options(group);
    for folder in repository.groups(group) {
        let below = options_below(repository, &format!("{group}/{folder}"), depth - 1);
        found.extend(below.into_iter().map(|option| format!("{folder}/{option}")));
    }
    found
}

/// The names that can follow in `name`, `[name,name` or `name,name`; none twice.
fn items(names: &[String], value: &str) -> Vec<Candidate> {
    let head = value.rfind(['[', ',']).map_or("", |at| &value[..=at]);
    let tail = value[head.len()..].trim_start();
    let given: Vec<&str> = head.split(['[', ',']).map(str::trim).collect();
    let names: Vec<&String> = names
        .iter()
        .filter(|name| name.starts_with(tail) && !given.contains(&name.as_str()))
        .collect();
    if !head.starts_with('[') {
        let whole = |name: &&String| Candidate::whole(format!("{head}{name}"), "");
        return names.iter().map(whole).collect();
    }
    match names[..] {
        // The list goes on or ends.
        [name] => vec![
            Candidate::open(format!("{head}{name},"), "and more"),
            Candidate::whole(format!("{head}{name}]"), "the last"),
        ],
        _ => names
            .iter()
            .map(|name| Candidate::open(format!("{head}{name}"), ""))
            .collect(),
    }
}

/// Groups that begin as the word does: for `+` those that the defaults list does not have, else those that it has.
fn groups(
    situation: &Situation<'_>,
    config: Option<&Config>,
    prefix: &str,
    body: &str,
) -> Vec<Candidate> {
    if prefix == "++" || body.contains('.') {
        return vec![];
    }
    let repository = situation.repository();
    let parent = body.rsplit_once('/').map_or("", |(parent, _)| parent);
    let mut found = vec![];
    for folder in repository.groups(parent) {
        let name = if parent.is_empty() {
            folder
        } else {
            format!("{parent}/{folder}")
        };
        if !name.starts_with(body) {
            continue;
        }
        let has_options = !options_below(repository, &name, DEPTH).is_empty();
        let has_groups = !repository.groups(&name).is_empty();
        let (is_group, leads_on) = match config {
            Some(config) => {
                let mut keys = config.choices().keys();
                let has_below = keys.any(|key| {
                    key.strip_prefix(&name)
                        .is_some_and(|rest| rest.starts_with('/'))
                });
                let is_known = config.choices().contains_key(&name);
                if prefix == "+" {
                    (has_options && !is_known && !has_below, has_groups)
                } else {
                    (is_known, has_below)
                }
            }
            None => (has_options, has_groups),
        };
        if is_group {
            let chosen = config.and_then(|config| config.choice(&name));
            found.push(group(prefix, &name, chosen));
        }
        if leads_on {
            found.push(Candidate::open(format!("{name}/"), "groups"));
        }
    }
    if prefix != "+"
        && let Some(config) = config
    {
        // `db@source`, which no folder is called.
        let packaged = config.choices().iter().filter(|(key, _)| {
            key.contains('@') && key.starts_with(body) && !key[body.len()..].contains('/')
        });
        found.extend(packaged.map(|(key, chosen)| group(prefix, key, chosen.as_deref())));
    }
    found
}

fn group(prefix: &str, name: &str, chosen: Option<&str>) -> Candidate {
    let about = chosen.map_or_else(
        || "group".to_owned(),
        |chosen| format!("group, now {chosen}"),
    );
    if prefix == "~" {
        Candidate::whole(name, about)
    } else {
        Candidate::open(format!("{name}="), about)
    }
}

/// Keys that begin as the word does, of the mapping before its last dot.
fn config_keys(config: &Config, prefix: &str, body: &str) -> Vec<Candidate> {
    let (mut graph, root) = Graph::new(config.full(), config.context());
    let (parent, dot, start) = match body.rfind('.') {
        Some(at) => (&body[..at], ".", &body[at + 1..]),
        None => ("", "", body),
    };
    let Ok(Some(id)) = graph.select_from(root, parent, false) else {
        return vec![];
    };
    let children: Vec<(String, NodeId)> = match graph.to_node(id).value {
        Value::Map(mapping) => mapping.keys().map(key_text).collect(),
        Value::List(items) => (0..items.len())
            .map(|index| index.to_string())
            .collect::<Vec<_>>(),
        _ => vec![],
    }
    .into_iter()
    .filter(|name| name.starts_with(start) && is_plain(name))
    .filter_map(|name| Some((name.clone(), graph.find(id, &name)?)))
    .collect();
    let mut found = vec![];
    for (name, child) in children {
        let seen = graph.dereference(child).unwrap_or(child);
        let node = graph.to_node(seen);
        let text = format!("{parent}{dot}{name}");
        let leads_on = match &node.value {
            Value::Map(mapping) => !mapping.is_empty(),
            Value::List(items) => items.iter().any(Node::is_container),
            _ => false,
        };
        if leads_on {
            found.push(Candidate::open(format!("{text}."), ""));
        } else if prefix == "~" {
            found.push(Candidate::whole(text, about(&node)));
        } else if prefix != "+" || matches!(&node.value, Value::Map(_)) {
            found.push(Candidate::open(format!("{text}="), about(&node)));
        }
    }
    found
}

/// Whether a key can stand in a word as it is.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

fn about(node: &Node) -> String {
    const LENGTH: usize = 40;
    if node.is_missing() {
        return "must be given".to_owned();
    }
    let Some(text) = word_of(node) else {
        return String::new();
    };
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().count() > LENGTH {
        format!("now {}…", text.chars().take(LENGTH).collect::<String>())
    } else {
        format!("now {text}")
    }
}

/// A value as a word gives it, so that it is read back equal; nothing where no word can.
fn word_of(node: &Node) -> Option<String> {
    match &node.value {
        Value::Null => Some("null".to_owned()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Int(value) => Some(value.to_string()),
        Value::Float(value) => Some(crate::yaml::python_text::float_repr(*value)),
        Value::Str(_) if node.is_missing() => None,
        Value::Str(text) => {
            let is_read_back = matches!(
                parse_override(&format!("k={text}")).map(|word| word.value),
                Ok(Some(OverrideValue::Element(Element::Text(read)))) if read == *text
            );
            if is_read_back && !text.contains([',', '\n']) {
                Some(text.clone())
            } else {
                Some(Element::Quoted(text.clone(), '\'').to_word())
            }
        }
        Value::List(items) => {
            let items: Option<Vec<String>> = items.iter().map(word_of).collect();
            Some(format!("[{}]", items?.join(",")))
        }
        Value::Map(_) | Value::Bytes(_) => None,
    }
}
