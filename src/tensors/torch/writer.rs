//! From a [`StateValue`] to the zip that `torch.save` would write.

use std::io::{Cursor, Write};

use candle_core::{DType, Device, Tensor};
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

use super::{StateValue, TorchError};

/// torch aligns the data of a storage so that it can be mapped.
const ALIGNMENT: u16 = 64;

/// The bytes of a checkpoint file with `state` in it. Equal input gives equal bytes.
///
/// # Errors
/// When a tensor has a type that torch has no storage for.
pub fn write(state: &StateValue) -> Result<Vec<u8>, TorchError> {
    let mut pickle = Pickler {
        bytes: vec![0x80, 2],
        storages: vec![],
    };
    pickle.value(state)?;
    pickle.bytes.push(b'.');

    let mut zip = zip::ZipWriter::new(Cursor::new(vec![]));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .with_alignment(ALIGNMENT);
    let mut entry = |name: &str, bytes: &[u8]| -> Result<(), TorchError> {
        let large = options.large_file(u32::try_from(bytes.len()).is_err());
        zip.start_file(format!("archive/{name}"), large)?;
        zip.write_all(bytes)?;
        Ok(())
    };
    entry("data.pkl", &pickle.bytes)?;
    entry("byteorder", b"little")?;
    for (index, storage) in pickle.storages.iter().enumerate() {
        entry(&format!("data/{index}"), storage)?;
    }
    entry("version", b"3\n")?;
    Ok(zip.finish()?.into_inner())
}

struct Pickler {
    bytes: Vec<u8>,
    storages: Vec<Vec<u8>>,
}

impl Pickler {
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
                self.global("collections", "OrderedDict");
                self.bytes.extend_from_slice(b")R(");
                for (key, value) in entries {
                    self.text(key);
                    self.value(value)?;
                }
                self.bytes.push(b'u');
            }
            StateValue::Tensor(tensor) => self.tensor(tensor)?,
        }
        Ok(())
    }

    /// `_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`
    fn tensor(&mut self, tensor: &Tensor) -> Result<(), TorchError> {
        let storage = match tensor.dtype() {
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
        self.integer(tensor.elem_count() as i64);
        self.bytes.extend_from_slice(b"tQ");
        self.integer(0);
        self.sizes(tensor.dims());
        self.sizes(&row_major_strides(tensor.dims()));
        self.bytes.push(0x89);
        self.global("collections", "OrderedDict");
        self.bytes.extend_from_slice(b")RtR");
        self.storages.push(little_endian_bytes(tensor)?);
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

fn little_endian_bytes(tensor: &Tensor) -> Result<Vec<u8>, TorchError> {
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
