//! Shell completion: what can follow on a command line, and the scripts that ask for it.

mod candidates;
mod helpful;
mod line;
mod shell;
mod words;

pub use candidates::candidates;
pub use helpful::{
    Asked, Candidate, Command, CommandOption, Expects, KnownValues, helpful, launcher_options,
};
pub use shell::shell_completion;
