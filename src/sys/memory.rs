//! Advice to the system on memory of this process.

/// Below this many bytes a huge page has no room.
const SMALLEST: usize = 4 << 20;

/// Says that `numbers` are about to be filled for the first time: the system then clears and maps them two mebibytes at a
/// time rather than four kibibytes, where it offers that (Linux, transparent huge pages `madvise` or `always`).
///
/// It has no effect on what `numbers` hold, nor where memory has been touched before.
#[cfg_attr(
    target_os = "linux",
    expect(unsafe_code, reason = "advice to the system takes an address")
)]
pub fn large_pages<T>(numbers: &mut [T]) {
    let bytes = size_of_val(numbers);
    if bytes < SMALLEST {
        return;
    }
    #[cfg(target_os = "linux")]
    {
        // The first page may belong to others as well; advice on it does no harm, but has to start where it starts.
        const PAGE: usize = 4096;
        let start = numbers.as_mut_ptr().addr();
        let from = start.next_multiple_of(PAGE);
        let to = (start + bytes) / PAGE * PAGE;
        // SAFETY: the range lies within memory that `numbers` borrows, and this advice leaves its content alone.
        let advised = unsafe {
            let first = numbers.as_mut_ptr().cast::<u8>().add(from - start);
            libc::madvise(first.cast(), to - from, libc::MADV_HUGEPAGE)
        };
        if advised != 0 {
            tracing::trace!("no huge pages: {}", std::io::Error::last_os_error());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_leaves_numbers_as_they_are() {
        let mut numbers = vec![0_u64; SMALLEST / 8 + 3];
        numbers[7] = 7;
        large_pages(&mut numbers[1..]);
        large_pages(&mut numbers[..2]);
        assert_eq!(numbers.iter().sum::<u64>(), 7);
    }
}
