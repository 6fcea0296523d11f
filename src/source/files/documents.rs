//! A file's text → its records: which of the known forms each document has.
//!
//! Documents are walked key by key in a bounded window; of those that could be a single record the
//! text is kept, up to a limit, and the arrays of trail files and of `lookup-events` answers, which
//! can have any length, are gone through element by element.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{
    fault::Fault,
    window::{MAX_RECORD, Window},
};
use crate::event::{
    EVENT_SOURCE,
    split::{self, Elements, Records, Step, ValueEnd},
};

/// Arrays within arrays are read to this depth; no tool writes even one.
const MAX_LEVEL: usize = 4;
/// The longest key that is looked at: any of those that tell, with every letter escaped.
const MAX_KEY: usize = 96;

/// What becomes of what is found.
pub(super) trait Found {
    /// That many records more were read.
    fn records(&mut self, count: u64);
    /// A record of ECR.
    fn ecr(&mut self, index: u64, text: &[u8]);
    /// A document that is known and no record.
    fn skipped(&mut self);
    /// An `EventBridge` event that carries no record.
    fn notice(&mut self, index: u64, text: &[u8]);
    /// Something that could not be read; what follows it is read.
    fn fault(&mut self, index: Option<u64>, fault: Fault);
}

/// Reads all documents of one file.
pub(super) struct Documents<'w, 'f, F> {
    window: &'w mut Window<'f>,
    found: &'w mut F,
    /// Records so far.
    index: u64,
}

/// What a document turned out to be, by its keys.
#[derive(Default)]
struct Keys {
    /// `eventSource`, `eventName` and the like.
    of_record: u32,
    of_digest: u32,
    /// Where the values stand.
    detail_type: Option<(usize, usize)>,
    detail: Option<(usize, usize)>,
    trail_event: Option<(usize, usize)>,
    /// What `lookup-events` says of that one's source.
    trail_source: Option<(usize, usize)>,
    /// `Records` or `Events`, which have been read.
    container: bool,
}

impl<'w, 'f, F: Found> Documents<'w, 'f, F> {
    pub(super) fn new(window: &'w mut Window<'f>, found: &'w mut F) -> Self {
        Self {
            window,
            found,
            index: 0,
        }
    }

    /// Reads on to the end, or to the first fault that leaves the rest without a meaning.
    pub(super) fn read(mut self) {
        let result = self.documents();
        // Where the text broke off, what broke it off is the reason.
        let fault = match (self.window.fault(), result) {
            (None, Ok(())) => return,
            (Some(fault), Ok(()) | Err(Fault::CutOff | Fault::Empty)) | (_, Err(fault)) => fault,
        };
        let index = (self.index > 0 && fault.is_of_record()).then_some(self.index);
        self.found.fault(index, fault);
    }

    fn documents(&mut self) -> Result<(), Fault> {
        self.byte_order_mark();
        let mut any = false;
        loop {
            let at = self.blank(0);
            self.window.consume(at);
            match self.peek(0) {
                Err(_) if any => return Ok(()),
                Err(_) => return Err(Fault::Empty),
                Ok(first) => self.document(first, 0)?,
            }
            any = true;
        }
    }

    fn byte_order_mark(&mut self) {
        if self.peek(2).is_ok() && self.window.text().starts_with(b"\xef\xbb\xbf") {
            self.window.consume(3);
        }
    }

    /// One that begins with this byte at the window's begin, which it leaves behind itself.
    fn document(&mut self, first: u8, level: usize) -> Result<(), Fault> {
        match first {
            b'{' => self.object(level),
            b'[' => {
                self.window.consume(1);
                self.array(level)
            }
            _ if level > 0 => {
                let end = self.value_end(0, first)?;
                self.window.consume(end);
                self.found.fault(Some(self.index), Fault::NotCloudTrail);
                self.index += 1;
                Ok(())
            }
            _ => Err(Fault::NotCloudTrail),
        }
    }

    /// The elements behind an opening bracket.
    fn array(&mut self, level: usize) -> Result<(), Fault> {
        if level >= MAX_LEVEL {
            return Err(Fault::NotCloudTrail);
        }
        let mut first = true;
        loop {
            let at = self.blank(0);
            let byte = self.peek(at)?;
            match byte {
                b']' if first => {
                    self.window.consume(at + 1);
                    return Ok(());
                }
                _ => self.window.consume(at),
            }
            self.document(byte, level + 1)?;
            let at = self.blank(0);
            let byte = self.peek(at)?;
            self.window.consume(at + 1);
            match byte {
                b',' => first = false,
                b']' => return Ok(()),
                _ => return Err(Fault::NotJson),
            }
        }
    }

