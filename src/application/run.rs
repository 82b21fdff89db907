//! One job: its mode, its folder, what is written into it, and the task run in it.
//!
//! Follows `hydra/core/utils.py` (`run_job`) and `hydra/_internal/utils.py` (`_run_app`) of Hydra 1.3. Sweeps are in
//! [`super::sweep`].

use std::io::Write;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

use super::logging::{DEBUG, Logging};
use super::sweep;
use crate::config::interpolation::Resolvers;
use crate::config::interpolation::resolvers::Times;
use crate::config::{
    ComposeOptions, ComposeRequest, Config, ConfigRepository, InfoPart, compose_with,
};
use crate::diag::Diagnostic;
use crate::sys::{atomic_file, env_vars};
use crate::yaml::python_text::{key_text, str_of};
use crate::yaml::{Node, Value, to_yaml};

/// What a program does with a composed configuration.
pub trait Task {
    /// Called for every job of a command line before anything is written and before the first one runs.
    ///
    /// # Errors
    /// Why this job cannot be run; then none is.
    fn check(&mut self, job: &Job<'_>) -> Result<()> {
        let _ = job;
        Ok(())
    }

    /// Runs one job and returns its exit status; `out` is the program's standard output.
    ///
    /// # Errors
    /// Why the job failed. The other jobs of the same batch run all the same.
    fn run(&mut self, job: &Job<'_>, out: &mut dyn Write) -> Result<i32>;

    /// Called once after the last job of a sweep, also where one failed.
    ///
    /// # Errors
    /// Standard output is closed.
    fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        let _ = out;
        Ok(())
    }
}

/// One job, as its task sees it.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// The composed configuration.
    pub config: &'a Config,
    /// `hydra.runtime.output_dir`: absolute, and there when the job runs.
    pub output_dir: PathBuf,
    /// The words that are not about `hydra`.
    pub overrides: &'a [String],
    /// Place in the sweep, from 0; nothing for a job alone.
    pub number: Option<usize>,
}

/// What to compose and how.
#[derive(Clone, Debug)]
pub struct Composition<'a> {
    /// Where the files are.
    pub repository: &'a ConfigRepository,
    /// Primary file, without `.yaml`.
    pub config_name: Option<&'a str>,
    /// Words of the command line.
    pub overrides: &'a [String],
    /// `hydra.job.name` where the configuration does not say it.
    pub job_name: Option<String>,
    /// Functions of `${…}` beyond the built-in ones.
    pub resolvers: Resolvers,
}

/// Runs the job of a command line, or all jobs of its sweep, and returns the exit status: 0, or that of the first job
/// that failed.
///
/// # Errors
/// A configuration that cannot be composed, a folder that cannot be made, or the error of the first job that failed.
pub fn run(
    composition: &Composition<'_>,
    multirun: bool,
    task: &mut dyn Task,
    out: &mut dyn Write,
) -> Result<i32> {
    let composer = Composer {
        composition,
        times: Times::default(),
    };
    if !multirun {
        match composer.single(composition.overrides) {
            Ok(config) => match mode(&config).as_deref() {
                Some("MULTIRUN") => {}
                Some(_) => return run_alone(config, task, out),
                None => {
                    let mut config = config;
                    config.set_mode("RUN");
                    return run_alone(config, task, out);
                }
            },
            // A configuration that asks for a sweep may hold what a single job may not.
            Err(error) => {
                let swept = composer.swept(composition.overrides);
                if swept.ok().and_then(|config| mode(&config)).as_deref() != Some("MULTIRUN") {
                    return Err(error.into());
                }
            }
        }
    }
    let mut words = composition.overrides.to_vec();
    let chosen = mode(&composer.swept(&words)?);
    if chosen.as_deref() == Some("RUN") {
        tracing::warn!("`--multirun` is given, and it wins over `hydra.mode=RUN`");
    }
    if chosen.as_deref() != Some("MULTIRUN") {
        words.push("hydra.mode=MULTIRUN".to_owned());
    }
    let master = composer.swept(&words)?;
    sweep::run(&composer, &master, task, out)
}

