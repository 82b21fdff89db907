//! The last launch of this user, for `status`, `logs` and `cancel` without a folder.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::sys::{atomic_file, clock, env_vars};

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastLaunch {
    /// Local time, RFC 3339.
    pub created: String,
    /// The results folders of its jobs, absolute, in order.
    pub folders: Vec<PathBuf>,
}

fn file() -> Option<PathBuf> {
    let state = env_vars::get(env_vars::XDG_STATE_HOME)
        .map(PathBuf::from)
        // The standard wants relative ones ignored.
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(env_vars::get(env_vars::HOME)?).join(".local/state")))?;
    Some(state.join("ptune/last_launch.json"))
}

/// Remembers a launch in place of the one before it.
///
/// # Errors
/// There is no place to write to.
pub fn remember(folders: Vec<PathBuf>) -> Result<()> {
    let file = file().context("there is no home")?;
    let launch = LastLaunch {
        created: clock::timestamp(),
        folders,
    };
    atomic_file::write_unflushed(&file, serde_json::to_string(&launch)?)?;
    Ok(())
}

/// The last launch, where one is remembered.
pub fn last() -> Option<LastLaunch> {
    let text = fs_err::read_to_string(file()?).ok()?;
    serde_json::from_str(&text).ok()
}
