//! Scalars on the page: quotes, escapes, long lines.

use super::{Emitter, WIDTH, is_break};
use crate::yaml::base64::encode_base64;

impl Emitter {
    pub(super) fn plain(&mut self, text: &str, split: bool) {
        if text.is_empty() {
            return;
        }
        if !self.whitespace {
            self.push(" ");
        }
        self.whitespace = false;
        self.indention = false;
        // Only a space beyond the width is ever a place to break at.
        if self.column + text.len() <= WIDTH {
            self.push(text);
            return;
        }
        let chars: Vec<char> = text.chars().collect();
        let mut start = 0;
        let mut spaces = false;
        for end in 0..=chars.len() {
            let c = chars.get(end).copied();
            if spaces {
                if c != Some(' ') {
                    if start + 1 == end && self.column > WIDTH && split {
                        self.write_indent();
                        self.whitespace = false;
                        self.indention = false;
                    } else {
                        self.push_chars(&chars[start..end]);
                    }
                    start = end;
                }
            } else if c.is_none_or(|c| c == ' ') {
                self.push_chars(&chars[start..end]);
                start = end;
            }
            spaces = c == Some(' ');
        }
    }

    fn push_chars(&mut self, chars: &[char]) {
        self.out.extend(chars);
        self.column += chars.len();
    }

    pub(super) fn single_quoted(&mut self, text: &str, split: bool) {
        self.indicator("'", true, false, false);
        let chars: Vec<char> = text.chars().collect();
        let (mut spaces, mut breaks) = (false, false);
        let mut start = 0;
        for end in 0..=chars.len() {
            let c = chars.get(end).copied();
            if spaces {
                if c != Some(' ') {
                    if start + 1 == end
                        && self.column > WIDTH
                        && split
                        && start != 0
                        && end != chars.len()
                    {
                        self.write_indent();
                    } else {
                        self.push_chars(&chars[start..end]);
                    }
                    start = end;
                }
            } else if breaks {
                if !c.is_some_and(is_break) {
                    if chars[start] == '\n' {
                        self.line_break('\n');
                    }
                    for &c in &chars[start..end] {
                        self.line_break(c);
                    }
                    self.write_indent();
                    start = end;
                }
            } else if c.is_none_or(|c| c == ' ' || c == '\'' || is_break(c)) && start < end {
                self.push_chars(&chars[start..end]);
                start = end;
            }
            if c == Some('\'') {
                self.push("''");
                start = end + 1;
            }
            if let Some(c) = c {
                spaces = c == ' ';
                breaks = is_break(c);
            }
        }
        self.indicator("'", false, false, false);
    }

    pub(super) fn double_quoted(&mut self, text: &str, split: bool) {
        self.indicator("\"", true, false, false);
        let chars: Vec<char> = text.chars().collect();
        let mut start = 0;
        for end in 0..=chars.len() {
            let c = chars.get(end).copied();
            let written_as_is = c.is_some_and(|c| {
                !matches!(
                    c,
                    '"' | '\\' | '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}'
                ) && matches!(c, ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
            });
            if !written_as_is {
                if start < end {
                    self.push_chars(&chars[start..end]);
                    start = end;
                }
                if let Some(c) = c {
                    self.push(&escaped(c));
                    start = end + 1;
                }
            }
            if end > 0
                && end + 1 < chars.len()
                && (c == Some(' ') || start >= end)
                // Right after an escape `start` is beyond `end`.
                && self.column + end > WIDTH + start
                && split
            {
                if start < end {
                    self.push_chars(&chars[start..end]);
                    start = end;
                }
                self.push("\\");
                self.write_indent();
                self.whitespace = false;
                self.indention = false;
                if chars[start] == ' ' {
                    self.push("\\");
                }
            }
        }
        self.indicator("\"", false, false, false);
    }

    pub(super) fn binary(&mut self, bytes: &[u8]) {
        self.indicator("!!binary", true, false, false);
        if bytes.is_empty() {
            return self.indicator("\"\"", true, false, false);
        }
        self.indicator("|", true, false, false);
        let encoded = encode_base64(bytes);
        self.line_break('\n');
        for line in encoded.as_bytes().chunks(76) {
            self.write_indent();
            self.push(&String::from_utf8_lossy(line));
            self.line_break('\n');
        }
    }
}

fn escaped(c: char) -> String {
    let short = match c {
        '\0' => '0',
        '\x07' => 'a',
        '\x08' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\x0b' => 'v',
        '\x0c' => 'f',
        '\r' => 'r',
        '\x1b' => 'e',
        '"' | '\\' => c,
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        c => {
            let code = c as u32;
            return match code {
                0..=0xff => format!("\\x{code:02X}"),
                0x100..=0xffff => format!("\\u{code:04X}"),
                _ => format!("\\U{code:08X}"),
            };
        }
    };
    format!("\\{short}")
}
