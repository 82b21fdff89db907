#![expect(unsafe_code, reason = "installing a signal handler is a C call")]
//! A request to stop: set by SIGTERM, SIGINT or SIGUSR1, looked at between two steps of long work.

use std::sync::atomic::{AtomicI32, Ordering};

/// Exit status of a job that was told to stop, saved its state and can be queued again (`EX_TEMPFAIL`).
pub const EXIT_STOPPED: i32 = 75;

static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Whether somebody asked this process to stop, and with which signal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shutdown;

impl Shutdown {
    /// Starts listening. A second signal of the same kind ends the process as usual.
    #[cfg(unix)]
    pub fn listen() -> Self {
        extern "C" fn remember(signal: libc::c_int) {
            SIGNAL.store(signal, Ordering::SeqCst);
        }
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1] {
            let mut action: libc::sigaction =
                // SAFETY: an all-zero sigaction is a valid value of that C structure.
                unsafe { std::mem::zeroed() };
            action.sa_sigaction = remember as *const () as usize;
            action.sa_flags = libc::SA_RESTART | libc::SA_RESETHAND;
            // SAFETY: `action` is initialised, and the handler only stores to an atomic, which is async-signal-safe.
            unsafe {
                libc::sigaction(signal, &raw const action, std::ptr::null_mut());
            }
        }
        // A file that grows beyond `ulimit -f` is then an error that can be told, not the silent end of the process.
        // SAFETY: sets how one signal is met, and no handler runs.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        }
        Self
    }

    /// Starts listening (signals do not exist here).
    #[cfg(not(unix))]
    pub fn listen() -> Self {
        Self
    }

    /// The number of the signal that asked us to stop.
    pub fn requested(self) -> Option<i32> {
        match SIGNAL.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal),
        }
    }
}