    fn object(&mut self, level: usize) -> Result<(), Fault> {
        let mut keys = Keys::default();
        // The object's text is kept from the window's begin on, unless it turns out a container
        // or too long.
        let mut kept = true;
        let mut at = self.blank(1);
        if self.peek(at)? == b'}' {
            at += 1;
        } else {
            loop {
                if self.peek(at)? != b'"' {
                    return Err(Fault::NotJson);
                }
                let key = at;
                at = self.value_end(at, b'"')?;
                let name = Name::of(self.window.text().get(key + 1..at - 1));
                at = self.blank(at);
                if self.peek(at)? != b':' {
                    return Err(Fault::NotJson);
                }
                at = self.blank(at + 1);
                let first = self.peek(at)?;
                if first == b'[' && matches!(name, Name::Records | Name::Events) {
                    self.window.consume(at + 1);
                    keys.container = true;
                    kept = false;
                    match name {
                        Name::Records => self.records()?,
                        _ => self.array(level)?,
                    }
                    at = 0;
                } else {
                    let begin = at;
                    at = self.kept_value_end(at, first, &mut kept)?;
                    keys.add(name, begin, at);
                }
                at = self.blank(at);
                let byte = self.peek(at)?;
                at += 1;
                match byte {
                    b',' => at = self.blank(at),
                    b'}' => break,
                    _ => return Err(Fault::NotJson),
                }
                if !kept {
                    self.window.consume(at);
                    at = 0;
                }
            }
        }
        if !keys.container {
            // By its length, not by how much of it happened to be in view.
            if kept && at <= MAX_RECORD {
                self.classified(&keys, at);
            } else {
                self.found.fault(Some(self.index), Fault::TooLong);
                self.found.records(1);
                self.index += 1;
            }
        }
        self.window.consume(at);
        Ok(())
    }

    /// An object of this length at the window's begin that is not a container.
    fn classified(&mut self, keys: &Keys, length: usize) {
        let text = self.window.text();
        let part = |span: Option<(usize, usize)>| span.and_then(|(from, to)| text.get(from..to));
        let string = |span| serde_json::from_slice::<Cow<'_, str>>(part(span)?).ok();
        let record: Option<Cow<'_, [u8]>> = if let Some(kind) = string(keys.detail_type) {
            if !kind.ends_with(" via CloudTrail") {
                let event = text.get(..length).unwrap_or_default();
                return self.found.notice(self.index, event);
            }
            part(keys.detail).map(Cow::Borrowed)
        } else if keys.trail_event.is_some() {
            string(keys.trail_event).map(|text| Cow::Owned(text.into_owned().into_bytes()))
        } else if keys.of_record >= 2 {
            text.get(..length).map(Cow::Borrowed)
        } else if keys.of_digest >= 2 {
            return self.found.skipped();
        } else {
            None
        };
        let Some(record) = record.filter(|record| record.trim_ascii_start().starts_with(b"{"))
        else {
            self.found.fault(Some(self.index), Fault::NotCloudTrail);
            self.index += 1;
            return;
        };
        self.found.records(1);
        // A record within a text may be damaged where its document is not.
        let stated = string(keys.trail_source).is_some_and(|source| source == EVENT_SOURCE);
        if stated || split::is_ecr(&record) {
            self.found.ecr(self.index, &record);
        } else if keys.trail_event.is_some()
            && serde_json::from_slice::<IgnoredAny>(&record).is_err()
        {
            self.found.fault(Some(self.index), Fault::NotJson);
        }
        self.index += 1;
    }

    /// The elements of a `Records` array.
    fn records(&mut self) -> Result<(), Fault> {
        let mut records = Records::new(MAX_RECORD);
        let begin = self.index;
        loop {
            let counted = records.count();
            let mut elements = OfTrail {
                found: self.found,
                begin,
            };
            let step = records.run(self.window.text(), &mut elements);
            self.found.records(records.count() - counted);
            self.index = begin + records.count();
            match step {
                Step::More(position) => self.window.consume(position),
                Step::End(position) => {
                    self.window.consume(position);
                    return Ok(());
                }
                Step::Other(position) => {
                    self.window.consume(position);
                    let first = self.peek(0)?;
                    let end = self.value_end(0, first)?;
                    self.window.consume(end);
                    self.found.fault(Some(self.index), Fault::NotCloudTrail);
                    records.pass_over();
                    continue;
                }
                Step::Malformed => return Err(Fault::NotJson),
                Step::Strange => return Err(Fault::NotCloudTrail),
            }
            if !self.window.more() {
                return Err(Fault::CutOff);
            }
        }
    }

    /// The byte there.
    fn peek(&mut self, at: usize) -> Result<u8, Fault> {
        loop {
            if let Some(byte) = self.window.text().get(at) {
                return Ok(*byte);
            }
            if !self.window.more() {
                return Err(Fault::CutOff);
            }
        }
    }

    /// The first position from `at` on that holds no blank; whether there is a byte, `peek` says.
    fn blank(&mut self, mut at: usize) -> usize {
        // Blanks without end must not fill the window: then the last one is what is found.
        while at < MAX_RECORD && matches!(self.peek(at), Ok(b' ' | b'\t' | b'\n' | b'\r')) {
            at += 1;
        }
        at
    }

    /// The position behind the value at `at`, within the window.
    fn value_end(&mut self, at: usize, first: u8) -> Result<usize, Fault> {
        let mut kept = true;
        let end = self.kept_value_end(at, first, &mut kept)?;
        if kept && end - at <= MAX_RECORD {
            Ok(end)
        } else {
            Err(Fault::TooLong)
        }
    }

    /// The same; where the window would grow too long, its text is let go.
    fn kept_value_end(
        &mut self,
        mut at: usize,
        first: u8,
        kept: &mut bool,
    ) -> Result<usize, Fault> {
        let (mut end, skipped) = ValueEnd::new(first);
        let mut length = skipped;
        at += skipped;
        loop {
            let rest = self.window.text().get(at..).unwrap_or_default();
            if let Some(found) = end.find(rest) {
                // A value that has no byte is none.
                return if length + found == 0 {
                    Err(Fault::NotJson)
                } else {
                    Ok(at + found)
                };
            }
            at += rest.len();
            length += rest.len();
            if at >= MAX_RECORD {
                *kept = false;
            }
            if !*kept {
                self.window.consume(at);
                at = 0;
            }
            if !self.window.more() {
                return Err(Fault::CutOff);
            }
        }
    }
}

