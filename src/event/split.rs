//! Finds the records of ECR in decompressed trail files without parsing the others.
//!
//! Most records of a trail belong to other services. They are counted, and their extent must be
//! known exactly; nothing else about them matters. So the text is scanned for brackets outside of
//! strings ([`Scan`]), and a record counts as one of ECR if the quoted source
//! is the value of an `eventSource` key of the record itself, whatever the order of keys and
//! the blanks between them. A record whose spelling could hide that (escapes within the key or the
//! value) is parsed.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the processor that was found"
)]

mod scan;

use std::{borrow::Cow, fmt, sync::LazyLock};

use fearless_simd::{Level, Simd, dispatch};
use memchr::memmem::Finder;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::record::EVENT_SOURCE;
#[cfg(target_arch = "x86_64")]
use scan::Deposit;
pub(super) use scan::escaped_by;
use scan::{ALL, BRACES, Block, Pairs, Row, Scan, Shifts, marks};

/// [`EVENT_SOURCE`] as the value of a key.
const QUOTED_SOURCE: &[u8] = b"\"ecr.amazonaws.com\"";
/// How every escape begins that can stand for a letter of the key or of the source.
const ESCAPE: &[u8] = b"\\u00";

static SOURCE_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(QUOTED_SOURCE));
static ESCAPE_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(ESCAPE));
/// What the processor can do.
pub(super) static LEVEL: LazyLock<Level> = LazyLock::new(Level::new);

#[cfg(target_arch = "x86_64")]
static DEPOSIT: LazyLock<Option<Deposit>> = LazyLock::new(|| Deposit::new(*LEVEL));

/// What is done with the elements of a `Records` array.
pub trait Elements {
    /// Looks at the first one: `false` if this is no array of CloudTrail records.
    fn first(&mut self, text: &[u8]) -> bool;
    /// Takes a record of ECR.
    fn ecr(&mut self, index: u64, text: &[u8]);
    /// Learns of a record that is longer than the limit.
    fn too_long(&mut self, index: u64);
}

/// A run through the elements of a `Records` array, in pieces of any size.
#[derive(Debug)]
pub struct Records {
    count: u64,
    expected: Expected,
    /// The element that has begun, and how much of it was scanned.
    open: Option<(Element, usize)>,
    /// The longest element that is taken.
    limit: usize,
    given_up: bool,
    /// The first object was looked at.
    looked: bool,
}

/// What was seen of an element so far.
#[derive(Clone, Copy, Debug)]
struct Element {
    scan: Scan,
    /// Whether its text may hold a backslash.
    escapes: bool,
    source: Source,
}

/// What an element's `eventSource` is, as far as it is spelled without escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Other,
    /// The text ended where it would have been told, or is damaged there: the element has to be
    /// looked at again.
    Unsure,
    Ecr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    ElementOrEnd,
    Element,
    CommaOrEnd,
}

/// Where a run stands at the end of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More text is needed. The next piece begins with what follows this position.
    More(usize),
    /// The array ended; the position is behind its bracket.
    End(usize),
    /// An element begins at this position that is no object. Where it ends is found otherwise, and
    /// then [`Records::pass_over`] takes note of it.
    Other(usize),
    /// No comma stands where one must.
    Malformed,
    /// The first element is no CloudTrail record.
    Strange,
}

