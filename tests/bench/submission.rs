//! Speed of a launch: `cargo bench --no-default-features --bench submission`, and the same without that option.
//!
//! The time from the start of `ptune` to the start of the first `sbatch`, for three stages, taken by the clock: this program
//! stands in for `sbatch`, writes down when it was started, and answers as Slurm does. Beside it, in turn, runs `ptune
//! --version`, which is what starting the program costs on this machine, and `bash -c :`; ratios are what to read. One launch
//! may take 50 ms (the original takes 2.1 to 2.3 s).

#![expect(clippy::print_stdout, reason = "numbers are what a bench is for")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

const ROUNDS: usize = 41;

fn now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970")
}

/// What `sbatch` does here: the first call leaves the time at which it was started.
fn stand_in(clock: &Path) {
    let at = now();
    if !clock.exists() {
        fs_err::write(clock, at.as_nanos().to_string()).expect("a folder to write to");
    }
    println!("Submitted batch job 1");
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// A folder with a `sbatch` in `bin` and everything that the stages read.
fn prepare(folder: &Path) -> PathBuf {
    for path in ["bin", "model", "v1.1"] {
        fs_err::create_dir_all(folder.join(path)).expect("a folder to write to");
    }
    for path in ["model/config.json", "rows.jsonl"] {
        fs_err::write(folder.join(path), "").expect("a folder to write to");
    }
    let own = std::env::current_exe().expect("this program's path");
    let sbatch = folder.join("bin/sbatch");
    // A hard link or a copy: a symbolic one would lose the name on systems that resolve it.
    if fs_err::hard_link(&own, &sbatch).is_err() {
        fs_err::copy(&own, &sbatch).expect("a folder to write to");
    }
    folder.join("clock")
}

fn launch(folder: &Path, clock: &Path, words: &[&str]) -> Duration {
    if clock.exists() {
        fs_err::remove_file(clock).expect("our own file");
    }
    let path = ptune::sys::env_vars::get("PATH").unwrap_or_default();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ptune"));
    command
        .args(words)
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", folder.join("bin").display()))
        .env("XDG_STATE_HOME", folder.join("state"))
        .env("PTUNE_OFFLINE", "1")
        .stderr(Stdio::null())
        .stdout(Stdio::null());
    let start = now();
    let status = command.status().expect("ptune runs");
    assert!(status.success(), "ptune {}", words.join(" "));
    let text = fs_err::read_to_string(clock).expect("sbatch was called");
    Duration::from_nanos(text.parse().expect("nanoseconds")).saturating_sub(start)
}

fn elapsed(command: &mut Command) -> Duration {
    let start = Instant::now();
    command
        .stdout(Stdio::null())
        .status()
        .expect("the program runs");
    start.elapsed()
}

fn main() {
    let name = std::env::args_os().next().map(PathBuf::from);
    if name.is_some_and(|name| name.ends_with("sbatch")) {
        stand_in(Path::new("clock"));
        return;
    }
    // Beside the results of real launches: a disk, not memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder to write to");
    let folder = folder.path();
    let clock = prepare(folder);
    let t5 = [
        "stages=[data_preparation,prompt_learning,evaluation]",
        "data_preparation=squad/prepare_squad",
        "prompt_learning=t5/squad",
        "prompt_learning.model.language_model_path=model",
        "evaluation=prompt_t5/squad",
        "evaluation.language_model_path=model",
        "data_preparation.train_file=rows.jsonl",
        "data_preparation.dev_file=rows.jsonl",
    ];
    let gpt3 = [
        "stages=[data_preparation,prompt_learning,evaluation]",
        "data_preparation=squad/prepare_squad",
        "prompt_learning=gpt3/squad",
        "prompt_learning.model.language_model_path=model",
        "evaluation=prompt_gpt3/squad",
        "data_preparation.train_file=rows.jsonl",
        "data_preparation.dev_file=rows.jsonl",
    ];
    let mut times: [Vec<Duration>; 4] = Default::default();
    for round in 0..ROUNDS {
        let taken = [
            launch(folder, &clock, &t5),
            launch(folder, &clock, &gpt3),
            elapsed(Command::new(env!("CARGO_BIN_EXE_ptune")).arg("--version")),
            elapsed(Command::new("bash").args(["-c", ":"])),
        ];
        // The first reads files that nobody has read yet.
        if round > 0 {
            for (times, time) in times.iter_mut().zip(taken) {
                times.push(time);
            }
        }
    }
    let [t5, gpt3, version, bash] = times.each_mut().map(|times| median(times));
    println!(
        "from the start of ptune to that of sbatch, three stages, median of {}:\n\
         t5/squad    {t5:7.2} ms, {:5.1} times `ptune --version`\n\
         gpt3/squad  {gpt3:7.2} ms, {:5.1} times `ptune --version`\n\
         `ptune --version` {version:.2} ms, `bash -c :` {bash:.2} ms",
        ROUNDS - 1,
        t5 / version,
        gpt3 / version,
    );
}
