//! The tree that everything between a YAML text and a typed section is made of.

use std::hash::{Hash, Hasher};

use indexmap::{Equivalent, IndexMap};

use crate::diag::source::Origin;

/// The marker of a value that must still be given.
pub const MISSING: &str = "???";

/// A value and the place that it was written at.
#[derive(Clone, Debug)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it was written.
    pub origin: Origin,
}

/// A YAML value after the scalar table of [`super::scalar`] was applied.
#[derive(Clone, Debug)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer of any size.
    Int(Integer),
    /// A double.
    Float(f64),
    /// Text; `???` and texts with `${` have a meaning of their own in a configuration.
    Str(String),
    /// `!!binary`.
    Bytes(Vec<u8>),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the file.
    Map(Mapping),
}

/// An ordered mapping whose keys follow Python: `1`, `1.0` and `true` are one key.
pub type Mapping = IndexMap<Key, Node>;

/// An integer of any size.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Integer {
    /// Nearly all of them.
    Small(i128),
    /// Decimal text without leading zeros, with a `-` where negative.
    Large(Box<str>),
}

impl std::fmt::Display for Integer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Small(value) => value.fmt(f),
            Self::Large(text) => f.write_str(text),
        }
    }
}

impl Integer {
    /// The number as a double, rounded.
    pub fn to_f64(&self) -> f64 {
        match self {
            Self::Small(value) => *value as f64,
            Self::Large(text) => text.parse().unwrap_or(f64::INFINITY),
        }
    }

    /// Reads digits of a base between 2 and 16 (checked by the caller, `_` skipped).
    pub fn from_digits(digits: &str, base: u32, negative: bool) -> Self {
        let mut small: Option<i128> = Some(0);
        for digit in digits.chars().filter_map(|c| c.to_digit(base)) {
            small = small
                .and_then(|value| value.checked_mul(i128::from(base)))
                .and_then(|value| value.checked_add(i128::from(digit)));
        }
        if let Some(value) = small {
            return Self::Small(if negative { -value } else { value });
        }
        // Base 10^9 limbs, least significant first.
        let mut limbs: Vec<u64> = vec![0];
        for digit in digits.chars().filter_map(|c| c.to_digit(base)) {
            let mut carry = u64::from(digit);
            for limb in &mut limbs {
                let value = *limb * u64::from(base) + carry;
                *limb = value % 1_000_000_000;
                carry = value / 1_000_000_000;
            }
            if carry > 0 {
                limbs.push(carry);
            }
        }
        let mut text = String::new();
        if negative {
            text.push('-');
        }
        for (index, limb) in limbs.iter().rev().enumerate() {
            if index == 0 {
                text.push_str(&limb.to_string());
            } else {
                let digits = format!("{limb:09}");
                text.push_str(&digits);
            }
        }
        Self::Large(text.into())
    }
}

impl From<i64> for Integer {
    fn from(value: i64) -> Self {
        Self::Small(value.into())
    }
}

/// The key of a mapping.
#[derive(Clone, Debug)]
pub enum Key {
    /// Nearly all of them.
    Str(String),
    /// An integer.
    Int(Integer),
    /// A double.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// `null`; only ever seen before a configuration refuses it.
    Null,
    /// `!!binary`.
    Bytes(Vec<u8>),
}

impl Key {
    /// The text, where the key is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The number that Python would compare, where the key is one.
    fn number(&self) -> Option<Number<'_>> {
        match self {
            Self::Int(Integer::Small(value)) => Some(Number::Whole(*value)),
            Self::Int(Integer::Large(text)) => Some(Number::Text(text)),
            Self::Bool(value) => Some(Number::Whole((*value).into())),
            Self::Float(value) if value.fract() == 0.0 && value.abs() < 1e30 => {
                Some(Number::Whole(*value as i128))
            }
            Self::Float(value) => Some(Number::Bits(value.to_bits())),
            Self::Str(_) | Self::Null | Self::Bytes(_) => None,
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
enum Number<'a> {
    Whole(i128),
    Text(&'a str),
    Bits(u64),
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Str(a), Self::Str(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Null, Self::Null) => true,
            _ => match (self.number(), other.number()) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
        }
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            // As `str` hashes, so that a mapping can be asked with a `&str`.
            Self::Str(text) => text.hash(state),
            Self::Bytes(bytes) => bytes.hash(state),
            Self::Null => 0_u8.hash(state),
            _ => self.number().hash(state),
        }
    }
}

impl Equivalent<Key> for str {
    fn equivalent(&self, key: &Key) -> bool {
        key.as_str() == Some(self)
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

impl Node {
    /// A value that the program made.
    pub fn computed(value: Value) -> Self {
        Self {
            value,
            origin: Origin::COMPUTED,
        }
    }

    /// A text that the program made.
    pub fn text(text: impl Into<String>) -> Self {
        Self::computed(Value::Str(text.into()))
    }

    /// An empty mapping that the program made.
    pub fn empty_map() -> Self {
        Self::computed(Value::Map(Mapping::default()))
    }

    /// The mapping, where it is one.
    pub fn as_map(&self) -> Option<&Mapping> {
        match &self.value {
            Value::Map(mapping) => Some(mapping),
            _ => None,
        }
    }

    /// The mapping to change, where it is one.
    pub fn as_map_mut(&mut self) -> Option<&mut Mapping> {
        match &mut self.value {
            Value::Map(mapping) => Some(mapping),
            _ => None,
        }
    }

    /// The items, where it is a list.
    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The text, where it is one.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is a mapping or a list.
    pub fn is_container(&self) -> bool {
        matches!(self.value, Value::Map(_) | Value::List(_))
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// Whether it is the marker `???`.
    pub fn is_missing(&self) -> bool {
        self.as_str() == Some(MISSING)
    }

    /// Whether it is a text with `${` in it.
    pub fn is_interpolation(&self) -> bool {
        self.as_str().is_some_and(|text| text.contains("${"))
    }

    /// Child of a mapping by its text key, or of a list by its number.
    pub fn child(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(mapping) => mapping.get(key),
            Value::List(items) => items.get(key.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// Descendant by a dotted key (`a.b.0`); the node itself for the empty key.
    pub fn descendant(&self, key: &str) -> Option<&Node> {
        if key.is_empty() {
            return Some(self);
        }
        key.split('.').try_fold(self, Node::child)
    }
}
