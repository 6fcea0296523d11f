//! What to ask CloudTrail's Event history for next, and what an answer proves. No I/O, no clock.
//!
//! `LookupEvents` lists newest first, 50 events a page, and knows no order of arrival: whoever
//! wants to see what came late has to read again what came in time. Three kinds of reading share
//! the requests, in this order:
//!
//! - A **poll** of each event name, once a period: from now back to 15 minutes before the poll
//!   before. So what becomes visible within 15 minutes is seen one period later, at the latest.
//!   While 15 minutes hold no more than 50 events, that is a single page, the least there is.
//! - A **reread** of the last 24 hours for what came later; see [`super::rereads`]. Its pages come
//!   from what the polls leave of twice the pages that a perfect reader needs; where these do not
//!   suffice, each span is still read again when it is four times as old as it was, and a day after it.
//! - The **back-fill** of what was never read: the last day first, then the rest of the history,
//!   of each name the newest first, and removals before pulls.
//!
//! Where the polls alone fill the quota, one request in five still goes to the others.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    job::{Answer, Job, LATEST, Proof, SECOND, Unusable, after, before, second},
    rereads::{Rereads, SETTLING},
};
use crate::{
    event::{EventName, Interval, Intervals},
    source::{Backfill, Coverage, PollerSpec},
};

/// Events in a full page.
const PAGE: u64 = 50;
/// The time that one request takes of the quota.
pub(super) const PACE: SignedDuration = SignedDuration::from_secs(1);
/// A poll reaches no further back than this and the settling window: the rest is back-filled.
const POLL_REACH: SignedDuration = SignedDuration::from_hours(1);
/// So many requests of long polls in a row, then one of another kind.
const POLLS_IN_A_ROW: u32 = 4;
/// The same for rereads and the back-fill.
const REREADS_IN_A_ROW: u32 = 4;
/// A reread that the pages do not suffice for ends after so many, at the end of a slot.
const REREAD_PAGES: u32 = 8;
/// With fewer pages than this to spend, rereads are frugal.
const ENOUGH: i64 = 50;
/// With more pages than this to spend, a reread need not look at each.
const AMPLE: i64 = 100;

/// How to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Between two polls.
    pub poll_period: SignedDuration,
    /// Between two rereads.
    pub reread_period: SignedDuration,
    /// How far back.
    pub backfill: SignedDuration,
    /// How far back pulls are read, at most.
    pub lookback: SignedDuration,
}

impl Config {
    fn reach(&self, name: EventName) -> SignedDuration {
        // A pull older than the lookback judges nothing.
        if name == EventName::BatchGetImage {
            self.backfill.min(self.lookback)
        } else {
            self.backfill
        }
    }
}

impl From<&PollerSpec> for Config {
    fn from(spec: &PollerSpec) -> Self {
        // The schema has the same bounds; a period of nothing would read without end.
        let least = SignedDuration::from_secs(1);
        Self {
            poll_period: spec.poll_period.max(least),
            reread_period: spec.reread_period.max(least),
            backfill: spec.backfill.min(SignedDuration::from_hours(90 * 24)),
            lookback: spec.lookback,
        }
    }
}

/// The kinds of reading, in the order of their right of way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// What is new.
    Poll,
    /// What came late.
    Reread,
    /// What was never read.
    Backfill,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The lookup attribute.
    pub name: EventName,
    /// What for.
    pub kind: Kind,
    /// `StartTime`.
    pub start: Timestamp,
    /// `EndTime`, which belongs to the answer; none: all that there is by now.
    pub last: Option<Timestamp>,
    /// `NextToken`.
    pub token: Option<String>,
    /// When it is asked.
    pub at: Timestamp,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask.
    Ask(Request),
    /// There is nothing to ask before then.
    Wait(Timestamp),
}

