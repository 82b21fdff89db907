//! Tensors of a checkpoint, counted and listed.

use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use indexmap::IndexMap;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{DtypeTotal, Options, Report, Task, TensorEntry, hexadecimal};
use crate::diag::{Diagnostic, Location};
use crate::tensors::safetensors::SafetensorsFile;
use crate::tensors::torch::TorchFile;
use crate::tensors::{TensorError, TensorSource};

/// Where a checkpoint of `ptune` keeps how far its run came.
const TRAIN_STATE: &str = "ptune.train_state";
/// How the tables of tasks are named, behind `prompt_table.<task>`.
const EMBEDDINGS: &str = ".prompt_embeddings.weight";
/// The one tensor of a PEFT adapter of virtual tokens.
pub(super) const PEFT_ROWS: &str = "prompt_embeddings";

/// A type and a shape, as a header tells them.
type Header = (String, Vec<usize>);

/// Adds the tensors of `source` to the report.
pub(super) fn add(report: &mut Report, source: &dyn TensorSource, options: Options) -> Result<()> {
    let header = |name: &str| {
        let info = source.info(name)?;
        Some((info.dtype.as_str().to_owned(), info.shape))
    };
    add_named(report, source, &header, options)
}

/// The same for safetensors, which may hold types that no tensor here can have.
pub(super) fn add_safetensors(
    report: &mut Report,
    source: &SafetensorsFile,
    options: Options,
) -> Result<()> {
    let header = |name: &str| {
        let (dtype, shape) = source.stored(name)?;
        Some((dtype.to_lowercase(), shape.to_vec()))
    };
    add_named(report, source, &header, options)
}

fn add_named(
    report: &mut Report,
    source: &dyn TensorSource,
    header: &dyn Fn(&str) -> Option<Header>,
    options: Options,
) -> Result<()> {
    let mut totals: IndexMap<String, (usize, u64)> = IndexMap::new();
    for name in source.names() {
        let (dtype, shape) = header(&name).unwrap_or_default();
        let count = shape
            .iter()
            .fold(1_u64, |product, size| product.saturating_mul(*size as u64));
        let total = totals.entry(dtype.clone()).or_default();
        total.0 += 1;
        total.1 = total.1.saturating_add(count);
        let task = task_of(&name);
        let hash = match (options.hash && (options.tensors || task.is_some()), &task) {
            (true, None) => Some(hash(&load(source, &name)?)?),
            (true, Some(_)) => Some(hash(&load(source, &name)?.to_dtype(DType::F32)?)?),
            (false, _) => None,
        };
        if let (Some(task), &[rows, width]) = (task, &shape[..]) {
            report.tasks.push(Task {
                name: task.to_owned(),
                virtual_tokens: Some(rows),
                hidden_size: Some(width),
                sha256: hash.clone(),
                ..Task::default()
            });
        }
        if options.tensors {
            report.tensors.push(TensorEntry {
                name,
                dtype,
                shape,
                sha256: hash,
            });
        }
    }
    totals.sort_by(|_, a, _, b| b.1.cmp(&a.1));
    for (dtype, (tensors, numbers)) in totals {
        report.parameters = report.parameters.saturating_add(numbers);
        report.dtypes.push(DtypeTotal {
            dtype,
            tensors,
            numbers,
        });
    }
    Ok(())
}

/// The task whose table this is: `prompt_table.<task>.prompt_embeddings.weight`, nested or flat.
fn task_of(name: &str) -> Option<&str> {
    let mut rest = name.strip_prefix("prompt_table.")?;
    while let Some(inner) = rest.strip_prefix("prompt_table.") {
        rest = inner;
    }
    rest.strip_suffix(EMBEDDINGS)
}

fn load(source: &dyn TensorSource, name: &str) -> Result<Tensor> {
    source
        .load(name, &Device::Cpu)
        .map_err(|error| damaged(&error))
}

/// SHA-256 of a tensor's numbers.
fn hash(tensor: &Tensor) -> Result<String> {
    let mut digest = Sha256::new();
    tensor.write_bytes(&mut digest)?;
    Ok(hexadecimal(digest))
}

