//! Numbers and texts as Python writes and reads them: `repr`, `str`, `int`, `float`.

use super::node::{Integer, Key, Mapping, Node, Value};

/// `repr` of a float: the shortest digits that read back equal.
pub fn float_repr(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value == 0.0 || (-4..16).contains(&exponent) {
        let fixed = format!("{value}");
        if fixed.contains('.') {
            fixed
        } else {
            fixed + ".0"
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.abs())
    }
}

/// `str` of a value: what string interpolation puts in.
pub fn str_of(node: &Node) -> String {
    match &node.value {
        Value::Str(text) => text.clone(),
        _ => repr_of(node),
    }
}

/// `repr` of a value.
pub fn repr_of(node: &Node) -> String {
    let mut out = String::new();
    write_repr(&node.value, &mut out);
    out
}

fn write_text(out: &mut String, text: std::fmt::Arguments<'_>) {
    std::fmt::Write::write_fmt(out, text).expect("writing to a string cannot fail");
}

fn write_repr(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(value) => out.push_str(if *value { "True" } else { "False" }),
        Value::Int(value) => out.push_str(&value.to_string()),
        Value::Float(value) => out.push_str(&float_repr(*value)),
        Value::Str(text) => write_text_repr(text, out),
        Value::Bytes(bytes) => write_bytes_repr(bytes, out),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_repr(&item.value, out);
            }
            out.push(']');
        }
        Value::Map(mapping) => write_mapping_repr(mapping, out),
    }
}

fn write_mapping_repr(mapping: &Mapping, out: &mut String) {
    out.push('{');
    for (index, (key, item)) in mapping.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_repr(&key_value(key), out);
        out.push_str(": ");
        write_repr(&item.value, out);
    }
    out.push('}');
}

/// A key as a value of its own.
pub fn key_value(key: &Key) -> Value {
    match key {
        Key::Str(text) => Value::Str(text.clone()),
        Key::Int(value) => Value::Int(value.clone()),
        Key::Float(value) => Value::Float(*value),
        Key::Bool(value) => Value::Bool(*value),
        Key::Null => Value::Null,
        Key::Bytes(bytes) => Value::Bytes(bytes.clone()),
    }
}

/// `str` of a key.
pub fn key_text(key: &Key) -> String {
    str_of(&Node::computed(key_value(key)))
}

fn write_text_repr(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            c if (c as u32) < 0x100 => write_text(out, format_args!("\\x{:02x}", c as u32)),
            c if (c as u32) < 0x1_0000 => write_text(out, format_args!("\\u{:04x}", c as u32)),
            c => write_text(out, format_args!("\\U{:08x}", c as u32)),
        }
    }
    out.push(quote);
}

/// `str.isprintable` of one character, but for the code points that no version of Unicode has assigned.
fn is_printable(c: char) -> bool {
    !(c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}' | '\u{e0001}'..='\u{e007f}'
            | '\u{f0000}'..='\u{10ffff}'))
}

fn write_bytes_repr(bytes: &[u8], out: &mut String) {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') {
        '"'
    } else {
        '\''
    };
    out.push('b');
    out.push(quote);
    for &byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            byte if char::from(byte) == quote => {
                out.push('\\');
                out.push(quote);
            }
            0x20..=0x7e => out.push(char::from(byte)),
            byte => write_text(out, format_args!("\\x{byte:02x}")),
        }
    }
    out.push(quote);
}

/// First code points of the blocks of ten decimal digits (Unicode category Nd).
const DIGIT_BLOCKS: &[u32] = &[
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66,
    0xde6, 0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90,
    0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
    0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650,
    0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50,
    0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

fn ascii_digit(c: char) -> char {
    if c.is_ascii() {
        return c;
    }
    let code = c as u32;
    DIGIT_BLOCKS
        .iter()
        .find(|first| (**first..**first + 10).contains(&code))
        .and_then(|first| char::from_digit(code - first, 10))
        .unwrap_or(c)
}

/// Python's whitespace: Unicode's and the four separators.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\x1c'..='\x1f'))
}

/// Digits with single underscores between them, without those.
fn digits(text: &str) -> Option<String> {
    let mut found = String::new();
    let mut after_digit = false;
    for c in text.chars() {
        match ascii_digit(c) {
            digit @ '0'..='9' => {
                found.push(digit);
                after_digit = true;
            }
            '_' if after_digit => after_digit = false,
            _ => return None,
        }
    }
    after_digit.then_some(found)
}

/// `int(text)`.
pub fn parse_int(text: &str) -> Option<Integer> {
    let text = strip(text);
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    Some(Integer::from_digits(&digits(rest)?, 10, negative))
}

/// `float(text)`.
pub fn parse_float(text: &str) -> Option<f64> {
    let text = strip(text);
    // Most texts are words; only `inf` and `nan` begin with a letter.
    let first = text.trim_start_matches(['+', '-']).bytes().next()?;
    if first.is_ascii_alphabetic() && !b"iInN".contains(&first) {
        return None;
    }
    let mut plain = String::new();
    let mut before: Option<char> = None;
    let mut chars = text.chars().map(ascii_digit).peekable();
    while let Some(c) = chars.next() {
        if c == '_' {
            // An underscore stands between two digits.
            let between = before.is_some_and(|c| c.is_ascii_digit())
                && chars.peek().is_some_and(char::is_ascii_digit);
            if !between {
                return None;
            }
        } else {
            plain.push(c);
        }
        before = Some(c);
    }
    let body = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    match body.bytes().next()? {
        b'0'..=b'9' | b'.' => plain.parse().ok(),
        _ if ["inf", "infinity", "nan"].contains(&body.to_ascii_lowercase().as_str()) => {
            plain.parse().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (value, text) in [
            (1000.0, "1000.0"),
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (0.0001, "0.0001"),
            (0.000_01, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (-0.0, "-0.0"),
            (123_456_789.123, "123456789.123"),
        ] {
            assert_eq!(float_repr(value), text);
        }
    }

    #[test]
    fn numbers_are_read_as_python_reads_them() {
        assert_eq!(
            parse_int(" 1_000 ").map(|value| value.to_string()),
            Some("1000".to_owned())
        );
        assert_eq!(parse_int("1__0"), None);
        assert_eq!(
            parse_int("٣").map(|value| value.to_string()),
            Some("3".to_owned())
        );
        assert_eq!(parse_float("1_0.5"), Some(10.5));
        assert_eq!(parse_float("Infinity"), Some(f64::INFINITY));
        assert_eq!(parse_float("0x10"), None);
        assert_eq!(parse_float("1e5"), Some(1e5));
    }
}
