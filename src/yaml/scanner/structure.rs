//! Indentation, keys and brackets: the tokens that give a text its shape.

use super::token::{Mark, Token, TokenKind};
use super::{PossibleKey, Scan, Scanner};

impl Scanner {
    pub(super) fn drop_stale_keys(&mut self) -> Scan<()> {
        let at = self.at;
        let stale =
            |key: &PossibleKey| key.mark.line != at.line || at.index - key.mark.index > 1024;
        let mut required = None;
        self.possible_keys.retain(|key| {
            let stale = stale(key) && required.is_none();
            if stale && key.required {
                required = Some(key.mark);
            }
            !stale || key.required
        });
        required.map_or(Ok(()), Self::no_colon)
    }

    fn no_colon<T>(key: Mark) -> Scan<T> {
        Self::error_at(key, "a key was expected here, and no `:` follows it")
    }

    pub(super) fn save_possible_key(&mut self) -> Scan<()> {
        if self.simple_key_allowed {
            let required = !self.in_flow() && self.indent == self.column();
            self.remove_possible_key()?;
            self.possible_keys.push(PossibleKey {
                flow_level: self.flow_level,
                token: self.tokens.len(),
                required,
                mark: self.at,
            });
        }
        Ok(())
    }

    pub(super) fn remove_possible_key(&mut self) -> Scan<()> {
        let level = self.flow_level;
        if let Some(index) = self
            .possible_keys
            .iter()
            .position(|key| key.flow_level == level)
        {
            let key = &self.possible_keys[index];
            if key.required {
                return Self::no_colon(key.mark);
            }
            self.possible_keys.remove(index);
        }
        Ok(())
    }

    pub(super) fn unwind_indent(&mut self, column: isize) {
        if self.in_flow() {
            return;
        }
        while self.indent > column {
            self.indent = self.indents.pop().unwrap_or(-1);
            self.push(TokenKind::BlockEnd, self.at);
        }
    }

    fn add_indent(&mut self, column: isize) -> bool {
        if self.indent < column {
            self.indents.push(self.indent);
            self.indent = column;
            return true;
        }
        false
    }

    pub(super) fn stream_end(&mut self) -> Scan<()> {
        self.unwind_indent(-1);
        self.remove_possible_key()?;
        self.simple_key_allowed = false;
        self.possible_keys.clear();
        self.push(TokenKind::StreamEnd, self.at);
        self.done = true;
        Ok(())
    }

    pub(super) fn document_mark(&mut self, kind: TokenKind) -> Scan<()> {
        self.unwind_indent(-1);
        self.remove_possible_key()?;
        self.simple_key_allowed = false;
        let start = self.at;
        self.forward(3);
        self.push(kind, start);
        Ok(())
    }

    pub(super) fn flow_start(&mut self, kind: TokenKind) -> Scan<()> {
        self.save_possible_key()?;
        self.flow_level += 1;
        self.simple_key_allowed = true;
        let start = self.at;
        self.forward(1);
        self.push(kind, start);
        Ok(())
    }

    pub(super) fn flow_end(&mut self, kind: TokenKind) -> Scan<()> {
        self.remove_possible_key()?;
        self.flow_level -= 1;
        self.simple_key_allowed = false;
        let start = self.at;
        self.forward(1);
        self.push(kind, start);
        Ok(())
    }

    pub(super) fn flow_entry(&mut self) -> Scan<()> {
        self.simple_key_allowed = true;
        self.remove_possible_key()?;
        let start = self.at;
        self.forward(1);
        self.push(TokenKind::FlowEntry, start);
        Ok(())
    }

    pub(super) fn block_entry(&mut self) -> Scan<()> {
        if !self.in_flow() {
            if !self.simple_key_allowed {
                return self.error("a list entry is not allowed here");
            }
            if self.add_indent(self.column()) {
                self.push(TokenKind::BlockSequenceStart, self.at);
            }
        }
        self.simple_key_allowed = true;
        self.remove_possible_key()?;
        let start = self.at;
        self.forward(1);
        self.push(TokenKind::BlockEntry, start);
        Ok(())
    }

    pub(super) fn key(&mut self) -> Scan<()> {
        if !self.in_flow() {
            if !self.simple_key_allowed {
                return self.error("a mapping key is not allowed here");
            }
            if self.add_indent(self.column()) {
                self.push(TokenKind::BlockMappingStart, self.at);
            }
        }
        self.simple_key_allowed = !self.in_flow();
        self.remove_possible_key()?;
        let start = self.at;
        self.forward(1);
        self.push(TokenKind::Key, start);
        Ok(())
    }

    pub(super) fn value(&mut self) -> Scan<()> {
        let level = self.flow_level;
        if let Some(index) = self
            .possible_keys
            .iter()
            .position(|key| key.flow_level == level)
        {
            let key = self.possible_keys.remove(index);
            let token = |kind| Token {
                kind,
                start: key.mark,
                end: key.mark,
            };
            self.tokens.insert(key.token, token(TokenKind::Key));
            if !self.in_flow() && self.add_indent(key.mark.column as isize) {
                self.tokens
                    .insert(key.token, token(TokenKind::BlockMappingStart));
            }
            self.simple_key_allowed = false;
        } else {
            if !self.in_flow() {
                if !self.simple_key_allowed {
                    return self.error("a second `:` on one line: quote the value");
                }
                if self.add_indent(self.column()) {
                    self.push(TokenKind::BlockMappingStart, self.at);
                }
            }
            self.simple_key_allowed = !self.in_flow();
            self.remove_possible_key()?;
        }
        let start = self.at;
        self.forward(1);
        self.push(TokenKind::Value, start);
        Ok(())
    }
}
