//! What was looked at before a job runs: one line for each thing, and beside it what would stop the job.

use std::fmt;

use super::Diagnostic;

/// Width of the column of names.
const COLUMN: usize = 16;

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As it should be.
    Good,
    /// The job runs with it, though perhaps not as its user means.
    Odd,
    /// The job would fail.
    Bad,
    /// Not looked at; the line says why.
    Unchecked,
}

impl Standing {
    /// Four letters at the beginning of the line; the eye should find what is not in order.
    fn mark(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Odd => "ODD",
            Self::Bad => "BAD",
            Self::Unchecked => "-",
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// How it stands.
    pub standing: Standing,
    /// What was looked at; empty to go on with the item before.
    pub name: String,
    /// What was found.
    pub text: String,
}

/// The lines of one job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checklist {
    /// Which job.
    pub title: String,
    /// Its lines, in order.
    pub items: Vec<Item>,
    /// What would stop the job, in the order of the [`Standing::Bad`] lines.
    pub problems: Vec<Diagnostic>,
}

impl Checklist {
    /// No line yet.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            ..Self::default()
        }
    }

    fn add(&mut self, standing: Standing, name: &str, text: impl Into<String>) {
        self.items.push(Item {
            standing,
            name: name.to_owned(),
            text: text.into(),
        });
    }

    /// Something is as it should be.
    pub fn good(&mut self, name: &str, text: impl Into<String>) {
        self.add(Standing::Good, name, text);
    }

    /// Something is odd and stops nothing.
    pub fn odd(&mut self, name: &str, text: impl Into<String>) {
        self.add(Standing::Odd, name, text);
    }

    /// Something was not looked at, for this reason.
    pub fn unchecked(&mut self, name: &str, reason: impl Into<String>) {
        self.add(Standing::Unchecked, name, reason);
    }

    /// Something would stop the job. The line has the title, and the whole of it is told with all other problems.
    pub fn bad(&mut self, name: &str, problem: Diagnostic) {
        self.add(Standing::Bad, name, problem.title.clone());
        self.problems.push(problem);
    }

    /// The same of an error that may carry a [`Diagnostic`].
    pub fn failed(&mut self, name: &str, error: &anyhow::Error) {
        let problem = match error.downcast_ref::<Diagnostic>() {
            Some(diagnostic) => diagnostic.clone(),
            None => Diagnostic::job(format!("{error:#}").replace('\n', " ")),
        };
        self.bad(name, problem);
    }
}

impl fmt::Display for Checklist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        for item in &self.items {
            let mark = if item.name.is_empty() && item.standing == Standing::Good {
                ""
            } else {
                item.standing.mark()
            };
            writeln!(f, "  {mark:3}  {:COLUMN$}  {}", item.name, item.text)?;
        }
        Ok(())
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_begins_with_how_it_stands_and_problems_are_kept_whole() {
        let mut list = Checklist::new("a job");
        list.good("paths", "2 there");
        list.good("", "one more thing");
        list.unchecked("model", "not here");
        list.bad("rows", Diagnostic::job("no rows").hint("write some"));
        assert_eq!(
            list.to_string(),
            "a job\n  ok   paths             2 there\n                         one more thing\n  \
             -    model             not here\n  BAD  rows              no rows\n"
        );
        assert_eq!(list.problems[0].hints, ["write some"]);
    }
}
