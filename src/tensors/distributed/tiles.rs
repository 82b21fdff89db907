//! Boxes in a tensor: whether chunks make it up without a gap and without a place that two of them have, and how the
//! numbers of one get to their place.

/// A chunk of a tensor, or the tensor itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// First index of each dimension.
    pub offsets: Vec<usize>,
    /// Sizes, outermost first.
    pub sizes: Vec<usize>,
}

/// How often chunks may be cut apart along one dimension after another. A grid needs as many as it has dimensions.
const MAX_CUTS: usize = 32;

impl Block {
    /// A whole tensor.
    pub(super) fn whole(shape: &[usize]) -> Self {
        Self {
            offsets: vec![0; shape.len()],
            sizes: shape.to_vec(),
        }
    }

    fn end(&self, dimension: usize) -> Option<usize> {
        self.offsets[dimension].checked_add(self.sizes[dimension])
    }
}

/// How many numbers a shape has, if that can be counted.
pub(super) fn volume(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |product, size| product.checked_mul(*size))
}

/// Whether `blocks`, all with numbers and of the dimensions of `whole`, make it up exactly. They may be sorted anew.
///
/// What can be cut apart along whole planes, again and again, is recognised: every grid, and grids in cells of grids.
pub(super) fn make_up(blocks: &mut [Block], whole: &Block) -> bool {
    make_up_in(blocks, whole, 0)
}

fn make_up_in(blocks: &mut [Block], whole: &Block, cuts: usize) -> bool {
    if let [only] = blocks {
        return only == whole;
    }
    if blocks.is_empty() || cuts == MAX_CUTS {
        return false;
    }
    for dimension in 0..whole.sizes.len() {
        blocks.sort_unstable_by_key(|block| block.offsets[dimension]);
        // Slabs between planes that cut no block: index of the first block, and where the slab begins and ends.
        let mut slabs: Vec<(usize, usize, usize)> = vec![];
        for (index, block) in blocks.iter().enumerate() {
            let start = block.offsets[dimension];
            let Some(end) = block.end(dimension) else {
                return false;
            };
            match slabs.last_mut() {
                Some((_, _, slab_end)) if start < *slab_end => *slab_end = end.max(*slab_end),
                _ => slabs.push((index, start, end)),
            }
        }
        if slabs.len() < 2 {
            continue;
        }
        let mut place = whole.offsets[dimension];
        for number in 0..slabs.len() {
            let (first, start, end) = slabs[number];
            if start != place {
                return false;
            }
            place = end;
            let last = slabs.get(number + 1).map_or(blocks.len(), |next| next.0);
            let mut slab = whole.clone();
            slab.offsets[dimension] = start;
            slab.sizes[dimension] = end - start;
            if !make_up_in(&mut blocks[first..last], &slab, cuts + 1) {
                return false;
            }
        }
        return whole.end(dimension) == Some(place);
    }
    false
}

/// Puts the numbers of `block` (`source`, row-major) to their place in `target`, which has `shape`; a number has
/// `element` bytes. The block is known to lie inside.
pub(super) fn put(
    target: &mut [u8],
    shape: &[usize],
    block: &Block,
    source: &[u8],
    element: usize,
) {
    let mut strides = vec![element; shape.len()];
    for dimension in (1..shape.len()).rev() {
        strides[dimension - 1] = strides[dimension] * shape[dimension];
    }
    // Dimensions from `inner` on lie end to end in both.
    let mut inner = shape.len();
    let mut run = element;
    while inner > 0 {
        inner -= 1;
        run *= block.sizes[inner];
        if block.sizes[inner] != shape[inner] {
            break;
        }
    }
    let first: usize = block
        .offsets
        .iter()
        .zip(&strides)
        .map(|(offset, stride)| offset * stride)
        .sum();
    let mut index = vec![0_usize; inner];
    for numbers in source.chunks_exact(run.max(1)) {
        let start = first
            + index
                .iter()
                .zip(&strides)
                .map(|(index, stride)| index * stride)
                .sum::<usize>();
        target[start..start + run].copy_from_slice(numbers);
        for dimension in (0..inner).rev() {
            index[dimension] += 1;
            if index[dimension] < block.sizes[dimension] {
                break;
            }
            index[dimension] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(offsets: &[usize], sizes: &[usize]) -> Block {
        Block {
            offsets: offsets.to_vec(),
            sizes: sizes.to_vec(),
        }
    }

    #[test]
    fn grids_and_grids_in_grids_make_a_tensor_up_and_gaps_and_overlaps_do_not() {
        let whole = Block::whole(&[4, 6]);
        let top = block(&[0, 0], &[2, 6]);
        let (left, right) = (block(&[2, 0], &[2, 2]), block(&[2, 2], &[2, 4]));
        let all = [right.clone(), top.clone(), left.clone()];
        assert!(make_up(&mut all.clone(), &whole));
        assert!(!make_up(&mut all[..2].to_vec(), &whole), "a gap");
        let twice = [top.clone(), top.clone(), left.clone(), right.clone()];
        assert!(!make_up(&mut twice.clone(), &whole), "the same chunk twice");
        let across = [top.clone(), left, block(&[2, 1], &[2, 5])];
        assert!(!make_up(&mut across.clone(), &whole), "an overlap");
        let far = [top, block(&[2, 0], &[usize::MAX, 6])];
        assert!(!make_up(&mut far.clone(), &whole), "beyond the end");
        assert!(make_up(&mut [Block::whole(&[])], &Block::whole(&[])));
        assert!(!make_up(&mut [], &whole));
    }

    #[test]
    fn chunks_are_put_together_to_the_numbers_of_the_whole() {
        let shape = [2, 3, 4];
        let whole: Vec<u8> = (0..48).collect(); // two bytes a number
        let mut blocks = vec![];
        for (start, size) in [(0, 1), (1, 2)] {
            for column in [0, 2] {
                blocks.push(block(&[0, start, column], &[2, size, 2]));
            }
        }
        assert!(make_up(&mut blocks.clone(), &Block::whole(&shape)));
        let mut found = vec![0xff; 48];
        for block in &blocks {
            let mut source = vec![];
            for a in 0..block.sizes[0] {
                for b in 0..block.sizes[1] {
                    for c in 0..block.sizes[2] {
                        let row = (block.offsets[0] + a) * 3 + block.offsets[1] + b;
                        let number = row * 4 + block.offsets[2] + c;
                        source.extend_from_slice(&whole[2 * number..2 * number + 2]);
                    }
                }
            }
            put(&mut found, &shape, block, &source, 2);
        }
        assert_eq!(found, whole);
        let mut scalar = [0; 2];
        put(&mut scalar, &[], &Block::whole(&[]), &[3, 4], 2);
        assert_eq!(scalar, [3, 4]);
    }
}