pub(super) fn damaged(error: &TensorError) -> anyhow::Error {
    Diagnostic::job(error.to_string()).into()
}

/// A torch checkpoint.
pub(super) fn torch(report: &mut Report, path: &Path, options: Options) -> Result<()> {
    let source = TorchFile::open(path).map_err(|error| damaged(&error))?;
    add(report, &source, options)?;
    report.kind = if report.tasks.is_empty() {
        "torch checkpoint"
    } else {
        "torch checkpoint of prompts"
    };
    Ok(())
}

/// A safetensors file.
pub(super) fn safetensors(report: &mut Report, path: &Path, options: Options) -> Result<()> {
    let source = SafetensorsFile::open(path).map_err(|error| damaged(&error))?;
    add_safetensors(report, &source, options)?;
    report.kind = match source.info(PEFT_ROWS) {
        Some(_) => "PEFT prompt",
        None => "safetensors file",
    };
    for (key, text) in source.metadata() {
        if key == TRAIN_STATE {
            report.kind = "ptune training checkpoint";
            let state: Value = serde_json::from_str(text).unwrap_or_default();
            for (name, key) in [
                ("step", "global_step"),
                ("samples", "consumed_samples"),
                ("best", "best"),
                ("finished", "finished"),
            ] {
                if let Some(value) = state.get(key).filter(|value| !value.is_null()) {
                    report.about.insert(name, value.clone());
                }
            }
        } else if key == "format" {
            report.about.insert("written by", json!(text));
        }
    }
    Ok(())
}

/// A NumPy file, of which the header alone is read.
pub(super) fn numpy(report: &mut Report, path: &Path) -> Result<()> {
    let refuse = |reason: &str| {
        Diagnostic::job(format!("not a NumPy file: {reason}")).at(Location::file(path.display()))
    };
    let mut head = vec![0; 4096];
    let mut file = fs_err::File::open(path)?;
    let filled = std::io::Read::read(&mut file, &mut head)?;
    head.truncate(filled);
    // Magic, version, length of the header: two bytes in version 1, four later.
    let (start, length) = match head.get(6..12) {
        Some([1, _, a, b, ..]) => (10_usize, usize::from(u16::from_le_bytes([*a, *b]))),
        Some([2 | 3, _, a, b, c, d]) => (12, u32::from_le_bytes([*a, *b, *c, *d]) as usize),
        _ => return Err(refuse("its version is not known").into()),
    };
    let text = start
        .checked_add(length)
        .and_then(|end| head.get(start..end));
    let text = text.ok_or_else(|| refuse("it is cut short"))?;
    let text = String::from_utf8_lossy(text);
    let field = |name: &str| {
        let (_, rest) = text.split_once(&format!("'{name}':"))?;
        Some(rest.trim_start().to_owned())
    };
    let kind = field("descr").and_then(|rest| Some(rest.split('\'').nth(1)?.to_owned()));
    let shape = field("shape").and_then(|rest| {
        let (inside, _) = rest.strip_prefix('(')?.split_once(')')?;
        let sizes = inside
            .split(',')
            .map(str::trim)
            .filter(|size| !size.is_empty());
        sizes
            .map(|size| size.parse::<usize>().ok())
            .collect::<Option<Vec<_>>>()
    });
    let (Some(kind), Some(shape)) = (kind, shape) else {
        return Err(refuse("its header tells no type and shape").into());
    };
    let numbers = shape
        .iter()
        .fold(1_u64, |product, size| product.saturating_mul(*size as u64));
    report.kind = "NumPy file";
    report.parameters = numbers;
    report.dtypes.push(DtypeTotal {
        dtype: kind,
        tensors: 1,
        numbers,
    });
    report.about.insert("shape", json!(shape));
    if let [rows, width] = shape[..] {
        report.about.insert(
            "as prompts",
            json!(format!(
                "{rows} virtual tokens for a model with hidden size {width}"
            )),
        );
    }
    Ok(())
}
