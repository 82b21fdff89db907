//! The `defaults:` key to entries.

use super::Build;
use super::entry::{Choice, InputDefault};
use crate::config::repository::placed;
use crate::diag::Diagnostic;
use crate::diag::source::{Origin, SourceMap};
use crate::yaml::python_text::{key_text, repr_of, str_of};
use crate::yaml::{Node, Value};

pub(super) fn parse_list(
    defaults: &Node,
    path: &str,
    texts: &SourceMap,
) -> Build<Vec<InputDefault>> {
    let wrong = |node: &Node, title: String| {
        placed(Diagnostic::configuration(title), node.origin, texts).code("ValueError")
    };
    let Value::List(items) = &defaults.value else {
        return Err(wrong(
            defaults,
            format!("`defaults` of `{path}` must be a list"),
        ));
    };
    let mut list = vec![];
    for item in items {
        list.push(match &item.value {
                Value::Str(text) => parse_file_entry(text, item.origin)
                    .map_err(|message| wrong(item, format!("in `{path}`: {message}")))?,
                Value::Map(mapping) => {
                    let Some((key, value)) = mapping.first() else {
                        return Err(wrong(item, format!("in `{path}`: an entry of the defaults list is empty")));
                    };
                    if mapping.len() > 1 {
                        return Err(wrong(
                            item,
                            format!(
                                "in `{path}`: an entry of the defaults list has {} keys: {}",
                                mapping.len(),
                                repr_of(item)
                            ),
                        ));
                    }
                    let choice = match &value.value {
                        Value::Null => Choice::Null,
                        Value::Str(text) => Choice::One(text.clone()),
                        Value::List(options) => Choice::Several(
                            options
                                .iter()
                                .map(|option| match &option.value {
                                    Value::Str(text) => Ok(text.clone()),
                                    _ => Err(wrong(
                                        option,
                                        format!("in `{path}`: an option must be a text: quote `{}`", str_of(option)),
                                    )),
                                })
                                .collect::<Build<_>>()?,
                        ),
                        _ => {
                            return Err(wrong(
                                value,
                                format!("in `{path}`: an option must be a text, a list of texts, or null: quote `{}`", str_of(value)),
                            ));
                        }
                    };
                    parse_group_entry(&key_text(key), choice, value.origin)
                }
                _ => {
                    return Err(wrong(
                        item,
                        format!("in `{path}`: an entry of the defaults list must be a text or `group: option`"),
                    ));
                }
            });
    }
    Ok(list)
}

fn split_package(key: &str) -> (&str, Option<String>) {
    let Some((path, package)) = key.split_once('@') else {
        return (key, None);
    };
    // An old form, `@package:other`, renamed a package; the second part has no meaning now.
    let package = package.split(':').next().unwrap_or(package);
    let package = if package == "_here_" { "" } else { package };
    (path, Some(package.to_owned()))
}

fn parse_file_entry(text: &str, origin: Origin) -> Result<InputDefault, String> {
    let (path, package) = split_package(text);
    if path == "_self_" && package.is_some() {
        return Err("`_self_` cannot have a package".to_owned());
    }
    let mut entry = InputDefault::file(path, origin);
    entry.package = package;
    Ok(entry)
}

fn parse_group_entry(key: &str, choice: Choice, origin: Origin) -> InputDefault {
    let words: Vec<&str> = key.split(' ').collect();
    let mut entry = InputDefault::file("", origin);
    let last = words.len() - 1;
    for word in &words[..last] {
        match *word {
            "optional" => entry.optional = true,
            "override" => entry.is_override = true,
            _ => break,
        }
    }
    let (group, package) = split_package(words[last]);
    entry.group = Some(group.to_owned());
    entry.choice = choice;
    entry.package = package;
    entry
}
