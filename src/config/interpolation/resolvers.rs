//! The functions that can be called in `${…}`.
//!
//! Those that look at the tree (`oc.select`, `oc.decode`, `oc.create`, `oc.deprecated`, `oc.dict.*`, `hydra`) live with
//! the walk in [`super::resolve`]; here are those of their arguments alone: `oc.env`, Hydra's `now` and
//! `python_version`, and the launcher's `multiply`, `divide_ceil`, `divide_floor`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::resolve::{ResolveError, ResolveErrorKind};
use crate::diag::source::SourceId;
use crate::sys::{clock, env_vars};
use crate::yaml::python_text::str_of;
use crate::yaml::{Integer, Node, Value, YamlErrorKind, parse};

/// A function of its arguments.
pub type Resolver = fn(&[Node]) -> Result<Value, ResolveError>;

/// Functions beyond the built-in ones, by name.
pub type Resolvers = HashMap<String, Resolver>;

/// What resolvers may look at besides their arguments.
#[derive(Clone, Default)]
pub struct ResolverContext<'a> {
    /// The composed tree with its `hydra` key, for `${hydra:…}`.
    pub full_tree: Option<&'a Node>,
    /// Functions beyond the built-in ones.
    pub extra: Option<&'a Resolvers>,
    /// Results of `${now:…}`, so that one run sees one time.
    pub times: Times,
}

/// Results of `${now:…}` by format; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Times(Arc<Mutex<HashMap<String, String>>>);

impl Times {
    fn get(&self, format: &str) -> String {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(format.to_owned())
            .or_insert_with(|| clock::format_local_time(format))
            .clone()
    }
}

/// Names of all functions, for suggestions.
pub(super) fn names(context: &ResolverContext<'_>) -> Vec<String> {
    let mut names: Vec<String> = [
        "oc.env",
        "oc.select",
        "oc.decode",
        "oc.create",
        "oc.deprecated",
        "oc.dict.keys",
        "oc.dict.values",
        "hydra",
        "now",
        "python_version",
        "multiply",
        "divide_ceil",
        "divide_floor",
    ]
    .map(str::to_owned)
    .to_vec();
    if let Some(extra) = context.extra {
        names.extend(extra.keys().cloned());
        names.sort();
    }
    names
}

/// Python's name of the type of a value.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Float(_) => "float",
        Value::Str(_) => "str",
        Value::Bytes(_) => "bytes",
        Value::List(_) => "list",
        Value::Map(_) => "dict",
    }
}

fn fail<T>(kind: ResolveErrorKind, message: impl Into<String>) -> Result<T, ResolveError> {
    Err(ResolveError::new(kind, message))
}

/// Calls a function of its arguments; nothing where there is none of that name.
pub(super) fn call(
    name: &str,
    arguments: &[Node],
    context: &ResolverContext<'_>,
) -> Option<Result<Value, ResolveError>> {
    if let Some(resolver) = context.extra.and_then(|extra| extra.get(name)) {
        return Some(resolver(arguments));
    }
    Some(match name {
        "oc.env" => env(arguments),
        "now" => match arguments {
            [format] => Ok(Value::Str(context.times.get(&str_of(format)))),
            _ => fail(
                ResolveErrorKind::Type,
                "`now` needs one argument, the format",
            ),
        },
        "python_version" => python_version(arguments),
        "multiply" => two(name, arguments).and_then(|(a, b)| multiply(a, b)),
        "divide_ceil" => two(name, arguments).and_then(|(a, b)| divide(a, b, f64::ceil)),
        "divide_floor" => two(name, arguments).and_then(|(a, b)| divide(a, b, f64::floor)),
        _ => return None,
    })
}

fn env(arguments: &[Node]) -> Result<Value, ResolveError> {
    let (name, default) = match arguments {
        [name] => (name, None),
        [name, default] => (name, Some(default)),
        _ => {
            return fail(
                ResolveErrorKind::Type,
                "`oc.env` needs a name and perhaps a default",
            );
        }
    };
    let Some(name) = name.as_str() else {
        return fail(
            ResolveErrorKind::Type,
            format!("`oc.env` needs a text, not {}", type_name(&name.value)),
        );
    };
    if let Some(value) = env_vars::get(name) {
        return Ok(Value::Str(value));
    }
    match default {
        Some(default) if default.is_null() => Ok(Value::Null),
        Some(default) => Ok(Value::Str(str_of(default))),
        None => fail(
            ResolveErrorKind::Key,
            format!("the environment variable `{name}` is not set, and `oc.env` has no default"),
        ),
    }
}

/// The Python that Hydra would run on; configurations use it only in names.
fn python_version(arguments: &[Node]) -> Result<Value, ResolveError> {
    let level = match arguments {
        [] => "minor".to_owned(),
        [level] => str_of(level),
        _ => {
            return fail(
                ResolveErrorKind::Type,
                "`python_version` takes at most one argument",
            );
        }
    };
    Ok(match level.as_str() {
        "major" => Value::Str("3".to_owned()),
        "minor" => Value::Str("3.11".to_owned()),
        "micro" => Value::Str("3.11.7".to_owned()),
        _ => Value::Null,
    })
}

