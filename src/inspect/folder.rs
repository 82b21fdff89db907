//! Folders: Hugging Face models, PEFT adapters, unpacked `.nemo` archives.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::weights::{self, PEFT_ROWS};
use super::{FileEntry, Options, Report, Task, architecture, nemo, tokenizer, unknown};
use crate::diag::{Diagnostic, Location};
use crate::model::ModelConfig;
use crate::tensors::TensorSource;
use crate::tensors::nemo::NEMO_2_WAY_OUT;
use crate::tensors::nemo_files::NemoFiles;
use crate::tensors::safetensors::{INDEX_FILE, SINGLE_FILE, SafetensorsFile};

const ADAPTER: &str = "adapter_config.json";
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// Weights in torch's format, which no reader of models here takes from a folder.
const TORCH_WEIGHTS: [&str; 3] = [
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "adapter_model.bin",
];

/// Looks at the folder at `path`.
pub(super) fn inspect(path: &Path, options: Options) -> Result<Report> {
    if NemoFiles::is_nemo(path) {
        return nemo::inspect(path, "folder", options);
    }
    let mut report = Report {
        container: "folder",
        files: list(path)?,
        ..Report::default()
    };
    report.bytes = report.files.iter().map(|file| file.bytes).sum();
    let is_there = |name: &str| path.join(name).is_file();
    if is_there(ADAPTER) {
        adapter(&mut report, path, options)?;
        return Ok(report);
    }
    let has_weights = is_there(SINGLE_FILE) || is_there(INDEX_FILE);
    if !has_weights && !is_there("config.json") {
        let tokenizer = tokenizer::of_folder(path)?;
        if tokenizer.is_empty() {
            return Err(unknown_folder(path, &report.files).into());
        }
        report.kind = "tokenizer";
        report.tokenizer = tokenizer;
        return Ok(report);
    }
    report.kind = "Hugging Face model";
    if has_weights {
        let source =
            SafetensorsFile::open_folder(path).map_err(|error| weights::damaged(&error))?;
        if source.shards() > 1 {
            report.about.insert("shards", json!(source.shards()));
        }
        weights::add_safetensors(&mut report, &source, options)?;
    } else {
        let torch = TORCH_WEIGHTS.into_iter().find(|name| is_there(name));
        report.notes.push(match torch {
            Some(name) => format!(
                "its weights are in `{name}`, which is not read as a model: save it again with `save_pretrained`, \
                 which writes `{SINGLE_FILE}`"
            ),
            None => "it has no weights".to_owned(),
        });
    }
    if is_there("config.json") {
        match ModelConfig::from_hugging_face(&path.join("config.json")) {
            Ok((model, layout)) => report.architecture = architecture::facts(&model, layout),
            Err(error) => report
                .notes
                .push(format!("it cannot be tuned here: {error:#}")),
        }
    } else {
        report.notes.push("it has no `config.json`".to_owned());
    }
    report.tokenizer = tokenizer::of_folder(path)?;
    if report.tokenizer.is_empty() {
        report
            .notes
            .push("it has no tokenizer that is read here".to_owned());
    }
    Ok(report)
}

/// A folder of PEFT.
fn adapter(report: &mut Report, path: &Path, options: Options) -> Result<()> {
    report.kind = "PEFT adapter";
    let file = path.join(ADAPTER);
    let config: Value = serde_json::from_slice(&fs_err::read(&file)?).map_err(|error| {
        Diagnostic::job(format!("not JSON: {error}"))
            .at(Location::line(file.display(), error.line()))
    })?;
    for (name, key) in [
        ("type", "peft_type"),
        ("task type", "task_type"),
        ("base model", "base_model_name_or_path"),
        ("virtual tokens", "num_virtual_tokens"),
        ("stacks", "num_transformer_submodules"),
        ("peft_version", "peft_version"),
    ] {
        if let Some(value) = config.get(key).filter(|value| !value.is_null()) {
            report.about.insert(name, value.clone());
        }
    }
    if !path.join(ADAPTER_WEIGHTS).is_file() {
        report.notes.push(format!("it has no `{ADAPTER_WEIGHTS}`"));
        return Ok(());
    }
    let source = SafetensorsFile::open(&path.join(ADAPTER_WEIGHTS))
        .map_err(|error| weights::damaged(&error))?;
    weights::add_safetensors(report, &source, options)?;
    match source.info(PEFT_ROWS).map(|info| info.shape).as_deref() {
        Some(&[rows, width]) => report.tasks.push(Task {
            name: PEFT_ROWS.to_owned(),
            virtual_tokens: Some(rows),
            hidden_size: Some(width),
            ..Task::default()
        }),
        _ => report
            .notes
            .push(format!("it has no table `{PEFT_ROWS}`: it is no prompt")),
    }
    Ok(())
}

/// The files of a folder, those in folders of it left out.
fn list(folder: &Path) -> Result<Vec<FileEntry>> {
    let mut files = vec![];
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let metadata = fs_err::metadata(entry.path())?;
        if metadata.is_file() {
            files.push(FileEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                bytes: metadata.len(),
                sha256: None,
            });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn unknown_folder(path: &Path, files: &[FileEntry]) -> Diagnostic {
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let mut diagnostic = unknown(path);
    if NemoFiles::is_nemo_2(path) {
        diagnostic = diagnostic.note(NEMO_2_WAY_OUT);
    }
    if names.is_empty() {
        return diagnostic.note("the folder holds no files");
    }
    let shown = names.len().min(10);
    let mut text = format!("it holds `{}`", names[..shown].join("`, `"));
    if names.len() > shown {
        text = format!("{text} … and {} more", names.len() - shown);
    }
    diagnostic.note(text)
}
