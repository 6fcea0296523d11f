//! A record's own members, read without looking into what is not asked for.
//!
//! Most of a record is texts and objects that nobody reads, and most records are written in one
//! way: valid, without blanks, no field twice. So the quotes are found first, 64 bytes at a time,
//! and the values between them are walked from quote to quote. Every byte is checked: what is
//! skimmed is what a full parse would read. Whatever is written otherwise, or is not valid, is
//! left to that ([`skim`] gives nothing).

mod quotes;

use std::borrow::Cow;

use super::wire::Record;
use quotes::Found;
pub(super) use quotes::Quotes;

/// Objects and arrays within each other are walked to this depth.
const MAX_DEPTH: u32 = 32;

/// A record's members, if it is written as most are.
pub(super) fn skim<'a>(text: &'a str, quotes: &mut Quotes) -> Option<Record<'a>> {
    let Found { places, escapes } = quotes.find(text.as_bytes())?;
    let mut walk = Walk {
        text: text.as_bytes(),
        places,
    };
    let mut members = Members {
        text,
        escapes,
        seen: 0,
        record: Record::default(),
    };
    let mut at = 0;
    walk.expect(at, b'{')?;
    loop {
        let key = at + 1;
        at = walk.string(key)?;
        walk.expect(at, b':')?;
        let value = at + 1;
        at = walk.value(value, MAX_DEPTH)?;
        members.add(key..value - 1, value..at)?;
        match text.as_bytes().get(at)? {
            b',' => {}
            b'}' if at + 1 == text.len() => return Some(members.record),
            _ => return None,
        }
    }
}

/// The position in a valid text, which every step moves behind what it has checked; it gives
/// nothing where that is not what it expects.
struct Walk<'t, 'q> {
    text: &'t [u8],
    /// The quotes at and behind the position.
    places: &'q [u32],
}

impl Walk<'_, '_> {
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
            b'{' => self.object(at + 1, depth.checked_sub(1)?),
            b'[' => self.array(at + 1, depth.checked_sub(1)?),
            b't' => self.word(at, b"true"),
            b'f' => self.word(at, b"false"),
            b'n' => self.word(at, b"null"),
            b'-' => self.number(at + 1),
            _ => self.number(at),
        }
    }

    /// Behind the opening bracket.
    fn object(&mut self, mut at: usize, depth: u32) -> Option<usize> {
        if *self.text.get(at)? == b'}' {
            return Some(at + 1);
        }
        loop {
            at = self.string(at)?;
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
struct Members<'a> {
    text: &'a str,
    /// Whether there is a backslash anywhere.
    escapes: bool,
    /// Which fields were there, a bit for each.
    seen: u32,
    record: Record<'a>,
}

/// A place in the text.
type Span = std::ops::Range<usize>;

impl<'a> Members<'a> {
    /// Takes a member; nothing where a full parse would have more to say.
    fn add(&mut self, key: Span, value: Span) -> Option<()> {
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
        let (seen, record) = (&mut self.seen, &mut self.record);
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
            "\"userIdentity\"" => raw(seen, &mut record.user_identity, 9),
            "\"resources\"" => raw(seen, &mut record.resources, 10),
            "\"requestParameters\"" => raw(seen, &mut record.request_parameters, 11),
            "\"responseElements\"" => raw(seen, &mut record.response_elements, 12),
            "\"serviceEventDetails\"" => raw(seen, &mut record.service_event_details, 13),
            // Rare, and more than a text.
            "\"addendum\"" => None,
            // Another spelling of one of these.
            other if self.escapes && other.contains('\\') => None,
            _ => Some(()),
        }
    }
}

/// Sets a bit that was not set: a field that is there twice is an error.
fn first(seen: &mut u32, bit: u32) -> Option<()> {
    let new = *seen & (1 << bit) == 0;
    *seen |= 1 << bit;
    new.then_some(())
}

#[cfg(test)]
mod tests;
