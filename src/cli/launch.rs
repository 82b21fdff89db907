//! `ptune key=value …`: the launcher.

use std::io::Write;

use anyhow::{Context, Result};

use super::arguments::{Cfg, ComposeArguments, Info, LaunchArguments};
use super::embedded;
use crate::config::{
    ComposeRequest, Config, ConfigPart, ConfigRepository, ConfigSource, InfoPart, compose,
};
use crate::diag::suggest::did_you_mean;
use crate::diag::{Diagnostic, Location};
use crate::launch::Templates;
use crate::stages::{self, Launched, Settings};
use crate::sys::env_vars;

const VERBS: [&str; 5] = ["worker", "config", "status", "logs", "cancel"];

pub(super) fn run(arguments: &LaunchArguments, command_line: &[String]) -> Result<i32> {
    let config = compose_words(&arguments.compose)?;
    let stdout = std::io::stdout();
    if let Some(part) = arguments.cfg {
        let part = match part {
            Cfg::Job => ConfigPart::Job,
            Cfg::Hydra => ConfigPart::Hydra,
            Cfg::All => ConfigPart::All,
        };
        let text = config.print(part, arguments.package.as_deref(), arguments.resolve)?;
        stdout.lock().write_all(text.as_bytes())?;
        return Ok(0);
    }
    if let Some(part) = arguments.info {
        let text = config.info(match part {
            Info::All => InfoPart::All,
            Info::Config => InfoPart::Config,
            Info::Defaults => InfoPart::Defaults,
            Info::DefaultsTree => InfoPart::DefaultsTree,
            Info::Searchpath => InfoPart::SearchPath,
        });
        stdout.lock().write_all(text.as_bytes())?;
        return Ok(0);
    }
    for text in config.warnings() {
        super::warn(&Diagnostic::configuration(text.as_str()));
    }

    // Sections that no stage of this command line reads may stay without values.
    let mut keys = Settings::KEYS.to_vec();
    let stages = Settings::read(&config.resolve_sections(&keys)?)?.stages;
    keys.extend(stages.iter().map(|stage| stage.name()));
    let resolved = config.resolve_sections(&keys)?;
    let settings = Settings::read(&resolved)?;
    let templates = Templates {
        folder: arguments.templates_dir.clone(),
    };
    let program = std::env::current_exe().context("finding this program's own path")?;
    let plan = stages::plan(&resolved, config.choices(), &settings, &templates, &program)?;
    let dry_run = arguments.dry_run || stages::switch(env_vars::NEMO_LAUNCHER_DEBUG)?;
    stages::launch(
        plan,
        &settings,
        &Launched {
            dry_run,
            command_line,
            choices: config.choices(),
            templates: &templates,
        },
        &mut super::warn,
        &mut stdout.lock(),
    )
}

/// The configuration that words and options ask for.
pub(super) fn compose_words(arguments: &ComposeArguments) -> Result<Config> {
    for word in &arguments.words {
        check_word(word)?;
    }
    let name = arguments
        .config_name
        .strip_suffix(".yaml")
        .unwrap_or(&arguments.config_name);
    let repository = ConfigRepository::new(search_path(arguments)?);
    Ok(compose(&ComposeRequest {
        repository: &repository,
        config_name: Some(name),
        overrides: &arguments.words,
    })?)
}

/// A word without `=` is a verb that does not exist, or a slip.
fn check_word(word: &str) -> Result<(), Diagnostic> {
    if word.contains('=') || word.starts_with('~') {
        return Ok(());
    }
    let diagnostic = Diagnostic::configuration(format!(
        "`{word}` is neither a command nor of the form `key=value`"
    ));
    Err(match did_you_mean(word, VERBS) {
        Some(near) => diagnostic.hint(format!("did you mean `ptune {near}`?")),
        None => diagnostic.hint("ptune --help"),
    })
}

/// Where files are looked for, first match wins: `--config-dir`, `--config-path`, the conf/ of `launcher_scripts_path`
/// where the command line gives one (users of the original keep their files there), conf/ beside this program, and the
/// files that are part of it.
fn search_path(arguments: &ComposeArguments) -> Result<Vec<ConfigSource>> {
    let mut sources = vec![];
    for (option, folder) in [
        ("--config-dir", &arguments.config_dir),
        ("--config-path", &arguments.config_path),
    ] {
        if let Some(folder) = folder {
            if !folder.is_dir() {
                return Err(
                    Diagnostic::configuration(format!("`{option}` is not a folder"))
                        .at(Location::file(folder.display()))
                        .into(),
                );
            }
            sources.push(ConfigSource::Folder(folder.clone()));
        }
    }
    let given = arguments
        .words
        .iter()
        .rev()
        .find_map(|word| word.strip_prefix("launcher_scripts_path="))
        .map(|path| std::path::Path::new(path.trim_matches(['"', '\''])).join("conf"));
    let beside = std::env::current_exe()
        .ok()
        .and_then(|path| Some(path.parent()?.join("conf")));
    for folder in given.into_iter().chain(beside) {
        if folder.join("config.yaml").is_file() {
            sources.push(ConfigSource::Folder(folder));
        }
    }
    sources.push(ConfigSource::Embedded(embedded::CONF));
    Ok(sources)
}
