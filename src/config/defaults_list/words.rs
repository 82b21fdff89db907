//! Words of the command line that choose, add or delete options of groups, and whether each found its group.

use super::entry::{Choice, InputDefault};
use super::{Build, Builder, ChoiceOverride, Deletion, refused};
use crate::config::override_grammar::{Element, Override, OverrideKind};
use crate::config::report::Report;
use crate::config::repository::placed;
use crate::diag::Diagnostic;
use crate::diag::source::Origin;

impl Builder<'_> {
    /// Words about groups are taken here, the others are left for later.
    pub(super) fn sort_words(&mut self, report: &mut Report) {
        let words = self.words;
        for (index, (word, origin)) in words.iter().enumerate() {
            let is_value = matches!(word.element(), Some(Element::Dict(_)))
                || !self.repository.has_group(&word.key);
            if word.is_sweep() {
                continue;
            }
            if is_value {
                self.value_overrides.push(index);
            } else if let Err(problem) = self.take_word(index, word, *origin) {
                report.add(self.at_word(index, problem));
                report.leave_out(&word.key);
            }
        }
    }

    fn take_word(&mut self, index: usize, word: &Override, origin: Origin) -> Build<()> {
        let value = word.element();
        let key = word.key_and_package();
        if word.kind == OverrideKind::ForceAdd {
            return Err(refused(format!(
                "`{}`: `++` works on values, and `{}` is a group",
                word.input, word.key
            ))
            .hint(format!(
                "write `{key}={0}` to change the choice, or `+{key}={0}` to add one",
                written(value)
            )));
        }
        let option = |element: &Element| match element.as_text() {
            Some(text) => Ok(text.to_owned()),
            None => Err(not_an_option(&word.key, element)),
        };
        if word.kind == OverrideKind::Delete {
            let name = match value {
                None | Some(Element::Null) => None,
                Some(element) => Some(option(element)?),
            };
            let deletion = Deletion {
                name,
                used: false,
                word: index,
            };
            self.deletions.insert(key, deletion);
            return Ok(());
        }
        let choice = match value {
            Some(Element::List(items)) => {
                Choice::Several(items.iter().map(option).collect::<Build<_>>()?)
            }
            Some(element) => Choice::One(option(element)?),
            None => return Ok(()),
        };
        if word.kind == OverrideKind::Add {
            let mut appended = InputDefault::file("", origin);
            appended.group = Some(word.key.clone());
            appended.choice = choice;
            appended.package.clone_from(&word.package);
            appended.external_append = true;
            self.appended.push(appended);
        } else {
            self.overrides.insert(
                key,
                ChoiceOverride {
                    choice,
                    asked_by: None,
                    used: false,
                    origin,
                },
            );
        }
        Ok(())
    }

    pub(super) fn check_used(&self, report: &mut Report) {
        for (key, entry) in &self.overrides {
            // What a file that is left out would have listed is not known.
            if entry.used || !report.is_certain(key) {
                continue;
            }
            let title = match &entry.asked_by {
                Some(path) => {
                    format!("in `{path}`: `override {key}` matches nothing in the defaults list")
                }
                None => format!("`{key}` is not in the defaults list"),
            };
            let mut diagnostic = placed(refused(title), entry.origin, self.texts);
            let group = key.split('@').next().unwrap_or(key);
            let mut near = self.keys_of_group.get(group).cloned().unwrap_or_default();
            near.sort();
            if !near.is_empty() {
                diagnostic = diagnostic.hint(format!(
                    "did you mean to override `{}`?",
                    near.join("` or `")
                ));
            }
            if entry.asked_by.is_none() {
                let value = match &entry.choice {
                    Choice::Null => "null".to_owned(),
                    Choice::One(name) => name.clone(),
                    Choice::Several(names) => format!("[{}]", names.join(",")),
                };
                diagnostic =
                    diagnostic.hint(format!("to add it to the list, write `+{key}={value}`"));
            }
            report.add(diagnostic);
        }
        for (key, deletion) in &self.deletions {
            if !deletion.used && report.is_certain(key) {
                let key = match &deletion.name {
                    Some(name) => format!("{key}={name}"),
                    None => key.clone(),
                };
                report.add(self.at_word(
                    deletion.word,
                    refused(format!("`~{key}` matches nothing in the defaults list")),
                ));
            }
        }
    }
}

fn written(value: Option<&Element>) -> String {
    value.map_or_else(|| "…".to_owned(), Element::to_word)
}

fn not_an_option(group: &str, element: &Element) -> Diagnostic {
    let shown = element.to_word();
    let diagnostic = Diagnostic::configuration(format!(
        "`{shown}` is not an option of the group `{group}`: options are texts"
    ))
    .code("ValueError");
    match element {
        Element::Null => diagnostic.hint(format!("to leave the group out, write `~{group}`")),
        _ => diagnostic.hint(format!("put quotes around it: `{group}='{shown}'`")),
    }
}
