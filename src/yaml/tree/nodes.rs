//! Aliases, anchors, tags, scalars, and the beginnings of collections.

use super::parser::{Parse, Parser};
use super::{Content, MAX_DEPTH, Tag, scalar_tag};
use crate::yaml::YamlError;
use crate::yaml::error::YamlErrorKind as Kind;
use crate::yaml::scalar::{self, ScalarTag, Table};
use crate::yaml::scanner::{Mark, ScalarStyle, TokenKind};

/// What may stand before a value.
struct Properties {
    anchor: Option<String>,
    tag: Option<String>,
    start: Mark,
}

impl Parser {
    pub(super) fn node(&mut self, block: bool, indentless: bool) -> Parse<usize> {
        if matches!(self.peek()?.kind, TokenKind::Alias(_)) {
            return self.alias();
        }
        let properties = self.properties()?;
        self.node_content(block, indentless, properties)
    }

    fn alias(&mut self) -> Parse<usize> {
        let token = self.next()?;
        let TokenKind::Alias(name) = token.kind else {
            return self.unexpected("an alias", None);
        };
        self.anchors.get(&name).copied().ok_or_else(|| {
            YamlError::new(
                Kind::Composer,
                format!("no anchor `&{name}` stands before this alias"),
                token.start,
            )
        })
    }

    /// Anchor and tag, each once, in any order.
    fn properties(&mut self) -> Parse<Properties> {
        let mut anchor: Option<(String, Mark)> = None;
        let mut tag: Option<String> = None;
        let mut start: Option<Mark> = None;
        let mut unknown_handle = None;
        loop {
            let token = self.peek()?;
            let mark = token.start;
            if !matches!(token.kind, TokenKind::Anchor(_) | TokenKind::Tag(..)) {
                break;
            }
            match token.kind.clone() {
                TokenKind::Anchor(name) if anchor.is_none() => anchor = Some((name, mark)),
                TokenKind::Tag(handle, suffix) if tag.is_none() => {
                    tag = Some(match handle {
                        None => suffix,
                        Some(handle) => match self.handles.get(&handle) {
                            Some(prefix) => format!("{prefix}{suffix}"),
                            None => {
                                let message = format!("the tag handle `{handle}` is not defined");
                                unknown_handle = Some(YamlError::new(Kind::Parser, message, mark));
                                suffix
                            }
                        },
                    });
                }
                _ => break,
            }
            start.get_or_insert(mark);
            self.next()?;
        }
        // What follows the tag is scanned by now, and a mistake there was reported.
        if let Some(error) = unknown_handle {
            return Err(error);
        }
        let start = match start {
            Some(start) => start,
            None => self.peek()?.start,
        };
        if let Some((name, mark)) = &anchor
            && let Some(&first) = self.anchors.get(name)
        {
            return Err(YamlError::new(
                Kind::Composer,
                format!("the anchor `&{name}` is defined twice"),
                *mark,
            )
            .related("first here", self.nodes[first].start));
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(YamlError::new(
                Kind::Composer,
                format!("more than {MAX_DEPTH} levels of nesting"),
                start,
            ));
        }
        Ok(Properties {
            anchor: anchor.map(|(name, _)| name),
            tag,
            start,
        })
    }

    fn scalar(&mut self, properties: Properties) -> Parse<usize> {
        let token = self.next()?;
        let TokenKind::Scalar(text, style) = token.kind else {
            return self.unexpected("a value", None);
        };
        let tag = match properties.tag.as_deref() {
            // The tag `!` asks for the type that the text would have without quotes.
            Some("!") => Tag::Scalar(scalar::resolve(&text, Table::Reader)),
            Some(tag) => scalar_tag(tag),
            None if style == ScalarStyle::Plain => {
                Tag::Scalar(scalar::resolve(&text, Table::Reader))
            }
            None => Tag::Scalar(ScalarTag::Str),
        };
        let node = self.add(tag, Content::Scalar(text), properties.start, token.end);
        if let Some(name) = properties.anchor {
            self.anchors.insert(name, node);
        }
        Ok(node)
    }

    /// Nothing after an anchor or a tag.
    fn left_out(&mut self, properties: Properties) -> usize {
        let tag = match properties.tag.as_deref() {
            None | Some("!") => Tag::Scalar(ScalarTag::Null),
            Some(tag) => scalar_tag(tag),
        };
        let start = properties.start;
        let node = self.add(tag, Content::Scalar(String::new()), start, start);
        if let Some(name) = properties.anchor {
            self.anchors.insert(name, node);
        }
        node
    }

    // Its frame is on the stack once for every level of a text: the work is done in functions that return.
    fn node_content(
        &mut self,
        block: bool,
        indentless: bool,
        properties: Properties,
    ) -> Parse<usize> {
        let kind = &self.peek()?.kind;
        let is_sequence = matches!(
            kind,
            TokenKind::FlowSequenceStart | TokenKind::BlockSequenceStart | TokenKind::BlockEntry
        );
        let shape = match kind {
            TokenKind::BlockEntry if indentless => Self::indentless_sequence,
            TokenKind::FlowSequenceStart => Self::flow_sequence,
            TokenKind::FlowMappingStart => Self::flow_mapping,
            TokenKind::BlockSequenceStart if block => Self::block_sequence,
            TokenKind::BlockMappingStart if block => Self::block_mapping,
            TokenKind::Scalar(..) => {
                self.depth -= 1;
                return self.scalar(properties);
            }
            _ if properties.anchor.is_some() || properties.tag.is_some() => {
                self.depth -= 1;
                return Ok(self.left_out(properties));
            }
            _ => return self.unexpected("a value", None),
        };
        let node = self.open(is_sequence, properties)?;
        shape(self, node)?;
        self.depth -= 1;
        Ok(node)
    }

    /// A collection that is still empty, so that aliases inside of it find it.
    fn open(&mut self, is_sequence: bool, properties: Properties) -> Parse<usize> {
        let (own, content) = if is_sequence {
            (Tag::Sequence, Content::Sequence(vec![]))
        } else {
            (Tag::Mapping, Content::Mapping(vec![]))
        };
        let tag = match properties.tag.as_deref() {
            Some(tag) if tag != "!" => scalar_tag(tag),
            _ => own,
        };
        let end = self.peek()?.end;
        let node = self.add(tag, content, properties.start, end);
        if let Some(name) = properties.anchor {
            self.anchors.insert(name, node);
        }
        Ok(node)
    }

    pub(super) fn push_item(&mut self, sequence: usize, item: usize) {
        if let Content::Sequence(items) = &mut self.nodes[sequence].content {
            items.push(item);
        }
    }

    pub(super) fn push_pair(&mut self, mapping: usize, key: usize, value: usize) {
        if let Content::Mapping(pairs) = &mut self.nodes[mapping].content {
            pairs.push((key, value));
        }
    }
}
