//! Attention of a decoder over an encoder's output, or of the ends of rows over whole rows: `x + output(attention(norm(x),
//! memory))`.
//!
//! On the CPU it is one op whose backward is written by hand, around one of two ways of attending: to keys and values of
//! the memory ([`super::projected`]), or to the memory itself ([`super::absorbed`]).

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::absorbed::{Absorbed, SharedMemory};
use super::attention::{HeadLayout, attend};
use super::frozen::FrozenLinear;
use super::kernels::buffer::Buffer;
use super::kernels::matmul::Into;
use super::kernels::norm as norm_kernel;
use super::norm::Norm;
use super::ops::{Engine, contiguous_f32, store, take, with_f32};
use super::projected::{Projected, Turns};
use super::rows::Rows;

/// Attention of a decoder over an encoder's output.
#[derive(Clone, Debug)]
pub struct CrossAttention {
    /// Before the query's projection.
    pub norm: Norm,
    /// [H] -> [query_width]
    pub query: FrozenLinear,
    /// Key and value side by side: [H] -> [2 · key_width].
    pub key_value: FrozenLinear,
    /// Back to [H].
    pub output: FrozenLinear,
    /// Sizes and rules; causal only where the queries are the last positions of the memory's rows.
    pub layout: HeadLayout,
    /// Whether the backward computes the projections again instead of keeping them.
    pub recompute: bool,
}

impl CrossAttention {
    /// `x + output(attention(norm(x), memory))`: x [N, H] and memory [M, H] -> [N, H].
    ///
    /// # Errors
    /// Where sizes do not fit.
    pub fn forward(
        &self,
        x: &Tensor,
        rows: &Arc<Rows>,
        memory: &Tensor,
        memory_rows: &Arc<Rows>,
        engine: Engine,
    ) -> Result<Tensor> {
        match engine {
            Engine::Reference => {
                let query = self.query.forward(&self.norm.forward(x)?)?; // [N, Q]
                let key_value = self.key_value.forward(memory)?; // [M, 2K]
                let keys = self.layout.key_width();
                let attended = attend(
                    &self.layout,
                    &query,
                    &key_value.narrow(1, 0, keys)?,
                    &key_value.narrow(1, keys, keys)?,
                    rows,
                    memory_rows.ranges(),
                    None,
                )?; // [N, Q]
                x + self.output.forward(&attended)?
            }
            Engine::Fused => self.fused(x, rows, memory, memory_rows, None),
        }
    }

    /// [`Self::fused`] without a projection of the memory; `is_first` of all layers that have `shared`, whose backward
    /// is the last and gives the memory's.
    pub(crate) fn absorbed(
        &self,
        x: &Tensor,
        rows: &Arc<Rows>,
        memory: &Tensor,
        memory_rows: &Arc<Rows>,
        shared: &Arc<SharedMemory>,
        is_first: bool,
    ) -> Result<Tensor> {
        let attending = Absorbed {
            rows: rows.clone(),
            memory_rows: memory_rows.clone(),
            shared: shared.clone(),
            is_first,
        };
        self.by(attending, x, memory)
    }

    /// [`Self::forward`] over the CPU kernels, queries and keys turned by their positions.
    pub(crate) fn fused(
        &self,
        x: &Tensor,
        rows: &Arc<Rows>,
        memory: &Tensor,
        memory_rows: &Arc<Rows>,
        turns: Turns,
    ) -> Result<Tensor> {
        if turns.is_none() && self.is_absorbed_for(rows, memory_rows) {
            let shared = Arc::<SharedMemory>::default();
            return self.absorbed(x, rows, memory, memory_rows, &shared, true);
        }
        let attending = Projected {
            rows: rows.clone(),
            memory_rows: memory_rows.clone(),
            turns,
        };
        self.by(attending, x, memory)
    }

    fn by(
        &self,
        attending: impl Attending + 'static,
        x: &Tensor,
        memory: &Tensor,
    ) -> Result<Tensor> {
        x.contiguous()?.apply_op2(
            &memory.contiguous()?,
            CrossAttentionOp {
                block: self.clone(),
                attending,
                keep: (x.track_op() || memory.track_op()) && !self.recompute,
                saved: Mutex::new(None),
            },
        )
    }

