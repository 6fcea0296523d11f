//! The quotes of a JSON text that open and close its strings, found 64 bytes at a time.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the processor that was found"
)]

use fearless_simd::{dispatch, prelude::*, u8x64};

use super::super::split::{LEVEL, escaped_by};

/// Where the quotes are: memory that every text uses again.
#[derive(Debug, Default)]
pub(super) struct Quotes {
    places: Vec<u32>,
}

/// What a text's quotes are.
#[derive(Clone, Copy)]
pub(super) struct Found<'q> {
    /// Of those that are not escaped, in order.
    pub(super) places: &'q [u32],
    /// Whether there is any backslash.
    pub(super) escapes: bool,
}

impl Quotes {
    /// The quotes that are not escaped, from `begin` on, which is in no string. None if the text holds
    /// a control character, or a backslash before something that no escape has.
    pub(super) fn find(&mut self, text: &[u8], begin: usize) -> Option<Found<'_>> {
        // Places are counted in this.
        u32::try_from(text.len()).ok()?;
        let (count, escapes) = dispatch!(*LEVEL, simd => self.fill(simd, text, begin))?;
        let places = self.places.get(..count)?;
        Some(Found { places, escapes })
    }

    /// Gives the number of quotes, and whether there is any backslash.
    #[inline(always)]
    fn fill<S: Simd>(&mut self, simd: S, text: &[u8], begin: usize) -> Option<(usize, bool)> {
        let (blocks, rest) = text.get(begin..)?.as_chunks::<64>();
        let mut padded = [b' '; 64];
        padded.get_mut(..rest.len())?.copy_from_slice(rest);
        let mut count = 0;
        let (mut any_escape, mut escaped) = (false, false);
        let mut base = u32::try_from(begin).ok()?;
        for block in blocks.iter().chain([&padded]) {
            let bytes = u8x64::load_array(simd, *block);
            let mut quotes = bytes.simd_eq(b'"').to_bitmask();
            let backslashes = bytes.simd_eq(b'\\');
            if bytes.simd_lt(b' ').any_true() {
                return None;
            }
            if backslashes.any_true() || escaped {
                any_escape = true;
                let (behind, next) = escaped_by(backslashes.to_bitmask(), escaped, 64);
                if !are_escapes(text, base as usize, behind) {
                    return None;
                }
                escaped = next;
                quotes &= !behind;
            }
            if self.places.len() < count + 64 {
                self.places.resize(2 * (count + 64), 0);
            }
            let places = self.places.get_mut(count..)?.first_chunk_mut::<64>()?;
            count += quotes.count_ones() as usize;
            // Most often these are all: what is too much is written over by the next.
            let (few, more) = places.split_at_mut(12);
            for place in few {
                *place = base + quotes.trailing_zeros();
                quotes &= quotes.wrapping_sub(1);
            }
            for place in more {
                if quotes == 0 {
                    break;
                }
                *place = base + quotes.trailing_zeros();
                quotes &= quotes.wrapping_sub(1);
            }
            base += 64;
        }
        Some((count, any_escape))
    }
}

/// Whether what follows backslashes can: `escaped` are the bytes behind them, from `base` on.
#[cold]
fn are_escapes(text: &[u8], base: usize, mut escaped: u64) -> bool {
    while escaped != 0 {
        let at = base + escaped.trailing_zeros() as usize;
        escaped &= escaped.wrapping_sub(1);
        let valid = match text.get(at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => true,
            Some(b'u') => text
                .get(at + 1..at + 5)
                .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)),
            _ => false,
        };
        if !valid {
            return false;
        }
    }
    true
}
