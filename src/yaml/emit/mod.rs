//! A tree to text, byte for byte as `OmegaConf.to_yaml` writes it.
//!
//! Follows PyYAML's emitter in block style (indent 2, width 80, Unicode kept) with OmegaConf's rule for texts that
//! Python would read as a number or YAML 1.1 as a truth value.

mod scalars;
mod style;

use super::node::{Key, Mapping, Node, Value};
use super::python_text::key_value;
use style::{choose_style, is_simple_key, plain_scalar};

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

impl Emitter {
    fn value(&mut self, value: &Value, context: Context) {
        match value {
            Value::Map(mapping) if mapping.is_empty() => self.indicator("{}", true, false, false),
            Value::List(items) if items.is_empty() => self.indicator("[]", true, false, false),
            Value::Map(mapping) => self.mapping(mapping),
            Value::List(items) => self.sequence(items, context),
            Value::Str(text) => self.text(text, context),
            Value::Bytes(bytes) => self.indented(|emitter| emitter.binary(bytes)),
            _ => {
                let text = plain_scalar(value);
                self.indented(|emitter| emitter.plain(&text, true));
            }
        }
    }

    fn text(&mut self, text: &str, context: Context) {
        self.indented(|emitter| {
            let simple_key = context == Context::SimpleKey;
            match choose_style(text, simple_key) {
                Style::Plain => emitter.plain(text, !simple_key),
                Style::Single => emitter.single_quoted(text, !simple_key),
                Style::Double => emitter.double_quoted(text, !simple_key),
            }
        });
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
                match key {
                    Key::Str(text) => self.text(text, Context::SimpleKey),
                    _ => self.value(&key_value(key), Context::SimpleKey),
                }
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
