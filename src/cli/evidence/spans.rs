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
    pub(super) fn add(&mut self, account: &Arc<str>, region: &Arc<str>, time: Timestamp) {
        let number = match &self.current {
            Some((a, r, number)) if a == account && r == region => *number,
            _ => {
                let place = (account.clone(), region.clone());
                let number = *self.numbers.entry(place).or_insert(self.by_number.len());
                self.current = Some((account.clone(), region.clone(), number));
                number
            }
        };
        if let Some(span) = self.by_number.get_mut(number) {
            span.first = span.first.min(time);
            span.last = span.last.max(time);
            span.records += 1;
        } else {
            self.by_number.push(Span {
                first: time,
                last: time,
                records: 1,
            });
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
