//! The functions of the override grammar: `bool choice float glob int interval range shuffle sort str tag`.

use std::cmp::Ordering;

use super::{Choice, Element, Glob, Interval, OverrideValue, Range};
use crate::diag::suggest::did_you_mean;
use crate::yaml::Integer;
use crate::yaml::python_text::{float_repr, parse_float, parse_int};

const NAMES: [&str; 11] = [
    "bool", "choice", "float", "glob", "int", "interval", "range", "shuffle", "sort", "str", "tag",
];

type Call<T> = Result<T, String>;
type Named = Vec<(String, OverrideValue)>;

/// Calls a function; the error says why it refused.
pub(super) fn call(
    name: &str,
    positional: Vec<OverrideValue>,
    named: Named,
) -> Call<OverrideValue> {
    let positional: Vec<OverrideValue> = positional.into_iter().map(unquoted).collect();
    let named: Named = named
        .into_iter()
        .map(|(name, value)| (name, unquoted(value)))
        .collect();
    match name {
        "bool" => cast(Cast::Bool, positional, named),
        "int" => cast(Cast::Int, positional, named),
        "float" => cast(Cast::Float, positional, named),
        "str" => cast(Cast::Str, positional, named),
        "choice" => choice(positional, &named),
        "range" => range(positional, named),
        "interval" => interval(positional, named),
        "glob" => glob(positional, named),
        "tag" => tag(positional, named),
        "sort" => sort(positional, named),
        "shuffle" => shuffle(positional, named),
        _ => Err(match did_you_mean(name, NAMES) {
            Some(near) => format!("there is no function `{name}`, did you mean `{near}`?"),
            None => format!(
                "there is no function `{name}`; there are {}",
                NAMES.join(", ")
            ),
        }),
    }
}

/// Arguments lose their quotes; what is inside of lists and dicts keeps them.
fn unquoted(value: OverrideValue) -> OverrideValue {
    match value {
        OverrideValue::Element(Element::Quoted(text, _)) => {
            OverrideValue::Element(Element::Text(text))
        }
        value => value,
    }
}

/// Binds arguments to parameters, as Python does.
fn bind<const N: usize>(
    parameters: [&str; N],
    positional: Vec<OverrideValue>,
    named: Named,
) -> Call<[Option<OverrideValue>; N]> {
    let mut bound = [const { None }; N];
    if positional.len() > N {
        return Err("too many positional arguments".to_owned());
    }
    for (slot, value) in bound.iter_mut().zip(positional) {
        *slot = Some(value);
    }
    for (name, value) in named {
        let Some(index) = parameters.iter().position(|parameter| *parameter == name) else {
            return Err(format!("got an unexpected keyword argument `{name}`"));
        };
        if bound[index].is_some() {
            return Err(format!("multiple values for argument `{name}`"));
        }
        bound[index] = Some(value);
    }
    Ok(bound)
}

fn number(name: &str, value: Option<OverrideValue>) -> Call<Element> {
    match value {
        None => Err(format!("missing a required argument: `{name}`")),
        // A truth value is an integer to Python.
        Some(OverrideValue::Element(
            element @ (Element::Int(_) | Element::Float(_) | Element::Bool(_)),
        )) => Ok(element),
        Some(_) => Err(format!("the argument `{name}` must be a number")),
    }
}

fn as_f64(element: &Element) -> f64 {
    match element {
        Element::Int(value) => value.to_f64(),
        Element::Float(value) => *value,
        Element::Bool(value) => f64::from(u8::from(*value)),
        _ => f64::NAN,
    }
}

fn choice(positional: Vec<OverrideValue>, named: &Named) -> Call<OverrideValue> {
    if let Some((name, _)) = named.first() {
        return Err(format!("got an unexpected keyword argument `{name}`"));
    }
    if let [OverrideValue::Choice(first)] = positional.as_slice() {
        if !first.simple {
            return Err("nesting choices is not supported".to_owned());
        }
        return Ok(OverrideValue::Choice(Choice {
            simple: false,
            ..first.clone()
        }));
    }
    let mut list = vec![];
    for value in positional {
        match value {
            OverrideValue::Element(Element::Null) => {
                return Err("null cannot be an argument of a choice".to_owned());
            }
            OverrideValue::Element(element) => list.push(element),
            OverrideValue::Choice(_) => list.push(Element::Sweep(Box::new(value))),
            _ => return Err("a sweep cannot be an argument of a choice".to_owned()),
        }
    }
    if list.is_empty() {
        return Err("empty choice is not legal".to_owned());
    }
    Ok(OverrideValue::Choice(Choice {
        list,
        simple: false,
        shuffle: false,
        tags: vec![],
    }))
}

