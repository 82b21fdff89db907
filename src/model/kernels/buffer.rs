//! Buffers that are used again: fresh pages from the kernel cost as much as the arithmetic that fills them.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

/// Buffers given back, waiting for the next of about their size.
static POOL: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());
/// More than this many buffers are not kept.
const KEPT_BUFFERS: usize = 256;
/// Buffers below this many numbers are left to the allocator.
const SMALLEST_KEPT: usize = 4096;

/// Numbers whose memory goes back to a pool when dropped.
#[derive(Debug)]
pub(crate) struct Buffer(Vec<f32>);

impl Buffer {
    /// A buffer of `length` numbers of unspecified value.
    pub(crate) fn dirty(length: usize) -> Self {
        if length >= SMALLEST_KEPT
            && let Ok(mut pool) = POOL.lock()
        {
            // The smallest that fits, and not one that would waste more than half.
            let best = (0..pool.len())
                .filter(|&i| pool[i].capacity() >= length && pool[i].capacity() / 2 <= length)
                .min_by_key(|&i| pool[i].capacity());
            if let Some(best) = best {
                let mut numbers = pool.swap_remove(best);
                numbers.resize(length, 0.0);
                return Self(numbers);
            }
        }
        Self(vec![0.0; length])
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
            && pool.len() < KEPT_BUFFERS
        {
            pool.push(std::mem::take(&mut self.0));
        }
    }
}

/// Gives every pooled buffer back to the allocator.
pub(crate) fn release_all() {
    if let Ok(mut pool) = POOL.lock() {
        pool.clear();
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
}
