//! The report of `--dry-run`: one list for each job, then everything that would stop one.

use std::time::Duration;

use anyhow::Result;

use crate::application::Job;
use crate::config::together;
use crate::diag::checklist::{Checklist, Standing};
use crate::diag::{Class, Diagnostic};
use crate::stages::{self, Plan, Settings};
use crate::sys::env_vars;

/// What can be known about the jobs of `plan`.
pub(super) fn look(plan: &Plan, settings: &Settings) -> Result<Vec<Checklist>> {
    let seconds = match env_vars::get(env_vars::PTUNE_DRY_RUN_SECONDS) {
        None => 10.0,
        Some(text) => text
            .parse::<f64>()
            .ok()
            .filter(|seconds| (0.0..1e6).contains(seconds))
            .ok_or_else(|| {
                Diagnostic::configuration(format!(
                    "the environment variable `{}` is `{text}`, expected a number of seconds",
                    env_vars::PTUNE_DRY_RUN_SECONDS
                ))
            })?,
    };
    with_inside(plan, settings, Duration::from_secs_f64(seconds))
}

#[cfg(feature = "worker")]
fn with_inside(plan: &Plan, settings: &Settings, time: Duration) -> Result<Vec<Checklist>> {
    if time.is_zero() {
        let why = format!("{} is 0", env_vars::PTUNE_DRY_RUN_SECONDS);
        return without(plan, settings, &why);
    }
    let mut preflight = crate::worker::preflight::Preflight::new(time);
    stages::dry_run(plan, settings, &mut |job, section, written_by, list| {
        preflight.look(job, section, written_by, list)
    })
}

#[cfg(not(feature = "worker"))]
fn with_inside(plan: &Plan, settings: &Settings, _: Duration) -> Result<Vec<Checklist>> {
    let why = "this ptune was built without the `worker` feature";
    without(plan, settings, why)
}

/// Everything but what lies inside of files.
fn without(plan: &Plan, settings: &Settings, why: &str) -> Result<Vec<Checklist>> {
    stages::dry_run(plan, settings, &mut |_, _, _, list| {
        list.unchecked("model, rows", why);
        None
    })
}

/// Writes the lists to standard error, so that standard output is scripts alone, and returns the exit status. Of the
/// second job of a sweep and those after it only what is not in order is told.
pub(super) fn show(lists: &[Checklist], job: &Job<'_>) -> i32 {
    let mut problems: Vec<Diagnostic> = vec![];
    for list in lists {
        let mut shown = list.clone();
        if let Some(number) = job.number {
            shown.title = format!("job {number}, {}", list.title);
            if number > 0 {
                let is_worth_it = |standing| matches!(standing, Standing::Odd | Standing::Bad);
                shown.items.retain(|item| is_worth_it(item.standing));
            }
        }
        super::print_text(&format!("\n{shown}"));
        for problem in &list.problems {
            if !problems.contains(problem) {
                problems.push(problem.clone());
            }
        }
    }
    let count = problems.len();
    let Some(mut all) = together(problems) else {
        super::print_text("\nnothing was submitted; no problem was found\n");
        return 0;
    };
    all.class = Class::Configuration;
    if count > 1 {
        all.title = format!("{count} problems would stop the jobs");
    }
    super::print_text("\n");
    super::report(&all.into());
    2
}
