//! The sections of a Wasm file, for tests that break it on purpose.

use std::ops::Range;

/// Where the body of the section lies whose number stands at `at`.
pub fn body_of(wasm: &[u8], mut at: usize) -> Range<usize> {
    let (mut size, mut shift) = (0_usize, 0);
    loop {
        at += 1;
        size |= usize::from(wasm[at] & 0x7f) << shift;
        shift += 7;
        if wasm[at] & 0x80 == 0 {
            return at + 1..at + 1 + size;
        }
    }
}
