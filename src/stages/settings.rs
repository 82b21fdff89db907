//! The top level of the configuration: which stages, where they run, with which environment.

use std::path::PathBuf;

use anyhow::Result;
use serde_yaml::Value;

use crate::config::ResolvedConfig;
use crate::diag::Diagnostic;
use crate::diag::suggest::did_you_mean;
use crate::launch::paths::absolute;
use crate::launch::slurm::{Preemption, python_text};
use crate::launch::{Cluster, ClusterType};
use crate::schema::{ClusterSection, WorkerJob};
use crate::sys::env_vars;

/// The keys of config.yaml that the launcher itself reads.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `stages`, in order.
    pub stages: Vec<WorkerJob>,
    /// Whether a stage waits for the success of the one before it, or only for its end.
    pub after_ok: bool,
    /// Where jobs run.
    pub cluster: Cluster,
    /// `env_vars` that are not null.
    pub environment: Vec<(String, String)>,
    /// `ptune_path`.
    pub program: Option<String>,
    /// `data_dir`.
    pub data_dir: PathBuf,
}

impl Settings {
    /// The keys that are read.
    pub const KEYS: [&'static str; 13] = [
        "stages",
        "stage_dependency",
        "cluster_type",
        "launcher_scripts_path",
        "data_dir",
        "base_results_dir",
        "container",
        "container_mounts",
        "ptune_path",
        "bcp_no_redirect",
        "enable_vboost",
        "env_vars",
        "cluster",
    ];

    /// Reads them.
    ///
    /// # Errors
    /// A name that does not exist, with those that do, or a value of a wrong type.
    pub fn read(config: &ResolvedConfig) -> Result<Self> {
        let cluster_type = text(config, "cluster_type")?.unwrap_or_else(|| "bcm".to_owned());
        let Some(cluster_type) = ClusterType::from_name(&cluster_type) else {
            return Err(unknown(config, "cluster_type", &cluster_type, &ClusterType::NAMES).into());
        };
        let stage_dependency =
            text(config, "stage_dependency")?.unwrap_or_else(|| "afterany".to_owned());
        let after_ok = match stage_dependency.as_str() {
            "afterany" => false,
            "afterok" => true,
            other => {
                return Err(
                    unknown(config, "stage_dependency", other, &["afterany", "afterok"]).into(),
                );
            }
        };
        let mut section: ClusterSection = match config.get("cluster") {
            Some(node) if !node.is_null() => config.extract("cluster")?,
            _ => ClusterSection::default(),
        };
        Preemption::add_defaults(&mut section);
        let container = text(config, "container")?.filter(|image| !image.is_empty());
        let data_dir = PathBuf::from(text(config, "data_dir")?.unwrap_or_else(|| "data".into()));
        Ok(Self {
            stages: asked_for(config)?,
            after_ok,
            environment: environment(config)?,
            program: text(config, "ptune_path")?,
            cluster: Cluster {
                cluster_type,
                section,
                container_mounts: mounts(config)?,
                container,
                bcp_no_redirect: flag(config, "bcp_no_redirect", true)?,
                enable_vboost: flag(config, "enable_vboost", false)?,
                short_log_names: switch(env_vars::NEMO_LAUNCHER_CI)?,
                memory_measure: switch(env_vars::NEMO_LAUNCHER_MEMORY_MEASURE)?,
            },
            data_dir,
        })
    }
}

/// A switch in the environment.
///
/// # Errors
/// A word that is neither yes nor no.
pub fn switch(name: &str) -> Result<bool> {
    env_vars::flag(name).map_err(|problem| Diagnostic::configuration(problem).into())
}

fn value(config: &ResolvedConfig, key: &str) -> Result<Value> {
    match config.get(key) {
        None => Ok(Value::Null),
        Some(_) => Ok(config.extract(key)?),
    }
}

