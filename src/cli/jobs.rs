//! `ptune status`, `ptune logs`, `ptune cancel`: jobs by their results folders.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::arguments::{FolderArguments, LogsArguments};
use crate::diag::Diagnostic;
use crate::launch::follow::{self, JobState};
use crate::schema::JobManifest;

/// Lines of a failed job's error that `status` shows.
const ERROR_LINES: usize = 5;
/// Time between two looks at a log that is followed.
const PAUSE: Duration = Duration::from_millis(300);
/// The same where each look asks a controller that many users share.
const SLURM_PAUSE: Duration = Duration::from_secs(2);

/// How deep below a folder results are looked for.
const DEPTH: usize = 4;

/// The results folders that are meant: those at or below the folder given; without one, those of the last launch and
/// those below ./results, the newest first.
fn folders(given: Option<&Path>) -> Result<Vec<PathBuf>> {
    if let Some(folder) = given {
        let found = follow::find_folders(folder, DEPTH);
        if found.is_empty() {
            // Says what a results folder is.
            follow::read_manifest(folder)?;
        }
        return Ok(found);
    }
    let mut found = follow::find_folders(Path::new("results"), DEPTH);
    let real = |path: &Path| path.canonicalize().ok();
    let known: Vec<_> = found.iter().map(|folder| real(folder)).collect();
    let mut others = follow::recent::last().map_or_else(Vec::new, |last| last.folders);
    others.retain(|folder| {
        folder.join(JobManifest::FILE_NAME).is_file() && !known.contains(&real(folder))
    });
    found.extend(others);
    follow::newest_first(&mut found);
    if found.is_empty() {
        return Err(Diagnostic::configuration(
            "there is no job below `./results`, and no launch is remembered",
        )
        .hint("name its results folder: ptune status FOLDER")
        .into());
    }
    Ok(found)
}

/// The jobs that a command without a folder changes or shows one of: those of the last launch, or all that are found
/// where none of them is.
fn of_last_launch(found: Vec<PathBuf>) -> Vec<PathBuf> {
    let Some(last) = follow::recent::last() else {
        return found;
    };
    let real = |path: &Path| path.canonicalize().ok();
    let last: Vec<_> = last.folders.iter().map(|folder| real(folder)).collect();
    let (of_last, others): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|folder| last.contains(&real(folder)));
    if of_last.is_empty() { others } else { of_last }
}

/// One line for each job at or below the folder, and the first lines of what went wrong.
pub(super) fn status(arguments: &FolderArguments) -> Result<i32> {
    let mut out = std::io::stdout().lock();
    for folder in folders(arguments.folder.as_deref())? {
        let manifest = follow::read_manifest(&folder)?;
        let state = follow::state(&manifest);
        let id = manifest
            .job_id
            .as_ref()
            .map(|id| format!(" (job {id})"))
            .unwrap_or_default();
        writeln!(
            out,
            "{}{id}: {state}, {}",
            manifest.job_name,
            folder.display()
        )?;
        if state.is_bad_end() {
            for line in follow::first_error_lines(&manifest, ERROR_LINES) {
                writeln!(out, "    {line}")?;
            }
        }
    }
    Ok(0)
}

/// The log of a job, to its end or, followed, to the end of the job. Where several jobs are meant, that of the one that
/// runs, or else of the last one that has written something.
pub(super) fn logs(arguments: &LogsArguments) -> Result<i32> {
    let mut jobs = vec![];
    let mut found = folders(arguments.folder.as_deref())?;
    if arguments.folder.is_none() {
        found = of_last_launch(found);
    }
    for folder in found {
        let manifest = follow::read_manifest(&folder)?;
        jobs.push((folder, manifest));
    }
    let at = match jobs.as_slice() {
        [_] => Some(0),
        jobs => jobs
            .iter()
            .position(|(_, manifest)| follow::state(manifest) == JobState::Running)
            .or_else(|| {
                jobs.iter()
                    .position(|(_, manifest)| !follow::logs(manifest).is_empty())
            }),
    };
    let (folder, manifest) = jobs.swap_remove(at.unwrap_or(0));
    if arguments.folder.as_ref() != Some(&folder) {
        super::print_text(&format!("{} in {}\n", manifest.job_name, folder.display()));
    }
    let state = follow::state(&manifest);
    let may_come = arguments.follow && !state.has_ended();
    if follow::logs(&manifest).is_empty() && !may_come {
        return Err(
            Diagnostic::job(format!("job `{}` has no log yet", manifest.job_name))
                .note(state.to_string())
                .into(),
        );
    }
    let mut read: Vec<(PathBuf, u64)> = vec![];
    loop {
        // Looked at first, so that what a job wrote last is still read.
        let now = current(&folder, &manifest);
        let ended = follow::state(&now).has_ended();
        copy_new_text(&now, &mut read)?;
        if ended || !arguments.follow {
            return Ok(0);
        }
        std::thread::sleep(if now.job_id.is_some() {
            SLURM_PAUSE
        } else {
            PAUSE
        });
    }
}

fn current(folder: &Path, manifest: &JobManifest) -> JobManifest {
    follow::read_manifest(folder).unwrap_or_else(|_| manifest.clone())
}

fn copy_new_text(manifest: &JobManifest, read: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for path in follow::logs(manifest) {
        let known = read.iter().position(|(known, _)| *known == path);
        let index = known.unwrap_or_else(|| {
            read.push((path.clone(), 0));
            read.len() - 1
        });
        let mut file = fs_err::File::open(&path)?;
        file.seek(SeekFrom::Start(read[index].1))?;
        let mut bytes = vec![];
        file.read_to_end(&mut bytes)?;
        read[index].1 += bytes.len() as u64;
        out.write_all(&bytes)?;
        out.flush()?;
    }
    Ok(())
}

/// Asks jobs to end: the one in the folder, all that have not ended below it, or those of the last launch.
pub(super) fn cancel(arguments: &FolderArguments) -> Result<i32> {
    let found = match &arguments.folder {
        Some(folder) if folder.join(JobManifest::FILE_NAME).is_file() => vec![folder.clone()],
        given => {
            let found = folders(given.as_deref())?;
            if given.is_none() {
                of_last_launch(found)
            } else {
                found
            }
        }
    };
    let is_one = found.len() == 1;
    let mut asked = 0;
    let mut states = vec![];
    for folder in found {
        let manifest = follow::read_manifest(&folder)?;
        if !is_one {
            let state = follow::state(&manifest);
            // A stage whose turn has not come does not start once the one before it was told to end.
            if (state.has_ended() && state != JobState::NeverStarts)
                || state == JobState::Waits
                || (state == JobState::NeverStarts && manifest.job_id.is_none())
            {
                states.push(format!(
                    "{}: {state}, {}",
                    manifest.job_name,
                    folder.display()
                ));
                continue;
            }
        }
        follow::cancel(&manifest)?;
        asked += 1;
        writeln!(
            std::io::stdout(),
            "asked {} to end, {}",
            manifest.job_name,
            folder.display()
        )?;
    }
    if asked > 0 {
        return Ok(0);
    }
    let mut diagnostic = Diagnostic::job("there is no job that can be cancelled");
    for state in states.into_iter().take(10) {
        diagnostic = diagnostic.note(state);
    }
    Err(diagnostic.into())
}