impl Records {
    /// Just behind the bracket that opens the array; elements longer than `limit` are not taken.
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            count: 0,
            expected: Expected::ElementOrEnd,
            open: None,
            given_up: false,
            looked: false,
        }
    }

    /// Elements that have ended.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The element of a [`Step::Other`] has ended.
    pub const fn pass_over(&mut self) {
        self.count += 1;
        self.expected = Expected::CommaOrEnd;
    }

    /// Goes through a piece, which begins where the last one's [`Step::More`] said.
    pub fn run(&mut self, text: &[u8], elements: &mut impl Elements) -> Step {
        #[cfg(target_arch = "x86_64")]
        if let Some(deposit) = *DEPOSIT {
            return dispatch!(*LEVEL, simd => self.run_with(simd, deposit, text, elements));
        }
        dispatch!(*LEVEL, simd => self.run_with(simd, Shifts, text, elements))
    }

    #[inline(always)]
    fn run_with<S: Simd, P: Pairs>(
        &mut self,
        simd: S,
        pairs: P,
        text: &[u8],
        elements: &mut impl Elements,
    ) -> Step {
        let (mut at, mut element, mut from) = match self.open.take() {
            Some((element, scanned)) => (0, element, scanned),
            None => match self.between(text, 0) {
                Ok(at) => (at, Element::OPENED, at + 1),
                Err(step) => return step,
            },
        };
        let mut padded;
        loop {
            // The first one is looked at, and what was seen of one is remembered to its end.
            let plain = element.source == Source::Other && !element.escapes && !self.given_up;
            let mut row = Row {
                at,
                ended: 0,
                longest: if plain && self.looked { self.limit } else { 0 },
            };
            from = element
                .scan
                .pass::<S, P, BRACES>(simd, pairs, text, from, &mut row);
            at = row.at;
            self.count += row.ended;
            let rest = text.get(from..).unwrap_or_default();
            let (bytes, length) = if let Some(bytes) = rest.first_chunk() {
                (bytes, 64)
            } else {
                // Blanks change nothing.
                padded = [b' '; 64];
                for (to, byte) in padded.iter_mut().zip(rest) {
                    *to = *byte;
                }
                (&padded, rest.len())
            };
            let mut block = element.scan.block::<S, BRACES>(simd, bytes, length);
            let mut marks = marks(simd, bytes, rest);
            let next = loop {
                element.escapes |= block.backslash;
                let depth = element.scan.depth();
                let end = element.scan.step(&block);
                if marks != 0 {
                    let below = end.map_or(u64::MAX, |end| u64::MAX >> (64 - end));
                    element.look(text, at, (from, marks & below), &block, depth);
                }
                let Some(end) = end else {
                    break from + 64;
                };
                if !self.take(text, at, from + end, &element, elements) {
                    return Step::Strange;
                }
                at = match self.between(text, from + end) {
                    Ok(at) => at,
                    Err(step) => return step,
                };
                let place = at + 1 - from;
                if place >= length {
                    element = Element::OPENED;
                    break at + 1;
                }
                // The same block goes on with the next one.
                element = Element {
                    scan: element.scan.reopened(),
                    ..Element::OPENED
                };
                block = block.from(place);
                marks &= u64::MAX << place;
            };
            if next > text.len() || length < 64 && next > from + length {
                let scanned = text.len() - at;
                // An element that is too long is not kept, only followed to its end.
                self.given_up |= scanned > self.limit;
                let kept = if self.given_up { 0 } else { scanned };
                self.open = Some((element, kept));
                return Step::More(text.len() - kept);
            }
            from = next;
        }
    }

    /// An element ends; `false` if it shows that this is no array of CloudTrail records.
    #[inline(always)]
    fn take(
        &mut self,
        text: &[u8],
        at: usize,
        end: usize,
        element: &Element,
        elements: &mut impl Elements,
    ) -> bool {
        self.expected = Expected::CommaOrEnd;
        if std::mem::take(&mut self.given_up) || end - at > self.limit {
            elements.too_long(self.count);
        } else if let Some(record) = text.get(at..end) {
            if !std::mem::replace(&mut self.looked, true) && !elements.first(record) {
                return false;
            }
            let named = match element.source {
                Source::Ecr => true,
                Source::Unsure => names_source(record),
                Source::Other => false,
            };
            if named || element.escapes && escaped_source(record) {
                elements.ecr(self.count, record);
            }
        }
        self.count += 1;
        true
    }

    /// The position of the next element's bracket.
    #[inline(always)]
    fn between(&mut self, text: &[u8], mut at: usize) -> Result<usize, Step> {
        loop {
            let Some(&byte) = text.get(at) else {
                return Err(Step::More(at));
            };
            match (byte, self.expected) {
                (b'{', Expected::Element | Expected::ElementOrEnd) => return Ok(at),
                (b',', Expected::CommaOrEnd) => self.expected = Expected::Element,
                (b']', Expected::CommaOrEnd | Expected::ElementOrEnd) => {
                    return Err(Step::End(at + 1));
                }
                (b' ' | b'\t' | b'\n' | b'\r', _) => {}
                (_, Expected::Element | Expected::ElementOrEnd) => return Err(Step::Other(at)),
                (_, Expected::CommaOrEnd) => return Err(Step::Malformed),
            }
            at += 1;
        }
    }
}

impl Element {
    /// Just behind the bracket that opens it.
    const OPENED: Self = Self {
        scan: Scan::OPENED,
        escapes: false,
        source: Source::Other,
    };