#[derive(Clone, Debug, Default)]
struct Name {
    coverage: Coverage,
    /// Read, but not for the last time.
    unsettled: Intervals,
    rereads: Rereads,
    jobs: BTreeMap<Kind, Job>,
    blocked: BTreeMap<Kind, Timestamp>,
    /// When the last finished poll began.
    polled: Option<Timestamp>,
    /// Since when polls have followed each other without a break.
    polled_since: Option<Timestamp>,
    /// New events since then, late ones among them.
    fresh: u64,
    /// Pages of the last poll.
    poll_pages: u32,
    /// The last reread of most of a day took a single page.
    sparse: bool,
    /// Back-filled so far: events, seconds.
    filled: (u64, i64),
}

/// The pages of a place, by what they were spent on; for those who check the goal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// Of polls.
    pub polls: u64,
    /// Of rereads.
    pub rereads: u64,
    /// Of the back-fill.
    pub backfill: u64,
    /// What a perfect reader needs: for each name and poll the new events by 50, at least one.
    pub perfect: u64,
}

/// Plans the reading of one account and region.
#[derive(Clone, Debug)]
pub struct Planner {
    config: Config,
    names: BTreeMap<usize, Name>,
    /// Pages that rereads may still take.
    credit: i64,
    polls_in_a_row: u32,
    rereads_in_a_row: u32,
    pages: Pages,
}

impl Planner {
    /// With what the ledger says has been read.
    #[must_use]
    pub fn new(config: Config, coverage: &BTreeMap<EventName, Coverage>) -> Self {
        let names = EventName::JUDGED.iter().enumerate().map(|(index, name)| {
            let coverage = coverage.get(name).cloned().unwrap_or_default();
            let name = Name {
                unsettled: unsettled(&coverage),
                coverage,
                ..Name::default()
            };
            (index, name)
        });
        let mut planner = Self {
            config,
            names: names.collect(),
            credit: 0,
            polls_in_a_row: 0,
            rereads_in_a_row: 0,
            pages: Pages::default(),
        };
        planner.credit = planner.most_credit();
        planner
    }

    /// Reads in another way from now on; what has been read may have shrunk meanwhile.
    pub fn configure(&mut self, config: Config, coverage: &BTreeMap<EventName, Coverage>) {
        self.config = config;
        for (index, name) in &mut self.names {
            let coverage = coverage.get(&EventName::JUDGED[*index]);
            name.coverage = coverage.cloned().unwrap_or_default();
            name.unsettled = unsettled(&name.coverage);
            name.jobs.retain(|kind, _| *kind == Kind::Poll);
        }
        self.credit = self.credit.min(self.most_credit());
    }

    /// What the perfect reader needs in two hours: thrift long ago pays for nothing today.
    fn most_credit(&self) -> i64 {
        let polls = LATEST.as_secs() / 12 / self.config.poll_period.as_secs().max(1);
        polls * i64::try_from(EventName::JUDGED.len()).unwrap_or(1)
    }

    /// What has been read of a name.
    pub fn coverage(&self, name: EventName) -> Coverage {
        self.of(name)
            .map(|name| name.coverage.clone())
            .unwrap_or_default()
    }

    /// How far back a name is read.
    pub fn horizon(&self, name: EventName, now: Timestamp) -> Timestamp {
        second(before(now, self.config.reach(name)))
    }

    /// Pages asked for so far.
    pub const fn pages(&self) -> Pages {
        self.pages
    }

    fn of(&self, name: EventName) -> Option<&Name> {
        let index = EventName::JUDGED
            .iter()
            .position(|judged| *judged == name)?;
        self.names.get(&index)
    }

    fn of_mut(&mut self, name: EventName) -> Option<&mut Name> {
        let index = EventName::JUDGED
            .iter()
            .position(|judged| *judged == name)?;
        self.names.get_mut(&index)
    }

    /// What to do now. Asking again without an answer in between gives the same.
    pub fn next(&self, now: Timestamp) -> Step {
        let polls = self.next_poll(now);
        let yields = self.polls_in_a_row >= POLLS_IN_A_ROW;
        let soon = match (&polls, yields) {
            (Ok(request), false) => return Step::Ask(request.clone()),
            (Ok(_), true) => now,
            (Err(due), _) => *due,
        };
        // Whoever asks now is in the way of a poll within the next second.
        let free = yields || soon >= after(now, PACE);
        if free && let Some(request) = self.next_other(now) {
            return Step::Ask(request);
        }
        match polls {
            Ok(request) => Step::Ask(request),
            Err(due) => {
                let wake = self.next_wake(now);
                // A wake within that second would only find itself in the way.
                let wake = if free { wake } else { wake.max(due) };
                Step::Wait(
                    due.min(wake)
                        .max(after(now, SignedDuration::from_millis(10))),
                )
            }
        }
    }

