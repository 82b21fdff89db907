//! Cross-attention to keys and values of the memory, projected by every layer: the way for long targets and turned keys.

use std::sync::Arc;

use candle_core::Result;

use super::attention::{HeadLayout, kernel_of};
use super::cross_attention::{Attending, CrossAttention};
use super::kernels::attention::{self as kernel, Columns, ColumnsMut};
use super::kernels::buffer::Buffer;
use super::kernels::matmul::Into;
use super::kernels::pairs::Form;
use super::kernels::rotary::Rotation;
use super::rows::Rows;

/// Rotations of the queries and of the keys of a cross-attention.
pub(crate) type Turns = Option<(Arc<Rotation>, Arc<Rotation>)>;

/// Attending to keys and values of the memory.
pub(crate) struct Projected {
    pub(crate) rows: Arc<Rows>,
    pub(crate) memory_rows: Arc<Rows>,
    pub(crate) turns: Turns,
}

/// What a forward pass leaves.
pub(crate) struct ProjectedSaved {
    /// [N, Q]
    query: Buffer,
    /// [M, 2K]
    key_value: Buffer,
    /// [N, heads]
    lse: Buffer,
}

/// Queries [N, Q], and keys and values of [M, 2K].
fn columns<'a>(
    layout: &HeadLayout,
    query: &'a [f32],
    key_value: &'a [f32],
) -> (Columns<'a>, Columns<'a>, Columns<'a>) {
    let keys = layout.key_width();
    let key_value = |offset| Columns {
        data: key_value,
        stride: 2 * keys,
        offset,
    };
    let query = Columns {
        data: query,
        stride: layout.query_width(),
        offset: 0,
    };
    (query, key_value(0), key_value(keys))
}

impl Projected {
    fn kernel(&self, layout: &HeadLayout) -> kernel::Attention<'_> {
        kernel_of(layout, &self.rows, self.memory_rows.ranges(), None)
    }

    /// Turns queries and keys, or their gradients, by their positions.
    fn turn(&self, layout: &HeadLayout, query: &mut [f32], key_value: &mut [f32], back: bool) {
        if let Some((queries, keys)) = &self.turns {
            let size = layout.head_size;
            let heads = (layout.heads, size);
            queries.apply(Form::Numbers, query, layout.query_width(), heads, back);
            let stride = 2 * layout.key_width();
            let heads = (layout.key_value_heads, size);
            keys.apply(Form::Numbers, key_value, stride, heads, back);
        }
    }
}

impl Attending for Projected {
    type Saved = ProjectedSaved;

    fn attend(
        &self,
        block: &CrossAttention,
        query: Buffer,
        memory: &[f32],
    ) -> Result<(Buffer, ProjectedSaved)> {
        let layout = &block.layout;
        let mut query = query;
        let mut key_value = Buffer::dirty(self.memory_rows.total() * block.key_value.outputs());
        block
            .key_value
            .apply(memory, &mut key_value, Into::Overwrite)?;
        self.turn(layout, &mut query, &mut key_value, false);
        let mut attended = Buffer::dirty(query.len());
        let mut lse = Buffer::dirty(self.rows.total() * layout.heads);
        let (q, k, v) = columns(layout, &query, &key_value);
        kernel::forward(
            &self.kernel(layout),
            q,
            k,
            v,
            &ColumnsMut::new(&mut attended, layout.query_width(), 0),
            &ColumnsMut::new(&mut lse, layout.heads, 0),
        );
        let saved = ProjectedSaved {
            query,
            key_value,
            lse,
        };
        Ok((attended, saved))
    }

    fn gradient(
        &self,
        block: &CrossAttention,
        memory: &[f32],
        dattended: Buffer,
        saved: ProjectedSaved,
    ) -> Result<(Buffer, Option<Vec<f32>>)> {
        let layout = &block.layout;
        let (queries, keys) = (layout.query_width(), layout.key_width());
        let mut dquery = Buffer::dirty(dattended.len());
        let mut dkey_value = Buffer::dirty(self.memory_rows.total() * 2 * keys);
        let [dk, dv] = ColumnsMut::split(&mut dkey_value, 2 * keys, [0, keys]);
        kernel::vjp(
            &self.kernel(layout),
            columns(layout, &saved.query, &saved.key_value),
            &saved.lse,
            Columns {
                data: &dattended,
                stride: queries,
                offset: 0,
            },
            (&ColumnsMut::new(&mut dquery, queries, 0), &dk, &dv),
        );
        self.turn(layout, &mut dquery, &mut dkey_value, true);
        let mut dmemory = vec![0.0; memory.len()];
        block
            .key_value
            .apply_vjp(&dkey_value, &mut dmemory, Into::Overwrite)?;
        Ok((dquery, Some(dmemory)))
    }
}
