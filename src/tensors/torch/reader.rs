//! From a zip to a [`StateValue`].

use std::io::{Cursor, Read, Seek};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use indexmap::IndexMap;

use super::pickle::{self, Element, TensorRef, Value};
use super::{StateValue, TorchError};

/// Depth to which dicts and lists may nest.
const MAX_DEPTH: usize = 64;

/// Reads the checkpoint in `bytes`.
///
/// # Errors
/// Whatever is wrong with the archive, its pickle or a tensor in it.
pub fn read(bytes: &[u8]) -> Result<StateValue, TorchError> {
    Archive::open(Cursor::new(bytes))?.read()
}

/// Reads the checkpoint at `path`.
///
/// # Errors
/// As [`read`], and when the file cannot be read.
pub fn read_file(path: &Path) -> Result<StateValue, TorchError> {
    Archive::open(std::io::BufReader::new(fs_err::File::open(path)?))?.read()
}

struct Archive<R> {
    zip: zip::ZipArchive<R>,
    /// Folder of all entries, with its slash; torch names it after the file.
    prefix: String,
}

impl<R: Read + Seek> Archive<R> {
    fn open(reader: R) -> Result<Self, TorchError> {
        let zip = zip::ZipArchive::new(reader)?;
        let prefix = zip
            .file_names()
            .filter_map(Result::ok)
            .find_map(|name| name.strip_suffix("data.pkl").map(str::to_owned))
            .ok_or_else(|| TorchError::MissingEntry("data.pkl".into()))?;
        Ok(Self { zip, prefix })
    }

    fn entry(&mut self, name: &str) -> Result<Vec<u8>, TorchError> {
        let full = format!("{}{name}", self.prefix);
        let mut entry = match self.zip.by_name(&full) {
            Err(zip::result::ZipError::FileNotFound) => return Err(TorchError::MissingEntry(full)),
            other => other?,
        };
        // torch stores its entries; a compressed one could claim any size.
        if entry.compression() != zip::CompressionMethod::Stored
            || entry.size() != entry.compressed_size()
        {
            return Err(TorchError::Tensor {
                storage: full,
                reason: "the entry is compressed, which torch does not do".into(),
            });
        }
        let mut bytes = vec![];
        entry.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn read(&mut self) -> Result<StateValue, TorchError> {
        let pickle = self.entry("data.pkl")?;
        let value = pickle::load(&pickle)?;
        let mut storages = IndexMap::new();
        self.convert(&value, &mut storages, 0)
    }

    fn convert(
        &mut self,
        value: &Value,
        storages: &mut IndexMap<String, Vec<u8>>,
        depth: usize,
    ) -> Result<StateValue, TorchError> {
        if depth > MAX_DEPTH {
            return Err(TorchError::Pickle {
                position: 0,
                reason: format!("values nest deeper than {MAX_DEPTH}"),
            });
        }
        Ok(match value {
            Value::Null | Value::Global(_) | Value::Storage(_) => StateValue::Null,
            Value::Bool(value) => StateValue::Bool(*value),
            Value::Integer(value) => StateValue::Integer(*value),
            Value::Float(value) => StateValue::Float(*value),
            Value::Text(text) => StateValue::Text(text.to_string()),
            Value::Tuple(items) => self.convert_list(items, storages, depth)?,
            Value::List(items) => {
                let items = items.borrow().clone();
                self.convert_list(&items, storages, depth)?
            }
            Value::Dict(entries) => {
                let mut dict = IndexMap::new();
                for (key, value) in entries.borrow().clone() {
                    let key = match key {
                        Value::Text(text) => text.to_string(),
                        Value::Integer(number) => number.to_string(),
                        _ => continue, // no reader here needs keys that are neither
                    };
                    dict.insert(key, self.convert(&value, storages, depth + 1)?);
                }
                StateValue::Dict(dict)
            }
            Value::Tensor(tensor) => {
                let key = tensor.storage.key.clone();
                if !storages.contains_key(&key) {
                    let bytes = self.entry(&format!("data/{key}"))?;
                    storages.insert(key.clone(), bytes);
                }
                StateValue::Tensor(view(tensor, &storages[&key])?)
            }
        })
    }

    fn convert_list(
        &mut self,
        items: &[Value],
        storages: &mut IndexMap<String, Vec<u8>>,
        depth: usize,
    ) -> Result<StateValue, TorchError> {
        let items: Result<Vec<_>, _> = items
            .iter()
            .map(|item| self.convert(item, storages, depth + 1))
            .collect();
        Ok(StateValue::List(items?))
    }
}

/// The tensor that `view` describes over the bytes of its storage.
fn view(view: &TensorRef, storage: &[u8]) -> Result<Tensor, TorchError> {
    let refuse = |reason: String| TorchError::Tensor {
        storage: view.storage.key.clone(),
        reason,
    };
    let size = view.storage.element.size();
    if view.storage.count.checked_mul(size) != Some(storage.len()) {
        return Err(refuse(format!(
            "its storage has {} bytes, expected {} elements of {size}",
            storage.len(),
            view.storage.count
        )));
    }
    if view.shape.len() != view.strides.len() {
        return Err(refuse(format!(
            "shape {:?} and strides {:?} differ in length",
            view.shape, view.strides
        )));
    }
    let count = view
        .shape
        .iter()
        .try_fold(1usize, |product, size| product.checked_mul(*size));
    let count = count.ok_or_else(|| refuse(format!("shape {:?} is too large", view.shape)))?;
    let last = view
        .shape
        .iter()
        .zip(&view.strides)
        .try_fold(view.offset, |last, (size, stride)| {
            last.checked_add(size.saturating_sub(1).checked_mul(*stride)?)
        });
    let inside = count == 0 || last.is_some_and(|last| last < view.storage.count);
    if !inside || count > view.storage.count {
        return Err(refuse(format!(
            "shape {:?} with strides {:?} at {} reaches outside its {} elements",
            view.shape, view.strides, view.offset, view.storage.count
        )));
    }
    let dtype = match view.storage.element {
        Element::F64 => DType::F64,
        Element::F32 => DType::F32,
        Element::F16 => DType::F16,
        Element::BF16 => DType::BF16,
        Element::I64 => DType::I64,
        Element::I32 => DType::I32,
        Element::I16 => DType::I16,
        Element::U8 | Element::Bool => DType::U8,
        Element::I8 => return Err(refuse("signed bytes are not supported".into())),
    };
    let gathered;
    let bytes = if count == 0 {
        &[][..]
    } else if is_contiguous(&view.shape, &view.strides) {
        &storage[view.offset * size..(view.offset + count) * size]
    } else {
        gathered = gather(view, storage, count, size);
        &gathered
    };
    Ok(Tensor::from_raw_buffer(
        bytes,
        dtype,
        &view.shape,
        &Device::Cpu,
    )?)
}

fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    for (size, stride) in shape.iter().zip(strides).rev() {
        if *size != 1 && *stride != expected {
            return false;
        }
        expected *= size;
    }
    true
}

