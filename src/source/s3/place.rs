//! What of one account and region was read, and what that proves. No I/O, and the time is given.
//!
//! That every file delivered until some time was read covers the events until 15 minutes before:
//! what is known to be missing is taken out, by name.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

use super::listing::Folder;
use crate::{
    event::{EventName, Interval, Intervals},
    source::{
        Backfill, Gap, Health, LastError, Learned, PollerSpec, Proof, TrailState,
        fault::Fault,
        trail::{SETTLING, settled},
    },
};

/// How much of what was listed is listed again: a file's name can appear later than its time says.
pub(super) const SLACK: SignedDuration = SignedDuration::from_mins(30);
/// Gaps that a health names.
const MOST_GAPS: usize = 10;
/// How soon a day that could not be read is tried again.
const RETRY: SignedDuration = SignedDuration::from_mins(5);
/// How often it is looked after what is missing.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_mins(10);
/// How often it is noted in the ledger how far the polls came, when they bring nothing.
const NOTE: SignedDuration = SignedDuration::from_mins(5);

/// What reading the history took so far, for estimates.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Files of a day of one account and region.
    pub(super) files: f64,
    /// Bytes of these.
    pub(super) bytes: f64,
    /// Seconds that the rest will take, of all accounts and regions.
    pub(super) seconds: f64,
}

/// One account and region of a trail.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) folder: Folder,
    pub(super) has_digests: bool,
    pub(super) state: TrailState,
    /// When the oldest file was delivered, and when that was asked.
    pub(super) oldest: Option<(Timestamp, Timestamp)>,
    /// Files of the time that is listed again and again, which were read.
    pub(super) recent: HashSet<(Timestamp, Arc<str>)>,
    /// Whether the ledger was asked for these.
    pub(super) knows_recent: bool,
    /// Digest files that were looked after.
    pub(super) digests: HashSet<Arc<str>>,
    /// Digest files of this time were looked after before these are remembered.
    pub(super) proved_before: Intervals,
    pub(super) digests_listed: Option<Timestamp>,
    pub(super) looked: HashMap<Arc<str>, Timestamp>,
    pub(super) last_success: Option<Timestamp>,
    last_error: Option<LastError>,
    day_error: Option<LastError>,
    failed: BTreeMap<Date, Timestamp>,
    noted: Option<Timestamp>,
    unnoted: Learned,
}

