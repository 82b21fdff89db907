//! `ptune config explain KEY`: where a value comes from.

use std::io::Write;

use anyhow::Result;

use super::arguments::{ConfigArguments, ConfigVerb};
use super::launch::compose_words;

pub(super) fn run(arguments: &ConfigArguments) -> Result<i32> {
    let ConfigVerb::Explain { key, compose } = &arguments.verb;
    let explanation = compose_words(compose)?.explain(key)?;
    let mut out = std::io::stdout().lock();
    match &explanation.resolved {
        Ok(value) => writeln!(out, "{key} = {value}")?,
        Err(why) => writeln!(out, "{key} has no value: {why}")?,
    }
    if explanation.resolved.as_ref() != Ok(&explanation.written) {
        writeln!(out, "  written as {}", explanation.written)?;
    }
    for step in &explanation.steps {
        let value = step.value.as_deref().unwrap_or("(deleted)");
        let replaced = if step.replaced { "  (replaced)" } else { "" };
        writeln!(out, "  {}: {value}{replaced}", step.place)?;
    }
    Ok(0)
}
