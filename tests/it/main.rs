//! Whole commands and whole subsystems, seen from outside.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

mod cli_messages;
mod command_line;
mod completion;
mod compose;
mod config_verbs;
#[cfg(feature = "worker")]
mod conversion;
mod differences;
mod launch_follow;
mod launch_local;
mod launch_ranks;
mod launch_scripts;
mod launch_table;
mod layers;
#[cfg(feature = "worker")]
mod readme;
mod sandbox;
mod shipped_configs;
mod sweeps;

#[cfg(feature = "worker")]
mod counting;
#[cfg(feature = "worker")]
mod dry_run;
#[cfg(feature = "worker")]
mod generate;
#[cfg(feature = "worker")]
mod hostile;
#[cfg(feature = "worker")]
mod inspect;
#[cfg(feature = "worker")]
mod kills;
#[cfg(feature = "worker")]
mod nemo_models;
#[cfg(feature = "worker")]
mod prompt_files;
#[cfg(feature = "worker")]
mod quickstart;
#[cfg(feature = "worker")]
mod tiny_models;
#[cfg(feature = "worker")]
mod tokenize;
#[cfg(feature = "worker")]
mod worker_data;
#[cfg(feature = "worker")]
mod worker_eval;
#[cfg(feature = "worker")]
mod worker_resume;
#[cfg(feature = "worker")]
mod worker_starts;
#[cfg(feature = "worker")]
mod worker_train;
#[cfg(feature = "worker")]
mod worker_training_keys;
