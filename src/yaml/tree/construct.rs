//! Nodes to values: types, merge keys, duplicate keys.

use std::collections::HashMap;

use super::parser::Parse;
use super::{Composed, Content, MAX_VALUES, Tag};
use crate::diag::source::{Origin, SourceId};
use crate::yaml::YamlError;
use crate::yaml::error::YamlErrorKind as Kind;
use crate::yaml::node::{Key, Mapping, Node, Value};
use crate::yaml::scalar::{self, ScalarTag};

pub(super) struct Constructor {
    pub(super) nodes: Vec<Composed>,
    pub(super) source: SourceId,
    pub(super) made: usize,
}

impl Constructor {
    fn origin(&self, index: usize) -> Origin {
        let node = &self.nodes[index];
        Origin {
            source: self.source,
            line: node.start.line as u32 + 1,
            column: node.start.column as u32 + 1,
            length: node.length as u32,
        }
    }

    fn fail<T>(&self, kind: Kind, index: usize, message: impl Into<String>) -> Parse<T> {
        Err(YamlError::new(kind, message, self.nodes[index].start))
    }

    pub(super) fn node(&mut self, index: usize) -> Parse<Node> {
        if self.nodes[index].in_progress {
            return self.fail(
                Kind::Constructor,
                index,
                "an alias stands inside of its own anchor",
            );
        }
        self.made += 1;
        if self.made > MAX_VALUES {
            return self.fail(Kind::Constructor, index, "aliases make this text too large");
        }
        self.nodes[index].in_progress = true;
        let value = self.value(index)?;
        self.nodes[index].in_progress = false;
        Ok(Node {
            value,
            origin: self.origin(index),
        })
    }

    fn value(&mut self, index: usize) -> Parse<Value> {
        let tag = self.nodes[index].tag.clone();
        match (&tag, &self.nodes[index].content) {
            (Tag::Scalar(ScalarTag::Null), _) => Ok(Value::Null),
            (Tag::Scalar(ScalarTag::ValueKey | ScalarTag::Merge), _) => self.fail(
                Kind::Constructor,
                index,
                "`=` and `<<` have a meaning of their own here: quote them",
            ),
            (Tag::Scalar(tag), Content::Scalar(text)) => match scalar::construct(*tag, text) {
                Some(value) => Ok(value),
                None => self.fail(
                    Kind::Value,
                    index,
                    format!("`{text}` is not a value of the type that its tag says"),
                ),
            },
            (Tag::Binary, Content::Scalar(text)) => match decode_base64(text) {
                Some(bytes) => Ok(Value::Bytes(bytes)),
                None => self.fail(Kind::Constructor, index, "this is not base64"),
            },
            (Tag::Sequence, Content::Sequence(items)) => {
                let items = items.clone();
                self.list(&items)
            }
            (Tag::Mapping, Content::Mapping(_)) => self.mapping(index),
            (Tag::OrderedMap | Tag::Pairs, Content::Sequence(items)) => {
                let items = items.clone();
                self.pairs(&items)
            }
            (Tag::Unsupported(name), _) => self.fail(
                Kind::UnsupportedValue,
                index,
                format!("a configuration cannot hold a `!!{name}`"),
            ),
            (Tag::Unknown(tag), _) => {
                let message = format!("the tag `{tag}` is not known");
                self.fail(Kind::Constructor, index, message)
            }
            _ => self.fail(
                Kind::Constructor,
                index,
                "this tag does not fit this kind of value",
            ),
        }
    }

    fn list(&mut self, items: &[usize]) -> Parse<Value> {
        let items = items.iter().map(|item| self.node(*item));
        Ok(Value::List(items.collect::<Parse<_>>()?))
    }

    /// `!!omap` and `!!pairs`: a list of lists of two.
    fn pairs(&mut self, items: &[usize]) -> Parse<Value> {
        let mut list = vec![];
        for &item in items {
            let Content::Mapping(pairs) = &self.nodes[item].content else {
                return self.fail(Kind::Constructor, item, "expected a mapping of one key");
            };
            let [(key, value)] = pairs[..] else {
                return self.fail(Kind::Constructor, item, "expected a mapping of one key");
            };
            let origin = self.origin(item);
            let pair = vec![self.node(key)?, self.node(value)?];
            list.push(Node {
                value: Value::List(pair),
                origin,
            });
        }
        Ok(Value::List(list))
    }

