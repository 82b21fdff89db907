//! What can be wrong with a YAML text.

use super::scanner::Mark;

/// Which step refused the text; the names follow PyYAML and OmegaConf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum YamlErrorKind {
    /// A character that no text may hold.
    Reader,
    /// Characters that make no token.
    Scanner,
    /// Tokens in an order that makes no document.
    Parser,
    /// Unknown or repeated anchors, a second document.
    Composer,
    /// Unknown tags, keys that cannot be keys, repeated keys.
    Constructor,
    /// A number that its tag promises and its text is not.
    Value,
    /// A truth value that its tag promises and its text is not.
    Lookup,
    /// A number that its tag promises, and there is no text.
    Index,
    /// A date that its tag promises and its text is not.
    Attribute,
    /// A mapping that its tag promises and a list is not.
    Type,
    /// A key of a type that a configuration cannot have.
    Key,
    /// A value of a type that a configuration cannot have.
    UnsupportedValue,
}

impl YamlErrorKind {
    /// Name of the exception that Hydra users see.
    pub fn code(self) -> &'static str {
        match self {
            Self::Reader => "ReaderError",
            Self::Scanner => "ScannerError",
            Self::Parser => "ParserError",
            Self::Composer => "ComposerError",
            Self::Constructor => "ConstructorError",
            Self::Value => "ValueError",
            Self::Lookup => "KeyError",
            Self::Index => "IndexError",
            Self::Attribute => "AttributeError",
            Self::Type => "TypeError",
            Self::Key => "KeyValidationError",
            Self::UnsupportedValue => "UnsupportedValueType",
        }
    }
}

/// A YAML text that was refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message} (line {line}, column {column})")]
pub struct YamlError {
    /// Which step refused it.
    pub kind: YamlErrorKind,
    /// What is wrong, without the place.
    pub message: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// A second place that belongs to the mistake (line and column from 1), with what it is.
    pub related: Option<(String, usize, usize)>,
}

impl YamlError {
    pub(crate) fn new(kind: YamlErrorKind, message: impl Into<String>, mark: Mark) -> Self {
        Self {
            kind,
            message: message.into(),
            line: mark.line + 1,
            column: mark.column + 1,
            related: None,
        }
    }

    pub(crate) fn related(mut self, what: &str, mark: Mark) -> Self {
        self.related = Some((what.to_owned(), mark.line + 1, mark.column + 1));
        self
    }
}
