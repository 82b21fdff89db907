//! Time: of day for names and logs, elapsed for measurements, and Slurm's way to write a limit.

use std::fmt::Write;
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

/// Seconds since 1970, with their fraction.
pub fn unix_seconds() -> f64 {
    OffsetDateTime::now_utc().unix_timestamp_nanos() as f64 / 1e9
}

/// Now as RFC 3339 writes it.
pub fn timestamp() -> String {
    now().format(&Rfc3339).unwrap_or_default()
}

/// The time of day in a format of C's `strftime`; what is not a directive stays as it is.
pub fn format_local_time(format: &str) -> String {
    format_time(now(), format)
}

fn format_time(at: OffsetDateTime, format: &str) -> String {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let Some(directive) = chars.next() else {
            out.push('%');
            break;
        };
        let hour12 = (at.hour() + 11) % 12 + 1;
        let written = match directive {
            'Y' => write!(out, "{}", at.year()),
            'C' => write!(out, "{:02}", at.year() / 100),
            'y' => write!(out, "{:02}", at.year() % 100),
            'm' => write!(out, "{:02}", u8::from(at.month())),
            'd' => write!(out, "{:02}", at.day()),
            'e' => write!(out, "{:2}", at.day()),
            'H' => write!(out, "{:02}", at.hour()),
            'I' => write!(out, "{hour12:02}"),
            'M' => write!(out, "{:02}", at.minute()),
            'S' => write!(out, "{:02}", at.second()),
            'f' => write!(out, "{:06}", at.microsecond()),
            'j' => write!(out, "{:03}", at.ordinal()),
            'p' => write!(out, "{}", if at.hour() < 12 { "AM" } else { "PM" }),
            's' => write!(out, "{}", at.unix_timestamp()),
            'u' => write!(out, "{}", at.weekday().number_from_monday()),
            'w' => write!(out, "{}", at.weekday().number_days_from_sunday()),
            'U' => write!(out, "{:02}", at.sunday_based_week()),
            'W' => write!(out, "{:02}", at.monday_based_week()),
            'V' => write!(out, "{:02}", at.iso_week()),
            'B' => write!(out, "{}", at.month()),
            'b' | 'h' => write!(out, "{:.3}", at.month().to_string()),
            'A' => write!(out, "{}", at.weekday()),
            'a' => write!(out, "{:.3}", at.weekday().to_string()),
            'F' => write!(out, "{}", format_time(at, "%Y-%m-%d")),
            'T' | 'X' => write!(out, "{}", format_time(at, "%H:%M:%S")),
            'R' => write!(out, "{}", format_time(at, "%H:%M")),
            'D' | 'x' => write!(out, "{}", format_time(at, "%m/%d/%y")),
            'c' => write!(out, "{}", format_time(at, "%a %b %e %H:%M:%S %Y")),
            'n' => {
                out.push('\n');
                Ok(())
            }
            't' => write!(out, "\t"),
            '%' => write!(out, "%"),
            other => write!(out, "%{other}"),
        };
        written.expect("writing to a string cannot fail");
    }
    out
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
    fn the_directives_of_a_date_are_written_as_strftime_writes_them() {
        let at = time::macros::datetime!(2026-03-09 14:05:07 UTC);
        assert_eq!(format_time(at, "%Y-%m-%d/%H-%M-%S"), "2026-03-09/14-05-07");
        assert_eq!(
            format_time(at, "%a %b %e %I%p %j %%x %q"),
            "Mon Mar  9 02PM 068 %x %q"
        );
    }

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
