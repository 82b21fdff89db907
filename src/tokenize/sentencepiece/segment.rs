//! A normalised text into pieces: the best path of a unigram model, or the merges of a BPE model.
//!
//! Both give what sentencepiece gives, including what it does on ties (`src/unigram_model.cc`, `src/bpe_model.cc`).
//! Unigram: Kudo 2018, <https://arxiv.org/abs/1804.10959>; BPE: Sennrich et al. 2016, <https://arxiv.org/abs/1508.07909>.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use super::trie::Trie;
use super::{Kind, Piece};

/// By how much an unknown character scores below the worst piece.
const UNKNOWN_PENALTY: f32 = 10.0;

/// A unigram model's scores; higher is better.
pub(super) struct Unigram {
    trie: Trie,
    unknown_score: f32,
    best_score: f32,
}

impl Unigram {
    pub(super) fn new(trie: Trie, pieces: &[Piece]) -> Self {
        let normal = || pieces.iter().filter(|piece| piece.kind == Kind::Normal);
        let worst = normal().map(|piece| piece.score).fold(f32::MAX, f32::min);
        Self {
            trie,
            unknown_score: worst - UNKNOWN_PENALTY,
            // The smallest positive number is where sentencepiece starts from, so log probabilities leave it there.
            best_score: normal()
                .map(|piece| piece.score)
                .fold(f32::MIN_POSITIVE, f32::max),
        }
    }

    pub(super) fn id(&self, piece: &str) -> Option<u32> {
        self.trie.get(piece.as_bytes())
    }

    /// Lengths in bytes and ids of the best segmentation; `None` for an unknown character.
    pub(super) fn segment(&self, text: &str, pieces: &[Piece]) -> Vec<(usize, Option<u32>)> {
        /// The best way to a place in the text.
        #[derive(Clone, Copy)]
        struct Best {
            score: f32,
            /// Where its last piece begins.
            start: usize,
            id: Option<u32>,
        }
        let mut best: Vec<Option<Best>> = vec![None; text.len() + 1];
        let offer = |target: &mut Option<Best>, score: f32, start, id| {
            // Of two equal ones the first counts: the one with the longer last piece.
            if target.is_none_or(|best| score > best.score) {
                *target = Some(Best { score, start, id });
            }
        };
        for (start, character) in text.char_indices() {
            let until_here = best[start].map_or(0.0, |best| best.score);
            let width = character.len_utf8();
            let mut has_single = false;
            for (length, id) in self.trie.prefixes(&text.as_bytes()[start..]) {
                let piece = &pieces[id as usize];
                let score = match piece.kind {
                    Kind::Unused => continue,
                    // Preferred to any sum of log probabilities.
                    Kind::UserDefined => (f64::from(length as f32 * self.best_score) - 0.1) as f32,
                    _ => piece.score,
                };
                offer(
                    &mut best[start + length],
                    score + until_here,
                    start,
                    Some(id),
                );
                has_single |= length == width;
            }
            if !has_single {
                let score = self.unknown_score + until_here;
                offer(&mut best[start + width], score, start, None);
            }
        }
        let mut path = vec![];
        let mut end = text.len();
        while let Some(Best { start, id, .. }) = best[end] {
            path.push((end - start, id));
            end = start;
        }
        path.reverse();
        path
    }
}

/// A BPE model: which strings are pieces. Their scores are the order of the merges.
pub(super) struct Bpe {
    pub(super) ids: HashMap<Box<str>, u32>,
}

/// A run of the text that is one piece so far.
struct Symbol {
    start: usize,
    /// Zero once it was merged into its left neighbour.
    length: usize,
    previous: Option<usize>,
    next: Option<usize>,
    /// A user-defined piece: never merged.
    is_fixed: bool,
}

/// Two neighbours that form a piece.
struct Merge {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of both; a merge whose symbols have changed since is stale.
    length: usize,
}

