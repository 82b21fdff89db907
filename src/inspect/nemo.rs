//! `.nemo` archives and the folders they were unpacked to.

use std::path::Path;

use anyhow::Result;
use serde_json::json;
use serde_yaml::Value;

use super::{
    FileEntry, Options, Partition, Report, Task, architecture, members, tokenizer, weights,
};
use crate::diag::{Diagnostic, Location};
use crate::model::ModelConfig;
use crate::schema::TaskTemplateSection;
use crate::tensors::TensorSource;
use crate::tensors::distributed::DistributedCheckpoint;
use crate::tensors::megatron::MegatronCheckpoint;
use crate::tensors::nemo::{CONFIG_MEMBER, WEIGHTS_MEMBER};
use crate::tensors::nemo_files::NemoFiles;

/// Looks at the archive or folder at `path`.
pub(super) fn inspect(path: &Path, container: &'static str, options: Options) -> Result<Report> {
    let files = NemoFiles::open(path).map_err(|error| Diagnostic::job(error.to_string()))?;
    let mut report = Report {
        container,
        files: members(&files),
        ..Report::default()
    };
    report.bytes = if path.is_dir() {
        report.files.iter().map(|file| file.bytes).sum()
    } else {
        fs_err::metadata(path)?.len()
    };
    if options.hash && !path.is_dir() {
        // Members of an archive are hashed as they lie in it, and the archive as a whole.
        for file in &mut report.files {
            file.sha256 = Some(files.sha256(&file.name)?);
        }
        report.files.insert(
            0,
            FileEntry {
                name: path
                    .file_name()
                    .map_or_else(String::new, |name| name.to_string_lossy().into()),
                bytes: report.bytes,
                sha256: None,
            },
        );
    }
    let text = files
        .read_text(CONFIG_MEMBER)
        .map_err(|error| Diagnostic::job(error.to_string()))?;
    let config: Value = serde_yaml::from_str(&text).map_err(|error| {
        Diagnostic::job(format!("{CONFIG_MEMBER} is not YAML: {error}"))
            .at(Location::file(path.display()))
    })?;
    let text_of = |key: &str| config.get(key).and_then(Value::as_str);
    for (name, key) in [
        ("nemo_version", "nemo_version"),
        ("ptune_version", "ptune_version"),
        ("class", "target"),
    ] {
        if let Some(value) = text_of(key) {
            let value = if name == "class" {
                value.rsplit('.').next().unwrap_or(value)
            } else {
                value
            };
            report.about.insert(name, json!(value));
        }
    }
    if let Some(precision) = config.get("precision").filter(|value| !value.is_null()) {
        let text = serde_yaml::to_string(precision).unwrap_or_default();
        report.about.insert("precision", json!(text.trim()));
    }
    let is_prompts =
        config.get("task_templates").is_some() || config.get("virtual_prompt_style").is_some();
    let has_weights = files.names().any(|name| name.ends_with(WEIGHTS_MEMBER))
        || DistributedCheckpoint::is_in(&files);
    let mut source = match MegatronCheckpoint::open(&files) {
        Ok(source) => Some(source),
        Err(error) if has_weights => return Err(weights::damaged(&error)),
        Err(error) => {
            report.notes.push(error.to_string());
            None
        }
    };
    if let Some(source) = &source {
        if source.is_distributed() {
            let format = "distributed checkpoint, `torch_dist`";
            report.about.insert("weights", json!(format));
        } else {
            let (tensor, pipeline) = source.partition();
            report.partition = Some(Partition { tensor, pipeline });
        }
    }
    if is_prompts {
        report.kind = "NeMo prompts";
        if let Some(source) = &source {
            weights::add(&mut report, source, options)?;
        }
        prompts(&mut report, &config);
        return Ok(report);
    }
    report.kind = "NeMo base model";
    let rows_of = |name: &str| source.as_ref()?.rows_of(name);
    match ModelConfig::from_nemo(&path.join(CONFIG_MEMBER), &text, &rows_of) {
        Ok((model, layout)) => {
            report.architecture = architecture::facts(&model, layout);
            if let Some(source) = &mut source {
                source.set_splits(model.names(layout).splits());
            }
        }
        Err(error) => report
            .notes
            .push(format!("it cannot be tuned here: {error:#}")),
    }
    if let Some(source) = &source {
        weights::add(&mut report, source as &dyn TensorSource, options)?;
    }
    if let Some(section) = config.get("tokenizer") {
        match serde_yaml::from_value(section.clone()) {
            Ok(section) => report.tokenizer = tokenizer::of_nemo(&section, &files),
            Err(error) => report.notes.push(format!("section `tokenizer`: {error}")),
        }
    }
    Ok(report)
}

/// What the configuration of a prompt archive tells about its tasks.
fn prompts(report: &mut Report, config: &Value) {
    for (name, key) in [
        ("base model", "language_model_path"),
        ("style", "virtual_prompt_style"),
    ] {
        if let Some(value) = config.get(key).and_then(Value::as_str) {
            report.about.insert(name, json!(value));
        }
    }
    let names = |key: &str| {
        let names = config.get(key).and_then(Value::as_sequence);
        names.into_iter().flatten().filter_map(Value::as_str)
    };
    for name in names("existing_tasks").chain(names("new_tasks")) {
        if !report.tasks.iter().any(|task| task.name == name) {
            report
                .notes
                .push(format!("task `{name}` has no table of virtual tokens"));
            report.tasks.push(Task {
                name: name.to_owned(),
                ..Task::default()
            });
        }
    }
    let templates = config.get("task_templates").and_then(Value::as_sequence);
    for template in templates.into_iter().flatten() {
        let Ok(template) = serde_yaml::from_value::<TaskTemplateSection>(template.clone()) else {
            report
                .notes
                .push("a task template does not have the keys of one".to_owned());
            continue;
        };
        let task = report
            .tasks
            .iter_mut()
            .find(|task| task.name == template.taskname);
        let Some(task) = task else {
            continue;
        };
        if let Some(rows) = task
            .virtual_tokens
            .filter(|rows| *rows != template.total_virtual_tokens)
        {
            report.notes.push(format!(
                "task `{}` has {rows} virtual tokens and its template {}",
                task.name, template.total_virtual_tokens
            ));
        }
        task.prompt_template = Some(template.prompt_template);
        task.virtual_token_splits = template.virtual_token_splits;
        task.answer_field = template.answer_field;
        task.truncate_field = template.truncate_field;
    }
}
