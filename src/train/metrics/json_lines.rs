//! `metrics.jsonl`: one JSON object a line, readable while the run goes on.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{MetricSink, StepMetrics, ValidationMetrics};

/// Appends to a file. A resumed run first drops what its interrupted predecessor wrote beyond the step it resumes from.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: fs_err::File,
    /// Length of the file: where the next line begins.
    length: u64,
}

impl JsonLines {
    /// Opens `path` for a run that has `steps_done` steps behind it; 0 starts a new file.
    pub fn open(path: &Path, steps_done: u64) -> Result<Self> {
        let kept = match fs_err::read_to_string(path) {
            Ok(text) if steps_done > 0 => text
                .lines()
                .filter(|line| {
                    serde_json::from_str::<serde_json::Value>(line)
                        .ok()
                        .and_then(|object| object["step"].as_u64())
                        .is_some_and(|step| step <= steps_done)
                })
                .flat_map(|line| [line, "\n"])
                .collect(),
            _ => String::new(),
        };
        let length = kept.len() as u64;
        crate::sys::atomic_file::write(path, kept)?;
        let file = fs_err::OpenOptions::new().append(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
        })
    }

    fn write(&mut self, object: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_string(object)?;
        line.push('\n');
        // One write for one line, so that a reader never sees half of it.
        let written = self.file.write_all(line.as_bytes());
        if written.is_ok() {
            self.length += line.len() as u64;
        } else {
            // A full disk takes the beginning of a line; readers shall not see that.
            let _ = self.file.file().set_len(self.length);
        }
        written.with_context(|| format!("writing {}", self.path.display()))
    }
}

impl MetricSink for JsonLines {
    fn step(&mut self, metrics: &StepMetrics, log: bool) -> Result<()> {
        if log { self.write(metrics) } else { Ok(()) }
    }

    fn validation(&mut self, metrics: &ValidationMetrics) -> Result<()> {
        self.write(metrics)
    }

    fn persist(&mut self) -> Result<()> {
        self.file
            .sync_data()
            .with_context(|| format!("writing {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_run_drops_lines_beyond_its_first_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        fs_err::write(&path, "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"st").unwrap();
        drop(JsonLines::open(&path, 2).unwrap());
        assert_eq!(
            fs_err::read_to_string(&path).unwrap(),
            "{\"step\":1}\n{\"step\":2}\n"
        );
        drop(JsonLines::open(&path, 0).unwrap());
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "");
    }
}
