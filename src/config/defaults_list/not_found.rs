//! Messages for files that are not there.

use super::Builder;
use super::entry::InputDefault;
use crate::config::repository::{SearchPathEntry, placed};
use crate::diag::Diagnostic;
use crate::diag::suggest::did_you_mean;

impl Builder<'_> {
    pub(super) fn not_found(&self, node: &InputDefault, parent: Option<&str>) -> Diagnostic {
        let path = node.config_path();
        let refused = |title: String| {
            placed(
                Diagnostic::configuration(title).code("MissingConfigException"),
                node.origin,
                self.texts,
            )
        };
        if node.primary {
            let mut diagnostic = refused(format!("there is no primary configuration `{path}`"));
            let group = node.group_path();
            let options = self.repository.options(&group);
            let last = path.rsplit('/').next().unwrap_or(&path);
            if let Some(near) = did_you_mean(last, options.iter().map(String::as_str)) {
                diagnostic = diagnostic.hint(format!("did you mean `--config-name={near}`?"));
            }
            return self.with_search_path(diagnostic);
        }
        let Some(_) = &node.group else {
            let mut diagnostic = refused(format!(
                "there is no file `{path}`, which the defaults list of `{}` names",
                parent.unwrap_or("<root>")
            ));
            let (folder, last) = path.rsplit_once('/').unwrap_or(("", &path));
            let options = self.repository.options(folder);
            if !options.is_empty() {
                diagnostic = diagnostic.note(format!("there are: {}", options.join(", ")));
            }
            if let Some(near) = did_you_mean(last, options.iter().map(String::as_str)) {
                diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
            }
            return self.with_search_path(diagnostic);
        };
        let group = node.group_path();
        let name = node.name().unwrap_or("");
        let mut diagnostic = refused(format!("the group `{group}` has no option `{name}`"));
        let options = self.repository.options(&group);
        let deeper: Vec<String> = self
            .repository
            .groups(&group)
            .iter()
            .flat_map(|folder| {
                let options = self.repository.options(&format!("{group}/{folder}"));
                options
                    .into_iter()
                    .map(move |option| format!("{folder}/{option}"))
                    .collect::<Vec<_>>()
            })
            .collect();
        let all: Vec<&str> = options.iter().chain(&deeper).map(String::as_str).collect();
        if !all.is_empty() {
            diagnostic = diagnostic.note(format!("options of `{group}`: {}", shortened(&all)));
        }
        if let Some(near) = did_you_mean(name, all.iter().copied()) {
            diagnostic = diagnostic.hint(format!("did you mean `{group}={near}`?"));
        }
        self.with_search_path(diagnostic)
    }

    fn with_search_path(&self, diagnostic: Diagnostic) -> Diagnostic {
        let places: Vec<String> = self
            .repository
            .entries()
            .iter()
            .filter(|entry| entry.scheme == "file")
            .map(|entry: &SearchPathEntry| entry.path.clone())
            .collect();
        diagnostic.note(format!("looked in: {}", places.join(", ")))
    }
}

/// At most twelve names.
pub(crate) fn shortened(names: &[&str]) -> String {
    const SHOWN: usize = 12;
    if names.len() <= SHOWN {
        names.join(", ")
    } else {
        format!(
            "{}, … and {} more",
            names[..SHOWN].join(", "),
            names.len() - SHOWN
        )
    }
}
