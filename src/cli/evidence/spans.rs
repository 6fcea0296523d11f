//! What was read of each registry account and region.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

/// Time span and number of the ECR records of one registry account and region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Time of the earliest event.
    pub first: Timestamp,
    /// Time of the latest event.
    pub last: Timestamp,
    /// Number of records, duplicates too.
    pub records: u64,
}

/// The spans of all accounts and regions.
#[derive(Debug, Default)]
pub(super) struct Spans {
    /// By account and region; the number is that of the span.
    numbers: BTreeMap<(Arc<str>, Arc<str>), usize>,
    by_number: Vec<Span>,
    /// The last one that was added to: a file's records are all of one.
    current: Option<(Arc<str>, Arc<str>, usize)>,
}

impl Spans {
    pub(super) fn add(&mut self, account: &str, region: &str, time: Timestamp) {
        let one = Span {
            first: time,
            last: time,
            records: 1,
        };
        self.join(account, region, one);
    }

    /// Adds those of another.
    pub(super) fn merge(&mut self, other: &Self) {
        for (account, region, span) in other.iter() {
            self.join(account, region, span.clone());
        }
    }

    fn join(&mut self, account: &str, region: &str, more: Span) {
        let number = match &self.current {
            Some((a, r, number)) if **a == *account && **r == *region => *number,
            _ => {
                let place: (Arc<str>, Arc<str>) = (account.into(), region.into());
                let next = self.by_number.len();
                let number = *self.numbers.entry(place.clone()).or_insert(next);
                self.current = Some((place.0, place.1, number));
                number
            }
        };
        if let Some(span) = self.by_number.get_mut(number) {
            span.first = span.first.min(more.first);
            span.last = span.last.max(more.last);
            span.records += more.records;
        } else {
            self.by_number.push(more);
        }
    }

    /// Sorted by account and region.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, &Span)> {
        self.numbers
            .iter()
            .filter_map(|((account, region), number)| {
                Some((&**account, &**region, self.by_number.get(*number)?))
            })
    }
}
