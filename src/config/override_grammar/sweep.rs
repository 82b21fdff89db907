//! From a sweep to the words of its jobs.

use std::hash::{BuildHasher, RandomState};

use super::{Choice, Element, OverrideValue, Range};
use crate::yaml::Integer;
use crate::yaml::python_text::float_repr;

/// More jobs than this are a mistake.
const MAX_JOBS: usize = 1_000_000;

/// The elements in a random order; another one each time, as in Hydra.
pub(super) fn shuffled(mut items: Vec<Element>) -> Vec<Element> {
    let hasher = RandomState::new();
    for end in (1..items.len()).rev() {
        let other = (hasher.hash_one(end) % (end as u64 + 1)) as usize;
        items.swap(end, other);
    }
    items
}

impl OverrideValue {
    /// The values of the jobs as words; nothing for sweeps that need a group (`glob`) or a search (`interval`).
    pub fn sweep_words(&self) -> Option<Vec<String>> {
        let (list, shuffle) = match self {
            Self::Choice(Choice { list, shuffle, .. }) => (list.clone(), *shuffle),
            Self::Range(range) => (range.elements()?, range.shuffle),
            Self::Element(_) | Self::Interval(_) | Self::Glob(_) => return None,
        };
        let list = if shuffle { shuffled(list) } else { list };
        Some(list.iter().map(Element::to_word).collect())
    }
}

impl Range {
    /// The numbers; nothing where the step is zero or there are too many.
    pub fn elements(&self) -> Option<Vec<Element>> {
        if let (Element::Int(start), Element::Int(stop), Element::Int(step)) =
            (&self.start, &self.stop, &self.step)
        {
            let (Integer::Small(start), Integer::Small(stop), Integer::Small(step)) =
                (start, stop, step)
            else {
                return None;
            };
            return numbers(*start, *stop, *step)?
                .into_iter()
                .map(|value| Some(Element::Int(Integer::Small(value))))
                .collect();
        }
        // Decimal arithmetic, as Hydra does it: exact, so that 0.1 steps do not drift.
        let decimals = [&self.start, &self.stop, &self.step].map(decimal);
        let [Some(start), Some(stop), Some(step)] = decimals else {
            return None;
        };
        let scale = start.1.max(stop.1).max(step.1);
        let [start, stop, step] = [start, stop, step].map(|(digits, own)| {
            10_i128
                .checked_pow(scale - own)
                .and_then(|factor| digits.checked_mul(factor))
        });
        let values = numbers(start?, stop?, step?)?;
        Some(
            values
                .into_iter()
                .map(|value| Element::Float(scaled(value, scale)))
                .collect(),
        )
    }
}

fn numbers(start: i128, stop: i128, step: i128) -> Option<Vec<i128>> {
    if step == 0 {
        return None;
    }
    let mut values = vec![];
    let mut at = start;
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        values.push(at);
        if values.len() > MAX_JOBS {
            return None;
        }
        at = at.checked_add(step)?;
    }
    Some(values)
}

/// A number as digits and the count of those after the point.
fn decimal(element: &Element) -> Option<(i128, u32)> {
    match element {
        Element::Int(Integer::Small(value)) => Some((*value, 0)),
        Element::Float(value) if value.is_finite() => {
            let text = format!("{value}");
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
            let digits = format!("{whole}{fraction}").parse().ok()?;
            Some((digits, u32::try_from(fraction.len()).ok()?))
        }
        _ => None,
    }
}

fn scaled(value: i128, scale: u32) -> f64 {
    let digits = format!("{}e-{scale}", value);
    digits
        .parse()
        .unwrap_or_else(|_| float_repr(value as f64).parse().unwrap_or(value as f64))
}
