//! Scalars, with and without quotes.

use super::{Parse, Parser, shown};
use crate::config::lexemes::{Lexeme, float_value, int_value, unescape};
use crate::config::override_grammar::{Element, OverrideError};
use crate::yaml::scalar::MAX_DIGITS;

impl<'a> Parser<'a> {
    pub(super) fn primitive(&mut self) -> Parse<Element> {
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
    pub(super) fn tokens(&mut self, is_value: bool) -> Parse<Element> {
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
        if let [(Some(Lexeme::Int), text)] = trimmed
            && text.len() > MAX_DIGITS
        {
            return self.fail(format!("a number of more than {MAX_DIGITS} digits"));
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
