//! A command line that is not finished: which of its words choose the configuration and which options stand between
//! them. Nothing is refused here, unlike in the parser of whole command lines.

use crate::application::arguments::{SPECS, Takes};

/// Name, short name and kind of every option of Hydra.
pub(super) fn hydra_options() -> Vec<(&'static str, &'static str, Takes)> {
    SPECS
        .iter()
        .map(|spec| {
            let short = spec.names.get(1).copied().unwrap_or_default();
            (spec.names[0], short, spec.takes)
        })
        .collect()
}

/// What the words of a line are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Line<'t> {
    /// The words that choose and change the configuration.
    pub(super) words: Vec<String>,
    /// The options with their values, by their long names.
    pub(super) options: Vec<(&'t str, String)>,
    /// The option whose value the next word is.
    pub(super) open: Option<&'t str>,
    /// `--` was there: no options follow.
    pub(super) only_words: bool,
}

/// Long name, short name (or nothing) and kind.
pub(super) type Table<'t> = &'t [(&'t str, &'t str, Takes)];

impl<'t> Line<'t> {
    /// Sorts words as argparse does: `--` ends the options, a short option may be glued to its value, and a long one may
    /// be cut short as long as it is clear.
    pub(super) fn of<'w>(words: impl IntoIterator<Item = &'w str>, table: Table<'t>) -> Self {
        let mut line = Self::default();
        for word in words {
            let open = line.open.take();
            if line.only_words || !is_option(word) {
                match open {
                    Some(name) => {
                        // The value of `--info` that was there at once is empty.
                        line.options
                            .retain(|(given, value)| *given != name || !value.is_empty());
                        line.options.push((name, word.to_owned()));
                    }
                    None => line.words.push(word.to_owned()),
                }
            } else if word == "--" {
                line.only_words = true;
            } else {
                line.option(word, table);
            }
        }
        line
    }

    fn option(&mut self, word: &str, table: Table<'t>) {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        if let Some((long, takes)) = named(name, table) {
            match (value, takes) {
                (Some(value), _) => self.options.push((long, value.to_owned())),
                (None, Takes::Nothing) => self.options.push((long, String::new())),
                (None, Takes::One) => self.open = Some(long),
                (None, Takes::OneOrNothing) => {
                    self.options.push((long, String::new()));
                    self.open = Some(long);
                }
            }
        } else if !word.starts_with("--")
            && let Some(short) = word.get(..2)
            && let Some((long, _, takes)) = table.iter().find(|(_, name, _)| *name == short)
        {
            let value = if *takes == Takes::Nothing {
                ""
            } else {
                &word[2..]
            };
            self.options.push((long, value.to_owned()));
        }
    }

    /// The last value of an option.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let (_, value) = self
            .options
            .iter()
            .rev()
            .find(|(given, _)| *given == name)?;
        Some(value)
    }

    /// Whether an option was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }
}

/// An option by its name, its short name, or a beginning of its name that no other has.
pub(super) fn named<'t>(name: &str, table: Table<'t>) -> Option<(&'t str, Takes)> {
    let mut fitting = vec![];
    for (long, short, takes) in table {
        if name == *long || (name == *short && !short.is_empty()) {
            return Some((long, *takes));
        }
        if name.starts_with("--") && long.starts_with(name) {
            fitting.push((*long, *takes));
        }
    }
    match fitting[..] {
        [one] => Some(one),
        _ => None,
    }
}

/// Whether argparse takes a word for an option: a dash in front, no blank in it, and not a negative number.
fn is_option(word: &str) -> bool {
    let Some(rest) = word.strip_prefix('-') else {
        return false;
    };
    let (whole, fraction) = match rest.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (rest, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = match fraction {
        None => !whole.is_empty() && digits(whole),
        Some(fraction) => !fraction.is_empty() && digits(whole) && digits(fraction),
    };
    !rest.is_empty() && !is_number && !word.contains(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_told_from_words_as_argparse_does() {
        let words = [
            "-m",
            "--config-na",
            "types",
            "a=1",
            "-cjob",
            "-1",
            "--pack=x",
            "-i",
        ];
        let options = hydra_options();
        let line = Line::of(words, &options);
        assert_eq!(line.words, ["a=1", "-1"]);
        assert_eq!(line.value("--config-name"), Some("types"));
        assert_eq!(line.value("--cfg"), Some("job"));
        assert_eq!(line.value("--package"), Some("x"));
        assert!(line.has("--multirun"));
        assert_eq!(line.open, Some("--info"));
        let line = Line::of(["--conf", "a=1", "--", "-m"], &options);
        assert_eq!(line.words, ["a=1", "-m"]);
        assert!(line.options.is_empty());
    }
}
