//! Tasks of prompt archives: what they are, renamed, removed, merged. The virtual tokens themselves are never changed.

use std::path::PathBuf;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use indexmap::IndexMap;
use sha2::{Digest, Sha256};

use super::nemo::PromptArchive;
use crate::diag::Diagnostic;
use crate::diag::suggest::did_you_mean;
use crate::schema::TaskTemplateSection;
use crate::sys::hexadecimal;

/// One task of an archive, described.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TaskSummary {
    /// Its name.
    pub task: String,
    /// Number of virtual tokens.
    pub virtual_tokens: usize,
    /// Width of each.
    pub hidden_size: usize,
    /// Mean Euclidean length of the virtual tokens.
    pub mean_norm: f64,
    /// SHA-256 of the rows as little-endian f32, in hexadecimal: equal for equal virtual tokens, whatever file they are in.
    pub sha256: String,
    /// How its rows become prompts, where the archive says it.
    pub prompt_template: Option<String>,
}

/// Every task of the archive, in its order.
pub fn summaries(archive: &PromptArchive) -> Result<Vec<TaskSummary>> {
    let templates = archive.settings()?.task_templates;
    let mut summaries = vec![];
    for (task, rows) in &archive.tasks {
        let (virtual_tokens, hidden_size) = rows.dims2()?;
        let template = templates.iter().find(|template| template.taskname == *task);
        let values = rows
            .to_device(&Device::Cpu)?
            .to_dtype(DType::F32)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        let norms = values.chunks(hidden_size.max(1)).map(|row| {
            row.iter()
                .map(|value| f64::from(*value).powi(2))
                .sum::<f64>()
                .sqrt()
        });
        summaries.push(TaskSummary {
            task: task.clone(),
            virtual_tokens,
            hidden_size,
            mean_norm: norms.sum::<f64>() / virtual_tokens.max(1) as f64,
            sha256: hash(&values),
            prompt_template: template.map(|template| template.prompt_template.clone()),
        });
    }
    Ok(summaries)
}

/// SHA-256 of `values` as little-endian f32, in hexadecimal.
fn hash(values: &[f32]) -> String {
    let mut digest = Sha256::new();
    for value in values {
        digest.update(value.to_le_bytes());
    }
    hexadecimal(&digest.finalize())
}

/// The archive with task `from` under the name `to`.
///
/// # Errors
/// When there is no such task, or the new name is taken.
pub fn rename(archive: &PromptArchive, from: &str, to: &str) -> Result<PromptArchive> {
    check_known(archive, from)?;
    if archive.tasks.contains_key(to) {
        return Err(
            Diagnostic::configuration(format!("the archive has a task `{to}` already")).into(),
        );
    }
    let new_name = |name: &str| {
        if name == from {
            to.to_owned()
        } else {
            name.to_owned()
        }
    };
    let tasks = archive
        .tasks
        .iter()
        .map(|(task, rows)| (new_name(task), rows.clone()))
        .collect();
    let templates = archive
        .settings()?
        .task_templates
        .into_iter()
        .map(|template| TaskTemplateSection {
            taskname: new_name(&template.taskname),
            ..template
        })
        .collect();
    archive.with_tasks(tasks, templates)
}

/// The archive without the tasks `names`.
///
/// # Errors
/// When one of them is not there, or none would be left.
pub fn remove(archive: &PromptArchive, names: &[String]) -> Result<PromptArchive> {
    for name in names {
        check_known(archive, name)?;
    }
    let mut tasks = archive.tasks.clone();
    tasks.retain(|task, _| !names.contains(task));
    if tasks.is_empty() {
        return Err(Diagnostic::configuration("no task would be left")
            .note("an archive holds one task at least; remove the file to remove them all")
            .into());
    }
    let mut templates = archive.settings()?.task_templates;
    templates.retain(|template| !names.contains(&template.taskname));
    archive.with_tasks(tasks, templates)
}

