//! Files that are there whole or not at all: written to a temporary name in the same folder, flushed, renamed.

use std::io::{self, Write};
use std::path::Path;

/// What the names of unfinished files begin with; the name of the file to be follows.
const PREFIX: &str = ".ptune-";

/// Writes `bytes` to `path`, replacing what was there in one step. Parent folders are made.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    write_with(path, |file| file.write_all(bytes.as_ref()))
}

/// As [`write`], and leaves it to the system when the bytes reach the disk: for files that other programs must never see
/// half, and that are easily made again after a power cut. (Waiting for a disk costs milliseconds a file.)
pub fn write_unflushed(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    replace(path, false, |file| file.write_all(bytes.as_ref()))
}

/// Writes what `fill` produces to `path`, replacing what was there in one step. Parent folders are made.
///
/// The file appears only when `fill` succeeds; on an error nothing is left behind.
pub fn write_with<T>(
    path: &Path,
    fill: impl FnOnce(&mut io::BufWriter<&mut std::fs::File>) -> io::Result<T>,
) -> io::Result<T> {
    replace(path, true, fill)
}

/// Removes what a killed process left unfinished in `folder`: of the file called `name`, or of any where this is nothing.
/// Only for who alone writes there. What cannot be removed stays.
pub fn remove_leftovers(folder: &Path, name: Option<&str>) {
    let start = format!("{PREFIX}{}", name.map_or(String::new(), stem));
    let Ok(entries) = fs_err::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let is_leftover = entry.file_name().to_str().is_some_and(|found| {
            found
                .strip_prefix(&start)
                .is_some_and(|rest| name.is_none() || rest.len() == RANDOM)
        });
        if is_leftover {
            tracing::debug!("removing {}", entry.path().display());
            let _ = fs_err::remove_file(entry.path());
        }
    }
}

/// Letters at the end of an unfinished file's name.
const RANDOM: usize = 6;

/// As much of a file's name as leaves room for the rest, and a dot.
fn stem(name: &str) -> String {
    let mut end = name.len().min(128);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}.", &name[..end])
}

fn replace<T>(
    path: &Path,
    flush: bool,
    fill: impl FnOnce(&mut io::BufWriter<&mut std::fs::File>) -> io::Result<T>,
) -> io::Result<T> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs_err::create_dir_all(folder)?;
    let with_path = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("writing `{}`: {error}", path.display()),
        )
    };
    let name = path.file_name().and_then(|name| name.to_str());
    let mut temporary = tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}", name.map_or(String::new(), stem)))
        .rand_bytes(RANDOM)
        .tempfile_in(folder)
        .map_err(with_path)?;
    // Checkpoints are large, and what a launch writes is small.
    let size = if flush { 1 << 20 } else { 1 << 13 };
    let mut writer = io::BufWriter::with_capacity(size, temporary.as_file_mut());
    let value = fill(&mut writer).map_err(with_path)?;
    writer.flush().map_err(with_path)?;
    drop(writer);
    set_usual_permissions(temporary.as_file()).map_err(with_path)?;
    if flush {
        temporary.as_file().sync_all().map_err(with_path)?;
    }
    temporary
        .persist(path)
        .map_err(|error| with_path(error.error))?;
    // The rename itself lives in the folder; without this a power cut can undo it.
    if flush && let Ok(folder) = fs_err::File::open(folder) {
        folder.sync_all()?;
    }
    Ok(value)
}

/// Temporary files are private; what we keep should be as readable as any file the user makes.
#[cfg(unix)]
fn set_usual_permissions(file: &std::fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn set_usual_permissions(_: &std::fs::File) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/metrics.json");
        write(&path, "old").unwrap();
        let failed = write_with(&path, |file| {
            file.write_all(b"half")?;
            Err::<(), _>(io::Error::other("disk on fire"))
        });
        assert!(failed.unwrap_err().to_string().contains("metrics.json"));
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs_err::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn leftovers_of_a_file_are_told_from_those_of_others() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".ptune-a.json.x1Y2z3", ".ptune-a.json.old.x1Y2z3", "a.json"] {
            fs_err::write(folder.path().join(name), "").unwrap();
        }
        let names = || {
            let entries = fs_err::read_dir(folder.path()).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        remove_leftovers(folder.path(), Some("a.json"));
        assert_eq!(names(), [".ptune-a.json.old.x1Y2z3", "a.json"]);
        remove_leftovers(folder.path(), None);
        assert_eq!(names(), ["a.json"]);
        remove_leftovers(&folder.path().join("nowhere"), None);
    }
}
