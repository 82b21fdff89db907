//! The language inside of `${…}`: OmegaConf's interpolation grammar, text to tree.
//!
//! Two levels, as in `OmegaConfGrammar{Lexer,Parser}.g4`: the *text level* (a whole string: literals and
//! interpolations) and the *value level* (arguments of resolvers, and what `oc.decode` reads).

use crate::config::lexemes::{Language, Lexeme, id_length, lexeme};

/// Deeper nesting is refused.
const MAX_DEPTH: usize = 64;

/// A text that is not in the language, with the byte at which it leaves it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GrammarError {
    /// What is wrong.
    pub message: String,
    /// Byte offset in the text.
    pub offset: usize,
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// As it stands in the result, escapes already removed.
    Literal(String),
    /// `${…}`
    Interpolation(Interpolation),
}

/// `${…}`
#[derive(Clone, Debug, PartialEq)]
pub enum Interpolation {
    /// `${a.b}`: the tokens of the key, in order.
    Node(Vec<KeyToken>),
    /// `${name:arguments}`
    Resolver {
        /// Parts of the dotted name.
        name: Vec<KeyToken>,
        /// The arguments.
        arguments: Vec<Argument>,
    },
}

/// A token of a key or a name.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyToken {
    /// A key, a dot, or a bracket.
    Text(String),
    /// A key that is computed, with its text.
    Interpolation(Interpolation, String),
}

/// An argument of a resolver; `element` is nothing where it was left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Argument {
    /// The argument.
    pub element: Option<Element>,
    /// Its text.
    pub text: String,
}

/// A value of the value level.
#[derive(Clone, Debug, PartialEq)]
pub enum Element {
    /// Tokens side by side: one of them keeps its type, several make a text.
    Primitive(Vec<PrimitiveToken>),
    /// `'…'` or `"…"`: always a text.
    Quoted(Vec<Piece>),
    /// `[…]`
    List(Vec<Argument>),
    /// `{…}`
    Dict(Vec<(Vec<PrimitiveToken>, Element)>),
}

/// A token of a primitive.
#[derive(Clone, Debug, PartialEq)]
pub enum PrimitiveToken {
    /// A token with its text.
    Token(PrimitiveKind, String),
    /// `${…}`
    Interpolation(Interpolation),
}

/// What a primitive token means when it stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrimitiveKind {
    /// Its text.
    Text,
    /// `null`
    Null,
    /// An integer.
    Int,
    /// A double.
    Float,
    /// A truth value.
    Bool,
    /// Backslashes and what they protect.
    Escape,
}

/// Reads a text with `${` in it.
pub fn parse_text(text: &str) -> Result<Vec<Piece>, GrammarError> {
    let mut parser = Parser::new(text);
    let pieces = parser.pieces(None)?;
    Ok(pieces)
}

