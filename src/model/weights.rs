//! A checkpoint bound to a model's parameters: every name and shape checked before the first number is read.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};

use super::names::NameTable;
use crate::diag::{Diagnostic, Location};
use crate::tensors::TensorSource;

/// Problems shown of each kind.
const SHOWN: usize = 10;

/// Tensors of a checkpoint under the model's own parameter paths.
pub struct Weights<'a> {
    source: &'a dyn TensorSource,
    /// Parameter path -> key of the checkpoint.
    keys: BTreeMap<String, String>,
    dtype: Option<DType>,
    device: Device,
}

impl<'a> Weights<'a> {
    /// Looks every parameter of `table` up in `source` and compares the shapes.
    ///
    /// Numbers become `dtype`; without one, f32 on the CPU and the stored type elsewhere.
    ///
    /// # Errors
    /// One [`Diagnostic`] that lists all tensors that are missing, of another shape, or unknown.
    pub fn bind(
        source: &'a dyn TensorSource,
        table: &NameTable,
        dtype: Option<DType>,
        device: &Device,
    ) -> Result<Self, Box<Diagnostic>> {
        let mut keys = BTreeMap::new();
        let mut used = BTreeSet::new();
        let mut missing = vec![];
        let mut misshaped = vec![];
        for slot in &table.slots {
            let found = slot
                .keys
                .iter()
                .find_map(|key| source.info(key).map(|info| (key, info)));
            let Some((key, info)) = found else {
                missing.push(format!("`{}` {:?}", slot.keys[0], slot.shape));
                continue;
            };
            if info.shape != slot.shape {
                misshaped.push(format!(
                    "`{key}`: found {:?}, expected {:?} from the configuration",
                    info.shape, slot.shape
                ));
            }
            used.extend(slot.keys.iter().cloned());
            keys.insert(slot.path.clone(), key.clone());
        }
        let unknown: Vec<String> = source
            .names()
            .into_iter()
            .filter(|name| !used.contains(name) && !table.is_ignored(name))
            .map(|name| format!("`{name}`"))
            .collect();
        if missing.is_empty() && misshaped.is_empty() && unknown.is_empty() {
            return Ok(Self {
                source,
                keys,
                dtype,
                device: device.clone(),
            });
        }
        let mut diagnostic = Diagnostic::job(format!(
            "the checkpoint does not fit a {} of this configuration",
            table.architecture
        ))
        .at(Location::file(source.describe()));
        for (what, list) in [
            ("missing", missing),
            ("of another shape", misshaped),
            ("unknown", unknown),
        ] {
            if list.is_empty() {
                continue;
            }
            diagnostic = diagnostic.note(format!("{} {what}:", count(list.len())));
            for item in list.iter().take(SHOWN) {
                diagnostic = diagnostic.note(format!("  {item}"));
            }
            if list.len() > SHOWN {
                diagnostic = diagnostic.note(format!("  … and {} more", list.len() - SHOWN));
            }
        }
        Err(Box::new(diagnostic.hint(
            "check that config.json belongs to these weights, and that they are of a whole model",
        )))
    }

    /// Whether the checkpoint has an optional parameter.
    pub fn has(&self, path: &str) -> bool {
        self.keys.contains_key(path)
    }

    /// The parameter at `path`, in the type and on the device of the model.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn get(&self, path: &str) -> Result<Tensor> {
        let key = self
            .keys
            .get(path)
            .with_context(|| format!("parameter `{path}` is not in the table of names"))?;
        let tensor = self.source.load(key, &self.device)?;
        let dtype = self.dtype.unwrap_or(match self.device {
            Device::Cpu => DType::F32,
            _ => tensor.dtype(),
        });
        Ok(tensor.to_dtype(dtype)?)
    }
}

fn count(number: usize) -> String {
    match number {
        1 => "1 tensor is".to_owned(),
        _ => format!("{number} tensors are"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::Slot;
    use crate::tensors::InMemory;

    #[test]
    fn every_problem_of_a_checkpoint_is_reported_at_once() {
        let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let source = InMemory::new([
            ("first".to_owned(), zeros((2, 3))),
            ("stranger".to_owned(), zeros((1, 1))),
            ("buffer.mask".to_owned(), zeros((1, 1))),
        ]);
        let table = NameTable {
            architecture: "toy",
            slots: vec![
                Slot::new("a", "first", &[3, 2]),
                Slot::new("b", "second", &[4]),
            ],
            ignored: vec!["buffer."],
        };
        let error = Weights::bind(&source, &table, None, &Device::Cpu)
            .err()
            .unwrap();
        let text = error.to_string();
        assert!(
            text.contains("1 tensor is missing:\n  =   `second` [4]"),
            "{text}"
        );
        assert!(
            text.contains("`first`: found [2, 3], expected [3, 2]"),
            "{text}"
        );
        assert!(
            text.contains("1 tensor is unknown:\n  =   `stranger`"),
            "{text}"
        );
        assert!(!text.contains("buffer.mask"), "{text}");
        assert!(text.contains("tensors in memory"), "{text}");
    }
}
