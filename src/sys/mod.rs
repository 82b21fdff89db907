//! The outside world in one place: files written whole, environment variables, signals, memory, time, random
//! numbers; and hashes as text, which all layers write.

pub mod atomic_file;
pub mod clock;
pub mod env_vars;
mod hexadecimal;
#[cfg(feature = "worker")]
pub mod memory;
pub mod process;
#[cfg(feature = "worker")]
pub mod region;
#[cfg(feature = "worker")]
pub mod rng;
pub mod shell_words;
pub mod shutdown;

pub use hexadecimal::hexadecimal;
