//! Tiles of `vdpbf16ps` for a packed bf16 matrix: up to 12 x 32 results in registers, pairs of terms at a time.
//!
//! As `tile.rs`, with half of the bytes and twice the products in a register. A left operand in f32 is rounded to bf16,
//! to the nearest, while it is packed; one in pairs is packed as it is. All terms of a tile are added up in registers,
//! so that a result can be rounded where it is written.

#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_set1_epi32, _mm512_set4_epi32, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_shuffle_epi8, _mm512_shuffle_i64x2, _mm512_storeu_ps, _mm512_storeu_si512,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
};
use std::ops::Range;

use super::attention::add;
use super::brain::{Left, Out, SIDE, SQUARES};
use super::buffer::Buffer;
use super::matmul::{Into, Threads};
use super::pairs::{round_all, store_words};
use super::shares::share_out;
use super::simd::{Level, level, will_write};
use super::turn;

/// Rows of a tile.
const ROWS: usize = 12;
/// Tiles of the left operand that a task packs and works on, at most.
const TASK_TILES: usize = 6;
/// Words that they have, about: 400 kB of a second-level cache that panels pass through.
const TASK_WORDS: usize = 100_000;
/// Panels that a task works on where there are few rows.
const TASK_PANELS: usize = 4;

/// Whether this processor has the instructions.
pub(crate) fn is_supported() -> bool {
    level() == Level::Avx512 && is_x86_feature_detected!("avx512bf16")
}

impl Left<'_> {
    fn rows(&self) -> usize {
        match self {
            Self::Numbers(matrix) | Self::Pairs(matrix) => matrix.rows(),
        }
    }

    /// Words of a row.
    fn pairs(&self) -> usize {
        match self {
            Self::Numbers(matrix) => matrix.cols().div_ceil(2),
            Self::Pairs(matrix) => matrix.cols(),
        }
    }

    /// Rows `row..row + height` as [pairs, 12]; zeros beyond the last of them. `lines` is a place for 12 rows of words.
    fn pack(
        &self,
        row: usize,
        height: usize,
        lines: &mut [f32],
        column: &mut Vec<f32>,
        target: &mut [f32],
    ) {
        let pairs = self.pairs();
        match *self {
            Self::Pairs(matrix) => {
                let (words, stride) = matrix.rows_from(row);
                turn::turn(words, (height, pairs, stride), target, (ROWS, ROWS));
            }
            Self::Numbers(matrix) => {
                for (i, line) in lines.chunks_exact_mut(pairs).take(height).enumerate() {
                    if matrix.rows_are_contiguous() {
                        round_all(matrix.row(row + i), line);
                    } else {
                        let turned = matrix.transposed();
                        column.clear();
                        column.extend((0..matrix.cols()).map(|term| turned.row(term)[row + i]));
                        round_all(column, line);
                    }
                }
                turn::turn(lines, (height, pairs, pairs), target, (ROWS, ROWS));
            }
        }
    }
}

