//! From a word to an [`Override`]: a lexer in two modes (before and after the first `=`) and recursive descent.

mod call_syntax;
mod key;
mod primitive;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::{Choice, Element, Override, OverrideError, OverrideKind, OverrideValue};
use crate::config::lexemes::{Language, Lexeme, lexeme};
use crate::yaml::Key;

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
        inner_sweep: None,
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
            parser.refuse_inner_sweep(&value)?;
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
        inner_sweep: None,
    };
    parser.key(true)
}

/// Reads a text under one rule of the grammar.
pub fn parse_rule(rule: Rule, text: &str) -> Result<OverrideValue, OverrideError> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        inner_sweep: None,
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
    /// Where the first sweep inside of a list or a dict begins: the language has it, and no configuration can.
    inner_sweep: Option<usize>,
}

type Parse<T> = Result<T, OverrideError>;

fn blanks(text: &str) -> usize {
    text.len() - text.trim_start_matches([' ', '\t']).len()
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

    fn refuse_inner_sweep(&self, value: &OverrideValue) -> Parse<()> {
        match (value, self.inner_sweep) {
            (OverrideValue::Element(element), Some(offset)) if element.has_sweep() => {
                Err(OverrideError {
                    message: "a sweep cannot stand inside of a list or a dict".to_owned(),
                    offset,
                    code: "ValidationError",
                })
            }
            _ => Ok(()),
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

    /// An element of a list or a dict.
    fn inner_element(&mut self) -> Parse<Element> {
        let offset = self.at;
        let value = self.element()?;
        if !matches!(value, OverrideValue::Element(_)) {
            self.inner_sweep.get_or_insert(offset);
        }
        Ok(inner(value))
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
        let mut seen: HashMap<Key, usize> = HashMap::new();
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
            // Python's keys: `1`, `1.0` and `true` are one.
            match seen.entry(key.to_key()) {
                Entry::Occupied(entry) => pairs[*entry.get()].1 = value,
                Entry::Vacant(entry) => {
                    entry.insert(pairs.len());
                    pairs.push((key, value));
                }
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
