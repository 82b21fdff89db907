//! One long range of addresses whose memory comes as it is used.

use std::ops::Range;

#[cfg(unix)]
use super::memory;

/// Memory is asked for in steps of this many bytes.
const STEP: usize = 32 << 20;
/// Less than this is not worth having.
const SMALLEST: usize = 1 << 30;

/// Addresses of numbers, reserved for as long as the process lives. Reserving takes no memory, not even where the system
/// refuses to promise more than it has (`vm.overcommit_memory=2`).
#[derive(Debug)]
pub struct Region {
    start: usize, // an address
    bytes: usize,
    usable: usize, // bytes from the start that may be read and written
}

#[expect(unsafe_code, reason = "addresses are reserved and lent by the system")]
impl Region {
    /// As many addresses as the machine has memory, or fewer if the system refuses; none where they are counted
    /// (`ulimit -v`), since files have to be mapped as well.
    #[cfg(unix)]
    pub fn reserve() -> Option<Self> {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: these ask for numbers, the first into a place that outlives the call.
        let (asked, pages, page) = unsafe {
            (
                libc::getrlimit(libc::RLIMIT_AS, &raw mut limit),
                libc::sysconf(libc::_SC_PHYS_PAGES),
                libc::sysconf(libc::_SC_PAGESIZE),
            )
        };
        if asked != 0 || limit.rlim_cur != libc::RLIM_INFINITY {
            return None;
        }
        let memory = usize::try_from(pages).ok()? * usize::try_from(page).ok()?;
        let mut bytes = memory.max(SMALLEST).next_multiple_of(STEP);
        while bytes >= SMALLEST {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE;
            // SAFETY: a new mapping wherever the system likes, of nothing that can be read or written.
            let found =
                unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
            if found != libc::MAP_FAILED {
                return Some(Self {
                    start: found.expose_provenance(),
                    bytes,
                    usable: 0,
                });
            }
            bytes = (bytes / 2).next_multiple_of(STEP);
        }
        None
    }

    #[cfg(not(unix))]
    pub fn reserve() -> Option<Self> {
        None
    }

    /// Numbers that there is room for.
    pub fn length(&self) -> usize {
        self.bytes / size_of::<f32>()
    }

    /// The numbers of `place`: zeros, or what was last written there. `None` where the system has no memory for them.
    ///
    /// # Safety
    /// No two lent places may overlap at any time.
    #[cfg(unix)]
    pub unsafe fn lend(&mut self, place: &Range<usize>) -> Option<&'static mut [f32]> {
        let end = place.end * size_of::<f32>();
        if place.start > place.end || end > self.bytes {
            return None;
        }
        if end > self.usable {
            let wanted = end.next_multiple_of(STEP).min(self.bytes);
            let bytes = wanted - self.usable;
            let first = std::ptr::with_exposed_provenance_mut::<f32>(self.start + self.usable);
            // SAFETY: the range lies in this mapping, and nothing of it has been lent.
            let refused =
                unsafe { libc::mprotect(first.cast(), bytes, libc::PROT_READ | libc::PROT_WRITE) };
            if refused != 0 {
                return None;
            }
            // SAFETY: readable and writable by now, aligned as a page is, and lent to nobody yet.
            memory::large_pages(unsafe {
                std::slice::from_raw_parts_mut(first, bytes / size_of::<f32>())
            });
            self.usable = wanted;
        }
        let first =
            std::ptr::with_exposed_provenance_mut::<f32>(self.start).wrapping_add(place.start);
        // SAFETY: mapped until the process ends, readable and writable up to `end`, aligned as a page is; any bits are
        // a number; the caller lends it to nobody else.
        Some(unsafe { std::slice::from_raw_parts_mut(first, place.len()) })
    }

    #[cfg(not(unix))]
    pub unsafe fn lend(&mut self, _: &Range<usize>) -> Option<&'static mut [f32]> {
        None
    }

    /// Gives the memory of `place` back to the system; it holds zeros, or what it held, when it is lent again.
    ///
    /// # Safety
    /// Nothing of `place` may be lent.
    pub unsafe fn let_go(&self, place: &Range<usize>) {
        #[cfg(target_os = "linux")]
        {
            const PAGE: usize = 4096;
            let from = (place.start * size_of::<f32>()).next_multiple_of(PAGE);
            let to = (place.end * size_of::<f32>()).min(self.usable) / PAGE * PAGE;
            if from < to {
                let first = std::ptr::with_exposed_provenance_mut(self.start + from);
                // SAFETY: whole pages of this mapping that nobody has on loan.
                let refused = unsafe { libc::madvise(first, to - from, libc::MADV_DONTNEED) };
                if refused != 0 {
                    tracing::trace!("memory kept: {}", std::io::Error::last_os_error());
                }
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = place;
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "places that do not overlap are lent")]
    fn lent_numbers_are_kept_until_their_memory_is_let_go() {
        let largest = |numbers: &[f32]| numbers.iter().map(|x| x.to_bits()).max();
        let mut region = Region::reserve().expect("addresses");
        let place = STEP / 4 - 100..STEP / 4 + 4096;
        // SAFETY: one place at a time.
        unsafe {
            let numbers = region.lend(&place).expect("memory");
            assert_eq!(largest(numbers), Some(0));
            numbers.fill(f32::from_bits(7));
            let numbers = region.lend(&place).expect("memory");
            assert_eq!(largest(numbers), Some(7));
            region.let_go(&place);
            let numbers = region.lend(&place).expect("memory");
            assert!(numbers.iter().all(|x| x.to_bits() % 7 == 0));
            let beyond = region.length()..region.length() + 1;
            assert!(region.lend(&beyond).is_none());
        }
    }
}
