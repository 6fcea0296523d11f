//! Sets of time intervals: what was really read, and what was not.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A half-open span of event time: `start` belongs to it, `end` does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Interval {
    /// First instant inside.
    pub start: Timestamp,
    /// First instant after.
    pub end: Timestamp,
}

/// A set of instants, kept as disjoint, non-touching, non-empty intervals in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intervals(Vec<Interval>);

impl Intervals {
    /// The intervals, ascending and disjoint.
    #[must_use]
    pub fn as_slice(&self) -> &[Interval] {
        &self.0
    }

    /// Adds an interval; touching ones become one. Empty or reversed ones add nothing.
    pub fn insert(&mut self, added: Interval) {
        if added.start >= added.end {
            return;
        }
        let from = self.0.partition_point(|have| have.end < added.start);
        let to = self.0.partition_point(|have| have.start <= added.end);
        let mut merged = added;
        if from < to {
            merged.start = merged.start.min(self.0[from].start);
            merged.end = merged.end.max(self.0[to - 1].end);
        }
        self.0.splice(from..to, [merged]);
    }

    /// Takes an interval out.
    pub fn remove(&mut self, removed: Interval) {
        if removed.start >= removed.end {
            return;
        }
        let mut left = Vec::with_capacity(self.0.len() + 1);
        for have in self.0.drain(..) {
            let before = Interval {
                start: have.start,
                end: have.end.min(removed.start),
            };
            let after = Interval {
                start: have.start.max(removed.end),
                end: have.end,
            };
            left.extend(
                [before, after]
                    .into_iter()
                    .filter(|part| part.start < part.end),
            );
        }
        self.0 = left;
    }

    /// The parts of `within` that the set lacks, ascending.
    #[must_use]
    pub fn gaps(&self, within: Interval) -> Vec<Interval> {
        let mut gaps = Self(vec![]);
        gaps.insert(within);
        for have in &self.0 {
            gaps.remove(*have);
        }
        gaps.0
    }

    /// Whether the set holds every instant of `span`.
    #[must_use]
    pub fn covers(&self, span: Interval) -> bool {
        self.gaps(span).is_empty()
    }

    /// The instants that both sets hold.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for a in &self.0 {
            for b in &other.0 {
                both.insert(Interval {
                    start: a.start.max(b.start),
                    end: a.end.min(b.end),
                });
            }
        }
        both
    }
}

impl FromIterator<Interval> for Intervals {
    fn from_iter<T: IntoIterator<Item = Interval>>(intervals: T) -> Self {
        let mut set = Self::default();
        for interval in intervals {
            set.insert(interval);
        }
        set
    }
}
