//! Event files for TensorBoard, under the names that NeMo's logger gives its values.
//!
//! A file is a row of records: length (u64), checksum of the length, the bytes, their checksum; numbers are little-endian,
//! checksums masked CRC-32C (`tensorflow/core/lib/io/record_writer.h`). The bytes are a message `Event` of
//! `event.proto`, of which five fields are needed here.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{MetricSink, StepMetrics, ValidationMetrics};
use crate::sys::clock;

/// Writes one file for this process beside those of earlier ones; TensorBoard reads them as one run.
#[derive(Debug)]
pub struct TensorBoard {
    path: PathBuf,
    file: fs_err::File,
}

impl TensorBoard {
    /// A new file in `folder`, for a run that has `steps_done` steps behind it. TensorBoard forgets what a killed
    /// predecessor wrote of later ones.
    pub fn create(folder: &Path, steps_done: u64) -> Result<Self> {
        let now = clock::unix_seconds();
        let host = crate::sys::process::host_name().unwrap_or_else(|| "localhost".to_owned());
        let host: String = host
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '-' {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        let process = std::process::id();
        fs_err::create_dir_all(folder)?;
        let mut number = 0;
        let (path, file) = loop {
            // Two processes of one number may start within a second, on two days of a container.
            let path = folder.join(format!(
                "events.out.tfevents.{:010}.{host}.{process}.{number}",
                now as u64
            ));
            let mut options = fs_err::OpenOptions::new();
            match options.append(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(error)
                    if error.kind() == std::io::ErrorKind::AlreadyExists && number < 1000 =>
                {
                    number += 1;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let mut sink = Self { path, file };
        let version = Event::new(now, 0).text(FILE_VERSION, "brain.Event:2");
        sink.write(&record(&version.bytes))?;
        if steps_done > 0 {
            let start = Event::new(now, steps_done + 1).message(SESSION_LOG, &START_OF_SESSION);
            sink.write(&record(&start.bytes))?;
        }
        Ok(sink)
    }

    /// One write, so that a reader seldom sees half a record.
    fn write(&mut self, records: &[u8]) -> Result<()> {
        self.file
            .write_all(records)
            .with_context(|| format!("writing {}", self.path.display()))
    }

    fn scalars<'a>(
        &mut self,
        step: u64,
        scalars: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<()> {
        let now = clock::unix_seconds();
        let mut records = vec![];
        for (tag, value) in scalars {
            records.extend(record(&Event::new(now, step).scalar(tag, value).bytes));
        }
        self.write(&records)
    }
}

impl MetricSink for TensorBoard {
    fn step(&mut self, metrics: &StepMetrics, log: bool) -> Result<()> {
        if !log {
            return Ok(());
        }
        let mut scalars = vec![
            ("reduced_train_loss", metrics.loss),
            ("lr", metrics.lr),
            ("global_step", metrics.step as f64),
            ("consumed_samples", metrics.consumed_samples as f64),
            ("epoch", metrics.epoch as f64),
            ("grad_norm", metrics.grad_norm),
            ("train_step_timing in s", metrics.step_seconds),
            ("tokens_per_second", metrics.tokens_per_second()),
        ];
        scalars.extend(metrics.loss_scale.map(|scale| ("loss_scale", scale)));
        self.scalars(metrics.step, scalars)
    }

    fn validation(&mut self, metrics: &ValidationMetrics) -> Result<()> {
        let scores = metrics.scores.iter();
        let scores = scores.map(|(name, score)| (name.as_str(), *score));
        let all = [
            ("val_loss", metrics.val_loss),
            ("validation_step_timing in s", metrics.validation_seconds),
        ];
        self.scalars(metrics.step, all.into_iter().chain(scores))
    }

    fn persist(&mut self) -> Result<()> {
        self.file
            .sync_data()
            .with_context(|| format!("writing {}", self.path.display()))
    }
}

/// Fields of `Event`.
const WALL_TIME: u64 = 1;
const STEP: u64 = 2;
const FILE_VERSION: u64 = 3;
const SUMMARY: u64 = 5;
const SESSION_LOG: u64 = 7;
/// A `SessionLog` whose `status` (field 1, a number) is `START`.
const START_OF_SESSION: [u8; 2] = [1 << 3, 1];
/// Kinds of fields.
const NUMBER: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const BYTES: u64 = 2;
const FOUR_BYTES: u64 = 5;

/// The bytes of a message.
struct Event {
    bytes: Vec<u8>,
}

impl Event {
    fn new(wall_time: f64, step: u64) -> Self {
        let mut event = Self { bytes: vec![] };
        event.number(WALL_TIME << 3 | EIGHT_BYTES);
        event.bytes.extend(wall_time.to_le_bytes());
        event.number(STEP << 3 | NUMBER);
        event.number(step);
        event
    }

    fn text(self, field: u64, text: &str) -> Self {
        self.message(field, text.as_bytes())
    }

    fn message(mut self, field: u64, bytes: &[u8]) -> Self {
        self.number(field << 3 | BYTES);
        self.number(bytes.len() as u64);
        self.bytes.extend(bytes);
        self
    }

    /// A `Summary` of one `Value`: `tag` (field 1) and `simple_value` (field 2).
    fn scalar(self, tag: &str, value: f64) -> Self {
        let mut inner = Self { bytes: vec![] }.text(1, tag);
        inner.number(2 << 3 | FOUR_BYTES);
        inner.bytes.extend((value as f32).to_le_bytes());
        let summary = Self { bytes: vec![] }.message(1, &inner.bytes);
        self.message(SUMMARY, &summary.bytes)
    }

    /// A number in groups of seven bits, the lowest first.
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

/// A message as it stands in the file.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(bytes.len() + 16);
    record.extend(length);
    record.extend(masked_checksum(&length).to_le_bytes());
    record.extend(bytes);
    record.extend(masked_checksum(bytes).to_le_bytes());
    record
}

/// A checksum that is not the checksum of data which hold it: turned by 15 bits, and a constant added.
fn masked_checksum(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 by Castagnoli's polynomial, its bits in reverse (RFC 3720, B.4).
fn crc32c(bytes: &[u8]) -> u32 {
    let turned = bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            let carry = if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
            sum >> 1 ^ carry
        })
    });
    !turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&rising), 0x46dd_794e);
    }

    /// The records of a file, their checksums looked at.
    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = vec![];
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let checksum = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            assert_eq!(checksum(8), masked_checksum(&bytes[..8]));
            let data = &bytes[12..12 + length];
            assert_eq!(checksum(12 + length), masked_checksum(data));
            found.push(data.to_vec());
            bytes = &bytes[16 + length..];
        }
        found
    }

    #[test]
    fn events_are_the_bytes_that_tensorboards_own_writer_gives() {
        // event_pb2.Event(wall_time=1.5, step=300, summary=Summary(value=[Summary.Value(tag="val_loss",
        // simple_value=0.25)])).SerializeToString() of tensorboard 2.21
        let event = Event::new(1.5, 300).scalar("val_loss", 0.25);
        let expected: &[u8] = b"\x09\x00\x00\x00\x00\x00\x00\xf8\x3f\x10\xac\x02\x2a\x11\x0a\x0f\x0a\x08val_loss\x15\x00\x00\x80\x3e";
        assert_eq!(event.bytes, expected);
    }

    #[test]
    fn a_run_that_goes_on_writes_a_second_file_that_says_from_where() {
        let folder = tempfile::tempdir().unwrap();
        let files = || -> Vec<PathBuf> {
            let entries = fs_err::read_dir(folder.path()).unwrap();
            let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
            paths.sort();
            paths
        };
        let mut sink = TensorBoard::create(folder.path(), 0).unwrap();
        sink.validation(&ValidationMetrics {
            step: 3,
            val_loss: 0.5,
            scores: [("val_f1".to_owned(), 61.0)].into_iter().collect(),
            validation_seconds: 0.1,
            best: true,
        })
        .unwrap();
        sink.finish().unwrap();
        let found = records(&fs_err::read(&files()[0]).unwrap());
        assert_eq!(found.len(), 4);
        assert!(found[0].ends_with(b"brain.Event:2"));
        assert!(found[3].windows(6).any(|bytes| bytes == b"val_f1"));
        drop(TensorBoard::create(folder.path(), 3).unwrap());
        assert_eq!(files().len(), 2);
        let all: Vec<Vec<Vec<u8>>> = files()
            .iter()
            .map(|path| records(&fs_err::read(path).unwrap()))
            .collect();
        let resumed = all.iter().find(|records| records.len() == 2).unwrap();
        assert!(
            resumed[1].ends_with(&[0x10, 4, 0x3a, 2, 8, 1]),
            "{resumed:?}"
        );
    }
}
