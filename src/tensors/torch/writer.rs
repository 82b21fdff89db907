//! From a [`StateValue`] to the zip that `torch.save` would write.

use std::io::{Cursor, Seek, Write};

use candle_core::{DType, Device, Tensor};
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

use super::{StateValue, TorchError};
use crate::tensors::TensorInfo;

/// torch aligns the data of a storage so that it can be mapped.
const ALIGNMENT: u16 = 64;

/// The bytes of a checkpoint file with `state` in it. Equal input gives equal bytes.
///
/// # Errors
/// When a tensor has a type that torch has no storage for.
pub fn write(state: &StateValue) -> Result<Vec<u8>, TorchError> {
    let mut pickle = Pickler::default();
    pickle.value(state)?;
    let mut tensors = std::mem::take(&mut pickle.tensors).into_iter();
    let mut out = Cursor::new(vec![]);
    pickle.finish(&mut out, |_| {
        Ok(tensors.next().expect("one for each storage"))
    })?;
    Ok(out.into_inner())
}

/// Writes a state dict of tensors to `out` from its present position on, asking `load` for one tensor after another, so
/// that no more than one is in memory.
///
/// # Errors
/// When `load` fails or gives something else than was announced, a type has no storage in torch, or `out` refuses.
pub fn write_tensors<W: Write + Seek>(
    out: W,
    tensors: &[(String, TensorInfo)],
    mut load: impl FnMut(&str) -> Result<Tensor, TorchError>,
) -> Result<(), TorchError> {
    let mut pickle = Pickler::default();
    pickle.dict(tensors.iter(), |pickle, (name, info)| {
        pickle.text(name);
        pickle.tensor(info.dtype, &info.shape)
    })?;
    pickle.finish(out, |index| {
        let (name, info) = &tensors[index];
        let tensor = load(name)?;
        if tensor.dtype() != info.dtype || tensor.dims() != info.shape {
            return Err(TorchError::Tensor {
                storage: name.clone(),
                reason: format!(
                    "{:?} {:?} was announced and {:?} {:?} came",
                    info.dtype,
                    info.shape,
                    tensor.dtype(),
                    tensor.dims()
                ),
            });
        }
        Ok(tensor)
    })
}

struct Pickler {
    bytes: Vec<u8>,
    /// Tensors of a [`StateValue`], in the order of their storages.
    tensors: Vec<Tensor>,
    /// Bytes of each storage.
    storages: Vec<usize>,
}

impl Default for Pickler {
    fn default() -> Self {
        Self {
            bytes: vec![0x80, 2],
            tensors: vec![],
            storages: vec![],
        }
    }
}

