//! How records begin: the same session calls again and again, and all of its records name it by the
//! same seven hundred bytes, before anything that differs. What begins as another record did, byte
//! for byte, need not be walked again up to there.

use std::ops::Range;

use super::super::lately::place;

/// Openings that are remembered.
const SLOTS: usize = 256;
/// The longest of them.
const MAX_LENGTH: usize = 2048;
/// The bytes that tell one from the other most often: of the principal's id, and its session. Two
/// that have the same here take the place of each other.
const TELLING: Range<usize> = 64..128;

/// A record's text up to the end of its `userIdentity`, as it was found valid once.
#[derive(Debug)]
pub(super) struct Opening {
    text: Box<str>,
    identity: Range<usize>,
}

impl Opening {
    pub(super) fn length(&self) -> usize {
        self.text.len()
    }

    /// Where the identity's value is.
    pub(super) fn identity(&self) -> Range<usize> {
        self.identity.clone()
    }
}

/// The openings that were seen lately, and a value for each.
#[derive(Debug)]
pub(super) struct Openings<T> {
    slots: Vec<Option<(Opening, Option<T>)>>,
    /// What stood last where an opening tells itself, for each slot: only what comes again is worth
    /// to be remembered.
    met: Vec<usize>,
}

impl<T> Default for Openings<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            met: Vec::new(),
        }
    }
}

impl<T> Openings<T> {
    /// The one that a record begins with, and its number.
    pub(super) fn find(&self, text: &str) -> Option<(usize, &Opening)> {
        let number = place(telling(text)?) % SLOTS;
        let (opening, _) = self.slots.get(number)?.as_ref()?;
        let begins = text.as_bytes().starts_with(opening.text.as_bytes());
        begins.then_some((number, opening))
    }

    /// Remembers how a valid record begins that has no escapes there, and nothing that is read but
    /// its identity; gives its number, or nothing if it does not fit.
    pub(super) fn add(&mut self, text: &str, identity: Range<usize>) -> Option<usize> {
        if identity.end < TELLING.end || identity.end > MAX_LENGTH {
            return None;
        }
        let place = place(telling(text)?);
        let number = place % SLOTS;
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, || None);
            self.met.resize(SLOTS, usize::MAX);
        }
        let met = self.met.get_mut(number)?;
        if std::mem::replace(met, place) != place {
            return None;
        }
        let opening = Opening {
            text: text.get(..identity.end)?.into(),
            identity,
        };
        *self.slots.get_mut(number)? = Some((opening, None));
        Some(number)
    }

    /// The value of an opening that is remembered.
    pub(super) fn value(&mut self, number: usize) -> Option<&mut Option<T>> {
        let (_, value) = self.slots.get_mut(number)?.as_mut()?;
        Some(value)
    }
}

fn telling(text: &str) -> Option<&[u8]> {
    text.as_bytes().get(TELLING)
}
