//! Sweeps: every combination of the values on the command line is one job.
//!
//! Follows Hydra's basic sweeper and basic launcher: the first word changes slowest, batches of
//! `hydra.sweeper.max_batch_size`, `multirun.yaml` in `hydra.sweep.dir`, and jobs one after another in this process. Unlike
//! Hydra, which looks at one batch before it starts it, all jobs are composed and checked before anything is written.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use indexmap::IndexMap;

use super::logging::{INFO, Logging};
use super::run::{Composer, PreparedJob, Task, start, text};
use crate::config::override_grammar::{Element, Override, OverrideValue};
use crate::config::{Config, sweep_words};
use crate::diag::Diagnostic;
use crate::diag::source::{Origin, SourceMap};
use crate::sys::atomic_file;
use crate::sys::shutdown::EXIT_STOPPED;
use crate::yaml::python_text::{key_text, str_of};
use crate::yaml::{Node, Value, to_yaml};

/// More jobs than this are a slip.
const MAX_JOBS: usize = 100_000;

/// Runs all jobs of the sweep that a master configuration, composed without its swept words, stands for.
pub(super) fn run(
    composer: &Composer<'_>,
    master: &Config,
    task: &mut dyn Task,
    out: &mut dyn Write,
) -> Result<i32> {
    require_basic(master)?;
    let texts = composer.composition.repository.texts();
    let words = words(master, texts)?;
    let values = values(&words, composer, texts)?;
    let jobs = product(&values)?;
    let batch_size = batch_size(master, jobs.len())?;

    let hydra_words = texts_at(master, "hydra.overrides.hydra");
    let compose = |number: usize| -> Result<PreparedJob> {
        let words: Vec<String> = hydra_words.iter().chain(&jobs[number]).cloned().collect();
        let prepared = composer
            .job(&words, number)
            .map_err(anyhow::Error::from)
            .and_then(|config| PreparedJob::new(config, Some(number)));
        prepared.with_context(|| format!("composing job {number} of the sweep"))
    };
    for (number, words) in jobs.iter().enumerate() {
        let job = compose(number)?;
        task.check(&job.job())
            .with_context(|| format!("checking job {number}: {}", shown(words)))?;
    }

    let mut logging = Logging::default();
    start(master, &mut logging, out)?;
    let folder = PathBuf::from(text(master, "hydra.sweep.dir")?);
    atomic_file::write(&folder.join("multirun.yaml"), to_yaml(master.full()))?;
    let outcome = launch(&jobs, batch_size, &mut |job, is_batch_start| {
        logging.configure(master, "hydra_logging")?;
        if let Some(count) = is_batch_start {
            logging.log(INFO, &format!("Launching {count} jobs locally"), out)?;
        }
        let Some(number) = job else {
            return Ok(0);
        };
        logging.log(
            INFO,
            &format!("\t#{number} : {}", shown(&jobs[number])),
            out,
        )?;
        compose(number)?.run(&mut logging, task, out)
    });
    task.finish(out)?;
    outcome
}

/// Goes through the batches. A failed job does not keep the others of its batch from running, but it does keep later
/// batches; one that was told to stop ends the sweep at once.
fn launch(
    jobs: &[Vec<String>],
    batch_size: usize,
    run: &mut dyn FnMut(Option<usize>, Option<usize>) -> Result<i32>,
) -> Result<i32> {
    if jobs.is_empty() && batch_size == 0 {
        return run(None, Some(0));
    }
    let mut first = 0;
    while first < jobs.len() {
        let end = jobs.len().min(first.saturating_add(batch_size.max(1)));
        let mut failed: Option<Result<i32>> = None;
        for number in first..end {
            let outcome = run(Some(number), (number == first).then_some(end - first));
            match outcome {
                Ok(0) => {}
                // 128 + SIGINT and SIGTERM: whoever stopped that job does not want the next one.
                Ok(status @ (EXIT_STOPPED | 130 | 143)) => return Ok(status),
                Err(error) if failed.is_some() => tracing::error!("{error:#}"),
                other => {
                    failed.get_or_insert(other);
                }
            }
        }
        if let Some(failed) = failed {
            return failed;
        }
        first = end;
    }
    Ok(0)
}

/// The words of a job without those about `hydra`, as one line.
fn shown(words: &[String]) -> String {
    let words: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .filter(|word| !word.starts_with("hydra."))
        .collect();
    words.join(" ")
}

