//! How many rows NeMo's embedding table has: the tokenizer's size, rounded up for the ranks that share it.

/// What NeMo rounds a vocabulary up to, times the tensor-parallel ranks, unless its configuration says otherwise.
const USUAL_DIVISOR: usize = 128;

/// Rows of the table and the `make_vocab_size_divisible_by` that makes NeMo count as many, when `ranks` share it.
///
/// `rows` are there and `tokens` is the size of the tokenizer, where it is known. Rows are only added where they must
/// be, because the softmax runs over them too; `as_usual` asks for what NeMo's own configurations would give.
pub(super) fn padded(
    rows: usize,
    tokens: Option<usize>,
    ranks: usize,
    as_usual: bool,
) -> (usize, usize) {
    let tokens = tokens.unwrap_or(rows);
    let nemo = |divisor: usize| tokens.next_multiple_of(divisor * ranks);
    let usual = rows.max(tokens).next_multiple_of(USUAL_DIVISOR * ranks);
    if (as_usual || tokens > rows) && nemo(USUAL_DIVISOR) == usual {
        return (usual, USUAL_DIVISOR);
    }
    let powers = (0..=USUAL_DIVISOR.ilog2()).rev().map(|power| 1 << power);
    if let Some(divisor) = powers.into_iter().find(|&divisor| nemo(divisor) == rows) {
        return (rows, divisor);
    }
    // More rows than any rounding of the tokenizer: all of them, as one multiple.
    let rows = rows.max(tokens).next_multiple_of(ranks);
    (rows, rows / ranks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nemo_counts_the_rows_that_are_there() {
        for (rows, tokens, ranks, as_usual, expected) in [
            // GPT-2 as NeMo's own configurations pad it, and as it is.
            (50257, Some(50257), 1, true, (50304, 128)),
            (50257, Some(50257), 2, true, (50432, 128)),
            (50257, Some(50257), 1, false, (50257, 1)),
            // T5 1.1, mT5 and Llama have rows enough.
            (32128, Some(32104), 1, false, (32128, 128)),
            (250_112, Some(250_104), 1, false, (250_112, 128)),
            (32000, Some(32000), 1, false, (32000, 128)),
            // For more ranks a smaller divisor keeps the rows; odd ones are added where ranks do not divide them.
            (32000, Some(32000), 4, false, (32000, 64)),
            (50304, Some(50257), 4, false, (50304, 32)),
            (50257, None, 2, false, (50258, 25129)),
            // Far more rows than tokens, and more tokens than rows.
            (50400, Some(50257), 1, true, (50400, 50400)),
            (32000, Some(32001), 1, false, (32128, 128)),
        ] {
            let found = padded(rows, tokens, ranks, as_usual);
            assert_eq!(found, expected, "{rows} {tokens:?} {ranks}");
            let counted = tokens.unwrap_or(rows).next_multiple_of(found.1 * ranks);
            assert_eq!(counted, found.0, "{rows} {tokens:?} {ranks}");
        }
    }
}
