//! Aliases, anchors, tags, scalars, and the beginnings of collections.

use super::parser::{Parse, Parser};
use super::{Content, MAX_DEPTH, Tag, scalar_tag};
use crate::yaml::YamlError;
use crate::yaml::error::YamlErrorKind as Kind;
use crate::yaml::scalar::{self, ScalarTag, Table};
use crate::yaml::scanner::{Mark, ScalarStyle, TokenKind};

impl Parser {
    pub(super) fn node(&mut self, block: bool, indentless: bool) -> Parse<usize> {
        if let TokenKind::Alias(name) = &self.peek()?.kind {
            let name = name.clone();
            let token = self.next()?;
            return self.anchors.get(&name).copied().ok_or_else(|| {
                YamlError::new(
                    Kind::Composer,
                    format!("no anchor `&{name}` stands before this alias"),
                    token.start,
                )
            });
        }
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
        self.node_content(block, indentless, anchor, tag.as_deref(), start)
    }

    fn node_content(
        &mut self,
        block: bool,
        indentless: bool,
        anchor: Option<(String, Mark)>,
        tag: Option<&str>,
        start: Mark,
    ) -> Parse<usize> {
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
        let token = self.peek()?;
        let end = token.end;
        let named = anchor.map(|(name, _)| name);
        if let TokenKind::Scalar(_, style) = token.kind {
            let TokenKind::Scalar(text, _) = self.next()?.kind else {
                return self.unexpected("a value", None);
            };
            self.depth -= 1;
            let tag = match tag {
                // The tag `!` asks for the type that the text would have without quotes.
                Some("!") => Tag::Scalar(scalar::resolve(&text, Table::Reader)),
                Some(tag) => scalar_tag(tag),
                None if style == ScalarStyle::Plain => {
                    Tag::Scalar(scalar::resolve(&text, Table::Reader))
                }
                None => Tag::Scalar(ScalarTag::Str),
            };
            let node = self.add(tag, Content::Scalar(text), start, end);
            if let Some(name) = named {
                self.anchors.insert(name, node);
            }
            return Ok(node);
        }
        let node = match token.kind {
            TokenKind::BlockEntry if indentless => {
                let node = self.open(tag, Content::Sequence(vec![]), start, end, named);
                self.indentless_sequence(node)?;
                node
            }
            TokenKind::FlowSequenceStart => {
                let node = self.open(tag, Content::Sequence(vec![]), start, end, named);
                self.flow_sequence(node)?;
                node
            }
            TokenKind::FlowMappingStart => {
                let node = self.open(tag, Content::Mapping(vec![]), start, end, named);
                self.flow_mapping(node)?;
                node
            }
            TokenKind::BlockSequenceStart if block => {
                let node = self.open(tag, Content::Sequence(vec![]), start, start, named);
                self.block_sequence(node)?;
                node
            }
            TokenKind::BlockMappingStart if block => {
                let node = self.open(tag, Content::Mapping(vec![]), start, start, named);
                self.block_mapping(node)?;
                node
            }
            _ if named.is_some() || tag.is_some() => {
                let tag = match tag {
                    None | Some("!") => Tag::Scalar(ScalarTag::Null),
                    Some(tag) => scalar_tag(tag),
                };
                let node = self.add(tag, Content::Scalar(String::new()), start, start);
                if let Some(name) = named {
                    self.anchors.insert(name, node);
                }
                node
            }
            _ => return self.unexpected("a value", None),
        };
        self.depth -= 1;
        Ok(node)
    }

    /// A collection that is still empty, so that aliases inside of it find it.
    fn open(
        &mut self,
        tag: Option<&str>,
        content: Content,
        start: Mark,
        end: Mark,
        anchor: Option<String>,
    ) -> usize {
        let tag = match tag {
            Some(tag) if tag != "!" => scalar_tag(tag),
            _ if matches!(content, Content::Sequence(_)) => Tag::Sequence,
            _ => Tag::Mapping,
        };
        let node = self.add(tag, content, start, end);
        if let Some(name) = anchor {
            self.anchors.insert(name, node);
        }
        node
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