impl Pickler {
    /// Writes the zip: the pickle, and the storages as `tensor` gives them.
    fn finish<W: Write + Seek>(
        mut self,
        out: W,
        mut tensor: impl FnMut(usize) -> Result<Tensor, TorchError>,
    ) -> Result<(), TorchError> {
        self.bytes.push(b'.');
        let mut zip = zip::ZipWriter::new(out);
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::default())
            .with_alignment(ALIGNMENT);
        let start = |zip: &mut zip::ZipWriter<W>, name: &str, size: usize| {
            let large = options.large_file(u32::try_from(size).is_err());
            zip.start_file(format!("archive/{name}"), large)
        };
        start(&mut zip, "data.pkl", self.bytes.len())?;
        zip.write_all(&self.bytes)?;
        start(&mut zip, "byteorder", 6)?;
        zip.write_all(b"little")?;
        for (index, &size) in self.storages.iter().enumerate() {
            start(&mut zip, &format!("data/{index}"), size)?;
            zip.write_all(&little_endian_bytes(&tensor(index)?)?)?;
        }
        start(&mut zip, "version", 2)?;
        zip.write_all(b"3\n")?;
        zip.finish()?;
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) {
        self.bytes
            .extend_from_slice(format!("c{module}\n{name}\n").as_bytes());
    }

    fn text(&mut self, text: &str) {
        self.bytes.push(b'X');
        self.bytes
            .extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn integer(&mut self, number: i64) {
        if let Ok(byte) = u8::try_from(number) {
            self.bytes.extend_from_slice(&[b'K', byte]);
        } else if let Ok(word) = i32::try_from(number) {
            self.bytes.push(b'J');
            self.bytes.extend_from_slice(&word.to_le_bytes());
        } else {
            self.bytes.extend_from_slice(&[0x8a, 8]);
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn sizes(&mut self, sizes: &[usize]) {
        self.bytes.push(b'(');
        for size in sizes {
            self.integer(*size as i64);
        }
        self.bytes.push(b't');
    }

    fn value(&mut self, value: &StateValue) -> Result<(), TorchError> {
        match value {
            StateValue::Null => self.bytes.push(b'N'),
            StateValue::Bool(value) => self.bytes.push(if *value { 0x88 } else { 0x89 }),
            StateValue::Integer(value) => self.integer(*value),
            StateValue::Float(value) => {
                self.bytes.push(b'G');
                self.bytes.extend_from_slice(&value.to_be_bytes());
            }
            StateValue::Text(text) => self.text(text),
            StateValue::Bytes(bytes) => {
                // Protocol 2 has no bytes: `_codecs.encode(text, 'latin1')`.
                self.global("_codecs", "encode");
                self.text(
                    &bytes
                        .iter()
                        .map(|byte| char::from(*byte))
                        .collect::<String>(),
                );
                self.text("latin1");
                self.bytes.extend_from_slice(b"\x86R");
            }
            StateValue::List(items) => {
                self.bytes.extend_from_slice(b"](");
                for item in items {
                    self.value(item)?;
                }
                self.bytes.push(b'e');
            }
            StateValue::Dict(entries) => {
                self.dict(entries.iter(), |this, (key, value)| {
                    this.text(key);
                    this.value(value)
                })?;
            }
            StateValue::Tensor(tensor) => {
                self.tensor(tensor.dtype(), tensor.dims())?;
                self.tensors.push(tensor.clone());
            }
        }
        Ok(())
    }

    /// An `OrderedDict`; `entry` writes key and value.
    fn dict<T>(
        &mut self,
        entries: impl Iterator<Item = T>,
        mut entry: impl FnMut(&mut Self, T) -> Result<(), TorchError>,
    ) -> Result<(), TorchError> {
        self.global("collections", "OrderedDict");
        self.bytes.extend_from_slice(b")R(");
        for item in entries {
            entry(self, item)?;
        }
        self.bytes.push(b'u');
        Ok(())
    }

    /// `_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`
    fn tensor(&mut self, dtype: DType, shape: &[usize]) -> Result<(), TorchError> {
        let storage = match dtype {
            DType::F64 => "DoubleStorage",
            DType::F32 => "FloatStorage",
            DType::F16 => "HalfStorage",
            DType::BF16 => "BFloat16Storage",
            DType::I64 => "LongStorage",
            DType::I32 => "IntStorage",
            DType::I16 => "ShortStorage",
            DType::U8 => "ByteStorage",
            other => {
                return Err(TorchError::Tensor {
                    storage: self.storages.len().to_string(),
                    reason: format!("torch has no storage for {other:?}"),
                });
            }
        };
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.bytes.push(b'(');
        // The persistent id of the storage.
        self.bytes.push(b'(');
        self.text("storage");
        self.global("torch", storage);
        self.text(&self.storages.len().to_string());
        self.text("cpu");
        let count = shape.iter().product::<usize>();
        self.integer(count as i64);
        self.bytes.extend_from_slice(b"tQ");
        self.integer(0);
        self.sizes(shape);
        self.sizes(&row_major_strides(shape));
        self.bytes.push(0x89);
        self.global("collections", "OrderedDict");
        self.bytes.extend_from_slice(b")RtR");
        self.storages.push(count * dtype.size_in_bytes());
        Ok(())
    }
}

fn row_major_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for dimension in (1..shape.len()).rev() {
        strides[dimension - 1] = strides[dimension] * shape[dimension].max(1);
    }
    strides
}

pub(crate) fn little_endian_bytes(tensor: &Tensor) -> Result<Vec<u8>, TorchError> {
    let flat = tensor.to_device(&Device::Cpu)?.flatten_all()?;
    macro_rules! bytes_of {
        ($type:ty) => {
            flat.to_vec1::<$type>()?
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect()
        };
    }
    Ok(match tensor.dtype() {
        DType::F64 => bytes_of!(f64),
        DType::F32 => bytes_of!(f32),
        DType::F16 => bytes_of!(half::f16),
        DType::BF16 => bytes_of!(half::bf16),
        DType::I64 => bytes_of!(i64),
        DType::I32 => bytes_of!(i32),
        DType::I16 => bytes_of!(i16),
        _ => flat.to_vec1::<u8>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;
    use indexmap::IndexMap;

    fn state() -> StateValue {
        let tensor = |dtype| {
            let numbers: Vec<f32> = (0..6).map(|i| i as f32 - 2.0).collect();
            Tensor::from_vec(numbers, (2, 3), &Device::Cpu)
                .unwrap()
                .to_dtype(dtype)
                .unwrap()
        };
        StateValue::Dict(IndexMap::from([
            ("f32".to_owned(), StateValue::Tensor(tensor(DType::F32))),
            ("bf16".to_owned(), StateValue::Tensor(tensor(DType::BF16))),
            ("i64".to_owned(), StateValue::Tensor(tensor(DType::I64))),
            (
                "inner".to_owned(),
                StateValue::Dict(IndexMap::from([
                    ("step".to_owned(), StateValue::Integer(-70_000_000_000)),
                    ("lr".to_owned(), StateValue::Float(0.1)),
                    ("name".to_owned(), StateValue::Text("größe".to_owned())),
                    (
                        "list".to_owned(),
                        StateValue::List(vec![StateValue::Bool(true), StateValue::Null]),
                    ),
                    ("bytes".to_owned(), StateValue::Bytes(vec![0, 200])),
                ])),
            ),
        ]))
    }

    #[test]
    fn what_was_written_is_read_back() {
        let read = read(&write(&state()).unwrap()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", state()));
        let numbers = read
            .get("i64")
            .unwrap()
            .as_tensor()
            .unwrap()
            .to_vec2::<i64>()
            .unwrap();
        assert_eq!(numbers, [[-2, -1, 0], [1, 2, 3]]);
    }

    #[test]
    fn equal_states_give_equal_bytes_with_aligned_storages() {
        let bytes = write(&state()).unwrap();
        assert_eq!(bytes, write(&state()).unwrap());
        let mut zip = zip::ZipArchive::new(Cursor::new(&bytes)).unwrap();
        let entry = zip.by_name("archive/data/0").unwrap();
        assert_eq!(entry.data_start().unwrap() % u64::from(ALIGNMENT), 0);
    }
}
