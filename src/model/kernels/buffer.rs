//! Buffers that are used again: fresh pages from the kernel cost as much as the arithmetic that fills them.
//!
//! The rows of each batch have other lengths, so that buffers kept whole would seldom fit the next one. Here places of a
//! long range of addresses are lent: whatever the lengths, it is the same memory that is used again.

use std::ops::{Deref, DerefMut, Range};
use std::sync::{LazyLock, Mutex};

use super::heap::Heap;
use crate::sys::memory;
use crate::sys::region::Region;

/// Numbers that are lent, and which of them are free.
struct Pool {
    region: Region,
    heap: Heap,
}

/// Scratch memory of one task, and what a whole batch needs: the first comes and goes among the second, and would leave
/// it in pieces.
static POOLS: [LazyLock<Option<Mutex<Pool>>>; 2] = [const { LazyLock::new(Pool::new) }; 2];
/// Buffers below this many numbers are left to the allocator.
const SMALLEST_LENT: usize = 4096;
/// Buffers of this many numbers or more are a batch's.
const LARGE: usize = 1 << 18;

impl Pool {
    fn new() -> Option<Mutex<Self>> {
        let region = Region::reserve()?;
        let heap = Heap::new(region.length());
        Some(Mutex::new(Self { region, heap }))
    }

    /// The pool for buffers of `length` numbers.
    fn of(length: usize) -> Option<&'static Mutex<Self>> {
        match length {
            ..SMALLEST_LENT => None,
            SMALLEST_LENT..LARGE => POOLS[0].as_ref(),
            LARGE.. => POOLS[1].as_ref(),
        }
    }

    #[expect(
        unsafe_code,
        reason = "the heap says what is free, the region lends it"
    )]
    fn take(&mut self, length: usize) -> Option<Numbers> {
        let place = self.heap.take(length)?;
        // SAFETY: the heap gives no place twice before it is given back, which `Buffer` does when nothing borrows it.
        let Some(all) = (unsafe { self.region.lend(&place) }) else {
            self.heap.give_back(place);
            return None;
        };
        Some(Numbers::Lent(&mut all[..length], place))
    }

    #[expect(unsafe_code, reason = "memory of free places goes back to the system")]
    fn release(&self) {
        for place in self.heap.free() {
            // SAFETY: free, and nobody takes it while the pool is borrowed.
            unsafe { self.region.let_go(&place) };
        }
    }
}

#[derive(Debug)]
enum Numbers {
    Lent(&'static mut [f32], Range<usize>),
    Owned(Vec<f32>),
}

/// Numbers whose memory goes back to a pool when dropped.
#[derive(Debug)]
pub(crate) struct Buffer(Numbers);

impl Buffer {
    /// A buffer of `length` numbers of unspecified value.
    pub(crate) fn dirty(length: usize) -> Self {
        let lent = Pool::of(length).and_then(|pool| pool.lock().ok()?.take(length));
        if let Some(numbers) = lent {
            return Self(numbers);
        }
        let mut numbers = vec![0.0; length];
        memory::large_pages(&mut numbers);
        Self(Numbers::Owned(numbers))
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
        match &self.0 {
            Numbers::Lent(numbers, _) => numbers,
            Numbers::Owned(numbers) => numbers,
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.0 {
            Numbers::Lent(numbers, _) => numbers,
            Numbers::Owned(numbers) => numbers,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let length = self.len();
        if let (Numbers::Lent(numbers, place), Some(pool)) = (&mut self.0, Pool::of(length)) {
            *numbers = &mut [];
            if let Ok(mut pool) = pool.lock() {
                pool.heap.give_back(std::mem::take(place));
            }
        }
    }
}

/// Gives the memory of every buffer that is not in use back to the system.
pub(crate) fn release_all() {
    for pool in POOLS.iter().filter_map(|pool| pool.as_ref()) {
        if let Ok(pool) = pool.lock() {
            pool.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_buffer_has_the_length_asked_for_and_zeros_where_asked() {
        for length in [100, 10_000, 1_000_000] {
            let mut first = Buffer::dirty(length);
            first.fill(7.0);
            let other = Buffer::zeros(length / 2);
            drop(first);
            release_all();
            let second = Buffer::zeros(length * 9 / 10);
            assert_eq!(second.len(), length * 9 / 10);
            assert!(second.iter().chain(&*other).all(|&x| x == 0.0));
        }
    }

    #[test]
    fn buffers_of_many_threads_are_never_the_same_memory() {
        std::thread::scope(|scope| {
            for id in 1..=4_u8 {
                scope.spawn(move || {
                    let mut held: Vec<Buffer> = vec![];
                    for i in 0..200_usize {
                        let mut buffer = Buffer::dirty(3000 + i * 7919 % 500_000);
                        buffer.fill(f32::from(id));
                        held.push(buffer);
                        if i % 3 == 0 {
                            let dropped = held.swap_remove(i * 31 % held.len());
                            assert!(
                                dropped
                                    .iter()
                                    .all(|&x| x.to_bits() == f32::from(id).to_bits())
                            );
                        }
                        if held.len() > 8 {
                            held.remove(0);
                        }
                    }
                });
            }
        });
    }
}
