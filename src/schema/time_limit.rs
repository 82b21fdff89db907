//! A span of time as PyTorch Lightning's `max_time` is written.

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};
use serde_yaml::Value;

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimit {
    /// Its length.
    pub seconds: u64,
}

impl TimeLimit {
    /// Reads `DD:HH:MM:SS`.
    pub fn parse(text: &str) -> Option<Self> {
        let parts = text
            .trim()
            .split(':')
            .map(|part| part.trim().parse::<u64>().ok())
            .collect::<Option<Vec<_>>>()?;
        match parts[..] {
            [days, hours, minutes, seconds] => Self::of([days, hours, minutes, seconds]),
            _ => None,
        }
    }

    fn of([days, hours, minutes, seconds]: [u64; 4]) -> Option<Self> {
        let seconds = days
            .checked_mul(24)?
            .checked_add(hours)?
            .checked_mul(60)?
            .checked_add(minutes)?
            .checked_mul(60)?
            .checked_add(seconds)?;
        Some(Self { seconds })
    }
}

impl Serialize for TimeLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (minutes, seconds) = (self.seconds / 60, self.seconds % 60);
        let (hours, minutes) = (minutes / 60, minutes % 60);
        serializer.collect_str(&format_args!(
            "{:02}:{:02}:{minutes:02}:{seconds:02}",
            hours / 24,
            hours % 24
        ))
    }
}

impl<'de> Deserialize<'de> for TimeLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let parsed = match &value {
            Value::String(text) => Self::parse(text),
            // YAML 1.1 reads `00:04:00:00` as a number to base 60, which is the number of seconds but for the days.
            Value::Number(number) => number.as_u64().map(|number| {
                let (rest, below_a_day) = (number / 216_000, number % 216_000);
                Self {
                    seconds: rest * 86_400 + below_a_day,
                }
            }),
            Value::Mapping(parts) => {
                let mut units = [0; 4];
                let mut known = true;
                for (key, value) in parts {
                    let place = ["days", "hours", "minutes", "seconds"]
                        .iter()
                        .position(|unit| key.as_str() == Some(unit));
                    match (place, value.as_u64()) {
                        (Some(place), Some(count)) => units[place] = count,
                        _ => known = false,
                    }
                }
                known.then(|| Self::of(units)).flatten()
            }
            _ => None,
        };
        parsed.ok_or_else(|| {
            D::Error::custom(
                "invalid time, expected `DD:HH:MM:SS` in quotes (`00:03:30:00` is three and a half hours) or a mapping of \
                 days, hours, minutes and seconds",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_write_a_time_are_read_and_others_refused() {
        let read = |text: &str| serde_yaml::from_str::<TimeLimit>(text).map(|time| time.seconds);
        assert_eq!(read("'00:03:30:05'").unwrap(), 12_605);
        assert_eq!(read("'01:00:00:00'").unwrap(), 86_400);
        assert_eq!(read("{hours: 2, minutes: 1}").unwrap(), 7260);
        for wrong in [
            "'3:30:05'",
            "soon",
            "{weeks: 1}",
            "[1]",
            "'99999999999999999:0:0:0'",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_yaml_made_a_number_of_is_the_same_time() {
        // 01:03:30:05 to base 60.
        let number = ((60 + 3) * 60 + 30) * 60 + 5;
        let read: TimeLimit = serde_yaml::from_str(&number.to_string()).unwrap();
        assert_eq!(read.seconds, 86_400 + 12_605);
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        let time = TimeLimit { seconds: 93_784 };
        let text = serde_yaml::to_string(&time).unwrap();
        assert!(text.contains("01:02:03:04"), "{text}");
        assert_eq!(serde_yaml::from_str::<TimeLimit>(&text).unwrap(), time);
    }
}
