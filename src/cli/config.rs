//! `ptune config explain KEY`: where a value comes from.

use std::io::Write;

use anyhow::Result;

use super::arguments::{ConfigArguments, ConfigVerb, LaunchArguments};
use super::launch::compose_words;

pub(super) fn run(arguments: &ConfigArguments, _: &LaunchArguments) -> Result<i32> {
    let ConfigVerb::Explain { key, compose } = &arguments.verb;
    let config = compose_words(compose)?;
    let written = config.to_yaml(Some(key))?;
    let resolved = config.resolve()?;
    let mut out = std::io::stdout().lock();
    let value = resolved
        .select_subtree(key)
        .map(|part| part.to_yaml())
        .unwrap_or_default();
    writeln!(out, "{key} = {}", value.trim_end())?;
    if written.trim_end() != value.trim_end() {
        writeln!(out, "  written as {}", written.trim_end())?;
    }
    if let Some(location) = resolved.location(key) {
        writeln!(out, "  set at {location}")?;
    }
    Ok(0)
}
