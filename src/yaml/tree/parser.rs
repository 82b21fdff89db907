//! Tokens to nodes: documents, directives, and what every node needs.

use std::collections::{BTreeMap, HashMap};

use super::{Composed, Content, Tag, default_handles};
use crate::yaml::YamlError;
use crate::yaml::error::YamlErrorKind as Kind;
use crate::yaml::scalar::ScalarTag;
use crate::yaml::scanner::{Mark, Token, TokenKind};

pub(super) struct Parser {
    pub(super) tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    pub(super) error: Option<YamlError>,
    pub(super) nodes: Vec<Composed>,
    pub(super) anchors: HashMap<String, usize>,
    pub(super) handles: BTreeMap<String, String>,
    pub(super) depth: usize,
    pub(super) last: Mark,
}

pub(super) type Parse<T> = Result<T, YamlError>;

impl Parser {
    /// The next token; where the scanner stopped, its error.
    pub(super) fn peek(&mut self) -> Parse<&Token> {
        match self.tokens.peek() {
            Some(token) => Ok(token),
            None => Err(self.error.clone().unwrap_or_else(|| {
                YamlError::new(Kind::Parser, "the text ends too early", self.last)
            })),
        }
    }

    pub(super) fn next(&mut self) -> Parse<Token> {
        self.peek()?;
        let token = self.tokens.next().expect("a token was just seen");
        self.last = token.end;
        Ok(token)
    }

    pub(super) fn is(&mut self, kinds: &[TokenKind]) -> Parse<bool> {
        let token = self.peek()?;
        Ok(kinds.contains(&token.kind))
    }

    pub(super) fn unexpected<T>(
        &mut self,
        expected: &str,
        within: Option<(&str, Mark)>,
    ) -> Parse<T> {
        let token = self.peek()?;
        let error = YamlError::new(
            Kind::Parser,
            format!("expected {expected}, found {}", token.kind.name()),
            token.start,
        );
        Err(match within {
            Some((what, mark)) => error.related(what, mark),
            None => error,
        })
    }

    pub(super) fn document(&mut self) -> Parse<Option<usize>> {
        let first = &self.peek()?.kind;
        let implicit = !matches!(
            first,
            TokenKind::YamlDirective(_)
                | TokenKind::TagDirective(..)
                | TokenKind::OtherDirective
                | TokenKind::DocumentStart
                | TokenKind::StreamEnd
        );
        if implicit {
            let root = self.node(true, false)?;
            self.end_of_document(root)?;
            return Ok(Some(root));
        }
        if !self.start_of_document()? {
            return Ok(None);
        }
        let empty = matches!(
            self.peek()?.kind,
            TokenKind::YamlDirective(_)
                | TokenKind::TagDirective(..)
                | TokenKind::OtherDirective
                | TokenKind::DocumentStart
                | TokenKind::DocumentEnd
                | TokenKind::StreamEnd
        );
        let root = if empty {
            let mark = self.peek()?.start;
            self.empty_scalar(mark)
        } else {
            self.node(true, false)?
        };
        self.end_of_document(root)?;
        Ok(Some(root))
    }

    /// Directives and `---`; false at the end of the text.
    fn start_of_document(&mut self) -> Parse<bool> {
        while self.is(&[TokenKind::DocumentEnd])? {
            self.next()?;
        }
        if self.is(&[TokenKind::StreamEnd])? {
            return Ok(false);
        }
        let mut version = false;
        let mut handles = BTreeMap::new();
        loop {
            let start = self.peek()?.start;
            match self.peek()?.kind.clone() {
                TokenKind::YamlDirective(major) => {
                    if version {
                        return Err(YamlError::new(
                            Kind::Parser,
                            "a second YAML directive",
                            start,
                        ));
                    }
                    if major != 1 {
                        return Err(YamlError::new(
                            Kind::Parser,
                            format!("YAML {major} is not supported, only YAML 1"),
                            start,
                        ));
                    }
                    version = true;
                }
                TokenKind::TagDirective(handle, prefix) => {
                    if handles.insert(handle.clone(), prefix).is_some() {
                        return Err(YamlError::new(
                            Kind::Parser,
                            format!("a second tag directive for `{handle}`"),
                            start,
                        ));
                    }
                }
                TokenKind::OtherDirective => {}
                _ => break,
            }
            self.next()?;
        }
        for (handle, prefix) in default_handles() {
            handles.entry(handle).or_insert(prefix);
        }
        self.handles = handles;
        if !self.is(&[TokenKind::DocumentStart])? {
            return self.unexpected("`---`", None);
        }
        self.next()?;
        Ok(true)
    }

    /// Nothing may follow the first document.
    fn end_of_document(&mut self, root: usize) -> Parse<()> {
        if self.is(&[TokenKind::DocumentEnd])? {
            self.next()?;
        }
        if !self.start_of_document()? {
            return Ok(());
        }
        Err(
            YamlError::new(Kind::Composer, "a second document begins here", self.last)
                .related("the first begins here", self.nodes[root].start),
        )
    }

    pub(super) fn add(&mut self, tag: Tag, content: Content, start: Mark, end: Mark) -> usize {
        let length = if start.line == end.line {
            (end.column.saturating_sub(start.column)).max(1)
        } else {
            1
        };
        self.nodes.push(Composed {
            tag,
            content,
            start,
            length,
            in_progress: false,
        });
        self.nodes.len() - 1
    }

    pub(super) fn empty_scalar(&mut self, mark: Mark) -> usize {
        self.add(
            Tag::Scalar(ScalarTag::Null),
            Content::Scalar(String::new()),
            mark,
            mark,
        )
    }
}
