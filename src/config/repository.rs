//! Configuration files: where they are looked for, and what has been read already.

use std::path::PathBuf;

use crate::diag::source::SourceMap;

/// One entry of the search path.
#[derive(Clone, Debug)]
pub enum ConfigSource {
    /// A folder of YAML files.
    Folder(PathBuf),
    /// Files that are part of the binary: path relative to the root with its `.yaml`, and text.
    Embedded(&'static [(&'static str, &'static str)]),
}

/// The search path, first match wins, and a cache of what was read.
#[derive(Debug)]
pub struct ConfigRepository {
    pub(crate) sources: Vec<ConfigSource>,
    pub(crate) texts: SourceMap,
}

impl ConfigRepository {
    /// A repository over a search path.
    pub fn new(sources: Vec<ConfigSource>) -> Self {
        Self {
            sources,
            texts: SourceMap::new(),
        }
    }

    /// The search path.
    pub fn sources(&self) -> &[ConfigSource] {
        &self.sources
    }

    /// The texts that were read, for messages.
    pub fn texts(&self) -> &SourceMap {
        &self.texts
    }
}
