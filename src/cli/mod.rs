//! The command line: one file a verb, no logic.
//!
//! Without a verb `ptune` is the launcher, and its words are those of Hydra (`stages=[prompt_learning] +a.b=c`). A verb
//! is a first word that none of Hydra's can be.

mod arguments;
mod completion;
mod config;
mod dry_run;
mod embedded;
#[cfg(feature = "worker")]
mod generate;
#[cfg(feature = "worker")]
mod inspect;
mod jobs;
mod launch;
mod log;
#[cfg(feature = "worker")]
mod prompts;
mod report;
mod worker;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::diag::{Class, Diagnostic};
use crate::sys::env_vars;
use arguments::{Arguments, Verb};

/// Runs the command line of this process and returns its exit status: 0 done, 1 a job failed, 2 the command line or the
/// configuration is wrong, 75 stopped by a signal after saving.
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let is_verb = words
        .get(1)
        .is_some_and(|word| arguments::verbs().iter().any(|(verb, _)| verb == word));
    let outcome = if is_verb {
        match Arguments::try_parse_from(arguments::with_long_options(&words)) {
            Ok(arguments) => {
                log::start(
                    matches!(arguments.verb, Verb::Worker(_)),
                    level_of(&arguments.verb),
                );
                run(&arguments.verb)
            }
            // clap's own help and usage errors; exit status 0 or 2.
            Err(error) => {
                let _ = error.print();
                return status(error.exit_code());
            }
        }
    } else {
        log::start(false, "info");
        launch::run(&words)
    };
    match outcome {
        Ok(code) => status(code),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            match error.downcast_ref::<Diagnostic>() {
                Some(diagnostic) if diagnostic.class == Class::Configuration => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// What of the log is shown: where an answer is all that was asked for, only what is odd.
fn level_of(verb: &Verb) -> &'static str {
    #[cfg(feature = "worker")]
    if matches!(verb, Verb::Generate(_)) {
        return "warn";
    }
    let _ = verb;
    "info"
}

fn run(verb: &Verb) -> anyhow::Result<i32> {
    match verb {
        Verb::Worker(worker) => worker::run(worker),
        #[cfg(unix)]
        Verb::Ranks(ranks) => crate::launch::ranks::run(
            usize::from(ranks.count),
            &ranks.command,
            ranks.log.as_deref(),
            std::time::Duration::from_secs(ranks.grace),
        ),
        Verb::Config(config) => config::run(config),
        Verb::Status(status) => jobs::status(status),
        Verb::Logs(logs) => jobs::logs(logs),
        Verb::Cancel(cancel) => jobs::cancel(cancel),
        Verb::Report(arguments) => report::report(arguments),
        #[cfg(feature = "worker")]
        Verb::Export(export) => prompts::export(export),
        #[cfg(feature = "worker")]
        Verb::Import(import) => prompts::import(import),
        #[cfg(feature = "worker")]
        Verb::Prompt(prompt) => prompts::prompt(prompt),
        #[cfg(feature = "worker")]
        Verb::Generate(arguments) => generate::generate(arguments),
        #[cfg(feature = "worker")]
        Verb::Inspect(inspect) => inspect::inspect(inspect),
    }
}

fn status(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Whoever reads our output has seen enough; that is not a failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

fn use_colour() -> bool {
    std::io::stderr().is_terminal() && env_vars::get(env_vars::NO_COLOR).is_none()
}

fn print_titled(title: &str, colour: &str, text: &str) {
    let line = if use_colour() {
        format!("\u{1b}[1;{colour}m{title}\u{1b}[0m: {text}\n")
    } else {
        format!("{title}: {text}\n")
    };
    // Nowhere is left to say that standard error is closed.
    let _ = std::io::stderr().write_all(line.as_bytes());
    log::append(&format!("{title}: {text}\n"));
}

/// Text for people, on standard error.
fn print_text(text: &str) {
    // Nowhere is left to say that standard error is closed.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// The error as its user should see it: a [`Diagnostic`] anywhere in the chain, with what was being done around it.
fn report(error: &anyhow::Error) {
    let text = match error.downcast_ref::<Diagnostic>() {
        Some(diagnostic) => {
            let mut diagnostic = diagnostic.clone();
            // Contexts stand in front of the diagnostic in the chain.
            let around: Vec<String> = error
                .chain()
                .take_while(|cause| !cause.is::<Diagnostic>())
                .map(ToString::to_string)
                .filter(|text| *text != diagnostic.to_string())
                .collect();
            for context in around.into_iter().rev() {
                diagnostic.notes.push(format!("while {context}"));
            }
            diagnostic.to_string()
        }
        None => format!("{error:#}"),
    };
    print_titled("error", "31", &text);
}

/// Something odd that does not stop us.
fn warn(diagnostic: &Diagnostic) {
    print_titled("warning", "33", &diagnostic.to_string());
}
