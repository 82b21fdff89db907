//! Tokens to a tree of [`Node`]s: PyYAML's parser, composer and constructor in one pass each.
//!
//! Errors come in PyYAML's order: what is wrong with the structure before what is wrong with a tag or a key.

use std::collections::{BTreeMap, HashMap};

use super::YamlError;
use super::error::YamlErrorKind as Kind;
use super::node::{Key, Mapping, Node, Value};
use super::scalar::{self, ScalarTag, Table};
use super::scanner::{Mark, ScalarStyle, Token, TokenKind, scan};
use crate::diag::source::{Origin, SourceId};

/// Deeper texts are refused; Python gives up at about the same depth.
const MAX_DEPTH: usize = 200;
/// More values than this come only from aliases of aliases.
const MAX_VALUES: usize = 2_000_000;

/// Reads a text with one document; nothing for an empty one.
///
/// # Errors
/// Whatever PyYAML with OmegaConf's loader refuses.
pub fn parse(text: &str, source: SourceId) -> Result<Option<Node>, YamlError> {
    check_characters(text)?;
    let scanned = scan(text);
    let mut parser = Parser {
        tokens: scanned.tokens.into_iter().peekable(),
        error: scanned.error,
        nodes: vec![],
        anchors: HashMap::new(),
        handles: default_handles(),
        depth: 0,
        last: Mark::default(),
    };
    let Some(root) = parser.document()? else {
        return Ok(None);
    };
    let mut constructor = Constructor {
        nodes: parser.nodes,
        source,
        made: 0,
    };
    constructor.node(root).map(Some)
}

fn check_characters(text: &str) -> Result<(), YamlError> {
    let mut mark = Mark::default();
    for c in text.chars() {
        let printable = matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}'
            | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}');
        if !printable {
            return Err(YamlError::new(
                Kind::Reader,
                format!("the character U+{:04X} is not allowed in YAML", c as u32),
                mark,
            ));
        }
        if c == '\n' {
            mark.line += 1;
            mark.column = 0;
        } else {
            mark.column += 1;
        }
    }
    Ok(())
}

/// The type of a value: by its text, or by a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tag {
    Scalar(ScalarTag),
    Sequence,
    Mapping,
    Binary,
    OrderedMap,
    Pairs,
    /// Types that YAML knows and a configuration refuses.
    Unsupported(&'static str),
    Unknown(String),
}

enum Content {
    Scalar(String),
    Sequence(Vec<usize>),
    Mapping(Vec<(usize, usize)>),
}

struct Composed {
    tag: Tag,
    content: Content,
    start: Mark,
    length: usize,
    in_progress: bool,
}

fn default_handles() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("!".to_owned(), "!".to_owned()),
        ("!!".to_owned(), "tag:yaml.org,2002:".to_owned()),
    ])
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    error: Option<YamlError>,
    nodes: Vec<Composed>,
    anchors: HashMap<String, usize>,
    handles: BTreeMap<String, String>,
    depth: usize,
    last: Mark,
}

type Parse<T> = Result<T, YamlError>;

impl Parser {
    /// The next token; where the scanner stopped, its error.
    fn peek(&mut self) -> Parse<&Token> {
        match self.tokens.peek() {
            Some(token) => Ok(token),
            None => Err(self.error.clone().unwrap_or_else(|| {
                YamlError::new(Kind::Parser, "the text ends too early", self.last)
            })),
        }
    }

    fn next(&mut self) -> Parse<Token> {
        self.peek()?;
        let token = self.tokens.next().expect("a token was just seen");
        self.last = token.end;
        Ok(token)
    }

    fn is(&mut self, kinds: &[TokenKind]) -> Parse<bool> {
        let token = self.peek()?;
        Ok(kinds.contains(&token.kind))
    }

