//! The `ptune` binary: parse, run, show the error, choose the exit status.

#[cfg(feature = "worker")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Freed pages stay with the process: a training step frees and asks for the same buffers again and again, and fresh
/// pages from the kernel cost it some 7 % of its time. `MIMALLOC_PURGE_DELAY` still overrides it.
#[cfg(feature = "worker")]
#[expect(unsafe_code, reason = "mimalloc is a C library")]
fn keep_freed_pages() {
    /// `mi_option_purge_delay` of mimalloc 2 and 3.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: sets one number of the allocator's options; it may be called at any time.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, -1) };
}

fn main() -> std::process::ExitCode {
    #[cfg(feature = "worker")]
    keep_freed_pages();
    ptune::cli::main()
}
