//! The members of a `.nemo` without unpacking it: a tar, a gzip of one, or a folder it was unpacked to.
//!
//! A plain tar is memory-mapped and its members are used where they lie. A gzip (NeMo before 1.7) is inflated once, to
//! a file without a name that goes away with this value. What the members mean is for others to say.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use sha2::{Digest, Sha256};

use super::TensorError;
use super::nemo::{CONFIG_MEMBER, MAX_GZIP_GROWTH, NemoError, plain_name};
use super::torch::{self, TorchFile};
use crate::sys::hexadecimal;

/// Folders in folders that are looked into: NeMo's archives have one level, distributed checkpoints three.
const MAX_DEPTH: usize = 4;
/// Members above this are no configuration and no tokenizer.
const MAX_SMALL_MEMBER: usize = 1 << 28;

/// Where the members of an archive lie.
pub struct NemoFiles {
    path: PathBuf,
    map: Option<Arc<Mmap>>,
    members: BTreeMap<String, Place>,
}

#[derive(Clone, Debug)]
enum Place {
    /// Bytes of the map.
    Mapped(Range<usize>),
    /// A file of its own.
    File(PathBuf),
}

impl NemoFiles {
    /// Whether `path` looks like a `.nemo` or a folder with the content of one.
    pub fn is_nemo(path: &Path) -> bool {
        path.join(CONFIG_MEMBER).is_file()
            || (path.is_file() && path.extension().is_some_and(|end| end == "nemo"))
    }

    /// Whether `path` is a checkpoint of NeMo 2, whose configuration is in a language of its own.
    pub fn is_nemo_2(path: &Path) -> bool {
        path.join("context/model.yaml").is_file()
    }

    /// Lists the members of the archive or folder at `path`.
    ///
    /// # Errors
    /// Where it cannot be read, is no tar, or has a member whose name leads out of it.
    pub fn open(path: &Path) -> Result<Self, NemoError> {
        let mut this = Self {
            path: path.to_owned(),
            map: None,
            members: BTreeMap::new(),
        };
        if path.is_dir() {
            this.list_folder(path, "", 0)?;
        } else {
            this.list_tar(open_plain(path)?)?;
        }
        Ok(this)
    }

    fn malformed(&self, reason: impl Into<String>) -> NemoError {
        NemoError::Malformed {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }

    fn list_folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> Result<(), NemoError> {
        for entry in fs_err::read_dir(folder)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let name = format!("{prefix}{name}");
            if path.is_file() {
                self.members.insert(name, Place::File(path));
            } else if path.is_dir() && depth < MAX_DEPTH {
                self.list_folder(&path, &format!("{name}/"), depth + 1)?;
            }
        }
        Ok(())
    }