/// Reads one value, as `oc.decode` does.
pub fn parse_element(text: &str) -> Result<Element, GrammarError> {
    let mut parser = Parser::new(text);
    let element = parser.element()?;
    if parser.at < text.len() {
        return parser.fail("nothing may follow the value");
    }
    Ok(element)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

type Parse<T> = Result<T, GrammarError>;

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn fail<T>(&self, message: impl Into<String>) -> Parse<T> {
        Err(GrammarError {
            message: message.into(),
            offset: self.at,
        })
    }

    fn enter(&mut self) -> Parse<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail(format!("more than {MAX_DEPTH} levels of nesting"));
        }
        Ok(())
    }

    /// Literals and interpolations up to the end, or up to the closing quote.
    fn pieces(&mut self, quote: Option<char>) -> Parse<Vec<Piece>> {
        let mut pieces = vec![];
        let mut literal = String::new();
        loop {
            let rest = self.rest();
            let Some(c) = rest.chars().next() else {
                if quote.is_some() {
                    return self.fail("this quote is never closed");
                }
                break;
            };
            if Some(c) == quote {
                self.at += 1;
                break;
            }
            if c == '\\' {
                self.backslashes(quote, &mut literal);
            } else if rest.starts_with("${") {
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Interpolation(self.interpolation()?));
            } else {
                literal.push(c);
                self.at += c.len_utf8();
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(pieces)
    }

    /// A run of backslashes is halved before `${`, and in quotes before the quote.
    fn backslashes(&mut self, quote: Option<char>, literal: &mut String) {
        let rest = self.rest();
        let count = rest.bytes().take_while(|byte| *byte == b'\\').count();
        let after = &rest[count..];
        self.at += count;
        let before_interpolation = after.starts_with("${");
        let before_quote = quote.is_some_and(|quote| after.starts_with(quote));
        if !before_interpolation && !before_quote {
            literal.push_str(&rest[..count]);
            return;
        }
        literal.push_str(&rest[..count / 2]);
        if count % 2 == 1 {
            let escaped = if before_interpolation {
                "${"
            } else {
                &after[..1]
            };
            literal.push_str(escaped);
            self.at += escaped.len();
        }
    }

    fn skip_blanks(&mut self) {
        while self.rest().starts_with([' ', '\t']) {
            self.at += 1;
        }
    }

    /// `${…}`, standing at its `$`.
    fn interpolation(&mut self) -> Parse<Interpolation> {
        self.enter()?;
        let start = self.at;
        self.at += 2;
        self.skip_blanks();
        let mut tokens: Vec<KeyToken> = vec![];
        let interpolation = loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t']);
            let blanks = rest.len() - trimmed.len();
            if trimmed.starts_with('}') {
                if let Some(problem) = problem_of_key(&tokens) {
                    return self.fail(problem);
                }
                self.at += blanks + 1;
                break Interpolation::Node(tokens);
            }
            if trimmed.starts_with(':') {
                if let Some(problem) = problem_of_name(&tokens) {
                    return self.fail(problem);
                }
                self.at += blanks + 1;
                self.skip_blanks();
                let name = tokens
                    .into_iter()
                    .filter(|token| !is_text(token, "."))
                    .collect();
                let arguments = self.arguments(Lexeme::BraceClose)?;
                break Interpolation::Resolver { name, arguments };
            }
            if blanks > 0 {
                return self.fail("a blank cannot stand inside of a key");
            }
            if rest.starts_with("${") {
                let from = self.at;
                let inner = self.interpolation()?;
                tokens.push(KeyToken::Interpolation(
                    inner,
                    self.text[from..self.at].to_owned(),
                ));
                continue;
            }
            let Some(c) = rest.chars().next() else {
                self.at = start;
                return self.fail("`${` is never closed");
            };
            let length = match c {
                '.' | '[' | ']' => 1,
                _ => rest
                    .find([
                        '\\', '{', '}', '(', ')', '[', ']', ':', '.', ' ', '\t', '\'', '"',
                    ])
                    .unwrap_or(rest.len()),
            };
            if length == 0 {
                return self.fail(format!("`{c}` cannot stand in a key"));
            }
            // The lexer prefers a nested interpolation only where it begins a token.
            tokens.push(KeyToken::Text(rest[..length].to_owned()));
            self.at += length;
        };
        self.depth -= 1;
        Ok(interpolation)
    }

    /// Elements and commas up to a closing token, which is taken too.
    fn arguments(&mut self, closing: Lexeme) -> Parse<Vec<Argument>> {
        let mut arguments = vec![];
        let mut after_comma = true;
        let mut any = false;
        loop {
            match lexeme(self.rest(), Language::Interpolation) {
                Some((kind, length)) if kind == closing => {
                    self.at += length;
                    break;
                }
                Some((Lexeme::Comma, length)) => {
                    any = true;
                    self.at += length;
                    if after_comma {
                        arguments.push(Argument {
                            element: None,
                            text: String::new(),
                        });
                    }
                    after_comma = true;
                }
                _ if !after_comma => {
                    return self.fail("expected `,` or the end of the list");
                }
                _ => {
                    any = true;
                    after_comma = false;
                    let from = self.at;
                    let element = self.element()?;
                    arguments.push(Argument {
                        element: Some(element),
                        text: self.text[from..self.at].to_owned(),
                    });
                }
            }
        }
        if any && after_comma {
            arguments.push(Argument {
                element: None,
                text: String::new(),
            });
        }
        Ok(arguments)
    }

    fn element(&mut self) -> Parse<Element> {
        self.enter()?;
        let rest = self.rest();
        let element = match rest.chars().next() {
            Some(quote @ ('\'' | '"')) => {
                self.at += 1;
                Element::Quoted(self.pieces(Some(quote))?)
            }
            Some('[') => {
                self.take_open();
                Element::List(self.arguments(Lexeme::BracketClose)?)
            }
            Some('{') => {
                self.take_open();
                Element::Dict(self.dict()?)
            }
            _ => Element::Primitive(self.primitive(true)?),
        };
        self.depth -= 1;
        Ok(element)
    }

    fn take_open(&mut self) {
        self.at += 1;
        self.skip_blanks();
    }

    fn dict(&mut self) -> Parse<Vec<(Vec<PrimitiveToken>, Element)>> {
        let mut pairs = vec![];
        if let Some((Lexeme::BraceClose, length)) = lexeme(self.rest(), Language::Interpolation) {
            self.at += length;
            return Ok(pairs);
        }
        loop {
            let key = self.primitive(false)?;
            let Some((Lexeme::Colon, length)) = lexeme(self.rest(), Language::Interpolation) else {
                return self.fail("expected `:` after this key");
            };
            self.at += length;
            let value = self.element()?;
            pairs.push((key, value));
            match lexeme(self.rest(), Language::Interpolation) {
                Some((Lexeme::Comma, length)) => self.at += length,
                Some((Lexeme::BraceClose, length)) => {
                    self.at += length;
                    return Ok(pairs);
                }
                _ => return self.fail("expected `,` or `}`"),
            }
        }
    }

    /// One token or more; a value may hold colons and interpolations, a key of a dict may not.
    fn primitive(&mut self, is_value: bool) -> Parse<Vec<PrimitiveToken>> {
        let mut tokens = vec![];
        loop {
            let rest = self.rest();
            if is_value && rest.starts_with("${") {
                tokens.push(PrimitiveToken::Interpolation(self.interpolation()?));
                continue;
            }
            let Some((kind, length)) = lexeme(rest, Language::Interpolation) else {
                if tokens.is_empty() || !rest.is_empty() {
                    return match rest.chars().next() {
                        Some(c) => self.fail(format!("`{c}` cannot stand here without quotes")),
                        None => self.fail("a value is missing"),
                    };
                }
                return Ok(tokens);
            };
            let kind = match kind {
                Lexeme::Id | Lexeme::Unquoted | Lexeme::Blank => PrimitiveKind::Text,
                Lexeme::Colon if is_value => PrimitiveKind::Text,
                Lexeme::Null => PrimitiveKind::Null,
                Lexeme::Int => PrimitiveKind::Int,
                Lexeme::Float => PrimitiveKind::Float,
                Lexeme::Bool => PrimitiveKind::Bool,
                Lexeme::Escape => PrimitiveKind::Escape,
                _ if tokens.is_empty() => return self.fail("a value is missing"),
                _ => return Ok(tokens),
            };
            tokens.push(PrimitiveToken::Token(kind, rest[..length].to_owned()));
            self.at += length;
        }
    }
}

