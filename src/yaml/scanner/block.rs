//! Scalars in blocks: `|` and `>`.

use super::token::{ScalarStyle, Token, TokenKind};
use super::{Scan, Scanner, is_break_or_end, shown};

impl Scanner {
    pub(super) fn block_scalar(&mut self, folded: bool) -> Scan<()> {
        self.simple_key_allowed = true;
        self.remove_possible_key()?;
        let start = self.at;
        self.forward(1);
        let (chomping, increment) = self.block_indicators()?;
        self.rest_of_line()?;
        let min_indent = usize::try_from(self.indent + 1).unwrap_or(0).max(1);
        let mut end;
        let (mut breaks, indent) = if let Some(increment) = increment {
            let indent = min_indent + increment - 1;
            (self.block_breaks(indent), indent)
        } else {
            let (breaks, deepest) = self.block_indentation();
            (breaks, min_indent.max(deepest))
        };
        end = self.at;
        let mut value = String::new();
        let mut last_break: Option<char> = None;
        while self.at.column == indent && !self.at_end() {
            value.push_str(&breaks);
            let leading_blank = matches!(self.peek(0), ' ' | '\t');
            let mut length = 0;
            while !is_break_or_end(self.peek(length)) {
                length += 1;
            }
            value.push_str(&self.take(length));
            end = self.at;
            last_break = self.line_break();
            breaks = self.block_breaks(indent);
            if self.at.column == indent && !self.at_end() {
                if folded
                    && last_break == Some('\n')
                    && !leading_blank
                    && !matches!(self.peek(0), ' ' | '\t')
                {
                    if breaks.is_empty() {
                        value.push(' ');
                    }
                } else {
                    value.extend(last_break);
                }
            } else {
                break;
            }
        }
        if chomping != Some(false) {
            value.extend(last_break);
        }
        if chomping == Some(true) {
            value.push_str(&breaks);
        }
        self.tokens.push(Token {
            kind: TokenKind::Scalar(value, ScalarStyle::Block),
            start,
            end,
        });
        Ok(())
    }

    pub(super) fn at_end(&self) -> bool {
        self.peek(0) == '\0'
    }

    /// Chomping (`+` is `Some(true)`, `-` is `Some(false)`) and the indentation, where they are given.
    fn block_indicators(&mut self) -> Scan<(Option<bool>, Option<usize>)> {
        let mut chomping = None;
        let mut increment = None;
        for _ in 0..2 {
            match self.peek(0) {
                c @ ('+' | '-') if chomping.is_none() => {
                    chomping = Some(c == '+');
                    self.forward(1);
                }
                c if c.is_ascii_digit() && increment.is_none() => {
                    if c == '0' {
                        return self.error("the indentation of a block must be 1 to 9");
                    }
                    increment = c.to_digit(10).map(|digit| digit as usize);
                    self.forward(1);
                }
                _ => break,
            }
        }
        let next = self.peek(0);
        if !(next == ' ' || is_break_or_end(next)) {
            return self.error(format!("{} after `|` or `>`", shown(next)));
        }
        Ok((chomping, increment))
    }

    fn block_indentation(&mut self) -> (String, usize) {
        let mut breaks = String::new();
        let mut deepest = 0;
        loop {
            if self.peek(0) == ' ' {
                self.forward(1);
                deepest = deepest.max(self.at.column);
            } else if let Some(c) = self.line_break() {
                breaks.push(c);
            } else {
                return (breaks, deepest);
            }
        }
    }

    fn block_breaks(&mut self, indent: usize) -> String {
        let mut breaks = String::new();
        loop {
            while self.at.column < indent && self.peek(0) == ' ' {
                self.forward(1);
            }
            match self.line_break() {
                Some(c) => breaks.push(c),
                None => return breaks,
            }
        }
    }
}
