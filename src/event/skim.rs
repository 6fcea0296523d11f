//! A record's own members, read without looking into what is not asked for.
//!
//! Most of a record is texts and objects that nobody reads, and most records are written in one
//! way: valid, without blanks, no field twice. So the quotes are found first, 64 bytes at a time,
//! and the values between them are walked from quote to quote. Every byte is checked: what is
//! skimmed is what a full parse would read. Whatever is written otherwise, or is not valid, is
//! left to that ([`skim`] gives nothing).

mod opening;
mod parts;
mod quotes;

use std::borrow::Cow;

use super::{action::Parts, image::RepositoryRef, wire::Record};
use opening::{Opening, Openings};
use parts::{Place, Reader};
use quotes::{Found, Quotes};

/// Objects and arrays within each other are walked to this depth.
const MAX_DEPTH: u32 = 32;

/// Memory that every record uses again: what it is walked with, and what is remembered of how
/// records begin, with a value for each beginning.
#[derive(Debug)]
pub(super) struct Skimmer<T> {
    quotes: Quotes,
    openings: Openings<T>,
}

impl<T> Default for Skimmer<T> {
    fn default() -> Self {
        Self {
            quotes: Quotes::default(),
            openings: Openings::default(),
        }
    }
}

/// What was skimmed of a record.
#[derive(Debug, Default)]
pub(super) struct Skimmed<'a> {
    pub(super) record: Record<'a>,
    /// Where a value can be kept for all records that begin like this one, up to its identity.
    pub(super) opening: Option<usize>,
    /// The request of a pull or push, and the response of a push, where it is written as most are.
    pub(super) parts: Parts<'a>,
    /// The first repository among the resources, if there is one and they are written as most are.
    pub(super) resource: Option<RepositoryRef<'a>>,
    /// Where they are not, its ARN, which is not told by skimming.
    pub(super) arn: Option<Cow<'a, str>>,
    /// Whether the resources, if there are any, are written as most are.
    pub(super) resources_read: bool,
    /// Whether a part of the record may stand in for one that CloudTrail left out.
    pub(super) stand_in: bool,
    /// CloudTrail left out a part of the record; not told by skimming.
    pub(super) omitted: bool,
}

impl<T> Skimmer<T> {
    /// Reads a record's members into `skimmed`, which holds nothing, if it is written as most are.
    pub(super) fn skim<'a>(&mut self, text: &'a str, skimmed: &mut Skimmed<'a>) -> Option<()> {
        let known = self.openings.find(text);
        let begin = known.map_or(0, |(_, opening)| opening.length());
        let Found { places, escapes } = self.quotes.find(text.as_bytes(), begin)?;
        let mut walk = Walk {
            text: text.as_bytes(),
            places,
        };
        let mut members = Members {
            text,
            escapes,
            seen: 0,
            record: &mut skimmed.record,
            identity: None,
            resources: None,
            request: None,
            response: None,
            stand_in: false,
        };
        let mut at = if let Some((_, opening)) = known {
            members.begin(opening)?;
            begin
        } else {
            walk.expect(0, b'{')?;
            walk.member(1, &mut members)?
        };
        loop {
            match text.as_bytes().get(at)? {
                b',' => at = walk.member(at + 1, &mut members)?,
                b'}' if at + 1 == text.len() => break,
                _ => return None,
            }
        }
        let Members {
            identity,
            resources,
            request,
            response,
            stand_in,
            ..
        } = members;
        let name = skimmed.record.event_name.as_deref();
        let is_push = name == Some("PutImage");
        if let Some(place) = request.filter(|_| is_push || name == Some("BatchGetImage")) {
            skimmed.parts.request = Reader::new(text, place, escapes).request(place.at);
        }
        if let Some(place) = response.filter(|_| is_push) {
            skimmed.parts.response = Reader::new(text, place, escapes).response(place.at);
        }
        skimmed.resources_read = resources.is_none_or(|place| {
            let mut reader = Reader::new(text, place, escapes);
            reader.resource(place.at, &mut skimmed.resource).is_some()
        });
        skimmed.stand_in = stand_in;
        skimmed.opening = match (known.map(|(slot, _)| slot), identity) {
            (None, Some(identity)) => self.openings.add(text, identity),
            (slot, _) => slot,
        };
        Some(())
    }

    /// The value of an opening, if one was put there.
    pub(super) fn value(&mut self, opening: usize) -> Option<&mut Option<T>> {
        self.openings.value(opening)
    }
}

