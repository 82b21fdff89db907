//! A tree to text, byte for byte as `OmegaConf.to_yaml` writes it.
//!
//! Follows PyYAML's emitter in block style (indent 2, width 80, Unicode kept) with OmegaConf's rule for texts that
//! Python would read as a number or YAML 1.1 as a truth value.

use super::node::{Key, Mapping, Node, Value};
use super::python_text::{float_repr, key_value, parse_float, parse_int};
use super::scalar::{ScalarTag, Table, resolve};

const WIDTH: usize = 80;
const INDENT: usize = 2;
/// Longer keys (text and tag together) are written after `? `.
const SIMPLE_KEY_LENGTH: usize = 128;

/// The text of a tree.
pub fn to_yaml(root: &Node) -> String {
    let mut emitter = Emitter {
        out: String::new(),
        column: 0,
        whitespace: true,
        indention: true,
        indent: None,
    };
    emitter.value(&root.value, Context::Root);
    // PyYAML marks the end of a document that is a bare plain scalar.
    let open_ended = !root.is_container()
        && !matches!(&root.value, Value::Str(text) if choose_style(text, false) != Style::Plain);
    emitter.write_indent();
    if open_ended {
        emitter.out.push_str("...\n");
    }
    emitter.out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    Root,
    Sequence,
    Mapping,
    SimpleKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
}

struct Emitter {
    out: String,
    column: usize,
    /// The last character written was blank.
    whitespace: bool,
    /// Only indentation and indicators stand on this line.
    indention: bool,
    indent: Option<usize>,
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_blank(c: char) -> bool {
    matches!(c, '\0' | ' ' | '\t' | '\r') || is_break(c)
}

/// What a text allows.
struct Analysis {
    multiline: bool,
    plain: bool,
    single: bool,
}

fn analyse(text: &str) -> Analysis {
    if text.is_empty() {
        return Analysis {
            multiline: false,
            plain: true,
            single: true,
        };
    }
    let mut indicators = text.starts_with("---") || text.starts_with("...");
    let (mut breaks, mut special) = (false, false);
    let (mut break_space, mut space_break) = (false, false);
    let mut before = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let blank_follows = chars.peek().is_none_or(|next| is_blank(*next));
        if before.is_none() {
            indicators |=
                "#,[]{}&*!|>'\"%@`".contains(c) || (matches!(c, '?' | ':' | '-') && blank_follows);
        } else {
            indicators |= (c == ':' && blank_follows) || (c == '#' && before.is_some_and(is_blank));
        }
        if is_break(c) {
            breaks = true;
            space_break |= before == Some(' ');
        }
        if c == ' ' {
            break_space |= before.is_some_and(is_break);
        }
        special |= !(c == '\n'
            || (' '..='~').contains(&c)
            || (c != '\u{feff}'
                && matches!(c, '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}'
                    | '\u{10000}'..='\u{10fffe}')));
        before = Some(c);
    }
    let edge = |c: Option<char>| c.is_some_and(|c| c == ' ' || is_break(c));
    let edges = edge(text.chars().next()) || edge(before);
    let single = !(break_space || space_break || special);
    Analysis {
        multiline: breaks,
        plain: single && !edges && !breaks && !indicators,
        single,
    }
}

/// OmegaConf quotes what YAML 1.1 calls a truth value and what Python reads as a number.
fn must_be_quoted(text: &str) -> bool {
    matches!(
        text,
        "y" | "Y"
            | "yes"
            | "Yes"
            | "YES"
            | "n"
            | "N"
            | "no"
            | "No"
            | "NO"
            | "true"
            | "True"
            | "TRUE"
            | "false"
            | "False"
            | "FALSE"
            | "on"
            | "On"
            | "ON"
            | "off"
            | "Off"
            | "OFF"
    ) || parse_int(text).is_some()
        || parse_float(text).is_some()
}

fn choose_style(text: &str, simple_key: bool) -> Style {
    let analysis = analyse(text);
    let plain = analysis.plain
        && !(simple_key && (text.is_empty() || analysis.multiline))
        && !must_be_quoted(text)
        && resolve(text, Table::Writer) == ScalarTag::Str;
    if plain {
        Style::Plain
    } else if analysis.single && !(simple_key && analysis.multiline) {
        Style::Single
    } else {
        Style::Double
    }
}

/// The plain text of a scalar that is not a string.
fn plain_scalar(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) if value.is_nan() => ".nan".to_owned(),
        Value::Float(value) if value.is_infinite() => {
            if *value > 0.0 { ".inf" } else { "-.inf" }.to_owned()
        }
        Value::Float(value) => {
            let repr = float_repr(*value);
            match repr.split_once('e') {
                Some((mantissa, exponent)) if !mantissa.contains('.') => {
                    format!("{mantissa}.0e{exponent}")
                }
                _ => repr,
            }
        }
        Value::Str(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => String::new(),
    }
}

fn is_simple_key(key: &Key) -> bool {
    let (length, tag) = match key {
        Key::Str(text) if text.is_empty() || text.chars().any(is_break) => return false,
        Key::Str(text) => (text.chars().count(), "!!str"),
        Key::Int(value) => (value.to_string().len(), "!!int"),
        Key::Float(_) => (plain_scalar(&key_value(key)).len(), "!!float"),
        Key::Bool(_) => (5, "!!bool"),
        Key::Null => (4, "!!null"),
        Key::Bytes(_) => return false,
    };
    length + tag.len() < SIMPLE_KEY_LENGTH
}