    /// Looks for the source at the marks of a block at `from`; the element is at `at`, and `depth`
    /// brackets are open where the block begins.
    #[cold]
    fn look(
        &mut self,
        text: &[u8],
        at: usize,
        (from, mut marks): (usize, u64),
        block: &Block,
        depth: u64,
    ) {
        while marks != 0 {
            let place = marks.trailing_zeros() as usize;
            marks &= marks - 1;
            let (before, value) = text.split_at(text.len().min(from + place));
            if block.depth_at(place, depth) != 1 {
                continue;
            }
            let whole = value.starts_with(QUOTED_SOURCE);
            if !whole && !QUOTED_SOURCE.starts_with(value) {
                continue;
            }
            match named_by(before.get(at..).unwrap_or_default()) {
                Source::Ecr if whole => self.source = Source::Ecr,
                Source::Ecr | Source::Unsure if self.source == Source::Other => {
                    self.source = Source::Unsure;
                }
                Source::Ecr | Source::Unsure | Source::Other => {}
            }
        }
    }
}

/// What the text before a quoted source makes of it: the value of `eventSource`, something else, or
/// neither, in a damaged record.
fn named_by(before: &[u8]) -> Source {
    let before = before.trim_ascii_end();
    let Some(key) = before.strip_suffix(b":").map(<[u8]>::trim_ascii_end) else {
        // An element, or itself a key.
        let plain = matches!(before.last(), Some(b'[' | b'{' | b','));
        return if plain { Source::Other } else { Source::Unsure };
    };
    match key.strip_suffix(b"\"eventSource\"") {
        // An escaped quote belongs to a longer key.
        Some(before) if !before.ends_with(b"\\") => Source::Ecr,
        _ if key.ends_with(b"\"") => Source::Other,
        _ => Source::Unsure,
    }
}

/// Whether the source is the value of an `eventSource` of the record itself, which begins with its
/// brace, without escapes; or whether that may be, in a record that is no valid JSON.
fn names_source(record: &[u8]) -> bool {
    let mut scan = Scan::OPENED;
    let (mut scanned, mut unsure) = (1, false);
    for place in SOURCE_FINDER.find_iter(record) {
        // Each byte is looked at once, however often the source is named.
        let between = record.get(scanned..place).unwrap_or_default();
        let closed = dispatch!(*LEVEL, simd => scan.end::<_, BRACES>(simd, between));
        if closed.is_some() {
            break;
        }
        scanned = place.max(scanned);
        if scan.depth() == 1 {
            match named_by(record.get(..place).unwrap_or_default()) {
                Source::Ecr => return true,
                Source::Unsure => unsure = true,
                Source::Other => {}
            }
        }
    }
    unsure && serde_json::from_slice::<IgnoredAny>(record).is_err()
}

/// Whether a record is one of ECR.
pub fn is_ecr(record: &[u8]) -> bool {
    let record = record.trim_ascii_start();
    names_source(record) || memchr::memchr(b'\\', record).is_some() && escaped_source(record)
}

/// Whether a record that holds escapes names ECR as its source in another spelling.
#[cold]
fn escaped_source(record: &[u8]) -> bool {
    ESCAPE_FINDER.find(record).is_some()
        && serde_json::from_slice::<TopLevelSource>(record).is_ok_and(|source| source.0)
}

/// Whether an object has the key `eventSource` with ECR as its value.
struct TopLevelSource(bool);

impl<'de> Deserialize<'de> for TopLevelSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = TopLevelSource;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = false;
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    if key == "eventSource" {
                        let value = map.next_value::<&RawValue>()?.get();
                        found |= serde_json::from_str::<Cow<'_, str>>(value)
                            .is_ok_and(|source| source == EVENT_SOURCE);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(TopLevelSource(found))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The end of one JSON value that comes in pieces; it may be nested to any depth.
#[derive(Clone, Copy, Debug)]
pub struct ValueEnd {
    scan: Scan,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Brackets,
    String,
    Plain,
}

impl ValueEnd {
    /// By the value's first byte, and the number of bytes that are to be left out of what
    /// [`ValueEnd::find`] is given.
    pub const fn new(first: u8) -> (Self, usize) {
        match first {
            b'{' | b'[' => (Self::of(Scan::OPENED, Kind::Brackets), 1),
            b'"' => (Self::of(Scan::IN_STRING, Kind::String), 1),
            _ => (Self::of(Scan::OPENED, Kind::Plain), 0),
        }
    }

    const fn of(scan: Scan, kind: Kind) -> Self {
        Self { scan, kind }
    }

    /// The position behind the value; none when it goes on behind `text`, and then the next call
    /// is given what follows.
    pub fn find(&mut self, text: &[u8]) -> Option<usize> {
        match self.kind {
            Kind::Brackets => dispatch!(*LEVEL, simd => self.scan.end::<_, ALL>(simd, text)),
            Kind::String => self.scan.string_end(text),
            Kind::Plain => text.iter().position(|byte| {
                !matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.')
            }),
        }
    }
}

#[cfg(test)]
mod tests;
