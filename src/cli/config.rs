//! `ptune config explain KEY`: where a value comes from. `ptune config diff OLD NEW`: what differs.

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::Result;
use clap::Parser;
use serde_json::{Value as Json, json};

use super::arguments::{
    ComposeArguments, ConfigArguments, ConfigVerb, DiffArguments, SideArguments, with_long_options,
};
use super::launch::compose_words;
use crate::config::diff::{Difference, Put, Side, diff};
use crate::config::explain::nearest_key;
use crate::diag::Diagnostic;
use crate::sys::env_vars;
use crate::sys::shell_words::shell_words;
use crate::yaml::python_text::{key_text, str_of};
use crate::yaml::{Integer, Node, Value};

pub(super) fn run(arguments: &ConfigArguments) -> Result<i32> {
    match &arguments.verb {
        ConfigVerb::Explain { key, compose } => {
            let explanation = compose_words(compose)?.explain(key)?;
            write!(std::io::stdout().lock(), "{explanation}")?;
            Ok(0)
        }
        ConfigVerb::Diff(arguments) => compare(arguments),
    }
}

fn compare(arguments: &DiffArguments) -> Result<i32> {
    let files = (file_of(&arguments.old)?, file_of(&arguments.new)?);
    // What a stage wrote has its values filled in; a composition must have them too to be compared with it.
    let is_plain =
        |side: &Option<Side>| side.as_ref().is_some_and(|side| !side.has_interpolations());
    let resolve = arguments.resolve || is_plain(&files.0) || is_plain(&files.1);
    let mut sides = match files {
        (Some(old), Some(new)) => (old, new),
        (Some(old), None) => {
            let new = composed(&arguments.new, arguments, resolve, Some(&old))?;
            (old, new)
        }
        (None, Some(new)) => (
            composed(&arguments.old, arguments, resolve, Some(&new))?,
            new,
        ),
        (None, None) => (
            composed(&arguments.old, arguments, resolve, None)?,
            composed(&arguments.new, arguments, resolve, None)?,
        ),
    };
    if let Some(key) = &arguments.package {
        sides = (part(&sides.0, key)?, part(&sides.1, key)?);
    }
    let found = diff(&sides.0, &sides.1);
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let differences: Vec<Json> = found.iter().map(difference_json).collect();
        let (old, new) = (&sides.0.title, &sides.1.title);
        let all = json!({"old": old, "new": new, "differences": differences});
        writeln!(out, "{all:#}")?;
    } else {
        let colour = out.is_terminal() && env_vars::get(env_vars::NO_COLOR).is_none();
        for difference in &found {
            match colour_of(difference) {
                code if colour => writeln!(out, "\u{1b}[{code}m{difference}\u{1b}[0m")?,
                _ => writeln!(out, "{difference}")?,
            }
        }
    }
    Ok(i32::from(!found.is_empty()))
}

/// The side as a file, where it is the path of one.
fn file_of(text: &str) -> Result<Option<Side>> {
    let path = Path::new(text);
    let is_yaml = path
        .extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml");
    if path.is_file() || (is_yaml && !text.contains(['=', ' '])) {
        return Ok(Some(Side::file(path)?));
    }
    Ok(None)
}

/// The side as a composition; of one with the section that a file was taken from, only that section.
fn composed(
    text: &str,
    arguments: &DiffArguments,
    resolve: bool,
    file: Option<&Side>,
) -> Result<Side> {
    let words: Vec<String> = shell_words(text)
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect();
    let mut own = SideArguments::try_parse_from(with_long_options(&words))?.compose;
    if let [name] = own.words.as_slice()
        && !name.contains('=')
        && !name.starts_with('~')
    {
        own.config_name = own.words.remove(0);
    }
    let config = compose_words(&with_common(own, &arguments.common))?;
    let Some(file) = file.filter(|_| arguments.package.is_none()) else {
        return Ok(Side::composed(&config, text, resolve)?);
    };
    let Some(section) = Side::composed(&config, text, false)?.section_like(file.root()) else {
        return Ok(Side::composed(&config, text, resolve)?);
    };
    eprintln_note(&format!("`{}` is compared with `{section}`", file.title));
    Ok(Side::section(&config, text, &section, resolve)?)
}

fn eprintln_note(text: &str) {
    // Nowhere is left to say that standard error is closed.
    let _ = writeln!(std::io::stderr(), "note: {text}");
}

/// The options of a side go before the common ones, its words after them.
fn with_common(own: ComposeArguments, common: &ComposeArguments) -> ComposeArguments {
    let config_name = if own.config_name == ComposeArguments::CONFIG_NAME {
        common.config_name.clone()
    } else {
        own.config_name
    };
    ComposeArguments {
        words: [common.words.as_slice(), &own.words].concat(),
        config_name,
        config_path: own.config_path.or_else(|| common.config_path.clone()),
        config_dir: own.config_dir.or_else(|| common.config_dir.clone()),
    }
}

fn part(side: &Side, key: &str) -> Result<Side, Diagnostic> {
    side.part(key).ok_or_else(|| {
        let diagnostic = Diagnostic::configuration(format!("`{}` has no `{key}`", side.title));
        match nearest_key(side.root(), key) {
            Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
            None => diagnostic,
        }
    })
}

fn colour_of(difference: &Difference) -> &'static str {
    match (&difference.old, &difference.new) {
        (Some(_), None) => "31",
        (None, Some(_)) => "32",
        _ => "33",
    }
}

fn difference_json(difference: &Difference) -> Json {
    let put = |put: &Option<Put>| match put {
        None => Json::Null,
        Some(put) => json!({"value": value_json(&put.value), "place": put.place}),
    };
    json!({"key": difference.key, "old": put(&difference.old), "new": put(&difference.new)})
}

fn value_json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(Integer::Small(value)) if i64::try_from(*value).is_ok() => json!(*value as i64),
        Value::Float(value) if value.is_finite() => json!(value),
        Value::Str(text) => json!(text),
        Value::List(items) => items.iter().map(value_json).collect(),
        Value::Map(mapping) => mapping
            .iter()
            .map(|(key, child)| (key_text(key), value_json(child)))
            .collect(),
        // What JSON has no form for.
        Value::Int(_) | Value::Float(_) | Value::Bytes(_) => json!(str_of(node)),
    }
}
