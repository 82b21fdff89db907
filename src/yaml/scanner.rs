//! Characters to tokens, by the rules of PyYAML's scanner (YAML 1.1): what it refuses is refused, at the same place.
//!
//! The whole text is scanned at once; the first error ends the tokens, so that a mistake of structure before it is
//! still the one that is reported.

use super::YamlError;
use super::error::YamlErrorKind;

/// A place in a text: line and column from 0, counted in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    pub(crate) index: usize,
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScalarStyle {
    /// Without quotes: its type depends on its text.
    Plain,
    /// `'…'`
    SingleQuoted,
    /// `"…"`
    DoubleQuoted,
    /// `|` or `>`
    Block,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    StreamEnd,
    YamlDirective(u32),
    TagDirective(String, String),
    OtherDirective,
    DocumentStart,
    DocumentEnd,
    BlockSequenceStart,
    BlockMappingStart,
    BlockEnd,
    FlowSequenceStart,
    FlowMappingStart,
    FlowSequenceEnd,
    FlowMappingEnd,
    BlockEntry,
    FlowEntry,
    Key,
    Value,
    Alias(String),
    Anchor(String),
    Tag(Option<String>, String),
    Scalar(String, ScalarStyle),
}

impl TokenKind {
    /// The name that messages use.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::StreamEnd => "the end of the file",
            Self::YamlDirective(_) | Self::TagDirective(..) | Self::OtherDirective => "a directive",
            Self::DocumentStart => "`---`",
            Self::DocumentEnd => "`...`",
            Self::BlockSequenceStart => "a list",
            Self::BlockMappingStart => "a mapping",
            Self::BlockEnd => "the end of the indented block",
            Self::FlowSequenceStart => "`[`",
            Self::FlowMappingStart => "`{`",
            Self::FlowSequenceEnd => "`]`",
            Self::FlowMappingEnd => "`}`",
            Self::BlockEntry => "`-`",
            Self::FlowEntry => "`,`",
            Self::Key => "a key",
            Self::Value => "`:`",
            Self::Alias(_) => "an alias",
            Self::Anchor(_) => "an anchor",
            Self::Tag(..) => "a tag",
            Self::Scalar(..) => "a value",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) start: Mark,
    pub(crate) end: Mark,
}