/// The position in a valid text, which every step moves behind what it has checked; it gives
/// nothing where that is not what it expects.
struct Walk<'t, 'q> {
    text: &'t [u8],
    /// The quotes at and behind the position.
    places: &'q [u32],
}

impl<'q> Walk<'_, 'q> {
    /// A member of the record itself.
    #[inline]
    fn member<'a>(&mut self, key: usize, members: &mut Members<'a, '_, 'q>) -> Option<usize> {
        let colon = self.string(key)?;
        self.expect(colon, b':')?;
        let at = colon + 1;
        let quotes = self.places;
        let name = self.text.get(key..colon)?;
        let end = if Members::is_part(name) && self.text.get(at) == Some(&b'{') {
            let escapes = members.escapes;
            self.object(at + 1, MAX_DEPTH - 1, &mut |key: &[u8]| {
                members.stand_in |= key == b"\"omitted\"" || escapes && key.contains(&b'\\');
            })?
        } else {
            self.value(at, MAX_DEPTH)?
        };
        members.add(key..colon, at..end, Place { at, quotes })?;
        Some(end)
    }

    #[inline]
    fn expect(&self, at: usize, byte: u8) -> Option<()> {
        (*self.text.get(at)? == byte).then_some(())
    }

    #[inline]
    fn string(&mut self, at: usize) -> Option<usize> {
        let ([open, close], rest) = self.places.split_first_chunk()?;
        self.places = rest;
        (*open as usize == at).then_some(*close as usize + 1)
    }

    #[inline]
    fn value(&mut self, at: usize, depth: u32) -> Option<usize> {
        match self.text.get(at)? {
            b'"' => self.string(at),
            b'{' => self.object(at + 1, depth.checked_sub(1)?, &mut |_| ()),
            b'[' => self.array(at + 1, depth.checked_sub(1)?),
            b't' => self.word(at, b"true"),
            b'f' => self.word(at, b"false"),
            b'n' => self.word(at, b"null"),
            b'-' => self.number(at + 1),
            _ => self.number(at),
        }
    }

    /// Behind the opening bracket; `member` is shown every key, with its quotes.
    fn object(
        &mut self,
        mut at: usize,
        depth: u32,
        member: &mut impl FnMut(&[u8]),
    ) -> Option<usize> {
        if *self.text.get(at)? == b'}' {
            return Some(at + 1);
        }
        loop {
            let key = at;
            at = self.string(key)?;
            member(self.text.get(key..at)?);
            self.expect(at, b':')?;
            at = self.value(at + 1, depth)?;
            match self.text.get(at)? {
                b',' => at += 1,
                b'}' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    /// Behind the opening bracket.
    fn array(&mut self, mut at: usize, depth: u32) -> Option<usize> {
        if *self.text.get(at)? == b']' {
            return Some(at + 1);
        }
        loop {
            at = self.value(at, depth)?;
            match self.text.get(at)? {
                b',' => at += 1,
                b']' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    fn word(&self, at: usize, word: &[u8]) -> Option<usize> {
        self.text
            .get(at..)?
            .starts_with(word)
            .then(|| at + word.len())
    }

    /// The digits of an integer: all that records have.
    fn number(&self, at: usize) -> Option<usize> {
        let text = self.text.get(at..)?;
        let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let ends = !matches!(text.get(digits), Some(b'.' | b'e' | b'E'));
        let well_formed = digits == 1 || digits > 1 && text.first() != Some(&b'0');
        (ends && well_formed).then_some(at + digits)
    }
}

/// The members found so far.
struct Members<'a, 'r, 'q> {
    text: &'a str,
    /// Whether there is a backslash anywhere.
    escapes: bool,
    /// Which fields were there, a bit for each.
    seen: u32,
    record: &'r mut Record<'a>,
    /// Where the identity is, if nothing that is read stands before it.
    identity: Option<Span>,
    resources: Option<Place<'q>>,
    request: Option<Place<'q>>,
    response: Option<Place<'q>>,
    /// A part has the key of what stands in for one that was left out, or may have.
    stand_in: bool,
}

/// A place in the text.
type Span = std::ops::Range<usize>;

impl<'a, 'q> Members<'a, '_, 'q> {
    /// Takes those of a beginning that was seen before.
    fn begin(&mut self, opening: &Opening) -> Option<()> {
        first(&mut self.seen, IDENTITY)?;
        self.record.user_identity = Some(self.text.get(opening.identity())?);
        Some(())
    }

    /// Whether this key, with its quotes, is that of a part that CloudTrail may leave out.
    fn is_part(key: &[u8]) -> bool {
        matches!(
            key,
            b"\"requestParameters\"" | b"\"responseElements\"" | b"\"serviceEventDetails\""
        )
    }

    /// Takes a member, and where its value is; nothing where a full parse would have more to say.
    fn add(&mut self, key: Span, value: Span, place: Place<'q>) -> Option<()> {
        let span = value.clone();
        let value = self.text.get(value)?;
        let key = self.text.get(key)?;
        let string = |seen: &mut u32, field: &mut Option<Cow<'a, str>>, bit: u32| {
            first(seen, bit)?;
            if value != "null" {
                let text = value.strip_prefix('"')?.strip_suffix('"')?;
                if self.escapes && text.contains('\\') {
                    return None;
                }
                *field = Some(Cow::Borrowed(text));
            }
            Some(())
        };
        let raw = |seen: &mut u32, field: &mut Option<&'a str>, bit: u32| {
            first(seen, bit)?;
            *field = (value != "null").then_some(value);
            Some(())
        };
        let (seen, record) = (&mut self.seen, &mut *self.record);
        match key {
            "\"eventID\"" => string(seen, &mut record.event_id, 0),
            "\"sharedEventID\"" => string(seen, &mut record.shared_event_id, 1),
            "\"eventTime\"" => string(seen, &mut record.event_time, 2),
            "\"eventSource\"" => string(seen, &mut record.event_source, 3),
            "\"eventName\"" => string(seen, &mut record.event_name, 4),
            "\"eventCategory\"" => string(seen, &mut record.event_category, 5),
            "\"awsRegion\"" => string(seen, &mut record.aws_region, 6),
            "\"errorCode\"" => string(seen, &mut record.error_code, 7),
            "\"recipientAccountId\"" => string(seen, &mut record.recipient_account_id, 8),
            "\"userIdentity\"" => {
                if *seen == 0 && !self.escapes && value != "null" {
                    self.identity = Some(span);
                }
                raw(seen, &mut record.user_identity, IDENTITY)
            }
            "\"resources\"" => {
                self.resources = (value != "null").then_some(place);
                raw(seen, &mut record.resources, 10)
            }
            "\"requestParameters\"" => {
                self.request = Some(place);
                raw(seen, &mut record.request_parameters, 11)
            }
            "\"responseElements\"" => {
                self.response = Some(place);
                raw(seen, &mut record.response_elements, 12)
            }
            "\"serviceEventDetails\"" => raw(seen, &mut record.service_event_details, 13),
            // Rare, and more than a text.
            "\"addendum\"" => None,
            // Another spelling of one of these.
            other if self.escapes && other.contains('\\') => None,
            _ => Some(()),
        }
    }
}

/// The bit of `userIdentity`.
const IDENTITY: u32 = 9;

/// Sets a bit that was not set: a field that is there twice is an error.
fn first(seen: &mut u32, bit: u32) -> Option<()> {
    let new = *seen & (1 << bit) == 0;
    *seen |= 1 << bit;
    new.then_some(())
}

#[cfg(test)]
mod tests;
