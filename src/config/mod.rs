//! Hydra composition: the only place that knows what `defaults:` means.
//!
//! [`compose`] reads the primary file of a [`ConfigRepository`], follows its defaults list, applies the words of the
//! command line and gives a [`Config`], in which `${…}` still stands. [`Config::resolve`] gives a [`ResolvedConfig`],
//! in which none is left; only that type can be turned into typed sections, so nothing reads `${…}` by accident.
//! Names and rules follow Hydra 1.3 and OmegaConf 2.3.

mod apply;
mod compose;
pub mod defaults_list;
pub mod diff;
pub mod explain;
mod hydra_conf;
mod hydra_schema;
mod info;
pub mod interpolation;
mod lexemes;
mod merge;
pub mod override_grammar;
mod python_package;
mod report;
mod repository;
mod resolved;

pub(crate) use compose::sweep_words;
pub use compose::{
    ComposeOptions, ComposeRequest, Config, ConfigPart, compose, compose_with, integer,
    list_defaults, plan, search_path_entry, searched,
};
pub use info::{InfoPart, defaults_list_text, defaults_tree_text, plugins_text};
pub(crate) use report::together;
pub use repository::{ConfigRepository, ConfigSource, SearchPathEntry, check_texts, load_text};
pub use resolved::ResolvedConfig;
