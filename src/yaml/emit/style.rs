//! Which quotes a text needs.

use super::{SIMPLE_KEY_LENGTH, Style, is_blank, is_break};
use crate::yaml::node::{Key, Value};
use crate::yaml::python_text::{float_repr, key_value, parse_float, parse_int};
use crate::yaml::scalar::{ScalarTag, Table, resolve};

/// What a text allows.
struct Analysis {
    pub(super) multiline: bool,
    pub(super) plain: bool,
    pub(super) single: bool,
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

pub(super) fn choose_style(text: &str, simple_key: bool) -> Style {
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
pub(super) fn plain_scalar(value: &Value) -> String {
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

pub(super) fn is_simple_key(key: &Key) -> bool {
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
