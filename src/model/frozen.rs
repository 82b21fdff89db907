//! Frozen linear layers and embeddings: weights that never change, and of which no gradient is computed.
//!
//! candle's matrix product computes the gradient of both operands; a third of the arithmetic of a training step and
//! as much memory as the model would go to gradients that nobody asks for. The ops here give the input's alone. This
//! is also where sharding a layer over ranks (by columns or by rows) would be decided.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor};

use super::intermediate::{Form, Intermediate, Operand, Product, gather};
use super::kernels::brain::{BrainMatrix, Left, Out, SIDE};
use super::kernels::buffer::Buffer;
use super::kernels::matmul::{Into, MatMut, MatRef, Threads, matmul};
use super::kernels::pairs::are_supported;
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
    weight: Weight,
    bias: Option<Tensor>,
    outputs: usize,
    inputs: usize,
}

/// A weight as its device wants it.
#[derive(Clone, Debug)]
enum Weight {
    /// As the checkpoint lays it out.
    Plain(FrozenMatrix, WeightLayout),
    /// In bf16 on the CPU: packed once for its kernels, [in, out].
    Packed(Arc<BrainMatrix>),
}

impl FrozenLinear {
    /// A layer of this weight (in `layout`) and bias [out]. On the CPU a weight in bf16 is packed for its kernels.
    ///
    /// # Errors
    /// What candle meets.
    pub fn new(weight: FrozenMatrix, bias: Option<Tensor>, layout: WeightLayout) -> Result<Self> {
        let (rows, cols) = weight.sizes();
        let (outputs, inputs) = match layout {
            WeightLayout::OutIn => (rows, cols),
            WeightLayout::InOut => (cols, rows),
        };
        let columns_first = layout == WeightLayout::OutIn;
        let packed = weight.pack_bf16_on_cpu(|numbers| {
            BrainMatrix::pack(numbers, inputs, outputs, columns_first)
        })?;
        let weight = match packed {
            Some(packed) => Weight::Packed(Arc::new(packed)),
            None => Weight::Plain(weight, layout),
        };
        let bias = bias.map(|bias| wide_on_cpu(&bias)).transpose()?;
        Ok(Self {
            weight,
            bias,
            outputs,
            inputs,
        })
    }

    /// Numbers of an output row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Numbers of an input row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs `range` as a layer of their own, with a copy of their numbers; nothing where a packed weight
    /// cannot be cut there.
    ///
    /// # Errors
    /// Where the range lies beyond the outputs.
    pub(crate) fn outputs_in(&self, range: Range<usize>) -> Result<Option<Self>> {
        let weight = match &self.weight {
            Weight::Plain(weight, layout) => {
                let dim = usize::from(*layout == WeightLayout::InOut);
                let part = weight.tensor()?.narrow(dim, range.start, range.len())?;
                Weight::Plain(part.try_into()?, *layout)
            }
            Weight::Packed(weight) => match weight.columns(range.clone()) {
                Some(part) => Weight::Packed(Arc::new(part)),
                None => return Ok(None),
            },
        };
        let bias = self.bias.as_ref();
        let bias = bias.map(|bias| bias.narrow(0, range.start, range.len()));
        Ok(Some(Self {
            weight,
            bias: bias.transpose()?,
            outputs: range.len(),
            inputs: self.inputs,
        }))
    }

    /// Whether [`Self::with_outputs_in`] can cut the outputs where every `size`th begins.
    pub(crate) fn has_outputs_by(&self, size: usize) -> bool {
        match &self.weight {
            Weight::Plain(..) => true,
            Weight::Packed(_) => size.is_multiple_of(SIDE),
        }
    }

