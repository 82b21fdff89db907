//! YAML as OmegaConf reads and writes it: PyYAML's YAML 1.1 with OmegaConf's own float rule, positions on every value.
//!
//! Not for YAML in general: one document, no directives beyond what PyYAML accepts, no timestamps, no sets.

mod node;

pub use node::{Integer, Key, MISSING, Mapping, Node, Value};
