//! `.nemo` archives: a tar with `model_config.yaml` and `model_weights.ckpt`.
//!
//! NeMo writes the tar uncompressed since 1.7 and reads gzip too; an unpacked folder counts as an archive. Members are
//! named relative to `.`. Nothing is ever unpacked to disk here, so a member's name can lead nowhere.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use super::torch::{self, StateValue, TorchError};
use crate::sys::atomic_file;

/// Name of the configuration inside the archive.
pub const CONFIG_MEMBER: &str = "model_config.yaml";
/// Name of the weights inside the archive.
pub const WEIGHTS_MEMBER: &str = "model_weights.ckpt";
/// What to do with a checkpoint of NeMo 2.
pub const NEMO_2_WAY_OUT: &str = "this is a checkpoint of NeMo 2: its weights (`weights/`, `torch_dist`) are read, its \
    configuration (`context/model.yaml`) is not. `llm.export_ckpt(path, target=\"hf\")` of NeMo 2 makes a Hugging Face \
    folder of it; or put a `model_config.yaml` with the keys of NeMo 1.x beside `context`";
/// A gzip archive may grow to this many times its size, so that a small file cannot fill the memory.
pub(super) const MAX_GZIP_GROWTH: u64 = 64;

/// Why an archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NemoError {
    /// The file cannot be read or written; the message names it.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The file is not a `.nemo`.
    #[error("{path}: not a .nemo archive: {reason}")]
    Malformed {
        /// Path of the archive.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The weights cannot be read.
    #[error("{path}: {WEIGHTS_MEMBER}: {source}")]
    Weights {
        /// Path of the archive.
        path: PathBuf,
        /// What is wrong with them.
        source: TorchError,
    },
}

/// Configuration and weights of an archive.
#[derive(Clone, Debug)]
pub struct NemoArchive {
    /// Text of `model_config.yaml`.
    pub model_config: String,
    /// The state dict.
    pub weights: StateValue,
}

impl NemoArchive {
    /// Reads the archive or unpacked folder at `path`.
    ///
    /// # Errors
    /// When it is none, lacks one of the two members, or its weights cannot be read.
    pub fn open(path: &Path) -> Result<Self, NemoError> {
        let weights_error = |source| NemoError::Weights {
            path: path.to_owned(),
            source,
        };
        let (config, weights) = if path.is_dir() {
            let config = fs_err::read(path.join(CONFIG_MEMBER))?;
            (
                config,
                torch::read_file(&path.join(WEIGHTS_MEMBER)).map_err(weights_error)?,
            )
        } else {
            let (config, weights) = read_tar(path)?;
            (config, torch::read(&weights).map_err(weights_error)?)
        };
        let model_config = String::from_utf8(config).map_err(|_| NemoError::Malformed {
            path: path.to_owned(),
            reason: format!("{CONFIG_MEMBER} is not UTF-8"),
        })?;
        Ok(Self {
            model_config,
            weights,
        })
    }

    /// Writes the archive to `path` in one step. Equal content gives equal bytes: times and owners are left at zero.
    ///
    /// # Errors
    /// When the weights cannot be serialised or the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), NemoError> {
        let weights = torch::write(&self.weights).map_err(|source| NemoError::Weights {
            path: path.to_owned(),
            source,
        })?;
        atomic_file::write_with(path, |file| {
            let mut tar = tar::Builder::new(file);
            for (name, bytes) in [
                (CONFIG_MEMBER, self.model_config.as_bytes()),
                (WEIGHTS_MEMBER, weights.as_slice()),
            ] {
                let mut header = tar::Header::new_ustar();
                // `set_path` would drop the leading `./` that NeMo's own archives have.
                let stored = format!("./{name}");
                header.as_old_mut().name[..stored.len()].copy_from_slice(stored.as_bytes());
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                header.set_mtime(0);
                header.set_entry_type(tar::EntryType::Regular);
                header.set_cksum();
                tar.append(&header, bytes)?;
            }
            tar.finish()
        })?;
        Ok(())
    }
}

