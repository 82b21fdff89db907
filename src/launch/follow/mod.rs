//! What has become of a job, from the manifest in its results folder, from the scheduler and from the job's logs.

pub mod recent;
mod slurm;
mod state;
mod words;

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::diag::{Diagnostic, Location};
use crate::schema::JobManifest;
use crate::sys::process;
use crate::sys::shutdown::EXIT_STOPPED;
pub use state::JobState;

/// Reads the manifest of a results folder.
///
/// # Errors
/// There is none, or it is not one of ours.
pub fn read_manifest(folder: &Path) -> Result<JobManifest> {
    let path = folder.join(JobManifest::FILE_NAME);
    if !path.is_file() {
        return Err(
            Diagnostic::configuration("no job was started in this folder")
                .at(Location::file(folder.display()))
                .note(format!(
                    "a results folder holds a `{}`",
                    JobManifest::FILE_NAME
                ))
                .into(),
        );
    }
    let text = fs_err::read_to_string(&path)?;
    serde_json::from_str(&text).with_context(|| format!("reading `{}`", path.display()))
}

/// The results folders at or below `folder`, the one of the newest job first; not deeper than `depth`.
pub fn find_folders(folder: &Path, depth: usize) -> Vec<PathBuf> {
    fn collect(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs_err::read_dir(folder) else {
            return;
        };
        for entry in entries.flatten() {
            if entry.file_name() == JobManifest::FILE_NAME {
                found.push(folder.to_owned());
            } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                collect(&entry.path(), depth - 1, found);
            }
        }
    }
    let mut found = vec![];
    collect(folder, depth, &mut found);
    newest_first(&mut found);
    found
}

/// Sorts results folders by the time at which something last became of their jobs.
pub fn newest_first(folders: &mut [PathBuf]) {
    folders.sort_by_cached_key(|folder| {
        let time = fs_err::metadata(folder.join(JobManifest::FILE_NAME))
            .and_then(|data| data.modified())
            .ok();
        std::cmp::Reverse((time, folder.clone()))
    });
}

/// How a job stands now.
pub fn state(manifest: &JobManifest) -> JobState {
    let state = match &manifest.job_id {
        Some(id) => slurm::state(id),
        None => local_state(manifest),
    };
    match state {
        // What Slurm or the program itself wrote says more than a number.
        JobState::Failed(_) | JobState::Unknown(_) => words::end(manifest).unwrap_or(state),
        other => other,
    }
}

fn local_state(manifest: &JobManifest) -> JobState {
    match manifest.exit_status {
        Some(0) => return JobState::Done,
        Some(EXIT_STOPPED) => return JobState::Stopped,
        Some(_) if manifest.out_of_memory => return JobState::OutOfMemory,
        Some(status) => return JobState::Failed(exit_text(status)),
        None => {}
    }
    if let Some(host) = &manifest.host
        && (manifest.process.is_some() || manifest.launcher.is_some())
        && process::host_name().is_some_and(|here| here != *host)
    {
        return JobState::Unknown(format!("it was started on {host}; ask there"));
    }
    let launches = manifest
        .launcher
        .is_some_and(|(launcher, started)| process::start_time(launcher) == Some(started));
    match manifest.process {
        Some(_) if is_alive(manifest) => JobState::Running,
        Some(_) if launches => JobState::Running, // its end is being noted
        Some(_) => JobState::Unknown("its launcher was killed".to_owned()),
        None if launches => JobState::Waits,
        None if manifest.launcher.is_some() => JobState::NeverStarts,
        None => JobState::Written,
    }
}

/// Whether the process of a job on this machine is still that process.
fn is_alive(manifest: &JobManifest) -> bool {
    let started = manifest.process.and_then(process::start_time);
    started.is_some()
        && manifest
            .process_started
            .is_none_or(|known| Some(known) == started)
}

/// An exit status as a person reads it; a shell shows a signal as 128 and its number.
fn exit_text(status: i32) -> String {
    match status {
        137 => "killed, for memory or by somebody".to_owned(),
        129..=192 => format!("ended by signal {}", status - 128),
        _ => format!("exit status {status}"),
    }
}

/// The logs of a job that exist: output, then errors.
pub fn logs(manifest: &JobManifest) -> Vec<PathBuf> {
    let Some(log) = &manifest.log_file else {
        return vec![];
    };
    [log.clone(), log.with_extension("err")]
        .into_iter()
        .filter(|path| path.is_file())
        .collect()
}

