//! Frozen linear layers and embeddings: weights that never change, and of which no gradient is computed.
//!
//! candle's matrix product computes the gradient of both operands; a third of the arithmetic of a training step and
//! as much memory as the model would go to gradients that nobody asks for. The ops here give the input's alone. This
//! is also where sharding a layer over ranks (by columns or by rows) would be decided.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};

use super::kernels::matmul::{Into, MatMut, MatRef, Threads, matmul};
use super::matrix::FrozenMatrix;
use super::ops::{contiguous_f32, with_f32};

/// How a checkpoint lays a linear layer's weight out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightLayout {
    /// [out, in], as `torch.nn.Linear`.
    OutIn,
    /// [in, out], as GPT-2's `Conv1D`.
    InOut,
}

/// `y = x · Wᵀ + b` with W and b frozen.
#[derive(Clone, Debug)]
pub struct FrozenLinear {
    weight: FrozenMatrix,
    bias: Option<Tensor>,
    layout: WeightLayout,
}

impl FrozenLinear {
    /// A layer of this weight (in `layout`) and bias [out].
    pub fn new(weight: FrozenMatrix, bias: Option<Tensor>, layout: WeightLayout) -> Self {
        Self {
            weight,
            bias: bias.map(|bias| bias.detach()),
            layout,
        }
    }

    /// Numbers of an output row.
    pub fn outputs(&self) -> usize {
        let (rows, cols) = self.sizes();
        match self.layout {
            WeightLayout::OutIn => rows,
            WeightLayout::InOut => cols,
        }
    }

    /// Numbers of an input row.
    pub fn inputs(&self) -> usize {
        let (rows, cols) = self.sizes();
        match self.layout {
            WeightLayout::OutIn => cols,
            WeightLayout::InOut => rows,
        }
    }

    fn sizes(&self) -> (usize, usize) {
        self.weight.sizes()
    }

    /// Numbers held.
    pub fn parameter_count(&self) -> usize {
        self.weight.elem_count() + self.bias.as_ref().map_or(0, Tensor::elem_count)
    }

    /// `x · Wᵀ + b`: [N, in] -> [N, out]; differentiable in `x` alone.
    ///
    /// # Errors
    /// Where the sizes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = x.contiguous()?.apply_op1(FrozenProduct(self.clone()))?; // [N, out]
        match &self.bias {
            Some(bias) if !self.on_cpu() => product.broadcast_add(bias),
            _ => Ok(product),
        }
    }

    fn on_cpu(&self) -> bool {
        matches!(self.weight.device(), Device::Cpu)
    }

    /// W as [in, out], a view.
    fn in_out(&self) -> Result<Tensor> {
        match self.layout {
            WeightLayout::OutIn => self.weight.tensor()?.t(),
            WeightLayout::InOut => self.weight.tensor(),
        }
    }

    /// On the CPU: `y = x · Wᵀ + b`, or added to `y`.
    pub(crate) fn apply(&self, x: &[f32], y: &mut [f32], into: Into) -> Result<()> {
        let (rows, cols) = self.sizes();
        let (inputs, outputs) = (self.inputs(), self.outputs());
        let count = y.len() / outputs;
        let mut into = into;
        if let Some(bias) = &self.bias {
            with_f32(bias, |bias| {
                for y in y.chunks_exact_mut(outputs) {
                    if into == Into::Add {
                        super::kernels::attention::add(y, bias);
                    } else {
                        y.copy_from_slice(bias);
                    }
                }
            })?;
            into = Into::Add;
        }
        self.weight.with_f32(|weight| {
            let weight = MatRef::packed(weight, rows, cols);
            let weight = match self.layout {
                WeightLayout::OutIn => weight.transposed(),
                WeightLayout::InOut => weight,
            };
            matmul(
                MatMut::packed(y, count, outputs),
                into,
                1.0,
                MatRef::packed(x, count, inputs),
                weight,
                Threads::All,
            );
        })
    }

    /// On the CPU: `dx = dy · W`, or added to `dx`.
    pub(crate) fn apply_vjp(&self, dy: &[f32], dx: &mut [f32], into: Into) -> Result<()> {
        let (rows, cols) = self.sizes();
        let (inputs, outputs) = (self.inputs(), self.outputs());
        let count = dx.len() / inputs;
        self.weight.with_f32(|weight| {
            let weight = MatRef::packed(weight, rows, cols);
            let weight = match self.layout {
                WeightLayout::OutIn => weight,
                WeightLayout::InOut => weight.transposed(),
            };
            matmul(
                MatMut::packed(dx, count, inputs),
                into,
                1.0,
                MatRef::packed(dy, count, outputs),
                weight,
                Threads::All,
            );
        })
    }
}

/// The product as an op of candle's graph.
struct FrozenProduct(FrozenLinear);

impl CustomOp1 for FrozenProduct {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous_f32(storage, layout)?;
        let count = x.len() / self.0.inputs();
        let mut y = vec![0.0; count * self.0.outputs()];
        self.0.apply(x, &mut y, Into::Overwrite)?;
        Ok((CpuStorage::F32(y), (count, self.0.outputs()).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let (count, inputs) = layout.shape().dims2()?;
        let outputs = self.0.outputs();
        let weight = self.0.in_out()?; // [in, out]
        let (weight_storage, weight_layout) = weight.storage_and_layout();
        let candle_core::Storage::Cuda(weight_storage) = &*weight_storage else {
            candle_core::bail!("a frozen weight is not on the device of its input")
        };
        let product = storage.matmul(
            weight_storage,
            (1, count, outputs, inputs),
            layout,
            weight_layout,
        )?;
        Ok((product, (count, outputs).into()))
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        if !self.0.on_cpu() {
            return Ok(Some(grad.matmul(&self.0.in_out()?.t()?)?));
        }
        let (count, _) = grad.dims2()?;
        let mut dx = vec![0.0; count * self.0.inputs()];
        with_f32(&grad, |dy| self.0.apply_vjp(dy, &mut dx, Into::Overwrite))??;
        Ok(Some(Tensor::from_vec(
            dx,
            (count, self.0.inputs()),
            grad.device(),
        )?))
    }
}

/// A frozen table of vectors, one for each id.
#[derive(Clone, Debug)]
pub struct FrozenEmbedding {
    table: FrozenMatrix,
}

impl FrozenEmbedding {
    /// A table [count, H].
    pub fn new(table: FrozenMatrix) -> Self {
        Self { table }
    }

    /// Number of vectors.
    pub fn count(&self) -> usize {
        self.table.sizes().0
    }

    /// Numbers of a vector.
    pub fn size(&self) -> usize {
        self.table.sizes().1
    }

    /// The table itself, [count, H].
    pub fn table(&self) -> &FrozenMatrix {
        &self.table
    }

    /// Where the table is.
    pub fn device(&self) -> &Device {
        self.table.device()
    }

    /// The vectors of `ids`: [N, H] in f32, without a gradient.
    ///
    /// # Errors
    /// Where an id is not in the table.
    pub fn lookup(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.count()) {
            candle_core::bail!("id {id} is beyond an embedding table of {}", self.count());
        }
        Ok(self.table.rows(ids)?.detach())
    }
}
