//! Merging one tree into another by the rules of OmegaConf; every value keeps the place it was written at.

use super::interpolation::{Graph, ResolverContext};
use crate::diag::source::Origin;
use crate::yaml::python_text::key_text;
use crate::yaml::{Key, Mapping, Node, Value};

/// Why a merge was refused.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum MergeError {
    /// A list where a mapping stands, or the other way round.
    #[error("`{path}` is a {here} here and a {there} elsewhere")]
    Kinds {
        path: String,
        here: &'static str,
        there: &'static str,
        here_origin: Origin,
        there_origin: Origin,
    },
    /// A new key where only known keys are allowed.
    #[error("there is no `{path}`")]
    NotInStruct {
        path: String,
        key: String,
        known: Vec<String>,
        origin: Origin,
    },
}

enum Problem {
    Refused(MergeError),
    /// The destination is an interpolation and the source a container: the target decides.
    Expand(Vec<Key>),
}

fn kind(node: &Node) -> &'static str {
    match &node.value {
        Value::List(_) => "list",
        Value::Map(_) => "mapping",
        _ => "single value",
    }
}

/// A path as messages show it.
pub(crate) fn path_text(path: &[Key]) -> String {
    path.iter().map(key_text).collect::<Vec<_>>().join(".")
}

/// Merges `source` into the node at `at` of `root`. With `closed`, mappings take no new keys.
pub(crate) fn merge_at(
    root: &mut Node,
    at: &[Key],
    source: &Node,
    closed: bool,
    context: &ResolverContext<'_>,
) -> Result<(), MergeError> {
    // A merge can be repeated from its start without another result, so an interpolation in the way is replaced by its
    // target and the merge begun again.
    loop {
        let mut path = at.to_vec();
        let Some(dest) = find_mut(root, at) else {
            return Ok(());
        };
        match merge_node(dest, source, closed, &mut path) {
            Ok(()) => return Ok(()),
            Err(Problem::Refused(error)) => return Err(error),
            Err(Problem::Expand(path)) => {
                let replacement = expand(root, &path, context);
                if let Some(node) = find_mut(root, &path) {
                    *node = replacement;
                }
            }
        }
    }
}

/// The container that an interpolation stands for, or null where it stands for none.
fn expand(root: &Node, path: &[Key], context: &ResolverContext<'_>) -> Node {
    let (mut graph, id) = Graph::new(root, context.clone());
    let key: Vec<String> = path
        .iter()
        .map(|key| format!("[{}]", key_text(key)))
        .collect();
    match graph.select(id, &key.join("")) {
        Ok(Some(target)) => {
            let node = graph.to_node(target);
            if node.is_container() {
                return node;
            }
            Node::computed(Value::Null)
        }
        Ok(None) | Err(_) => Node::computed(Value::Null),
    }
}

pub(crate) fn find_mut<'n>(root: &'n mut Node, path: &[Key]) -> Option<&'n mut Node> {
    let mut at = root;
    for key in path {
        at = match &mut at.value {
            Value::Map(mapping) => mapping.get_mut(key)?,
            Value::List(items) => items.get_mut(key_text(key).parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(at)
}

fn merge_node(
    dest: &mut Node,
    source: &Node,
    closed: bool,
    path: &mut Vec<Key>,
) -> Result<(), Problem> {
    if source.is_missing() {
        return Ok(());
    }
    let refuse = |dest: &Node, path: &[Key]| {
        Err(Problem::Refused(MergeError::Kinds {
            path: path_text(path),
            here: kind(source),
            there: kind(dest),
            here_origin: source.origin,
            there_origin: dest.origin,
        }))
    };
    match (&mut dest.value, &source.value) {
        (Value::Map(_), Value::List(_)) | (Value::List(_), Value::Map(_)) => refuse(dest, path),
        (Value::Map(mapping), Value::Map(other)) => merge_mapping(mapping, other, closed, path),
        (Value::Str(text), Value::Map(_) | Value::List(_)) if text.contains("${") => {
            Err(Problem::Expand(path.clone()))
        }
        _ => {
            dest.clone_from(source);
            Ok(())
        }
    }
}

fn merge_mapping(
    dest: &mut Mapping,
    source: &Mapping,
    closed: bool,
    path: &mut Vec<Key>,
) -> Result<(), Problem> {
    for (key, node) in source {
        path.push(key.clone());
        match dest.get_mut(key) {
            Some(known) => merge_node(known, node, closed, path)?,
            None if closed => {
                return Err(Problem::Refused(MergeError::NotInStruct {
                    path: path_text(path),
                    key: key_text(key),
                    known: dest.keys().map(key_text).collect(),
                    origin: node.origin,
                }));
            }
            None => {
                dest.insert(key.clone(), node.clone());
            }
        }
        path.pop();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::source::SourceId;
    use crate::yaml::{parse, to_yaml};

    fn merged(dest: &str, source: &str) -> Result<String, String> {
        let mut dest = parse(dest, SourceId(0)).unwrap().unwrap();
        let source = parse(source, SourceId(1)).unwrap().unwrap();
        merge_at(&mut dest, &[], &source, false, &ResolverContext::default())
            .map(|()| to_yaml(&dest))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn mappings_are_merged_and_everything_else_is_replaced() {
        assert_eq!(
            merged("a: {x: 1, w: 2}\nl: [1, 2]", "a: {w: 3, z: 4}\nl: []").unwrap(),
            "a:\n  x: 1\n  w: 3\n  z: 4\nl: []\n"
        );
        assert_eq!(merged("a: 1", "a: {b: 2}").unwrap(), "a:\n  b: 2\n");
        assert_eq!(merged("a: 1", "a: ???\nb: ???").unwrap(), "a: 1\nb: ???\n");
        assert_eq!(merged("a: {b: 1}", "a: null").unwrap(), "a: null\n");
        assert!(merged("a: {b: 1}", "a: [1]").is_err());
    }

    #[test]
    fn an_interpolation_of_a_mapping_is_copied_before_it_is_merged_into() {
        assert_eq!(
            merged("t: {k: 1}\nx: ${t}", "x: {z: 2}").unwrap(),
            "t:\n  k: 1\nx:\n  k: 1\n  z: 2\n"
        );
        assert_eq!(
            merged("t: 5\nx: ${t}", "x: {z: 2}").unwrap(),
            "t: 5\nx:\n  z: 2\n"
        );
    }
}
