//! Text to text, without tensors: data files as they are published become the jsonl rows that tuning reads. Runs as a
//! job of its own or on the machine that launches.

#[cfg(feature = "hub")]
mod download;
mod python_json;
mod squad;

pub use squad::{Prepared, can_download, run, squad_in_place};
