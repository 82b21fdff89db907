//! `cluster`: what the scheduler is asked for.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use super::{Section, lenient};

/// `cluster`. Every key but two becomes a line for the scheduler, also keys that are not known here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterSection {
    /// Put in front of every job's name.
    #[serde(deserialize_with = "lenient::null_is_default")]
    pub job_name_prefix: String,
    /// Further arguments of every `srun`.
    #[serde(deserialize_with = "lenient::one_or_many")]
    pub srun_args: Vec<String>,
    /// Slurm directives by their key (`gpus_per_node` for `--gpus-per-node`), in the order given.
    #[serde(flatten)]
    pub directives: IndexMap<String, Value>,
}

// Not checked for unknown keys: a scheduler knows more of them than we do, and the launcher looks at each.
impl Section for ClusterSection {
    const TOLERATED: &'static [&'static str] = &[];
}