/// The elements of a strided view in row-major order; the view is known to lie inside the storage.
fn gather(view: &TensorRef, storage: &[u8], count: usize, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count * size);
    let mut index = vec![0usize; view.shape.len()];
    for _ in 0..count {
        let element: usize = view.offset
            + index
                .iter()
                .zip(&view.strides)
                .map(|(i, stride)| i * stride)
                .sum::<usize>();
        bytes.extend_from_slice(&storage[element * size..(element + 1) * size]);
        for dimension in (0..index.len()).rev() {
            index[dimension] += 1;
            if index[dimension] < view.shape[dimension] {
                break;
            }
            index[dimension] = 0;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::pickle::StorageRef;
    use super::*;

    fn reference(offset: usize, shape: &[usize], strides: &[usize]) -> TensorRef {
        TensorRef {
            storage: StorageRef {
                element: Element::U8,
                key: "0".into(),
                count: 6,
            },
            offset,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
        }
    }

    #[test]
    fn a_transposed_view_is_gathered_in_its_own_order() {
        let tensor = view(&reference(0, &[3, 2], &[1, 3]), &[1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(tensor.to_vec2::<u8>().unwrap(), [[1, 4], [2, 5], [3, 6]]);
    }

    #[test]
    fn a_view_outside_its_storage_is_refused() {
        for (offset, shape, strides) in [
            (1, vec![6], vec![1]),
            (0, vec![2, 3], vec![4, 1]),
            (usize::MAX, vec![1], vec![1]),
            (0, vec![usize::MAX, 2], vec![1, 1]),
            (0, vec![1_000_000], vec![0]),
        ] {
            assert!(
                view(&reference(offset, &shape, &strides), &[0; 6]).is_err(),
                "{shape:?}"
            );
        }
    }
}
