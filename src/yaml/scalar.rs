//! What the text of a plain scalar means: PyYAML's YAML 1.1 table with OmegaConf's own float rule.
//!
//! `resolve` says the type by the text alone; `construct` makes the value. Both follow `yaml/resolver.py`,
//! `yaml/constructor.py` and `omegaconf/_utils.py`.

use super::YamlErrorKind;
use super::node::{Integer, Value};
use super::python_text::parse_float;

/// Python refuses to read longer numbers.
pub(crate) const MAX_DIGITS: usize = 4300;

/// The type that a scalar resolves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarTag {
    /// `null`
    Null,
    /// truth value
    Bool,
    /// integer
    Int,
    /// double
    Float,
    /// text
    Str,
    /// `<<`
    Merge,
    /// `=`
    ValueKey,
    /// A date, which only the writer knows about.
    Timestamp,
}

/// Who asks: the reader knows OmegaConf's floats, the writer dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// OmegaConf's loader.
    Reader,
    /// PyYAML's dumper.
    Writer,
}

/// The type of a plain text.
pub fn resolve(text: &str, table: Table) -> ScalarTag {
    let Some(first) = text.bytes().next() else {
        return ScalarTag::Null;
    };
    match first {
        b'y' | b'Y' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'o' | b'O' => match text {
            "yes" | "Yes" | "YES" | "no" | "No" | "NO" | "true" | "True" | "TRUE" | "false"
            | "False" | "FALSE" | "on" | "On" | "ON" | "off" | "Off" | "OFF" => ScalarTag::Bool,
            "null" | "Null" | "NULL" => ScalarTag::Null,
            _ => ScalarTag::Str,
        },
        b'~' if text == "~" => ScalarTag::Null,
        b'=' if text == "=" => ScalarTag::ValueKey,
        b'<' if text == "<<" => ScalarTag::Merge,
        b'-' | b'+' | b'.' | b'0'..=b'9' => number(text.as_bytes(), table),
        _ => ScalarTag::Str,
    }
}

fn number(text: &[u8], table: Table) -> ScalarTag {
    let signed = matches!(text[0], b'-' | b'+');
    let rest = &text[usize::from(signed)..];
    if is_float(rest, signed, table) {
        ScalarTag::Float
    } else if is_integer(rest) {
        ScalarTag::Int
    } else if table == Table::Writer && !signed && is_timestamp(rest) {
        ScalarTag::Timestamp
    } else {
        ScalarTag::Str
    }
}

fn run(text: &[u8], accept: impl Fn(u8) -> bool) -> usize {
    text.iter().take_while(|byte| accept(**byte)).count()
}

fn digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}

fn digit_or_underscore(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'_'
}

/// `[eE][-+][0-9]+` to the end; the sign may be left out where `bare`.
fn is_exponent(text: &[u8], bare: bool) -> bool {
    let [b'e' | b'E', rest @ ..] = text else {
        return false;
    };
    let rest = match rest {
        [b'-' | b'+', rest @ ..] => rest,
        rest if bare => rest,
        _ => return false,
    };
    !rest.is_empty() && run(rest, digit) == rest.len()
}

/// `[0-9]+(_[0-9]+)*`
fn is_well_grouped(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'_')
        .all(|group| !group.is_empty() && run(group, digit) == group.len())
}

fn is_float(text: &[u8], signed: bool, table: Table) -> bool {
    match text {
        b".inf" | b".Inf" | b".INF" => true,
        b".nan" | b".NaN" | b".NAN" => !signed,
        [b'.', rest @ ..] => {
            let length = run(rest, digit_or_underscore);
            !signed
                && rest.first().is_some_and(u8::is_ascii_digit)
                && (length == rest.len() || is_exponent(&rest[length..], false))
        }
        [first, ..] if first.is_ascii_digit() => {
            let length = run(text, digit_or_underscore);
            let (whole, rest) = text.split_at(length);
            let bare = table == Table::Reader && is_well_grouped(whole);
            match rest {
                [b'.', rest @ ..] => {
                    let rest = &rest[run(rest, digit_or_underscore)..];
                    rest.is_empty() || is_exponent(rest, bare)
                }
                [b'e' | b'E', ..] => bare && is_exponent(rest, true),
                [b':', ..] => match &rest[sexagesimal(rest)..] {
                    [b'.', rest @ ..] => run(rest, digit_or_underscore) == rest.len(),
                    _ => false,
                },
                _ => false,
            }
        }
        _ => false,
    }
}

