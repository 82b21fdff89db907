//! Words of the command line: `key=value`, `+key=value`, `++key=value`, `~key`, with sweeps and functions.
//!
//! The language is Hydra's `OverrideLexer.g4` and `OverrideParser.g4`.

mod advice;
mod functions;
mod glob;
mod parser;
mod sweep;

pub(crate) use advice::advice;
pub use parser::{Rule, parse_key, parse_override, parse_rule};
pub use sweep::SweepError;

use crate::yaml::python_text::float_repr;
use crate::yaml::{Integer, Key, Mapping, Node, Value};

/// What a word does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverrideKind {
    /// `key=value`: the key must exist.
    Change,
    /// `+key=value`: the key must not exist.
    Add,
    /// `++key=value`
    ForceAdd,
    /// `~key` or `~key=value`
    Delete,
}

/// A parsed word.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// What it does.
    pub kind: OverrideKind,
    /// `a.b` or `group/sub`.
    pub key: String,
    /// After `@`.
    pub package: Option<String>,
    /// After `=`; nothing only for `~key`.
    pub value: Option<OverrideValue>,
    /// The word as it was typed.
    pub input: String,
    /// Byte at which the value begins in `input`.
    pub value_offset: usize,
}

/// What stands after `=`.
#[derive(Clone, Debug, PartialEq)]
pub enum OverrideValue {
    /// One value.
    Element(Element),
    /// `a,b` or `choice(a,b)`
    Choice(Choice),
    /// `range(a,b)`
    Range(Range),
    /// `interval(a,b)`
    Interval(Interval),
    /// `glob(a*)`
    Glob(Glob),
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Element {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// An integer.
    Int(Integer),
    /// A double.
    Float(f64),
    /// Text without quotes.
    Text(String),
    /// Text and its quote.
    Quoted(String, char),
    /// `[…]`
    List(Vec<Element>),
    /// `{…}`
    Dict(Vec<(Element, Element)>),
    /// A sweep inside of a list or a dict, which nothing can use.
    Sweep(Box<OverrideValue>),
}

/// Values to sweep over.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The values.
    pub list: Vec<Element>,
    /// Written `a,b` and not `choice(a,b)`.
    pub simple: bool,
    /// In a random order.
    pub shuffle: bool,
    /// Names for sweepers that know them.
    pub tags: Vec<String>,
}

/// Numbers to sweep over.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// First number.
    pub start: Element,
    /// Not reached.
    pub stop: Element,
    /// Distance.
    pub step: Element,
    /// In a random order.
    pub shuffle: bool,
    /// Names for sweepers that know them.
    pub tags: Vec<String>,
}

/// A stretch of numbers, for sweepers that search.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub start: Element,
    /// Upper end, not included.
    pub end: Element,
    /// Names for sweepers that know them.
    pub tags: Vec<String>,
}

/// Options of a group to sweep over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    /// Patterns of options to take.
    pub include: Vec<String>,
    /// Patterns of options to leave out.
    pub exclude: Vec<String>,
}

/// A word that is not in the language, with the byte at which it leaves it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OverrideError {
    /// What is wrong.
    pub message: String,
    /// Byte offset in the word.
    pub offset: usize,
    /// Name under which Hydra knows the mistake.
    pub code: &'static str,
}

impl Element {
    /// The value as a tree; quotes are gone.
    pub fn to_node(&self) -> Node {
        Node::computed(match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(value.clone()),
            Self::Float(value) => Value::Float(*value),
            Self::Text(text) | Self::Quoted(text, _) => Value::Str(text.clone()),
            Self::List(items) => Value::List(items.iter().map(Self::to_node).collect()),
            Self::Dict(pairs) => {
                let mut mapping = Mapping::new();
                for (key, value) in pairs {
                    mapping.insert(key.to_key(), value.to_node());
                }
                Value::Map(mapping)
            }
            Self::Sweep(_) => Value::Null,
        })
    }

    fn to_key(&self) -> Key {
        match self {
            Self::Bool(value) => Key::Bool(*value),
            Self::Int(value) => Key::Int(value.clone()),
            Self::Float(value) => Key::Float(*value),
            Self::Text(text) | Self::Quoted(text, _) => Key::Str(text.clone()),
            Self::Null | Self::List(_) | Self::Dict(_) | Self::Sweep(_) => Key::Null,
        }
    }

    /// Whether it is a sweep or holds one.
    pub fn has_sweep(&self) -> bool {
        match self {
            Self::Sweep(_) => true,
            Self::List(items) => items.iter().any(Self::has_sweep),
            Self::Dict(pairs) => pairs.iter().any(|(_, value)| value.has_sweep()),
            _ => false,
        }
    }

    /// The text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Quoted(text, _) => Some(text),
            _ => None,
        }
    }

    /// As Hydra writes a value into the word of a job, so that it reads back equal.
    pub fn to_word(&self) -> String {
        self.written(true)
    }

    fn written(&self, space: bool) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(true) => if space { "True" } else { "true" }.to_owned(),
            Self::Bool(false) => if space { "False" } else { "false" }.to_owned(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => float_repr(*value),
            Self::Text(text) => escape(text),
            Self::Quoted(text, quote) => quoted(text, *quote),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(|item| item.written(space)).collect();
                format!("[{}]", items.join(","))
            }
            Self::Dict(pairs) => {
                let pairs: Vec<String> = pairs
                    .iter()
                    .map(|(key, value)| format!("{}:{}", key.written(space), value.written(space)))
                    .collect();
                format!("{{{}}}", pairs.join(","))
            }
            Self::Sweep(_) => String::new(),
        }
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if "\\()[]{}:=, \t".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Backslashes that run up to a quote of this kind, or to the end, are doubled.
fn quoted(text: &str, quote: char) -> String {
    let mut out = String::from(quote);
    let mut run = 0;
    for c in text.chars() {
        if c == quote {
            out.extend(std::iter::repeat_n('\\', run + 1));
        }
        run = if c == '\\' { run + 1 } else { 0 };
        out.push(c);
    }
    out.extend(std::iter::repeat_n('\\', run));
    out.push(quote);
    out
}

impl Override {
    /// The one value, where it is not a sweep.
    pub fn element(&self) -> Option<&Element> {
        match &self.value {
            Some(OverrideValue::Element(element)) => Some(element),
            _ => None,
        }
    }

    /// Whether it stands for several jobs.
    pub fn is_sweep(&self) -> bool {
        self.value
            .as_ref()
            .is_some_and(|value| !matches!(value, OverrideValue::Element(_)))
    }

    /// The key with its package.
    pub fn key_and_package(&self) -> String {
        match &self.package {
            Some(package) => format!("{}@{package}", self.key),
            None => self.key.clone(),
        }
    }

    /// The prefix of the word.
    pub fn prefix(&self) -> &'static str {
        match self.kind {
            OverrideKind::Change => "",
            OverrideKind::Add => "+",
            OverrideKind::ForceAdd => "++",
            OverrideKind::Delete => "~",
        }
    }
}
