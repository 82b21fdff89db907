//! The tokens that the override grammar and the interpolation grammar share.
//!
//! Both grammars are read by ANTLR lexers: the longest token wins, and of equally long ones the first listed. The
//! functions here keep exactly that, because most surprises of the two languages are lexical (`1e3m` is a float and a
//! word, `null x` is null, a blank and a word).

use crate::yaml::Integer;

/// Kind of a token in value position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lexeme {
    Comma,
    Colon,
    Equal,
    ParenthesisOpen,
    ParenthesisClose,
    BracketOpen,
    BracketClose,
    BraceOpen,
    BraceClose,
    Float,
    Int,
    Bool,
    Null,
    Unquoted,
    Id,
    Escape,
    Blank,
}

/// Which language is read: only overrides have functions and `=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Override,
    Interpolation,
}

fn blanks(text: &[u8]) -> usize {
    text.iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count()
}

/// The token at the start of a text and its length in bytes; nothing where none begins there.
pub(crate) fn lexeme(text: &str, language: Language) -> Option<(Lexeme, usize)> {
    let bytes = text.as_bytes();
    let first = *bytes.first()?;
    let lead = blanks(bytes);
    if let Some(&mark) = bytes.get(lead) {
        let wide = |kind| Some((kind, lead + 1 + blanks(&bytes[lead + 1..])));
        match mark {
            b',' => return wide(Lexeme::Comma),
            b':' => return wide(Lexeme::Colon),
            b']' => return Some((Lexeme::BracketClose, lead + 1)),
            b'}' => return Some((Lexeme::BraceClose, lead + 1)),
            b'=' if language == Language::Override => return wide(Lexeme::Equal),
            b'(' if language == Language::Override => return wide(Lexeme::ParenthesisOpen),
            b')' if language == Language::Override => {
                return Some((Lexeme::ParenthesisClose, lead + 1));
            }
            _ => {}
        }
    }
    if lead > 0 {
        return Some((Lexeme::Blank, lead));
    }
    match first {
        b'[' => return Some((Lexeme::BracketOpen, 1 + blanks(&bytes[1..]))),
        b'{' => return Some((Lexeme::BraceOpen, 1 + blanks(&bytes[1..]))),
        b'\\' => {
            let mut length = 0;
            while let [b'\\', next, ..] = &bytes[length..]
                && b"\\()[]{}:=, \t".contains(next)
            {
                length += 2;
            }
            return Some(if length > 0 {
                (Lexeme::Escape, length)
            } else {
                (Lexeme::Unquoted, 1)
            });
        }
        _ => {}
    }
    let number = number(bytes);
    let id = id_length(bytes);
    let unquoted = usize::from(b"/-+.$%*@?|".contains(&first));
    // In the order of the lexers, so that the first of the longest wins.
    let mut best = (Lexeme::Float, number.float);
    for (kind, length) in [
        (Lexeme::Int, number.int),
        (Lexeme::Bool, keyword(bytes, &["true", "false"])),
        (Lexeme::Null, keyword(bytes, &["null"])),
        (Lexeme::Unquoted, unquoted),
        (Lexeme::Id, id),
    ] {
        if length > best.1 {
            best = (kind, length);
        }
    }
    (best.1 > 0).then_some(best)
}

fn keyword(text: &[u8], words: &[&str]) -> usize {
    words
        .iter()
        .find(|word| {
            text.len() >= word.len() && text[..word.len()].eq_ignore_ascii_case(word.as_bytes())
        })
        .map_or(0, |word| word.len())
}

/// Length of `(CHAR|_)(CHAR|DIGIT|_|-)*` at the start.
pub(crate) fn id_length(text: &[u8]) -> usize {
    match text.first() {
        Some(first) if first.is_ascii_alphabetic() || *first == b'_' => text
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
            .count(),
        _ => 0,
    }
}

/// Length of `0 | [1-9](_?[0-9])*` at the start.
pub(crate) fn unsigned_length(text: &[u8]) -> usize {
    match text.first() {
        Some(b'0') => 1,
        Some(b'1'..=b'9') => digits_length(text),
        _ => 0,
    }
}

/// Length of `[0-9](_?[0-9])*` at the start.
fn digits_length(text: &[u8]) -> usize {
    let mut length = 0;
    loop {
        match &text[length..] {
            [byte, ..] if byte.is_ascii_digit() => length += 1,
            [b'_', byte, ..] if length > 0 && byte.is_ascii_digit() => length += 2,
            _ => return length,
        }
    }
}

struct Number {
    float: usize,
    int: usize,
}

fn number(text: &[u8]) -> Number {
    let sign = usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let rest = &text[sign..];
    let whole = unsigned_length(rest);
    let int = if whole > 0 { sign + whole } else { 0 };
    // `1.`, `1.5`, `.5`
    let mut point = 0;
    if rest.get(whole) == Some(&b'.') {
        let fraction = digits_length(&rest[whole + 1..]);
        if whole > 0 || fraction > 0 {
            point = whole + 1 + fraction;
        }
    }
    let mut float = point;
    for mantissa in [point, whole] {
        if mantissa == 0 || !matches!(rest.get(mantissa), Some(b'e' | b'E')) {
            continue;
        }
        let after = mantissa + 1;
        let signed = usize::from(matches!(rest.get(after), Some(b'+' | b'-')));
        let exponent = digits_length(&rest[after + signed..]);
        if exponent > 0 {
            float = float.max(after + signed + exponent);
        }
    }
    float = float.max(keyword(rest, &["inf", "nan"]));
    Number {
        float: if float > 0 { sign + float } else { 0 },
        int,
    }
}

/// The value of an `Int` token.
pub(crate) fn int_value(text: &str) -> Integer {
    let digits = text.trim_start_matches(['+', '-']);
    Integer::from_digits(digits, 10, text.starts_with('-'))
}

/// The value of a `Float` token.
pub(crate) fn float_value(text: &str) -> f64 {
    text.replace('_', "").parse().unwrap_or(f64::NAN)
}

/// Every second character: what an `Escape` token stands for.
pub(crate) fn unescape(text: &str) -> String {
    text.chars().skip(1).step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_token_wins_and_then_the_first_listed() {
        let first = |text| lexeme(text, Language::Override);
        assert_eq!(first("1e3m"), Some((Lexeme::Float, 3)));
        assert_eq!(first("10k"), Some((Lexeme::Int, 2)));
        assert_eq!(first("01"), Some((Lexeme::Int, 1)));
        assert_eq!(first("1.2.3"), Some((Lexeme::Float, 3)));
        assert_eq!(first("nano"), Some((Lexeme::Id, 4)));
        assert_eq!(first("NaN"), Some((Lexeme::Float, 3)));
        assert_eq!(first("true_x"), Some((Lexeme::Id, 6)));
        assert_eq!(first("--1"), Some((Lexeme::Unquoted, 1)));
        assert_eq!(first("-1"), Some((Lexeme::Int, 2)));
        assert_eq!(first("  , x"), Some((Lexeme::Comma, 4)));
        assert_eq!(first(" x"), Some((Lexeme::Blank, 1)));
        assert_eq!(first("\\\\\\,x"), Some((Lexeme::Escape, 4)));
        assert_eq!(first("\\x"), Some((Lexeme::Unquoted, 1)));
        assert_eq!(first("é"), None);
        assert_eq!(lexeme("(", Language::Interpolation), None);
    }
}
