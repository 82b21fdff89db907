//! Why an interpolation has no value, in the exceptions of OmegaConf.

use crate::diag::source::Origin;

/// Which exception OmegaConf raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolveErrorKind {
    /// The key does not exist.
    InterpolationKey,
    /// The key exists and is `???`.
    InterpolationToMissing,
    /// Anything else that went wrong on the way.
    Resolution,
    /// No resolver of that name.
    UnsupportedType,
    /// The text is not in the language.
    Grammar,
    /// A key that a function was asked for does not exist.
    ConfigKey,
    /// A path leads through something that is not a container.
    ConfigType,
    /// A `???` where a value is needed.
    MissingMandatory,
    /// A value of the wrong type.
    Type,
    /// A value that cannot be.
    Value,
    /// A name that is not there.
    Key,
    /// Division by zero.
    ZeroDivision,
    /// A method that the value does not have.
    Attribute,
    /// A text that YAML refuses.
    Yaml,
    /// A value of a type that a configuration cannot have.
    UnsupportedValue,
    /// Something that a configuration cannot be made of.
    Validation,
    /// A text of YAML that is a single value.
    Assertion,
    /// A key of a type that a configuration cannot have.
    KeyValidation,
}

impl ResolveErrorKind {
    /// The name of the exception.
    pub fn code(self) -> &'static str {
        match self {
            Self::InterpolationKey => "InterpolationKeyError",
            Self::InterpolationToMissing => "InterpolationToMissingValueError",
            Self::Resolution => "InterpolationResolutionError",
            Self::UnsupportedType => "UnsupportedInterpolationType",
            Self::Grammar => "GrammarParseError",
            Self::ConfigKey => "ConfigKeyError",
            Self::ConfigType => "ConfigTypeError",
            Self::MissingMandatory => "MissingMandatoryValue",
            Self::Type => "TypeError",
            Self::Value => "ValueError",
            Self::Key => "KeyError",
            Self::ZeroDivision => "ZeroDivisionError",
            Self::Attribute => "AttributeError",
            Self::Yaml => "YAMLError",
            Self::UnsupportedValue => "UnsupportedValueType",
            Self::Validation => "ValidationError",
            Self::Assertion => "AssertionError",
            Self::KeyValidation => "KeyValidationError",
        }
    }

    /// Whether OmegaConf lets it pass through an interpolation unchanged.
    pub(super) fn is_interpolation_error(self) -> bool {
        matches!(
            self,
            Self::InterpolationKey
                | Self::InterpolationToMissing
                | Self::Resolution
                | Self::UnsupportedType
        )
    }
}

/// An interpolation that has no value.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ResolveError {
    /// Which exception OmegaConf raises.
    pub kind: ResolveErrorKind,
    /// What is wrong.
    pub message: String,
    /// The values that were being resolved, innermost first: dotted key, place, text.
    pub chain: Vec<(String, Origin, String)>,
    /// An existing key that was probably meant.
    pub near: Option<String>,
    /// The `???` that is in the way: its dotted key and its place.
    pub missing: Option<(String, Origin)>,
}

impl ResolveError {
    /// An error of a kind.
    pub fn new(kind: ResolveErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            chain: vec![],
            near: None,
            missing: None,
        }
    }
}
