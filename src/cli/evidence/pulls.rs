//! The pulls of one repository, the bulk of what is kept: 48 bytes each.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;

use super::settle::{self, Replaced};
use crate::event::{Caller, ImageId, Pull};

/// A pull as it is added; `caller` and `images` are numbers of interned values.
pub(super) struct NewPull<'a> {
    pub(super) id: &'a str,
    pub(super) shared_id: Option<&'a str>,
    /// It came again under its own id, corrected.
    pub(super) corrected: bool,
    pub(super) time: Timestamp,
    pub(super) caller: u32,
    pub(super) images: u32,
    pub(super) denied: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    id: Id,
    /// 0, or the number of the `sharedEventID` in `Pulls::shared`, from 1.
    shared: u32,
    caller: u32,
    images: u32,
    time: i64,
    corrected: bool,
    denied: bool,
}

/// An `eventID`: UUIDs, which all are, without their text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    bytes: [u8; 16],
    /// Not a UUID: `bytes` begins with the number of the text in `Pulls::texts`.
    text: bool,
}

/// The pulls of one repository.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    rows: Vec<Row>,
    texts: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Pulls {
    pub(super) fn add(&mut self, new: &NewPull<'_>) {
        let shared = new.shared_id.map_or(0, |shared| self.number(shared) + 1);
        let row = Row {
            id: self.id(new.id),
            shared,
            caller: new.caller,
            images: new.images,
            time: new.time.as_second(),
            corrected: new.corrected,
            denied: new.denied,
        };
        if self.rows.len() == self.rows.capacity() {
            // Rather than to grow for records that came twice, leave those out.
            self.rows.sort_unstable();
            self.rows.dedup();
            if self.rows.len() > self.rows.capacity() / 2 {
                self.rows.reserve(self.rows.len() / 2 + 4);
            }
        }
        self.rows.push(row);
    }

    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX - 1);
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.numbers.insert(text, number);
        number
    }

    fn id(&mut self, text: &str) -> Id {
        parse_uuid(text).map_or_else(
            || {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&self.number(text).to_be_bytes());
                Id { bytes, text: true }
            },
            |bytes| Id { bytes, text: false },
        )
    }

    fn text(&self, id: Id) -> Arc<str> {
        if id.text {
            let [a, b, c, d, ..] = id.bytes;
            let number = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            return self.texts.get(number).cloned().unwrap_or_default();
        }
        format_uuid(id.bytes).into()
    }

    /// Each call once, sorted by time and `eventID`.
    pub(super) fn settled(
        &self,
        callers: &[Arc<Caller>],
        images: &[Arc<[ImageId]>],
        replaced: &Replaced<'_>,
    ) -> Vec<Pull> {
        struct Settling<'a> {
            pull: Pull,
            shared: Option<&'a str>,
            corrected: bool,
        }
        let mut rows: Vec<Row> = self.rows.clone();
        rows.sort_unstable();
        rows.dedup();
        let mut pulls: Vec<Settling<'_>> = Vec::with_capacity(rows.len());
        for row in rows {
            let id = self.text(row.id);
            let (Some(caller), Some(images), Ok(time)) = (
                usize::try_from(row.caller)
                    .ok()
                    .and_then(|n| callers.get(n)),
                usize::try_from(row.images).ok().and_then(|n| images.get(n)),
                Timestamp::from_second(row.time),
            ) else {
                continue;
            };
            if replaced.holds(&id, row.corrected) {
                continue;
            }
            let new = Settling {
                pull: Pull {
                    id,
                    time,
                    images: images.clone(),
                    caller: caller.clone(),
                    denied: row.denied,
                },
                shared: self.shared(row.shared),
                corrected: row.corrected,
            };
            // Numbers differ with the order of arrival, so values are compared.
            let rank = |settling: &Settling<'_>| {
                let pull = &settling.pull;
                (
                    settling.corrected,
                    pull.time,
                    pull.denied,
                    pull.caller.clone(),
                    pull.images.clone(),
                    settling.shared.map(ToOwned::to_owned),
                )
            };
            match pulls.last_mut() {
                Some(last) if last.pull.id == new.pull.id => {
                    if rank(&new) > rank(last) {
                        *last = new;
                    }
                }
                _ => pulls.push(new),
            }
        }
        let pulls = settle::one_copy_each(pulls, |settling| settle::Copy {
            shared_id: settling.shared,
            key: &settling.pull.caller.principal.key,
            id: &settling.pull.id,
            is_pull: true,
        });
        let mut pulls: Vec<Pull> = pulls.into_iter().map(|settling| settling.pull).collect();
        pulls.sort_unstable_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
        pulls
    }

    fn shared(&self, number: u32) -> Option<&str> {
        let number = usize::try_from(number.checked_sub(1)?).ok()?;
        self.texts.get(number).map(|text| &**text)
    }
}

/// The bytes of a UUID in its lower-case form, 8-4-4-4-12; none for any other text, so that the
/// text can be written again as it was.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let text = text.as_bytes();
    if text.len() != 36 {
        return None;
    }
    let mut bytes = [0; 16];
    let mut at = 0;
    for (n, byte) in bytes.iter_mut().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            if text[at] != b'-' {
                return None;
            }
            at += 1;
        }
        *byte = nibble(text[at])? << 4 | nibble(text[at + 1])?;
        at += 2;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn format_uuid(bytes: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (n, byte) in bytes.iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for half in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_at_most_forty_eight_bytes() {
        assert!(size_of::<Row>() <= 48, "{}", size_of::<Row>());
    }

    #[test]
    fn an_event_id_is_written_as_it_was_read() {
        let mut pulls = Pulls::default();
        for text in [
            "b2c3b1fc-6f4a-4f4e-9b0e-2f3a4b5c6d7e",
            "B2C3B1FC-6F4A-4F4E-9B0E-2F3A4B5C6D7E",
            "b2c3b1fc6f4a4f4e9b0e2f3a4b5c6d7e----",
            "not-a-uuid",
            "é2c3b1fc-6f4a-4f4e-9b0e-2f3a4b5c6d7",
        ] {
            let id = pulls.id(text);
            assert_eq!(&*pulls.text(id), text);
        }
    }
}