/// The day of a time.
pub(super) fn date(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

/// Its first instant, and the next day's.
pub(super) fn span_of(day: Date) -> Interval {
    let start = |day: Date| {
        let midnight = day.at(0, 0, 0, 0);
        TimeZone::UTC.to_timestamp(midnight)
    };
    Interval {
        start: start(day).unwrap_or(Timestamp::MIN),
        end: day.tomorrow().and_then(start).unwrap_or(Timestamp::MAX),
    }
}

pub(super) fn before(time: Timestamp, span: SignedDuration) -> Timestamp {
    time.checked_sub(span).unwrap_or(Timestamp::MIN)
}

/// A fault that lasts since the first of its kind.
fn lasting(before: Option<&LastError>, fault: &Fault, now: Timestamp) -> LastError {
    let same = before.filter(|error| error.reason == fault.reason);
    LastError {
        reason: fault.reason,
        message: fault.message.clone(),
        since: same.map_or(now, |error| error.since),
    }
}

impl Tracked {
    pub(super) fn new(folder: Folder, state: TrailState) -> Self {
        Self {
            folder,
            has_digests: false,
            proved_before: state.proved.clone(),
            state,
            oldest: None,
            recent: HashSet::new(),
            knows_recent: false,
            digests: HashSet::new(),
            digests_listed: None,
            looked: HashMap::new(),
            last_success: None,
            last_error: None,
            day_error: None,
            failed: BTreeMap::new(),
            noted: None,
            unnoted: Learned::default(),
        }
    }

    /// From which delivery time on a day is to be listed at a poll.
    pub(super) fn poll_from(&self, day: Interval) -> Timestamp {
        let reached = self.state.delivered.as_slice().last();
        match reached.filter(|run| run.end > day.start && run.start < day.end) {
            Some(run) => before(run.end, SLACK).max(day.start).max(run.start),
            None => day.start,
        }
    }

    /// No further back than the files and the policy go.
    fn first(&self, spec: &PollerSpec, now: Timestamp) -> Option<Timestamp> {
        let (oldest, _) = self.oldest?;
        Some(oldest.max(before(now, spec.backfill)))
    }

    /// What is still to be read of the days before today.
    fn missing(&self, spec: &PollerSpec, now: Timestamp) -> Intervals {
        let mut missing = Intervals::default();
        let Some(first) = self.first(spec, now) else {
            return missing;
        };
        let today = span_of(date(now)).start;
        let span = |start: Timestamp| Interval { start, end: today };
        for gap in self.state.delivered.gaps(span(first)) {
            missing.insert(gap);
        }
        // Pulls that were pruned, and are wanted after all: the files have to be read again.
        let mut pulls = self
            .state
            .events
            .get(&EventName::BatchGetImage)
            .cloned()
            .unwrap_or_default();
        for gap in self.state.gaps.values() {
            pulls.insert(gap.span);
        }
        let wanted = first.max(before(now, spec.lookback));
        let lacking: Intervals = pulls.gaps(span(wanted)).into_iter().collect();
        for gap in lacking
            .intersect(&settled(&self.state.delivered))
            .as_slice()
        {
            missing.insert(*gap);
        }
        missing
    }

    /// The newest day that is still to be read.
    pub(super) fn next_day(&self, spec: &PollerSpec, now: Timestamp) -> Option<Date> {
        let missing = self.missing(spec, now);
        let second = SignedDuration::from_secs(1);
        let waits = |day: &Date| self.failed.get(day).is_some_and(|until| *until > now);
        let days = missing.as_slice().iter().rev().flat_map(|gap| {
            let (first, last) = (date(gap.start), date(before(gap.end, second)));
            std::iter::successors(Some(last), |day| day.yesterday().ok())
                .take_while(move |day| *day >= first)
        });
        days.into_iter().find(|day| !waits(day))
    }

    /// A day could not be read: the others come first.
    pub(super) fn day_failed(&mut self, day: Date, fault: &Fault, now: Timestamp) {
        let until = now.checked_add(RETRY).unwrap_or(Timestamp::MAX);
        self.failed.insert(day, until);
        self.day_error = Some(lasting(self.day_error.as_ref(), fault, now));
    }

    /// A day was read.
    pub(super) fn day_read(&mut self, day: Date) {
        self.failed.remove(&day);
        if self.failed.is_empty() {
            self.day_error = None;
        }
    }

    /// A poll failed.
    pub(super) fn poll_failed(&mut self, fault: &Fault, now: Timestamp) {
        self.last_error = Some(lasting(self.last_error.as_ref(), fault, now));
    }

    /// A poll found everything that there is.
    pub(super) fn poll_succeeded(&mut self, now: Timestamp) {
        self.last_error = None;
        self.last_success = Some(now);
    }

    /// What is missing and was not looked after for a while.
    pub(super) fn due_again(&mut self, now: Timestamp) -> Vec<Arc<str>> {
        let due: Vec<Arc<str>> = self
            .state
            .gaps
            .keys()
            .filter(|key| {
                let looked = self.looked.get(*key);
                looked.is_none_or(|at| now.duration_since(*at) >= LOOK_AGAIN)
            })
            .take(MOST_GAPS)
            .cloned()
            .collect();
        self.looked
            .retain(|key, _| self.state.gaps.contains_key(key));
        for key in &due {
            self.looked.insert(key.clone(), now);
        }
        due
    }

    /// Every file delivered in a span was read; the digests of it say `proved`, and what is missing
    /// was `found`. What is to be stored of it; what is known here is the ledger's business, too,
    /// once it is stored.
    pub(super) fn learned(
        &self,
        delivered: Option<Interval>,
        proved: Vec<Interval>,
        found: BTreeMap<Arc<str>, Gap>,
        closed: Vec<Arc<str>>,
    ) -> Learned {
        let mut all = self.state.delivered.clone();
        let mut spans: Vec<Interval> = Vec::new();
        if let Some(added) = delivered {
            all.insert(added);
            spans.push(Interval {
                start: before(added.start, SETTLING),
                end: added.end,
            });
        }
        let is_closed = |key: &Arc<str>| closed.contains(key);
        let known = self.state.gaps.iter();
        spans.extend(
            known
                .clone()
                .filter(|(key, _)| is_closed(key))
                .map(|(_, gap)| gap.span),
        );
        let covered = settled(&all);
        let mut events = spans.into_iter().collect::<Intervals>().intersect(&covered);
        let open = known.filter(|(key, _)| !is_closed(key)).map(|(_, gap)| gap);
        for gap in open.chain(found.values()) {
            events.remove(gap.span);
        }
        Learned {
            delivered: delivered.into_iter().collect(),
            proved,
            events: events.as_slice().to_vec(),
            found,
            closed,
            forget: None,
        }
    }

    /// What was learned is known from here on, and stored with what was not stored yet; none when
    /// that can wait.
    pub(super) fn absorb(&mut self, learned: Learned, now: Timestamp) -> Option<Learned> {
        let state = &mut self.state;
        for interval in &learned.delivered {
            state.delivered.insert(*interval);
        }
        for interval in &learned.proved {
            state.proved.insert(*interval);
        }
        for name in EventName::JUDGED {
            let events = state.events.entry(name).or_default();
            for interval in &learned.events {
                events.insert(*interval);
            }
            for gap in learned.found.values() {
                events.remove(gap.span);
            }
        }
        for key in &learned.closed {
            state.gaps.remove(key);
        }
        state.gaps.extend(learned.found.clone());
        let is_news = !learned.found.is_empty()
            || !learned.closed.is_empty()
            || !learned.proved.is_empty()
            || learned.forget.is_some();
        // Nothing is lost but the time to list a few minutes again.
        let waiting = &mut self.unnoted;
        waiting.delivered.extend(learned.delivered);
        waiting.events.extend(learned.events);
        waiting.proved.extend(learned.proved);
        waiting.closed.extend(learned.closed);
        waiting.found.extend(learned.found);
        waiting.forget = waiting.forget.max(learned.forget);
        let due = is_news
            || self
                .noted
                .is_none_or(|noted| now.duration_since(noted) >= NOTE);
        if !due {
            return None;
        }
        self.noted = Some(now);
        Some(std::mem::take(&mut self.unnoted))
    }

    /// What was not stored, for the next time.
    pub(super) fn give_back(&mut self, learned: Learned) {
        self.noted = None;
        let newer = std::mem::replace(&mut self.unnoted, learned);
        let waiting = &mut self.unnoted;
        waiting.delivered.extend(newer.delivered);
        waiting.events.extend(newer.events);
        waiting.proved.extend(newer.proved);
        waiting.closed.extend(newer.closed);
        waiting.found.extend(newer.found);
        waiting.forget = waiting.forget.max(newer.forget);
    }

    /// Whether it was read, or could not be: before that nothing is to be said.
    pub(super) const fn has_news(&self) -> bool {
        self.last_success.is_some() || self.last_error.is_some()
    }

    /// How many days of files are still to be read.
    pub(super) fn days_to_go(&self, spec: &PollerSpec, now: Timestamp) -> f64 {
        let missing = self.missing(spec, now);
        let spans = missing.as_slice().iter();
        let seconds: f64 = spans
            .map(|gap| gap.end.duration_since(gap.start).as_secs_f64())
            .sum();
        seconds / 86_400.0
    }

    /// How it is.
    pub(super) fn health(&self, spec: &PollerSpec, pace: Pace, now: Timestamp) -> Health {
        let mut health = Health::new(spec);
        health.account = Some(self.folder.place.account.clone());
        health.region = self.folder.place.region.clone();
        health.last_success = self.last_success;
        health.last_error = self.last_error.clone().or_else(|| self.day_error.clone());
        health.coverage.clone_from(&self.state.events);
        let mut gaps: Vec<Gap> = self.state.gaps.values().cloned().collect();
        gaps.sort_by_key(|gap| std::cmp::Reverse(gap.span.end));
        let first = self.first(spec, now).unwrap_or(now);
        // What is missing is not waited for: it is named.
        let latest = gaps.first().map_or(first, |gap| gap.span.end.max(first));
        for name in EventName::JUDGED {
            let target = match name {
                EventName::BatchGetImage => latest.max(before(now, spec.lookback)),
                _ => latest,
            };
            health.horizon.insert(name, target);
        }
        gaps.truncate(MOST_GAPS);
        health.gaps = gaps;
        health.proof = match self.state.proved.as_slice().last() {
            Some(last) if self.has_digests => Proof::Digests { until: last.end },
            _ => Proof::Delivery,
        };
        health.backfill = self.backfill(spec, pace, now);
        health
    }

    fn backfill(&self, spec: &PollerSpec, pace: Pace, now: Timestamp) -> Option<Backfill> {
        let days = self.days_to_go(spec, now);
        if days <= 0.0 {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate"
        )]
        let count = |per_day: f64| (per_day * days).ceil() as u64;
        Some(Backfill {
            requests: 0,
            duration: SignedDuration::try_from_secs_f64(pace.seconds).unwrap_or_default(),
            span: SignedDuration::try_from_secs_f64(days * 86_400.0).unwrap_or_default(),
            files: count(pace.files),
            bytes: count(pace.bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Origin, Place, PollerKey, Reason};

    fn at(time: &str) -> Timestamp {
        format!("2026-11-{time}:00Z").parse().unwrap()
    }

    fn span(from: &str, to: &str) -> Interval {
        Interval {
            start: at(from),
            end: at(to),
        }
    }

    fn spec() -> PollerSpec {
        PollerSpec {
            key: PollerKey {
                origin: Origin::S3 {
                    bucket: "org-trail".into(),
                    prefix: "".into(),
                },
                region: "us-east-1".into(),
                assume_role: None,
            },
            poll_period: SignedDuration::from_secs(60),
            reread_period: SignedDuration::ZERO,
            backfill: SignedDuration::from_hours(24 * 90),
            lookback: SignedDuration::from_hours(24 * 30),
            accounts: None,
            buckets: None,
        }
    }

    fn tracked() -> Tracked {
        let place = Place {
            account: "111122223333".into(),
            region: "us-east-1".into(),
        };
        let root = "AWSLogs".to_owned();
        let mut tracked = Tracked::new(Folder { root, place }, TrailState::default());
        tracked.oldest = Some((at("18T07:00"), at("22T12:00")));
        tracked
    }

    fn read(tracked: &mut Tracked, delivered: Interval, gaps: &[(&str, Interval)]) {
        let found = gaps.iter().map(|(key, span)| {
            let gap = Gap {
                reason: Reason::FileMissing,
                message: (*key).to_owned(),
                span: *span,
            };
            (Arc::from(*key), gap)
        });
        let learned = tracked.learned(Some(delivered), vec![], found.collect(), vec![]);
        tracked.absorb(learned, at("22T12:00"));
    }

    fn covered(tracked: &Tracked) -> Vec<Interval> {
        let names = EventName::JUDGED.map(|name| &tracked.state.events[&name]);
        assert!(names.iter().all(|covered| *covered == names[0]));
        names[0].as_slice().to_vec()
    }

    #[test]
    fn events_are_covered_until_fifteen_minutes_before_the_listing() {
        let mut tracked = tracked();
        read(&mut tracked, span("22T00:00", "22T12:00"), &[]);
        assert_eq!(covered(&tracked), [span("22T00:00", "22T11:45")]);
        read(&mut tracked, span("22T11:30", "22T12:01"), &[]);
        assert_eq!(covered(&tracked), [span("22T00:00", "22T11:46")]);
    }

    #[test]
    fn days_join_once_the_next_one_was_read_too() {
        let mut tracked = tracked();
        read(&mut tracked, span("20T00:00", "21T00:00"), &[]);
        assert_eq!(covered(&tracked), [span("20T00:00", "20T23:45")]);
        read(&mut tracked, span("21T00:00", "22T00:00"), &[]);
        assert_eq!(covered(&tracked), [span("20T00:00", "21T23:45")]);
    }

    #[test]
    fn days_are_read_newest_first_and_no_further_back_than_the_oldest_file() {
        let (mut tracked, now) = (tracked(), at("22T12:00"));
        let mut days = Vec::new();
        while let Some(day) = tracked.next_day(&spec(), now) {
            days.push(day.day());
            let whole = span_of(day);
            let from = whole.start.max(at("18T07:00"));
            read(
                &mut tracked,
                Interval {
                    start: from,
                    ..whole
                },
                &[],
            );
        }
        assert_eq!(days, [21, 20, 19, 18]);
        assert!(tracked.backfill(&spec(), Pace::default(), now).is_none());
    }

    #[test]
    fn a_day_that_cannot_be_read_does_not_keep_the_others_from_being_read() {
        let (mut tracked, now) = (tracked(), at("22T12:00"));
        let day = tracked.next_day(&spec(), now).unwrap();
        tracked.day_failed(day, &Fault::new(Reason::AccessDenied, "no"), now);
        assert_eq!(tracked.next_day(&spec(), now).unwrap().day(), 20);
        assert_eq!(tracked.next_day(&spec(), at("22T12:06")), Some(day));
    }

    #[test]
    fn what_is_missing_is_not_covered_and_not_waited_for_until_it_is_there() {
        let mut tracked = tracked();
        let gap = span("20T10:45", "20T12:00");
        read(
            &mut tracked,
            span("20T00:00", "22T12:00"),
            &[("digest", gap)],
        );
        let parts = [span("20T00:00", "20T10:45"), span("20T12:00", "22T11:45")];
        assert_eq!(covered(&tracked), parts);
        // Reading the same again does not cover it.
        read(&mut tracked, span("20T00:00", "21T00:00"), &[]);
        assert_eq!(covered(&tracked), parts);
        let health = tracked.health(&spec(), Pace::default(), at("22T12:00"));
        assert_eq!(health.horizon[&EventName::PutImage], gap.end);
        assert_eq!(health.gaps.len(), 1);

        let learned = tracked.learned(None, vec![], BTreeMap::new(), vec!["digest".into()]);
        assert_eq!(learned.events, [gap]);
        tracked.absorb(learned, at("22T12:00"));
        assert_eq!(covered(&tracked), [span("20T00:00", "22T11:45")]);
    }

    #[test]
    fn pulls_that_were_pruned_and_are_wanted_after_all_are_read_again() {
        let (mut tracked, now) = (tracked(), at("22T12:00"));
        read(&mut tracked, span("18T07:00", "22T12:00"), &[]);
        assert_eq!(tracked.next_day(&spec(), now), None);
        let pulls = tracked.state.events.get_mut(&EventName::BatchGetImage);
        pulls.unwrap().remove(span("18T00:00", "20T00:00"));
        assert_eq!(tracked.next_day(&spec(), now).unwrap().day(), 19);
        let mut short = spec();
        short.lookback = SignedDuration::from_hours(24);
        assert_eq!(tracked.next_day(&short, now), None);
    }

    #[test]
    fn a_poll_lists_half_an_hour_again_and_a_new_day_from_its_beginning() {
        let mut tracked = tracked();
        let day = span_of(date(at("22T12:00")));
        assert_eq!(tracked.poll_from(day), day.start);
        read(&mut tracked, span("22T00:00", "22T12:00"), &[]);
        assert_eq!(tracked.poll_from(day), at("22T11:30"));
        let tomorrow = span_of(date(at("23T00:01")));
        assert_eq!(tracked.poll_from(tomorrow), tomorrow.start);
    }
}
