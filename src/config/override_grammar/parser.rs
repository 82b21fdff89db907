//! From a word to an [`Override`]: a lexer in two modes (before and after the first `=`) and recursive descent.

use super::functions::call;
use super::{Choice, Element, Override, OverrideError, OverrideKind, OverrideValue};
use crate::config::lexemes::{
    Language, Lexeme, float_value, id_length, int_value, lexeme, unescape, unsigned_length,
};

/// Deeper nesting is refused.
const MAX_DEPTH: usize = 64;

/// Rules of the grammar that can be asked for on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Anything after `=`.
    Value,
    /// One value or a function.
    Element,
    /// A scalar.
    Primitive,
    /// A call.
    Function,
    /// `a,b`
    SimpleChoiceSweep,
    /// `[…]`
    List,
    /// `{…}`
    Dict,
}

/// Reads a word.
pub fn parse_override(input: &str) -> Result<Override, OverrideError> {
    let mut parser = Parser {
        text: input,
        at: 0,
        depth: 0,
    };
    let kind = parser.kind();
    let (key, package) = parser.key(kind == OverrideKind::Delete)?;
    let mut value_offset = input.len();
    let value = if parser.rest().starts_with('=') {
        parser.at += 1;
        parser.at += blanks(parser.rest());
        value_offset = parser.at;
        Some(if parser.rest().is_empty() {
            OverrideValue::Element(Element::Text(String::new()))
        } else {
            let value = parser.value()?;
            parser.end()?;
            value
        })
    } else if kind == OverrideKind::Delete {
        None
    } else {
        return parser.fail("`=` is missing");
    };
    Ok(Override {
        kind,
        key,
        package,
        value,
        input: input.to_owned(),
        value_offset,
    })
}

/// Reads the key of a word: `group/sub@package` or `a.b`.
pub fn parse_key(text: &str) -> Result<(String, Option<String>), OverrideError> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
    };
    parser.key(true)
}

/// Reads a text under one rule of the grammar.
pub fn parse_rule(rule: Rule, text: &str) -> Result<OverrideValue, OverrideError> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
    };
    let value = match rule {
        Rule::Value => parser.value()?,
        Rule::Element => parser.element()?,
        Rule::Primitive => OverrideValue::Element(parser.primitive()?),
        Rule::Function => match parser.function()? {
            Some(value) => value,
            None => return parser.fail("this is not a call"),
        },
        Rule::SimpleChoiceSweep => match parser.value()? {
            value @ OverrideValue::Choice(Choice { simple: true, .. }) => value,
            _ => return parser.fail("a `,` is missing"),
        },
        Rule::List if text.starts_with('[') => parser.element()?,
        Rule::Dict if text.starts_with('{') => parser.element()?,
        Rule::List | Rule::Dict => return parser.fail("expected a bracket"),
    };
    // The rules are tried without the end of the text: what follows is not read.
    Ok(value)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

type Parse<T> = Result<T, OverrideError>;

fn blanks(text: &str) -> usize {
    text.len() - text.trim_start_matches([' ', '\t']).len()
}

