//! From a sweep to the words of its jobs.

use std::hash::{BuildHasher, RandomState};

use super::{Choice, Element, OverrideValue, Range};
use crate::yaml::Integer;

/// More jobs than this are a mistake.
const MAX_JOBS: usize = 100_000;
/// Digits of Python's decimal arithmetic.
const DIGITS: u32 = 28;

/// A sweep that gives no jobs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SweepError(pub String);

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
    /// The values of the jobs as words; nothing for one value, and for sweeps that need a group (`glob`) or a search
    /// (`interval`).
    ///
    /// # Errors
    /// A range that never ends, a sweep among the values of a sweep.
    pub fn sweep_words(&self) -> Result<Option<Vec<String>>, SweepError> {
        let (list, shuffle) = match self {
            Self::Choice(Choice { list, shuffle, .. }) => (list.clone(), *shuffle),
            Self::Range(range) => (range.elements()?, range.shuffle),
            Self::Element(_) | Self::Interval(_) | Self::Glob(_) => return Ok(None),
        };
        if list.iter().any(Element::has_sweep) {
            return Err(SweepError(
                "a sweep cannot be one of the values of a sweep".to_owned(),
            ));
        }
        let list = if shuffle { shuffled(list) } else { list };
        Ok(Some(list.iter().map(Element::to_word).collect()))
    }
}

fn as_integer(element: &Element) -> Option<i128> {
    match element {
        Element::Int(Integer::Small(value)) => Some(*value),
        Element::Bool(value) => Some((*value).into()),
        _ => None,
    }
}

impl Range {
    /// The numbers: integers where start, stop and step are; else doubles, added up in decimal arithmetic of 28 digits.
    ///
    /// # Errors
    /// A step of zero, and more numbers than anybody wants.
    pub fn elements(&self) -> Result<Vec<Element>, SweepError> {
        let integers = (
            as_integer(&self.start),
            as_integer(&self.stop),
            as_integer(&self.step),
        );
        if let (Some(start), Some(stop), Some(step)) = integers {
            let values = numbers(start, stop, step, |value| value)?;
            return Ok(values
                .into_iter()
                .map(|value| Element::Int(Integer::Small(value)))
                .collect());
        }
        let fixed = [&self.start, &self.stop, &self.step].map(exact_text);
        let [Some(start), Some(stop), Some(step)] = &fixed else {
            return Err(SweepError(
                "the range is not made of finite numbers".to_owned(),
            ));
        };
        // One scale for all three; what exceeds 28 significant digits is rounded at every addition.
        let whole = [start, stop, step]
            .iter()
            .map(|text| whole_digits(text))
            .max()
            .unwrap_or(1);
        let scale = 36_u32.saturating_sub(whole);
        let [start, stop, step] = [start, stop, step].map(|text| scaled_digits(text, scale));
        let (Some(start), Some(stop), Some(step)) = (start, stop, step) else {
            return Err(SweepError("a number of the range is too large".to_owned()));
        };
        let values = numbers(start, stop, step, round_to_digits)?;
        Ok(values
            .into_iter()
            .map(|value| Element::Float(format!("{value}e-{scale}").parse().unwrap_or(f64::NAN)))
            .collect())
    }
}

fn numbers(
    start: i128,
    stop: i128,
    step: i128,
    round: fn(i128) -> i128,
) -> Result<Vec<i128>, SweepError> {
    if step == 0 {
        return Err(SweepError("the step of a range cannot be 0".to_owned()));
    }
    let mut values = vec![];
    let mut at = start;
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        values.push(at);
        if values.len() > MAX_JOBS {
            return Err(SweepError(format!(
                "the range has more than {MAX_JOBS} numbers"
            )));
        }
        let Some(next) = at.checked_add(step) else {
            break;
        };
        at = round(next);
    }
    Ok(values)
}

/// All digits of a number, as Python's `Decimal(value)` has them.
fn exact_text(element: &Element) -> Option<String> {
    match element {
        Element::Float(value) if value.is_finite() => Some(format!("{value:.60}")),
        Element::Float(_) => None,
        other => as_integer(other).map(|value| value.to_string()),
    }
}

fn whole_digits(text: &str) -> u32 {
    let text = text.trim_start_matches('-');
    text.split('.').next().map_or(1, str::len) as u32
}

fn scaled_digits(text: &str, scale: u32) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut fraction = fraction.to_owned();
    while fraction.len() < scale as usize {
        fraction.push('0');
    }
    fraction.truncate(scale as usize);
    format!("{whole}{fraction}").parse().ok()
}

/// Half to even at 28 significant digits.
fn round_to_digits(value: i128) -> i128 {
    let digits = value
        .unsigned_abs()
        .checked_ilog10()
        .map_or(1, |log| log + 1);
    let Some(excess) = digits.checked_sub(DIGITS).filter(|excess| *excess > 0) else {
        return value;
    };
    let unit = 10_i128.pow(excess);
    let (quotient, rest) = (value / unit, value % unit);
    let up = match (rest.abs() * 2).cmp(&unit) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => quotient % 2 != 0,
        std::cmp::Ordering::Greater => true,
    };
    (quotient + if up { value.signum() } else { 0 }) * unit
}

#[cfg(test)]
mod tests {
    use super::super::parse_override;

    fn words(word: &str) -> Vec<String> {
        parse_override(word)
            .unwrap()
            .value
            .unwrap()
            .sweep_words()
            .unwrap()
            .unwrap()
    }

    #[test]
    fn ranges_of_doubles_drift_as_pythons_decimals_do() {
        assert_eq!(
            words("a=range(0,1,0.1)"),
            [
                "0.0",
                "0.1",
                "0.2",
                "0.3",
                "0.4",
                "0.5",
                "0.6",
                "0.7000000000000001",
                "0.8",
                "0.9"
            ]
        );
    }

    #[test]
    fn values_are_written_so_that_they_read_back_equal() {
        assert_eq!(
            words("a=a b,'c,d',[1,{x:y}],1e3,true"),
            [r"a\ b", "'c,d'", "[1,{x:y}]", "1000.0", "True"]
        );
    }
}