/// `hydra.mode`, where it is chosen and can be told.
fn mode(config: &Config) -> Option<String> {
    match config.select("hydra.mode") {
        Ok(Some(node)) if !node.is_null() => Some(str_of(&node)),
        _ => None,
    }
}

/// Composes the configurations of one command line, which all see one time.
pub(super) struct Composer<'a> {
    pub(super) composition: &'a Composition<'a>,
    times: Times,
}

impl Composer<'_> {
    fn compose(
        &self,
        words: &[String],
        options: ComposeOptions,
    ) -> std::result::Result<Config, Diagnostic> {
        let request = ComposeRequest {
            repository: self.composition.repository,
            config_name: self.composition.config_name,
            overrides: words,
        };
        compose_with(
            &request,
            ComposeOptions {
                job_name: self.composition.job_name.clone(),
                resolvers: self.composition.resolvers.clone(),
                times: self.times.clone(),
                ..options
            },
        )
    }

    fn single(&self, words: &[String]) -> std::result::Result<Config, Diagnostic> {
        self.compose(words, ComposeOptions::default())
    }

    fn swept(&self, words: &[String]) -> std::result::Result<Config, Diagnostic> {
        let options = ComposeOptions {
            multirun: true,
            ..ComposeOptions::default()
        };
        self.compose(words, options)
    }

    /// The configuration of one job of a sweep.
    pub(super) fn job(
        &self,
        words: &[String],
        number: usize,
    ) -> std::result::Result<Config, Diagnostic> {
        let options = ComposeOptions {
            hydra_values: vec![
                ("job.id".to_owned(), Node::text(number.to_string())),
                (
                    "job.num".to_owned(),
                    crate::config::integer(i64::try_from(number).unwrap_or(i64::MAX)),
                ),
            ],
            ..ComposeOptions::default()
        };
        self.compose(words, options)
    }
}

fn run_alone(config: Config, task: &mut dyn Task, out: &mut dyn Write) -> Result<i32> {
    let mut logging = Logging::default();
    let prepared = PreparedJob::new(config, None)?;
    task.check(&prepared.job())?;
    start(&prepared.config, &mut logging, out)?;
    prepared.run(&mut logging, task, out)
}

/// Sets up `hydra.hydra_logging` and, with `hydra.verbose=true`, shows how the configuration came about.
pub(super) fn start(config: &Config, logging: &mut Logging, out: &mut dyn Write) -> Result<()> {
    logging.configure(config, "hydra_logging")?;
    if logging.is_enabled(DEBUG) {
        for line in config.info(InfoPart::All).lines() {
            logging.log(DEBUG, line, out)?;
        }
    }
    let callbacks = config.select("hydra.callbacks")?;
    if callbacks.is_some_and(|node| node.as_map().is_some_and(|map| !map.is_empty())) {
        tracing::warn!("`hydra.callbacks` names classes of Python, which are not called");
    }
    Ok(())
}

/// A job whose folder is known; nothing is written yet.
pub(super) struct PreparedJob {
    pub(super) config: Config,
    output_dir: PathBuf,
    overrides: Vec<String>,
    number: Option<usize>,
}

impl PreparedJob {
    /// A job of a sweep has a number.
    pub(super) fn new(mut config: Config, number: Option<usize>) -> Result<Self> {
        let folder = match number {
            None => PathBuf::from(text(&config, "hydra.run.dir")?),
            Some(_) => Path::new(&text(&config, "hydra.sweep.dir")?)
                .join(text(&config, "hydra.sweep.subdir")?),
        };
        let output_dir = normal(&folder)?;
        config.set_hydra_value(
            "runtime.output_dir",
            Node::text(output_dir.display().to_string()),
        );
        let overrides = config
            .full()
            .descendant("hydra.overrides.task")
            .and_then(Node::as_list)
            .map(|words| words.iter().map(str_of).collect())
            .unwrap_or_default();
        Ok(Self {
            config,
            output_dir,
            overrides,
            number,
        })
    }