    /// When something that is not a poll may be due.
    fn next_wake(&self, now: Timestamp) -> Timestamp {
        let blocked = self.names.values().flat_map(|name| name.blocked.values());
        let blocked = blocked.copied().filter(|until| *until > now).min();
        let often = (self.config.reread_period / 8).min(SignedDuration::from_secs(30));
        let regular = after(now, often);
        blocked.unwrap_or(regular).min(regular)
    }

    /// The next request of the polls, or when there will be one.
    fn next_poll(&self, now: Timestamp) -> Result<Request, Timestamp> {
        let mut soonest = after(now, self.config.poll_period);
        for (index, name) in &self.names {
            let event = EventName::JUDGED[*index];
            if !is_free(name, Kind::Poll, now) {
                soonest = name
                    .blocked
                    .get(&Kind::Poll)
                    .map_or(soonest, |until| soonest.min(*until));
                continue;
            }
            if let Some(job) = name.jobs.get(&Kind::Poll) {
                return Ok(request(event, Kind::Poll, job, now));
            }
            let due = name
                .polled
                .map_or(now, |polled| after(polled, self.config.poll_period));
            // A poll that is due later than a period from now was planned by a clock that ran ahead.
            if due <= now || due > after(now, self.config.poll_period) {
                return Ok(request(event, Kind::Poll, &self.poll(name, now), now));
            }
            soonest = soonest.min(due);
        }
        Err(soonest)
    }

    fn poll(&self, name: &Name, now: Timestamp) -> Job {
        let period_ago = before(now, self.config.poll_period);
        let polled = name.polled.unwrap_or(period_ago).min(period_ago);
        let start = before(polled.max(before(now, POLL_REACH)), SETTLING);
        let window = Interval {
            start: before(second(start), SECOND),
            end: second(now),
        };
        Job::new(window, true, now)
    }

    fn next_other(&self, now: Timestamp) -> Option<Request> {
        if self.rereads_in_a_row >= REREADS_IN_A_ROW {
            self.next_backfill(now).or_else(|| self.next_reread(now))
        } else {
            self.next_reread(now).or_else(|| self.next_backfill(now))
        }
    }

    fn next_reread(&self, now: Timestamp) -> Option<Request> {
        let mut best: Option<(f64, Request)> = None;
        for (index, name) in &self.names {
            if !is_free(name, Kind::Reread, now) {
                continue;
            }
            let event = EventName::JUDGED[*index];
            if let Some(job) = name.jobs.get(&Kind::Reread) {
                return Some(request(event, Kind::Reread, job, now));
            }
            let due = name.rereads.due(
                &name.unsettled,
                self.config.reread_period,
                name.polled_since,
                self.is_frugal(name),
                now,
            );
            let Some((score, window)) = due else { continue };
            if best.as_ref().is_none_or(|(best, _)| score > *best) {
                let job = Job::new(window, false, now);
                best = Some((score, request(event, Kind::Reread, &job, now)));
            }
        }
        best.map(|(_, request)| request)
    }

    /// Whether a reread of the name has to wait for more than its period.
    fn is_frugal(&self, name: &Name) -> bool {
        // What takes a single page costs no more than looking.
        self.credit < ENOUGH && !name.sparse
    }

    fn next_backfill(&self, now: Timestamp) -> Option<Request> {
        let day = before(now, LATEST);
        for recent in [true, false] {
            for (index, name) in &self.names {
                if !is_free(name, Kind::Backfill, now) {
                    continue;
                }
                let event = EventName::JUDGED[*index];
                let Some(mut gap) = self.gaps(event, name, now).pop() else {
                    continue;
                };
                if recent {
                    gap.start = gap.start.max(second(day));
                }
                if gap.start >= gap.end {
                    continue;
                }
                let job = match name.jobs.get(&Kind::Backfill) {
                    // A job whose answers were out of order counts at its end alone.
                    Some(job) if job.reached == gap.end || !job.resumable() => job.clone(),
                    _ => Job::new(gap, false, now),
                };
                return Some(request(event, Kind::Backfill, &job, now));
            }
        }
        None
    }