impl Emitter {
    fn value(&mut self, value: &Value, context: Context) {
        match value {
            Value::Map(mapping) if mapping.is_empty() => self.indicator("{}", true, false, false),
            Value::List(items) if items.is_empty() => self.indicator("[]", true, false, false),
            Value::Map(mapping) => self.mapping(mapping),
            Value::List(items) => self.sequence(items, context),
            Value::Str(text) => self.indented(|emitter| {
                let simple_key = context == Context::SimpleKey;
                match choose_style(text, simple_key) {
                    Style::Plain => emitter.plain(text, !simple_key),
                    Style::Single => emitter.single_quoted(text, !simple_key),
                    Style::Double => emitter.double_quoted(text, !simple_key),
                }
            }),
            Value::Bytes(bytes) => self.indented(|emitter| emitter.binary(bytes)),
            _ => {
                let text = plain_scalar(value);
                self.indented(|emitter| emitter.plain(&text, true));
            }
        }
    }

    fn indented(&mut self, write: impl FnOnce(&mut Self)) {
        let before = self.indent;
        self.indent = Some(before.map_or(INDENT, |indent| indent + INDENT));
        write(self);
        self.indent = before;
    }

    fn sequence(&mut self, items: &[Node], context: Context) {
        let before = self.indent;
        let indentless = context == Context::Mapping && !self.indention;
        self.indent = Some(match before {
            None => 0,
            Some(indent) if indentless => indent,
            Some(indent) => indent + INDENT,
        });
        for item in items {
            self.write_indent();
            self.indicator("-", true, false, true);
            self.value(&item.value, Context::Sequence);
        }
        self.indent = before;
    }

    fn mapping(&mut self, mapping: &Mapping) {
        let before = self.indent;
        self.indent = Some(before.map_or(0, |indent| indent + INDENT));
        for (key, item) in mapping {
            self.write_indent();
            if is_simple_key(key) {
                self.value(&key_value(key), Context::SimpleKey);
                self.indicator(":", false, false, false);
            } else {
                self.indicator("?", true, false, true);
                self.value(&key_value(key), Context::Mapping);
                self.write_indent();
                self.indicator(":", true, false, true);
            }
            self.value(&item.value, Context::Mapping);
        }
        self.indent = before;
    }

    fn push(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.chars().count();
    }

    fn indicator(&mut self, indicator: &str, needs_blank: bool, blank: bool, indention: bool) {
        if needs_blank && !self.whitespace {
            self.push(" ");
        }
        self.whitespace = blank;
        self.indention &= indention;
        self.push(indicator);
    }

    fn write_indent(&mut self) {
        let indent = self.indent.unwrap_or(0);
        if !self.indention || self.column > indent || (self.column == indent && !self.whitespace) {
            self.line_break('\n');
        }
        if self.column < indent {
            self.whitespace = true;
            let blanks = " ".repeat(indent - self.column);
            self.push(&blanks);
        }
    }

    fn line_break(&mut self, c: char) {
        self.whitespace = true;
        self.indention = true;
        self.column = 0;
        self.out.push(c);
    }

    fn plain(&mut self, text: &str, split: bool) {
        if text.is_empty() {
            return;
        }
        if !self.whitespace {
            self.push(" ");
        }
        self.whitespace = false;
        self.indention = false;
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

    fn single_quoted(&mut self, text: &str, split: bool) {
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

    fn double_quoted(&mut self, text: &str, split: bool) {
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
                && self.column + end.saturating_sub(start) > WIDTH
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

    fn binary(&mut self, bytes: &[u8]) {
        self.indicator("!!binary", true, false, false);
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

fn encode_base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for group in bytes.chunks(3) {
        let mut bits = 0_u32;
        for index in 0..3 {
            bits = (bits << 8) | u32::from(group.get(index).copied().unwrap_or(0));
        }
        for index in 0..4 {
            if index <= group.len() {
                let digit = (bits >> (18 - 6 * index)) & 63;
                encoded.push(char::from(ALPHABET[digit as usize]));
            } else {
                encoded.push('=');
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::source::SourceId;
    use crate::yaml::tree::parse;

    fn round(text: &str) -> String {
        to_yaml(&parse(text, SourceId(0)).unwrap().unwrap())
    }

    #[test]
    fn texts_are_quoted_where_they_would_be_read_as_something_else() {
        for (value, written) in [
            ("'yes'", "'yes'"),
            ("'1_000'", "'1_000'"),
            ("'0o17'", "0o17"),
            ("'2001-01-01'", "'2001-01-01'"),
            ("'null'", "'null'"),
            ("'1:30'", "'1:30'"),
            ("''", "''"),
            ("'a: b'", "'a: b'"),
            ("${a:b,c}", "${a:b,c}"),
            ("1e-5", "1.0e-05"),
            ("1e20", "1.0e+20"),
            ("010", "8"),
            ("\"a\\tb\"", "\"a\\tb\""),
        ] {
            assert_eq!(round(&format!("k: {value}")), format!("k: {written}\n"));
        }
    }

    #[test]
    fn lists_stand_at_the_column_of_their_key() {
        let text = "a:\n- 1\n- - 2\n  - x: 1\n    z: {}\nb: []\n";
        assert_eq!(round(text), text);
    }
}
