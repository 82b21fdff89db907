//! Composition against cases executed with real Hydra.
//!
//! `PTUNE_HYDRA_CORPUS=DIR cargo test --release --test hydra_corpus` runs every kind found in `DIR/cases/*.jsonl`; the
//! configuration trees are those of `PTUNE_HYDRA_TREES`, by default `DIR/trees`. It prints `kind passed/total` with the
//! failing ids and ends with the sum. `PTUNE_HYDRA_ONLY=text` runs only the ids that contain the text, and
//! `PTUNE_HYDRA_VERBOSE=1` shows what differs. Without `PTUNE_HYDRA_CORPUS` there is nothing to run.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "this is a test, and its report is its output"
)]

mod arguments;
mod commands;
mod completion;
mod library;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value as Json;

/// Where the cases and their trees are.
pub(crate) struct Corpus {
    /// What `{ROOT}` stands for.
    pub(crate) root: PathBuf,
}

fn environment(name: &str) -> Option<String> {
    ptune::sys::env_vars::get(name)
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--list") {
        // For test runners that ask for the names of the tests first.
        if !std::env::args().any(|argument| argument == "--ignored") {
            println!("corpus: test");
        }
        return ExitCode::SUCCESS;
    }
    let Some(corpus) = environment("PTUNE_HYDRA_CORPUS") else {
        println!("skipped: PTUNE_HYDRA_CORPUS is not set");
        return ExitCode::SUCCESS;
    };
    let folder = PathBuf::from(corpus);
    let folder = fs_err::canonicalize(&folder).unwrap_or(folder);
    let trees =
        environment("PTUNE_HYDRA_TREES").map_or_else(|| folder.join("trees"), PathBuf::from);
    let trees = fs_err::canonicalize(&trees).unwrap_or(trees);
    let root = trees
        .parent()
        .map_or_else(|| folder.clone(), Path::to_path_buf);
    let corpus = Corpus { root };
    let only = environment("PTUNE_HYDRA_ONLY").unwrap_or_default();
    let verbose = environment("PTUNE_HYDRA_VERBOSE").is_some();
    let (mut passed, mut failed) = (0, 0);
    for (kind, rows) in read_cases(&folder.join("cases")) {
        let rows: Vec<&Json> = rows
            .iter()
            .filter(|row| row["id"].as_str().unwrap_or("").contains(&only))
            .collect();
        if rows.is_empty() {
            continue;
        }
        let mut failing = vec![];
        for row in &rows {
            let problem = std::panic::catch_unwind(|| library::run(&corpus, row))
                .unwrap_or_else(|_| Err("panicked".to_owned()));
            if let Err(problem) = problem {
                let id = row["id"].as_str().unwrap_or("?").to_owned();
                if verbose {
                    println!("--- {id} {row}\n{problem}");
                }
                failing.push(id);
            }
        }
        println!("{kind} {}/{}", rows.len() - failing.len(), rows.len());
        if !failing.is_empty() {
            println!("  failing: {}", failing.join(" "));
        }
        passed += rows.len() - failing.len();
        failed += failing.len();
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn read_cases(folder: &Path) -> BTreeMap<String, Vec<Json>> {
    let mut kinds = BTreeMap::new();
    let Ok(entries) = fs_err::read_dir(folder) else {
        return kinds;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path
            .extension()
            .is_none_or(|extension| extension != "jsonl")
        {
            continue;
        }
        let Ok(text) = fs_err::read_to_string(&path) else {
            continue;
        };
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match serde_json::from_str::<Json>(line) {
                Ok(row) => {
                    let kind = row["kind"].as_str().unwrap_or("?").to_owned();
                    kinds.entry(kind).or_insert_with(Vec::new).push(row);
                }
                Err(error) => println!("{}: {error}", path.display()),
            }
        }
    }
    kinds
}
