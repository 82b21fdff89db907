//! NumPy's `.npy` files of floats (format versions 1 to 3, NumPy Enhancement Proposal 1), whole in memory.

use std::path::Path;

use anyhow::Result;
use candle_core::{Device, Tensor};

use super::broken;
use crate::diag::Diagnostic;

/// The first bytes of every such file.
pub(super) const MAGIC: [u8; 6] = *b"\x93NUMPY";
/// NumPy starts the numbers at a multiple of this, so that they can be mapped.
const ALIGNMENT: usize = 64;

/// The bytes of a file with `tensor` in it, as f32 in C order.
pub(super) fn to_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let sizes: Vec<String> = tensor.dims().iter().map(ToString::to_string).collect();
    // A tuple of one has a comma behind it.
    let comma = if sizes.len() == 1 { "," } else { "" };
    let mut header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}{comma}), }}",
        sizes.join(", ")
    );
    let before = MAGIC.len() + 4;
    let end = (before + header.len() + 1).next_multiple_of(ALIGNMENT);
    header.push_str(&" ".repeat(end - before - header.len() - 1));
    header.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&u16::try_from(header.len())?.to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    for value in tensor.flatten_all()?.to_vec1::<f32>()? {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    Ok(bytes)
}

/// The numbers of the file at `path`, as f32.
///
/// # Errors
/// When it is no such file, is cut short, or holds something else than little-endian floats in C order.
pub(super) fn read(path: &Path) -> Result<Tensor> {
    let bytes = fs_err::read(path)?;
    parse(&bytes)
        .map_err(|reason| broken(path, format!("not a NumPy file of floats: {reason}")).into())
}

fn parse(bytes: &[u8]) -> Result<Tensor, String> {
    let cut = || "it is cut short".to_owned();
    let rest = bytes
        .strip_prefix(&MAGIC)
        .ok_or("it does not begin like one")?;
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        [version, ..] if *version > 3 => return Err(format!("version {version} is not known")),
        _ => return Err(cut()),
    };
    let (header, data) = rest.split_at_checked(length).ok_or_else(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is no text")?;
    if value_of(header, "fortran_order") != Some("False") {
        return Err("its numbers are not in C order".to_owned());
    }
    let kind = value_of(header, "descr")
        .unwrap_or("")
        .trim_matches(['\'', '"']);
    let size = match kind {
        "<f2" => 2,
        "<f4" => 4,
        "<f8" => 8,
        other => return Err(format!("its type is `{other}`, expected <f2, <f4 or <f8")),
    };
    let shape = value_of(header, "shape")
        .and_then(|text| text.strip_prefix('(')?.strip_suffix(')'))
        .ok_or("it has no shape")?;
    let shape: Vec<usize> = shape
        .split(',')
        .map(str::trim)
        .filter(|size| !size.is_empty())
        .map(|size| size.parse().map_err(|_| format!("`{size}` is no size")))
        .collect::<Result<_, _>>()?;
    let count = shape
        .iter()
        .try_fold(1_usize, |count, size| count.checked_mul(*size))
        .ok_or("its shape overflows")?;
    if count.checked_mul(size) != Some(data.len()) {
        return Err(format!(
            "shape {shape:?} needs {count} numbers of {size} bytes, there are {} bytes",
            data.len()
        ));
    }
    let numbers: Vec<f32> = match size {
        2 => data
            .as_chunks::<2>()
            .0
            .iter()
            .map(|b| half::f16::from_le_bytes(*b).to_f32())
            .collect(),
        4 => data
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
        _ => data
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| f64::from_le_bytes(*b) as f32)
            .collect(),
    };
    Tensor::from_vec(numbers, shape, &Device::Cpu).map_err(|error| error.to_string())
}

/// The value of a key in the header, a literal of a Python dict: up to its comma, or to the end of its tuple.
fn value_of<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let start = ['\'', '"'].iter().find_map(|quote| {
        let spelt = format!("{quote}{key}{quote}");
        Some(header.find(&spelt)? + spelt.len())
    })?;
    let rest = header[start..].trim_start().strip_prefix(':')?.trim_start();
    let end = if rest.starts_with('(') {
        rest.find(')')? + 1
    } else {
        rest.find([',', '}'])?
    };
    Some(rest[..end].trim())
}

/// A table [V, H] or [tasks, V, H].
pub(super) fn check_dimensions(path: &Path, tensor: &Tensor) -> Result<(), Diagnostic> {
    match tensor.dims() {
        [v, h] | [_, v, h] if *v > 0 && *h > 0 => Ok(()),
        other => Err(broken(
            path,
            format!(
                "shape {other:?}, expected [virtual tokens, hidden size] or one more for tasks in front"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_start_at_byte_128_and_come_back_as_they_were() {
        let tensor = Tensor::arange(0f32, 12.0, &Device::Cpu)
            .unwrap()
            .reshape((3, 4))
            .unwrap();
        let bytes = to_bytes(&tensor).unwrap();
        // 128 bytes of header, as in the published prompt files.
        assert_eq!(bytes.len(), 128 + 12 * 4);
        assert_eq!(bytes[127], b'\n');
        let read = parse(&bytes).unwrap();
        assert_eq!(
            read.to_vec2::<f32>().unwrap(),
            tensor.to_vec2::<f32>().unwrap()
        );
    }

    #[test]
    fn a_header_that_promises_more_than_the_file_has_is_refused() {
        let tensor = Tensor::zeros((2, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let good = to_bytes(&tensor).unwrap();
        let with_shape = |shape: &str| {
            let text = String::from_utf8_lossy(&good[10..128]).replace("(2, 2)", shape);
            let mut bytes = MAGIC.to_vec();
            bytes.extend_from_slice(&[1, 0]);
            bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
            bytes.extend_from_slice(&good[128..]);
            parse(&bytes)
        };
        assert!(with_shape("(2, 2)").is_ok());
        for shape in [
            "(2, 3)",
            "(4294967296, 4294967296)",
            "(-1, 4)",
            "(x,)",
            "",
            "(2, 2",
        ] {
            assert!(with_shape(shape).is_err(), "{shape}");
        }
        for end in [0, 3, 6, 7, 9, 40, 127, 130, good.len() - 1] {
            assert!(parse(&good[..end]).is_err(), "cut at {end}");
        }
    }
}
