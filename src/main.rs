//! The `ptune` binary: parse, run, show the error, choose the exit status.

#[cfg(feature = "worker")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    ptune::cli::main()
}
