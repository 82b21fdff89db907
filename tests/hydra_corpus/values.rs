//! The corpus' typed values, `{"k": "int", "v": "1"}`, to and from ours.

use ptune::config::override_grammar::{Element, OverrideValue};
use ptune::yaml::python_text::{float_repr, key_value};
use ptune::yaml::{Integer, Key, Mapping, Node, Value};
use serde_json::{Value as Json, json};

pub(crate) fn to_json(node: &Node) -> Json {
    value_to_json(&node.value)
}

fn value_to_json(value: &Value) -> Json {
    match value {
        Value::Null => json!({"k": "null"}),
        Value::Bool(value) => json!({"k": "bool", "v": value}),
        Value::Int(value) => json!({"k": "int", "v": value.to_string()}),
        Value::Float(value) => json!({"k": "float", "v": float_repr(*value)}),
        Value::Str(text) => json!({"k": "str", "v": text}),
        Value::Bytes(bytes) => json!({"k": "bytes", "v": bytes}),
        Value::List(items) => {
            json!({"k": "list", "v": items.iter().map(to_json).collect::<Vec<_>>()})
        }
        Value::Map(mapping) => {
            let pairs = mapping
                .iter()
                .map(|(key, node)| json!([value_to_json(&key_value(key)), to_json(node)]));
            json!({"k": "dict", "v": pairs.collect::<Vec<_>>()})
        }
    }
}

pub(crate) fn from_json(json: &Json) -> Node {
    let text = json["v"].as_str().unwrap_or("");
    Node::computed(match json["k"].as_str().unwrap_or("") {
        "bool" => Value::Bool(json["v"].as_bool().unwrap_or(false)),
        "int" => Value::Int(int(text)),
        "float" => Value::Float(float(text)),
        "str" => Value::Str(text.to_owned()),
        "bytes" => Value::Bytes(
            json["v"]
                .as_array()
                .map(|bytes| {
                    bytes
                        .iter()
                        .map(|byte| byte.as_u64().unwrap_or(0) as u8)
                        .collect()
                })
                .unwrap_or_default(),
        ),
        "list" => Value::List(
            json["v"]
                .as_array()
                .unwrap()
                .iter()
                .map(from_json)
                .collect(),
        ),
        "dict" => {
            let mut mapping = Mapping::new();
            for pair in json["v"].as_array().unwrap() {
                mapping.insert(key(from_json(&pair[0])), from_json(&pair[1]));
            }
            Value::Map(mapping)
        }
        _ => Value::Null,
    })
}

fn int(text: &str) -> Integer {
    Integer::from_digits(text.trim_start_matches('-'), 10, text.starts_with('-'))
}

fn float(text: &str) -> f64 {
    text.parse().unwrap_or(f64::NAN)
}

fn key(node: Node) -> Key {
    match node.value {
        Value::Str(text) => Key::Str(text),
        Value::Int(value) => Key::Int(value),
        Value::Float(value) => Key::Float(value),
        Value::Bool(value) => Key::Bool(value),
        Value::Bytes(bytes) => Key::Bytes(bytes),
        Value::Null | Value::List(_) | Value::Map(_) => Key::Null,
    }
}

pub(crate) fn element_to_json(element: &Element) -> Json {
    match element {
        Element::Quoted(text, quote) => json!({"k": "quoted", "v": text, "q": quote.to_string()}),
        Element::List(items) => {
            json!({"k": "list", "v": items.iter().map(element_to_json).collect::<Vec<_>>()})
        }
        Element::Dict(pairs) => {
            let pairs = pairs
                .iter()
                .map(|(key, value)| json!([element_to_json(key), element_to_json(value)]));
            json!({"k": "dict", "v": pairs.collect::<Vec<_>>()})
        }
        Element::Sweep(sweep) => override_to_json(sweep),
        scalar => to_json(&scalar.to_node()),
    }
}

pub(crate) fn override_to_json(value: &OverrideValue) -> Json {
    let sorted = |tags: &[String]| {
        let mut tags = tags.to_vec();
        tags.sort();
        tags
    };
    match value {
        OverrideValue::Element(element) => element_to_json(element),
        OverrideValue::Choice(choice) => json!({
            "k": "choice",
            "v": choice.list.iter().map(element_to_json).collect::<Vec<_>>(),
            "simple": choice.simple,
            "shuffle": choice.shuffle,
            "tags": sorted(&choice.tags),
        }),
        OverrideValue::Range(range) => json!({
            "k": "range",
            "start": element_to_json(&range.start),
            "stop": element_to_json(&range.stop),
            "step": element_to_json(&range.step),
            "shuffle": range.shuffle,
            "tags": sorted(&range.tags),
        }),
        OverrideValue::Interval(interval) => json!({
            "k": "interval",
            "start": element_to_json(&interval.start),
            "end": element_to_json(&interval.end),
            "tags": sorted(&interval.tags),
        }),
        OverrideValue::Glob(glob) => json!({
            "k": "glob",
            "include": glob.include,
            "exclude": glob.exclude,
        }),
    }
}

/// Tables with the corpus' own paths in them were padded for other paths.
pub(crate) fn squeezed(text: &str) -> String {
    if !text.contains("{ROOT}") && !text.contains("{CWD}") {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        let repeated = (c == ' ' || c == '-') && out.ends_with(c);
        if !repeated {
            out.push(c);
        }
    }
    out
}
