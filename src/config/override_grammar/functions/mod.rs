//! The functions of the override grammar: `bool choice float glob int interval range shuffle sort str tag`.

mod cast;
mod order;

use super::{Choice, Element, Glob, Interval, OverrideValue, Range};
use crate::diag::suggest::did_you_mean;
use cast::{Cast, cast};
use order::{shuffle, sort};

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
            OverrideValue::Element(Element::List(items)) => Ok(items
                .iter()
                .map(|item| item.as_text().map_or_else(|| item.to_word(), str::to_owned))
                .collect()),
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
