//! Nodes to values: types, merge keys, duplicate keys.
//!
//! Two passes, because the order of PyYAML's errors is that of its own: it makes the values of a text level by level
//! ([`Constructor::check`]), and only then does OmegaConf walk the tree in depth ([`Constructor::build`]).

use std::collections::{HashMap, VecDeque};

use super::merge_keys::MAX_PAIRS;
use super::parser::Parse;
use super::{Composed, Content, MAX_DEPTH, MAX_VALUES, Tag};
use crate::diag::source::{Origin, SourceId};
use crate::yaml::YamlError;
use crate::yaml::base64::decode_base64;
use crate::yaml::error::YamlErrorKind as Kind;
use crate::yaml::node::{Key, Mapping, Node, Value};
use crate::yaml::scalar::{self, ScalarTag};

pub(super) struct Constructor {
    pub(super) nodes: Vec<Composed>,
    pub(super) source: SourceId,
    pub(super) made: usize,
    pub(super) depth: usize,
    pub(super) pairs: usize,
}

impl Constructor {
    pub(super) fn new(nodes: Vec<Composed>, source: SourceId) -> Self {
        Self {
            nodes,
            source,
            made: 0,
            depth: 0,
            pairs: 0,
        }
    }

    /// The value of a document.
    pub(super) fn document(&mut self, root: usize) -> Parse<Node> {
        self.check(root)?;
        self.build(root)
    }

    fn origin(&self, index: usize) -> Origin {
        let node = &self.nodes[index];
        Origin {
            source: self.source,
            line: node.start.line as u32 + 1,
            column: node.start.column as u32 + 1,
            length: node.length as u32,
        }
    }

    pub(super) fn fail<T>(&self, kind: Kind, index: usize, message: impl Into<String>) -> Parse<T> {
        Err(YamlError::new(kind, message, self.nodes[index].start))
    }

    /// Tags, scalars, keys and merge keys, level by level.
    fn check(&mut self, root: usize) -> Parse<()> {
        let mut waiting = VecDeque::new();
        let mut seen = vec![false; self.nodes.len()];
        self.check_node(root, &mut seen, &mut waiting)?;
        while let Some(index) = waiting.pop_front() {
            for (child, is_key) in self.check_collection(index)? {
                self.check_node(child, &mut seen, &mut waiting)?;
                if is_key && self.is_collection(child) {
                    return self.fail(
                        Kind::Constructor,
                        child,
                        "a list or a mapping cannot be a key; is there a `{` or `[` to quote?",
                    );
                }
            }
        }
        Ok(())
    }

    fn check_node(
        &self,
        index: usize,
        seen: &mut [bool],
        waiting: &mut VecDeque<usize>,
    ) -> Parse<()> {
        if std::mem::replace(&mut seen[index], true) {
            return Ok(());
        }
        let node = &self.nodes[index];
        if self.is_collection(index) {
            waiting.push_back(index);
            return Ok(());
        }
        match (&node.tag, &node.content) {
            (Tag::Unknown(tag), _) => self.fail(
                Kind::Constructor,
                index,
                format!("the tag `{tag}` is not known"),
            ),
            (Tag::Scalar(ScalarTag::ValueKey | ScalarTag::Merge), _) => self.fail(
                Kind::Constructor,
                index,
                "`=` and `<<` have a meaning of their own here: quote them",
            ),
            (Tag::Scalar(tag), Content::Scalar(text)) => match scalar::construct(*tag, text) {
                Ok(_) => Ok(()),
                Err(kind) => self.fail(
                    kind,
                    index,
                    format!("`{text}` is not a value of the type that its tag says"),
                ),
            },
            (Tag::Binary, Content::Scalar(text)) => match decode_base64(text) {
                Some(_) => Ok(()),
                None => self.fail(Kind::Constructor, index, "this is not base64"),
            },
            (Tag::Timestamp, Content::Scalar(text)) => match scalar::check_timestamp(text) {
                Ok(()) => Ok(()),
                Err(kind) => self.fail(kind, index, format!("`{text}` is not a date")),
            },
            _ => self.wrong_content(index),
        }
    }

