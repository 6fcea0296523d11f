//! Finds the records of ECR in decompressed trail files without parsing the others.
//!
//! Most records of a trail belong to other services. They are counted, and their extent must be
//! known exactly; nothing else about them matters. So the text is scanned for brackets outside of
//! strings ([`Scan`]), the quoted source is searched for, and a record counts as one of ECR if that
//! text is the value of an `eventSource` key of the record itself, whatever the order of keys and
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
use scan::{ALL, BRACES, Scan};

/// [`EVENT_SOURCE`] as the value of a key.
const QUOTED_SOURCE: &[u8] = b"\"ecr.amazonaws.com\"";
/// How every escape begins that can stand for a letter of the key or of the source.
const ESCAPE: &[u8] = b"\\u00";
/// How far the search runs ahead of the scan: what it touches is still in the cache then.
const AHEAD: usize = 64 << 10;

static SOURCE_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(QUOTED_SOURCE));
static ESCAPE_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(ESCAPE));
static LEVEL: LazyLock<Level> = LazyLock::new(Level::new);

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
    /// The scan of the element that has begun, and how much of it was scanned.
    open: Option<(Scan, usize)>,
    /// The longest element that is taken.
    limit: usize,
    given_up: bool,
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
    /// An element is no object, or no comma stands where one must.
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
        }
    }

    /// Elements that have ended.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Goes through a piece, which begins where the last one's [`Step::More`] said.
    pub fn run(&mut self, text: &[u8], elements: &mut impl Elements) -> Step {
        dispatch!(*LEVEL, simd => self.run_with(simd, text, elements))
    }

    #[inline(always)]
    fn run_with<S: Simd>(&mut self, simd: S, text: &[u8], elements: &mut impl Elements) -> Step {
        let mut sources = Sources::new(text);
        let mut at = 0;
        loop {
            if self.open.is_none() {
                match self.between(text, at) {
                    Ok(element) => at = element,
                    Err(step) => return step,
                }
                self.open = Some((Scan::OPENED, 1));
            }
            let Some((scan, scanned)) = &mut self.open else {
                return Step::Malformed;
            };
            let Some(rest) = text.get(at + *scanned..) else {
                return Step::More(at);
            };
            let Some(length) = scan.end::<S, BRACES>(simd, rest) else {
                *scanned += rest.len();
                // Such an element is not kept, only followed to its end.
                self.given_up |= *scanned > self.limit;
                if self.given_up {
                    *scanned = 0;
                    return Step::More(text.len());
                }
                return Step::More(at);
            };
            let end = at + *scanned + length;
            let escapes = scan.saw_backslash();
            self.open = None;
            self.expected = Expected::CommaOrEnd;
            if std::mem::take(&mut self.given_up) || end - at > self.limit {
                elements.too_long(self.count);
            } else if let Some(record) = text.get(at..end) {
                if self.count == 0 && !elements.first(record) {
                    return Step::Strange;
                }
                if sources.name(at, end, record) || escapes && escaped_source(record) {
                    elements.ecr(self.count, record);
                }
            }
            self.count += 1;
            at = end;
        }
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
                _ => return Err(Step::Malformed),
            }
            at += 1;
        }
    }
}

/// The places of the quoted source, found as the scan proceeds.
struct Sources<'t> {
    text: &'t [u8],
    finder: &'static Finder<'static>,
    /// The next one, as far as it is known.
    next: Option<usize>,
    /// None but `next` begins before this position.
    searched: usize,
}

impl<'t> Sources<'t> {
    fn new(text: &'t [u8]) -> Self {
        Self {
            text,
            finder: &SOURCE_FINDER,
            next: None,
            searched: 0,
        }
    }

    /// Whether one of them, between `start` and `end`, is the `eventSource` of the record there.
    #[inline(always)]
    fn name(&mut self, start: usize, end: usize, record: &[u8]) -> bool {
        let mut from = start;
        while let Some(place) = self.next(from, end) {
            if record
                .get(..place - start)
                .is_some_and(ends_with_key_of_object)
            {
                return true;
            }
            from = place + 1;
        }
        false
    }

    /// The first that begins at `from` or behind it, and before `end`.
    #[inline(always)]
    fn next(&mut self, from: usize, end: usize) -> Option<usize> {
        loop {
            if let Some(next) = self.next.filter(|next| *next >= from) {
                return (next < end).then_some(next);
            }
            self.next = None;
            if self.searched >= end {
                return None;
            }
            let begin = self.searched.max(from);
            let until = (begin + AHEAD).max(end).min(self.text.len());
            match self.finder.find(self.text.get(begin..until)?) {
                Some(found) => {
                    self.next = Some(begin + found);
                    self.searched = begin + found + 1;
                }
                // One may begin at the very end of what was searched.
                None if until < self.text.len() => self.searched = until - QUOTED_SOURCE.len() + 1,
                None => self.searched = until,
            }
        }
    }
}

/// Whether this text, the beginning of an object up to a value, ends with `"eventSource":`, and
/// that is a key of the object itself.
fn ends_with_key_of_object(text: &[u8]) -> bool {
    let key = text
        .trim_ascii_end()
        .strip_suffix(b":")
        .and_then(|text| text.trim_ascii_end().strip_suffix(b"\"eventSource\""));
    // An escaped quote belongs to a longer key.
    key.is_some_and(|before| !before.ends_with(b"\\") && depth_behind(before) == 1)
}

/// How many braces are open at the end of this text, which begins with one.
fn depth_behind(text: &[u8]) -> u64 {
    let mut scan = Scan::OPENED;
    let rest = text.get(1..).unwrap_or_default();
    let closed = dispatch!(*LEVEL, simd => scan.end::<_, BRACES>(simd, rest));
    if closed.is_some() { 0 } else { scan.depth() }
}

/// Whether a record is one of ECR.
pub fn is_ecr(record: &[u8]) -> bool {
    Sources::new(record).name(0, record.len(), record)
        || memchr::memchr(b'\\', record).is_some() && escaped_source(record)
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
