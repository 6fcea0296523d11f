//! Where a JSON value ends, 64 bytes at a time.
//!
//! Quotes, backslashes and brackets become bit masks; a prefix sum over the quotes tells what lies
//! within strings, and only brackets outside of them move the depth. Nothing is assumed about
//! layout or order of keys, and nothing is validated but the nesting that decides where a value
//! ends.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the processor that was found"
)]

use fearless_simd::{prelude::*, u8x64};

/// What was seen of a value so far; the rest may come in any number of pieces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan {
    /// Brackets that are open.
    depth: u64,
    /// All ones within a string, else 0.
    string: u64,
    /// The next byte follows a backslash that is not itself escaped.
    escaped: bool,
    /// Whether there was any backslash.
    backslash: bool,
}

/// The brackets that count. Where all that is asked for is the end of an object in a valid
/// document, braces decide alone.
pub(crate) type Brackets = bool;
/// Only `{` and `}`.
pub(crate) const BRACES: Brackets = false;
/// Square ones, too.
pub(crate) const ALL: Brackets = true;

impl Scan {
    /// Just behind the bracket that opens the value.
    pub(crate) const OPENED: Self = Self {
        depth: 1,
        string: 0,
        escaped: false,
        backslash: false,
    };
    /// Just behind the quote that opens the value, a string.
    pub(crate) const IN_STRING: Self = Self {
        depth: 0,
        string: u64::MAX,
        escaped: false,
        backslash: false,
    };

    /// Brackets that are open.
    pub(crate) const fn depth(&self) -> u64 {
        self.depth
    }

    /// Whether the value holds a backslash.
    pub(crate) const fn saw_backslash(&self) -> bool {
        self.backslash
    }

    /// The position behind the bracket that closes the value; none when it goes on behind `text`.
    #[inline(always)]
    pub(crate) fn end<S: Simd, const B: Brackets>(
        &mut self,
        simd: S,
        text: &[u8],
    ) -> Option<usize> {
        let (blocks, rest) = text.as_chunks::<64>();
        for (number, block) in blocks.iter().enumerate() {
            if let Some(end) = self.block::<S, B>(simd, block, 64) {
                return Some(number * 64 + end);
            }
        }
        // Blanks change nothing.
        let mut padded = [b' '; 64];
        padded.get_mut(..rest.len())?.copy_from_slice(rest);
        let end = self.block::<S, B>(simd, &padded, rest.len())?;
        Some(blocks.len() * 64 + end)
    }

    /// The position behind the quote that closes the string.
    pub(crate) fn string_end(&mut self, text: &[u8]) -> Option<usize> {
        let mut from = 0;
        if self.escaped && !text.is_empty() {
            self.escaped = false;
            from = 1;
        }
        while let Some(found) = memchr::memchr2(b'"', b'\\', text.get(from..)?) {
            let at = from + found;
            if text.get(at) == Some(&b'"') {
                return Some(at + 1);
            }
            self.backslash = true;
            if at + 1 == text.len() {
                self.escaped = true;
                return None;
            }
            from = at + 2;
        }
        None
    }

    #[inline(always)]
    fn block<S: Simd, const B: Brackets>(
        &mut self,
        simd: S,
        block: &[u8; 64],
        length: usize,
    ) -> Option<usize> {
        let bytes = u8x64::load_array(simd, *block);
        let mut quotes = bytes.simd_eq(b'"').to_bitmask();
        let backslashes = bytes.simd_eq(b'\\');
        // `[` and `{`, and `]` and `}`, differ in this one bit.
        let folded = if B == ALL { bytes | 0x20 } else { bytes };
        let opening = folded.simd_eq(b'{').to_bitmask();
        let closing = folded.simd_eq(b'}').to_bitmask();
        if backslashes.any_true() || self.escaped {
            quotes &= !self.escaped_by(backslashes.to_bitmask(), length);
        }
        let strings = prefix_xor(quotes) ^ self.string;
        // The last bit, spread over all.
        self.string = (strings >> 63).wrapping_neg();
        let opening = opening & !strings;
        let closing = closing & !strings;
        let closed = u64::from(closing.count_ones());
        if closed < self.depth {
            self.depth = self.depth + u64::from(opening.count_ones()) - closed;
            return None;
        }
        let mut brackets = opening | closing;
        while brackets != 0 {
            let lowest = brackets & brackets.wrapping_neg();
            if opening & lowest != 0 {
                self.depth += 1;
            } else {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    return Some(lowest.trailing_zeros() as usize + 1);
                }
            }
            brackets ^= lowest;
        }
        None
    }

    /// The bytes that follow a backslash which is not itself escaped.
    #[cold]
    fn escaped_by(&mut self, mut backslashes: u64, length: usize) -> u64 {
        let mut escaped = 0;
        if self.escaped && length > 0 {
            escaped = 1;
            backslashes &= !1;
            self.escaped = false;
        }
        self.backslash |= backslashes != 0;
        while backslashes != 0 {
            let lowest = backslashes & backslashes.wrapping_neg();
            escaped |= lowest << 1;
            self.escaped |= lowest.trailing_zeros() as usize + 1 == length;
            backslashes &= !(lowest | lowest << 1);
        }
        escaped
    }
}

/// Each bit becomes the parity of itself and all below.
#[inline(always)]
const fn prefix_xor(mut bits: u64) -> u64 {
    bits ^= bits << 1;
    bits ^= bits << 2;
    bits ^= bits << 4;
    bits ^= bits << 8;
    bits ^= bits << 16;
    bits ^ (bits << 32)
}
