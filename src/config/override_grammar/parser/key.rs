//! The part before `=`: prefix, key or group, package.

use super::{Parse, Parser};
use crate::config::lexemes::{id_length, unsigned_length};
use crate::config::override_grammar::OverrideKind;

/// Longer keys are refused.
const MAX_LEVELS: usize = 100;

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

impl Parser<'_> {
    pub(super) fn kind(&mut self) -> OverrideKind {
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
    pub(super) fn key(&mut self, is_delete: bool) -> Parse<(String, Option<String>)> {
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
        let levels = |text: &str| text.matches(['.', '/']).count();
        if levels(&key).max(package.as_deref().map_or(0, levels)) > MAX_LEVELS {
            return self.fail(format!("a key of more than {MAX_LEVELS} levels"));
        }
        match self.rest().chars().next() {
            Some('=') => Ok((key, package)),
            None if is_delete => Ok((key, package)),
            None if is_group => self.fail("`=` is missing"),
            None => self.fail("`=` is missing: write `key=value`"),
            Some(_) => self.unexpected_in_key(),
        }
    }
}