    /// What was never read and is no poll's to read, ascending.
    fn gaps(&self, event: EventName, name: &Name, now: Timestamp) -> Vec<Interval> {
        let polling = name.jobs.get(&Kind::Poll).map(|job| job.start);
        let Some(until) = polling.or(name.polled.map(second)) else {
            return vec![];
        };
        let start = self.horizon(event, now);
        if start >= until {
            return vec![];
        }
        name.coverage.read.gaps(Interval { start, end: until })
    }

    /// What this answer proves, to be stored with its facts.
    pub fn proof(&self, request: &Request, answer: &Answer) -> Result<Proof, Unusable> {
        let Some(job) = self.job(request) else {
            return Ok(Proof::default());
        };
        Ok(job.answered(answer, request.at)?.1)
    }

    /// The job that a request belongs to. None when it was given up since: an answer in the midst
    /// of its pages then proves nothing.
    fn job(&self, request: &Request) -> Option<Job> {
        if request.token.is_some() {
            let job = self.of(request.name)?.jobs.get(&request.kind)?;
            return (job.token == request.token).then(|| job.clone());
        }
        let end = match request.last {
            Some(last) => after(last, SECOND),
            None => second(request.at),
        };
        let window = Interval {
            start: request.start,
            end,
        };
        Some(Job::new(window, request.last.is_none(), request.at))
    }

    /// The answer's facts and its proof are stored; `fresh` of the events were new.
    pub fn stored(&mut self, request: &Request, answer: &Answer, fresh: u64) {
        let answered = self
            .job(request)
            .map(|job| job.answered(answer, request.at));
        let Some(Ok((mut job, proof))) = answered else {
            return;
        };
        let perfect_before = self.pages.perfect;
        let short = self.credit <= AMPLE;
        let exhausted = self.credit <= 1;
        let frugal = self
            .of(request.name)
            .is_some_and(|name| self.is_frugal(name));
        let Some(name) = self.of_mut(request.name) else {
            return;
        };
        name.blocked.remove(&request.kind);
        if let Some(read) = proof.read {
            name.coverage.read.insert(read);
        }
        if let Some(settled) = proof.settled {
            name.coverage.settled.insert(settled);
        }
        name.unsettled = unsettled(&name.coverage);
        let read = Interval {
            start: job.reached,
            end: job.end,
        };
        name.rereads.read(read, job.asked);
        let mut perfect = 0;
        let mut more = job.token.is_some();
        match request.kind {
            Kind::Poll => {
                name.fresh += fresh;
                if !more {
                    perfect = name.fresh.div_ceil(PAGE).max(1);
                    name.fresh = 0;
                    name.poll_pages = job.pages;
                    let unbroken = name.polled.is_some_and(|polled| job.start <= polled);
                    if !unbroken || name.polled_since.is_none() {
                        name.polled_since = Some(job.start);
                    }
                    name.polled = Some(job.asked);
                    let settled = name.coverage.settled.clone();
                    name.rereads.forget(&settled, request.at);
                }
            }
            Kind::Reread => {
                name.fresh += fresh;
                if request.token.is_none() {
                    job.must = frugal;
                }
                if more && !job.must && (exhausted || (short && job.pages >= REREAD_PAGES)) {
                    more = !proof.read.is_some_and(Rereads::ends_within);
                }
                if !more {
                    let most_of_a_day = job.end.duration_since(job.start) >= LATEST / 2;
                    name.sparse = job.pages == 1 && (most_of_a_day || name.sparse);
                }
            }
            Kind::Backfill => {
                let span = proof
                    .read
                    .map_or(0, |read| read.end.duration_since(read.start).as_secs());
                name.filled.0 += answer.times.len() as u64;
                name.filled.1 += span;
            }
        }
        let pages = job.pages;
        if more {
            name.jobs.insert(request.kind, job);
        } else {
            name.jobs.remove(&request.kind);
        }
        self.pages.perfect += perfect;
        self.account(request.kind, pages, perfect_before);
    }