/// The two members of a tar, plain or gzip.
fn read_tar(path: &Path) -> Result<(Vec<u8>, Vec<u8>), NemoError> {
    let malformed = |reason: String| NemoError::Malformed {
        path: path.to_owned(),
        reason,
    };
    let mut file = fs_err::File::open(path)?;
    let size = file.metadata()?.len();
    let mut magic = [0u8; 2];
    let is_gzip = file.read(&mut magic)? == 2 && magic == [0x1f, 0x8b];
    file.seek(SeekFrom::Start(0))?;
    let reader: Box<dyn Read> = if is_gzip {
        let limit = size.saturating_mul(MAX_GZIP_GROWTH);
        Box::new(flate2::read::GzDecoder::new(file).take(limit))
    } else {
        Box::new(file)
    };
    let (mut config, mut weights) = (None, None);
    let mut names = vec![];
    let mut tar = tar::Archive::new(reader);
    for entry in tar.entries()? {
        let mut entry = entry.map_err(|error| malformed(error.to_string()))?;
        let name = entry
            .path()
            .map_err(|error| malformed(error.to_string()))?
            .into_owned();
        let name = plain_name(&name).ok_or_else(|| {
            malformed(format!(
                "member `{}` leads out of the archive",
                name.display()
            ))
        })?;
        let wanted = match name.as_str() {
            CONFIG_MEMBER => &mut config,
            WEIGHTS_MEMBER => &mut weights,
            _ => {
                names.push(name);
                continue;
            }
        };
        if !entry.header().entry_type().is_file() {
            return Err(malformed(format!("member `{name}` is not a file")));
        }
        let mut bytes = vec![];
        entry
            .read_to_end(&mut bytes)
            .map_err(|error| malformed(format!("member `{name}`: {error}")))?;
        *wanted = Some(bytes);
    }
    let missing = |name: &str| {
        let found = if names.is_empty() {
            "nothing else".to_owned()
        } else {
            names.join(", ")
        };
        malformed(format!("it has no member `{name}` (found: {found})"))
    };
    let config = config.ok_or_else(|| missing(CONFIG_MEMBER))?;
    let weights = weights.ok_or_else(|| missing(WEIGHTS_MEMBER))?;
    Ok((config, weights))
}

/// A member's name without `./`; `None` where it is absolute or climbs with `..`.
pub(super) fn plain_name(path: &Path) -> Option<String> {
    let mut parts = vec![];
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    use candle_core::{Device, Tensor};
    use indexmap::IndexMap;

    fn archive() -> NemoArchive {
        let tensor = Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap();
        NemoArchive {
            model_config: "seed: 1\n".into(),
            weights: StateValue::Dict(IndexMap::from([("x".into(), StateValue::Tensor(tensor))])),
        }
    }

    fn check(read: &NemoArchive) {
        assert_eq!(read.model_config, "seed: 1\n");
        let tensor = read.weights.get("x").unwrap().as_tensor().unwrap();
        assert_eq!(tensor.to_vec1::<f32>().unwrap(), [1.0, 2.0]);
    }

    #[test]
    fn an_archive_is_read_back_plain_zipped_and_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("a.nemo");
        archive().write(&plain).unwrap();
        check(&NemoArchive::open(&plain).unwrap());

        let bytes = fs_err::read(&plain).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(&bytes).unwrap();
        let zipped = folder.path().join("b.nemo");
        fs_err::write(&zipped, encoder.finish().unwrap()).unwrap();
        check(&NemoArchive::open(&zipped).unwrap());

        let unpacked = folder.path().join("c");
        tar::Archive::new(bytes.as_slice())
            .unpack(&unpacked)
            .unwrap();
        check(&NemoArchive::open(&unpacked).unwrap());
    }

    #[test]
    fn members_are_named_as_nemo_names_them_and_bytes_do_not_depend_on_the_clock() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.nemo"), folder.path().join("b.nemo"));
        archive().write(&a).unwrap();
        archive().write(&b).unwrap();
        let bytes = fs_err::read(&a).unwrap();
        assert_eq!(bytes, fs_err::read(&b).unwrap());
        assert!(bytes.starts_with(b"./model_config.yaml\0"));
    }

    #[test]
    fn a_file_that_is_no_archive_and_one_without_weights_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.nemo");
        fs_err::write(&path, "hello").unwrap();
        assert!(
            NemoArchive::open(&path)
                .unwrap_err()
                .to_string()
                .contains("a.nemo")
        );
        let mut tar = tar::Builder::new(vec![]);
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_cksum();
        tar.append_data(&mut header, "model_config.yaml", &[][..])
            .unwrap();
        fs_err::write(&path, tar.into_inner().unwrap()).unwrap();
        let error = NemoArchive::open(&path).unwrap_err().to_string();
        assert!(error.contains("no member `model_weights.ckpt`"), "{error}");
    }

    #[test]
    fn a_member_that_climbs_out_is_refused() {
        assert_eq!(plain_name(Path::new("./a/b")), Some("a/b".into()));
        assert_eq!(plain_name(Path::new("../a")), None);
        assert_eq!(plain_name(Path::new("/etc/passwd")), None);
    }
}
