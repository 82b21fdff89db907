//! Every environment variable that ptune reads or sets, with what it is for.

/// Filter of the log on standard error, as `tracing` understands it (`debug`, `ptune::train=trace`).
pub const PTUNE_LOG: &str = "PTUNE_LOG";
/// Any value: no colours on a terminal (<https://no-color.org>).
pub const NO_COLOR: &str = "NO_COLOR";
/// Any value: no progress bars on a terminal.
pub const PTUNE_NO_PROGRESS: &str = "PTUNE_NO_PROGRESS";
/// `1`: write job scripts, submit nothing (the original launcher's name for it).
pub const NEMO_LAUNCHER_DEBUG: &str = "NEMO_LAUNCHER_DEBUG";
/// Threads of the CPU kernels; all processors where it is not set.
pub const RAYON_NUM_THREADS: &str = "RAYON_NUM_THREADS";
/// Rank of this task in its job, set by Slurm.
pub const SLURM_PROCID: &str = "SLURM_PROCID";
/// Number of tasks in this job, set by Slurm.
pub const SLURM_NTASKS: &str = "SLURM_NTASKS";

/// The value of an environment variable, where it is set and Unicode.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place that reads them"
)]
pub fn get(name: &str) -> Option<String> {
    std::env::var(name).ok()
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