/// Length of a token of a key: a name, or names and numbers with dots between them.
fn key_token(text: &str) -> usize {
    fn special(text: &[u8]) -> usize {
        match text.first() {
            Some(first) if first.is_ascii_alphabetic() || matches!(first, b'_' | b'$') => text
                .iter()
                .take_while(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'$')
                })
                .count(),
            _ => 0,
        }
    }
    let bytes = text.as_bytes();
    let part = |from: usize| special(&bytes[from..]).max(unsigned_length(&bytes[from..]));
    let first = part(0);
    if first == 0 {
        return 0;
    }
    let mut length = first;
    while bytes.get(length) == Some(&b'.') {
        let next = part(length + 1);
        if next == 0 {
            break;
        }
        length += 1 + next;
    }
    // A number alone is not a token.
    if length == first {
        special(bytes)
    } else {
        length
    }
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn fail<T>(&self, message: impl Into<String>) -> Parse<T> {
        Err(OverrideError {
            message: message.into(),
            offset: self.at,
            code: "OverrideParseException",
        })
    }

    fn kind(&mut self) -> OverrideKind {
        let (kind, length) = if self.text.starts_with("++") {
            (OverrideKind::ForceAdd, 2)
        } else if self.text.starts_with('+') {
            (OverrideKind::Add, 1)
        } else if self.text.starts_with('~') {
            (OverrideKind::Delete, 1)
        } else {
            (OverrideKind::Change, 0)
        };
        self.at = length;
        kind
    }

    fn unexpected_in_key<T>(&self) -> Parse<T> {
        match self.rest().chars().next() {
            Some('=') | None => self.fail("a part of the key is missing"),
            Some(' ' | '\t') => self.fail("a blank cannot stand in a key"),
            Some('[') => self.fail("write `list.0`, not `list[0]`"),
            Some(c) => self.fail(format!("`{c}` cannot stand here in a key")),
        }
    }

    /// `group/sub@package` or `a.b@package`.
    fn key(&mut self, is_delete: bool) -> Parse<(String, Option<String>)> {
        let start = self.at;
        let first = key_token(self.rest());
        self.at += first;
        let mut is_group = false;
        while self.rest().starts_with('/') {
            let before = &self.text[start..self.at];
            let is_id = |text: &str| !text.is_empty() && id_length(text.as_bytes()) == text.len();
            if !before.split('/').all(is_id) {
                return self.unexpected_in_key();
            }
            self.at += 1;
            let length = id_length(self.rest().as_bytes());
            if length == 0 || length != key_token(self.rest()) {
                self.at += length;
                return self.unexpected_in_key();
            }
            self.at += length;
            is_group = true;
        }
        let key = self.text[start..self.at].to_owned();
        let mut package = None;
        if self.rest().starts_with('@') {
            self.at += 1;
            let length = key_token(self.rest());
            package = Some(self.rest()[..length].to_owned());
            self.at += length;
        }
        match self.rest().chars().next() {
            Some('=') => Ok((key, package)),
            None if is_delete => Ok((key, package)),
            None if is_group => self.fail("`=` is missing"),
            None => self.fail("`=` is missing: write `key=value`"),
            Some(_) => self.unexpected_in_key(),
        }
    }

    fn end(&self) -> Parse<()> {
        let rest = self.rest();
        match rest.chars().next() {
            None => Ok(()),
            Some('=') => self.fail("a second `=`: quote the value, as in `key='a=b'`"),
            Some('}') => self.fail("a `}` without `{`; an interpolation inside of another needs quotes around the value"),
            Some(c) => self.fail(format!("`{}` cannot follow here", shown(c))),
        }
    }

    fn value(&mut self) -> Parse<OverrideValue> {
        let first = self.element()?;
        let mut list = vec![];
        while let Some((Lexeme::Comma, length)) = self.peek() {
            self.at += length;
            list.push(inner(self.element()?));
        }
        if list.is_empty() {
            return Ok(first);
        }
        list.insert(0, inner(first));
        Ok(OverrideValue::Choice(Choice {
            list,
            simple: true,
            shuffle: false,
            tags: vec![],
        }))
    }

    fn peek(&self) -> Option<(Lexeme, usize)> {
        lexeme(self.rest(), Language::Override)
    }

    fn element(&mut self) -> Parse<OverrideValue> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail(format!("more than {MAX_DEPTH} levels of nesting"));
        }
        let value = match self.peek() {
            Some((Lexeme::BracketOpen, length)) => {
                self.at += length;
                OverrideValue::Element(Element::List(self.list()?))
            }
            Some((Lexeme::BraceOpen, length)) => {
                self.at += length;
                OverrideValue::Element(Element::Dict(self.dict()?))
            }
            _ => match self.function()? {
                Some(value) => value,
                None => OverrideValue::Element(self.primitive()?),
            },
        };
        self.depth -= 1;
        Ok(value)
    }

    /// An element of a list or a dict, which cannot be a sweep.
    fn inner_element(&mut self) -> Parse<Element> {
        let offset = self.at;
        match self.element()? {
            OverrideValue::Element(element) => Ok(element),
            _ => Err(OverrideError {
                message: "a sweep cannot stand inside of a list or a dict".to_owned(),
                offset,
                code: "ValidationError",
            }),
        }
    }

    fn list(&mut self) -> Parse<Vec<Element>> {
        let mut items = vec![];
        if let Some((Lexeme::BracketClose, length)) = self.peek() {
            self.at += length;
            return Ok(items);
        }
        loop {
            items.push(self.inner_element()?);
            match self.peek() {
                Some((Lexeme::Comma, length)) => self.at += length,
                Some((Lexeme::BracketClose, length)) => {
                    self.at += length;
                    return Ok(items);
                }
                _ => return self.fail("expected `,` or `]`"),
            }
        }
    }

    fn dict(&mut self) -> Parse<Vec<(Element, Element)>> {
        let mut pairs: Vec<(Element, Element)> = vec![];
        if let Some((Lexeme::BraceClose, length)) = self.peek() {
            self.at += length;
            return Ok(pairs);
        }
        loop {
            let key = self.tokens(false)?;
            let Some((Lexeme::Colon, length)) = self.peek() else {
                return self.fail("expected `:` after this key");
            };
            self.at += length;
            let value = self.inner_element()?;
            match pairs.iter_mut().find(|(known, _)| *known == key) {
                Some(pair) => pair.1 = value,
                None => pairs.push((key, value)),
            }
            match self.peek() {
                Some((Lexeme::Comma, length)) => self.at += length,
                Some((Lexeme::BraceClose, length)) => {
                    self.at += length;
                    return Ok(pairs);
                }
                _ => return self.fail("expected `,` or `}`"),
            }
        }
    }

    /// `name(…)`; nothing where no call begins here.
    fn function(&mut self) -> Parse<Option<OverrideValue>> {
        let start = self.at;
        let Some((Lexeme::Id, length)) = self.peek() else {
            return Ok(None);
        };
        let name = &self.rest()[..length];
        let Some((Lexeme::ParenthesisOpen, open)) =
            lexeme(&self.rest()[length..], Language::Override)
        else {
            return Ok(None);
        };
        self.at += length + open;
        let mut positional = vec![];
        let mut named: Vec<(String, OverrideValue)> = vec![];
        if let Some((Lexeme::ParenthesisClose, length)) = self.peek() {
            self.at += length;
        } else {
            loop {
                match self.argument_name() {
                    Some(argument) => {
                        let value = self.element()?;
                        named.retain(|(known, _)| *known != argument);
                        named.push((argument, value));
                    }
                    None if named.is_empty() => positional.push(self.element()?),
                    None => {
                        return Err(OverrideError {
                            message: "positional argument follows keyword argument".to_owned(),
                            offset: self.at,
                            code: "OverrideParseException",
                        });
                    }
                }
                match self.peek() {
                    Some((Lexeme::Comma, length)) => self.at += length,
                    Some((Lexeme::ParenthesisClose, length)) => {
                        self.at += length;
                        break;
                    }
                    _ => return self.fail("expected `,` or `)`"),
                }
            }
        }
        call(name, positional, named)
            .map(Some)
            .map_err(|message| OverrideError {
                message: format!("`{}`: {message}", &self.text[start..self.at]),
                offset: start,
                code: "OverrideParseException",
            })
    }

    /// `name=` before an argument.
    fn argument_name(&mut self) -> Option<String> {
        let (Lexeme::Id, length) = self.peek()? else {
            return None;
        };
        let name = &self.rest()[..length];
        let (Lexeme::Equal, equal) = lexeme(&self.rest()[length..], Language::Override)? else {
            return None;
        };
        self.at += length + equal;
        Some(name.to_owned())
    }

    fn primitive(&mut self) -> Parse<Element> {
        match self.rest().chars().next() {
            Some(quote @ ('\'' | '"')) => self.quoted(quote),
            _ => self.tokens(true),
        }
    }

    fn quoted(&mut self, quote: char) -> Parse<Element> {
        let body = &self.rest()[1..];
        let mut text = String::new();
        let mut at = 0;
        while let Some(c) = body[at..].chars().next() {
            if c == '\\' {
                let count = body[at..].bytes().take_while(|byte| *byte == b'\\').count();
                at += count;
                if body[at..].starts_with(quote) {
                    // A run of backslashes is halved before a quote of this kind.
                    text.extend(std::iter::repeat_n('\\', count / 2));
                    if count % 2 == 1 {
                        text.push(quote);
                        at += 1;
                    }
                } else {
                    text.extend(std::iter::repeat_n('\\', count));
                }
            } else if c == quote {
                self.at += 1 + at + 1;
                return Ok(Element::Quoted(text, quote));
            } else {
                text.push(c);
                at += c.len_utf8();
            }
        }
        self.fail("this quote is never closed")
    }

    /// `${…}` up to the first `}`.
    fn interpolation(&self) -> Option<usize> {
        let rest = self.rest().strip_prefix("${")?;
        let end = rest.find('}')?;
        (end > 0).then_some(2 + end + 1)
    }

    /// Tokens side by side. The key of a dict may hold neither `:` nor `${…}`.
    fn tokens(&mut self, is_value: bool) -> Parse<Element> {
        let mut tokens: Vec<(Option<Lexeme>, &'a str)> = vec![];
        let start = self.at;
        loop {
            let rest = self.rest();
            if is_value && let Some(length) = self.interpolation() {
                tokens.push((None, &rest[..length]));
                self.at += length;
                continue;
            }
            if rest.is_empty() {
                break;
            }
            let Some((kind, length)) = self.peek() else {
                let c = rest.chars().next().unwrap_or(' ');
                return self.fail(format!(
                    "`{}` cannot stand here: put quotes around the value",
                    shown(c)
                ));
            };
            match kind {
                Lexeme::Colon if !is_value => break,
                Lexeme::Comma
                | Lexeme::Equal
                | Lexeme::ParenthesisOpen
                | Lexeme::ParenthesisClose
                | Lexeme::BracketOpen
                | Lexeme::BracketClose
                | Lexeme::BraceOpen
                | Lexeme::BraceClose => break,
                _ => {}
            }
            tokens.push((Some(kind), &rest[..length]));
            self.at += length;
        }
        if tokens.is_empty() {
            return match self.rest().chars().next() {
                None => self.fail("a value is missing"),
                Some(c) => self.fail(format!("a value is missing before `{}`", shown(c))),
            };
        }
        let is_blank = |token: &(Option<Lexeme>, &str)| token.0 == Some(Lexeme::Blank);
        let mut trimmed = tokens.as_slice();
        if trimmed.first().is_some_and(is_blank) {
            trimmed = &trimmed[1..];
            if trimmed.is_empty() {
                return Err(OverrideError {
                    message: "the value consists of blanks: put quotes around it".to_owned(),
                    offset: start,
                    code: "OverrideParseException",
                });
            }
        }
        if trimmed.last().is_some_and(is_blank) {
            trimmed = &trimmed[..trimmed.len() - 1];
        }
        Ok(match trimmed {
            [(kind, text)] => match kind {
                Some(Lexeme::Int) => Element::Int(int_value(text)),
                Some(Lexeme::Float) => Element::Float(float_value(text)),
                Some(Lexeme::Null) => Element::Null,
                Some(Lexeme::Bool) => Element::Bool(text.eq_ignore_ascii_case("true")),
                Some(Lexeme::Escape) => Element::Text(unescape(text)),
                _ => Element::Text((*text).to_owned()),
            },
            several => Element::Text(
                several
                    .iter()
                    .map(|(kind, text)| match kind {
                        Some(Lexeme::Escape) => unescape(text),
                        _ => (*text).to_owned(),
                    })
                    .collect(),
            ),
        })
    }
}

