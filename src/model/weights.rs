//! A checkpoint bound to a model's parameters: every name and shape checked before the first number is read.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};

use super::frozen::{FrozenLinear, WeightLayout};
use super::matrix::FrozenMatrix;
use super::names::{NameTable, Slot, Stored};
use super::norm::{Norm, NormKind};
use crate::diag::{Diagnostic, Location};
use crate::tensors::TensorSource;

/// Problems shown of each kind.
const SHOWN: usize = 10;

/// Tensors of a checkpoint under the model's own parameter paths.
pub struct Weights<'a> {
    source: &'a dyn TensorSource,
    /// By parameter path: its parts' keys in the checkpoint, and how its numbers lie.
    parameters: BTreeMap<String, (Vec<String>, Stored)>,
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
        let mut parameters = BTreeMap::new();
        let mut used = BTreeSet::new();
        let mut missing = vec![];
        let mut misshaped = vec![];
        for Slot {
            path,
            parts,
            stored,
            ..
        } in &table.slots
        {
            let mut keys = vec![];
            for part in parts {
                let found = part
                    .keys
                    .iter()
                    .find_map(|key| source.info(key).map(|info| (key, info)));
                let Some((key, info)) = found else {
                    missing.push(format!("`{}` {:?}", part.keys[0], part.shape));
                    continue;
                };
                if info.shape != part.shape {
                    misshaped.push(format!(
                        "`{key}`: found {:?}, expected {:?} from the configuration",
                        info.shape, part.shape
                    ));
                }
                used.extend(part.keys.iter().cloned());
                keys.push(key.clone());
            }
            parameters.insert(path.clone(), (keys, stored.clone()));
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
                parameters,
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
            "check that the configuration belongs to these weights, and that they are of a whole model",
        )))
    }

    /// Whether the model of this configuration has an optional parameter.
    pub fn has(&self, path: &str) -> bool {
        self.parameters.contains_key(path)
    }

    /// The parameter at `path`, in the type and on the device of the model. A linear weight is [out, in].
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn get(&self, path: &str) -> Result<Tensor> {
        let (tensor, stored) = self.stored(path)?;
        Ok(match stored {
            Stored::InOut => tensor.t()?,
            _ => tensor,
        })
    }

    /// The linear layer `path.weight`, with `path.bias` where the model has one.
    ///
    /// # Errors
    /// Where one of them cannot be read.
    pub fn linear(&self, path: &str) -> Result<FrozenLinear> {
        let weight = format!("{path}.weight");
        let layout = match self.parameters.get(&weight) {
            Some((_, Stored::InOut)) => WeightLayout::InOut,
            _ => WeightLayout::OutIn,
        };
        Ok(FrozenLinear::new(
            self.as_it_lies(&weight)?,
            self.optional(&format!("{path}.bias"))?,
            layout,
        )?)
    }

    /// The norm `path.weight`, with `path.bias` where it has one.
    ///
    /// # Errors
    /// Where one of them cannot be read.
    pub fn norm(&self, path: &str, kind: NormKind, epsilon: f64) -> Result<Norm> {
        Ok(Norm::new(
            kind,
            &self.get(&format!("{path}.weight"))?,
            self.optional(&format!("{path}.bias"))?.as_ref(),
            epsilon,
        )?)
    }

    /// The matrix at `path`, such as a table of embeddings; on the CPU without a copy where it is stored as it is used.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn matrix(&self, path: &str) -> Result<FrozenMatrix> {
        match self.parameters.get(path) {
            Some((_, Stored::InOut)) => Ok(self.get(path)?.try_into()?),
            _ => self.as_it_lies(path),
        }
    }

    /// [`Self::matrix`], where the model has it.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn optional_matrix(&self, path: &str) -> Result<Option<FrozenMatrix>> {
        self.has(path).then(|| self.matrix(path)).transpose()
    }

    /// The parameter at `path`, where the model has it.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn optional(&self, path: &str) -> Result<Option<Tensor>> {
        self.has(path).then(|| self.get(path)).transpose()
    }

    /// The parameter in one piece, in the type and in the order it is stored in, and what that order is; where the
    /// checkpoint has no such parameter, nothing.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn as_stored(&self, path: &str) -> Result<Option<(Tensor, &Stored)>> {
        let Some((keys, stored)) = self.parameters.get(path) else {
            return Ok(None);
        };
        let parts = keys
            .iter()
            .map(|key| Ok(self.source.load(key, &self.device)?))
            .collect::<Result<Vec<_>>>()?;
        let whole = match parts.as_slice() {
            [only] => only.clone(),
            _ if *stored == Stored::InOut => Tensor::cat(&parts, 1)?,
            _ => Tensor::cat(&parts, 0)?,
        };
        Ok(Some((whole, stored)))
    }

    /// Type of the stored numbers of a parameter.
    pub fn stored_dtype(&self, path: &str) -> Option<DType> {
        let (keys, _) = self.parameters.get(path)?;
        Some(self.source.info(keys.first()?)?.dtype)
    }

    /// A matrix in the model's order, but for what a linear layer can use as it lies.
    fn as_it_lies(&self, path: &str) -> Result<FrozenMatrix> {
        if let Some(mapped) = self.mapped(path) {
            return Ok(mapped);
        }
        Ok(self.stored(path)?.0.try_into()?)
    }

    /// The same from mapped files, on the CPU: used where it lies, or made f32 in one go.
    fn mapped(&self, path: &str) -> Option<FrozenMatrix> {
        if !self.device.is_cpu() {
            return None;
        }
        let (keys, stored) = self.parameters.get(path)?;
        let dtype = self.dtype.unwrap_or(DType::F32);
        let mut parts = keys
            .iter()
            .map(|key| self.source.mapped(key))
            .collect::<Option<Vec<_>>>()?;
        let is_whole = parts.len() == 1 && matches!(stored, Stored::Plain | Stored::InOut);
        if is_whole && parts[0].info().dtype == dtype {
            return FrozenMatrix::mapped(parts.pop()?);
        }
        if dtype != DType::F32 {
            return None;
        }
        match stored {
            Stored::Interleaved { groups, widths } => {
                FrozenMatrix::gathered(&parts, Some(&order(*groups, widths)))
            }
            Stored::Plain => FrozenMatrix::gathered(&parts, None),
            Stored::InOut if parts.len() == 1 => FrozenMatrix::gathered(&parts, None),
            Stored::InOut | Stored::LessOne => None,
        }
    }

    /// The parameter in one piece and in the model's order, but for what a linear layer can use as it lies.
    fn stored(&self, path: &str) -> Result<(Tensor, &Stored)> {
        let (whole, stored) = self
            .as_stored(path)?
            .with_context(|| format!("parameter `{path}` is not in the table of names"))?;
        let dtype = self.dtype.unwrap_or(match self.device {
            Device::Cpu => DType::F32,
            _ => whole.dtype(),
        });
        let tensor = match stored {
            Stored::Plain | Stored::InOut => whole,
            // Added in f32: in half precision the sum would lose what storing the difference saved.
            Stored::LessOne => (whole.to_dtype(DType::F32)? + 1.0)?,
            Stored::Interleaved { groups, widths } => in_order(&whole, *groups, widths)?,
        };
        Ok((tensor.to_dtype(dtype)?, stored))
    }
}

