//! Where a job's files are: names as the original launcher gives them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The files of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPaths {
    /// `run.results_dir`, absolute.
    pub folder: PathBuf,
    /// Name of the job, which the file names begin with.
    pub job_name: String,
}

impl JobPaths {
    /// The files of job `job_name` in `results_dir`, which may begin with `~` or be relative to the current folder.
    ///
    /// # Errors
    /// The current folder cannot be found.
    pub fn new(results_dir: &Path, job_name: &str) -> Result<Self> {
        Ok(Self {
            folder: absolute(results_dir)?,
            job_name: job_name.to_owned(),
        })
    }

    /// Where the worker writes.
    pub fn results(&self) -> PathBuf {
        self.folder.join("results")
    }

    /// The resolved section, read by the worker.
    pub fn config_file(&self) -> PathBuf {
        self.folder.join(format!("{}_hydra.yaml", self.job_name))
    }

    /// The job script.
    pub fn script_file(&self) -> PathBuf {
        self.folder.join(format!("{}_submission.sh", self.job_name))
    }

    /// The command line that made the job.
    pub fn command_file(&self) -> PathBuf {
        self.folder.join("launcher_cmd.log")
    }

    /// What the scheduler answered.
    pub fn launcher_log(&self) -> PathBuf {
        self.folder.join("launcher.log")
    }

    /// A log of the job; `tag` is Slurm's pattern for the job number, or a time.
    pub fn log_file(&self, tag: &str, extension: &str) -> PathBuf {
        self.folder
            .join(format!("log-{}_{tag}.{extension}", self.job_name))
    }
}

/// An absolute path with `~` replaced; `..` and links stay as they are.
///
/// # Errors
/// The current folder cannot be found.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    let expanded = match path.strip_prefix("~") {
        Ok(rest) => match crate::sys::env_vars::get("HOME") {
            Some(home) => Path::new(&home).join(rest),
            None => path.to_owned(),
        },
        Err(_) => path.to_owned(),
    };
    // `./results` would print as `/here/./results`.
    let clean: PathBuf = expanded
        .components()
        .filter(|part| !matches!(part, std::path::Component::CurDir))
        .collect();
    std::path::absolute(&clean)
        .or_else(|_| std::env::current_dir())
        .with_context(|| format!("making `{}` absolute", path.display()))
}