/// `out = left · right + bias`, or added to it; `right` is packed as [`super::brain::BrainMatrix`] says and has as many
/// terms as `left`, `bias` as many numbers as there are columns. Only where [`is_supported`].
pub(crate) fn product(
    out: Out<'_>,
    left: Left<'_>,
    right: &[u64],
    bias: Option<&[f32]>,
    threads: Threads,
) {
    let (rows, pairs) = (left.rows(), left.pairs());
    let (kind, matrix) = match out {
        Out::Numbers(matrix, Into::Overwrite) => (Kind::Overwrite, matrix),
        Out::Numbers(matrix, Into::Add) => (Kind::Add, matrix),
        Out::Pairs(matrix) => (Kind::Round, matrix),
    };
    let cols = match kind {
        Kind::Round => 2 * matrix.cols(),
        Kind::Overwrite | Kind::Add => matrix.cols(),
    };
    assert!(
        matrix.rows() == rows,
        "a product has as many rows as its left operand"
    );
    assert!(
        bias.is_none_or(|bias| bias.len() == cols),
        "a bias has a number for each column"
    );
    // Blocks of 32 terms are whole in the packed matrix.
    let packed_pairs = pairs.div_ceil(SQUARES) * SQUARES;
    let panels = cols.div_ceil(SIDE);
    assert!(
        right.len() >= panels * packed_pairs * SQUARES,
        "a packed matrix is too short"
    );
    let target = Target {
        stride: matrix.row_stride(),
        length: matrix.length(),
        pointer: matrix.into_pointer(),
        kind,
    };
    let work = |rows: Range<usize>, panels: Range<usize>| {
        let tile = ROWS * pairs;
        let mut packed = Buffer::dirty(rows.len().div_ceil(ROWS) * tile);
        let (mut lines, mut column) = (Buffer::dirty(tile), vec![]);
        for (packed, row) in packed
            .chunks_exact_mut(tile)
            .zip(rows.clone().step_by(ROWS))
        {
            let height = ROWS.min(rows.end - row);
            left.pack(row, height, &mut lines, &mut column, packed);
        }
        for panel in panels {
            let b = &right[panel * packed_pairs * SQUARES..][..pairs * SQUARES];
            let (first, width) = (panel * SIDE, SIDE.min(cols - panel * SIDE));
            let bias = bias.map(|bias| &bias[first..first + width]);
            for (a, row) in packed.chunks_exact(tile).zip(rows.clone().step_by(ROWS)) {
                let height = ROWS.min(rows.end - row);
                target.tile((row, first), (height, width), a, b, bias);
            }
        }
    };
    // What a task packs stays in the second-level cache.
    let tiles = (TASK_WORDS / pairs.max(1) / ROWS).clamp(2, TASK_TILES);
    share_out(rows, (ROWS, tiles), (panels, TASK_PANELS), threads, work);
}

