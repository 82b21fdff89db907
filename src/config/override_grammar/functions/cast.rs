//! `int`, `float`, `bool` and `str`.

use super::{Call, Named, as_f64};
use crate::config::override_grammar::{Choice, Element, Interval, OverrideValue, Range};
use crate::yaml::Integer;
use crate::yaml::python_text::{float_repr, parse_float, parse_int};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cast {
    Bool,
    Int,
    Float,
    Str,
}

pub(super) fn cast(
    cast: Cast,
    mut positional: Vec<OverrideValue>,
    named: Named,
) -> Call<OverrideValue> {
    let mut value = None;
    for (name, named_value) in named {
        if name != "value" {
            return Err(format!("got an unexpected keyword argument `{name}`"));
        }
        if !matches!(named_value, OverrideValue::Element(Element::Null)) {
            value = Some(named_value);
        }
    }
    let value = match (value, positional.len()) {
        (Some(_), 1..) => return Err("cannot use both position and named arguments".to_owned()),
        (Some(value), 0) => value,
        (None, 0) => return Err("no positional args or value specified".to_owned()),
        (None, 1) => positional.remove(0),
        (None, _) => simple_choice(positional)?,
    };
    cast_value(cast, value)
}

pub(super) fn simple_choice(values: Vec<OverrideValue>) -> Call<OverrideValue> {
    let mut list = vec![];
    for value in values {
        match value {
            OverrideValue::Element(element) => list.push(element),
            _ => return Err("a sweep cannot be one of several arguments".to_owned()),
        }
    }
    Ok(OverrideValue::Choice(Choice {
        list,
        simple: true,
        shuffle: false,
        tags: vec![],
    }))
}

fn cast_value(cast: Cast, value: OverrideValue) -> Call<OverrideValue> {
    Ok(match value {
        OverrideValue::Element(element) => OverrideValue::Element(cast_element(cast, element)?),
        OverrideValue::Choice(choice) => OverrideValue::Choice(Choice {
            list: choice
                .list
                .into_iter()
                .map(|item| match item {
                    Element::Sweep(_) => Err("a choice cannot hold a sweep".to_owned()),
                    item => cast_element(cast, item),
                })
                .collect::<Call<_>>()?,
            simple: choice.simple,
            shuffle: false,
            tags: vec![],
        }),
        OverrideValue::Range(range) if matches!(cast, Cast::Int | Cast::Float) => {
            OverrideValue::Range(Range {
                start: cast_element(cast, range.start)?,
                stop: cast_element(cast, range.stop)?,
                step: cast_element(cast, range.step)?,
                shuffle: false,
                tags: vec![],
            })
        }
        OverrideValue::Range(_) => {
            return Err("a range can only be cast to int or float".to_owned());
        }
        OverrideValue::Interval(interval) if matches!(cast, Cast::Int | Cast::Float) => {
            OverrideValue::Interval(Interval {
                start: cast_element(cast, interval.start)?,
                end: cast_element(cast, interval.end)?,
                tags: interval.tags,
            })
        }
        OverrideValue::Interval(_) => {
            return Err("an interval can only be cast to int or float".to_owned());
        }
        OverrideValue::Glob(_) => return Err("a glob cannot be cast".to_owned()),
    })
}

fn cast_element(cast: Cast, element: Element) -> Call<Element> {
    match element {
        Element::List(items) => {
            let items = items.into_iter().map(|item| cast_element(cast, item));
            return Ok(Element::List(items.collect::<Call<_>>()?));
        }
        Element::Dict(pairs) => {
            let pairs = pairs
                .into_iter()
                .map(|(key, value)| Ok((key, cast_element(cast, value)?)));
            return Ok(Element::Dict(pairs.collect::<Call<_>>()?));
        }
        Element::Sweep(sweep) => {
            return Ok(Element::Sweep(Box::new(cast_value(cast, *sweep)?)));
        }
        Element::Null if cast != Cast::Bool => return Err("null cannot be cast".to_owned()),
        _ => {}
    }
    Ok(match cast {
        Cast::Bool => Element::Bool(match &element {
            Element::Null => false,
            Element::Bool(value) => *value,
            Element::Int(value) => *value != Integer::Small(0),
            Element::Float(value) => *value != 0.0,
            Element::Text(text) | Element::Quoted(text, _) => {
                if text.eq_ignore_ascii_case("true") {
                    true
                } else if text.eq_ignore_ascii_case("false") {
                    false
                } else {
                    return Err(format!("`{text}` is not a truth value"));
                }
            }
            Element::List(_) | Element::Dict(_) | Element::Sweep(_) => false,
        }),
        Cast::Int => Element::Int(match &element {
            Element::Bool(value) => Integer::Small((*value).into()),
            Element::Int(value) => value.clone(),
            Element::Float(value) if value.is_finite() => {
                if value.abs() < 1e38 {
                    Integer::Small(value.trunc() as i128)
                } else {
                    parse_int(&format!("{:.0}", value.trunc()))
                        .ok_or_else(|| format!("{value} is not an integer"))?
                }
            }
            Element::Float(value) => {
                return Err(format!(
                    "cannot convert {} to an integer",
                    float_repr(*value)
                ));
            }
            Element::Text(text) | Element::Quoted(text, _) => {
                parse_int(text).ok_or_else(|| format!("`{text}` is not an integer"))?
            }
            _ => return Err("this is not an integer".to_owned()),
        }),
        Cast::Float => Element::Float(match &element {
            Element::Text(text) | Element::Quoted(text, _) => {
                parse_float(text).ok_or_else(|| format!("`{text}` is not a number"))?
            }
            number => as_f64(number),
        }),
        Cast::Str => Element::Text(match element {
            Element::Bool(value) => value.to_string(),
            Element::Int(value) => value.to_string(),
            Element::Float(value) => float_repr(value),
            Element::Text(text) | Element::Quoted(text, _) => text,
            _ => return Err("this is not a scalar".to_owned()),
        }),
    })
}
