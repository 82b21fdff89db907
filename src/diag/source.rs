//! Where text came from: the files that were read, the command line, and places in them.
//!
//! A [`SourceMap`] is a cheap handle; clones share one table that only grows. An [`Origin`] is small enough to sit on
//! every value of a configuration.

use std::sync::{Arc, Mutex, PoisonError};

use super::Location;

/// Name under which the words of the command line appear in messages.
pub const COMMAND_LINE: &str = "<command line>";

/// Number of a text in its [`SourceMap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub u32);

/// The place a value was written at; counted from 1, and 0 where nobody wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The text.
    pub source: SourceId,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Characters to underline.
    pub length: u32,
}

impl Origin {
    /// Of a value that the program made.
    pub const COMPUTED: Self = Self {
        source: SourceId(u32::MAX),
        line: 0,
        column: 0,
        length: 0,
    };

    /// Whether somebody wrote this value.
    pub fn is_written(self) -> bool {
        self.line > 0
    }
}

/// One text.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path as the user would type it, or [`COMMAND_LINE`].
    pub name: Arc<str>,
    /// The whole text.
    pub text: Arc<str>,
}

/// All texts of one composition.
#[derive(Clone, Debug, Default)]
pub struct SourceMap {
    sources: Arc<Mutex<Vec<Source>>>,
}

impl SourceMap {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text.
    pub fn add(&self, name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> SourceId {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.push(Source {
            name: name.into(),
            text: text.into(),
        });
        SourceId(u32::try_from(sources.len() - 1).unwrap_or(u32::MAX))
    }

    /// The text of a number that this table gave out.
    pub fn get(&self, id: SourceId) -> Option<Source> {
        self.sources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id.0 as usize)
            .cloned()
    }

    /// The place as a message shows it.
    pub fn location(&self, origin: Origin) -> Option<Location> {
        let source = self.get(origin.source)?;
        Some(if origin.is_written() {
            Location::column(&source.name, origin.line as usize, origin.column as usize)
        } else {
            Location::file(&source.name)
        })
    }

    /// `name:line` of a value, for listings; `None` where nobody wrote it.
    pub fn short_place(&self, origin: Origin) -> Option<String> {
        let source = self.get(origin.source)?;
        if &*source.name == COMMAND_LINE {
            return Some(COMMAND_LINE.to_owned());
        }
        Some(format!("{}:{}", source.name, origin.line))
    }
}
