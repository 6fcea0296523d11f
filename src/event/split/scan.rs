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

use fearless_simd::{mask8x64, prelude::*, u8x64};

/// What was seen of a value so far; the rest may come in any number of pieces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan {
    /// Brackets that are open.
    depth: u64,
    /// All ones within a string, else 0.
    string: u64,
    /// The next byte follows a backslash that is not itself escaped.
    escaped: bool,
}

/// What a block of 64 bytes holds, a bit for each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Brackets outside of strings.
    opening: u64,
    closing: u64,
    /// Whether there is any backslash.
    pub(crate) backslash: bool,
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
    };
    /// Just behind the quote that opens the value, a string.
    pub(crate) const IN_STRING: Self = Self {
        depth: 0,
        string: u64::MAX,
        escaped: false,
    };

    /// Brackets that are open.
    pub(crate) const fn depth(&self) -> u64 {
        self.depth
    }

    /// The same text goes on with another value, just behind the bracket that opens it.
    pub(crate) const fn reopened(self) -> Self {
        Self { depth: 1, ..self }
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
            let block = self.block::<S, B>(simd, block, 64);
            if let Some(end) = self.step(&block) {
                return Some(number * 64 + end);
            }
        }
        // Blanks change nothing.
        let mut padded = [b' '; 64];
        padded.get_mut(..rest.len())?.copy_from_slice(rest);
        let block = self.block::<S, B>(simd, &padded, rest.len());
        Some(blocks.len() * 64 + self.step(&block)?)
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
            if at + 1 == text.len() {
                self.escaped = true;
                return None;
            }
            from = at + 2;
        }
        None
    }

    /// Passes over blocks, from `from` on, in which nothing happens: no backslash, no [`marks`], no
    /// bracket that could close the value. Gives where the first block is that is not one of these.
    #[inline(always)]
    pub(crate) fn pass<S: Simd, const B: Brackets>(
        &mut self,
        simd: S,
        text: &[u8],
        mut from: usize,
    ) -> usize {
        let Self {
            mut depth,
            mut string,
            escaped,
        } = *self;
        while let Some(ahead) = text.get(from..).and_then(<[u8]>::first_chunk) {
            let Some(block) = ahead.first_chunk().filter(|_| !escaped) else {
                break;
            };
            let bytes = u8x64::load_array(simd, *block);
            let quoted = bytes.simd_eq(b'"');
            if (bytes.simd_eq(b'\\') | marked(simd, quoted, ahead)).any_true() {
                break;
            }
            let (opening, closing) = brackets::<S, B>(bytes);
            let strings = prefix_xor(quoted.to_bitmask()) ^ string;
            let (opening, closing) = (opening & !strings, closing & !strings);
            let closed = u64::from(closing.count_ones());
            if closed >= depth {
                break;
            }
            depth = depth + u64::from(opening.count_ones()) - closed;
            string = last_of(strings);
            from += 64;
        }
        self.depth = depth;
        self.string = string;
        from
    }

    /// Goes on with a block, of which `length` bytes are text and the others blanks.
    #[inline(always)]
    pub(crate) fn block<S: Simd, const B: Brackets>(
        &mut self,
        simd: S,
        block: &[u8; 64],
        length: usize,
    ) -> Block {
        let bytes = u8x64::load_array(simd, *block);
        let mut quotes = bytes.simd_eq(b'"').to_bitmask();
        let backslashes = bytes.simd_eq(b'\\');
        let (opening, closing) = brackets::<S, B>(bytes);
        let backslash = backslashes.any_true();
        if backslash || self.escaped {
            let (escaped, next) = escaped_by(backslashes.to_bitmask(), self.escaped, length);
            self.escaped = next;
            quotes &= !escaped;
        }
        let strings = prefix_xor(quotes) ^ self.string;
        self.string = last_of(strings);
        Block {
            opening: opening & !strings,
            closing: closing & !strings,
            backslash,
        }
    }

    /// The position behind the bracket that closes the value, if it is in the block.
    #[inline(always)]
    pub(crate) fn step(&mut self, block: &Block) -> Option<usize> {
        let depth = self.depth;
        let closed = u64::from(block.closing.count_ones());
        // Nothing, where the value ends in the block.
        self.depth = (depth + u64::from(block.opening.count_ones())).wrapping_sub(closed);
        if closed < depth {
            return None;
        }
        closes(block.opening, block.closing, depth)
    }
}

