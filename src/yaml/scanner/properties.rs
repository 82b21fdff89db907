//! Directives, anchors, aliases and tags.

use super::token::TokenKind;
use super::{Scan, Scanner, is_blank_or_end, is_break_or_end, is_word, shown};

impl Scanner {
    pub(super) fn directive(&mut self) -> Scan<()> {
        self.unwind_indent(-1);
        self.remove_possible_key()?;
        self.simple_key_allowed = false;
        let start = self.at;
        self.forward(1);
        let name = self.word("a directive")?;
        if !(self.peek(0) == ' ' || is_break_or_end(self.peek(0))) {
            return self.error(format!(
                "{} in the name of a directive",
                shown(self.peek(0))
            ));
        }
        let kind = match name.as_str() {
            "YAML" => {
                self.skip_spaces();
                let major = self.directive_number()?;
                if self.peek(0) != '.' {
                    return self.error("a YAML directive needs a version like 1.1");
                }
                self.forward(1);
                self.directive_number()?;
                if !(self.peek(0) == ' ' || is_break_or_end(self.peek(0))) {
                    return self.error("a YAML directive needs a version like 1.1");
                }
                TokenKind::YamlDirective(major)
            }
            "TAG" => {
                self.skip_spaces();
                let handle = self.tag_handle()?;
                if self.peek(0) != ' ' {
                    return self.error("a space must follow the handle of a tag directive");
                }
                self.skip_spaces();
                let prefix = self.tag_uri()?;
                if !(self.peek(0) == ' ' || is_break_or_end(self.peek(0))) {
                    return self.error(format!("{} in a tag", shown(self.peek(0))));
                }
                TokenKind::TagDirective(handle, prefix)
            }
            _ => {
                while !is_break_or_end(self.peek(0)) {
                    self.forward(1);
                }
                TokenKind::OtherDirective
            }
        };
        self.rest_of_line()?;
        self.push(kind, start);
        Ok(())
    }

    fn skip_spaces(&mut self) {
        while self.peek(0) == ' ' {
            self.forward(1);
        }
    }

    fn directive_number(&mut self) -> Scan<u32> {
        let mut length = 0;
        while self.peek(length).is_ascii_digit() {
            length += 1;
        }
        if length == 0 {
            return self.error("a YAML directive needs a version like 1.1");
        }
        Ok(self.take(length).parse().unwrap_or(u32::MAX))
    }

    pub(super) fn rest_of_line(&mut self) -> Scan<()> {
        self.skip_spaces();
        if self.peek(0) == '#' {
            while !is_break_or_end(self.peek(0)) {
                self.forward(1);
            }
        }
        if !is_break_or_end(self.peek(0)) {
            return self.error(format!(
                "only a comment may follow on this line, found {}",
                shown(self.peek(0))
            ));
        }
        self.line_break();
        Ok(())
    }

    fn word(&mut self, of: &str) -> Scan<String> {
        let mut length = 0;
        while is_word(self.peek(length)) {
            length += 1;
        }
        if length == 0 {
            return self.error(format!("{of} needs a name, found {}", shown(self.peek(0))));
        }
        Ok(self.take(length))
    }

    pub(super) fn anchor(&mut self, indicator: char) -> Scan<()> {
        self.save_possible_key()?;
        self.simple_key_allowed = false;
        let start = self.at;
        self.forward(1);
        let is_alias = indicator == '*';
        let name = self.word(if is_alias {
            "an alias (`*`)"
        } else {
            "an anchor (`&`)"
        })?;
        let next = self.peek(0);
        if !(is_blank_or_end(next) || "?:,]}%@`".contains(next)) {
            return self.error(format!("{} in the name `{name}`", shown(next)));
        }
        self.push(
            if is_alias {
                TokenKind::Alias(name)
            } else {
                TokenKind::Anchor(name)
            },
            start,
        );
        Ok(())
    }

    pub(super) fn tag(&mut self) -> Scan<()> {
        self.save_possible_key()?;
        self.simple_key_allowed = false;
        let start = self.at;
        let (handle, suffix) = match self.peek(1) {
            '<' => {
                self.forward(2);
                let suffix = self.tag_uri()?;
                if self.peek(0) != '>' {
                    return self.error("a tag that begins with `!<` must end in `>`");
                }
                self.forward(1);
                (None, suffix)
            }
            c if is_blank_or_end(c) => {
                self.forward(1);
                (None, "!".to_owned())
            }
            _ => {
                let mut ahead = 1;
                while !(self.peek(ahead) == ' '
                    || self.peek(ahead) == '!'
                    || is_break_or_end(self.peek(ahead)))
                {
                    ahead += 1;
                }
                let handle = if self.peek(ahead) == '!' {
                    self.tag_handle()?
                } else {
                    self.forward(1);
                    "!".to_owned()
                };
                (Some(handle), self.tag_uri()?)
            }
        };
        if !(self.peek(0) == ' ' || is_break_or_end(self.peek(0))) {
            return self.error(format!("{} in a tag", shown(self.peek(0))));
        }
        self.push(TokenKind::Tag(handle, suffix), start);
        Ok(())
    }

    fn tag_handle(&mut self) -> Scan<String> {
        if self.peek(0) != '!' {
            return self.error("the handle of a tag must begin with `!`");
        }
        let mut length = 1;
        if self.peek(length) != ' ' {
            while is_word(self.peek(length)) {
                length += 1;
            }
            if self.peek(length) != '!' {
                self.forward(length);
                return self.error("the handle of a tag must end in `!`");
            }
            length += 1;
        }
        Ok(self.take(length))
    }

    fn tag_uri(&mut self) -> Scan<String> {
        let mut uri = String::new();
        loop {
            let c = self.peek(0);
            if c == '%' {
                uri.push_str(&self.uri_escapes()?);
            } else if c.is_ascii_alphanumeric() || "-;/?:@&=+$,_.!~*'()[]".contains(c) {
                uri.push(c);
                self.forward(1);
            } else {
                break;
            }
        }
        if uri.is_empty() {
            return self.error(format!("a tag needs a name, found {}", shown(self.peek(0))));
        }
        Ok(uri)
    }

    fn uri_escapes(&mut self) -> Scan<String> {
        let start = self.at;
        let mut bytes = vec![];
        while self.peek(0) == '%' {
            self.forward(1);
            let digits: String = [self.peek(0), self.peek(1)].iter().collect();
            match u8::from_str_radix(&digits, 16) {
                Ok(byte) if !digits.starts_with('+') => bytes.push(byte),
                _ => return self.error("`%` in a tag needs two hexadecimal digits"),
            }
            self.forward(2);
        }
        String::from_utf8(bytes)
            .or_else(|_| Self::error_at(start, "the escapes in this tag are not UTF-8"))
    }
}
