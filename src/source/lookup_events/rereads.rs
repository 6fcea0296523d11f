//! When which part of what has been read is to be read again, for events that came late.
//!
//! Time is cut into slots of fifteen minutes, and each remembers when it was read last. A slot is
//! done with once it was read a day after its end. Where the pages that the day may cost do not
//! allow everything, those come first whose last reading is longest ago for their age: late events
//! are the rarer the later they are.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::job::{LATEST, after, before};
use crate::event::{Interval, Intervals};

/// Length of a slot, in seconds.
const SLOT: i64 = 900;

/// How long spans that have had their day are gathered in a frugal time.
const FINAL: SignedDuration = SignedDuration::from_hours(3);

/// The polls read this much again each time.
pub(super) const SETTLING: SignedDuration = SignedDuration::from_mins(15);

/// When each slot was read last, since the start of this process.
#[derive(Clone, Debug, Default)]
pub(super) struct Rereads {
    verified: BTreeMap<i64, Timestamp>,
}

fn slot_start(slot: i64) -> Timestamp {
    Timestamp::from_second(slot.saturating_mul(SLOT)).unwrap_or(Timestamp::MAX)
}

fn slot_of(time: Timestamp) -> i64 {
    time.as_second().div_euclid(SLOT)
}

impl Rereads {
    /// A span was read at `at`.
    pub(super) fn read(&mut self, span: Interval, at: Timestamp) {
        let mut slot = slot_of(span.start);
        if slot_start(slot) < span.start {
            slot += 1;
        }
        // Only what may be read again is remembered.
        slot = slot.max(slot_of(before(at, LATEST)) - 8);
        while slot_start(slot + 1) <= span.end {
            let verified = self.verified.entry(slot).or_insert(at);
            *verified = at.max(*verified);
            slot += 1;
        }
    }

    /// What is to be read again of `unsettled`: the best use of a request, and how good that is.
    /// `polled_since` is since when the polls have been reading the settling window without a
    /// break; with `frugal`, only what has grown old since, or has had its day.
    pub(super) fn due(
        &self,
        unsettled: &Intervals,
        period: SignedDuration,
        polled_since: Option<Timestamp>,
        frugal: bool,
        now: Timestamp,
    ) -> Option<(f64, Interval)> {
        let settling = before(now, SETTLING);
        let mut slots: Vec<i64> = Vec::new();
        for span in unsettled.as_slice() {
            let (first, last) = (slot_of(span.start), slot_of(span.end.min(settling)));
            // The slot of `last` has not ended, or the span ends at its very beginning.
            let from = slots.last().map_or(first, |last| first.max(last + 1));
            slots.extend(from..last);
            let ended = slot_start(last + 1) <= settling;
            if ended && last >= from && span.end > slot_start(last) {
                slots.push(last);
            }
        }
        let waited = |slot: i64| -> Option<SignedDuration> {
            let end = slot_start(slot + 1);
            let by_polls = polled_since
                .filter(|since| *since <= slot_start(slot))
                .map(|_| after(end, SETTLING));
            let verified = self.verified.get(&slot).copied().max(by_polls);
            match verified {
                None => Some(SignedDuration::MAX),
                // The clock went back.
                Some(verified) if verified > after(now, period) => Some(period),
                Some(verified) => {
                    let waited = now.duration_since(verified);
                    (waited >= period).then_some(waited)
                }
            }
        };
        // In a frugal time a slot is worth a window when it is four times as old as it was, or has had
        // its day for some hours; one beside it goes along when it is two and a half times as old, or
        // has had its day.
        let due = |slot: i64, beside: bool| {
            let waited = waited(slot)?;
            let age = now.duration_since(slot_start(slot + 1));
            let (aged, had_its_day) = if beside {
                (age / 5 * 3, LATEST)
            } else {
                (age / 4 * 3, LATEST + FINAL)
            };
            (!frugal || waited >= aged || age >= had_its_day).then_some(waited)
        };
        let mut best: Option<(f64, usize)> = None;
        for (index, slot) in slots.iter().enumerate() {
            let Some(waited) = due(*slot, false) else {
                continue;
            };
            let age = now
                .duration_since(slot_start(*slot))
                .max(SignedDuration::from_secs(SLOT));
            let score = waited.as_secs_f64() / age.as_secs_f64();
            // The younger one where two are equal: it comes later in the list.
            if best.is_none_or(|(best, _)| score >= best) {
                best = Some((score, index));
            }
        }
        let (score, found) = best?;
        let joins = |slot: usize, beside: usize| {
            slots[slot].abs_diff(slots[beside]) == 1 && due(slots[slot], true).is_some()
        };
        let (mut oldest, mut youngest) = (found, found);
        while oldest > 0 && joins(oldest - 1, oldest) {
            oldest -= 1;
        }
        while youngest + 1 < slots.len() && joins(youngest + 1, youngest) {
            youngest += 1;
        }
        let window = Interval {
            start: slot_start(slots[oldest]),
            end: slot_start(slots[youngest] + 1),
        };
        Some((score, window))
    }

    /// Whether a slot ends within the span, so that stopping there loses nothing.
    pub(super) fn ends_within(span: Interval) -> bool {
        slot_of(before(span.end, super::job::SECOND)) != slot_of(span.start)
            || slot_start(slot_of(span.start)) == span.start
    }

    /// Forgets what is done with.
    pub(super) fn forget(&mut self, settled: &Intervals, now: Timestamp) {
        let day = slot_of(before(now, LATEST));
        self.verified.retain(|slot, _| {
            *slot >= day
                || !settled.covers(Interval {
                    start: slot_start(*slot),
                    end: slot_start(*slot + 1),
                })
        });
    }
}