    fn account(&mut self, kind: Kind, pages: u32, perfect_before: u64) {
        match kind {
            Kind::Poll => {
                self.pages.polls += 1;
                self.credit -= 1;
                // A short poll lets nobody wait for long.
                self.polls_in_a_row += u32::from(pages > 1);
            }
            Kind::Reread => {
                self.pages.rereads += 1;
                self.credit -= 1;
                self.polls_in_a_row = 0;
                self.rereads_in_a_row += 1;
            }
            Kind::Backfill => {
                self.pages.backfill += 1;
                self.polls_in_a_row = 0;
                self.rereads_in_a_row = 0;
            }
        }
        let earned = self.pages.perfect - perfect_before;
        self.credit += i64::try_from(earned)
            .unwrap_or(i64::MAX / 4)
            .saturating_mul(2);
        // What a busy time took beyond its share is owed by the day after it, no longer.
        let most = self.most_credit();
        self.credit = self.credit.clamp(-most * 12, most);
    }

    /// The request failed; the same is not asked again before `until`.
    pub fn failed(&mut self, request: &Request, until: Timestamp) {
        // A poll that waits for its turn again lets the others go on.
        self.polls_in_a_row = 0;
        if let Some(name) = self.of_mut(request.name) {
            name.blocked.insert(request.kind, until);
        }
    }

    /// CloudTrail knows the token no more: the rest of the window is asked for anew.
    pub fn lost_token(&mut self, request: &Request) {
        if let Some(name) = self.of_mut(request.name) {
            name.jobs.remove(&request.kind);
        }
    }

    /// What is still to be back-filled; none when nothing is.
    pub fn backfill(&self, now: Timestamp) -> Option<Backfill> {
        let mut requests = 0;
        let mut seconds = 0;
        for (index, name) in &self.names {
            let gaps = self.gaps(EventName::JUDGED[*index], name, now);
            // Before the first poll nothing is known to be read, and nothing to be missing.
            for gap in gaps {
                let span = gap.end.duration_since(gap.start).as_secs();
                seconds += span;
                let (events, over) = name.filled;
                let expected = if over > 0 {
                    u128::from(events) * u128::from(span.unsigned_abs())
                        / u128::from(over.unsigned_abs())
                } else {
                    0
                };
                requests += u64::try_from(expected / u128::from(PAGE)).unwrap_or(u64::MAX / 8) + 1;
            }
        }
        if requests == 0 {
            return None;
        }
        let polls: u32 = self.names.values().map(|name| name.poll_pages).sum();
        let period = self.config.poll_period.as_secs_f64().max(1.0);
        // The polls go first, and a reread is done now and then.
        let share = (1.0 - f64::from(polls) / period).clamp(0.1, 1.0);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let duration = requests as f64 * PACE.as_secs_f64() / share;
        Some(Backfill {
            requests,
            duration: SignedDuration::try_from_secs_f64(duration).unwrap_or(SignedDuration::MAX),
            span: SignedDuration::from_secs(seconds),
            files: 0,
            bytes: 0,
        })
    }
}

fn unsettled(coverage: &Coverage) -> Intervals {
    let mut unsettled = coverage.read.clone();
    for span in coverage.settled.as_slice() {
        unsettled.remove(*span);
    }
    unsettled
}

fn request(name: EventName, kind: Kind, job: &Job, at: Timestamp) -> Request {
    Request {
        name,
        kind,
        start: job.start,
        last: (!job.open).then(|| before(job.end, SECOND)),
        token: job.token.clone(),
        at,
    }
}

fn is_free(name: &Name, kind: Kind, now: Timestamp) -> bool {
    name.blocked.get(&kind).is_none_or(|until| {
        // No fault blocks for longer; the clock went back.
        *until <= now || *until > after(now, SignedDuration::from_mins(10))
    })
}
