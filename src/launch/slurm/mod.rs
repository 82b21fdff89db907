//! Slurm: `#SBATCH` lines and `srun`, in the order and spelling of the original launcher.

pub mod array;
mod options;
mod preemption;

use std::collections::BTreeMap;

use anyhow::Result;
use minijinja::context;
use serde_yaml::Value;

use super::quote::{inside_double_quotes, shell_quote};
use super::{Cluster, JobSpec, Script, Templates};
use crate::diag::Diagnostic;
use crate::diag::suggest::did_you_mean;
use options::SBATCH_OPTIONS;
pub use preemption::Preemption;

/// Keys of `cluster` that are not options of sbatch.
const NOT_DIRECTIVES: [&str; 7] = [
    "setup",
    "heterogeneous",
    "stderr_to_stdout",
    "enable_vboost",
    "num_gpus",
    Preemption::LIMIT_KEY,
    array::LIMIT_KEY,
];

/// Text of a YAML value as Python's `str` gives it.
pub fn python_text(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Sequence(items) => {
            let items: Vec<String> = items
                .iter()
                .filter(|item| !item.is_null())
                .map(python_text)
                .collect();
            items.join(",")
        }
        Value::Mapping(_) | Value::Tagged(_) => serde_yaml::to_string(value)
            .unwrap_or_default()
            .trim()
            .to_owned(),
    }
}

/// `cluster.mem` is in GB; a text is handed on as it is.
fn memory_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Number(number) => {
            let gigabytes = number.as_f64()?;
            Some(if gigabytes == 0.0 {
                "0".to_owned()
            } else if gigabytes.fract() == 0.0 {
                format!("{}GB", gigabytes as u64)
            } else {
                format!("{}MB", (gigabytes * 1024.0) as u64)
            })
        }
        other => Some(python_text(other)),
    }
}

/// The `#SBATCH` lines without that word, sorted by key as the original sorts them.
pub fn directives(cluster: &Cluster, job: &JobSpec) -> (Vec<String>, Vec<Diagnostic>) {
    let mut odd = vec![];
    // Ordered by the key with its underscores: `gpus_per_node` < `gpus_per_task`, `nodelist` < `nodes`.
    let mut lines: BTreeMap<String, Option<String>> = BTreeMap::new();
    for (key, value) in &cluster.section.directives {
        let key = key.replace('-', "_");
        if let Some(near) = misspelt(&key) {
            odd.push(
                Diagnostic::configuration(format!(
                    "`cluster.{key}` is not an option of sbatch that is known here"
                ))
                .note(format!(
                    "the script asks for it all the same; did you mean `{near}`?"
                )),
            );
        }
        let key = if key == "num_gpus" {
            "gpus_per_node".to_owned()
        } else {
            key
        };
        if NOT_DIRECTIVES.contains(&key.as_str()) {
            continue;
        }
        match value {
            Value::Null | Value::Bool(false) => {}
            Value::Bool(true) => {
                lines.insert(key, None);
            }
            _ if key == "mem" => {
                if let Some(text) = memory_text(value) {
                    lines.insert(key, Some(text));
                }
            }
            _ if key == "signal" => {
                let (signal, shortened) = preemption::signal(&python_text(value), job);
                odd.extend(shortened);
                if let Some(signal) = signal {
                    lines.insert(key, Some(signal));
                }
            }
            _ => {
                lines.insert(key, Some(python_text(value)));
            }
        }
    }
    if let (Some(Some(gpus)), tasks) = (lines.get("gpus_per_node"), job.resources.ntasks_per_node)
        && let Ok(gpus) = gpus.parse::<usize>()
        && gpus < tasks
    {
        odd.push(Diagnostic::configuration(format!(
            "job `{}` starts {tasks} tasks on each node, and `cluster.gpus_per_node` asks for {gpus} GPUs",
            job.name
        )));
    }
    let (output, error) = log_patterns(cluster, job);
    lines.insert("job_name".into(), Some(job.name.clone()));
    lines.insert("nodes".into(), Some(job.resources.nodes.to_string()));
    lines.insert(
        "ntasks_per_node".into(),
        Some(job.resources.ntasks_per_node.to_string()),
    );
    if let Some(limit) = &job.resources.time_limit {
        lines.insert("time".into(), Some(limit.clone()));
    }
    if let Some(dependency) = &job.dependency {
        lines.insert("dependency".into(), Some(dependency.to_string()));
    }
    lines.insert("output".into(), Some(output));
    if let Some(error) = error {
        lines.insert("error".into(), Some(error));
    }
    let lines = lines
        .into_iter()
        .map(|(key, value)| {
            let flag = hyphened(&key);
            match value {
                Some(value) => format!("{flag}={}", shell_quote(&value)),
                None => flag,
            }
        })
        .collect();
    (lines, odd)
}

fn hyphened(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

fn misspelt(key: &str) -> Option<&'static str> {
    if SBATCH_OPTIONS.contains(&key) || NOT_DIRECTIVES.contains(&key) {
        return None;
    }
    did_you_mean(key, SBATCH_OPTIONS)
}

/// Patterns of the output and, where it is a file of its own, the error log.
fn log_patterns(cluster: &Cluster, job: &JobSpec) -> (String, Option<String>) {
    let given = |key: &str| {
        cluster
            .section
            .directives
            .get(key)
            .is_some_and(|value| !value.is_null() && *value != Value::Bool(false))
    };
    if cluster.short_log_names {
        let path = job.paths.folder.join("slurm_%j.out").display().to_string();
        return (path.clone(), Some(path));
    }
    let tag = if given("array") { "%A_%a" } else { "%j" };
    let path = |extension| job.paths.log_file(tag, extension).display().to_string();
    let error = (!given("stderr_to_stdout")).then(|| path("err"));
    (path("out"), error)
}

