//! What a checkpoint or a file of prompts holds, from headers alone.
//!
//! Reads `.nemo` archives and the folders they were unpacked to (base models and prompts), Hugging Face folders, PEFT
//! adapters, safetensors files, torch checkpoints and NumPy files. Numbers are read where hashes are asked for; nothing
//! is ever computed with them.

mod architecture;
mod folder;
mod nemo;
mod text;
mod tokenizer;
mod weights;

use std::io::Read;
use std::path::Path;

use anyhow::Result;
use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::diag::{Diagnostic, Location};
use crate::tensors::nemo_files::NemoFiles;

/// What to look for beyond headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// List every tensor.
    pub tensors: bool,
    /// Hash files, tasks and, where they are listed, tensors. Reads every number.
    pub hash: bool,
}

/// Named facts in the order in which they are shown.
pub type Facts = IndexMap<&'static str, Value>;

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// As it was given.
    pub path: String,
    /// What it is, such as `NeMo base model`.
    pub kind: &'static str,
    /// How it is packed: `tar`, `tar.gz`, `folder` or `file`.
    pub container: &'static str,
    /// Size of its files.
    pub bytes: u64,
    /// The model's kind, sizes and variants.
    #[serde(skip_serializing_if = "Facts::is_empty")]
    pub architecture: Facts,
    /// Numbers in all tensors.
    pub parameters: u64,
    /// What the numbers are stored as.
    pub dtypes: Vec<DtypeTotal>,
    /// Over how many ranks it was saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<Partition>,
    /// How text becomes tokens.
    #[serde(skip_serializing_if = "Facts::is_empty")]
    pub tokenizer: Facts,
    /// Everything else that its configuration tells about it.
    #[serde(skip_serializing_if = "Facts::is_empty")]
    pub about: Facts,
    /// Tuned tasks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<Task>,
    /// What its user should know: above all why it cannot be tuned here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Its files or members.
    pub files: Vec<FileEntry>,
    /// Its tensors, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<TensorEntry>,
}

/// All tensors of one type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DtypeTotal {
    /// `f32`, `bf16`, ….
    pub dtype: String,
    /// How many tensors.
    pub tensors: usize,
    /// How many numbers.
    pub numbers: u64,
}

/// Ranks that share a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// Tensor-parallel ranks.
    pub tensor: usize,
    /// Pipeline stages.
    pub pipeline: usize,
}

/// A tuned task.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Rows of its table: virtual tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_tokens: Option<usize>,
    /// Width of the rows: the base model's hidden size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_size: Option<usize>,
    /// How its rows become prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_template: Option<String>,
    /// How the virtual tokens are shared among the template's markers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub virtual_token_splits: Vec<usize>,
    /// The field that is learned and predicted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_field: Option<String>,
    /// The field that is cut where a row is too long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate_field: Option<String>,
    /// SHA-256 of the rows as little-endian f32, as `ptune prompt list` shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A file of a folder or a member of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileEntry {
    /// Its name in there; that of the archive itself comes first.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its content, as `sha256sum` prints it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorEntry {
    /// Its name; with several ranks, that of the whole tensor.
    pub name: String,
    /// What its numbers are stored as.
    pub dtype: String,
    /// Sizes, outermost first; with several ranks, those of the whole tensor.
    pub shape: Vec<usize>,
    /// SHA-256 of its numbers, little-endian, row by row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Looks at the file or folder at `path`.
///
/// # Errors
/// A [`Diagnostic`] where there is nothing, where it is of no kind that is known here, or where it is damaged.
pub fn inspect(path: &Path, options: Options) -> Result<Report> {
    let Ok(metadata) = fs_err::metadata(path) else {
        let title = format!("there is nothing at {}", path.display());
        return Err(Diagnostic::configuration(title).into());
    };
    let mut report = if metadata.is_dir() {
        folder::inspect(path, options)?
    } else {
        file(path, options)?
    };
    report.path = path.display().to_string();
    if options.hash {
        for entry in report
            .files
            .iter_mut()
            .filter(|entry| entry.sha256.is_none())
        {
            let file = if metadata.is_dir() {
                path.join(&entry.name)
            } else {
                path.to_owned()
            };
            entry.sha256 = Some(hash_file(&file)?);
        }
    }
    Ok(report)
}

/// Looks at a file, which its first bytes tell the kind of.
fn file(path: &Path, options: Options) -> Result<Report> {
    let mut file = fs_err::File::open(path)?;
    let mut head = [0_u8; 512];
    let mut filled = 0;
    while filled < head.len() {
        match file.read(&mut head[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    let head = &head[..filled];
    let extension = path.extension().and_then(|extension| extension.to_str());
    let is_tar = head.get(257..262) == Some(b"ustar".as_slice());
    // A safetensors file begins with the length of its header, a JSON object.
    let is_safetensors = head.get(8) == Some(&b'{') || extension == Some("safetensors");
    let kind = extension.unwrap_or_default();
    if is_tar || head.starts_with(&[0x1f, 0x8b]) || kind == "nemo" {
        let container = if is_tar { "tar" } else { "tar.gz" };
        return nemo::inspect(path, container, options);
    }
    let mut report = Report {
        container: "file",
        bytes: fs_err::metadata(path)?.len(),
        ..Report::default()
    };
    report.files.push(FileEntry {
        name: path
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into()),
        bytes: report.bytes,
        sha256: None,
    });
    if head.starts_with(b"PK") || ["ckpt", "pt", "pth", "bin"].contains(&kind) {
        weights::torch(&mut report, path, options)?;
    } else if is_safetensors {
        weights::safetensors(&mut report, path, options)?;
    } else if head.starts_with(b"\x93NUMPY") {
        weights::numpy(&mut report, path)?;
    } else if let Some(facts) = tokenizer::of_file(path)? {
        report.kind = "tokenizer";
        report.tokenizer = facts;
    } else {
        return Err(unknown(path).into());
    }
    Ok(report)
}

fn unknown(path: &Path) -> Diagnostic {
    Diagnostic::job("this is of no kind that is known here")
        .at(Location::file(path.display()))
        .note(
            "known are .nemo archives, Hugging Face and PEFT folders, safetensors, torch checkpoints (zip), NumPy files \
             and tokenizers",
        )
}

/// SHA-256 of a file, in hexadecimal.
fn hash_file(path: &Path) -> Result<String> {
    let mut file = fs_err::File::open(path)?;
    let mut digest = Sha256::new();
    std::io::copy(&mut file, &mut digest)?;
    Ok(hexadecimal(digest))
}

fn hexadecimal(digest: Sha256) -> String {
    let bytes = digest.finalize();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Files of an archive, and their sizes.
fn members(files: &NemoFiles) -> Vec<FileEntry> {
    files
        .sizes()
        .map(|(name, bytes)| FileEntry {
            name: name.to_owned(),
            bytes,
            sha256: None,
        })
        .collect()
}