impl Block {
    /// Leaves out what was before this place.
    #[inline(always)]
    pub(crate) const fn from(self, place: usize) -> Self {
        let behind = u64::MAX << place;
        Self {
            opening: self.opening & behind,
            closing: self.closing & behind,
            ..self
        }
    }

    /// How many brackets are open at this place, if `depth` were at the beginning.
    pub(crate) const fn depth_at(&self, place: usize, depth: u64) -> u64 {
        let before = !(u64::MAX << place);
        let opened = (self.opening & before).count_ones() as u64;
        (depth + opened).wrapping_sub((self.closing & before).count_ones() as u64)
    }
}

/// The brackets that open, and those that close.
#[inline(always)]
fn brackets<S: Simd, const B: Brackets>(bytes: u8x64<S>) -> (u64, u64) {
    // `[` and `{`, and `]` and `}`, differ in this one bit.
    let folded = if B == ALL { bytes | 0x20 } else { bytes };
    let opening = folded.simd_eq(b'{').to_bitmask();
    (opening, folded.simd_eq(b'}').to_bitmask())
}

/// The last bit, spread over all.
#[inline(always)]
const fn last_of(bits: u64) -> u64 {
    (bits >> 63).wrapping_neg()
}

/// How far a quote's mark looks ahead.
const AHEAD: usize = 4;

/// The quotes of a block that may begin a text like `"ecr.`, by its fourth and fifth bytes: hardly
/// any other does. Where the text ends too early to tell, all bytes.
#[inline(always)]
pub(crate) fn marks<S: Simd>(simd: S, block: &[u8; 64], text: &[u8]) -> u64 {
    let Some(ahead) = text.first_chunk() else {
        return u64::MAX;
    };
    let quoted = u8x64::load_array(simd, *block).simd_eq(b'"');
    marked(simd, quoted, ahead).to_bitmask()
}

#[inline(always)]
fn marked<S: Simd>(simd: S, quoted: mask8x64<S>, ahead: &[u8; 64 + AHEAD]) -> mask8x64<S> {
    let byte = |n: usize, byte: u8| {
        let bytes = ahead.get(n..).and_then(<[u8]>::first_chunk);
        // There are always as many.
        u8x64::load_array(simd, *bytes.unwrap_or(&[0; 64])).simd_eq(byte)
    };
    quoted & byte(3, b'r') & byte(4, b'.')
}

/// The position behind the bracket which closes the last of `depth` that are open; none if that
/// many are never closed.
#[inline(always)]
fn closes(opening: u64, mut closing: u64, mut depth: u64) -> Option<usize> {
    let mut before = 0;
    loop {
        // The earliest that could be it, if nothing opened meanwhile.
        for _ in 1..depth {
            closing &= closing.wrapping_sub(1);
        }
        if closing == 0 {
            return None;
        }
        let below = (closing & closing.wrapping_neg()) - 1;
        let opened = u64::from((opening & below).count_ones());
        if opened == before {
            return Some(closing.trailing_zeros() as usize + 1);
        }
        depth = opened - before + 1;
        before = opened;
    }
}

/// The bytes that follow a backslash which is not itself escaped, and whether the byte behind the
/// block does; `escaped` says that the first one does.
#[cold]
pub(crate) fn escaped_by(mut backslashes: u64, escaped: bool, length: usize) -> (u64, bool) {
    let mut bytes = u64::from(escaped && length > 0);
    let mut next = escaped && length == 0;
    backslashes &= !bytes;
    while backslashes != 0 {
        let lowest = backslashes & backslashes.wrapping_neg();
        bytes |= lowest << 1;
        next |= lowest.trailing_zeros() as usize + 1 == length;
        backslashes &= !(lowest | lowest << 1);
    }
    (bytes, next)
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