/// Blocks of 16 x 16 squares transposed: block after block of `target` from where `source` says, rows of squares becoming
/// columns, and each square with its two middle numbers exchanged. Only where [`is_supported`].
pub(crate) fn transpose_blocks<'a>(
    source: impl Fn(usize) -> &'a [u64; SQUARES * SQUARES],
    target: &mut [u64],
) {
    let blocks = target.as_chunks_mut::<{ SQUARES * SQUARES }>().0;
    for (index, target) in blocks.iter_mut().enumerate() {
        #[expect(unsafe_code, reason = "AVX-512 code over pointers")]
        // SAFETY: callers have found the instructions; both blocks have all of their squares.
        unsafe {
            transpose_block(source(index).as_ptr(), target.as_mut_ptr());
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
#[expect(unsafe_code, reason = "AVX-512 code over pointers")]
// SAFETY: both must hold 256 squares.
unsafe fn transpose_block(source: *const u64, target: *mut u64) {
    /// Squares in a register.
    const PART: usize = 8;
    // In both quarters of eight bytes each: bytes 0, 1, 4, 5, 2, 3, 6, 7.
    let exchange = _mm512_set4_epi32(0x0f0e_0b0a, 0x0d0c_0908, 0x0706_0302, 0x0504_0100);
    for (down, across) in [(0, 0), (0, PART), (PART, 0), (PART, PART)] {
        let mut rows = [_mm512_setzero_si512(); PART];
        for (i, row) in rows.iter_mut().enumerate() {
            // SAFETY: a row of 16 squares, of which this is one half.
            let squares =
                unsafe { _mm512_loadu_si512(source.add((down + i) * SQUARES + across).cast()) };
            *row = _mm512_shuffle_epi8(squares, exchange);
        }
        // Pairs of rows, then fours, then all: each step doubles what lies side by side.
        let mut twos = rows;
        for i in 0..PART / 2 {
            twos[2 * i] = _mm512_unpacklo_epi64(rows[2 * i], rows[2 * i + 1]);
            twos[2 * i + 1] = _mm512_unpackhi_epi64(rows[2 * i], rows[2 * i + 1]);
        }
        // A quarter q of `twos` holds column 2 q + c of two rows: even quarters of four rows, then of all eight.
        for c in 0..2 {
            let low = _mm512_shuffle_i64x2::<0x88>(twos[c], twos[2 + c]);
            let high = _mm512_shuffle_i64x2::<0xdd>(twos[c], twos[2 + c]);
            let later_low = _mm512_shuffle_i64x2::<0x88>(twos[4 + c], twos[6 + c]);
            let later_high = _mm512_shuffle_i64x2::<0xdd>(twos[4 + c], twos[6 + c]);
            let columns = [
                (c, _mm512_shuffle_i64x2::<0x88>(low, later_low)),
                (4 + c, _mm512_shuffle_i64x2::<0xdd>(low, later_low)),
                (2 + c, _mm512_shuffle_i64x2::<0x88>(high, later_high)),
                (6 + c, _mm512_shuffle_i64x2::<0xdd>(high, later_high)),
            ];
            for (column, squares) in columns {
                // SAFETY: as above, with rows and columns exchanged.
                unsafe {
                    let to = target.add((across + column) * SQUARES + down);
                    _mm512_storeu_si512(to.cast(), squares);
                }
            }
        }
    }
}

/// What is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Overwrite,
    Add,
    /// Words of two numbers in bf16.
    Round,
}

/// The result, of which tasks write disjoint tiles.
#[derive(Clone, Copy)]
struct Target {
    pointer: *mut f32,
    length: usize,
    /// Distance of rows, in what is written.
    stride: usize,
    kind: Kind,
}

#[expect(unsafe_code, reason = "tasks write disjoint tiles of one matrix")]
// SAFETY: `product` gives every tile to one task.
unsafe impl Send for Target {}
#[expect(unsafe_code, reason = "tasks write disjoint tiles of one matrix")]
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// One tile, of `width` columns from `col` on.
    fn tile(
        &self,
        (row, col): (usize, usize),
        (height, width): (usize, usize),
        a: &[f32],
        b: &[u64],
        bias: Option<&[f32]>,
    ) {
        let depth = b.len() / SQUARES;
        assert!(a.len() >= depth * ROWS && (1..=ROWS).contains(&height) && width <= SIDE);
        let (start, written) = match self.kind {
            Kind::Round => (row * self.stride + col / 2, width / 2),
            Kind::Overwrite | Kind::Add => (row * self.stride + col, width),
        };
        assert!(start + (height - 1) * self.stride + written <= self.length);
        #[expect(unsafe_code, reason = "AVX-512 code over pointers")]
        // SAFETY: callers have found the instructions; `a` and `b` hold `depth` pairs; the tile lies in the result by
        // the assertion above and belongs to this task alone; a bias has as many numbers as the tile columns.
        unsafe {
            let target = self.pointer.add(start);
            if width == SIDE {
                let place = Place {
                    pointer: target,
                    stride: self.stride,
                    kind: self.kind,
                    bias: bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
                };
                rows_of_tile(height, depth, a.as_ptr(), b.as_ptr(), place);
                return;
            }
            let mut whole = [0.0_f32; ROWS * SIDE];
            let place = Place {
                pointer: whole.as_mut_ptr(),
                stride: SIDE,
                kind: Kind::Overwrite,
                bias: std::ptr::null(),
            };
            rows_of_tile(height, depth, a.as_ptr(), b.as_ptr(), place);
            for (i, whole) in whole.chunks_exact_mut(SIDE).take(height).enumerate() {
                let whole = &mut whole[..width];
                if let Some(bias) = bias {
                    add(whole, bias);
                }
                let target = target.add(i * self.stride);
                let target = std::slice::from_raw_parts_mut(target, written);
                match self.kind {
                    Kind::Overwrite => target.copy_from_slice(whole),
                    Kind::Add => add(target, whole),
                    Kind::Round => round_all(whole, target),
                }
            }
        }
    }
}

/// Where 32 columns of a tile go.
#[derive(Clone, Copy)]
struct Place {
    pointer: *mut f32,
    stride: usize,
    kind: Kind,
    /// 32 numbers that are added to every row, or null.
    bias: *const f32,
}

/// The tile of `height` rows.
#[expect(unsafe_code, reason = "AVX-512 code over pointers")]
// SAFETY: as `tile`, with `height` rows.
unsafe fn rows_of_tile(height: usize, depth: usize, a: *const f32, b: *const u64, place: Place) {
    // SAFETY: as the caller promised.
    unsafe {
        match height {
            1 => tile::<1>(depth, a, b, place),
            2 => tile::<2>(depth, a, b, place),
            3 => tile::<3>(depth, a, b, place),
            4 => tile::<4>(depth, a, b, place),
            5 => tile::<5>(depth, a, b, place),
            6 => tile::<6>(depth, a, b, place),
            7 => tile::<7>(depth, a, b, place),
            8 => tile::<8>(depth, a, b, place),
            9 => tile::<9>(depth, a, b, place),
            10 => tile::<10>(depth, a, b, place),
            11 => tile::<11>(depth, a, b, place),
            _ => tile::<ROWS>(depth, a, b, place),
        }
    }
}

/// `Σ a[pair][12] · b[pair][32]` to a place.
#[target_feature(enable = "avx512f,avx512bf16")]
#[expect(unsafe_code, reason = "AVX-512 code over pointers")]
// SAFETY: `a` must hold `depth` times 12 pairs, `b` as many times 32, and the place `HEIGHT` rows of 32 columns.
unsafe fn tile<const HEIGHT: usize>(depth: usize, a: *const f32, b: *const u64, place: Place) {
    // SAFETY: all offsets are within what the caller promised; both types are 512 bits without meaning.
    unsafe {
        let bits = |x: __m512i| std::mem::transmute::<__m512i, __m512bh>(x);
        let mut sums = [[_mm512_setzero_ps(); 2]; HEIGHT];
        if !place.bias.is_null() {
            let bias = [
                _mm512_loadu_ps(place.bias),
                _mm512_loadu_ps(place.bias.add(16)),
            ];
            sums = [bias; HEIGHT];
        }
        let words = match place.kind {
            Kind::Overwrite | Kind::Add => SIDE,
            Kind::Round => SIDE / 2,
        };
        for row in 0..HEIGHT {
            will_write(place.pointer.add(row * place.stride), words);
        }
        let (mut a, mut b) = (a, b);
        for _ in 0..depth {
            let b0 = bits(_mm512_loadu_si512(b.cast()));
            let b1 = bits(_mm512_loadu_si512(b.add(8).cast()));
            for (i, sum) in sums.iter_mut().enumerate() {
                let x = bits(_mm512_set1_epi32(*a.add(i).cast::<i32>()));
                sum[0] = _mm512_dpbf16_ps(sum[0], x, b0);
                sum[1] = _mm512_dpbf16_ps(sum[1], x, b1);
            }
            a = a.add(ROWS);
            b = b.add(SQUARES);
        }
        for (i, &[low, high]) in sums.iter().enumerate() {
            let to = place.pointer.add(i * place.stride);
            match place.kind {
                Kind::Overwrite => {
                    _mm512_storeu_ps(to, low);
                    _mm512_storeu_ps(to.add(16), high);
                }
                Kind::Add => {
                    _mm512_storeu_ps(to, _mm512_add_ps(low, _mm512_loadu_ps(to)));
                    let to = to.add(16);
                    _mm512_storeu_ps(to, _mm512_add_ps(high, _mm512_loadu_ps(to)));
                }
                Kind::Round => store_words(low, high, to),
            }
        }
    }
}
