//! Ranks that train together. One rank for now; MPI and NCCL come behind the same trait, each on an existing engine.

use anyhow::Result;
use candle_core::Tensor;

/// What data-parallel training needs of the other ranks.
pub trait Communicator {
    /// Number of this rank, from 0.
    fn rank(&self) -> usize;
    /// Number of ranks.
    fn world_size(&self) -> usize;
    /// The element-wise mean of `tensor` over all ranks, on every rank.
    fn all_reduce_mean(&self, tensor: &Tensor) -> Result<Tensor>;
}

/// A single rank.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solo;

impl Communicator for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn all_reduce_mean(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(tensor.clone())
    }
}