fn range(positional: Vec<OverrideValue>, named: Named) -> Call<OverrideValue> {
    let [start, stop, step] = bind(["start", "stop", "step"], positional, named)?;
    let start = number("start", start)?;
    let stop = match stop {
        None | Some(OverrideValue::Element(Element::Null)) => None,
        stop => Some(number("stop", stop)?),
    };
    let step = match step {
        None => Element::Int(1.into()),
        step => number("step", step)?,
    };
    let (start, stop) = match stop {
        Some(stop) => (start, stop),
        None => (Element::Int(0.into()), start),
    };
    Ok(OverrideValue::Range(Range {
        start,
        stop,
        step,
        shuffle: false,
        tags: vec![],
    }))
}

fn interval(positional: Vec<OverrideValue>, named: Named) -> Call<OverrideValue> {
    let [start, end] = bind(["start", "end"], positional, named)?;
    let (start, end) = (number("start", start)?, number("end", end)?);
    Ok(OverrideValue::Interval(Interval {
        start: Element::Float(as_f64(&start)),
        end: Element::Float(as_f64(&end)),
        tags: vec![],
    }))
}

fn glob(positional: Vec<OverrideValue>, named: Named) -> Call<OverrideValue> {
    fn patterns(name: &str, value: OverrideValue) -> Call<Vec<String>> {
        match value {
            OverrideValue::Element(Element::Text(text)) => Ok(vec![text]),
            OverrideValue::Element(Element::List(items)) => items
                .iter()
                .map(|item| {
                    item.as_text()
                        .map(str::to_owned)
                        .ok_or_else(|| format!("the argument `{name}` must be texts"))
                })
                .collect(),
            _ => Err(format!(
                "the argument `{name}` must be a text or a list of texts"
            )),
        }
    }
    let [include, exclude] = bind(["include", "exclude"], positional, named)?;
    let include = include.ok_or("missing a required argument: `include`")?;
    let exclude = match exclude {
        None | Some(OverrideValue::Element(Element::Null)) => vec![],
        Some(exclude) => patterns("exclude", exclude)?,
    };
    Ok(OverrideValue::Glob(Glob {
        include: patterns("include", include)?,
        exclude,
    }))
}

fn tag(mut positional: Vec<OverrideValue>, named: Named) -> Call<OverrideValue> {
    for (name, value) in named {
        if name != "sweep" {
            return Err(format!("got an unexpected keyword argument `{name}`"));
        }
        if positional.is_empty() {
            return Err("not enough arguments, a sweep is needed".to_owned());
        }
        positional.push(value);
    }
    let Some(mut sweep) = positional.pop() else {
        return Err("not enough arguments, a sweep is needed".to_owned());
    };
    let mut names: Vec<String> = vec![];
    for value in positional {
        match value {
            OverrideValue::Element(Element::Text(text)) => {
                if !names.contains(&text) {
                    names.push(text);
                }
            }
            _ => return Err("tags must be texts".to_owned()),
        }
    }
    match &mut sweep {
        OverrideValue::Choice(Choice { tags, .. })
        | OverrideValue::Range(Range { tags, .. })
        | OverrideValue::Interval(Interval { tags, .. }) => *tags = names,
        OverrideValue::Glob(_) | OverrideValue::Element(_) => {
            return Err("the last argument must be a choice, a range or an interval".to_owned());
        }
    }
    Ok(sweep)
}

// Casts ------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cast {
    Bool,
    Int,
    Float,
    Str,
}

fn cast(cast: Cast, mut positional: Vec<OverrideValue>, named: Named) -> Call<OverrideValue> {
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

fn simple_choice(values: Vec<OverrideValue>) -> Call<OverrideValue> {
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
                .map(|item| cast_element(cast, item))
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

// Order ------------------------------------------------------------------------------------------------------

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

fn sort(positional: Vec<OverrideValue>, named: Named) -> Call<OverrideValue> {
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

fn shuffle(positional: Vec<OverrideValue>, named: Named) -> Call<OverrideValue> {
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
        OverrideValue::Element(Element::List(items)) => {
            OverrideValue::Element(Element::List(super::sweep::shuffled(items)))
        }
        OverrideValue::Element(element) => OverrideValue::Element(Element::List(vec![element])),
        _ => return Err("an interval or a glob cannot be shuffled".to_owned()),
    })
}
