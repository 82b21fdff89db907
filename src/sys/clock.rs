//! Time: of day for names and logs, elapsed for measurements, and Slurm's way to write a limit.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// Now, in local time where the machine tells it.
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_local().unwrap_or_else(|_| OffsetDateTime::now_utc())
}

/// Now as `MMDD_HHMMSS`, which tells the logs of two runs in one folder apart.
pub fn log_stamp() -> String {
    now()
        .format(format_description!("[month][day]_[hour][minute][second]"))
        .unwrap_or_default()
}

/// Now as RFC 3339 writes it.
pub fn timestamp() -> String {
    now().format(&Rfc3339).unwrap_or_default()
}

/// A Slurm time limit (`minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours`,
/// `days-hours:minutes`, `days-hours:minutes:seconds`; see `man sbatch`), or `None` where the text is not one.
pub fn parse_slurm_time_limit(text: &str) -> Option<Duration> {
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(days.parse::<u64>().ok()?), rest),
        None => (None, text),
    };
    let parts = rest
        .split(':')
        .map(|part| part.parse::<u64>().ok())
        .collect::<Option<Vec<_>>>()?;
    let (hours, minutes, seconds) = match (days, parts.as_slice()) {
        (Some(_), [hours]) => (*hours, 0, 0),
        (Some(_), [hours, minutes]) => (*hours, *minutes, 0),
        (_, [hours, minutes, seconds]) => (*hours, *minutes, *seconds),
        (None, [minutes, seconds]) => (0, *minutes, *seconds),
        (None, [minutes]) => (0, *minutes, 0),
        _ => return None,
    };
    let hours = days.unwrap_or(0).checked_mul(24)?.checked_add(hours)?;
    let minutes = hours.checked_mul(60)?.checked_add(minutes)?;
    Some(Duration::from_secs(
        minutes.checked_mul(60)?.checked_add(seconds)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_slurm_time_limit_is_read() {
        let seconds = |text| parse_slurm_time_limit(text).map(|limit| limit.as_secs());
        assert_eq!(seconds("30"), Some(1800));
        assert_eq!(seconds("30:05"), Some(1805));
        assert_eq!(seconds("04:00:00"), Some(14_400));
        assert_eq!(seconds("1-2"), Some(93_600));
        assert_eq!(seconds("1-2:03"), Some(93_780));
        assert_eq!(seconds("1-02:03:04"), Some(93_784));
        assert_eq!(seconds("four"), None);
        assert_eq!(seconds(""), None);
    }
}