    /// On the CPU: calls `work` with the weights of these outputs alone, none of them copied.
    ///
    /// # Errors
    /// Where a packed weight cannot be cut there.
    pub(crate) fn with_outputs_in<T>(
        &self,
        ranges: impl Iterator<Item = Range<usize>>,
        work: impl FnOnce(&[WeightPart<'_>]) -> T,
    ) -> Result<T> {
        match &self.weight {
            Weight::Plain(weight, layout) => weight.with_f32(|weight| {
                let weight = in_out(weight, self.inputs, self.outputs, *layout);
                let parts =
                    ranges.map(|range| WeightPart::Plain(weight.columns(range.start, range.len())));
                work(&parts.collect::<Vec<_>>())
            }),
            Weight::Packed(weight) => {
                let parts = ranges.map(|range| weight.columns(range).map(WeightPart::Packed));
                match parts.collect::<Option<Vec<_>>>() {
                    Some(parts) => Ok(work(&parts)),
                    None => candle_core::bail!("a packed weight cannot be cut into such heads"),
                }
            }
        }
    }

    /// Numbers held.
    pub fn parameter_count(&self) -> usize {
        self.inputs * self.outputs + self.bias.as_ref().map_or(0, Tensor::elem_count)
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
        match &self.weight {
            Weight::Plain(weight, _) => weight.device().is_cpu(),
            Weight::Packed(_) => true,
        }
    }

    /// W as [in, out], a view; not for packed weights, which are of the CPU.
    fn in_out(&self) -> Result<Tensor> {
        match &self.weight {
            Weight::Plain(weight, WeightLayout::OutIn) => weight.tensor()?.t(),
            Weight::Plain(weight, WeightLayout::InOut) => weight.tensor(),
            Weight::Packed(_) => candle_core::bail!("a packed weight is no tensor"),
        }
    }

    /// In which form a sub-layer hands numbers to and from this layer on the CPU.
    pub(crate) fn form(&self) -> Form {
        let even = self.inputs.is_multiple_of(2) && self.outputs.is_multiple_of(2);
        match &self.weight {
            Weight::Packed(_) if even && self.inputs > 0 && are_supported() => Form::Pairs,
            _ => Form::Numbers,
        }
    }

    /// On the CPU: `y = x · Wᵀ + b`, or added to `y`.
    pub(crate) fn apply(&self, x: &[f32], y: &mut [f32], into: Into) -> Result<()> {
        self.multiply(Operand::Numbers(x), Product::Numbers(y, into))
    }

    /// [`Self::apply`] of operands in pairs too, where [`Self::form`] says so.
    pub(crate) fn multiply(&self, x: Operand<'_>, y: Product<'_>) -> Result<()> {
        let (inputs, outputs) = (self.inputs, self.outputs);
        match &self.weight {
            Weight::Packed(weight) => {
                let (left, out) = operands(x, y, inputs, outputs);
                self.with_bias(|bias| weight.product(out, left, bias, Threads::All))
            }
            Weight::Plain(weight, layout) => {
                let (x, y, into) = numbers_of(x, y)?;
                let count = y.len() / outputs;
                let mut y = MatMut::packed(y, count, outputs);
                let into = self.with_bias(|bias| y.begin_with(bias, into))?;
                weight.with_f32(|weight| {
                    let weight = in_out(weight, inputs, outputs, *layout);
                    let x = MatRef::packed(x, count, inputs);
                    matmul(y, into, 1.0, x, weight, Threads::All);
                })
            }
        }
    }

    /// On the CPU: `dx = dy · W`, or added to `dx`.
    pub(crate) fn apply_vjp(&self, dy: &[f32], dx: &mut [f32], into: Into) -> Result<()> {
        self.multiply_back(Operand::Numbers(dy), Product::Numbers(dx, into))
    }

    /// [`Self::apply_vjp`] of operands in pairs too, where [`Self::form`] says so.
    pub(crate) fn multiply_back(&self, dy: Operand<'_>, dx: Product<'_>) -> Result<()> {
        let (inputs, outputs) = (self.inputs, self.outputs);
        match &self.weight {
            Weight::Packed(weight) => {
                let (left, out) = operands(dy, dx, outputs, inputs);
                weight.transposed_product(out, left, Threads::All);
                Ok(())
            }
            Weight::Plain(weight, layout) => {
                let (dy, dx, into) = numbers_of(dy, dx)?;
                let count = dx.len() / inputs;
                let dy = MatRef::packed(dy, count, outputs);
                let dx = MatMut::packed(dx, count, inputs);
                weight.with_f32(|weight| {
                    let weight = in_out(weight, inputs, outputs, *layout).transposed();
                    matmul(dx, into, 1.0, dy, weight, Threads::All);
                })
            }
        }
    }
}

impl FrozenLinear {
    /// On the CPU: the gradient of the input [N, in] from that of the output [N, out], or [P, in] of these positions
    /// alone.
    pub(crate) fn input_gradient(
        &self,
        dy: Intermediate,
        positions: Option<&[u32]>,
    ) -> Result<Buffer> {
        let stride = dy.form.words(self.outputs);
        let dy = match positions {
            None => dy,
            Some(positions) => Intermediate {
                form: dy.form,
                words: gather(&dy.words, stride, positions),
            },
        };
        let mut dx = Buffer::dirty(dy.words.len() / stride * self.inputs);
        let product = Product::Numbers(&mut dx, Into::Overwrite);
        self.multiply_back(dy.operand(), product)?;
        Ok(dx)
    }

    /// On the CPU: calls `work` with the bias [out], where there is one.
    pub(crate) fn with_bias<T>(&self, work: impl FnOnce(Option<&[f32]>) -> T) -> Result<T> {
        match &self.bias {
            Some(bias) => with_f32(bias, |bias| work(Some(bias))),
            None => Ok(work(None)),
        }
    }
}

/// The weight of some outputs of a layer, [in, some].
pub(crate) enum WeightPart<'a> {
    /// A view of the checkpoint's numbers.
    Plain(MatRef<'a>),
    /// Packed panels.
    Packed(BrainMatrix),
}

impl WeightPart<'_> {
    /// `out = left · self`: [N, in] -> [N, some].
    pub(crate) fn multiply(&self, left: MatRef<'_>, out: MatMut<'_>) {
        match self {
            Self::Plain(weight) => {
                matmul(out, Into::Overwrite, 1.0, left, *weight, Threads::All);
            }
            Self::Packed(weight) => {
                let out = Out::Numbers(out, Into::Overwrite);
                weight.product(out, Left::Numbers(left), None, Threads::All);
            }
        }
    }

    /// `out = left · selfᵀ`: [N, some] -> [N, in].
    pub(crate) fn multiply_back(&self, left: MatRef<'_>, out: MatMut<'_>) {
        match self {
            Self::Plain(weight) => {
                let weight = weight.transposed();
                matmul(out, Into::Overwrite, 1.0, left, weight, Threads::All);
            }
            Self::Packed(weight) => {
                let out = Out::Numbers(out, Into::Overwrite);
                weight.transposed_product(out, Left::Numbers(left), Threads::All);
            }
        }
    }
}

/// Operands of a product of matrices with `terms` and `cols` columns.
fn operands<'a, 'b>(
    left: Operand<'a>,
    out: Product<'b>,
    terms: usize,
    cols: usize,
) -> (Left<'a>, Out<'b>) {
    let (count, out) = match out {
        Product::Numbers(out, into) => {
            let count = out.len() / cols;
            (count, Out::Numbers(MatMut::packed(out, count, cols), into))
        }
        Product::Pairs(out) => {
            let count = 2 * out.len() / cols;
            (count, Out::Pairs(MatMut::packed(out, count, cols / 2)))
        }
    };
    let left = match left {
        Operand::Numbers(left) => Left::Numbers(MatRef::packed(left, count, terms)),
        Operand::Pairs(left) => Left::Pairs(MatRef::packed(left, count, terms / 2)),
    };
    (left, out)
}

/// Operands of a product with a weight that takes none in pairs.
fn numbers_of<'a, 'b>(
    left: Operand<'a>,
    out: Product<'b>,
) -> Result<(&'a [f32], &'b mut [f32], Into)> {
    match (left, out) {
        (Operand::Numbers(left), Product::Numbers(out, into)) => Ok((left, out, into)),
        _ => candle_core::bail!("operands in bf16 for a weight that is not packed"),
    }
}

/// W as [in, out].
fn in_out(weight: &[f32], inputs: usize, outputs: usize, layout: WeightLayout) -> MatRef<'_> {
    match layout {
        WeightLayout::OutIn => MatRef::packed(weight, outputs, inputs).transposed(),
        WeightLayout::InOut => MatRef::packed(weight, inputs, outputs),
    }
}

/// A small parameter, in f32 on the CPU, where all but products is computed so.
pub(crate) fn wide_on_cpu(parameter: &Tensor) -> Result<Tensor> {
    let parameter = parameter.detach();
    if parameter.device().is_cpu() {
        return parameter.to_dtype(DType::F32);
    }
    Ok(parameter)
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
