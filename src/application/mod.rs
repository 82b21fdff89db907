//! What `@hydra.main` is to a program in Python: the command line of a program that is composed, and what becomes of it.
//!
//! An [`Application`] is the program: its name, where its configuration is, its own options. [`Application::run`] takes a
//! command line, prints what was asked for, or composes and runs a [`Task`], once or for each job of a sweep. It knows
//! nothing of prompts or schedulers.

pub mod arguments;
pub mod completion;
mod help;
mod logging;
mod run;
mod sweep;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;

use crate::config::interpolation::Resolvers;
use crate::config::{
    ComposeOptions, ComposeRequest, Config, ConfigRepository, ConfigSource, InfoPart,
    SearchPathEntry, compose_with, defaults_list_text, defaults_tree_text, list_defaults,
    plugins_text, search_path_entry,
};
use crate::diag::{Diagnostic, Location};
use arguments::{Arguments, Mode, OwnOption};
pub use run::{Composition, Job, Task, run};

/// A program that is composed.
pub struct Application<'a> {
    /// `hydra.job.name` where the configuration does not say it.
    pub name: &'a str,
    /// What `--version` prints.
    pub version: &'a str,
    /// The primary file where `--config-name` is not given.
    pub config_name: Option<&'a str>,
    /// Where its files are where `--config-path` is not given; the words may matter.
    pub sources: &'a dyn Fn(&[String]) -> Vec<ConfigSource>,
    /// Functions of `${…}` beyond the built-in ones.
    pub resolvers: Resolvers,
    /// Options that only it has.
    pub options: &'a [OwnOption],
    /// Its help, in place of the composition's.
    pub help: Option<&'a str>,
    /// Its commands besides being composed, for completion.
    pub commands: &'a dyn Fn() -> Vec<completion::Command>,
    /// Values of keys that no file tells, for completion.
    pub known_values: &'a [completion::KnownValues<'a>],
    /// Tells its user something that is no error.
    pub warn: &'a dyn Fn(&Diagnostic),
    /// Whether the process ends with [`Self::run`], so that memory need not be given back.
    pub is_whole_process: bool,
}

impl Application<'_> {
    /// What the configuration of a command line is made from.
    ///
    /// # Errors
    /// A `--config-dir` that is no folder.
    pub fn repository(&self, arguments: &Arguments) -> Result<ConfigRepository, Diagnostic> {
        let mut entries: Vec<SearchPathEntry> = match &arguments.config_path {
            Some(path) if path.contains("://") => vec![search_path_entry("main", path)?],
            // Listings show it from the root as Hydra's do, messages as it was typed.
            Some(path) => vec![SearchPathEntry {
                path: absolute(path).display().to_string(),
                ..SearchPathEntry::new("main", ConfigSource::Folder(path.into()))
            }],
            None => (self.sources)(&arguments.words)
                .into_iter()
                .map(|source| SearchPathEntry::new("main", source))
                .collect(),
        };
        if let Some(folder) = &arguments.config_dir {
            let folder = absolute(folder);
            if !folder.is_dir() {
                return Err(Diagnostic::configuration("`--config-dir` is not a folder")
                    .at(Location::file(folder.display()))
                    .code("SearchPathException"));
            }
            entries.push(SearchPathEntry::new(
                "command-line",
                ConfigSource::Folder(folder),
            ));
        }
        Ok(ConfigRepository::with_entries(entries))
    }

    fn config_name<'b>(&'b self, arguments: &'b Arguments) -> Option<&'b str> {
        arguments.config_name.as_deref().or(self.config_name)
    }

    /// Composes what a command line asks for, as for a single job.
    ///
    /// # Errors
    /// What [`compose_with`] refuses.
    pub fn compose(&self, arguments: &Arguments) -> Result<Config, Diagnostic> {
        let repository = self.repository(arguments)?;
        self.composed(arguments, &repository, &arguments.words)
    }

    fn composed(
        &self,
        arguments: &Arguments,
        repository: &ConfigRepository,
        words: &[String],
    ) -> Result<Config, Diagnostic> {
        let request = ComposeRequest {
            repository,
            config_name: self.config_name(arguments),
            overrides: words,
        };
        let config = compose_with(&request, self.compose_options())?;
        for text in config.warnings() {
            (self.warn)(&Diagnostic::configuration(text.as_str()));
        }
        Ok(config)
    }

    fn compose_options(&self) -> ComposeOptions {
        ComposeOptions {
            job_name: Some(self.name.to_owned()),
            resolvers: self.resolvers.clone(),
            ..ComposeOptions::default()
        }
    }

    /// Does what a command line that was taken apart asks for, and returns the exit status.
    ///
    /// # Errors
    /// What is wrong with the command line, the configuration or a job.
    pub fn run(
        &self,
        arguments: &Arguments,
        task: &mut dyn Task,
        out: &mut dyn Write,
    ) -> Result<i32> {
        let repository = self.repository(arguments)?;
        let text = match arguments.mode {
            Mode::Version => format!("{}\n", self.version),
            Mode::Help => {
                let config = self.composed(arguments, &repository, &arguments.words)?;
                help::application_help(&config, self.help, self.options, arguments.resolve)?
            }
            Mode::HydraHelp => {
                // It is about no configuration in particular.
                let request = ComposeRequest {
                    repository: &repository,
                    config_name: None,
                    overrides: &arguments.words,
                };
                let config = compose_with(&request, self.compose_options())?;
                help::hydra_help(&config, self.options)?
            }
            Mode::Cfg(part) => {
                let config = self.composed(arguments, &repository, &arguments.words)?;
                let text = config.print(part, arguments.package.as_deref(), arguments.resolve)?;
                self.let_go(config);
                text
            }
            Mode::Info(part @ (InfoPart::Defaults | InfoPart::DefaultsTree)) => {
                let list = list_defaults(&ComposeRequest {
                    repository: &repository,
                    config_name: self.config_name(arguments),
                    overrides: &arguments.words,
                })?;
                match part {
                    InfoPart::Defaults => defaults_list_text(&list.defaults),
                    _ => defaults_tree_text(&list.tree),
                }
            }
            Mode::Info(InfoPart::Plugins) => plugins_text(),
            Mode::Info(part) => {
                let config = self.composed(arguments, &repository, &arguments.words)?;
                config.info(part)
            }
            Mode::ShellCompletion => {
                return completion::shell_completion(self, arguments, &repository, out);
            }
            Mode::Run | Mode::Multirun => {
                let composition = Composition {
                    repository: &repository,
                    config_name: self.config_name(arguments),
                    overrides: &arguments.words,
                    job_name: Some(self.name.to_owned()),
                    resolvers: self.resolvers.clone(),
                };
                return run(&composition, arguments.mode == Mode::Multirun, task, out);
            }
        };
        out.write_all(text.as_bytes())?;
        self.let_go(repository);
        Ok(0)
    }

    /// Taking tens of thousands of nodes apart is a tenth of a short command's time, and the end of the process does it.
    fn let_go<T>(&self, value: T) {
        if self.is_whole_process {
            std::mem::forget(value);
        }
    }
}

/// A folder's path from the root.
fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path))
}