impl Ord for Merge {
    /// The highest score first, then the leftmost.
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = self.score.partial_cmp(&other.score);
        let by_score = by_score.unwrap_or(Ordering::Equal);
        by_score.then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Merge {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Merge {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Merge {}

impl Bpe {
    /// Lengths in bytes of the pieces; `fixed` are the user-defined ones.
    pub(super) fn segment(&self, text: &str, pieces: &[Piece], fixed: &Trie) -> Vec<usize> {
        let mut run = Run {
            bpe: self,
            pieces,
            text,
            symbols: vec![],
            agenda: BinaryHeap::new(),
            splits: HashMap::new(),
        };
        for (start, length, is_fixed) in characters(text, fixed) {
            let index = run.symbols.len();
            run.symbols.push(Symbol {
                start,
                length,
                previous: index.checked_sub(1),
                next: (start + length < text.len()).then_some(index + 1),
                is_fixed,
            });
        }
        for right in 1..run.symbols.len() {
            run.consider(right - 1, right);
        }
        run.merge();
        run.lengths()
    }
}

/// One text being merged.
struct Run<'a> {
    bpe: &'a Bpe,
    pieces: &'a [Piece],
    text: &'a str,
    symbols: Vec<Symbol>,
    agenda: BinaryHeap<Merge>,
    /// Of pieces that may be merged through and not be used: the length of their left part.
    splits: HashMap<&'a str, usize>,
}

impl<'a> Run<'a> {
    /// Puts the merge of two neighbours on the agenda, if they form a piece.
    fn consider(&mut self, left: usize, right: usize) {
        let (first, second) = (&self.symbols[left], &self.symbols[right]);
        if first.is_fixed || second.is_fixed {
            return;
        }
        let length = first.length + second.length;
        let merged: &'a str = &self.text[first.start..first.start + length];
        let Some(&id) = self.bpe.ids.get(merged) else {
            return;
        };
        let piece = &self.pieces[id as usize];
        if piece.kind == Kind::Unused {
            self.splits.insert(merged, first.length);
        }
        self.agenda.push(Merge {
            score: piece.score,
            left,
            right,
            length,
        });
    }

    fn merge(&mut self) {
        while let Some(merge) = self.agenda.pop() {
            let (left, right) = (&self.symbols[merge.left], &self.symbols[merge.right]);
            let is_stale =
                left.length == 0 || right.length == 0 || left.length + right.length != merge.length;
            if is_stale {
                continue;
            }
            let (previous, next) = (left.previous, right.next);
            self.symbols[merge.left].length = merge.length;
            self.symbols[merge.left].next = next;
            self.symbols[merge.right].length = 0;
            if let Some(previous) = previous {
                self.consider(previous, merge.left);
            }
            if let Some(next) = next {
                self.symbols[next].previous = Some(merge.left);
                self.consider(merge.left, next);
            }
        }
    }

    fn lengths(&self) -> Vec<usize> {
        let mut lengths = vec![];
        let mut at = (!self.symbols.is_empty()).then_some(0);
        while let Some(index) = at {
            let symbol = &self.symbols[index];
            // What is still to be taken apart, leftmost on top; every split is shorter, so this ends.
            let mut open = vec![(symbol.start, symbol.length)];
            while let Some((start, length)) = open.pop() {
                match self.splits.get(&self.text[start..start + length]) {
                    Some(&left) => {
                        open.push((start + left, length - left));
                        open.push((start, left));
                    }
                    None => lengths.push(length),
                }
            }
            at = symbol.next;
        }
        lengths
    }
}

/// The characters of a text, with user-defined pieces in one: start, length, and whether it is such a piece.
pub(super) fn characters<'a>(
    text: &'a str,
    fixed: &'a Trie,
) -> impl Iterator<Item = (usize, usize, bool)> + 'a {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = &text[start..];
        let character = rest.chars().next()?;
        let found = fixed.longest_prefix(rest.as_bytes());
        let item = (
            start,
            found.unwrap_or(character.len_utf8()),
            found.is_some(),
        );
        start += item.1;
        Some(item)
    })
}
