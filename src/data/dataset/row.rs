//! A row's token ids under construction, and how they are made to fit.

/// Where a token of a row comes from, which decides whether it may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Virtual tokens, special tokens: never dropped.
    Fixed,
    /// Text: dropped from the front, for generation, if nothing else helps.
    Text,
    /// Text of the truncate field: dropped from the end.
    Truncatable,
}

/// Token ids under construction.
#[derive(Default)]
pub(super) struct Row {
    pub(super) ids: Vec<u32>,
    sources: Vec<Source>,
    pub(super) answer_start: Option<usize>,
}

/// How a row was made to fit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fit {
    pub(super) truncated: bool,
    pub(super) cut: bool,
    pub(super) dropped: usize,
}

impl Row {
    pub(super) fn push(&mut self, tokens: impl Iterator<Item = (u32, Source)>) {
        for (id, source) in tokens {
            self.ids.push(id);
            self.sources.push(source);
        }
    }

    pub(super) fn push_special(&mut self, id: Option<u32>) {
        self.push(id.into_iter().map(|id| (id, Source::Fixed)));
    }

    /// Takes tokens from the end of the truncate field until the row has `max` tokens, or none of the field is left.
    pub(super) fn drop_truncatable(&mut self, max: usize) -> Fit {
        let excess = self.ids.len().saturating_sub(max);
        let candidates = (0..self.ids.len())
            .rev()
            .filter(|at| self.sources[*at] == Source::Truncatable);
        let dropped: Vec<usize> = candidates.take(excess).collect();
        self.remove(&dropped);
        Fit {
            truncated: !dropped.is_empty(),
            cut: false,
            dropped: dropped.len(),
        }
    }

    /// Takes text tokens from the front until the row has `max` tokens.
    pub(super) fn drop_front_text(&mut self, max: usize, fit: &mut Fit) {
        let excess = self.ids.len().saturating_sub(max);
        let candidates = (0..self.ids.len()).filter(|at| self.sources[*at] != Source::Fixed);
        let mut dropped: Vec<usize> = candidates.take(excess).collect();
        dropped.reverse();
        self.remove(&dropped);
        fit.cut = !dropped.is_empty();
        fit.dropped += dropped.len();
    }

    /// Removes the tokens at `places`, highest first.
    fn remove(&mut self, places: &[usize]) {
        let Some((&last, _)) = places.split_first() else {
            return;
        };
        debug_assert!(places.is_sorted_by(|a, b| a > b), "highest first");
        let mut is_removed = vec![false; last + 1];
        for place in places {
            is_removed[*place] = true;
        }
        let keep = |at: usize| !is_removed.get(at).copied().unwrap_or(false);
        let mut at = 0;
        self.ids.retain(|_| {
            at += 1;
            keep(at - 1)
        });
        at = 0;
        self.sources.retain(|_| {
            at += 1;
            keep(at - 1)
        });
        self.answer_start = self
            .answer_start
            .map(|start| start - places.iter().filter(|place| **place < start).count());
    }
}
