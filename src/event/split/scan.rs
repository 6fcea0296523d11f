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
    /// end of the value, unless it can be passed over together with what stands between it and the
    /// next. Gives where the first block is that is not one of these.
    #[inline(always)]
    pub(crate) fn pass<S: Simd, P: Pairs, const B: Brackets>(
        &mut self,
        simd: S,
        pairs: P,
        text: &[u8],
        mut from: usize,
        row: &mut Row,
    ) -> usize {
        if self.escaped {
            return from;
        }
        while let Some(ahead) = text.get(from..).and_then(<[u8]>::first_chunk) {
            // Two blocks at a time: whether there is anything is asked once for both.
            let ahead: &[u8; 2 * 64 + AHEAD] = ahead;
            let (one, two) = (load(simd, ahead, 0), load(simd, ahead, 64));
            let (quoted, also) = (one.simd_eq(b'"'), two.simd_eq(b'"'));
            let any = one.simd_eq(b'\\') | marked(simd, quoted, ahead, 0);
            let any = any | two.simd_eq(b'\\') | marked(simd, also, ahead, 64);
            if any.any_true() || !self.passes::<S, P, B>(pairs, one, quoted, (ahead, from), row) {
                break;
            }
            from += 64;
            let rest = ahead.get(64..).unwrap_or_default();
            if !self.passes::<S, P, B>(pairs, two, also, (rest, from), row) {
                break;
            }
            from += 64;
        }
        from
    }

    /// Passes over a block at `from` if it can be.
    #[inline(always)]
    fn passes<S: Simd, P: Pairs, const B: Brackets>(
        &mut self,
        pairs: P,
        bytes: u8x64<S>,
        quoted: mask8x64<S>,
        (text, from): (&[u8], usize),
        row: &mut Row,
    ) -> bool {
        let (opening, closing) = brackets::<S, B>(bytes);
        let strings = pairs.within(quoted.to_bitmask()) ^ self.string;
        let (opening, closing) = (opening & !strings, closing & !strings);
        let closed = u64::from(closing.count_ones());
        if closed < self.depth || closes(opening, closing, self.depth).is_none() {
            self.depth = self.depth + u64::from(opening.count_ones()) - closed;
        } else if let Some(place) = row.next(opening, closing, self.depth, (text, from)) {
            self.depth = u64::from((opening >> place).count_ones());
        } else {
            return false;
        }
        self.string = last_of(strings);
        true
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
        let strings = Shifts.within(quotes) ^ self.string;
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

/// Values that follow one another, as far as they are passed over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Where the one begins that has not ended.
    pub(crate) at: usize,
    /// How many have ended.
    pub(crate) ended: u64,
    /// Longer ones are not passed over.
    pub(crate) longest: usize,
}

impl Row {
    /// The place of the bracket that opens the next value, in a block at `from` in which one ends,
    /// if no more than a comma stands between them, and the next does not end in the block, too.
    #[inline(always)]
    fn next(
        &mut self,
        opening: u64,
        closing: u64,
        depth: u64,
        (text, from): (&[u8], usize),
    ) -> Option<u32> {
        let ends = closing & opening >> 2;
        let end = ends & ends.wrapping_neg();
        let before = end.wrapping_sub(1);
        let opened = u64::from((opening & before).count_ones());
        let closed = u64::from((closing & before).count_ones());
        let place = end.trailing_zeros();
        // With fewer closed than were open it can have ended nowhere before.
        let first = end != 0 && closed < depth && depth + opened == closed + 1;
        let only = closing & !(before | end) == 0;
        let at = from + place as usize + 2;
        if first
            && only
            && text.get(place as usize + 1) == Some(&b',')
            && at - 1 - self.at <= self.longest
        {
            self.at = at;
            self.ended += 1;
            return Some(place + 2);
        }
        None
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
    let Some(ahead) = text.first_chunk::<{ 64 + AHEAD }>() else {
        return u64::MAX;
    };
    let quoted = u8x64::load_array(simd, *block).simd_eq(b'"');
    marked(simd, quoted, ahead, 0).to_bitmask()
}

#[inline(always)]
fn marked<S: Simd>(simd: S, quoted: mask8x64<S>, text: &[u8], at: usize) -> mask8x64<S> {
    let third = load(simd, text, at + 3).simd_eq(b'r');
    quoted & third & load(simd, text, at + 4).simd_eq(b'.')
}

/// The block at this place, which there always is.
#[inline(always)]
fn load<S: Simd>(simd: S, text: &[u8], at: usize) -> u8x64<S> {
    let block = text.get(at..).unwrap_or_default().first_chunk();
    u8x64::load_array(simd, *block.unwrap_or(&[0; 64]))
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
#[inline(always)]
pub(crate) const fn escaped_by(backslashes: u64, escaped: bool, length: usize) -> (u64, bool) {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let carried = escaped as u64;
    let backslashes = backslashes & !carried;
    let follows = backslashes << 1 | carried;
    // A run of backslashes that begins at an odd place carries into the place behind it; of the
    // bytes that follow a backslash every second one is escaped, beginning with the first of a run.
    let runs = backslashes & !EVEN & !follows;
    let (sums, over) = runs.overflowing_add(backslashes);
    let bytes = (EVEN ^ sums << 1) & follows;
    if length < 64 {
        (bytes & !(u64::MAX << length), bytes >> length & 1 == 1)
    } else {
        (bytes, over)
    }
}

/// How the quotes that open and close strings tell what lies within these: each bit becomes the
/// parity of itself and all below.
pub(crate) trait Pairs: Copy {
    /// From each opening quote up to before the closing one; the first one opens.
    fn within(self, quotes: u64) -> u64;
}

/// With what every processor has.
#[derive(Clone, Copy)]
pub(crate) struct Shifts;

impl Pairs for Shifts {
    #[inline(always)]
    fn within(self, mut bits: u64) -> u64 {
        bits ^= bits << 1;
        bits ^= bits << 2;
        bits ^= bits << 4;
        bits ^= bits << 8;
        bits ^= bits << 16;
        bits ^ (bits << 32)
    }
}

/// With an instruction that deals out bits.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Deposit(fearless_simd::Avx2);

#[cfg(target_arch = "x86_64")]
fearless_simd::kernel!(
    /// The first, the third, the fifth … of the bits.
    #[inline(always)]
    fn every_other(avx2: Avx2, bits: u64) -> u64 {
        std::arch::x86_64::_pdep_u64(0x5555_5555_5555_5555, bits)
    }
);

#[cfg(target_arch = "x86_64")]
impl Deposit {
    /// Where the processor has that instruction, and does it at once: of those that have not the
    /// other, some take it in many steps.
    pub(crate) fn new(level: fearless_simd::Level) -> Option<Self> {
        let avx2 = level.as_avx2()?;
        std::arch::is_x86_feature_detected!("vaes").then_some(Self(avx2))
    }
}

#[cfg(target_arch = "x86_64")]
impl Pairs for Deposit {
    #[inline(always)]
    fn within(self, quotes: u64) -> u64 {
        let opening = every_other(self.0, quotes);
        // From each that opens to before the next, which closes; the last may have none, and then
        // it goes on to the end.
        (quotes ^ opening).wrapping_sub(opening)
    }
}
