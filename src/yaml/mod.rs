//! YAML as OmegaConf reads and writes it: PyYAML's YAML 1.1 with OmegaConf's own float rule, positions on every value.
//!
//! Not for YAML in general: one document, no timestamps, no sets, no Python objects. The scanner and the parser are
//! our own because the crates read YAML 1.2: they accept texts that PyYAML refuses, and the other way round.

mod base64;
mod emit;
mod error;
mod node;
pub mod python_text;
pub mod scalar;
mod scanner;
mod tree;

pub use emit::to_yaml;
pub use error::{YamlError, YamlErrorKind};
pub use node::{Integer, Key, MISSING, Mapping, Node, Value};
pub use tree::parse;
