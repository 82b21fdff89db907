//! `--help` and `--hydra-help`: a template filled with options, configuration groups and the configuration.
//!
//! As in Hydra the template is `hydra.help.template`, which a configuration tree may replace (`hydra/help`), with
//! `$FLAGS_HELP`, `$HYDRA_CONFIG_GROUPS`, `$APP_CONFIG_GROUPS` and `$CONFIG` in it.

use std::fmt::Write;

use super::arguments::{OwnOption, options_help};
use crate::config::{Config, ConfigPart, ConfigRepository};
use crate::diag::Diagnostic;
use crate::yaml::{Node, Value};

/// The text of `--help`. `program` stands in for the template that nobody replaced.
///
/// # Errors
/// A template that names something else with `$`, or, with `resolve`, an interpolation without a value.
pub(super) fn application_help(
    config: &Config,
    program: Option<&str>,
    options: &[OwnOption],
    resolve: bool,
) -> Result<String, Diagnostic> {
    let replaced = is_replaced(config)?;
    let template = match program {
        Some(template) if !replaced => template.to_owned(),
        _ => text_at(config, "hydra.help.template")?,
    };
    fill(&template, config, options, resolve)
}

/// Whether the configuration has help texts of its own: another option of `hydra/help`, or other values.
fn is_replaced(config: &Config) -> Result<bool, Diagnostic> {
    let Some(ours) = config.repository().load("hydra/help/default")? else {
        return Ok(true);
    };
    let is_ours = |name: &str| {
        let found = config.full().descendant(&format!("hydra.help.{name}"));
        found.and_then(Node::as_str) == ours.content.child(name).and_then(Node::as_str)
    };
    Ok(!["header", "footer", "template"].into_iter().all(is_ours))
}

/// The text of `--hydra-help`.
///
/// # Errors
/// As [`application_help`].
pub(super) fn hydra_help(config: &Config, options: &[OwnOption]) -> Result<String, Diagnostic> {
    let template = text_at(config, "hydra.hydra_help.template")?;
    fill(&template, config, options, false)
}

fn text_at(config: &Config, key: &str) -> Result<String, Diagnostic> {
    match config.select(key)?.map(|node| node.value) {
        Some(Value::Str(text)) => Ok(text),
        _ => Err(Diagnostic::configuration(format!("`{key}` is not a text"))
            .code("ConfigCompositionException")),
    }
}

/// Python's `string.Template` with the four names: `$NAME`, `${NAME}`, and `$$` for one dollar.
fn fill(
    template: &str,
    config: &Config,
    options: &[OwnOption],
    resolve: bool,
) -> Result<String, Diagnostic> {
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let (inside, braces) = match rest.strip_prefix('{') {
            Some(inside) => (inside, 1),
            None => (rest, 0),
        };
        let end = inside
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(inside.len());
        let name = &inside[..end];
        let is_name = name.starts_with(|c: char| !c.is_ascii_digit());
        if !is_name || (braces == 1 && !inside[end..].starts_with('}')) {
            return Err(Diagnostic::configuration(format!(
                "the help template has a `$` that begins no name: `{}`",
                shown(rest)
            ))
            .note("`$$` is a dollar")
            .code("ValueError"));
        }
        match name {
            "FLAGS_HELP" => out.push_str(&options_help(options)),
            "HYDRA_CONFIG_GROUPS" => out.push_str(&groups(config.repository(), true)),
            "APP_CONFIG_GROUPS" => out.push_str(&groups(config.repository(), false)),
            "CONFIG" => out.push_str(&config.print(ConfigPart::Job, None, resolve)?),
            _ => return Err(unknown_name(name)),
        }
        rest = &inside[end + braces..];
    }
    out.push_str(rest);
    out.push('\n');
    Ok(out)
}

/// A dollar and the line behind it.
fn shown(rest: &str) -> String {
    format!("${}", rest.lines().next().unwrap_or(""))
}

fn unknown_name(name: &str) -> Diagnostic {
    Diagnostic::configuration(format!("the help template names `${name}`"))
        .note("known are $FLAGS_HELP, $HYDRA_CONFIG_GROUPS, $APP_CONFIG_GROUPS and $CONFIG; `$$` is a dollar")
        .code("KeyError")
}

/// `group: option, option`, sorted, for every group that has options; Hydra's own or all others.
fn groups(repository: &ConfigRepository, hydra: bool) -> String {
    let mut lines = vec![];
    let mut open: Vec<String> = repository.groups("");
    while let Some(group) = open.pop() {
        open.extend(
            repository
                .groups(&group)
                .into_iter()
                .map(|inner| format!("{group}/{inner}")),
        );
        let options = repository.options(&group);
        let is_hydra = group == "hydra" || group.starts_with("hydra/");
        if is_hydra == hydra && !options.is_empty() {
            lines.push((group, options.join(", ")));
        }
    }
    lines.sort();
    lines
        .iter()
        .fold(String::new(), |mut text, (group, options)| {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{group}: {options}");
            text
        })
}
