//! Calls: `name(a, b, c=d)`.

use super::{Parse, Parser};
use crate::config::lexemes::{Language, Lexeme, lexeme};
use crate::config::override_grammar::functions::call;
use crate::config::override_grammar::{OverrideError, OverrideValue};

impl Parser<'_> {
    /// `name(…)`; nothing where no call begins here.
    pub(super) fn function(&mut self) -> Parse<Option<OverrideValue>> {
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
}