/// The tokens up to the end or the first error.
pub(crate) struct Tokens {
    pub(crate) tokens: Vec<Token>,
    pub(crate) error: Option<YamlError>,
}

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

    fn drop_stale_keys(&mut self) -> Scan<()> {
        let at = self.at;
        let stale =
            |key: &PossibleKey| key.mark.line != at.line || at.index - key.mark.index > 1024;
        if let Some(key) = self
            .possible_keys
            .iter()
            .find(|key| stale(key) && key.required)
        {
            return Self::no_colon(key.mark);
        }
        self.possible_keys.retain(|key| !stale(key));
        Ok(())
    }

    fn no_colon<T>(key: Mark) -> Scan<T> {
        Self::error_at(key, "a key was expected here, and no `:` follows it")
    }

    fn save_possible_key(&mut self) -> Scan<()> {
        if self.simple_key_allowed {
            let required = !self.in_flow() && self.indent == self.column();
            self.remove_possible_key()?;
            self.possible_keys.push(PossibleKey {
                flow_level: self.flow_level,
                token: self.tokens.len(),
                required,
                mark: self.at,
            });
        }
        Ok(())
    }

    fn remove_possible_key(&mut self) -> Scan<()> {
        let level = self.flow_level;
        if let Some(index) = self
            .possible_keys
            .iter()
            .position(|key| key.flow_level == level)
        {
            let key = self.possible_keys.remove(index);
            if key.required {
                return Self::no_colon(key.mark);
            }
        }
        Ok(())
    }

    fn unwind_indent(&mut self, column: isize) {
        if self.in_flow() {
            return;
        }
        while self.indent > column {
            self.indent = self.indents.pop().unwrap_or(-1);
            self.push(TokenKind::BlockEnd, self.at);
        }
    }

    fn add_indent(&mut self, column: isize) -> bool {
        if self.indent < column {
            self.indents.push(self.indent);
            self.indent = column;
            return true;
        }
        false
    }

    fn stream_end(&mut self) -> Scan<()> {
        self.unwind_indent(-1);
        self.remove_possible_key()?;
        self.simple_key_allowed = false;
        self.possible_keys.clear();
        self.push(TokenKind::StreamEnd, self.at);
        self.done = true;
        Ok(())
    }

    fn document_mark(&mut self, kind: TokenKind) -> Scan<()> {
        self.unwind_indent(-1);
        self.remove_possible_key()?;
        self.simple_key_allowed = false;
        let start = self.at;
        self.forward(3);
        self.push(kind, start);
        Ok(())
    }

    fn flow_start(&mut self, kind: TokenKind) -> Scan<()> {
        self.save_possible_key()?;
        self.flow_level += 1;
        self.simple_key_allowed = true;
        let start = self.at;
        self.forward(1);
        self.push(kind, start);
        Ok(())
    }

    fn flow_end(&mut self, kind: TokenKind) -> Scan<()> {
        self.remove_possible_key()?;
        self.flow_level -= 1;
        self.simple_key_allowed = false;
        let start = self.at;
        self.forward(1);
        self.push(kind, start);
        Ok(())
    }

    fn flow_entry(&mut self) -> Scan<()> {
        self.simple_key_allowed = true;
        self.remove_possible_key()?;
        let start = self.at;
        self.forward(1);
        self.push(TokenKind::FlowEntry, start);
        Ok(())
    }

    fn block_entry(&mut self) -> Scan<()> {
        if !self.in_flow() {
            if !self.simple_key_allowed {
                return self.error("a list entry is not allowed here");
            }
            if self.add_indent(self.column()) {
                self.push(TokenKind::BlockSequenceStart, self.at);
            }
        }
        self.simple_key_allowed = true;
        self.remove_possible_key()?;
        let start = self.at;
        self.forward(1);
        self.push(TokenKind::BlockEntry, start);
        Ok(())
    }

    fn key(&mut self) -> Scan<()> {
        if !self.in_flow() {
            if !self.simple_key_allowed {
                return self.error("a mapping key is not allowed here");
            }
            if self.add_indent(self.column()) {
                self.push(TokenKind::BlockMappingStart, self.at);
            }
        }
        self.simple_key_allowed = !self.in_flow();
        self.remove_possible_key()?;
        let start = self.at;
        self.forward(1);
        self.push(TokenKind::Key, start);
        Ok(())
    }

    fn value(&mut self) -> Scan<()> {
        let level = self.flow_level;
        if let Some(index) = self
            .possible_keys
            .iter()
            .position(|key| key.flow_level == level)
        {
            let key = self.possible_keys.remove(index);
            let token = |kind| Token {
                kind,
                start: key.mark,
                end: key.mark,
            };
            self.tokens.insert(key.token, token(TokenKind::Key));
            if !self.in_flow() && self.add_indent(key.mark.column as isize) {
                self.tokens
                    .insert(key.token, token(TokenKind::BlockMappingStart));
            }
            self.simple_key_allowed = false;
        } else {
            if !self.in_flow() {
                if !self.simple_key_allowed {
                    return self.error("a second `:` on one line: quote the value");
                }
                if self.add_indent(self.column()) {
                    self.push(TokenKind::BlockMappingStart, self.at);
                }
            }
            self.simple_key_allowed = !self.in_flow();
            self.remove_possible_key()?;
        }
        let start = self.at;
        self.forward(1);
        self.push(TokenKind::Value, start);
        Ok(())
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

    // Directives, anchors, tags ------------------------------------------------------------------------------

    fn directive(&mut self) -> Scan<()> {
        self.unwind_indent(-1);
        self.remove_possible_key()?;
        self.simple_key_allowed = false;
        let start = self.at;
        self.forward(1);
        let name = self.word("a directive")?;
        if !(self.peek(0) == ' ' || is_break_or_end(self.peek(0))) {
            return self.error(format!(
                "{} in the name of a directive",
                shown(self.peek(0))
            ));
        }
        let kind = match name.as_str() {
            "YAML" => {
                self.skip_spaces();
                let major = self.directive_number()?;
                if self.peek(0) != '.' {
                    return self.error("a YAML directive needs a version like 1.1");
                }
                self.forward(1);
                self.directive_number()?;
                if !(self.peek(0) == ' ' || is_break_or_end(self.peek(0))) {
                    return self.error("a YAML directive needs a version like 1.1");
                }
                TokenKind::YamlDirective(major)
            }
            "TAG" => {
                self.skip_spaces();
                let handle = self.tag_handle()?;
                if self.peek(0) != ' ' {
                    return self.error("a space must follow the handle of a tag directive");
                }
                self.skip_spaces();
                let prefix = self.tag_uri()?;
                if !(self.peek(0) == ' ' || is_break_or_end(self.peek(0))) {
                    return self.error(format!("{} in a tag", shown(self.peek(0))));
                }
                TokenKind::TagDirective(handle, prefix)
            }
            _ => {
                while !is_break_or_end(self.peek(0)) {
                    self.forward(1);
                }
                TokenKind::OtherDirective
            }
        };
        self.rest_of_line()?;
        self.push(kind, start);
        Ok(())
    }

    fn skip_spaces(&mut self) {
        while self.peek(0) == ' ' {
            self.forward(1);
        }
    }

    fn directive_number(&mut self) -> Scan<u32> {
        let mut length = 0;
        while self.peek(length).is_ascii_digit() {
            length += 1;
        }
        if length == 0 {
            return self.error("a YAML directive needs a version like 1.1");
        }
        Ok(self.take(length).parse().unwrap_or(u32::MAX))
    }

    fn rest_of_line(&mut self) -> Scan<()> {
        self.skip_spaces();
        if self.peek(0) == '#' {
            while !is_break_or_end(self.peek(0)) {
                self.forward(1);
            }
        }
        if !is_break_or_end(self.peek(0)) {
            return self.error(format!(
                "only a comment may follow on this line, found {}",
                shown(self.peek(0))
            ));
        }
        self.line_break();
        Ok(())
    }

    fn word(&mut self, of: &str) -> Scan<String> {
        let mut length = 0;
        while is_word(self.peek(length)) {
            length += 1;
        }
        if length == 0 {
            return self.error(format!("{of} needs a name, found {}", shown(self.peek(0))));
        }
        Ok(self.take(length))
    }

    fn anchor(&mut self, indicator: char) -> Scan<()> {
        self.save_possible_key()?;
        self.simple_key_allowed = false;
        let start = self.at;
        self.forward(1);
        let is_alias = indicator == '*';
        let name = self.word(if is_alias {
            "an alias (`*`)"
        } else {
            "an anchor (`&`)"
        })?;
        let next = self.peek(0);
        if !(is_blank_or_end(next) || "?:,]}%@`".contains(next)) {
            return self.error(format!("{} in the name `{name}`", shown(next)));
        }
        self.push(
            if is_alias {
                TokenKind::Alias(name)
            } else {
                TokenKind::Anchor(name)
            },
            start,
        );
        Ok(())
    }

    fn tag(&mut self) -> Scan<()> {
        self.save_possible_key()?;
        self.simple_key_allowed = false;
        let start = self.at;
        let (handle, suffix) = match self.peek(1) {
            '<' => {
                self.forward(2);
                let suffix = self.tag_uri()?;
                if self.peek(0) != '>' {
                    return self.error("a tag that begins with `!<` must end in `>`");
                }
                self.forward(1);
                (None, suffix)
            }
            c if is_blank_or_end(c) => {
                self.forward(1);
                (None, "!".to_owned())
            }
            _ => {
                let mut ahead = 1;
                while !(self.peek(ahead) == ' '
                    || self.peek(ahead) == '!'
                    || is_break_or_end(self.peek(ahead)))
                {
                    ahead += 1;
                }
                let handle = if self.peek(ahead) == '!' {
                    self.tag_handle()?
                } else {
                    self.forward(1);
                    "!".to_owned()
                };
                (Some(handle), self.tag_uri()?)
            }
        };
        if !(self.peek(0) == ' ' || is_break_or_end(self.peek(0))) {
            return self.error(format!("{} in a tag", shown(self.peek(0))));
        }
        self.push(TokenKind::Tag(handle, suffix), start);
        Ok(())
    }

    fn tag_handle(&mut self) -> Scan<String> {
        if self.peek(0) != '!' {
            return self.error("the handle of a tag must begin with `!`");
        }
        let mut length = 1;
        if self.peek(length) != ' ' {
            while is_word(self.peek(length)) {
                length += 1;
            }
            if self.peek(length) != '!' {
                self.forward(length);
                return self.error("the handle of a tag must end in `!`");
            }
            length += 1;
        }
        Ok(self.take(length))
    }

    fn tag_uri(&mut self) -> Scan<String> {
        let mut uri = String::new();
        loop {
            let c = self.peek(0);
            if c == '%' {
                uri.push_str(&self.uri_escapes()?);
            } else if c.is_ascii_alphanumeric() || "-;/?:@&=+$,_.!~*'()[]".contains(c) {
                uri.push(c);
                self.forward(1);
            } else {
                break;
            }
        }
        if uri.is_empty() {
            return self.error(format!("a tag needs a name, found {}", shown(self.peek(0))));
        }
        Ok(uri)
    }

    fn uri_escapes(&mut self) -> Scan<String> {
        let start = self.at;
        let mut bytes = vec![];
        while self.peek(0) == '%' {
            self.forward(1);
            let digits: String = [self.peek(0), self.peek(1)].iter().collect();
            match u8::from_str_radix(&digits, 16) {
                Ok(byte) if !digits.starts_with('+') => bytes.push(byte),
                _ => return self.error("`%` in a tag needs two hexadecimal digits"),
            }
            self.forward(2);
        }
        String::from_utf8(bytes)
            .or_else(|_| Self::error_at(start, "the escapes in this tag are not UTF-8"))
    }

    // Scalars ------------------------------------------------------------------------------------------------

    fn block_scalar(&mut self, folded: bool) -> Scan<()> {
        self.simple_key_allowed = true;
        self.remove_possible_key()?;
        let start = self.at;
        self.forward(1);
        let (chomping, increment) = self.block_indicators()?;
        self.rest_of_line()?;
        let min_indent = usize::try_from(self.indent + 1).unwrap_or(0).max(1);
        let mut end;
        let (mut breaks, indent) = if let Some(increment) = increment {
            let indent = min_indent + increment - 1;
            (self.block_breaks(indent), indent)
        } else {
            let (breaks, deepest) = self.block_indentation();
            (breaks, min_indent.max(deepest))
        };
        end = self.at;
        let mut value = String::new();
        let mut last_break: Option<char> = None;
        while self.at.column == indent && !self.at_end() {
            value.push_str(&breaks);
            let leading_blank = matches!(self.peek(0), ' ' | '\t');
            let mut length = 0;
            while !is_break_or_end(self.peek(length)) {
                length += 1;
            }
            value.push_str(&self.take(length));
            end = self.at;
            last_break = self.line_break();
            breaks = self.block_breaks(indent);
            if self.at.column == indent && !self.at_end() {
                if folded
                    && last_break == Some('\n')
                    && !leading_blank
                    && !matches!(self.peek(0), ' ' | '\t')
                {
                    if breaks.is_empty() {
                        value.push(' ');
                    }
                } else {
                    value.extend(last_break);
                }
            } else {
                break;
            }
        }
        if chomping != Some(false) {
            value.extend(last_break);
        }
        if chomping == Some(true) {
            value.push_str(&breaks);
        }
        self.tokens.push(Token {
            kind: TokenKind::Scalar(value, ScalarStyle::Block),
            start,
            end,
        });
        Ok(())
    }

    fn at_end(&self) -> bool {
        self.peek(0) == '\0'
    }

    /// Chomping (`+` is `Some(true)`, `-` is `Some(false)`) and the indentation, where they are given.
    fn block_indicators(&mut self) -> Scan<(Option<bool>, Option<usize>)> {
        let mut chomping = None;
        let mut increment = None;
        for _ in 0..2 {
            match self.peek(0) {
                c @ ('+' | '-') if chomping.is_none() => {
                    chomping = Some(c == '+');
                    self.forward(1);
                }
                c if c.is_ascii_digit() && increment.is_none() => {
                    if c == '0' {
                        return self.error("the indentation of a block must be 1 to 9");
                    }
                    increment = c.to_digit(10).map(|digit| digit as usize);
                    self.forward(1);
                }
                _ => break,
            }
        }
        let next = self.peek(0);
        if !(next == ' ' || is_break_or_end(next)) {
            return self.error(format!("{} after `|` or `>`", shown(next)));
        }
        Ok((chomping, increment))
    }

    fn block_indentation(&mut self) -> (String, usize) {
        let mut breaks = String::new();
        let mut deepest = 0;
        loop {
            if self.peek(0) == ' ' {
                self.forward(1);
                deepest = deepest.max(self.at.column);
            } else if let Some(c) = self.line_break() {
                breaks.push(c);
            } else {
                return (breaks, deepest);
            }
        }
    }

    fn block_breaks(&mut self, indent: usize) -> String {
        let mut breaks = String::new();
        loop {
            while self.at.column < indent && self.peek(0) == ' ' {
                self.forward(1);
            }
            match self.line_break() {
                Some(c) => breaks.push(c),
                None => return breaks,
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Scan<()> {
        self.save_possible_key()?;
        self.simple_key_allowed = false;
        let start = self.at;
        let double = quote == '"';
        self.forward(1);
        let mut value = String::new();
        self.quoted_text(double, &mut value)?;
        while self.peek(0) != quote {
            self.quoted_spaces(start, &mut value)?;
            self.quoted_text(double, &mut value)?;
        }
        self.forward(1);
        let style = if double {
            ScalarStyle::DoubleQuoted
        } else {
            ScalarStyle::SingleQuoted
        };
        self.push(TokenKind::Scalar(value, style), start);
        Ok(())
    }

    fn quoted_text(&mut self, double: bool, value: &mut String) -> Scan<()> {
        loop {
            let c = self.peek(0);
            match c {
                '\'' if !double && self.peek(1) == '\'' => {
                    value.push('\'');
                    self.forward(2);
                }
                '\'' if double => {
                    value.push(c);
                    self.forward(1);
                }
                '"' | '\\' if !double => {
                    value.push(c);
                    self.forward(1);
                }
                '\\' => {
                    self.forward(1);
                    self.escape(value)?;
                }
                '\'' | '"' => return Ok(()),
                c if is_blank_or_end(c) => return Ok(()),
                c => {
                    value.push(c);
                    self.forward(1);
                }
            }
        }
    }

    fn escape(&mut self, value: &mut String) -> Scan<()> {
        let c = self.peek(0);
        let replacement = match c {
            '0' => '\0',
            'a' => '\x07',
            'b' => '\x08',
            't' | '\t' => '\t',
            'n' => '\n',
            'v' => '\x0b',
            'f' => '\x0c',
            'r' => '\r',
            'e' => '\x1b',
            ' ' | '"' | '\\' | '/' => c,
            'N' => '\u{85}',
            '_' => '\u{a0}',
            'L' => '\u{2028}',
            'P' => '\u{2029}',
            'x' | 'u' | 'U' => {
                self.forward(1);
                let length = match c {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let mut code = 0_u32;
                for ahead in 0..length {
                    let Some(digit) = self.peek(ahead).to_digit(16) else {
                        return self.error(format!("`\\{c}` needs {length} hexadecimal digits"));
                    };
                    code = (code << 4) | digit;
                }
                let Some(decoded) = char::from_u32(code) else {
                    return self.error(format!("`\\{c}{code:x}` is not a character"));
                };
                self.forward(length - 1);
                decoded
            }
            c if is_break(c) => {
                self.line_break();
                return self.quoted_breaks(value).map(|_| ());
            }
            _ => {
                return self.error(format!(
                    "`\\{c}` is not an escape; write `\\\\` for a backslash"
                ));
            }
        };
        value.push(replacement);
        self.forward(1);
        Ok(())
    }

    fn quoted_spaces(&mut self, start: Mark, value: &mut String) -> Scan<()> {
        let mut length = 0;
        while matches!(self.peek(length), ' ' | '\t') {
            length += 1;
        }
        let blanks = self.take(length);
        if self.at_end() {
            return Self::error_at(start, "this quote is never closed");
        }
        let Some(first) = self.line_break() else {
            value.push_str(&blanks);
            return Ok(());
        };
        if first != '\n' {
            value.push(first);
        }
        let before = value.len();
        let breaks = self.quoted_breaks(value)?;
        if first == '\n' && breaks == 0 {
            value.insert(before, ' ');
        }
        Ok(())
    }

    fn quoted_breaks(&mut self, value: &mut String) -> Scan<usize> {
        let mut count = 0;
        loop {
            if self.is_document_mark('-') || self.is_document_mark('.') {
                return self.error("a document ends here, inside of quotes");
            }
            while matches!(self.peek(0), ' ' | '\t') {
                self.forward(1);
            }
            match self.line_break() {
                Some(c) => {
                    value.push(c);
                    count += 1;
                }
                None => return Ok(count),
            }
        }
    }

    fn plain(&mut self) -> Scan<()> {
        self.save_possible_key()?;
        self.simple_key_allowed = false;
        let start = self.at;
        let mut end = self.at;
        let indent = self.indent + 1;
        let mut value = String::new();
        let mut spaces = String::new();
        loop {
            if self.peek(0) == '#' {
                break;
            }
            let mut length = 0;
            loop {
                let c = self.peek(length);
                let flow_stop = self.in_flow() && ",?[]{}".contains(c);
                let next = self.peek(length + 1);
                let colon_stop = c == ':'
                    && (is_blank_or_end(next) || (self.in_flow() && ",[]{}".contains(next)));
                if is_blank_or_end(c) || colon_stop || flow_stop {
                    break;
                }
                length += 1;
            }
            if length == 0 {
                break;
            }
            self.simple_key_allowed = false;
            value.push_str(&spaces);
            value.extend(&self.text[self.at.index..self.at.index + length]);
            self.forward(length);
            end = self.at;
            spaces = self.plain_spaces();
            if spaces.is_empty()
                || self.peek(0) == '#'
                || (!self.in_flow() && self.column() < indent)
            {
                break;
            }
        }
        self.tokens.push(Token {
            kind: TokenKind::Scalar(value, ScalarStyle::Plain),
            start,
            end,
        });
        Ok(())
    }

    fn plain_spaces(&mut self) -> String {
        let mut length = 0;
        while self.peek(length) == ' ' {
            length += 1;
        }
        let blanks = self.take(length);
        let Some(first) = self.line_break() else {
            return blanks;
        };
        self.simple_key_allowed = true;
        if self.is_document_mark('-') || self.is_document_mark('.') {
            return String::new();
        }
        let mut breaks = String::new();
        loop {
            if self.peek(0) == ' ' {
                self.forward(1);
            } else if let Some(c) = self.line_break() {
                breaks.push(c);
                if self.is_document_mark('-') || self.is_document_mark('.') {
                    return String::new();
                }
            } else {
                break;
            }
        }
        if first != '\n' {
            breaks.insert(0, first);
        } else if breaks.is_empty() {
            breaks.push(' ');
        }
        breaks
    }
}
