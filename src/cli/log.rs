//! The log on standard error and, for jobs on this machine, in a file as well.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::sys::{clock, env_vars};

/// Time of day: jobs last hours, and the date stands in the name of the log.
struct TimeOfDay;

impl FormatTime for TimeOfDay {
    fn format_time(&self, out: &mut fmt::format::Writer<'_>) -> std::fmt::Result {
        let now = clock::now();
        write!(
            out,
            "{:02}:{:02}:{:02}",
            now.hour(),
            now.minute(),
            now.second()
        )
    }
}

/// Starts the log. A worker's lines carry the time; the launcher's are for the person who waits for them. `level` is what
/// is shown where the environment does not say it.
pub(super) fn start(is_worker: bool, level: &str) {
    let filter = || {
        EnvFilter::try_new(env_vars::get(env_vars::PTUNE_LOG).unwrap_or_default())
            .ok()
            .filter(|_| env_vars::get(env_vars::PTUNE_LOG).is_some_and(|text| !text.is_empty()))
            .unwrap_or_else(|| EnvFilter::new(level))
    };
    let colour = super::use_colour();
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colour && std::io::stderr().is_terminal())
        .with_target(false);
    let lines = if is_worker {
        lines.with_timer(TimeOfDay).with_filter(filter()).boxed()
    } else {
        lines
            .without_time()
            .with_level(false)
            .with_filter(filter())
            .boxed()
    };
    let file = is_worker.then(open_file).flatten().map(|file| {
        fmt::layer()
            .with_writer(Mutex::new(file))
            .with_ansi(false)
            .with_target(false)
            .with_timer(TimeOfDay)
            .with_filter(filter())
    });
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(file)
        .try_init();
}

fn open_file() -> Option<std::fs::File> {
    let path = env_vars::get(env_vars::PTUNE_LOG_FILE)?;
    let file = fs_err::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .ok()?;
    Some(file.into_parts().0)
}

/// Adds a text that did not come through the log, such as the last error.
pub(super) fn append(text: &str) {
    if let Some(mut file) = open_file() {
        // The terminal has it already.
        let _ = file.write_all(text.as_bytes());
    }
}
