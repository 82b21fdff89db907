//! Characters to tokens, by the rules of PyYAML's scanner (YAML 1.1): what it refuses is refused, at the same place.
//!
//! The whole text is scanned at once; the first error ends the tokens, so that a mistake of structure before it is
//! still the one that is reported.

mod block;
mod plain;
mod properties;
mod quoted;
mod structure;
mod token;

pub(crate) use token::{Mark, ScalarStyle, Token, TokenKind};

use super::YamlError;
use super::error::YamlErrorKind;
use token::Tokens;

pub(crate) fn scan(text: &str) -> Tokens {
    let mut scanner = Scanner {
        text: text.chars().collect(),
        at: Mark::default(),
        tokens: vec![],
        indents: vec![],
        indent: -1,
        flow_level: 0,
        simple_key_allowed: true,
        possible_keys: vec![],
        done: false,
    };
    let mut error = None;
    while !scanner.done {
        if let Err(first) = scanner.next_token() {
            // What may still turn out to be a key is not handed out before the mistake is seen.
            let held = scanner.possible_keys.iter().map(|key| key.token).min();
            scanner.tokens.truncate(held.unwrap_or(usize::MAX));
            error = Some(first);
            break;
        }
    }
    Tokens {
        tokens: scanner.tokens,
        error,
    }
}

struct PossibleKey {
    flow_level: isize,
    token: usize,
    required: bool,
    mark: Mark,
}

struct Scanner {
    text: Vec<char>,
    at: Mark,
    tokens: Vec<Token>,
    indents: Vec<isize>,
    indent: isize,
    flow_level: isize,
    simple_key_allowed: bool,
    possible_keys: Vec<PossibleKey>,
    done: bool,
}

type Scan<T> = Result<T, YamlError>;

fn is_break(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_break_or_end(c: char) -> bool {
    c == '\0' || is_break(c)
}

fn is_blank_or_end(c: char) -> bool {
    c == ' ' || c == '\t' || is_break_or_end(c)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// A character as a message shows it.
fn shown(c: char) -> String {
    match c {
        '\0' => "the end of the file".to_owned(),
        '\t' => "a tab".to_owned(),
        c if is_break(c) => "the end of the line".to_owned(),
        c => format!("`{c}`"),
    }
}

impl Scanner {
    fn peek(&self, ahead: usize) -> char {
        self.text
            .get(self.at.index + ahead)
            .copied()
            .unwrap_or('\0')
    }

    fn forward(&mut self, count: usize) {
        for _ in 0..count {
            let Some(&c) = self.text.get(self.at.index) else {
                return;
            };
            self.at.index += 1;
            if matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
                || (c == '\r' && self.peek(0) != '\n')
            {
                self.at.line += 1;
                self.at.column = 0;
            } else if c != '\u{feff}' {
                self.at.column += 1;
            }
        }
    }

    fn take(&mut self, count: usize) -> String {
        let end = (self.at.index + count).min(self.text.len());
        let taken = self.text[self.at.index..end].iter().collect();
        self.forward(count);
        taken
    }

    fn error<T>(&self, message: impl Into<String>) -> Scan<T> {
        Self::error_at(self.at, message)
    }

    fn error_at<T>(mark: Mark, message: impl Into<String>) -> Scan<T> {
        Err(YamlError::new(YamlErrorKind::Scanner, message, mark))
    }

    fn push(&mut self, kind: TokenKind, start: Mark) {
        let end = self.at;
        self.tokens.push(Token { kind, start, end });
    }

    fn column(&self) -> isize {
        self.at.column as isize
    }

    fn next_token(&mut self) -> Scan<()> {
        self.skip_to_next_token();
        self.drop_stale_keys()?;
        self.unwind_indent(self.column());
        let c = self.peek(0);
        let at_line_start = self.at.column == 0;
        match c {
            '\0' if self.at.index >= self.text.len() => self.stream_end(),
            '%' if at_line_start => self.directive(),
            '-' if at_line_start && self.is_document_mark('-') => {
                self.document_mark(TokenKind::DocumentStart)
            }
            '.' if at_line_start && self.is_document_mark('.') => {
                self.document_mark(TokenKind::DocumentEnd)
            }
            '[' => self.flow_start(TokenKind::FlowSequenceStart),
            '{' => self.flow_start(TokenKind::FlowMappingStart),
            ']' => self.flow_end(TokenKind::FlowSequenceEnd),
            '}' => self.flow_end(TokenKind::FlowMappingEnd),
            ',' => self.flow_entry(),
            '-' if is_blank_or_end(self.peek(1)) => self.block_entry(),
            '?' if self.in_flow() || is_blank_or_end(self.peek(1)) => self.key(),
            ':' if self.in_flow() || is_blank_or_end(self.peek(1)) => self.value(),
            '*' | '&' => self.anchor(c),
            '!' => self.tag(),
            '|' | '>' if !self.in_flow() => self.block_scalar(c == '>'),
            '\'' | '"' => self.quoted(c),
            _ if self.is_plain_start(c) => self.plain(),
            _ => self.error(format!("{} cannot start a value", shown(c))),
        }
    }

    fn in_flow(&self) -> bool {
        self.flow_level != 0
    }

    fn is_document_mark(&self, c: char) -> bool {
        self.peek(0) == c && self.peek(1) == c && self.peek(2) == c && is_blank_or_end(self.peek(3))
    }

    fn is_plain_start(&self, c: char) -> bool {
        let indicator = "-?:,[]{}#&*!|>'\"%@`".contains(c);
        (!is_blank_or_end(c) && !indicator)
            || (!is_blank_or_end(self.peek(1))
                && (c == '-' || (!self.in_flow() && (c == '?' || c == ':'))))
    }

    fn skip_to_next_token(&mut self) {
        if self.at.index == 0 && self.peek(0) == '\u{feff}' {
            self.forward(1);
        }
        loop {
            while self.peek(0) == ' ' {
                self.forward(1);
            }
            if self.peek(0) == '#' {
                while !is_break_or_end(self.peek(0)) {
                    self.forward(1);
                }
            }
            if self.line_break().is_none() {
                return;
            }
            if !self.in_flow() {
                self.simple_key_allowed = true;
            }
        }
    }

    /// Consumes a line break and says what it stands for.
    fn line_break(&mut self) -> Option<char> {
        match self.peek(0) {
            '\r' if self.peek(1) == '\n' => {
                self.forward(2);
                Some('\n')
            }
            '\r' | '\n' | '\u{85}' => {
                self.forward(1);
                Some('\n')
            }
            c @ ('\u{2028}' | '\u{2029}') => {
                self.forward(1);
                Some(c)
            }
            _ => None,
        }
    }
}
