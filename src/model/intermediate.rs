//! What lies between two products of a sub-layer: in f32, or in bf16 where the weights are and the processor multiplies
//! it.
//!
//! In bf16 it is half as large, kept for the backward or not, and is packed for the next product as it is. The residual
//! stream, sums of products, softmax and norms stay in f32.

use candle_core::Result;

use super::kernels::attention::{Columns, ColumnsMut};
use super::kernels::buffer::Buffer;
use super::kernels::matmul::Into;
use super::kernels::norm as norm_kernel;
pub(crate) use super::kernels::pairs::Form;
use super::kernels::rotary::Rotation;
use super::norm::Norm;

/// The left operand of a product: the whole of a matrix, row by row.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    /// In f32.
    Numbers(&'a [f32]),
    /// In bf16, two to a word.
    Pairs(&'a [f32]),
}

/// What a product writes: the whole of a matrix, row by row.
pub(crate) enum Product<'a> {
    /// In f32.
    Numbers(&'a mut [f32], Into),
    /// In bf16, two to a word.
    Pairs(&'a mut [f32]),
}

/// A matrix of either form, whose memory goes back to a pool.
pub(crate) struct Intermediate {
    pub(crate) form: Form,
    pub(crate) words: Buffer,
}

impl Intermediate {
    /// A matrix of `count` numbers of unspecified value.
    pub(crate) fn dirty(form: Form, count: usize) -> Self {
        Self {
            form,
            words: Buffer::dirty(form.words(count)),
        }
    }

    /// `norm(x)`.
    pub(crate) fn normed(form: Form, norm: &Norm, x: &[f32]) -> Result<Self> {
        let mut this = Self::dirty(form, x.len());
        norm.with_weights(|norm| match form {
            Form::Numbers => norm_kernel::forward(x, norm, &mut this.words),
            Form::Pairs => norm_kernel::forward_to_pairs(x, norm, &mut this.words),
        })?;
        Ok(this)
    }

    /// As the left operand of a product.
    pub(crate) fn operand(&self) -> Operand<'_> {
        match self.form {
            Form::Numbers => Operand::Numbers(&self.words),
            Form::Pairs => Operand::Pairs(&self.words),
        }
    }

    /// To be overwritten by a product.
    pub(crate) fn product(&mut self) -> Product<'_> {
        match self.form {
            Form::Numbers => Product::Numbers(&mut self.words, Into::Overwrite),
            Form::Pairs => Product::Pairs(&mut self.words),
        }
    }

    /// Columns from `offset` on of rows of `stride` numbers.
    pub(crate) fn columns(&self, stride: usize, offset: usize) -> Columns<'_> {
        Columns {
            data: &self.words,
            stride: self.form.words(stride),
            offset: self.form.words(offset),
        }
    }

    /// Column groups from these offsets on, to be written.
    pub(crate) fn columns_mut<const COUNT: usize>(
        &mut self,
        stride: usize,
        offsets: [usize; COUNT],
    ) -> [ColumnsMut<'_>; COUNT] {
        let form = self.form;
        ColumnsMut::split(
            &mut self.words,
            form.words(stride),
            offsets.map(|offset| form.words(offset)),
        )
    }

    /// Turns the first so many heads of so many channels of every row of `stride` numbers; `back` undoes it.
    pub(crate) fn turn(
        &mut self,
        rotation: &Rotation,
        stride: usize,
        heads: (usize, usize),
        back: bool,
    ) {
        rotation.apply(self.form, &mut self.words, stride, heads, back);
    }
}

/// Rows of `width` words at these positions, end to end.
pub(crate) fn gather(from: &[f32], width: usize, positions: &[u32]) -> Buffer {
    let mut rows = Buffer::dirty(positions.len() * width);
    for (row, &position) in rows.chunks_exact_mut(width.max(1)).zip(positions) {
        row.copy_from_slice(&from[position as usize * width..][..width]);
    }
    rows
}
