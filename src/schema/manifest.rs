//! `job.json`: what a results folder says about the job that was started in it.

use std::path::PathBuf;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::WorkerJob;

/// Written beside the job script, for people and for `ptune status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobManifest {
    /// Version of ptune that wrote it.
    pub ptune_version: String,
    /// Local time, RFC 3339.
    pub created: String,
    /// The launcher's arguments.
    pub command_line: Vec<String>,
    /// Chosen option of each group.
    pub choices: IndexMap<String, Option<String>>,
    /// What the job does.
    pub stage: WorkerJob,
    /// Its name, prefix included.
    pub job_name: String,
    /// `bcm`, `bcp` or `interactive`.
    pub cluster_type: String,
    /// The resolved section.
    pub config_file: PathBuf,
    /// The script.
    pub script_file: PathBuf,
    /// The log, where its name is known.
    pub log_file: Option<PathBuf>,
    /// The scheduler's number, where the job was submitted.
    pub job_id: Option<String>,
    /// The process on this machine that runs the job, which leads a process group of its own.
    #[serde(default)]
    pub process: Option<u32>,
    /// How a job on this machine ended.
    #[serde(default)]
    pub exit_status: Option<i32>,
    /// Whether the kernel killed a process for memory while a job that was killed ran.
    #[serde(default)]
    pub out_of_memory: bool,
    /// The machine that `process` and `launcher` are on.
    #[serde(default)]
    pub host: Option<String>,
    /// When `process` started, which tells it from a later one with its number.
    #[serde(default)]
    pub process_started: Option<u64>,
    /// The launcher that runs the stages of a chain here one after another, and when it started.
    #[serde(default)]
    pub launcher: Option<(u32, u64)>,
}

impl JobManifest {
    /// File name in the results folder.
    pub const FILE_NAME: &'static str = "job.json";
}