fn is_text(token: &KeyToken, text: &str) -> bool {
    matches!(token, KeyToken::Text(own) if own == text)
}

fn is_mark(token: &KeyToken) -> bool {
    [".", "[", "]"].iter().any(|mark| is_text(token, mark))
}

/// `DOT* (key | [key]) (DOT key | [key])*`
fn problem_of_key(tokens: &[KeyToken]) -> Option<&'static str> {
    let mut rest = tokens;
    while let [first, tail @ ..] = rest
        && is_text(first, ".")
    {
        rest = tail;
    }
    let mut first = true;
    loop {
        rest = match rest {
            [] if first => return Some("a key is missing"),
            [] => return None,
            [open, key, close, tail @ ..]
                if is_text(open, "[") && !is_mark(key) && is_text(close, "]") =>
            {
                tail
            }
            [key, tail @ ..] if first && !is_mark(key) => tail,
            [dot, key, tail @ ..] if !first && is_text(dot, ".") && !is_mark(key) => tail,
            _ => return Some("the key is not of the form `a.b` or `a[b]`"),
        };
        first = false;
    }
}

/// `(ID | interpolation) (DOT (ID | interpolation))*`
fn problem_of_name(tokens: &[KeyToken]) -> Option<&'static str> {
    let is_part = |token: &KeyToken| match token {
        KeyToken::Text(text) => id_length(text.as_bytes()) == text.len(),
        KeyToken::Interpolation(..) => true,
    };
    let well_formed = tokens.len() % 2 == 1
        && tokens.iter().enumerate().all(|(index, token)| {
            if index % 2 == 0 {
                is_part(token)
            } else {
                is_text(token, ".")
            }
        });
    (!well_formed).then_some("the name of a resolver consists of letters, digits, `_` and `-`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backslashes_are_halved_only_before_an_interpolation() {
        let literal = |text: &str| match parse_text(text).unwrap().remove(0) {
            Piece::Literal(text) => text,
            Piece::Interpolation(_) => String::new(),
        };
        assert_eq!(literal(r"\${a}"), "${a}");
        assert_eq!(literal(r"\\${a}"), r"\");
        assert_eq!(literal(r"\\\${a}"), r"\${a}");
        assert_eq!(literal(r"a\b ${a}"), r"a\b ");
    }

    #[test]
    fn what_is_not_in_the_language_is_refused_at_its_place() {
        for (text, offset) in [
            ("${", 0),
            ("${a", 0),
            ("${a b}", 3),
            ("${a[x.y]}", 8),
            ("${opt${x}}", 6),
            ("${f:[a}", 6),
            ("${f:é}", 4),
            ("${}", 2),
            ("${0:x}", 3),
        ] {
            assert_eq!(
                parse_text(text).map_err(|error| error.offset),
                Err(offset),
                "{text}"
            );
        }
        for text in [
            "${x@y}",
            "${$d}",
            "${a-b}",
            "${ключ}",
            "${.a}",
            "${[a].b[c]}",
            "${f:}",
            "${f:,}",
            "${ns.f:a}",
        ] {
            assert!(parse_text(text).is_ok(), "{text}");
        }
    }
}