fn text(config: &ResolvedConfig, key: &str) -> Result<Option<String>> {
    match value(config, key)? {
        Value::Null => Ok(None),
        value @ (Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            Ok(Some(python_text(&value)))
        }
        _ => Err(wrong(config, key, "expected a text").into()),
    }
}

fn flag(config: &ResolvedConfig, key: &str, default: bool) -> Result<bool> {
    match value(config, key)? {
        Value::Null => Ok(default),
        Value::Bool(value) => Ok(value),
        _ => Err(wrong(config, key, "expected True or False").into()),
    }
}

fn wrong(config: &ResolvedConfig, key: &str, problem: &str) -> Diagnostic {
    let diagnostic = Diagnostic::configuration(format!("`{key}`: {problem}"));
    match config.location(key) {
        Some(location) => diagnostic.at(location),
        None => diagnostic,
    }
}

fn unknown(config: &ResolvedConfig, key: &str, found: &str, names: &[&str]) -> Diagnostic {
    let diagnostic = wrong(config, key, &format!("`{found}` is not known"))
        .note(format!("expected one of: {}", names.join(", ")));
    match did_you_mean(found, names.iter().copied()) {
        Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
        None => diagnostic,
    }
}

/// `stages`: a list, or one name alone as the user guide's command lines have it.
///
/// # Errors
/// No stage, one that does not exist, or one twice.
pub fn asked_for(config: &ResolvedConfig) -> Result<Vec<WorkerJob>> {
    let names: Vec<String> = match value(config, "stages")? {
        Value::Null => vec![],
        Value::String(names) => names
            .split(',')
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect(),
        Value::Sequence(items) => items.iter().map(python_text).collect(),
        _ => return Err(wrong(config, "stages", "expected a list of stages").into()),
    };
    let known = WorkerJob::ALL.map(WorkerJob::name);
    if names.is_empty() {
        return Err(wrong(config, "stages", "no stage is asked for")
            .note(format!("known stages: {}", known.join(", ")))
            .hint("stages=[prompt_learning]")
            .into());
    }
    let mut stages = vec![];
    for name in &names {
        let stage =
            WorkerJob::from_name(name).ok_or_else(|| unknown(config, "stages", name, &known))?;
        if stages.contains(&stage) {
            return Err(wrong(config, "stages", &format!("`{name}` stands there twice")).into());
        }
        stages.push(stage);
    }
    Ok(stages)
}

fn environment(config: &ResolvedConfig) -> Result<Vec<(String, String)>> {
    let Value::Mapping(variables) = value(config, "env_vars")? else {
        return Ok(vec![]);
    };
    let mut environment = vec![];
    for (name, value) in &variables {
        if value.is_null() {
            continue;
        }
        let name = python_text(name);
        let is_name = name.chars().enumerate().all(|(index, c)| {
            c == '_' || c.is_ascii_alphabetic() || (index > 0 && c.is_ascii_digit())
        });
        if name.is_empty() || !is_name {
            return Err(wrong(
                config,
                "env_vars",
                &format!("`{name}` cannot be the name of an environment variable"),
            )
            .into());
        }
        environment.push((name, python_text(value)));
    }
    Ok(environment)
}

/// The three folders and `container_mounts`, each as `source:target`.
fn mounts(config: &ResolvedConfig) -> Result<Vec<String>> {
    let mut mounts = vec![];
    for key in ["launcher_scripts_path", "data_dir", "base_results_dir"] {
        if let Some(path) = text(config, key)? {
            let path = absolute(path.as_ref())?;
            mounts.push(format!("{0}:{0}", path.display()));
        }
    }
    match value(config, "container_mounts")? {
        Value::Null => {}
        Value::Sequence(items) => {
            for item in items.iter().filter(|item| !item.is_null()) {
                let item = python_text(item);
                mounts.push(if item.contains(':') {
                    item
                } else {
                    format!("{item}:{item}")
                });
            }
        }
        _ => return Err(wrong(config, "container_mounts", "expected a list").into()),
    }
    Ok(mounts)
}
