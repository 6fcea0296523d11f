//! How far somebody has read a table whose rows are numbered.
//!
//! Numbers are given before their transactions commit, so on a server that several processes write
//! to they become visible out of order: a [`Cursor`] remembers the numbers that it has passed
//! without seeing them, for as long as a transaction can take, and looks for them again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::Backend;

/// No transaction lasts longer: a number that has not been seen by then was given back.
const LONGEST: Duration = Duration::from_mins(10);

/// Most numbers that are looked for again.
const MOST: i64 = 10_000;

/// How far somebody has read rows that are numbered in the order in which they are added, more or
/// less.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    last: i64,
    /// Numbers before the last that were not there, and since when they are missed.
    missing: BTreeMap<i64, Instant>,
}

impl Cursor {
    /// Rows with numbers above this are to be read.
    pub(super) fn floor(&mut self, now: Instant) -> i64 {
        self.missing
            .retain(|_, since| now.duration_since(*since) < LONGEST);
        self.missing
            .first_key_value()
            .map_or(self.last, |(first, _)| first - 1)
    }

    /// Takes note of a row; whether it is new. In the order of the numbers.
    pub(super) fn see(&mut self, id: i64, now: Instant) -> bool {
        if id <= self.last {
            return self.missing.remove(&id).is_some();
        }
        let first = (self.last + 1).max(id - MOST);
        self.missing.extend((first..id).map(|id| (id, now)));
        self.last = id;
        while self.missing.len() > usize::try_from(MOST).unwrap_or(usize::MAX) {
            self.missing.pop_first();
        }
        true
    }

    /// Where one process writes at a time, numbers do not become visible later.
    pub(super) fn settle(&mut self, backend: Backend) {
        if backend == Backend::Sqlite {
            self.missing.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(cursor: &mut Cursor, visible: &[i64], now: Instant) -> Vec<i64> {
        let floor = cursor.floor(now);
        let rows = visible.iter().copied().filter(|id| *id > floor);
        rows.filter(|id| cursor.see(*id, now)).collect()
    }

    #[test]
    fn a_number_that_becomes_visible_late_is_seen_once() {
        let now = Instant::now();
        let mut cursor = Cursor::default();
        assert_eq!(look(&mut cursor, &[1, 2, 5], now), [1, 2, 5]);
        assert_eq!(look(&mut cursor, &[1, 2, 5, 6], now), [6]);
        assert_eq!(look(&mut cursor, &[1, 2, 4, 5, 6], now), [4]);
        assert_eq!(look(&mut cursor, &[1, 2, 3, 4, 5, 6, 7], now), [3, 7]);
        assert!(look(&mut cursor, &[1, 2, 3, 4, 5, 6, 7], now).is_empty());
        assert_eq!(cursor.floor(now), 7);
    }

    #[test]
    fn a_number_that_nobody_has_is_not_looked_for_for_ever() {
        let now = Instant::now();
        let mut cursor = Cursor::default();
        look(&mut cursor, &[1, 3], now);
        assert_eq!(cursor.floor(now), 1);
        assert_eq!(cursor.floor(now + LONGEST), 3);
    }

    #[test]
    fn however_many_are_missing_few_are_remembered() {
        let now = Instant::now();
        let mut cursor = Cursor::default();
        look(&mut cursor, &[1, 1_000_000, 2_000_000], now);
        assert_eq!(cursor.missing.len(), 10_000);
        assert!(cursor.floor(now) >= 2_000_000 - MOST - 1);
    }
}
