//! Scalars in quotes.

use super::token::{Mark, ScalarStyle, TokenKind};
use super::{Scan, Scanner, is_blank_or_end, is_break};

impl Scanner {
    pub(super) fn quoted(&mut self, quote: char) -> Scan<()> {
        self.save_possible_key()?;
        self.simple_key_allowed = false;
        let start = self.at;
        let double = quote == '"';
        self.forward(1);
        let mut value = String::new();
        self.quoted_text(double, &mut value)?;
        while self.peek(0) != quote {
            self.quoted_spaces(start, &mut value)?;
            self.quoted_text(double, &mut value)?;
        }
        self.forward(1);
        let style = if double {
            ScalarStyle::DoubleQuoted
        } else {
            ScalarStyle::SingleQuoted
        };
        self.push(TokenKind::Scalar(value, style), start);
        Ok(())
    }

    fn quoted_text(&mut self, double: bool, value: &mut String) -> Scan<()> {
        loop {
            let c = self.peek(0);
            match c {
                '\'' if !double && self.peek(1) == '\'' => {
                    value.push('\'');
                    self.forward(2);
                }
                '\'' if double => {
                    value.push(c);
                    self.forward(1);
                }
                '"' | '\\' if !double => {
                    value.push(c);
                    self.forward(1);
                }
                '\\' => {
                    self.forward(1);
                    self.escape(value)?;
                }
                '\'' | '"' => return Ok(()),
                c if is_blank_or_end(c) => return Ok(()),
                c => {
                    value.push(c);
                    self.forward(1);
                }
            }
        }
    }

    fn escape(&mut self, value: &mut String) -> Scan<()> {
        let c = self.peek(0);
        let replacement = match c {
            '0' => '\0',
            'a' => '\x07',
            'b' => '\x08',
            't' | '\t' => '\t',
            'n' => '\n',
            'v' => '\x0b',
            'f' => '\x0c',
            'r' => '\r',
            'e' => '\x1b',
            ' ' | '"' | '\\' | '/' => c,
            'N' => '\u{85}',
            '_' => '\u{a0}',
            'L' => '\u{2028}',
            'P' => '\u{2029}',
            'x' | 'u' | 'U' => {
                self.forward(1);
                let length = match c {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let mut code = 0_u32;
                for ahead in 0..length {
                    let Some(digit) = self.peek(ahead).to_digit(16) else {
                        return self.error(format!("`\\{c}` needs {length} hexadecimal digits"));
                    };
                    code = (code << 4) | digit;
                }
                let Some(decoded) = char::from_u32(code) else {
                    return self.error(format!("`\\{c}{code:x}` is not a character"));
                };
                self.forward(length - 1);
                decoded
            }
            c if is_break(c) => {
                self.line_break();
                return self.quoted_breaks(value).map(|_| ());
            }
            _ => {
                return self.error(format!(
                    "`\\{c}` is not an escape; write `\\\\` for a backslash"
                ));
            }
        };
        value.push(replacement);
        self.forward(1);
        Ok(())
    }

    fn quoted_spaces(&mut self, start: Mark, value: &mut String) -> Scan<()> {
        let mut length = 0;
        while matches!(self.peek(length), ' ' | '\t') {
            length += 1;
        }
        let blanks = self.take(length);
        if self.at_end() {
            return Self::error_at(start, "this quote is never closed");
        }
        let Some(first) = self.line_break() else {
            value.push_str(&blanks);
            return Ok(());
        };
        if first != '\n' {
            value.push(first);
        }
        let before = value.len();
        let breaks = self.quoted_breaks(value)?;
        if first == '\n' && breaks == 0 {
            value.insert(before, ' ');
        }
        Ok(())
    }

    fn quoted_breaks(&mut self, value: &mut String) -> Scan<usize> {
        let mut count = 0;
        loop {
            if self.is_document_mark('-') || self.is_document_mark('.') {
                return self.error("a document ends here, inside of quotes");
            }
            while matches!(self.peek(0), ' ' | '\t') {
                self.forward(1);
            }
            match self.line_break() {
                Some(c) => {
                    value.push(c);
                    count += 1;
                }
                None => return Ok(count),
            }
        }
    }
}
