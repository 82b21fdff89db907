//! The model and the rows of the quickstart, part of the binary, so that `ptune --config-name=quickstart` needs no
//! file and no network.
//!
//! `tests/quickstart/pretrain.py` makes them; its head says how.

use std::path::{Path, PathBuf};

use crate::diag::Diagnostic;
use crate::diag::suggest::did_you_mean;
use crate::sys::atomic_file;

/// What paths of built-in files begin with: `builtin:quickstart`, `builtin:quickstart/train.jsonl`.
const PREFIX: &str = "builtin:quickstart";

/// Files of the model folder.
const MODEL: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("config.json")),
    ("tokenizer.json", include_bytes!("tokenizer.json")),
    ("model.safetensors", include_bytes!("model.safetensors")),
];

/// Files of rows.
const ROWS: &[(&str, &[u8])] = &[
    ("train.jsonl", include_bytes!("train.jsonl")),
    ("validation.jsonl", include_bytes!("validation.jsonl")),
    ("test.jsonl", include_bytes!("test.jsonl")),
];

/// Whether `path` names something built in.
pub fn is_builtin(path: &Path) -> bool {
    path.to_str()
        .is_some_and(|text| text.starts_with("builtin:"))
}

/// Writes the built-in model to a temporary folder, in Hugging Face layout.
///
/// # Errors
/// When `path` names another model than the one there is, or the folder cannot be written.
pub fn unpack_model(path: &Path) -> anyhow::Result<tempfile::TempDir> {
    if path.to_str() != Some(PREFIX) {
        return Err(unknown(path, std::iter::once(PREFIX.to_owned())));
    }
    let folder = tempfile::Builder::new()
        .prefix("ptune-quickstart-")
        .tempdir()?;
    for (name, bytes) in MODEL {
        fs_err::write(folder.path().join(name), bytes)?;
    }
    Ok(folder)
}

/// Writes the rows that `path` names into `folder` and returns where; a path that is not built in comes back as it is.
///
/// # Errors
/// When there are no such rows, or the file cannot be written.
pub fn unpack_rows(path: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    if !is_builtin(path) {
        return Ok(path.to_owned());
    }
    let asked = path
        .to_str()
        .and_then(|text| text.strip_prefix(PREFIX))
        .unwrap_or_default();
    let found = ROWS
        .iter()
        .find(|(name, _)| asked.strip_prefix('/') == Some(name));
    let Some((name, bytes)) = found else {
        return Err(unknown(
            path,
            ROWS.iter().map(|(name, _)| format!("{PREFIX}/{name}")),
        ));
    };
    let target = folder.join(name);
    atomic_file::write(&target, bytes)?;
    Ok(target)
}

fn unknown(path: &Path, known: impl Iterator<Item = String>) -> anyhow::Error {
    let known: Vec<String> = known.collect();
    let text = path.display().to_string();
    let diagnostic = Diagnostic::configuration(format!("there is no `{text}`"))
        .note(format!("built in: {}", known.join(", ")));
    match did_you_mean(&text, known.iter().map(String::as_str)) {
        Some(near) => diagnostic.hint(format!("did you mean `{near}`?")).into(),
        None => diagnostic.into(),
    }
}
