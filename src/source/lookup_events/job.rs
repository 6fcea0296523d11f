//! One window of the Event history on its way through the pages, newest first.

use jiff::{SignedDuration, Timestamp};

use crate::event::Interval;

/// One second, the resolution of `StartTime`, `EndTime` and `eventTime`.
pub(super) const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// How late an event may come and still be found. What comes later is found by files alone.
pub(super) const LATEST: SignedDuration = SignedDuration::from_hours(24);

/// An answer without progress is allowed this often: more than 50 events can share a second.
const MOST_STANDSTILL: u32 = 2_000;

/// The beginning of the second.
pub(super) fn second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(
        time.as_second()
            .saturating_sub(i64::from(time.subsec_nanosecond() < 0)),
    )
    .unwrap_or(time)
}

/// `time - span`, no further back than time goes.
pub(super) fn before(time: Timestamp, span: SignedDuration) -> Timestamp {
    time.checked_sub(span).unwrap_or(Timestamp::MIN)
}

/// `time + span`, no further than time goes.
pub(super) fn after(time: Timestamp, span: SignedDuration) -> Timestamp {
    time.checked_add(span).unwrap_or(Timestamp::MAX)
}

/// What an answer says about time and order, whatever its events are about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// `EventTime` of each event, in the answer's order; none where the answer does not tell.
    pub times: Vec<Option<Timestamp>>,
    /// `NextToken`.
    pub token: Option<String>,
}

/// What storing a page proves to have been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Read, whole seconds only: a second that the next page may continue is not.
    pub read: Option<Interval>,
    /// The part of it whose late events had a day to arrive.
    pub settled: Option<Interval>,
}

/// Why an answer, though whole, can be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Following it would ask the same again.
    #[error("the answer's NextToken is the one that was asked with")]
    SameToken,
    /// Page after page brings nothing.
    #[error("the pages do not come to an end")]
    NoProgress,
}

/// A window on its way: everything in `[reached, end)` has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    /// Asked without `EndTime`: what is newer than `end` comes, too, and is not claimed.
    pub(super) open: bool,
    /// When the first page was asked for.
    pub(super) asked: Timestamp,
    pub(super) reached: Timestamp,
    pub(super) token: Option<String>,
    pub(super) pages: u32,
    /// Not given up to save pages.
    pub(super) must: bool,
    /// `EventTime` of the last event; what follows must not be newer.
    last: Option<Timestamp>,
    /// Whether the answers were in the promised order so far. If not, the window counts as read
    /// only at its end.
    ordered: bool,
    standstill: u32,
}

impl Job {
    pub(super) fn new(window: Interval, open: bool, asked: Timestamp) -> Self {
        Self {
            start: window.start,
            end: window.end,
            open,
            asked,
            reached: window.end,
            token: None,
            pages: 0,
            must: false,
            last: None,
            ordered: true,
            standstill: 0,
        }
    }

    /// The job after this answer, and what the answer proves; `at` is when it was asked for.
    pub(super) fn answered(
        &self,
        answer: &Answer,
        at: Timestamp,
    ) -> Result<(Self, Proof), Unusable> {
        let mut next = self.clone();
        next.pages += 1;
        next.token.clone_from(&answer.token);
        if answer.token.is_some() && answer.token == self.token {
            return Err(Unusable::SameToken);
        }
        for time in &answer.times {
            match (time, next.last) {
                (None, _) => next.ordered = false,
                (Some(time), Some(last)) if *time > last => next.ordered = false,
                (Some(_), _) => next.last = *time,
            }
        }
        let floor = match (&answer.token, next.last) {
            (None, _) => self.start,
            // The next page may bring more of the last second.
            (Some(_), Some(last)) if next.ordered => after(second(last), SECOND),
            (Some(_), _) => self.reached,
        };
        next.reached = floor.clamp(self.start, self.reached.max(self.start));
        next.standstill = if next.reached < self.reached {
            0
        } else {
            self.standstill + 1
        };
        if next.standstill > MOST_STANDSTILL {
            return Err(Unusable::NoProgress);
        }
        let span =
            |start: Timestamp, end: Timestamp| (start < end).then_some(Interval { start, end });
        let proof = Proof {
            read: span(next.reached, self.reached),
            settled: span(next.reached, self.reached.min(before(at, LATEST))),
        };
        Ok((next, proof))
    }

    /// Whether the order of the answers allows to go on from `reached` in another window.
    pub(super) const fn resumable(&self) -> bool {
        self.ordered
    }
}
