//! The kinds that are command lines (`launcher`, `extra`, `hydra_tests`, `cli`, `run`): each goes, as it was typed, through
//! the same `Application` that ptune's launcher is. The program is the one that made the cases: it has no configuration of
//! its own, and its task prints `--- job` and the configuration.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use ptune::application::arguments::{Mode, parse};
use ptune::application::{Application, Job, Task};
use ptune::config::ConfigPart;
use ptune::config::interpolation::Resolvers;
use ptune::diag::Diagnostic;
use serde_json::Value as Json;

use crate::Corpus;
use crate::values::squeezed;

struct Print;

impl Task for Print {
    fn run(&mut self, job: &Job<'_>, out: &mut dyn Write) -> anyhow::Result<i32> {
        write!(
            out,
            "--- job\n{}",
            job.config.print(ConfigPart::Job, None, false)?
        )?;
        Ok(0)
    }
}

/// What a command line did.
struct Ran {
    mode: Mode,
    outcome: anyhow::Result<i32>,
    stdout: String,
}

/// Runs a case in a folder of its own and compares its standard output and every file, or the class of its error.
pub(crate) fn check(corpus: &Corpus, row: &Json) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let before = std::env::current_dir().map_err(|error| error.to_string())?;
    std::env::set_current_dir(folder.path()).map_err(|error| error.to_string())?;
    let ran = run(corpus, row);
    std::env::set_current_dir(before).map_err(|error| error.to_string())?;
    let status = match ran.outcome {
        Ok(status) => status,
        Err(error) => return check_error(&error, &row["expect"]),
    };
    let Some(wanted) = row["expect"].get("ok") else {
        return Err(format!(
            "exit status {status}\nwanted {}",
            row["expect"]["error"]
        ));
    };
    if status != 0 {
        return Err(format!("exit status {status}\nwanted {wanted}"));
    }
    let root = corpus.root.display().to_string();
    let here = fs_err::canonicalize(folder.path()).map_err(|error| error.to_string())?;
    let normal = |text: &str| {
        let text = text
            .replace(&root, "{ROOT}")
            .replace(&here.display().to_string(), "{CWD}")
            .replace("version: 1.3.8\n", "version: {HYDRA_VERSION}\n");
        squeezed(&without_help(&without_times(&text)))
    };
    let mut problems = vec![];
    let mut compare = |name: &str, found: &str, wanted: &str| {
        let (found, wanted) = (normal(found), normal(wanted));
        if found != wanted {
            problems.push(format!("{name}:\n--- found\n{found}\n--- wanted\n{wanted}"));
        }
    };
    let stdout = wanted["stdout"].as_str().unwrap_or("");
    match ran.mode {
        // Texts of the help and names of versions are each program's own, what they list is not.
        Mode::Version => {}
        Mode::Help | Mode::HydraHelp => {
            for line in lists_of_help(stdout) {
                if !ran.stdout.lines().any(|found| found == line) {
                    compare("a line of the help", "not there", line);
                }
            }
        }
        _ => compare("stdout", &ran.stdout, stdout),
    }
    if row["kind"] == "run" {
        compare_files(folder.path(), &wanted["files"], &mut compare)?;
    }
    if problems.is_empty() || row["nondeterministic"].as_bool() == Some(true) {
        Ok(())
    } else {
        Err(problems.join("\n"))
    }
}

fn run(corpus: &Corpus, row: &Json) -> Ran {
    let root = corpus.root.display().to_string();
    let words: Vec<String> = row["argv"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|word| word.as_str().unwrap_or("").replace("{ROOT}", &root))
        .collect();
    let application = Application {
        is_whole_process: false,
        name: row["job_name"].as_str().unwrap_or("app"),
        version: "app",
        config_name: None,
        sources: &|_| vec![],
        resolvers: Resolvers::default(),
        options: &[],
        help: None,
        commands: &Vec::new,
        known_values: &[],
        warn: &|_| {},
    };
    let mut stdout = vec![];
    let mut mode = Mode::Run;
    let outcome = parse(&words, application.options)
        .map_err(anyhow::Error::from)
        .and_then(|arguments| {
            mode = arguments.mode;
            application.run(&arguments, &mut Print, &mut stdout)
        });
    Ran {
        mode,
        outcome,
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
    }
}

fn check_error(error: &anyhow::Error, expect: &Json) -> Result<(), String> {
    let code = error
        .downcast_ref::<Diagnostic>()
        .and_then(|diagnostic| diagnostic.code)
        .unwrap_or("no code");
    match expect["error"]["type"].as_str() {
        Some(wanted) if wanted == code => Ok(()),
        _ => Err(format!("found error {code}: {error:#}\nwanted {expect}")),
    }
}

/// The lines of a help that list something of the configuration: the groups with their options, and the values.
fn lists_of_help(help: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    help.lines().filter(move |line| {
        if line.starts_with("== ") {
            inside = !line.contains("Flags");
            return false;
        }
        inside && line.contains(": ") && !line.contains('(')
    })
}

/// Compares the files that a case names, and finds those that it does not.
fn compare_files(
    folder: &Path,
    wanted: &Json,
    compare: &mut impl FnMut(&str, &str, &str),
) -> Result<(), String> {
    let mut found: BTreeMap<String, PathBuf> = all_files(folder)
        .into_iter()
        .filter_map(|path| {
            let name = path.strip_prefix(folder).ok()?;
            Some((without_times(&name.display().to_string()), path))
        })
        .collect();
    for (name, content) in wanted.as_object().into_iter().flatten() {
        match (found.remove(&without_times(name)), content.as_str()) {
            (None, _) => compare(name, "not there", ""),
            (Some(_), None) => {}
            (Some(path), Some(content)) => {
                let text = fs_err::read_to_string(&path).map_err(|error| error.to_string())?;
                compare(name, &text, content);
            }
        }
    }
    for name in found.keys() {
        compare(name, "not expected", "");
    }
    Ok(())
}

/// Times of day, in logs and in the names of folders, are other ones at every run.
fn without_times(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let time = ["dddd-dd-dd dd:dd:dd,ddd", "dddd-dd-dd/dd-dd-dd"]
            .into_iter()
            .find(|shape| {
                rest.len() >= shape.len()
                    && rest.bytes().zip(shape.bytes()).all(|(c, shape)| {
                        (shape == b'd' && c.is_ascii_digit()) || (shape != b'd' && c == shape)
                    })
            });
        match time {
            Some(shape) => {
                out.push_str("{TIME}");
                rest = &rest[shape.len()..];
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

/// The texts of the helps are ours: `hydra.yaml` is compared without them.
fn without_help(text: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        if line == "  help:\n" || line == "  hydra_help:\n" {
            inside = true;
        } else if inside && !line.starts_with("    ") && !line.trim().is_empty() {
            inside = false;
        }
        if !inside {
            out.push_str(line);
        }
    }
    out
}

/// Every file below a folder.
fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in fs_err::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(all_files(&path));
        } else {
            files.push(path);
        }
    }
    files
}