    fn mapping(&mut self, index: usize) -> Parse<Value> {
        let pairs = self.flattened(index)?;
        let mut mapping = Mapping::with_capacity(pairs.len());
        let mut refused = None;
        for (key_index, value_index) in pairs {
            let key = match self.key(key_index)?.value {
                Value::Str(text) => Key::Str(text),
                Value::Int(value) => Key::Int(value),
                Value::Float(value) => Key::Float(value),
                Value::Bool(value) => Key::Bool(value),
                Value::Bytes(bytes) => Key::Bytes(bytes),
                Value::Null => {
                    refused.get_or_insert(key_index);
                    Key::Null
                }
                Value::List(_) | Value::Map(_) => {
                    return self.fail(
                        Kind::Constructor,
                        key_index,
                        "a list or a mapping cannot be a key; is there a `{` or `[` to quote?",
                    );
                }
            };
            let value = self.node(value_index)?;
            mapping.insert(key, value);
        }
        if let Some(key) = refused {
            return self.fail(
                Kind::Key,
                key,
                "null cannot be a key of a configuration: quote it",
            );
        }
        Ok(Value::Map(mapping))
    }

    /// `=` is a text where it is a key.
    fn key(&mut self, index: usize) -> Parse<Node> {
        if self.nodes[index].tag == Tag::Unsupported("timestamp") {
            return self.fail(
                Kind::Key,
                index,
                "a date cannot be a key of a configuration",
            );
        }
        if self.nodes[index].tag == Tag::Scalar(ScalarTag::ValueKey) {
            self.nodes[index].tag = Tag::Scalar(ScalarTag::Str);
        }
        self.node(index)
    }

    /// The pairs of a mapping after `<<`: what is merged in stands first, so that the mapping's own pairs win.
    fn flattened(&mut self, index: usize) -> Parse<Vec<(usize, usize)>> {
        let Content::Mapping(pairs) = &self.nodes[index].content else {
            return Ok(vec![]);
        };
        let pairs = pairs.clone();
        self.check_duplicates(&pairs)?;
        let mut merged = vec![];
        let mut own = vec![];
        for (key, value) in pairs {
            if self.nodes[key].tag != Tag::Scalar(ScalarTag::Merge) {
                own.push((key, value));
                continue;
            }
            match &self.nodes[value].content {
                Content::Mapping(_) => merged.extend(self.merged_in(value)?),
                Content::Sequence(items) => {
                    for item in items.clone().into_iter().rev() {
                        if !matches!(self.nodes[item].content, Content::Mapping(_)) {
                            return self.fail(
                                Kind::Constructor,
                                item,
                                "`<<` needs a mapping or a list of mappings",
                            );
                        }
                        merged.extend(self.merged_in(item)?);
                    }
                }
                Content::Scalar(_) => {
                    return self.fail(
                        Kind::Constructor,
                        value,
                        "`<<` needs a mapping or a list of mappings",
                    );
                }
            }
        }
        merged.extend(own);
        Ok(merged)
    }

    fn merged_in(&mut self, index: usize) -> Parse<Vec<(usize, usize)>> {
        if self.nodes[index].in_progress {
            return self.fail(
                Kind::Constructor,
                index,
                "`<<` merges a mapping into itself",
            );
        }
        self.nodes[index].in_progress = true;
        let pairs = self.flattened(index);
        self.nodes[index].in_progress = false;
        pairs
    }

    /// Only keys that are texts are compared, by their text, as OmegaConf does.
    fn check_duplicates(&self, pairs: &[(usize, usize)]) -> Parse<()> {
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
}

/// Standard base64, characters outside of its alphabet skipped.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![];
    let (mut buffer, mut bits) = (0_u32, 0);
    for c in text.bytes() {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            c if c.is_ascii() => continue,
            _ => return None,
        };
        buffer = (buffer << 6) | u32::from(digit);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
            buffer &= (1 << bits) - 1;
        }
    }
    (bits < 6).then_some(bytes)
}
