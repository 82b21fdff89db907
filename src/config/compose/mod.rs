//! From a request to a composed configuration: the pipeline of `hydra/_internal/config_loader_impl.py`.

mod config;
mod files;
mod runtime;
mod search_path;
mod words;

pub use config::{Config, ConfigPart};
pub use runtime::integer;
pub(crate) use runtime::set;
pub use search_path::{search_path_entry, searched};

use std::sync::Arc;

use super::apply::apply;
use super::defaults_list::{DefaultsList, check_primary_list, defaults_list};
use super::hydra_schema;
use super::interpolation::Resolvers;
use super::interpolation::resolvers::Times;
use super::override_grammar::Override;
use super::report::Report;
use super::repository::ConfigRepository;
use crate::diag::Diagnostic;
use crate::diag::source::Origin;
use crate::yaml::Node;
use files::merge_files;
use runtime::set_runtime;
use search_path::with_search_path;
pub(crate) use words::sweep_words;
use words::{check_sweeps, parse_words};

/// What to compose.
#[derive(Clone, Copy, Debug)]
pub struct ComposeRequest<'a> {
    /// Where the files are.
    pub repository: &'a ConfigRepository,
    /// Primary file, without `.yaml`; nothing for an empty one.
    pub config_name: Option<&'a str>,
    /// Words of the command line, such as `+trainer.max_steps=10`.
    pub overrides: &'a [String],
}

/// How a composition is used.
#[derive(Clone, Debug, Default)]
pub struct ComposeOptions {
    /// The words may hold sweeps, which are left out, and groups that are `???` are left out too.
    pub multirun: bool,
    /// `hydra.job.name` where the configuration does not say it.
    pub job_name: Option<String>,
    /// Functions of `${…}` beyond the built-in ones.
    pub resolvers: Resolvers,
    /// Values of `${now:…}` that were given out already, so that the jobs of a sweep see one time.
    pub times: Times,
    /// Values that the program sets below `hydra`, such as `job.num`, before anything is resolved.
    pub hydra_values: Vec<(String, Node)>,
}

/// Composes a configuration.
///
/// # Errors
/// A [`Diagnostic`] of class configuration; its code is the name of Hydra's exception.
pub fn compose(request: &ComposeRequest<'_>) -> Result<Config, Diagnostic> {
    compose_with(request, ComposeOptions::default())
}

/// Composes a configuration for a given use.
pub fn compose_with(
    request: &ComposeRequest<'_>,
    options: ComposeOptions,
) -> Result<Config, Diagnostic> {
    let mut report = Report::default();
    let config = compose_reporting(request, options, &mut report);
    report.finish(config)
}

fn compose_reporting(
    request: &ComposeRequest<'_>,
    options: ComposeOptions,
    report: &mut Report,
) -> Result<Config, Diagnostic> {
    let texts = request.repository.texts().clone();
    let (repository, words, list) = listed(request, options.multirun, UseOfWords::Values, report)?;
    let mut full = merge_files(&list, &repository)?;
    let values: Vec<(&Override, Origin)> = list
        .value_overrides
        .iter()
        .map(|index| (&words[*index].0, words[*index].1))
        .filter(|(word, _)| report.is_certain(&word.key))
        .collect();
    let odd = apply(&mut full, &values, &repository, report);
    if report.has_problems() {
        // `finish` makes an error of it.
        return Err(Diagnostic::configuration("the words do not fit"));
    }
    for (word, at) in &values {
        if let Some(element) = word.element() {
            let mut value = element.to_node();
            value.origin = *at;
            hydra_schema::check_word(&word.key, &value, &full, &texts)?;
        }
    }
    hydra_schema::check(&mut full, &texts)?;
    set_runtime(&mut full, request, &words, &list, &repository, &options)?;
    let mut root = full.clone();
    if let Some(mapping) = root.as_map_mut() {
        mapping.shift_remove("hydra");
    }
    Ok(Config {
        full,
        root,
        choices: list.choices,
        defaults: list.defaults,
        tree: list.tree,
        warnings: list.warnings.into_iter().chain(odd).collect(),
        words,
        values: list.value_overrides,
        repository: Arc::new(repository),
        options,
    })
}

type Listed = (ConfigRepository, Vec<(Override, Origin)>, DefaultsList);

/// Everything before the first value is merged: search path, words and the defaults list with Hydra's own files.
/// Whether sweeps matter: a listing of the defaults does not look at values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UseOfWords {
    Values,
    Groups,
}

fn listed(
    request: &ComposeRequest<'_>,
    multirun: bool,
    use_of_words: UseOfWords,
    report: &mut Report,
) -> Result<Listed, Diagnostic> {
    let texts = request.repository.texts();
    check_main(request)?;
    let words = parse_words(request.overrides, texts, report);
    let repository = with_search_path(request, &words)?;
    // Hydra reads the primary file before it looks at what the words ask for.
    check_primary_list(&repository, request.config_name)?;
    if use_of_words == UseOfWords::Values {
        check_sweeps(&words, multirun, texts, report);
    }
    let list = defaults_list(
        &repository,
        request.config_name,
        &words,
        true,
        multirun,
        report,
    )?;
    Ok((repository, words, list))
}

/// What [`compose`] would merge, in which order: for listings of configurations whose values do not fit together.
///
/// # Errors
/// As [`compose`], for everything before the first value is merged.
pub fn list_defaults(request: &ComposeRequest<'_>) -> Result<DefaultsList, Diagnostic> {
    let mut report = Report::default();
    let list = listed(request, false, UseOfWords::Groups, &mut report).map(|(_, _, list)| list);
    report.finish(list)
}

/// The defaults list alone, without reading values; `prepend_hydra` puts Hydra's own files first.
///
/// # Errors
/// As [`compose`].
pub fn plan(
    request: &ComposeRequest<'_>,
    prepend_hydra: bool,
    skip_missing: bool,
) -> Result<DefaultsList, Diagnostic> {
    let mut report = Report::default();
    let words = parse_words(request.overrides, request.repository.texts(), &mut report);
    let list = defaults_list(
        request.repository,
        request.config_name,
        &words,
        prepend_hydra,
        skip_missing,
        &mut report,
    );
    report.finish(list)
}

fn check_main(request: &ComposeRequest<'_>) -> Result<(), Diagnostic> {
    for entry in request.repository.entries() {
        if entry.provider == "main" && !entry.source.is_available() {
            return Err(Diagnostic::configuration(format!(
                "there is no configuration folder `{}`",
                entry.path
            ))
            .code("MissingConfigException"));
        }
    }
    Ok(())
}
