//! Erased buffers, kept for the next value: memory is cleared once, when a secret is erased, and not again when the
//! buffer is handed out.
//!
//! All threads share the shelves, since a value is often made by one thread and dropped by another. What lies on them
//! is bounded, and is zeros.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers of fewer words are left to the allocator: it is as fast.
const LEAST: usize = 1 << 9;
/// Buffers of more words (64 MiB) are given back to the system.
const MOST: usize = 1 << 23;
/// Words kept at most, all shelves together: 256 MiB.
const KEPT: usize = 1 << 25;
/// Sizes between one power of two and the next.
const STEPS: usize = 8;
const SHELVES: usize = (MOST / LEAST).ilog2() as usize * STEPS + 1;

static SPARE: [Mutex<Vec<Vec<u64>>>; SHELVES] = [const { Mutex::new(Vec::new()) }; SHELVES];
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Words of the buffers on a shelf.
fn size(shelf: usize) -> usize {
    (LEAST << (shelf / STEPS)) / STEPS * (STEPS + shelf % STEPS)
}

/// The shelf of the largest size that is not above `words`, which is between [`LEAST`] and [`MOST`].
fn below(words: usize) -> usize {
    let octave = (words / LEAST).ilog2() as usize;
    octave * STEPS + (words - (LEAST << octave)) / ((LEAST << octave) / STEPS)
}

fn shelf(i: usize) -> MutexGuard<'static, Vec<Vec<u64>>> {
    SPARE[i].lock().unwrap_or_else(PoisonError::into_inner)
}

/// At least `n` zeros.
pub(crate) fn take(n: usize) -> Vec<u64> {
    if !(LEAST..=MOST).contains(&n) {
        return vec![0; n];
    }
    let at = below(n);
    let at = if size(at) < n { at + 1 } else { at };
    let found = shelf(at).pop();
    match found {
        Some(buffer) => {
            HELD.fetch_sub(buffer.len(), Ordering::Relaxed);
            buffer
        }
        None => vec![0; size(at)],
    }
}

/// Takes back a buffer of which every word is zero.
pub(crate) fn give(buffer: Vec<u64>) {
    let n = buffer.len();
    if !(LEAST..=MOST).contains(&n) {
        return;
    }
    if HELD.fetch_add(n, Ordering::Relaxed) + n > KEPT {
        HELD.fetch_sub(n, Ordering::Relaxed);
        return;
    }
    shelf(below(n)).push(buffer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shelf_holds_what_fits_and_the_steps_are_small() {
        assert_eq!((size(0), size(SHELVES - 1)), (LEAST, MOST));
        for n in (LEAST..LEAST * 20).chain([MOST - 1, MOST]) {
            let at = below(n);
            assert!(size(at) <= n && (n == MOST || n < size(at + 1)), "{n}");
            assert!(n == MOST || size(at + 1) <= n + n / STEPS + 1, "{n}");
        }
    }

    #[test]
    fn what_is_taken_is_zeros_and_large_enough() {
        for n in [0, 1, LEAST - 1, LEAST, LEAST + 1, 10_000, 100_000] {
            let buffer = take(n);
            assert!(buffer.len() >= n && buffer.iter().all(|&w| w == 0));
            give(buffer);
            let again = take(n);
            assert!(again.len() >= n && again.iter().all(|&w| w == 0));
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let buffers: Vec<_> = (0..2 * KEPT / MOST).map(|_| take(MOST)).collect();
        buffers.into_iter().for_each(give);
        assert!(HELD.load(Ordering::Relaxed) <= KEPT);
    }
}