/// Output rows of several projections, sorted by projection: see [`Stored::Interleaved`].
pub(super) fn in_order(
    rows: &Tensor,
    groups: usize,
    widths: &[usize],
) -> candle_core::Result<Tensor> {
    let order = order(groups, widths);
    let order = Tensor::from_slice(&order, order.len(), rows.device())?;
    rows.index_select(&order, 0)
}

/// Where each of the sorted rows comes from.
fn order(groups: usize, widths: &[usize]) -> Vec<u32> {
    let all: usize = widths.iter().sum();
    let mut order = Vec::with_capacity(groups * all);
    let mut start = 0;
    for &width in widths {
        for group in 0..groups {
            let first = group * all + start;
            order.extend(first as u32..(first + width) as u32);
        }
        start += width;
    }
    order
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
    use crate::model::names::{Linear, Split};
    use crate::tensors::InMemory;

    #[test]
    fn every_problem_of_a_checkpoint_is_reported_at_once() {
        let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let source = InMemory::new([
            ("first".to_owned(), zeros((2, 3))),
            ("stranger".to_owned(), zeros((1, 1))),
            ("buffer.mask".to_owned(), zeros((1, 1))),
        ]);
        let mut table = NameTable::new("toy", &["buffer."]);
        table.add("a", "first", &[3, 2]);
        table.add("b", "second", &[4]);
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

    #[test]
    fn parts_are_stacked_sorted_by_projection_and_made_whole() {
        let column = |from: f32, rows: usize| {
            let rows: Vec<f32> = (0..rows).map(|row| from + row as f32).collect();
            let count = rows.len();
            Tensor::from_vec(rows, (count, 1), &Device::Cpu).unwrap()
        };
        let source = InMemory::new([
            ("one".to_owned(), column(0.0, 2)),
            ("two".to_owned(), column(10.0, 1)),
            ("heads".to_owned(), column(0.0, 8)),
            ("norm".to_owned(), column(0.0, 2).flatten_all().unwrap()),
        ]);
        let mut table = NameTable::new("toy", &[]);
        table.linear(&Linear {
            path: "stacked",
            keys: &["one".to_owned(), "absent|two".to_owned()],
            outputs: &[2, 1],
            inputs: 1,
            bias: false,
            stored: Stored::Plain,
            split: Split::Replicated,
        });
        // Two groups of two queries, a key and a value.
        table.add("heads", "heads", &[8, 1]).stored = Stored::Interleaved {
            groups: 2,
            widths: vec![2, 1, 1],
        };
        table.add("norm", "norm", &[2]).stored = Stored::LessOne;
        let weights = Weights::bind(&source, &table, None, &Device::Cpu).unwrap();
        let numbers = |path: &str| -> Vec<f32> {
            let tensor = weights.get(path).unwrap();
            tensor.flatten_all().unwrap().to_vec1().unwrap()
        };
        assert_eq!(numbers("stacked.weight"), [0.0, 1.0, 10.0]);
        assert_eq!(numbers("heads"), [0.0, 1.0, 4.0, 5.0, 2.0, 6.0, 3.0, 7.0]);
        assert_eq!(numbers("norm"), [1.0, 2.0]);
        assert!(weights.optional("stacked.bias").unwrap().is_none());
    }
}