    fn unexpected<T>(&mut self, expected: &str, within: Option<(&str, Mark)>) -> Parse<T> {
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

    fn document(&mut self) -> Parse<Option<usize>> {
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

    fn add(&mut self, tag: Tag, content: Content, start: Mark, end: Mark) -> usize {
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

    fn empty_scalar(&mut self, mark: Mark) -> usize {
        self.add(
            Tag::Scalar(ScalarTag::Null),
            Content::Scalar(String::new()),
            mark,
            mark,
        )
    }

    fn node(&mut self, block: bool, indentless: bool) -> Parse<usize> {
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
        loop {
            let token = self.peek()?;
            let mark = token.start;
            match token.kind.clone() {
                TokenKind::Anchor(name) if anchor.is_none() => anchor = Some((name, mark)),
                TokenKind::Tag(handle, suffix) if tag.is_none() => {
                    tag = Some(match handle {
                        None => suffix,
                        Some(handle) => match self.handles.get(&handle) {
                            Some(prefix) => format!("{prefix}{suffix}"),
                            None => {
                                return Err(YamlError::new(
                                    Kind::Parser,
                                    format!("the tag handle `{handle}` is not defined"),
                                    mark,
                                ));
                            }
                        },
                    });
                }
                _ => break,
            }
            start.get_or_insert(mark);
            self.next()?;
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
        let node = match token.kind.clone() {
            TokenKind::BlockEntry if indentless => {
                let node = self.open(tag, Content::Sequence(vec![]), start, end, named);
                self.indentless_sequence(node)?;
                node
            }
            TokenKind::Scalar(text, style) => {
                self.next()?;
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

    fn push_item(&mut self, sequence: usize, item: usize) {
        if let Content::Sequence(items) = &mut self.nodes[sequence].content {
            items.push(item);
        }
    }

    fn push_pair(&mut self, mapping: usize, key: usize, value: usize) {
        if let Content::Mapping(pairs) = &mut self.nodes[mapping].content {
            pairs.push((key, value));
        }
    }

    fn indentless_sequence(&mut self, node: usize) -> Parse<()> {
        use TokenKind::{BlockEnd, BlockEntry, Key, Value};
        while self.is(&[BlockEntry])? {
            let entry = self.next()?;
            let item = if self.is(&[BlockEntry, Key, Value, BlockEnd])? {
                self.empty_scalar(entry.end)
            } else {
                self.node(true, false)?
            };
            self.push_item(node, item);
        }
        Ok(())
    }

    fn block_sequence(&mut self, node: usize) -> Parse<()> {
        use TokenKind::{BlockEnd, BlockEntry};
        let start = self.next()?.start;
        while self.is(&[BlockEntry])? {
            let entry = self.next()?;
            let item = if self.is(&[BlockEntry, BlockEnd])? {
                self.empty_scalar(entry.end)
            } else {
                self.node(true, false)?
            };
            self.push_item(node, item);
        }
        if !self.is(&[BlockEnd])? {
            return self.unexpected(
                "the next `-` of this list or its end",
                Some(("the list begins here", start)),
            );
        }
        self.next()?;
        Ok(())
    }

    fn block_mapping(&mut self, node: usize) -> Parse<()> {
        use TokenKind::{BlockEnd, Key, Value};
        let start = self.next()?.start;
        // PyYAML accepts a value without a key after a value without a key: both keys are null.
        loop {
            if self.is(&[Key])? {
                let token = self.next()?;
                let key = if self.is(&[Key, Value, BlockEnd])? {
                    self.empty_scalar(token.end)
                } else {
                    self.node(true, true)?
                };
                let value = self.block_mapping_value()?;
                self.push_pair(node, key, value);
            } else if self.is(&[BlockEnd])? {
                self.next()?;
                return Ok(());
            } else {
                return self.unexpected(
                    "the next key of this mapping or its end",
                    Some(("the mapping begins here", start)),
                );
            }
        }
    }

    fn block_mapping_value(&mut self) -> Parse<usize> {
        use TokenKind::{BlockEnd, Key, Value};
        if self.is(&[Value])? {
            let token = self.next()?;
            if self.is(&[Key, Value, BlockEnd])? {
                return Ok(self.empty_scalar(token.end));
            }
            return self.node(true, true);
        }
        let mark = self.peek()?.start;
        Ok(self.empty_scalar(mark))
    }

    fn flow_sequence(&mut self, node: usize) -> Parse<()> {
        use TokenKind::{FlowEntry, FlowSequenceEnd, Key};
        let start = self.next()?.start;
        let mut first = true;
        while !self.is(&[FlowSequenceEnd])? {
            if !first {
                if !self.is(&[FlowEntry])? {
                    return self.unexpected("`,` or `]`", Some(("the list begins here", start)));
                }
                self.next()?;
            }
            first = false;
            if self.is(&[Key])? {
                let token = self.peek()?;
                let (from, to) = (token.start, token.end);
                let mapping = self.add(Tag::Mapping, Content::Mapping(vec![]), from, to);
                let token = self.next()?;
                let (key, value) = self.flow_pair(token.end, &FlowSequenceEnd)?;
                self.push_pair(mapping, key, value);
                self.push_item(node, mapping);
            } else if !self.is(&[FlowSequenceEnd])? {
                let item = self.node(false, false)?;
                self.push_item(node, item);
            }
        }
        self.next()?;
        Ok(())
    }

    /// A key and its value after `?` or a key mark, up to `,` or the closing bracket.
    fn flow_pair(&mut self, after_key: Mark, closing: &TokenKind) -> Parse<(usize, usize)> {
        use TokenKind::{FlowEntry, Value};
        let key = if self.is(&[Value, FlowEntry, closing.clone()])? {
            self.empty_scalar(after_key)
        } else {
            self.node(false, false)?
        };
        let value = if self.is(&[Value])? {
            let token = self.next()?;
            if self.is(&[FlowEntry, closing.clone()])? {
                self.empty_scalar(token.end)
            } else {
                self.node(false, false)?
            }
        } else {
            let mark = self.peek()?.start;
            self.empty_scalar(mark)
        };
        Ok((key, value))
    }

    fn flow_mapping(&mut self, node: usize) -> Parse<()> {
        use TokenKind::{FlowEntry, FlowMappingEnd, Key};
        let start = self.next()?.start;
        let mut first = true;
        while !self.is(&[FlowMappingEnd])? {
            if !first {
                if !self.is(&[FlowEntry])? {
                    return self.unexpected("`,` or `}`", Some(("the mapping begins here", start)));
                }
                self.next()?;
            }
            first = false;
            if self.is(&[Key])? {
                let token = self.next()?;
                let (key, value) = self.flow_pair(token.end, &FlowMappingEnd)?;
                self.push_pair(node, key, value);
            } else if !self.is(&[FlowMappingEnd])? {
                let key = self.node(false, false)?;
                let mark = self.peek()?.start;
                let value = self.empty_scalar(mark);
                self.push_pair(node, key, value);
            }
        }
        self.next()?;
        Ok(())
    }
}

fn scalar_tag(tag: &str) -> Tag {
    match tag.strip_prefix("tag:yaml.org,2002:") {
        Some("null") => Tag::Scalar(ScalarTag::Null),
        Some("bool") => Tag::Scalar(ScalarTag::Bool),
        Some("int") => Tag::Scalar(ScalarTag::Int),
        Some("float") => Tag::Scalar(ScalarTag::Float),
        Some("str") => Tag::Scalar(ScalarTag::Str),
        Some("merge") => Tag::Scalar(ScalarTag::Merge),
        Some("seq") => Tag::Sequence,
        Some("map") => Tag::Mapping,
        Some("binary") => Tag::Binary,
        Some("omap") => Tag::OrderedMap,
        Some("pairs") => Tag::Pairs,
        Some("set") => Tag::Unsupported("set"),
        Some("timestamp") => Tag::Unsupported("timestamp"),
        _ => Tag::Unknown(tag.to_owned()),
    }
}

struct Constructor {
    nodes: Vec<Composed>,
    source: SourceId,
    made: usize,
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

    fn node(&mut self, index: usize) -> Parse<Node> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Node {
        parse(text, SourceId(0)).unwrap().unwrap()
    }

    fn refused(text: &str) -> (Kind, usize, usize) {
        let error = parse(text, SourceId(0)).unwrap_err();
        (error.kind, error.line, error.column)
    }

    #[test]
    fn every_value_knows_its_line_and_column() {
        let tree = read("a: 1\nb:\n  - x\n  - y: 2\n");
        let place = |key| {
            let origin = tree.descendant(key).unwrap().origin;
            (origin.line, origin.column)
        };
        assert_eq!(place("a"), (1, 4));
        assert_eq!(place("b.0"), (3, 5));
        assert_eq!(place("b.1.y"), (4, 8));
    }

    #[test]
    fn merge_keys_give_way_to_the_mappings_own_keys() {
        let tree =
            read("base: &b {x: 1, y: 2}\nother: &o {y: 3}\nmerged:\n  <<: [*b, *o]\n  x: 9\n");
        assert_eq!(tree.descendant("merged.x").unwrap().as_str(), None);
        let merged = tree.child("merged").unwrap().as_map().unwrap();
        let shown: Vec<String> = merged
            .iter()
            .map(|(key, node)| {
                format!(
                    "{}={}",
                    key.as_str().unwrap(),
                    crate::yaml::python_text::str_of(node)
                )
            })
            .collect();
        assert_eq!(shown, ["y=2", "x=9"]);
    }

    #[test]
    fn mistakes_are_refused_at_their_place() {
        assert_eq!(refused("a: 1\na: 2\n"), (Kind::Constructor, 2, 1));
        assert_eq!(refused("a: [1, 2\nb: 3\n").0, Kind::Parser);
        assert_eq!(refused("a:\n\tb: 1\n"), (Kind::Scanner, 2, 1));
        assert_eq!(refused("a: *nowhere\n"), (Kind::Composer, 1, 4));
        assert_eq!(refused("a: 1\n---\nb: 2\n").0, Kind::Composer);
        assert_eq!(refused("~: 1\n").0, Kind::Key);
        assert_eq!(refused("a: !!set {x}\n").0, Kind::UnsupportedValue);
        assert_eq!(refused("a: &x [*x]\n").0, Kind::Constructor);
        assert_eq!(refused(&"[".repeat(5000)).0, Kind::Composer);
    }
}
