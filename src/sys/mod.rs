//! The outside world in one place: files written whole, environment variables, signals, memory, time, random
//! numbers.

pub mod atomic_file;
pub mod clock;
pub mod env_vars;
#[cfg(feature = "worker")]
pub mod memory;
pub mod process;
#[cfg(feature = "worker")]
pub mod rng;
pub mod shell_words;
pub mod shutdown;