/// Length of `(:[0-5]?[0-9])+` at the start.
fn sexagesimal(text: &[u8]) -> usize {
    let mut length = 0;
    loop {
        length += match &text[length..] {
            [b':', b'0'..=b'5', b'0'..=b'9', ..] => 3,
            [b':', b'0'..=b'9', ..] => 2,
            _ => return length,
        };
    }
}

fn is_integer(text: &[u8]) -> bool {
    match text {
        [b'0', b'b', rest @ ..] => {
            !rest.is_empty() && run(rest, |byte| matches!(byte, b'0' | b'1' | b'_')) == rest.len()
        }
        [b'0', b'x', rest @ ..] => {
            !rest.is_empty()
                && run(rest, |byte| byte.is_ascii_hexdigit() || byte == b'_') == rest.len()
        }
        [b'0'] => true,
        [b'0', rest @ ..] => run(rest, |byte| matches!(byte, b'0'..=b'7' | b'_')) == rest.len(),
        [b'1'..=b'9', ..] => {
            let rest = &text[run(text, digit_or_underscore)..];
            let length = sexagesimal(rest);
            length == rest.len()
        }
        _ => false,
    }
}

/// `YYYY-MM-DD`, or with a time.
fn is_timestamp(text: &[u8]) -> bool {
    fn digits(text: &mut &[u8], least: usize, most: usize) -> bool {
        let count = run(text, digit).min(most);
        *text = &text[count..];
        count >= least
    }
    fn byte(text: &mut &[u8], accept: &[u8]) -> bool {
        match text {
            [first, rest @ ..] if accept.contains(first) => {
                *text = rest;
                true
            }
            _ => false,
        }
    }
    if text.len() == 10 {
        let at = &mut &*text;
        if digits(at, 4, 4)
            && byte(at, b"-")
            && digits(at, 2, 2)
            && byte(at, b"-")
            && digits(at, 2, 2)
        {
            return true;
        }
    }
    let at = &mut &*text;
    if !(digits(at, 4, 4)
        && byte(at, b"-")
        && digits(at, 1, 2)
        && byte(at, b"-")
        && digits(at, 1, 2))
    {
        return false;
    }
    if !byte(at, b"Tt") {
        let blanks = run(at, |byte| byte == b' ' || byte == b'\t');
        if blanks == 0 {
            return false;
        }
        *at = &at[blanks..];
    }
    if !(digits(at, 1, 2)
        && byte(at, b":")
        && digits(at, 2, 2)
        && byte(at, b":")
        && digits(at, 2, 2))
    {
        return false;
    }
    if byte(at, b".") {
        *at = &at[run(at, digit)..];
    }
    if at.is_empty() {
        return true;
    }
    *at = &at[run(at, |byte| byte == b' ' || byte == b'\t')..];
    if byte(at, b"Z") {
        return at.is_empty();
    }
    byte(at, b"-+")
        && digits(at, 1, 2)
        && (at.is_empty() || (byte(at, b":") && digits(at, 2, 2) && at.is_empty()))
}

/// The value of a text under a type.
///
/// # Errors
/// A text that is not of that type (an explicit tag may promise it).
pub fn construct(tag: ScalarTag, text: &str) -> Result<Value, YamlErrorKind> {
    Ok(match tag {
        ScalarTag::Null => Value::Null,
        ScalarTag::Bool => Value::Bool(match text.to_lowercase().as_str() {
            "yes" | "true" | "on" => true,
            "no" | "false" | "off" => false,
            _ => return Err(YamlErrorKind::Lookup),
        }),
        ScalarTag::Int => Value::Int(integer(text)?),
        ScalarTag::Float => Value::Float(float(text)?),
        ScalarTag::Str | ScalarTag::Merge | ScalarTag::ValueKey | ScalarTag::Timestamp => {
            Value::Str(text.to_owned())
        }
    })
}

fn split_sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// The text without `_`, and whether it has a sign; a text without characters is an error of its own.
fn signed_digits(text: &str) -> Result<(bool, String), YamlErrorKind> {
    let text = text.replace('_', "");
    if text.is_empty() {
        return Err(YamlErrorKind::Index);
    }
    let (negative, digits) = split_sign(&text);
    Ok((negative, digits.to_owned()))
}

