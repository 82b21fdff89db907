//! Every environment variable that ptune reads or sets, with what it is for.

/// Filter of the log on standard error, as `tracing` understands it (`debug`, `ptune::train=trace`).
pub const PTUNE_LOG: &str = "PTUNE_LOG";
/// `1`: fetch nothing from the network.
pub const PTUNE_OFFLINE: &str = "PTUNE_OFFLINE";
/// Any value: no colours on a terminal (<https://no-color.org>).
pub const NO_COLOR: &str = "NO_COLOR";
/// Any value: no progress bars on a terminal.
pub const PTUNE_NO_PROGRESS: &str = "PTUNE_NO_PROGRESS";
/// `1`: write job scripts, submit nothing (the original launcher's name for it).
pub const NEMO_LAUNCHER_DEBUG: &str = "NEMO_LAUNCHER_DEBUG";
/// Seconds that a dry run may spend on the rows of one job; 10 where it is not set, 0 to leave checkpoints and rows alone.
pub const PTUNE_DRY_RUN_SECONDS: &str = "PTUNE_DRY_RUN_SECONDS";
/// `1`: short log names, as the original launcher's own CI wants them.
pub const NEMO_LAUNCHER_CI: &str = "NEMO_LAUNCHER_CI";
/// `1`: record GPU memory beside the job.
pub const NEMO_LAUNCHER_MEMORY_MEASURE: &str = "NEMO_LAUNCHER_MEMORY_MEASURE";
/// A file to which the log is written as well; set by the launcher for jobs on this machine.
pub const PTUNE_LOG_FILE: &str = "PTUNE_LOG_FILE";
/// The user's folder, for `~`.
pub const HOME: &str = "HOME";
/// Where programs are looked for.
pub const PATH: &str = "PATH";
/// Where Python looks for packages, for `pkg://` in a search path.
pub const PYTHONPATH: &str = "PYTHONPATH";
/// Folder of the Python environment in use, for the same.
pub const VIRTUAL_ENV: &str = "VIRTUAL_ENV";
/// Folder of the Conda environment in use, for the same.
pub const CONDA_PREFIX: &str = "CONDA_PREFIX";
/// The line to complete, set by a shell that asks for candidates.
pub const COMP_LINE: &str = "COMP_LINE";
/// How many characters of that line stand before the cursor.
pub const COMP_POINT: &str = "COMP_POINT";
/// Threads of the CPU kernels; all processors where it is not set.
pub const RAYON_NUM_THREADS: &str = "RAYON_NUM_THREADS";
/// Rank of this task in its job, set by Slurm.
pub const SLURM_PROCID: &str = "SLURM_PROCID";
/// Number of tasks in this job, set by Slurm.
pub const SLURM_NTASKS: &str = "SLURM_NTASKS";
/// How often this job has been put back into the queue, set by Slurm from the first time on.
pub const SLURM_RESTART_COUNT: &str = "SLURM_RESTART_COUNT";

/// Rank of this task in its job, as PyTorch's launchers and BCP set it.
pub const RANK: &str = "RANK";
/// Number of tasks, as PyTorch's launchers and BCP set it.
pub const WORLD_SIZE: &str = "WORLD_SIZE";
/// Rank of this task on its machine, set for the ranks of a job on this machine.
pub const LOCAL_RANK: &str = "LOCAL_RANK";
/// Number of tasks on this machine, set likewise.
pub const LOCAL_WORLD_SIZE: &str = "LOCAL_WORLD_SIZE";
/// Where programs keep what they remember from run to run; `~/.local/state` where it is not set.
pub const XDG_STATE_HOME: &str = "XDG_STATE_HOME";
/// Where programs keep what can be made again; `~/.cache` where it is not set.
pub const XDG_CACHE_HOME: &str = "XDG_CACHE_HOME";
/// Rank of this task in its job, set by Open MPI.
pub const OMPI_COMM_WORLD_RANK: &str = "OMPI_COMM_WORLD_RANK";
/// Number of tasks, set by Open MPI.
pub const OMPI_COMM_WORLD_SIZE: &str = "OMPI_COMM_WORLD_SIZE";

/// The value of an environment variable, where it is set and Unicode.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place that reads them"
)]
pub fn get(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether a switch is on: `1`, `t`, `true`, `y`, `yes` or `on` in any case.
///
/// # Errors
/// A sentence about a word that is neither yes nor no. (The original takes every such word for no, and submits jobs.)
pub fn flag(name: &str) -> Result<bool, String> {
    match get(name).as_deref().map(str::to_lowercase).as_deref() {
        None | Some("" | "0" | "f" | "false" | "n" | "no" | "off") => Ok(false),
        Some("1" | "t" | "true" | "y" | "yes" | "on") => Ok(true),
        Some(other) => Err(format!(
            "the environment variable `{name}` is `{other}`, expected 1 or 0"
        )),
    }
}

/// Every environment variable with a Unicode name and value.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place that reads them"
)]
pub fn all() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Variables of this process that have other values until this is dropped.
#[derive(Debug)]
pub struct Scope {
    before: Vec<(String, Option<std::ffi::OsString>)>,
}

impl Scope {
    /// Sets variables. Only for the launcher's thread, while no other is running.
    #[expect(
        unsafe_code,
        clippy::disallowed_methods,
        reason = "`hydra.job.env_set` sets variables of the process and of those it starts"
    )]
    pub fn set(variables: &[(String, String)]) -> Self {
        let mut before = vec![];
        for (name, value) in variables {
            // What the C library refuses would panic.
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                tracing::warn!("`{name}` cannot be the name of an environment variable");
                continue;
            }
            before.push((name.clone(), std::env::var_os(name)));
            // SAFETY: the launcher has one thread.
            unsafe { std::env::set_var(name, value) };
        }
        Self { before }
    }
}

impl Drop for Scope {
    #[expect(unsafe_code, reason = "as in `set`")]
    fn drop(&mut self) {
        for (name, value) in self.before.drain(..).rev() {
            // SAFETY: as in `set`.
            unsafe {
                match value {
                    Some(value) => std::env::set_var(&name, value),
                    None => std::env::remove_var(&name),
                }
            }
        }
    }
}