    fn wrong_content<T>(&self, index: usize) -> Parse<T> {
        self.fail(
            Kind::Constructor,
            index,
            "this tag does not fit this kind of value",
        )
    }

    /// The nodes inside of a collection in the order in which they are made, and whether each is the key of a mapping;
    /// merge keys are resolved here.
    fn check_collection(&mut self, index: usize) -> Parse<Vec<(usize, bool)>> {
        let node = &self.nodes[index];
        match (&node.tag, &node.content) {
            (Tag::Sequence, Content::Sequence(items)) => {
                Ok(items.iter().map(|item| (*item, false)).collect())
            }
            (Tag::Mapping | Tag::Set, Content::Mapping(_)) => {
                self.check_duplicates(index)?;
                self.merge_keys(index)?;
                Ok(self
                    .pairs_of(index)
                    .iter()
                    .flat_map(|(key, value)| [(*key, true), (*value, false)])
                    .collect())
            }
            // What Python says when it takes a text or a list for pairs.
            (Tag::Mapping | Tag::Set, Content::Scalar(text)) if !text.is_empty() => self.fail(
                Kind::Value,
                index,
                "this tag does not fit this kind of value",
            ),
            (Tag::Mapping | Tag::Set, Content::Sequence(items)) if !items.is_empty() => self.fail(
                Kind::Type,
                index,
                "this tag does not fit this kind of value",
            ),
            (Tag::OrderedMap | Tag::Pairs, Content::Sequence(items)) => {
                let mut children = vec![];
                for &item in items {
                    let Some((key, value)) = self.only_pair(item) else {
                        // What stands before is made before.
                        return self.fail(Kind::Constructor, item, "expected a mapping of one key");
                    };
                    children.extend([(key, false), (value, false)]);
                }
                Ok(children)
            }
            _ => self.wrong_content(index),
        }
    }

    fn only_pair(&self, index: usize) -> Option<(usize, usize)> {
        match &self.nodes[index].content {
            Content::Mapping(pairs) => match pairs[..] {
                [pair] => Some(pair),
                _ => None,
            },
            _ => None,
        }
    }

    fn is_collection(&self, index: usize) -> bool {
        matches!(
            self.nodes[index].tag,
            Tag::Sequence | Tag::Mapping | Tag::OrderedMap | Tag::Pairs | Tag::Set
        )
    }

    pub(super) fn pairs_of(&self, index: usize) -> &[(usize, usize)] {
        match &self.nodes[index].content {
            Content::Mapping(pairs) => pairs,
            _ => &[],
        }
    }

    /// Only keys that are texts are compared, by their text, as OmegaConf does.
    fn check_duplicates(&self, index: usize) -> Parse<()> {
        let pairs = self.pairs_of(index);
        let mut seen: HashMap<&str, usize> = HashMap::with_capacity(pairs.len());
        for (key, _) in pairs {
            let node = &self.nodes[*key];
            if node.tag != Tag::Scalar(ScalarTag::Str) {
                continue;
            }
            let Content::Scalar(text) = &node.content else {
                continue;
            };
            if let Some(first) = seen.insert(text, *key) {
                return Err(YamlError::new(
                    Kind::Constructor,
                    format!("the key `{text}` is given twice"),
                    node.start,
                )
                .related("first here", self.nodes[first].start));
            }
        }
        Ok(())
    }

    /// The value of a node that [`Self::check`] has seen; aliases become copies.
    fn build(&mut self, index: usize) -> Parse<Node> {
        if self.nodes[index].in_progress {
            return self.fail(
                Kind::Constructor,
                index,
                "an alias stands inside of its own anchor",
            );
        }
        self.made += 1;
        if self.made > MAX_VALUES || self.pairs > MAX_PAIRS {
            return self.fail(Kind::Constructor, index, "aliases make this text too large");
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail(
                Kind::Constructor,
                index,
                format!("more than {MAX_DEPTH} levels of nesting"),
            );
        }
        self.nodes[index].in_progress = true;
        let value = self.value(index)?;
        self.nodes[index].in_progress = false;
        self.depth -= 1;
        Ok(Node {
            value,
            origin: self.origin(index),
        })
    }

