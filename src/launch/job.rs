//! One job, as every scheduler needs to know it.

use std::fmt;
use std::path::PathBuf;

use super::JobPaths;
use super::quote::shell_quote;
use crate::schema::WorkerJob;

/// `cluster_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterType {
    /// `bcm`: Slurm (the name is that of Base Command Manager).
    Slurm,
    /// `bcp`: inside a job of Base Command Platform.
    Bcp,
    /// `interactive`: this machine, in the foreground.
    Interactive,
}

impl ClusterType {
    /// The names accepted, for messages.
    pub const NAMES: [&'static str; 3] = ["bcm", "bcp", "interactive"];

    /// The type of that name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_lowercase().as_str() {
            "bcm" | "slurm" => Some(Self::Slurm),
            "bcp" => Some(Self::Bcp),
            "interactive" => Some(Self::Interactive),
            _ => None,
        }
    }

    /// The name that configurations use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slurm => "bcm",
            Self::Bcp => "bcp",
            Self::Interactive => "interactive",
        }
    }
}

/// A script ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its text.
    pub text: String,
}

/// Commands that share one `srun`, `bcprun` or shell; each starts when the one before it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandGroup {
    /// The commands.
    pub commands: Vec<Command>,
}

/// One command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Variables set for this command alone.
    pub environment: Vec<(String, String)>,
    /// Lines of words; all lines but the last end in a backslash.
    pub lines: Vec<Vec<String>>,
}

impl Command {
    /// The command as a shell reads it, broken into its lines.
    pub fn shell_lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .lines
            .iter()
            .map(|words| {
                let words: Vec<String> = words.iter().map(|word| shell_quote(word)).collect();
                words.join(" ")
            })
            .collect();
        if let Some(first) = lines.first_mut() {
            for (name, value) in self.environment.iter().rev() {
                first.insert_str(0, &format!("{name}={} ", shell_quote(value)));
            }
        }
        lines
    }
}

/// What a job needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Nodes.
    pub nodes: usize,
    /// Tasks on each node.
    pub ntasks_per_node: usize,
    /// Slurm's notation, handed on as it is.
    pub time_limit: Option<String>,
}

/// What a job waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// As the configuration says (`singleton`).
    Text(String),
    /// The end of another job, however it ended.
    AfterAny(String),
    /// The success of another job.
    AfterOk(String),
    /// The success of the task with the same number of another array.
    AfterCorresponding(String),
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::AfterAny(id) => write!(f, "afterany:{id}"),
            Self::AfterCorresponding(id) => write!(f, "aftercorr:{id}"),
            Self::AfterOk(id) => write!(f, "afterok:{id}"),
        }
    }
}

/// One job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// What it does.
    pub stage: WorkerJob,
    /// Its name, prefix included.
    pub name: String,
    /// Its files.
    pub paths: JobPaths,
    /// Its log, where it runs under the launcher's eyes; Slurm names logs by the number of the job.
    pub log_file: Option<PathBuf>,
    /// Where its tasks keep what they have reached (checkpoints, predictions so far).
    pub state_folder: PathBuf,
    /// What it runs.
    pub groups: Vec<CommandGroup>,
    /// What it needs.
    pub resources: Resources,
    /// What it waits for.
    pub dependency: Option<Dependency>,
    /// Variables of the whole job.
    pub environment: Vec<(String, String)>,
}

impl JobSpec {
    /// `NAME=value` lines for `export`, quoted.
    pub(super) fn exports(&self) -> Vec<String> {
        self.environment
            .iter()
            .map(|(name, value)| format!("{name}={}", shell_quote(value)))
            .collect()
    }
}