fn two<'a>(name: &str, arguments: &'a [Node]) -> Result<(&'a Value, &'a Value), ResolveError> {
    match arguments {
        [a, b] => Ok((&a.value, &b.value)),
        _ => fail(
            ResolveErrorKind::Type,
            format!("`{name}` needs two arguments, not {}", arguments.len()),
        ),
    }
}

enum Number {
    Int(i128),
    Float(f64),
}

fn number(value: &Value) -> Option<Number> {
    match value {
        Value::Bool(value) => Some(Number::Int((*value).into())),
        Value::Int(Integer::Small(value)) => Some(Number::Int(*value)),
        Value::Int(large @ Integer::Large(_)) => Some(Number::Float(large.to_f64())),
        Value::Float(value) => Some(Number::Float(*value)),
        _ => None,
    }
}

fn as_f64(number: &Number) -> f64 {
    match number {
        Number::Int(value) => *value as f64,
        Number::Float(value) => *value,
    }
}

/// Python's `*`.
fn multiply(a: &Value, b: &Value) -> Result<Value, ResolveError> {
    const MAX_REPEATED: usize = 10_000_000;
    if let (Some(x), Some(y)) = (number(a), number(b)) {
        return Ok(match (&x, &y) {
            (Number::Int(x), Number::Int(y)) => match x.checked_mul(*y) {
                Some(product) => Value::Int(Integer::Small(product)),
                None => return fail(ResolveErrorKind::Value, "the product is too large"),
            },
            _ => Value::Float(as_f64(&x) * as_f64(&y)),
        });
    }
    let (sequence, count) = match (a, number(a), b, number(b)) {
        (sequence, None, _, Some(Number::Int(count))) => (sequence, count),
        (_, Some(Number::Int(count)), sequence, None) => (sequence, count),
        _ => {
            return fail(
                ResolveErrorKind::Type,
                format!("cannot multiply {} and {}", type_name(a), type_name(b)),
            );
        }
    };
    let count = usize::try_from(count).unwrap_or(0);
    let length = match sequence {
        Value::Str(text) => text.len(),
        Value::List(items) => items.len(),
        _ => 0,
    };
    if length.saturating_mul(count) > MAX_REPEATED {
        return fail(ResolveErrorKind::Value, "the product is too large");
    }
    match sequence {
        Value::Str(text) => Ok(Value::Str(text.repeat(count))),
        Value::List(items) => {
            let repeated = std::iter::repeat_n(items, count).flatten().cloned();
            Ok(Value::List(repeated.collect()))
        }
        _ => fail(
            ResolveErrorKind::Type,
            format!("cannot multiply {} and {}", type_name(a), type_name(b)),
        ),
    }
}

/// Division with a remainder rounded away; the result is an integer.
fn divide(a: &Value, b: &Value, round: fn(f64) -> f64) -> Result<Value, ResolveError> {
    let (Some(x), Some(y)) = (number(a), number(b)) else {
        return fail(
            ResolveErrorKind::Type,
            format!("cannot divide {} by {}", type_name(a), type_name(b)),
        );
    };
    let (x, y) = (as_f64(&x), as_f64(&y));
    if y == 0.0 {
        return fail(ResolveErrorKind::ZeroDivision, "division by zero");
    }
    let quotient = round(x / y);
    if !quotient.is_finite() {
        return fail(
            ResolveErrorKind::Value,
            format!("{quotient} is not an integer"),
        );
    }
    Ok(Value::Int(Integer::Small(quotient as i128)))
}

/// `OmegaConf.create`: a container, or a text of YAML.
pub(super) fn create(node: Node) -> Result<Node, ResolveError> {
    match &node.value {
        Value::Map(_) | Value::List(_) | Value::Null => Ok(node),
        Value::Str(text) => match parse(text, SourceId(u32::MAX)) {
            Ok(None) => Ok(Node::empty_map()),
            Ok(Some(made)) => match &made.value {
                Value::Str(key) => {
                    let mut map = Node::empty_map();
                    if let Some(mapping) = map.as_map_mut() {
                        mapping.insert(key.as_str().into(), Node::computed(Value::Null));
                    }
                    Ok(map)
                }
                Value::Map(_) | Value::List(_) | Value::Null => Ok(made),
                other => fail(
                    ResolveErrorKind::Assertion,
                    format!("a configuration cannot be made of {}", type_name(other)),
                ),
            },
            Err(error) => fail(
                match error.kind {
                    YamlErrorKind::Key => ResolveErrorKind::KeyValidation,
                    _ => ResolveErrorKind::Yaml,
                },
                error.to_string(),
            ),
        },
        other => fail(
            ResolveErrorKind::Validation,
            format!("a configuration cannot be made of {}", type_name(other)),
        ),
    }
}
