//! Kind `run`: whole runs and sweeps, each in a folder of its own. The program is the one that made the cases: it prints
//! `--- job` and the configuration.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use ptune::application::{Composition, Job, Task, run};
use ptune::config::interpolation::Resolvers;
use ptune::config::{ConfigPart, ConfigRepository, ConfigSource, SearchPathEntry};
use ptune::diag::Diagnostic;
use serde_json::Value as Json;

use crate::Corpus;

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

/// Runs a case and compares its standard output and every file, or the class of its error.
pub(crate) fn check(corpus: &Corpus, row: &Json) -> Result<(), String> {
    let root = corpus.root.display().to_string();
    let words = |key: &str| -> Vec<String> {
        row[key].as_array().map_or_else(Vec::new, |items| {
            items
                .iter()
                .map(|item| item.as_str().unwrap_or("").replace("{ROOT}", &root))
                .collect()
        })
    };
    let flags = words("flags");
    let mut sources = vec![];
    if let Some(folder) = row["config_dir"].as_str() {
        sources.push(SearchPathEntry::new(
            "main",
            ConfigSource::Folder(corpus.root.join(folder)),
        ));
    }
    if let Some(at) = flags
        .iter()
        .position(|flag| flag == "-cd" || flag == "--config-dir")
        && let Some(folder) = flags.get(at + 1)
    {
        sources.push(SearchPathEntry::new(
            "command-line",
            ConfigSource::Folder(folder.into()),
        ));
    }
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let before = std::env::current_dir().map_err(|error| error.to_string())?;
    std::env::set_current_dir(folder.path()).map_err(|error| error.to_string())?;
    let mut stdout = vec![];
    let ran = run(
        &Composition {
            repository: &ConfigRepository::with_entries(sources),
            config_name: row["config_name"].as_str(),
            overrides: &words("args"),
            job_name: Some(row["job_name"].as_str().unwrap_or("app").to_owned()),
            resolvers: Resolvers::default(),
        },
        flags
            .iter()
            .any(|flag| flag == "-m" || flag == "--multirun"),
        &mut Print,
        &mut stdout,
    );
    std::env::set_current_dir(before).map_err(|error| error.to_string())?;
    if let Err(error) = ran {
        let code = error
            .downcast_ref::<Diagnostic>()
            .and_then(|diagnostic| diagnostic.code)
            .unwrap_or("no code");
        return match row["expect"]["error"]["type"].as_str() {
            Some(wanted) if wanted == code => Ok(()),
            _ => Err(format!(
                "found error {code}: {error:#}\nwanted {}",
                row["expect"]
            )),
        };
    }
    let Some(wanted) = row["expect"].get("ok") else {
        return Err(format!("wanted {}", row["expect"]["error"]));
    };
    let here = fs_err::canonicalize(folder.path()).map_err(|error| error.to_string())?;
    let normal = |text: &str| {
        let text = text
            .replace(&root, "{ROOT}")
            .replace(&here.display().to_string(), "{CWD}")
            .replace("version: 1.3.8\n", "version: {HYDRA_VERSION}\n");
        without_help(&without_times(&text))
    };
    let mut problems = vec![];
    let mut compare = |name: &str, found: &str, wanted: &str| {
        let (found, wanted) = (normal(found), normal(wanted));
        if found != wanted {
            problems.push(format!("{name}:\n--- found\n{found}\n--- wanted\n{wanted}"));
        }
    };
    let stdout = String::from_utf8_lossy(&stdout);
    compare("stdout", &stdout, wanted["stdout"].as_str().unwrap_or(""));
    let mut found: BTreeMap<String, PathBuf> = all_files(folder.path())
        .into_iter()
        .filter_map(|path| {
            let name = path.strip_prefix(folder.path()).ok()?;
            Some((without_times(&name.display().to_string()), path))
        })
        .collect();
    for (name, content) in wanted["files"].as_object().into_iter().flatten() {
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
    if problems.is_empty() || row["nondeterministic"].as_bool() == Some(true) {
        Ok(())
    } else {
        Err(problems.join("\n"))
    }
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
