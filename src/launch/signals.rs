//! Signals that a job should hear about, passed on to the process groups that do its work.
#![expect(
    unsafe_code,
    reason = "sending a signal to a process group is a C call"
)]

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM and SIGUSR1 of this process.
pub(super) struct Forwarded {
    interrupt: Signal,
    terminate: Signal,
    user: Signal,
}

impl Forwarded {
    /// From now on they no longer end this process.
    pub(super) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            user: listen(SignalKind::user_defined1())?,
        })
    }

    /// The number of the next one.
    pub(super) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.terminate.recv() => libc::SIGTERM,
            _ = self.user.recv() => libc::SIGUSR1,
        }
    }
}

/// Sends a signal to the process group that `leader` leads.
pub(super) fn send_to_group(leader: Option<u32>, signal: i32) {
    if let Some(leader) = leader.and_then(|id| i32::try_from(id).ok()) {
        // SAFETY: no memory is involved; the group is the one that was made for this child.
        unsafe {
            libc::kill(-leader, signal);
        }
    }
}

/// Has a command asked to end when the process that starts it ends, however that one ends.
#[cfg(target_os = "linux")]
pub(super) fn end_with_parent(command: &mut tokio::process::Command) {
    // SAFETY: between fork and exec only this one call is made, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
}

/// Has a command asked to end when the process that starts it ends (Linux only).
#[cfg(not(target_os = "linux"))]
pub(super) fn end_with_parent(_: &mut tokio::process::Command) {}
