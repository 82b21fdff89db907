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
                    match compare(a, b)? {
                        Ordering::Equal => {}
                        order => return Ok(order),
                    }
                }
            }
            Ok(a.len().cmp(&b.len()))
        }
        _ => Err("these values have no order".to_owned()),
    }
}

/// Python's `sorted`: a run from the start, then every further value put in its place by bisection. Its order of
/// comparisons shows where NaN is among the numbers.
fn sorted(mut list: Vec<Element>, reverse: bool) -> Call<Vec<Element>> {
    if reverse {
        list.reverse();
    }
    let less = |a: usize, b: usize| Ok::<_, String>(compare(&list[a], &list[b])? == Ordering::Less);
    let mut order: Vec<usize> = (0..list.len()).collect();
    let mut run = list.len().min(2);
    if run == 2 {
        let descending = less(1, 0)?;
        while run < list.len() && less(run, run - 1)? == descending {
            run += 1;
        }
        if descending {
            order[..run].reverse();
        }
    }
    for index in run..list.len() {
        let (mut low, mut high) = (0, index);
        while low < high {
            let middle = low.midpoint(high);
            if less(index, order[middle])? {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        order[low..=index].rotate_right(1);
    }
    if reverse {
        order.reverse();
    }
    let mut slots: Vec<Option<Element>> = list.into_iter().map(Some).collect();
    Ok(order
        .into_iter()
        .filter_map(|index| slots[index].take())
        .collect())
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
    let integer = |element: &Element| match element {
        Element::Int(Integer::Small(value)) => Some(*value),
        Element::Bool(value) => Some(i128::from(*value)),
        _ => None,
    };
    if let (Some(a), Some(b)) = (integer(a), integer(b)) {
        let result = if minus {
            a.checked_sub(b)
        } else {
            a.checked_add(b)
        };
        return result
            .map(|value| Element::Int(Integer::Small(value)))
            .ok_or_else(|| "a number is too large".to_owned());
    }
    let (a, b) = (as_f64(a), as_f64(b));
    Ok(Element::Float(if minus { a - b } else { a + b }))
}

fn negated(element: &Element) -> Call<Element> {
    Ok(match element {
        Element::Int(Integer::Small(value)) => Element::Int(Integer::Small(
            value.checked_neg().ok_or("a number is too large")?,
        )),
        Element::Bool(value) => Element::Int(Integer::Small(-i128::from(*value))),
        other => Element::Float(-as_f64(other)),
    })
}

fn absolute(element: &Element) -> Call<Element> {
    match element {
        Element::Int(Integer::Small(value)) if *value < 0 => negated(element),
        Element::Bool(value) => Ok(Element::Int(Integer::Small((*value).into()))),
        Element::Float(value) => Ok(Element::Float(value.abs())),
        other => Ok(other.clone()),
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
    let step = absolute(&range.step)?;
    Ok(Range {
        start: arithmetic(&range.stop, &step, reverse)?,
        stop: arithmetic(&range.start, &step, reverse)?,
        step: negated(&range.step)?,
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