fn inner(value: OverrideValue) -> Element {
    match value {
        OverrideValue::Element(element) => element,
        sweep => Element::Sweep(Box::new(sweep)),
    }
}

fn shown(c: char) -> String {
    match c {
        '\n' => "a line break".to_owned(),
        ' ' | '\t' => "a blank".to_owned(),
        c => c.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(word: &str) -> String {
        match parse_override(word) {
            Ok(parsed) => match parsed.element() {
                Some(element) => format!("{element:?}"),
                None => format!("{:?}", parsed.value),
            },
            Err(error) => format!("error at {}", error.offset),
        }
    }

    #[test]
    fn values_have_the_types_that_hydra_gives_them() {
        assert_eq!(text("a=1_0"), "Int(Small(10))");
        assert_eq!(text("a=1e3"), "Float(1000.0)");
        assert_eq!(text("a=yes"), r#"Text("yes")"#);
        assert_eq!(text("a=NULL"), "Null");
        assert_eq!(text("a=01"), r#"Text("01")"#);
        assert_eq!(text("a=1:30"), r#"Text("1:30")"#);
        assert_eq!(text("a= 3 4 "), r#"Text("3 4")"#);
        assert_eq!(text(r"a='it\'s'"), r#"Quoted("it's", '\'')"#);
        assert_eq!(text(r"a='a\\'"), r#"Quoted("a\\", '\'')"#);
        assert_eq!(text(r"a=a\ b"), r#"Text("a b")"#);
        assert_eq!(
            text("a={b:[1,c]}"),
            r#"Dict([(Text("b"), List([Int(Small(1)), Text("c")]))])"#
        );
        assert_eq!(text("a="), r#"Text("")"#);
        assert_eq!(text("a=${b.c}x"), r#"Text("${b.c}x")"#);
    }

    #[test]
    fn what_is_not_in_the_language_is_refused_at_its_place() {
        for (word, offset) in [
            ("0=1", 0),
            ("a[0]=1", 1),
            ("a..b=1", 1),
            ("a=b=c", 3),
            ("a=[1] ", 5),
            ("a=é", 2),
            ("a='x", 2),
            ("a=[1,", 5),
            ("a/b.c=1", 3),
            ("a", 1),
            ("a=${x.${y}}", 10),
        ] {
            assert_eq!(text(word), format!("error at {offset}"), "{word}");
        }
    }
}