/// Arguments of every `srun` of the job.
fn srun_arguments(cluster: &Cluster, job: &JobSpec) -> Vec<String> {
    let (output, error) = log_patterns(cluster, job);
    let mut words = vec!["--output".to_owned(), output];
    if let Some(error) = error {
        words.extend(["--error".to_owned(), error]);
    }
    words.extend(container_arguments(cluster));
    words.extend(further_arguments(cluster));
    if cluster.memory_measure {
        words.push("--overlap".to_owned());
    }
    words
}

fn container_arguments(cluster: &Cluster) -> Vec<String> {
    let mut words = vec![];
    if let Some(image) = &cluster.container {
        words.extend(["--container-image".to_owned(), image.clone()]);
        if !cluster.container_mounts.is_empty() {
            words.extend([
                "--container-mounts".to_owned(),
                cluster.container_mounts.join(","),
            ]);
        }
    }
    words
}

/// `cluster.srun_args`. Without an image pyxis may not be there, and then srun refuses its options.
fn further_arguments(cluster: &Cluster) -> Vec<String> {
    cluster
        .section
        .srun_args
        .iter()
        .filter(|word| {
            cluster.container.is_some()
                || !(word.starts_with("--container") || word.starts_with("--no-container"))
        })
        .cloned()
        .collect()
}

fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| shell_quote(word)).collect();
    words.join(" ")
}

/// The script.
///
/// # Errors
/// The template cannot be laid out.
pub fn render(
    cluster: &Cluster,
    job: &JobSpec,
    templates: &Templates,
) -> Result<(Script, Vec<Diagnostic>)> {
    let (directives, odd) = directives(cluster, job);
    let arguments = quoted(&srun_arguments(cluster, job));
    let groups: Vec<_> = job
        .groups
        .iter()
        .map(|group| {
            let commands: Vec<String> = group
                .commands
                .iter()
                .map(|command| {
                    // The batch shell reads the text between double quotes before srun's shell does.
                    let lines: Vec<String> = command
                        .shell_lines()
                        .iter()
                        .map(|line| inside_double_quotes(line))
                        .collect();
                    lines.join(" \\\n  ")
                })
                .collect();
            context! { arguments => arguments.clone(), commands }
        })
        .collect();
    let log = |tag: &str, extension| job.paths.log_file(tag, extension).display().to_string();
    let vboost = cluster.enable_vboost.then(|| {
        let mut words = vec![
            format!("--ntasks={}", job.resources.nodes),
            "--output".into(),
            log("vboost_%j", "out"),
            "--error".into(),
            log("vboost_err_%j", "err"),
        ];
        words.extend(further_arguments(cluster));
        format!(
            "srun {} bash -c \"\n  sudo nvidia-smi boost-slider --vboost 1 \"",
            quoted(&words)
        )
    });
    let memory_measure = cluster.memory_measure.then(|| {
        let mut words = vec![
            "--ntasks=1".to_owned(),
            "--ntasks-per-node=1".into(),
            "--output".into(),
            log("mem_%j", "out"),
        ];
        words.extend(container_arguments(cluster));
        words.extend(further_arguments(cluster));
        words.push("--overlap".into());
        format!(
            "srun {} \\\n  nvidia-smi --query-gpu=timestamp,index,memory.total,memory.free,memory.used \
             --format=csv -l 1 & ",
            quoted(&words)
        )
    });
    let text = templates.render(
        "slurm.sh.j2",
        context! {
            directives,
            exports => job.exports(),
            groups,
            vboost,
            memory_measure,
            preemption => Preemption::of(cluster, job)?.map(|preemption| preemption.values()),
        },
    )?;
    Ok((Script { text }, odd))
}

/// The job number in what `sbatch` printed: `Submitted batch job 123 on cluster c1`, or `123;c1` of `--parsable`.
pub fn parse_job_id(output: &str) -> Option<String> {
    let digits = |text: &str| {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        (!digits.is_empty()).then_some(digits)
    };
    // A site's own remarks may stand around the answer, and speak of jobs too.
    for words in ["Submitted batch job ", "job "] {
        let mut found = output.match_indices(words);
        if let Some(id) = found.find_map(|(at, _)| digits(&output[at + words.len()..])) {
            return Some(id);
        }
    }
    let first = output.trim().split(';').next()?;
    digits(first).filter(|id| id == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_number_is_found_in_both_of_sbatchs_answers() {
        assert_eq!(
            parse_job_id("Submitted batch job 123 on cluster c1\n").as_deref(),
            Some("123")
        );
        assert_eq!(parse_job_id("77;c1\n").as_deref(), Some("77"));
        assert_eq!(
            parse_job_id("note: each job counts, as did job 9\nSubmitted batch job 77\n")
                .as_deref(),
            Some("77")
        );
        assert_eq!(parse_job_id("job accepted, job 5").as_deref(), Some("5"));
        assert_eq!(parse_job_id("sbatch: error: nope"), None);
        assert_eq!(parse_job_id("hello"), None);
    }

    #[test]
    fn memory_is_in_gigabytes_and_a_fraction_in_megabytes() {
        assert_eq!(memory_text(&0.into()).as_deref(), Some("0"));
        assert_eq!(memory_text(&64.into()).as_deref(), Some("64GB"));
        assert_eq!(memory_text(&1.5.into()).as_deref(), Some("1536MB"));
        assert_eq!(memory_text(&"64G".into()).as_deref(), Some("64G"));
        assert_eq!(memory_text(&Value::Null), None);
    }
}
