//! `ptune status`, `ptune logs`, `ptune cancel`: jobs by their results folders.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::arguments::{FolderArguments, LogsArguments};
use crate::diag::Diagnostic;
use crate::launch::follow;
use crate::schema::JobManifest;

/// Lines of a failed job's error that `status` shows.
const ERROR_LINES: usize = 5;
/// Time between two looks at a log that is followed.
const PAUSE: Duration = Duration::from_millis(300);

/// The folder given, or that of the newest job below ./results.
fn folder(given: Option<&Path>) -> Result<PathBuf> {
    match given {
        Some(folder) => Ok(folder.to_owned()),
        None => follow::find_folders(Path::new("results"), 4)
            .into_iter()
            .next()
            .ok_or_else(|| {
                Diagnostic::configuration("there is no job below `./results`")
                    .hint("name its results folder: ptune status FOLDER")
                    .into()
            }),
    }
}

/// One line for each job at or below the folder, and the first lines of what went wrong.
pub(super) fn status(arguments: &FolderArguments) -> Result<i32> {
    let root = arguments.folder.clone().unwrap_or_else(|| "results".into());
    let mut folders = follow::find_folders(&root, 4);
    if folders.is_empty() {
        folders.push(folder(arguments.folder.as_deref())?);
    }
    let mut out = std::io::stdout().lock();
    for folder in folders {
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

/// The log of a job, to its end or, followed, to the end of the job.
pub(super) fn logs(arguments: &LogsArguments) -> Result<i32> {
    let folder = folder(arguments.folder.as_deref())?;
    let manifest = follow::read_manifest(&folder)?;
    if manifest.log_file.is_none() {
        return Err(
            Diagnostic::job(format!("job `{}` has no log yet", manifest.job_name))
                .note(follow::state(&manifest).to_string())
                .into(),
        );
    }
    let mut read: Vec<(PathBuf, u64)> = vec![];
    loop {
        // Looked at first, so that what a job wrote last is still read.
        let ended = follow::state(&current(&folder, &manifest)).has_ended();
        copy_new_text(&manifest, &mut read)?;
        if ended || !arguments.follow {
            return Ok(0);
        }
        std::thread::sleep(PAUSE);
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

/// Asks a job to end.
pub(super) fn cancel(arguments: &FolderArguments) -> Result<i32> {
    let folder = folder(arguments.folder.as_deref())?;
    let manifest = follow::read_manifest(&folder)?;
    follow::cancel(&manifest)?;
    writeln!(
        std::io::stdout(),
        "asked {} to end, {}",
        manifest.job_name,
        folder.display()
    )?;
    Ok(0)
}