    fn value(&mut self, index: usize) -> Parse<Value> {
        let node = &self.nodes[index];
        match (&node.tag, &node.content) {
            (Tag::Scalar(tag), Content::Scalar(text)) => {
                scalar::construct(*tag, text).or_else(|kind| self.fail(kind, index, text.clone()))
            }
            (Tag::Binary, Content::Scalar(text)) => {
                Ok(Value::Bytes(decode_base64(text).unwrap_or_default()))
            }
            (Tag::Sequence, Content::Sequence(items)) => {
                let items = items.clone();
                self.list(&items)
            }
            (Tag::Mapping, Content::Mapping(pairs)) => {
                let pairs = pairs.clone();
                self.mapping(&pairs)
            }
            (Tag::OrderedMap | Tag::Pairs, Content::Sequence(items)) => {
                let items = items.clone();
                self.pairs(&items)
            }
            (Tag::Set, _) => self.unsupported(index, "set"),
            (Tag::Timestamp, _) => self.unsupported(index, "timestamp"),
            _ => self.wrong_content(index),
        }
    }

    // A loop, because the frames of iterators would stand on the stack once for every level.
    fn list(&mut self, items: &[usize]) -> Parse<Value> {
        let mut list = Vec::with_capacity(items.len());
        for item in items {
            list.push(self.build(*item)?);
        }
        Ok(Value::List(list))
    }

    fn unsupported<T>(&self, index: usize, name: &str) -> Parse<T> {
        self.fail(
            Kind::UnsupportedValue,
            index,
            format!("a configuration cannot hold a `!!{name}`"),
        )
    }

    /// `!!omap` and `!!pairs`: a list of lists of two.
    fn pairs(&mut self, items: &[usize]) -> Parse<Value> {
        let mut list = vec![];
        for &item in items {
            let Some((key, value)) = self.only_pair(item) else {
                return self.wrong_content(item);
            };
            let origin = self.origin(item);
            let pair = vec![self.build(key)?, self.build(value)?];
            list.push(Node {
                value: Value::List(pair),
                origin,
            });
        }
        Ok(Value::List(list))
    }

    fn mapping(&mut self, pairs: &[(usize, usize)]) -> Parse<Value> {
        // Of equal keys the first spelling and the last value stay; a value that is lost is not looked at.
        let mut last: indexmap::IndexMap<Key, (usize, usize)> =
            indexmap::IndexMap::with_capacity(pairs.len());
        for &(key_index, value_index) in pairs {
            let key = self.key(key_index)?;
            last.entry(key).or_insert((key_index, value_index)).1 = value_index;
        }
        let mut mapping = Mapping::with_capacity(last.len());
        for (key, (key_index, value_index)) in last {
            if key == Key::Null {
                return self.fail(
                    Kind::Key,
                    key_index,
                    "this cannot be a key of a configuration: quote it",
                );
            }
            let value = self.build(value_index)?;
            mapping.insert(key, value);
        }
        Ok(Value::Map(mapping))
    }

    fn key(&mut self, index: usize) -> Parse<Key> {
        // A date can be a key for Python and not for a configuration, as null.
        if self.nodes[index].tag == Tag::Timestamp {
            return Ok(Key::Null);
        }
        Ok(match self.build(index)?.value {
            Value::Str(text) => Key::Str(text),
            Value::Int(value) => Key::Int(value),
            Value::Float(value) => Key::Float(value),
            Value::Bool(value) => Key::Bool(value),
            Value::Bytes(bytes) => Key::Bytes(bytes),
            Value::Null => Key::Null,
            Value::List(_) | Value::Map(_) => return self.wrong_content(index),
        })
    }
}
