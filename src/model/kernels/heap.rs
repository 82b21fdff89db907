//! Which places of a long range are free: best fit, and neighbours that are free become one.

use std::collections::BTreeMap;
use std::ops::Range;

/// The free places of `0..length`.
#[derive(Debug)]
pub(super) struct Heap {
    /// Length by start; no two touch.
    free: BTreeMap<usize, usize>,
}

/// Places begin and end at multiples of this: with f32, a cache line.
const UNIT: usize = 16;

impl Heap {
    pub(super) fn new(length: usize) -> Self {
        let length = length / UNIT * UNIT;
        Self {
            free: BTreeMap::from_iter((length > 0).then_some((0, length))),
        }
    }

    /// A place of at least `length`: in the smallest free one that has room, so that a step that asks for the same again
    /// finds the same places, and the lowest of those, so that what was never used stays unused.
    pub(super) fn take(&mut self, length: usize) -> Option<Range<usize>> {
        let length = length.max(1).next_multiple_of(UNIT);
        let (&start, &room) = self
            .free
            .iter()
            .filter(|&(_, &room)| room >= length)
            .min_by_key(|&(&start, &room)| (room, start))?;
        self.free.remove(&start);
        if room > length {
            self.free.insert(start + length, room - length);
        }
        Some(start..start + length)
    }

    /// Frees a place that was taken.
    pub(super) fn give_back(&mut self, place: Range<usize>) {
        let (mut start, mut end) = (place.start, place.end);
        if let Some((&before, &room)) = self.free.range(..start).next_back() {
            debug_assert!(before + room <= start, "freed twice");
            if before + room == start {
                start = before;
            }
        }
        if let Some(room) = self.free.remove(&end) {
            end += room;
        }
        self.free.insert(start, end - start);
    }

    pub(super) fn free(&self) -> impl Iterator<Item = Range<usize>> {
        self.free
            .iter()
            .map(|(&start, &length)| start..start + length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_becomes_one_place_again_in_any_order() {
        let mut heap = Heap::new(1000);
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [0, 2, 1]] {
            let places = [10, 500, 33].map(|length| heap.take(length).expect("room"));
            for pair in places.windows(2) {
                assert_eq!(pair[0].end, pair[1].start);
            }
            assert_eq!(heap.take(600), None);
            for i in order {
                heap.give_back(places[i].clone());
            }
            assert_eq!(heap.free().count(), 1);
            assert_eq!(heap.free().next(), Some(0..992));
        }
    }

    #[test]
    fn a_place_comes_from_the_smallest_that_has_room() {
        let mut heap = Heap::new(10_000);
        let places = [320, 16, 160, 16, 240, 16].map(|length| heap.take(length).expect("room"));
        for i in [0, 2, 4] {
            heap.give_back(places[i].clone());
        }
        assert_eq!(heap.take(150), Some(places[2].clone()));
        assert_eq!(heap.take(230), Some(places[4].clone()));
        assert_eq!(
            heap.take(150).map(|place| place.start),
            Some(places[0].start)
        );
    }

    #[test]
    fn steps_of_other_lengths_need_no_more_room_than_the_longest() {
        // As a step does: every layer keeps three and gives two back at once; then all go, last layer first.
        let step = |heap: &mut Heap, tokens: usize| {
            let mut kept = vec![];
            for _ in 0..12 {
                let passing = heap.take(tokens * 24).expect("room");
                kept.push(heap.take(tokens * 8).expect("room"));
                kept.push(heap.take(tokens * 18).expect("room"));
                let other = heap.take(tokens * 32).expect("room");
                heap.give_back(passing);
                kept.push(heap.take(tokens * 32).expect("room"));
                heap.give_back(other);
            }
            let top = kept.iter().map(|place| place.end).max();
            for place in kept.into_iter().rev() {
                heap.give_back(place);
            }
            top.expect("places")
        };
        let longest = step(&mut Heap::new(1 << 30), 900);
        let mut heap = Heap::new(1 << 30);
        for tokens in [310, 900, 440, 777, 512, 893, 600] {
            assert!(step(&mut heap, tokens) <= longest);
            assert_eq!(heap.free().count(), 1);
        }
    }
}
