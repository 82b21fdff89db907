//! Text to text, without tensors: data files as they are published become the jsonl rows that tuning reads. Runs as a
//! job of its own or on the machine that launches.

mod python_json;
mod squad;

pub use squad::{Prepared, run, squad_in_place};
