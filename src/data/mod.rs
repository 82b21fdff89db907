//! Text files to batches: [`jsonl`] rows become [`dataset::Example`]s, a [`sampler::Sampler`] orders them, and
//! [`collate`] packs them.
//!
//! What is wrong in the data is an error with file and line before the first step; what is only too long is cut or
//! left out, counted and listed in a [`dataset::SkipReport`]. Nothing is passed over in silence.

pub mod cache;
pub mod collate;
pub mod dataset;
pub mod jsonl;
pub mod sampler;

pub use cache::RowCache;
pub use collate::Batch;
pub use dataset::{Architecture, Dataset, DatasetOptions, Example, SkipReport};
pub use sampler::Sampler;
