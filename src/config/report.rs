//! Several problems in one message, in the order in which Hydra would meet them.

use std::fmt::Write;

use crate::diag::Diagnostic;

/// Problems shown in full.
const SHOWN: usize = 10;

/// What is wrong with a request, gathered over the steps of its composition.
///
/// Hydra stops at the first problem. Here a step that can go on without the word or the file in question does so, and
/// the problems of all steps are one message, whose code is that of the first: the one that Hydra would raise.
#[derive(Debug, Default)]
pub(crate) struct Report {
    problems: Vec<Diagnostic>,
    /// First parts of the keys about which nothing certain can be said any more.
    left_out: Vec<String>,
}

impl Report {
    /// Adds a problem.
    pub(crate) fn add(&mut self, problem: Diagnostic) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Adds the problems of a step that met them in an order which is not that of the files.
    pub(crate) fn add_all(&mut self, problems: Vec<Diagnostic>, shown_from_last: bool) {
        let code = problems.first().and_then(|problem| problem.code);
        let start = self.problems.len();
        for problem in problems {
            self.add(problem);
        }
        if shown_from_last {
            self.problems[start..].reverse();
            if let Some(first) = self.problems.get_mut(start) {
                first.code = code;
            }
        }
    }

    /// Whether something is wrong.
    pub(crate) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// What is below this key or group is not known: messages about it would mislead.
    pub(crate) fn leave_out(&mut self, key: &str) {
        self.left_out.push(first_part(key).to_owned());
    }

    /// Whether a message about this key would be certain.
    pub(crate) fn is_certain(&self, key: &str) -> bool {
        !self.left_out.iter().any(|part| part == first_part(key))
    }

    /// All problems as one, else what the steps made. A step that could not be done at all counts only where nothing
    /// before it was wrong: it may be a consequence.
    pub(crate) fn finish<T>(self, made: Result<T, Diagnostic>) -> Result<T, Diagnostic> {
        match together(self.problems) {
            Some(diagnostic) => Err(diagnostic),
            None => made,
        }
    }
}

fn first_part(key: &str) -> &str {
    let key = key.trim_start_matches(['+', '~', '/']);
    key.split(['.', '/', '@', '=']).next().unwrap_or(key)
}

/// One diagnostic for all problems; nothing where there is none.
pub(crate) fn together(mut problems: Vec<Diagnostic>) -> Option<Diagnostic> {
    if problems.len() <= 1 {
        return problems.pop();
    }
    let mut all = Diagnostic::configuration(format!("{} problems", problems.len()));
    all.code = problems.first().and_then(|problem| problem.code);
    // What is said of each word need not be said again.
    let shared: Vec<String> = match &problems[..] {
        [first, rest @ ..] => first
            .notes
            .iter()
            .filter(|note| rest.iter().all(|problem| problem.notes.contains(note)))
            .cloned()
            .collect(),
        [] => vec![],
    };
    let mut drawn = String::new();
    for problem in problems.iter_mut().take(SHOWN) {
        problem.notes.retain(|note| !shared.contains(note));
        let text = problem.to_string().replace("\n\nhint: ", "\nhint: ");
        let _ = write!(drawn, "\n\n- {}", text.replace("\nhint: ", "\n  hint: "));
    }
    if problems.len() > SHOWN {
        let _ = write!(drawn, "\n\n… and {} more", problems.len() - SHOWN);
    }
    all.excerpt = Some(drawn.trim_start_matches('\n').to_owned());
    all.notes = shared;
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(title: &str, code: &'static str) -> Diagnostic {
        Diagnostic::configuration(title).code(code)
    }

    #[test]
    fn one_problem_is_told_as_it_is_and_several_are_one_message_with_the_first_code() {
        let mut report = Report::default();
        report.add(problem("a", "A"));
        assert_eq!(report.finish(Ok(1)).unwrap_err().title, "a");

        let mut report = Report::default();
        report.add_all(vec![problem("late", "L"), problem("early", "E")], true);
        report.add(problem("last", "Z"));
        let all = report.finish(Ok(1)).unwrap_err();
        assert_eq!(all.code, Some("L"));
        let text = all.to_string();
        assert!(
            text.find("early").unwrap() < text.find("late").unwrap(),
            "{text}"
        );
        assert_eq!(all.title, "3 problems");
    }

    #[test]
    fn nothing_is_said_about_what_is_left_out() {
        let mut report = Report::default();
        report.leave_out("+db/mysql=x");
        assert!(!report.is_certain("db.host"));
        assert!(report.is_certain("dbs.host"));
    }
}