    #[expect(
        unsafe_code,
        reason = "mapping a file is unsafe by nature: another process may change it"
    )]
    fn list_tar(&mut self, file: File) -> Result<(), NemoError> {
        // SAFETY: the map is read-only and private to this value. An archive that another process truncates while it is
        // in use ends this process, as it would with any mapped file; nothing here writes to archives in place.
        let map = Arc::new(unsafe { Mmap::map(&file) }?);
        let mut tar = tar::Archive::new(Cursor::new(&map[..]));
        let entries = tar
            .entries_with_seek()
            .map_err(|error| self.malformed(error.to_string()))?;
        for entry in entries {
            let entry = entry.map_err(|error| self.malformed(error.to_string()))?;
            let name = entry
                .path()
                .map_err(|error| self.malformed(error.to_string()))?
                .into_owned();
            let name = plain_name(&name).ok_or_else(|| {
                self.malformed(format!(
                    "member `{}` leads out of the archive",
                    name.display()
                ))
            })?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let start = usize::try_from(entry.raw_file_position()).ok();
            let range = start
                .zip(usize::try_from(entry.size()).ok())
                .and_then(|(start, size)| Some(start..start.checked_add(size)?))
                .filter(|range| range.end <= map.len())
                .ok_or_else(|| self.malformed(format!("member `{name}` is cut off")))?;
            self.members.insert(name, Place::Mapped(range));
        }
        if self.members.is_empty() {
            return Err(self.malformed("it has no members"));
        }
        self.map = Some(map);
        Ok(())
    }

    /// The archive or folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all files in it, sorted, without `./`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// Names and sizes of all files in it, sorted by name.
    pub fn sizes(&self) -> impl Iterator<Item = (&str, u64)> {
        self.members.iter().map(|(name, place)| {
            let bytes = match place {
                Place::Mapped(range) => range.len() as u64,
                Place::File(path) => fs_err::metadata(path).map_or(0, |metadata| metadata.len()),
            };
            (name.as_str(), bytes)
        })
    }

    /// SHA-256 of a member, in hexadecimal.
    ///
    /// # Errors
    /// Where there is none of this name, or it cannot be read.
    pub fn sha256(&self, name: &str) -> Result<String, NemoError> {
        let mut digest = Sha256::new();
        match (self.place(name)?, &self.map) {
            (Place::Mapped(range), Some(map)) => digest.update(&map[range.clone()]),
            (Place::File(path), _) => {
                std::io::copy(&mut fs_err::File::open(path)?, &mut digest)?;
            }
            (Place::Mapped(_), None) => return Err(self.malformed("it is not mapped")),
        }
        Ok(hexadecimal(&digest.finalize()))
    }

    /// Whether there is a member of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    fn place(&self, name: &str) -> Result<&Place, NemoError> {
        self.members.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.names().take(10).collect();
            self.malformed(format!(
                "it has no member `{name}` (found: {})",
                names.join(", ")
            ))
        })
    }

    /// The bytes of a small member: a configuration, a vocabulary.
    ///
    /// # Errors
    /// Where there is none of this name, it is larger than a tokenizer can be, or it cannot be read.
    pub fn read(&self, name: &str) -> Result<Cow<'_, [u8]>, NemoError> {
        let too_large = || self.malformed(format!("member `{name}` is too large for what it is"));
        match (self.place(name)?, &self.map) {
            (Place::Mapped(range), Some(map)) => {
                if range.len() > MAX_SMALL_MEMBER {
                    return Err(too_large());
                }
                Ok(Cow::Borrowed(&map[range.clone()]))
            }
            (Place::File(path), _) => {
                if fs_err::metadata(path)?.len() > MAX_SMALL_MEMBER as u64 {
                    return Err(too_large());
                }
                Ok(Cow::Owned(fs_err::read(path)?))
            }
            (Place::Mapped(_), None) => Err(self.malformed("it is not mapped")),
        }
    }

    /// The text of a small member.
    ///
    /// # Errors
    /// As [`Self::read`], and where it is not UTF-8.
    pub fn read_text(&self, name: &str) -> Result<String, NemoError> {
        String::from_utf8(self.read(name)?.into_owned())
            .map_err(|_| self.malformed(format!("{name} is not UTF-8")))
    }

    /// A member that is a torch checkpoint, used in place.
    ///
    /// # Errors
    /// Where there is none of this name, or it is no torch checkpoint.
    pub fn torch(&self, name: &str) -> Result<TorchFile, TensorError> {
        let place = self.place(name).map_err(|error| TensorError::Malformed {
            file: self.path.clone(),
            reason: error.to_string(),
        })?;
        match (place, &self.map) {
            (Place::Mapped(range), Some(map)) => {
                TorchFile::in_map(&self.path.join(name), map.clone(), range.clone())
            }
            (Place::File(path), _) => TorchFile::open(path),
            (Place::Mapped(_), None) => Err(TensorError::Malformed {
                file: self.path.clone(),
                reason: "it is not mapped".to_owned(),
            }),
        }
    }

    /// A member where it lies: a map of the archive or of its own file, the place in it, and a path for messages.
    ///
    /// # Errors
    /// Where there is none of this name, or its file cannot be mapped.
    pub fn in_place(&self, name: &str) -> Result<(Arc<Mmap>, Range<usize>, PathBuf), NemoError> {
        match (self.place(name)?, &self.map) {
            (Place::Mapped(range), Some(map)) => {
                Ok((map.clone(), range.clone(), self.path.join(name)))
            }
            (Place::File(path), _) => {
                let map = torch::map(path)?;
                let range = 0..map.len();
                Ok((Arc::new(map), range, path.clone()))
            }
            (Place::Mapped(_), None) => Err(self.malformed("it is not mapped")),
        }
    }
}