/// Sweepers and launchers are plugins in Python; those that Hydra brings along are built in here.
fn require_basic(master: &Config) -> Result<()> {
    for (part, class) in [
        (
            "sweeper",
            "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        ),
        (
            "launcher",
            "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        ),
    ] {
        let key = format!("hydra.{part}._target_");
        let target = master.select(&key)?;
        if let Some(target) = target.filter(|target| str_of(target) != class) {
            let mut diagnostic = Diagnostic::configuration(format!(
                "`hydra/{part}` is `{}`, a plugin in Python, which cannot be called",
                str_of(&target)
            ))
            .code(if str_of(&target).starts_with("hydra_plugins.") {
                "InstantiationException"
            } else {
                "RuntimeError"
            })
            .hint(format!("hydra/{part}=basic"));
            if let Some(location) = master.location(&key) {
                diagnostic = diagnostic.at(location);
            }
            return Err(diagnostic.into());
        }
    }
    Ok(())
}

/// `hydra.sweeper.max_batch_size`; without one all jobs are one batch, even where there are none (0).
fn batch_size(master: &Config, jobs: usize) -> Result<usize> {
    const KEY: &str = "hydra.sweeper.max_batch_size";
    let Some(size) = master.select(KEY)?.filter(|node| !node.is_null()) else {
        return Ok(jobs);
    };
    let number = match &size.value {
        Value::Int(number) => number.to_string().parse::<i64>().ok(),
        Value::Str(text) => text.trim().parse().ok(),
        _ => None,
    };
    let wrong = || {
        Diagnostic::configuration(format!(
            "`{KEY}` must be a positive integer or null, found `{}`",
            str_of(&size)
        ))
    };
    match number {
        None => Err(wrong().code("ConfigCompositionException").into()),
        Some(number) => match usize::try_from(number) {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(wrong().code("AssertionError").into()),
        },
    }
}

fn texts_at(config: &Config, key: &str) -> Vec<String> {
    config
        .full()
        .descendant(key)
        .and_then(Node::as_list)
        .map(|items| items.iter().map(str_of).collect())
        .unwrap_or_default()
}

/// The words of `hydra.sweeper.params`, then those of the command line.
fn words(master: &Config, texts: &SourceMap) -> Result<Vec<(Override, Origin)>> {
    let mut words = vec![];
    if let Some(parameters) = master.select("hydra.sweeper.params")? {
        for (key, value) in parameters.as_map().into_iter().flatten() {
            words.push(format!("{}={}", key_text(key), str_of(value)));
        }
    }
    words.extend(texts_at(master, "hydra.overrides.task"));
    Ok(sweep_words(&words, texts)?)
}

/// For every key, in the order of first appearance, the words of its values. A later word of the same key replaces an
/// earlier one.
fn values(
    words: &[(Override, Origin)],
    composer: &Composer<'_>,
    texts: &SourceMap,
) -> Result<IndexMap<String, Vec<String>>> {
    let mut values = IndexMap::new();
    for (word, at) in words {
        let key = format!("{}{}", word.prefix(), word.key_and_package());
        let refused = |title: String, code| {
            let diagnostic = Diagnostic::configuration(title).code(code);
            match texts.location(*at) {
                Some(location) => diagnostic.at(location),
                None => diagnostic,
            }
        };
        let of_key = match &word.value {
            None => vec![Element::Null.to_word()],
            Some(OverrideValue::Element(element)) => vec![element.to_word()],
            Some(OverrideValue::Glob(glob)) => {
                glob.filter(&composer.composition.repository.options(&word.key))
            }
            Some(OverrideValue::Interval(_)) => {
                return Err(refused(
                    format!("`{}`: an interval has no end of values to try", word.input),
                    "HydraException",
                )
                .note("INTERVAL_SWEEP is for sweepers that search, and the basic sweeper does not")
                .hint(format!("{key}=range(START,STOP,STEP) or {key}=VALUE,VALUE"))
                .into());
            }
            Some(value) => value
                .sweep_words()
                .map_err(|error| {
                    let of_integers = matches!(value, OverrideValue::Range(range)
                        if [&range.start, &range.stop, &range.step]
                            .iter()
                            .all(|number| matches!(number, Element::Int(_))));
                    let code = if of_integers {
                        "ValueError"
                    } else {
                        "HydraException"
                    };
                    refused(format!("`{}`: {error}", word.input), code)
                })?
                .unwrap_or_default(),
        };
        let of_key = of_key
            .into_iter()
            .map(|value| format!("{key}={value}"))
            .collect();
        values.insert(key, of_key);
    }
    Ok(values)
}

/// Every combination; the first key changes slowest.
fn product(values: &IndexMap<String, Vec<String>>) -> Result<Vec<Vec<String>>> {
    let count = values
        .values()
        .try_fold(1_usize, |count, words| count.checked_mul(words.len()))
        .filter(|count| *count <= MAX_JOBS);
    if count.is_none() {
        let factors: Vec<String> = values
            .values()
            .filter(|words| words.len() > 1)
            .map(|words| words.len().to_string())
            .collect();
        return Err(Diagnostic::configuration(format!(
            "the sweep has more than {MAX_JOBS} jobs ({})",
            factors.join(" x ")
        ))
        .into());
    }
    if count == Some(0) {
        return Ok(vec![]);
    }
    let mut jobs: Vec<Vec<String>> = vec![vec![]];
    for words in values.values() {
        jobs = jobs
            .iter()
            .flat_map(|job| {
                words.iter().map(|word| {
                    let mut job = job.clone();
                    job.push(word.clone());
                    job
                })
            })
            .collect();
    }
    Ok(jobs)
}
