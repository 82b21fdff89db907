//! Buffers that are used again: fresh pages from the kernel cost as much as the arithmetic that fills them.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use crate::sys::memory;

/// Buffers given back, and how much there is in all.
struct Pool {
    /// Waiting for the next of about their size, the longest waiting first.
    idle: VecDeque<Vec<f32>>,
    /// Numbers of those.
    idle_numbers: usize,
    /// Numbers of buffers that are lent.
    used_numbers: usize,
    /// The most that were ever lent at a time.
    most_used: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool::new());
/// Buffers below this many numbers are left to the allocator.
const SMALLEST_KEPT: usize = 4096;

impl Pool {
    const fn new() -> Self {
        Self {
            idle: VecDeque::new(),
            idle_numbers: 0,
            used_numbers: 0,
            most_used: 0,
        }
    }

    fn take(&mut self, length: usize) -> Option<Vec<f32>> {
        // The smallest that fits, and not one that would waste more than half.
        let best = (0..self.idle.len())
            .filter(|&i| self.idle[i].capacity() >= length && self.idle[i].capacity() / 2 <= length)
            .min_by_key(|&i| self.idle[i].capacity());
        let found = best.and_then(|best| self.idle.remove(best));
        let lent = found.as_ref().map_or(length, Vec::capacity);
        self.idle_numbers -= found.as_ref().map_or(0, Vec::capacity);
        self.used_numbers += lent;
        self.most_used = self.most_used.max(self.used_numbers);
        if found.is_none() {
            // Rows of other lengths need buffers of other sizes: what waits makes room for them, so that all together
            // stay at what was needed at one time.
            while self.used_numbers + self.idle_numbers > self.most_used {
                let Some(oldest) = self.idle.pop_front() else {
                    break;
                };
                self.idle_numbers -= oldest.capacity();
            }
        }
        found
    }

    fn give_back(&mut self, numbers: Vec<f32>) {
        self.used_numbers = self.used_numbers.saturating_sub(numbers.capacity());
        self.idle_numbers += numbers.capacity();
        self.idle.push_back(numbers);
    }
}

/// Numbers whose memory goes back to a pool when dropped.
#[derive(Debug)]
pub(crate) struct Buffer(Vec<f32>);

impl Buffer {
    /// A buffer of `length` numbers of unspecified value.
    pub(crate) fn dirty(length: usize) -> Self {
        if length >= SMALLEST_KEPT
            && let Ok(mut pool) = POOL.lock()
            && let Some(mut numbers) = pool.take(length)
        {
            drop(pool);
            numbers.resize(length, 0.0);
            return Self(numbers);
        }
        let mut numbers = vec![0.0; length];
        memory::large_pages(&mut numbers);
        Self(numbers)
    }

    /// A buffer of zeros.
    pub(crate) fn zeros(length: usize) -> Self {
        let mut this = Self::dirty(length);
        this.fill(0.0);
        this
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.0.capacity() >= SMALLEST_KEPT
            && let Ok(mut pool) = POOL.lock()
        {
            pool.give_back(std::mem::take(&mut self.0));
        }
    }
}

/// Gives every pooled buffer back to the allocator.
pub(crate) fn release_all() {
    if let Ok(mut pool) = POOL.lock() {
        pool.idle.clear();
        pool.idle_numbers = 0;
        pool.most_used = pool.used_numbers;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_buffer_has_the_length_asked_for_and_zeros_where_asked() {
        let mut first = Buffer::dirty(10_000);
        first.fill(7.0);
        drop(first);
        let second = Buffer::zeros(9_000);
        assert_eq!(second.len(), 9_000);
        assert!(second.iter().all(|&x| x == 0.0));
        release_all();
    }

    #[test]
    fn batches_of_other_lengths_keep_no_more_than_the_largest_needed() {
        let mut pool = Pool::new();
        for length in [10_000, 31_000, 12_000, 50_000, 9_000, 47_000, 20_000] {
            let lent: Vec<Vec<f32>> = [length, 3 * length, 4 * length]
                .into_iter()
                .map(|length| pool.take(length).unwrap_or_else(|| vec![0.0; length]))
                .collect();
            for numbers in lent {
                pool.give_back(numbers);
            }
            assert!(pool.used_numbers == 0 && pool.idle_numbers <= pool.most_used);
            assert!(pool.most_used <= 8 * 50_000 * 2);
        }
        assert!(pool.take(20_000).is_some(), "the last batch's buffers wait");
    }
}
