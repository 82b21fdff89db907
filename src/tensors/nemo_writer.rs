//! Writing a `.nemo`, or a folder with the same members, without holding a model in memory.

use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;

use super::TensorInfo;
use super::torch::{self, TorchError};
use crate::sys::atomic_file;

/// What a tar's members are padded to.
const BLOCK: u64 = 512;

/// A member of an archive.
pub struct Member<'a> {
    /// Its name, without `./`.
    pub name: String,
    /// What it holds.
    pub content: Content<'a>,
}

/// Gives the tensor of a name.
pub type Load<'a> = Box<dyn Fn(&str) -> Result<Tensor> + 'a>;

/// What a member holds.
pub enum Content<'a> {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A torch checkpoint of tensors that are loaded as they are written.
    Tensors {
        /// Names, types and shapes.
        tensors: Vec<(String, TensorInfo)>,
        /// Gives one.
        load: Load<'a>,
    },
}

/// Writes `members` to the archive at `path` in one step. Equal content gives equal bytes.
///
/// # Errors
/// Where a tensor cannot be loaded or the file cannot be written.
pub fn write_archive(path: &Path, members: &[Member<'_>]) -> Result<()> {
    atomic_file::write_with(path, |file| {
        for member in members {
            let start = file.stream_position()?;
            file.write_all(&[0; BLOCK as usize])?;
            let size = write_content(file, &member.content)?;
            let padding = size.next_multiple_of(BLOCK) - size;
            file.write_all(&vec![0; padding as usize])?;
            let end = file.stream_position()?;
            file.seek(SeekFrom::Start(start))?;
            file.write_all(header(&member.name, size)?.as_bytes())?;
            file.seek(SeekFrom::Start(end))?;
        }
        file.write_all(&[0; 2 * BLOCK as usize])
    })?;
    Ok(())
}

/// Writes `members` as files below `folder`.
///
/// # Errors
/// As [`write_archive`].
pub fn write_folder(folder: &Path, members: &[Member<'_>]) -> Result<()> {
    for member in members {
        atomic_file::write_with(&folder.join(&member.name), |file| {
            write_content(file, &member.content)
        })
        .with_context(|| format!("writing {}", folder.display()))?;
    }
    Ok(())
}

/// Writes a member's bytes at the present position and says how many there are.
fn write_content<W: Write + Seek>(out: &mut W, content: &Content<'_>) -> io::Result<u64> {
    let start = out.stream_position()?;
    match content {
        Content::Bytes(bytes) => out.write_all(bytes)?,
        Content::Tensors { tensors, load } => {
            let from_here = FromHere { inner: out, start };
            torch::write_tensors(from_here, tensors, |name| {
                load(name).map_err(|error| TorchError::Malformed(format!("{error:#}")))
            })
            .map_err(io::Error::other)?;
            out.seek(SeekFrom::End(0))?;
        }
    }
    Ok(out.stream_position()? - start)
}

fn header(name: &str, size: u64) -> io::Result<tar::Header> {
    let stored = format!("./{name}");
    let mut header = tar::Header::new_ustar();
    let place = &mut header.as_old_mut().name;
    if stored.len() >= place.len() {
        return Err(io::Error::other(format!(
            "the member's name `{name}` is too long"
        )));
    }
    // `set_path` would drop the leading `./` that NeMo's own archives have.
    place[..stored.len()].copy_from_slice(stored.as_bytes());
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

/// A writer that counts positions from where a member begins.
struct FromHere<'a, W> {
    inner: &'a mut W,
    start: u64,
}

impl<W: Write> Write for FromHere<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Seek> Seek for FromHere<'_, W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(position) => SeekFrom::Start(self.start + position),
            other => other,
        };
        let position = self.inner.seek(to)?;
        position
            .checked_sub(self.start)
            .ok_or_else(|| io::Error::other("a seek to before the member"))
    }
}

/// Refuses names that would lead out of an archive or a folder.
///
/// # Errors
/// Where one does.
pub fn check_names(members: &[Member<'_>]) -> Result<()> {
    for member in members {
        ensure!(
            super::nemo::plain_name(Path::new(&member.name)).as_deref() == Some(&member.name),
            "`{}` cannot be the name of a member",
            member.name
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::TensorSource;
    use crate::tensors::nemo_files::NemoFiles;

    use candle_core::{DType, Device};

    fn members<'a>() -> Vec<Member<'a>> {
        let tensors = [("a", vec![3, 2]), ("b", vec![5])].map(|(name, shape)| {
            let info = TensorInfo {
                dtype: DType::F32,
                shape,
            };
            (name.to_owned(), info)
        });
        vec![
            Member {
                name: "model_config.yaml".to_owned(),
                content: Content::Bytes(b"seed: 1\n".to_vec()),
            },
            Member {
                name: "mp_rank_00/model_weights.ckpt".to_owned(),
                content: Content::Tensors {
                    tensors: tensors.to_vec(),
                    load: Box::new(|name| {
                        let count = if name == "a" { 6 } else { 5 };
                        let numbers: Vec<f32> = (0..count).map(|i| i as f32).collect();
                        let tensor = Tensor::from_vec(numbers, count, &Device::Cpu)?;
                        Ok(if name == "a" {
                            tensor.reshape((3, 2))?
                        } else {
                            tensor
                        })
                    }),
                },
            },
            Member {
                name: "last.txt".to_owned(),
                content: Content::Bytes(vec![7; 600]),
            },
        ]
    }

    #[test]
    fn an_archive_and_a_folder_hold_what_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let (packed, unpacked) = (folder.path().join("a.nemo"), folder.path().join("b"));
        check_names(&members()).unwrap();
        write_archive(&packed, &members()).unwrap();
        write_folder(&unpacked, &members()).unwrap();
        for path in [packed, unpacked] {
            let files = NemoFiles::open(&path).unwrap();
            assert_eq!(files.names().count(), 3);
            assert_eq!(files.read_text("model_config.yaml").unwrap(), "seed: 1\n");
            assert_eq!(files.read("last.txt").unwrap().len(), 600);
            let weights = files.torch("mp_rank_00/model_weights.ckpt").unwrap();
            let a = weights.load("a", &Device::Cpu).unwrap();
            assert_eq!(
                a.to_vec2::<f32>().unwrap(),
                [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
            );
            assert_eq!(weights.names(), ["a", "b"]);
        }
        let climbing = [Member {
            name: "../x".to_owned(),
            content: Content::Bytes(vec![]),
        }];
        assert!(check_names(&climbing).is_err());
    }
}