/// The tar itself, or a nameless file with what its gzip holds.
fn open_plain(path: &Path) -> Result<File, NemoError> {
    let mut file = fs_err::File::open(path)?;
    let size = file.metadata()?.len();
    let mut magic = [0u8; 2];
    let is_gzip = file.read(&mut magic)? == 2 && magic == [0x1f, 0x8b];
    file.seek(SeekFrom::Start(0))?;
    if !is_gzip {
        return Ok(file.into_parts().0);
    }
    tracing::info!(
        "{} is compressed, as NeMo wrote it before 1.7: inflating it once to a temporary file",
        path.display()
    );
    let malformed = |reason: String| NemoError::Malformed {
        path: path.to_owned(),
        reason,
    };
    let limit = size.saturating_mul(MAX_GZIP_GROWTH);
    let mut reader = flate2::read::GzDecoder::new(file).take(limit);
    let mut inflated = tempfile::tempfile()?;
    let copied = std::io::copy(&mut reader, &mut inflated)
        .map_err(|error| malformed(format!("its gzip is broken: {error}")))?;
    if copied == limit {
        return Err(malformed(format!(
            "it grows to more than {MAX_GZIP_GROWTH} times its size"
        )));
    }
    inflated.flush()?;
    Ok(inflated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::TensorSource;
    use crate::tensors::nemo::NemoArchive;
    use crate::tensors::torch::StateValue;

    use candle_core::{Device, Tensor};
    use indexmap::IndexMap;

    fn write(path: &Path) {
        let tensor = Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap();
        NemoArchive {
            model_config: "seed: 1\n".into(),
            weights: StateValue::Dict(IndexMap::from([("x".into(), StateValue::Tensor(tensor))])),
        }
        .write(path)
        .unwrap();
    }

    fn check(path: &Path) {
        assert!(NemoFiles::is_nemo(path));
        let files = NemoFiles::open(path).unwrap();
        assert_eq!(files.read_text("model_config.yaml").unwrap(), "seed: 1\n");
        let weights = files.torch("model_weights.ckpt").unwrap();
        let x = weights.load("x", &Device::Cpu).unwrap();
        assert_eq!(x.to_vec1::<f32>().unwrap(), [1.0, 2.0]);
        let missing = files.read("vocab.json").unwrap_err().to_string();
        assert!(
            missing.contains("no member `vocab.json`") && missing.contains("model_config.yaml"),
            "{missing}"
        );
    }

    #[test]
    fn members_are_read_in_place_inflated_and_from_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("a.nemo");
        write(&plain);
        check(&plain);

        let bytes = fs_err::read(&plain).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(&bytes).unwrap();
        let zipped = folder.path().join("b.nemo");
        fs_err::write(&zipped, encoder.finish().unwrap()).unwrap();
        check(&zipped);

        let unpacked = folder.path().join("c");
        tar::Archive::new(bytes.as_slice())
            .unpack(&unpacked)
            .unwrap();
        check(&unpacked);
    }

    #[test]
    fn an_archive_that_is_cut_off_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.nemo");
        write(&path);
        let bytes = fs_err::read(&path).unwrap();
        fs_err::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = NemoFiles::open(&path).err().unwrap().to_string();
        assert!(error.contains("a.nemo"), "{error}");
    }
}