/// The last lines of a job's logs, output first.
fn last_lines(manifest: &JobManifest) -> Vec<String> {
    /// Bytes of each log that are looked at.
    const END: u64 = 1 << 14;
    let read = |path: &PathBuf| -> Option<Vec<u8>> {
        let mut file = fs_err::File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(END)))
            .ok()?;
        let mut bytes = vec![];
        file.take(END).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    };
    logs(manifest)
        .iter()
        .filter_map(read)
        .flat_map(|bytes| {
            let text = String::from_utf8_lossy(&bytes);
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

/// A line of a log without the `[RANK] ` that stands in front where a job has several ranks here.
fn untagged(line: &str) -> &str {
    line.strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .filter(|(rank, _)| !rank.is_empty() && rank.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(line, |(_, rest)| rest)
}

/// The first lines of the last error in a job's logs: what a program of ours said, else what looks most like an error,
/// else the last lines of the error log.
pub fn first_error_lines(manifest: &JobManifest, count: usize) -> Vec<String> {
    let texts: Vec<String> = logs(manifest)
        .iter()
        .rev()
        .filter_map(|path| fs_err::read(path).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect();
    let lines: Vec<Vec<&str>> = texts.iter().map(|text| text.lines().collect()).collect();
    let excerpt = |lines: &[&str], at: usize| -> Vec<String> {
        lines[at..]
            .iter()
            // Slurm's own words about the tasks that ended come after.
            .take_while(|line| !line.starts_with("srun: error:"))
            .take(count)
            .map(|line| (*line).to_owned())
            .collect()
    };
    let looks_bad = |line: &&str| {
        [
            "error",
            "panicked at",
            "not found",
            "No such file",
            "Killed",
        ]
        .iter()
        .any(|word| line.contains(word))
            && !line.starts_with("srun: error:")
    };
    for lines in &lines {
        if let Some(at) = lines
            .iter()
            .rposition(|line| untagged(line).starts_with("error: "))
        {
            return excerpt(lines, at);
        }
    }
    for lines in &lines {
        if let Some(at) = lines.iter().position(looks_bad) {
            return excerpt(lines, at);
        }
    }
    lines.first().map_or_else(Vec::new, |lines| {
        lines[lines.len().saturating_sub(count)..]
            .iter()
            .map(|line| (*line).to_owned())
            .collect()
    })
}

/// Asks a job to end: Slurm's is cancelled, one on this machine gets SIGTERM and may save.
///
/// # Errors
/// The job is not running, or may not be ended by this user.
pub fn cancel(manifest: &JobManifest) -> Result<()> {
    let (program, words) = match (&manifest.job_id, manifest.process) {
        (Some(id), _) => ("scancel", vec![id.clone()]),
        (None, Some(process)) if state(manifest) == JobState::Running => (
            "kill",
            vec!["-TERM".to_owned(), "--".to_owned(), format!("-{process}")],
        ),
        _ => {
            return Err(Diagnostic::job(format!(
                "job `{}` cannot be cancelled: {}",
                manifest.job_name,
                state(manifest)
            ))
            .into());
        }
    };
    let output = Command::new(program)
        .args(&words)
        .output()
        .with_context(|| format!("running `{program}`"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(
            Diagnostic::job(format!("`{program} {}` failed", words.join(" ")))
                .note(String::from_utf8_lossy(&output.stderr).trim().to_owned())
                .into(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_ours_is_shown_before_slurms_words_about_it() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a.out");
        fs_err::write(&log, "an error happened\nand more\n").unwrap();
        let manifest = JobManifest {
            ptune_version: String::new(),
            created: String::new(),
            command_line: vec![],
            choices: indexmap::IndexMap::new(),
            stage: crate::schema::WorkerJob::Evaluation,
            job_name: "a".into(),
            cluster_type: "bcm".into(),
            config_file: "a".into(),
            script_file: "a".into(),
            log_file: Some(log.clone()),
            job_id: None,
            process: None,
            exit_status: None,
            out_of_memory: false,
            host: None,
            process_started: None,
            launcher: None,
        };
        assert_eq!(
            first_error_lines(&manifest, 3),
            ["an error happened", "and more"]
        );
        let error = "error: old\nerror: new\nhint: this\nsrun: error: n1: task 0: Exited with exit code 1\n";
        fs_err::write(log.with_extension("err"), error).unwrap();
        assert_eq!(
            first_error_lines(&manifest, 3),
            ["error: new", "hint: this"]
        );
    }
}
