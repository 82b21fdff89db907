//! The import layers of the crate: which folder of `src` may name which other.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Folder, and everything of ours it may import besides itself. The order is the layer order of `src/lib.rs`.
const LAYERS: &[(&str, &[&str])] = &[
    ("diag", &[]),
    ("sys", &[]),
    ("yaml", &["diag"]),
    ("config", &["yaml", "diag", "sys"]),
    ("application", &["config", "yaml", "sys", "diag"]),
    ("schema", &["config", "diag"]),
    ("launch", &["schema", "config", "sys", "diag"]),
    ("prepare", &["schema", "sys", "diag"]),
    ("report", &["sys", "diag"]),
    (
        "stages",
        &["launch", "prepare", "schema", "config", "sys", "diag"],
    ),
    ("tensors", &["sys", "diag"]),
    ("tokenize", &["tensors", "diag"]),
    ("model", &["tensors", "tokenize", "yaml", "sys", "diag"]),
    ("prompt", &["model", "tokenize", "schema", "diag", "sys"]),
    ("data", &["prompt", "tokenize", "schema", "sys", "diag"]),
    ("dist", &["sys", "diag"]),
    (
        "train",
        &["data", "prompt", "model", "dist", "schema", "sys", "diag"],
    ),
    ("generate", &["data", "prompt", "model", "sys", "diag"]),
    ("eval", &["generate", "data", "schema", "sys", "diag"]),
    (
        "export",
        &["prompt", "tensors", "yaml", "schema", "sys", "diag"],
    ),
    (
        "inspect",
        &["model", "tokenize", "tensors", "schema", "diag"],
    ),
    ("quickstart", &["sys", "diag"]),
    (
        "worker",
        &[
            "export",
            "eval",
            "generate",
            "train",
            "dist",
            "data",
            "prompt",
            "model",
            "tokenize",
            "tensors",
            "quickstart",
            "prepare",
            "report",
            "schema",
            "config",
            "yaml",
            "sys",
            "diag",
        ],
    ),
    (
        "cli",
        &[
            "worker",
            "application",
            "stages",
            "launch",
            "prepare",
            "report",
            "schema",
            "config",
            "yaml",
            "sys",
            "diag",
            "export",
            "inspect",
            "tensors",
        ],
    ),
];

/// Every Rust file below `folder`.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The folders of ours that a line names after `crate::`, also in `crate::{a::…, b::…}`.
fn named_after_crate(line: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let mut names = vec![];
    for (position, _) in line.match_indices("crate::") {
        if line[..position].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue; // part of a longer word
        }
        let rest = &line[position + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => names.push(word(rest)),
            Some(group) => {
                let mut depth = 0usize;
                let mut start = true;
                for (index, character) in group.char_indices() {
                    match character {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && !c.is_whitespace() => {
                            names.push(word(&group[index..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    names
}

#[test]
fn every_folder_imports_only_what_its_layer_allows() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    rust_files(&source, &mut files);
    files.sort();
    assert!(files.len() > 50, "the source folder was not found");
    let known: Vec<&str> = LAYERS.iter().map(|(name, _)| *name).collect();
    let mut offences = String::new();
    for file in &files {
        let relative = file.strip_prefix(&source).unwrap();
        let folder = relative
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap();
        if relative.components().count() == 1 {
            continue; // lib.rs and main.rs stand above all layers
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == folder) else {
            writeln!(
                offences,
                "src/{}: the folder `{folder}` has no layer",
                relative.display()
            )
            .unwrap();
            continue;
        };
        for (number, line) in fs_err::read_to_string(file).unwrap().lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            if line.trim_start() == "#[cfg(test)]" {
                break; // tests at the foot may look further
            }
            for name in named_after_crate(line) {
                if known.contains(&name.as_str())
                    && name != folder
                    && !allowed.contains(&name.as_str())
                {
                    writeln!(
                        offences,
                        "src/{}:{}: `{folder}` may not import `{name}`",
                        relative.display(),
                        number + 1
                    )
                    .unwrap();
                }
            }
        }
    }
    assert!(offences.is_empty(), "{offences}");
}

#[test]
fn imports_of_a_group_are_all_seen() {
    assert_eq!(
        named_after_crate("use crate::{config::{self, merge}, yaml::Node, diag};"),
        ["config", "yaml", "diag"]
    );
    assert_eq!(
        named_after_crate("let x = crate::model::load(crate::sys::clock::now());"),
        ["model", "sys"]
    );
}

#[test]
fn the_layers_have_no_circle() {
    for (index, (name, allowed)) in LAYERS.iter().enumerate() {
        for below in *allowed {
            let place = LAYERS
                .iter()
                .position(|(other, _)| other == below)
                .expect("a known folder");
            assert!(
                place < index,
                "`{name}` imports `{below}`, which stands above it"
            );
        }
    }
}
