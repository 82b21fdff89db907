//! Several problems of one kind in one message.

use std::fmt::Write;

use crate::diag::Diagnostic;

/// Problems shown in full.
const SHOWN: usize = 10;

/// One diagnostic for all problems; nothing where there is none.
pub(crate) fn together(mut problems: Vec<Diagnostic>) -> Option<Diagnostic> {
    if problems.len() <= 1 {
        return problems.pop();
    }
    let mut all = Diagnostic::configuration(format!("{} problems", problems.len()));
    all.code = problems.first().and_then(|problem| problem.code);
    let mut drawn = String::new();
    for problem in problems.iter().take(SHOWN) {
        let _ = write!(
            drawn,
            "\n- {}",
            problem
                .to_string()
                .replace("\n\nhint: ", "\nhint: ")
                .replace("\nhint: ", "\n  hint: ")
        );
    }
    if problems.len() > SHOWN {
        let _ = write!(drawn, "\n… and {} more", problems.len() - SHOWN);
    }
    all.excerpt = Some(drawn.trim_start_matches('\n').to_owned());
    Some(all)
}
