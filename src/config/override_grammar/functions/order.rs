//! `sort` and `shuffle`.

use std::cmp::Ordering;

use super::cast::simple_choice;
use super::{Call, Named, as_f64};
use crate::config::override_grammar::{Choice, Element, OverrideValue, Range};
use crate::yaml::Integer;

/// Python's `<` between two values; an error where Python raises one.
fn compare(a: &Element, b: &Element) -> Call<Ordering> {
    let is_number = |element: &Element| {
        matches!(
            element,
            Element::Bool(_) | Element::Int(_) | Element::Float(_)
        )
    };
    match (a, b) {
        (Element::Int(Integer::Small(a)), Element::Int(Integer::Small(b))) => Ok(a.cmp(b)),
        (a, b) if is_number(a) && is_number(b) => {
            Ok(as_f64(a).partial_cmp(&as_f64(b)).unwrap_or(Ordering::Equal))
        }
        (Element::Text(a), Element::Text(b)) => Ok(a.cmp(b)),
        (Element::List(a), Element::List(b)) => {
            for (a, b) in a.iter().zip(b) {
                if a != b {
                    return compare(a, b);
                }
            }
            Ok(a.len().cmp(&b.len()))
        }
        _ => Err("these values have no order".to_owned()),
    }
}

fn sorted(mut list: Vec<Element>, reverse: bool) -> Call<Vec<Element>> {
    let mut problem = None;
    list.sort_by(|a, b| {
        let order = compare(a, b).unwrap_or_else(|message| {
            problem.get_or_insert(message);
            Ordering::Equal
        });
        if reverse { order.reverse() } else { order }
    });
    match problem {
        Some(message) => Err(message),
        None => Ok(list),
    }
}

pub(super) fn sort(positional: Vec<OverrideValue>, named: Named) -> Call<OverrideValue> {
    let mut positional = positional;
    let mut reverse = false;
    for (name, value) in named {
        match (name.as_str(), value) {
            ("reverse", OverrideValue::Element(Element::Bool(value))) => reverse = value,
            ("reverse", _) => return Err("the argument `reverse` must be true or false".to_owned()),
            ("list", value @ OverrideValue::Element(Element::List(_)))
            | ("sweep", value @ (OverrideValue::Choice(_) | OverrideValue::Range(_))) => {
                positional = vec![value];
            }
            ("list" | "sweep", OverrideValue::Element(Element::Null)) => {}
            ("list" | "sweep", _) => {
                return Err(format!("the argument `{name}` has the wrong type"));
            }
            _ => return Err(format!("got an unexpected keyword argument `{name}`")),
        }
    }
    if positional.is_empty() {
        return Err("there is nothing to sort".to_owned());
    }
    if positional.len() > 1 {
        let scalar = |value: &OverrideValue| {
            matches!(
                value,
                OverrideValue::Element(
                    Element::Int(_) | Element::Float(_) | Element::Bool(_) | Element::Text(_)
                )
            )
        };
        if !positional.iter().all(scalar) {
            return Err("several values can be sorted only where all are scalars".to_owned());
        }
        positional = vec![simple_choice(positional)?];
    }
    Ok(match positional.remove(0) {
        OverrideValue::Choice(choice) => OverrideValue::Choice(Choice {
            list: sorted(choice.list, reverse)?,
            ..choice
        }),
        OverrideValue::Range(range) => OverrideValue::Range(sorted_range(range, reverse)?),
        OverrideValue::Element(Element::List(items)) => {
            OverrideValue::Element(Element::List(sorted(items, reverse)?))
        }
        value @ OverrideValue::Element(_) => value,
        _ => return Err("an interval or a glob has no order".to_owned()),
    })
}

fn arithmetic(a: &Element, b: &Element, minus: bool) -> Call<Element> {
    if let (Element::Int(Integer::Small(a)), Element::Int(Integer::Small(b))) = (a, b) {
        let result = if minus {
            a.checked_sub(*b)
        } else {
            a.checked_add(*b)
        };
        return result
            .map(|value| Element::Int(Integer::Small(value)))
            .ok_or_else(|| "a number is too large".to_owned());
    }
    let (a, b) = (as_f64(a), as_f64(b));
    Ok(Element::Float(if minus { a - b } else { a + b }))
}

fn absolute(element: &Element) -> Element {
    match element {
        Element::Int(Integer::Small(value)) => Element::Int(Integer::Small(value.abs())),
        other => Element::Float(as_f64(other).abs()),
    }
}

fn negated(element: &Element) -> Element {
    match element {
        Element::Int(Integer::Small(value)) => Element::Int(Integer::Small(-value)),
        other => Element::Float(-as_f64(other)),
    }
}

/// Turned around where it runs the other way; not exact where the step does not divide the distance, as in Hydra.
fn sorted_range(range: Range, reverse: bool) -> Call<Range> {
    let order = compare(&range.start, &range.stop)?;
    let turned = if reverse {
        order == Ordering::Less
    } else {
        order == Ordering::Greater
    };
    if !turned {
        return Ok(range);
    }
    let step = absolute(&range.step);
    Ok(Range {
        start: arithmetic(&range.stop, &step, reverse)?,
        stop: arithmetic(&range.start, &step, reverse)?,
        step: negated(&range.step),
        ..range
    })
}

pub(super) fn shuffle(positional: Vec<OverrideValue>, named: Named) -> Call<OverrideValue> {
    let mut positional = positional;
    for (name, value) in named {
        match (name.as_str(), value) {
            ("list", value @ OverrideValue::Element(Element::List(_)))
            | ("sweep", value @ (OverrideValue::Choice(_) | OverrideValue::Range(_))) => {
                positional = vec![value];
            }
            ("list" | "sweep", OverrideValue::Element(Element::Null)) => {}
            ("list" | "sweep", _) => {
                return Err(format!("the argument `{name}` has the wrong type"));
            }
            _ => return Err(format!("got an unexpected keyword argument `{name}`")),
        }
    }
    if positional.len() != 1 {
        let OverrideValue::Choice(choice) = simple_choice(positional)? else {
            return Err("there is nothing to shuffle".to_owned());
        };
        return Ok(OverrideValue::Choice(Choice {
            shuffle: true,
            ..choice
        }));
    }
    Ok(match positional.remove(0) {
        OverrideValue::Choice(choice) => OverrideValue::Choice(Choice {
            shuffle: true,
            ..choice
        }),
        OverrideValue::Range(range) => OverrideValue::Range(Range {
            shuffle: true,
            ..range
        }),
        OverrideValue::Element(Element::List(items)) => OverrideValue::Element(Element::List(
            crate::config::override_grammar::sweep::shuffled(items),
        )),
        OverrideValue::Element(element) => OverrideValue::Element(Element::List(vec![element])),
        _ => return Err("an interval or a glob cannot be shuffled".to_owned()),
    })
}
