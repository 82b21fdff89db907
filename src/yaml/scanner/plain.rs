//! Scalars without quotes.

use super::token::{ScalarStyle, Token, TokenKind};
use super::{Scan, Scanner, is_blank_or_end};

impl Scanner {
    pub(super) fn plain(&mut self) -> Scan<()> {
        self.save_possible_key()?;
        self.simple_key_allowed = false;
        let start = self.at;
        let mut end = self.at;
        let indent = self.indent + 1;
        let mut value = String::new();
        let mut spaces = String::new();
        loop {
            if self.peek(0) == '#' {
                break;
            }
            let mut length = 0;
            loop {
                let c = self.peek(length);
                let flow_stop = self.in_flow() && ",?[]{}".contains(c);
                let next = self.peek(length + 1);
                let colon_stop = c == ':'
                    && (is_blank_or_end(next) || (self.in_flow() && ",[]{}".contains(next)));
                if is_blank_or_end(c) || colon_stop || flow_stop {
                    break;
                }
                length += 1;
            }
            if length == 0 {
                break;
            }
            self.simple_key_allowed = false;
            value.push_str(&spaces);
            value.extend(&self.text[self.at.index..self.at.index + length]);
            self.forward(length);
            end = self.at;
            spaces = self.plain_spaces();
            if spaces.is_empty()
                || self.peek(0) == '#'
                || (!self.in_flow() && self.column() < indent)
            {
                break;
            }
        }
        self.tokens.push(Token {
            kind: TokenKind::Scalar(value, ScalarStyle::Plain),
            start,
            end,
        });
        Ok(())
    }

    fn plain_spaces(&mut self) -> String {
        let mut length = 0;
        while self.peek(length) == ' ' {
            length += 1;
        }
        let blanks = self.take(length);
        let Some(first) = self.line_break() else {
            return blanks;
        };
        self.simple_key_allowed = true;
        if self.is_document_mark('-') || self.is_document_mark('.') {
            return String::new();
        }
        let mut breaks = String::new();
        loop {
            if self.peek(0) == ' ' {
                self.forward(1);
            } else if let Some(c) = self.line_break() {
                breaks.push(c);
                if self.is_document_mark('-') || self.is_document_mark('.') {
                    return String::new();
                }
            } else {
                break;
            }
        }
        if first != '\n' {
            breaks.insert(0, first);
        } else if breaks.is_empty() {
            breaks.push(' ');
        }
        breaks
    }
}