    pub(super) fn job(&self) -> Job<'_> {
        Job {
            config: &self.config,
            output_dir: self.output_dir.clone(),
            overrides: &self.overrides,
            number: self.number,
        }
    }

    /// Makes the folder and what belongs into it, and runs the task.
    pub(super) fn run(
        &self,
        logging: &mut Logging,
        task: &mut dyn Task,
        out: &mut dyn Write,
    ) -> Result<i32> {
        let config = &self.config;
        fs_err::create_dir_all(&self.output_dir)?;
        let change = config.select("hydra.job.chdir")?;
        let _folder = match change.map(|node| node.value) {
            Some(Value::Bool(true)) => Some(WorkingFolder::enter(&self.output_dir)?),
            _ => None,
        };
        logging.configure(config, "job_logging")?;
        if let Some(subfolder) = config.select("hydra.output_subdir")?
            && !subfolder.is_null()
        {
            self.write_configuration(&self.output_dir.join(str_of(&subfolder)))?;
        }
        let mut variables = vec![];
        if let Some(set) = config.select("hydra.job.env_set")? {
            for (name, value) in set.as_map().into_iter().flatten() {
                variables.push((key_text(name), str_of(value)));
            }
        }
        let _environment = env_vars::Scope::set(&variables);
        // What the task starts writes to the same place by itself.
        out.flush()?;
        let status = task.run(&self.job(), out);
        // Which of many jobs it was has to be said; the words of a single one are what the user has just typed.
        let status = match self.number {
            Some(number) => status.with_context(|| {
                let words: Vec<String> = self
                    .overrides
                    .iter()
                    .map(|word| format!("`{word}`"))
                    .collect();
                format!("running job {number}: {}", words.join(" "))
            })?,
            None => status?,
        };
        out.flush()?;
        Ok(status)
    }

    /// `config.yaml`, `hydra.yaml` and `overrides.yaml`, in which `${…}` still stands.
    fn write_configuration(&self, folder: &Path) -> Result<()> {
        let mut hydra = self.config.full().clone();
        if let Some(mapping) = hydra.as_map_mut() {
            mapping.retain(|key, _| key.as_str() == Some("hydra"));
        }
        let overrides = self.config.full().descendant("hydra.overrides.task");
        let overrides = overrides.map_or_else(|| "[]\n".to_owned(), to_yaml);
        atomic_file::write(&folder.join("config.yaml"), to_yaml(self.config.root()))?;
        atomic_file::write(&folder.join("hydra.yaml"), to_yaml(&hydra))?;
        atomic_file::write(&folder.join("overrides.yaml"), overrides)?;
        Ok(())
    }
}

/// The text at a key of `hydra`, without `${…}`.
pub(super) fn text(config: &Config, key: &str) -> Result<String> {
    match config.select(key)? {
        Some(node) => Ok(str_of(&node)),
        None => {
            let diagnostic = Diagnostic::configuration(format!("`{key}` has no value"))
                .code("MissingMandatoryValue")
                .hint(format!("{key}=FOLDER"));
            Err(match config.location(key) {
                Some(location) => diagnostic.at(location),
                None => diagnostic,
            }
            .into())
        }
    }
}

/// An absolute path without `.` and `..`, whether or not it is there (Python's `os.path.abspath`).
fn normal(path: &Path) -> Result<PathBuf> {
    let here = std::env::current_dir().context("finding the current folder")?;
    let mut normal = PathBuf::new();
    for part in here.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    Ok(normal)
}

/// The process works in another folder until this is dropped.
struct WorkingFolder {
    before: PathBuf,
}

impl WorkingFolder {
    fn enter(folder: &Path) -> Result<Self> {
        let before = std::env::current_dir().context("finding the current folder")?;
        std::env::set_current_dir(folder)
            .with_context(|| format!("changing into `{}`", folder.display()))?;
        Ok(Self { before })
    }
}

impl Drop for WorkingFolder {
    fn drop(&mut self) {
        if let Err(error) = std::env::set_current_dir(&self.before) {
            tracing::warn!("cannot go back to `{}`: {error}", self.before.display());
        }
    }
}