/// One archive with the tasks of all, in their order; its settings are those of the first.
///
/// # Errors
/// When a name stands in two archives with different virtual tokens, or the widths differ.
pub fn merge(archives: &[(PathBuf, PromptArchive)]) -> Result<PromptArchive> {
    let Some((_, first)) = archives.first() else {
        return Err(Diagnostic::configuration("there is no archive to merge").into());
    };
    let mut tasks = IndexMap::<String, Tensor>::new();
    let mut origins = IndexMap::<String, &PathBuf>::new();
    let mut templates: Vec<TaskTemplateSection> = vec![];
    let width = first.tasks.values().next().map_or(0, |rows| rows.dims()[1]);
    for (path, archive) in archives {
        for (task, rows) in &archive.tasks {
            if rows.dims()[1] != width {
                return Err(Diagnostic::configuration(format!(
                    "task `{task}` of {} is {} wide, the tasks of {} are {width}",
                    path.display(),
                    rows.dims()[1],
                    archives[0].0.display()
                ))
                .note("one archive is for one base model")
                .into());
            }
            match tasks.get(task) {
                None => {
                    tasks.insert(task.clone(), rows.clone());
                    origins.insert(task.clone(), path);
                }
                Some(known) if known.to_vec2::<f32>()? == rows.to_vec2::<f32>()? => {}
                Some(_) => {
                    return Err(Diagnostic::configuration(format!(
                        "task `{task}` is in two archives with different virtual tokens"
                    ))
                    .note(format!("in {}", origins[task].display()))
                    .note(format!("in {}", path.display()))
                    .hint(format!(
                        "ptune prompt rename {} {task} {task}_2",
                        path.display()
                    ))
                    .into());
                }
            }
        }
        for template in archive.settings()?.task_templates {
            if templates
                .iter()
                .all(|known| known.taskname != template.taskname)
            {
                templates.push(template);
            }
        }
    }
    first.with_tasks(tasks, templates)
}

fn check_known(archive: &PromptArchive, task: &str) -> Result<(), Diagnostic> {
    if archive.tasks.contains_key(task) {
        return Ok(());
    }
    let names: Vec<&str> = archive.tasks.keys().map(String::as_str).collect();
    let missing = Diagnostic::configuration(format!("the archive has no task `{task}`"))
        .note(format!("it holds: {}", names.join(", ")));
    Err(match did_you_mean(task, names.iter().copied()) {
        Some(near) => missing.hint(format!("did you mean `{near}`?")),
        None => missing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::PromptLearningModel;

    fn archive(tasks: &[(&str, f32)]) -> PromptArchive {
        let rows: Vec<(&str, Tensor)> = tasks
            .iter()
            .map(|(task, value)| (*task, Tensor::full(*value, (2, 3), &Device::Cpu).unwrap()))
            .collect();
        let model = PromptLearningModel {
            task_templates: tasks
                .iter()
                .map(|(task, _)| TaskTemplateSection {
                    taskname: (*task).to_owned(),
                    prompt_template: format!("<|VIRTUAL_PROMPT_0|>{task}: {{text}}"),
                    total_virtual_tokens: 2,
                    virtual_token_splits: vec![2],
                    ..TaskTemplateSection::default()
                })
                .collect(),
            ..PromptLearningModel::default()
        };
        let named = rows.iter().map(|(task, rows)| (*task, rows));
        PromptArchive::new(model, "32", named, false).unwrap()
    }

    fn names(archive: &PromptArchive) -> Vec<&str> {
        archive.tasks.keys().map(String::as_str).collect()
    }

    #[test]
    fn a_task_keeps_its_virtual_tokens_and_its_template_under_a_new_name() {
        let before = archive(&[("a", 1.0), ("b", 2.0)]);
        let after = rename(&before, "a", "c").unwrap();
        assert_eq!(names(&after), ["c", "b"]);
        let (old, new) = (summaries(&before).unwrap(), summaries(&after).unwrap());
        assert_eq!(old[0].sha256, new[0].sha256);
        assert_ne!(new[0].sha256, new[1].sha256);
        assert_eq!(new[0].prompt_template, old[0].prompt_template);
        assert_eq!(after.settings().unwrap().existing_tasks, ["c", "b"]);
        assert!((new[0].mean_norm - 3f64.sqrt()).abs() < 1e-9);
        assert!(rename(&before, "a", "b").is_err());
        let unknown = rename(&before, "aa", "c").unwrap_err().to_string();
        assert!(unknown.contains("did you mean `a`?"), "{unknown}");
    }

    #[test]
    fn the_last_task_cannot_be_removed() {
        let both = archive(&[("a", 1.0), ("b", 2.0)]);
        let one = remove(&both, &["a".into()]).unwrap();
        assert_eq!(names(&one), ["b"]);
        assert_eq!(one.settings().unwrap().task_templates.len(), 1);
        assert!(remove(&one, &["b".into()]).is_err());
    }

    #[test]
    fn merging_takes_equal_tasks_once_and_refuses_different_ones_of_one_name() {
        let path = |name: &str| PathBuf::from(name);
        let merged = merge(&[
            (path("1"), archive(&[("a", 1.0)])),
            (path("2"), archive(&[("a", 1.0), ("b", 2.0)])),
        ])
        .unwrap();
        assert_eq!(names(&merged), ["a", "b"]);
        assert_eq!(merged.settings().unwrap().task_templates.len(), 2);
        let clash = merge(&[
            (path("1.nemo"), archive(&[("a", 1.0)])),
            (path("2.nemo"), archive(&[("a", 3.0)])),
        ])
        .unwrap_err()
        .to_string();
        assert!(
            clash.contains("in 1.nemo") && clash.contains("in 2.nemo"),
            "{clash}"
        );
    }
}