fn integer(text: &str) -> Result<Integer, YamlErrorKind> {
    let (negative, digits) = signed_digits(text)?;
    let based = |digits: &str, base: u32| {
        let valid = !digits.is_empty()
            && digits.len() <= MAX_DIGITS
            && digits.chars().all(|c| c.is_digit(base));
        if valid {
            Ok(Integer::from_digits(digits, base, negative))
        } else {
            Err(YamlErrorKind::Value)
        }
    };
    if digits == "0" {
        Ok(Integer::Small(0))
    } else if let Some(digits) = digits.strip_prefix("0b") {
        based(digits, 2)
    } else if let Some(digits) = digits.strip_prefix("0x") {
        based(digits, 16)
    } else if digits.is_empty() {
        Err(YamlErrorKind::Index)
    } else if digits.starts_with('0') {
        based(&digits, 8)
    } else if digits.contains(':') {
        let mut value = Some(0_i128);
        for part in digits.split(':') {
            let part = part.parse::<i128>().ok();
            value = value
                .and_then(|value| value.checked_mul(60))
                .zip(part)
                .and_then(|(value, part)| value.checked_add(part));
        }
        let value = value.ok_or(YamlErrorKind::Value)?;
        Ok(Integer::Small(if negative { -value } else { value }))
    } else {
        based(&digits, 10)
    }
}

fn float(text: &str) -> Result<f64, YamlErrorKind> {
    let (negative, digits) = signed_digits(&text.to_lowercase())?;
    let number = |text: &str| parse_float(text).ok_or(YamlErrorKind::Value);
    let value = match digits.as_str() {
        ".inf" => f64::INFINITY,
        ".nan" => return Ok(f64::NAN),
        _ if digits.contains(':') => {
            // In the order in which Python adds, so that the last digit is the same.
            let (mut value, mut base) = (0.0, 1.0);
            for part in digits.rsplit(':') {
                value += number(part)? * base;
                base *= 60.0;
            }
            value
        }
        _ => number(&digits)?,
    };
    Ok(if negative { -value } else { value })
}

/// Whether `datetime` takes a text that is tagged as a date.
pub(super) fn check_timestamp(text: &str) -> Result<(), YamlErrorKind> {
    let date = text.split(['t', 'T', ' ', '\t']).next().unwrap_or("");
    if !(is_timestamp(text.as_bytes()) || is_timestamp(format!("{text} 0:00:00").as_bytes())) {
        return Err(YamlErrorKind::Attribute);
    }
    let mut parts = date.split('-').map(|part| part.parse::<u32>().unwrap_or(0));
    let (year, month, day) = (parts.next(), parts.next(), parts.next());
    let year = year.unwrap_or(0);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month.unwrap_or(0) {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    if year == 0 || !(1..=days).contains(&day.unwrap_or(0)) {
        return Err(YamlErrorKind::Value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::python_text::float_repr;

    fn read(text: &str) -> String {
        match construct(resolve(text, Table::Reader), text) {
            Ok(Value::Null) => "null".to_owned(),
            Ok(Value::Bool(value)) => format!("bool {value}"),
            Ok(Value::Int(value)) => format!("int {value}"),
            Ok(Value::Float(value)) => format!("float {}", float_repr(value)),
            Ok(Value::Str(text)) => format!("str {text}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn plain_scalars_mean_what_omegaconf_says_they_mean() {
        let table = "\
            yes|bool true; Off|bool false; y|str y; tRue|str tRue; ~|null; NULL|null; nUll|str nUll; None|str None;\
            1e3|float 1000.0; 1E5|float 100000.0; -2E+05|float -200000.0; 1.e5|float 100000.0; .5|float 0.5;\
            .5e+3|float 500.0; -.5|str -.5; +.5|str +.5; .5e3|str .5e3; 1e1_0|str 1e1_0; 017|int 15; 08|str 08;\
            0o17|str 0o17; 0b101|int 5; 0b2|str 0b2; 0x1F|int 31; 0X1F|str 0X1F; 1_|int 1; 1__0|int 10;\
            1:30|int 90; 12:34:56|int 45296; 1:60|str 1:60; 1:30.5|float 90.5; 2001-01-01|str 2001-01-01;\
            1e400|float inf; nan|str nan; .nan|float nan; -.nan|str -.nan; -.inf|float -inf; 0|int 0; -0|int 0;\
            340282366920938463463374607431768211456|int 340282366920938463463374607431768211456";
        for row in table.split(';') {
            let (text, expected) = row.trim().split_once('|').unwrap();
            assert_eq!(read(text), expected, "for `{text}`");
        }
    }
}
