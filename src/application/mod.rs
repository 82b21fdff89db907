//! What `@hydra.main` is to a program in Python: the command line, and what becomes of it.

pub mod completion;
mod logging;
mod run;
mod sweep;

pub use run::{Composition, Job, Task, run};
