//! What we say when something is wrong.
//!
//! A [`Diagnostic`] is an error made for the person at the keyboard: what was found, where, what was expected, and a
//! line they can paste. It travels inside `anyhow::Error`; `main` finds it there, prints it, and takes the exit status
//! from its [`Class`].

pub mod checklist;
pub mod excerpt;
pub mod source;
pub mod suggest;

use std::fmt;

/// Whose mistake it is, which decides the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The command line or the configuration is wrong: exit status 2.
    Configuration,
    /// The configuration is fine and the job failed, for example on a row of its data: exit status 1.
    Job,
}

/// A place in a file or on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Path as the user would type it, or `<command line>`.
    pub source: String,
    /// Line, from 1.
    pub line: Option<usize>,
    /// Column in characters, from 1.
    pub column: Option<usize>,
}

impl Location {
    /// A file without a line.
    pub fn file(source: impl fmt::Display) -> Self {
        Self {
            source: source.to_string(),
            line: None,
            column: None,
        }
    }

    /// A line of a file, counted from 1.
    pub fn line(source: impl fmt::Display, line: usize) -> Self {
        Self {
            source: source.to_string(),
            line: Some(line),
            column: None,
        }
    }

    /// A character of a file, line and column counted from 1.
    pub fn column(source: impl fmt::Display, line: usize, column: usize) -> Self {
        Self {
            source: source.to_string(),
            line: Some(line),
            column: Some(column),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(column) = self.column {
            write!(f, ":{column}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong, told to its user.
///
/// Voice: the title starts in lower case, has no final full stop, and puts literals in backticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Decides the exit status.
    pub class: Class,
    /// What was found, in one line.
    pub title: String,
    /// Name under which Hydra and OmegaConf know this mistake (`MissingConfigException`), where they do; not shown.
    pub code: Option<&'static str>,
    /// Where, most telling first.
    pub locations: Vec<Location>,
    /// An excerpt already drawn (lines with a caret), or nothing.
    pub excerpt: Option<String>,
    /// What was expected, and other facts.
    pub notes: Vec<String>,
    /// What to do; something to paste where possible.
    pub hints: Vec<String>,
}

impl Diagnostic {
    /// A mistake on the command line or in the configuration (exit status 2).
    pub fn configuration(title: impl Into<String>) -> Self {
        Self::new(Class::Configuration, title.into())
    }

    /// A job that cannot go on (exit status 1).
    pub fn job(title: impl Into<String>) -> Self {
        Self::new(Class::Job, title.into())
    }

    fn new(class: Class, title: String) -> Self {
        Self {
            class,
            title,
            code: None,
            locations: vec![],
            excerpt: None,
            notes: vec![],
            hints: vec![],
        }
    }

    /// Says which exception Hydra or OmegaConf raises here.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// Adds a place.
    #[must_use]
    pub fn at(mut self, location: Location) -> Self {
        self.locations.push(location);
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds the first ten of `facts`, and how many more there are.
    #[must_use]
    pub fn first_notes<T: Into<String>>(mut self, facts: impl IntoIterator<Item = T>) -> Self {
        const SHOWN: usize = 10;
        let mut facts = facts.into_iter();
        self.notes
            .extend(facts.by_ref().take(SHOWN).map(Into::into));
        match facts.count() {
            0 => self,
            more => self.note(format!("… and {more} more")),
        }
    }

    /// Adds advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)?;
        for location in &self.locations {
            write!(f, "\n  --> {location}")?;
        }
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{}", excerpt.trim_end())?;
        }
        for note in &self.notes {
            write!(f, "\n  = {note}")?;
        }
        if !self.hints.is_empty() {
            writeln!(f)?;
        }
        for hint in &self.hints {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_shows_title_place_notes_and_hints_in_that_order() {
        let diagnostic = Diagnostic::configuration("unknown key `lrr`")
            .at(Location::column("conf/config.yaml", 3, 7))
            .note("expected one of: lr, sched")
            .hint("did you mean `lr`?");
        assert_eq!(
            diagnostic.to_string(),
            "unknown key `lrr`\n  --> conf/config.yaml:3:7\n  = expected one of: lr, sched\n\n\
             hint: did you mean `lr`?"
        );
    }
}
