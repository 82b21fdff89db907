//! `~key` and `~key=value`.

use super::{other, refused, select, shortened};
use crate::config::interpolation::resolve::split_key;
use crate::config::override_grammar::Override;
use crate::diag::Diagnostic;
use crate::diag::suggest::did_you_mean;
use crate::yaml::python_text::{key_text, str_of};
use crate::yaml::{Key, Node, Value};

pub(super) fn delete(
    root: &mut Node,
    word: &Override,
    value: Option<&Node>,
) -> Result<(), Diagnostic> {
    let key = &word.key;
    let existing = select(root, key)?;
    let Some(existing) = existing.filter(|node| !node.is_null()) else {
        return Err(delete_unknown(root, word));
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
    if crate::config::hydra_schema::is_fixed(key) {
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
    match crate::config::merge::find_mut(root, &parts).map(|node| &mut node.value) {
        Some(Value::Map(mapping)) => {
            mapping.shift_remove(last);
            Ok(())
        }
        Some(Value::List(_)) => other(
            Diagnostic::configuration(format!("`{key}`: an item of a list cannot be deleted"))
                .code("TypeError")
                .hint("a list is replaced as a whole: `key=[a,b]`"),
        ),
        _ => Err(delete_unknown(root, word)),
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