/// The elements of a trail file, on their way to the caller.
struct OfTrail<'w, F> {
    found: &'w mut F,
    begin: u64,
}

impl<F: Found> Elements for OfTrail<'_, F> {
    /// S3's own notifications have `Records` with an `eventSource`, too: `aws:s3`.
    fn first(&mut self, text: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Element<'a> {
            #[serde(borrow, rename = "eventSource")]
            source: Option<&'a RawValue>,
            #[serde(borrow, rename = "eventName")]
            name: Option<&'a RawValue>,
            #[serde(borrow, rename = "eventID")]
            id: Option<&'a RawValue>,
        }
        match serde_json::from_slice::<Element<'_>>(text) {
            Ok(element) => {
                let source = element.source.map_or("", RawValue::get);
                let keys = [element.source, element.name, element.id];
                !source.starts_with("\"aws:") && keys.iter().flatten().count() >= 2
            }
            // One broken record says nothing of the others.
            Err(_) => true,
        }
    }
    fn ecr(&mut self, index: u64, text: &[u8]) {
        self.found.ecr(self.begin + index, text);
    }
    fn too_long(&mut self, index: u64) {
        self.found.fault(Some(self.begin + index), Fault::TooLong);
    }
}

/// A key that tells what its object is.
#[derive(Clone, Copy)]
enum Name {
    Records,
    Events,
    OfRecord,
    OfDigest,
    DetailType,
    Detail,
    TrailEvent,
    TrailSource,
    Other,
}

impl Name {
    /// By what stands between the quotes.
    fn of(key: Option<&[u8]>) -> Self {
        let Some(key) = key.filter(|key| key.len() <= MAX_KEY) else {
            return Self::Other;
        };
        if memchr::memchr(b'\\', key).is_none() {
            return Self::spelled(key);
        }
        serde_json::from_slice::<String>(&[b"\"", key, b"\""].concat())
            .map_or(Self::Other, |key| Self::spelled(key.as_bytes()))
    }

    fn spelled(key: &[u8]) -> Self {
        match key {
            b"Records" => Self::Records,
            b"Events" => Self::Events,
            b"eventSource" | b"eventName" | b"eventTime" | b"eventID" | b"eventVersion" => {
                Self::OfRecord
            }
            b"digestStartTime" | b"digestEndTime" | b"digestS3Bucket" | b"logFiles" => {
                Self::OfDigest
            }
            b"detail-type" => Self::DetailType,
            b"detail" => Self::Detail,
            b"CloudTrailEvent" => Self::TrailEvent,
            b"EventSource" => Self::TrailSource,
            _ => Self::Other,
        }
    }
}

impl Keys {
    fn add(&mut self, name: Name, begin: usize, end: usize) {
        let place = Some((begin, end));
        match name {
            Name::OfRecord => self.of_record += 1,
            Name::OfDigest => self.of_digest += 1,
            Name::DetailType => self.detail_type = place,
            Name::Detail => self.detail = place,
            Name::TrailEvent => self.trail_event = place,
            Name::TrailSource => self.trail_source = place,
            Name::Records | Name::Events | Name::Other => {}
        }
    }
}