    /// Adds the sub-layer's result for `x` [N, H] to `y` (where asked for), where `attend` takes queries [N, Q] to what they
    /// attended to and to what it wants to give.
    pub(crate) fn around<T>(
        &self,
        x: &[f32],
        y: Option<&mut [f32]>,
        attend: impl FnOnce(Buffer) -> Result<(Buffer, T)>,
    ) -> Result<T> {
        let mut normed = Buffer::dirty(x.len());
        self.norm
            .with_weights(|norm| norm_kernel::forward(x, norm, &mut normed))?;
        let count = x.len() / self.query.inputs();
        let mut query = Buffer::dirty(count * self.layout.query_width());
        self.query.apply(&normed, &mut query, Into::Overwrite)?;
        drop(normed);
        let (attended, given) = attend(query)?;
        if let Some(y) = y {
            self.output.apply(&attended, y, Into::Add)?;
        }
        Ok(given)
    }

    /// Numbers held.
    pub fn parameter_count(&self) -> usize {
        self.norm.parameter_count()
            + self.query.parameter_count()
            + self.key_value.parameter_count()
            + self.output.parameter_count()
    }
}

/// A way of attending to a memory [M, H].
pub(crate) trait Attending: Send + Sync {
    /// What its forward pass leaves for its backward.
    type Saved: Send;

    /// What queries [N, Q] attend to, [N, Q].
    fn attend(
        &self,
        block: &CrossAttention,
        query: Buffer,
        memory: &[f32],
    ) -> Result<(Buffer, Self::Saved)>;

    /// From the gradient of what [`Self::attend`] gave that of the queries [N, Q], and that of the memory [M, H] where it
    /// is this layer's to give.
    fn gradient(
        &self,
        block: &CrossAttention,
        memory: &[f32],
        dattended: Buffer,
        saved: Self::Saved,
    ) -> Result<(Buffer, Option<Vec<f32>>)>;
}

/// The sub-layer as one op of the decoder's state and the encoder's output.
struct CrossAttentionOp<A: Attending> {
    block: CrossAttention,
    attending: A,
    keep: bool,
    saved: Mutex<Option<A::Saved>>,
}

impl<A: Attending> CrossAttentionOp<A> {
    /// Adds the sub-layer's result to `y` (where asked for) and gives what the backward needs.
    fn run(&self, x: &[f32], memory: &[f32], y: Option<&mut [f32]>) -> Result<A::Saved> {
        let block = &self.block;
        block.around(x, y, |query| self.attending.attend(block, query, memory))
    }

    fn gradient(
        &self,
        x: &[f32],
        memory: &[f32],
        dy: &[f32],
        saved: A::Saved,
    ) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        let block = &self.block;
        let count = x.len() / block.query.inputs();
        let mut dattended = Buffer::dirty(count * block.layout.query_width());
        block
            .output
            .apply_vjp(dy, &mut dattended, Into::Overwrite)?;
        let (dquery, dmemory) = self.attending.gradient(block, memory, dattended, saved)?;
        let mut dnormed = Buffer::dirty(x.len());
        block
            .query
            .apply_vjp(&dquery, &mut dnormed, Into::Overwrite)?;
        let mut dx = dy.to_vec();
        block
            .norm
            .with_weights(|norm| norm_kernel::add_vjp(x, &dnormed, norm, &mut dx))?;
        Ok((dx, dmemory))
    }
}

impl<A: Attending> CustomOp2 for CrossAttentionOp<A> {
    fn name(&self) -> &'static str {
        "cross-attention"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, memory) = (contiguous_f32(s1, l1)?, contiguous_f32(s2, l2)?);
        let mut y = x.to_vec();
        let saved = self.run(x, memory, Some(&mut y))?;
        if self.keep {
            store(&self.saved, saved);
        }
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        memory: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (dx, dmemory) = with_f32(x, |x| {
            with_f32(memory, |memory| -> Result<_> {
                let saved = match take(&self.saved) {
                    Some(saved) => saved,
                    None => self.run(x, memory, None)?,
                };
                with_f32(&grad, |dy| self.gradient(x, memory, dy, saved))?
            })
        })???;
        let dmemory =
            dmemory.map(|numbers| Tensor::from_vec(numbers, memory.shape(), memory.device()));
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), x.device())?),
            dmemory.transpose()?,
        ))
    }
}
