//! Hydra composition: the only place that knows what `defaults:` means.
//!
//! [`compose`] reads the primary file of a [`ConfigRepository`], follows its defaults list, applies the words of the
//! command line and gives a [`Config`], in which `${…}` still stands. [`Config::resolve`] gives a [`ResolvedConfig`],
//! in which none is left; only that type can be turned into typed sections, so nothing reads `${…}` by accident.
//! Names and rules follow Hydra 1.3 and OmegaConf 2.3.

mod composed;
mod repository;
mod resolved;

pub use composed::{ComposeRequest, Config, compose};
pub use repository::{ConfigRepository, ConfigSource};
pub use resolved::ResolvedConfig;
