//! What a queue proves to have been read: coverage by delivery. Pure: the time is given.
//!
//! A message leaves a queue when somebody has stored what it brings and deletes it, when it was
//! tried too often (then that is known, and a gap), or when the retention period is over. So a
//! queue with nothing in it at an instant says that everything which was sent within the retention
//! period before has been read. CloudTrail delivers a file some minutes after its events: time
//! counts as read until [`SETTLING`] before that instant. It begins when the first file of an
//! account and region was sent: what a queue was not told of before, nobody knows. An outage of the
//! operator is bridged only where it was shorter than the retention period.
//!
//! Where the trail has digest files, and the queue is told of them as of any other file, these say
//! more: which files were delivered in an hour. That all of them were read covers this time however
//! full the queue was, whatever a message was that nobody could read, and however long the operator
//! was away; that one is missing is a gap, though no message was lost.
//!
//! Messages that are events themselves prove nothing: EventBridge delivers at best effort, and what
//! its rule leaves out is not known.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use crate::{
    event::{EventName, Interval, Intervals},
    source::{
        Gap, Learned, Place, TrailState,
        trail::{DigestFile, LogFile, ObjectKey, SETTLING, missed, settled},
    },
};

/// The most gaps of an account and region that are told apart; more make these wider.
const MOST_GAPS: usize = 200;
/// The most gaps that are shown of an account and region.
const SHOWN_GAPS: usize = 20;
/// The most accounts and regions of one queue.
const MOST_PLACES: usize = 20_000;
/// A second: the least that the ledger tells apart.
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// What one queue has brought, by account and region, as the ledger has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Cover {
    states: BTreeMap<Place, TrailState>,
}

/// What stands for the queue as a whole: where a message does not say which account it is about.
pub(super) fn whole() -> Place {
    Place {
        account: "".into(),
        region: "".into(),
    }
}

impl Cover {
    /// As the ledger has it now, whoever wrote it there.
    pub(super) fn new(states: BTreeMap<Place, TrailState>) -> Self {
        Self { states }
    }

    /// What the ledger has learned of a place.
    pub(super) fn apply(&mut self, place: &Place, learned: &Learned) {
        let state = self.states.entry(place.clone()).or_default();
        for span in &learned.delivered {
            state.delivered.insert(*span);
        }
        for span in &learned.proved {
            state.proved.insert(*span);
        }
        for name in EventName::JUDGED {
            let read = state.events.entry(name).or_default();
            for span in &learned.events {
                read.insert(*span);
            }
            for gap in learned.found.values() {
                read.remove(gap.span);
            }
        }
        for name in &learned.closed {
            state.gaps.remove(name);
        }
        let found = learned.found.iter();
        state
            .gaps
            .extend(found.map(|(name, gap)| (name.clone(), gap.clone())));
    }

    /// A message that was sent then told of a file of this place. What is to be learned of it.
    pub(super) fn seen(&self, place: &Place, sent: Timestamp) -> Option<Learned> {
        // Only whole seconds count, and none from before it.
        let sent = sent
            .round(
                jiff::TimestampRound::new()
                    .smallest(jiff::Unit::Second)
                    .mode(jiff::RoundMode::Ceil),
            )
            .unwrap_or(sent);
        let state = self.states.get(place);
        if state.is_none() && self.states.len() >= MOST_PLACES {
            return None;
        }
        let first = state.and_then(|state| Some(state.delivered.as_slice().first()?.start));
        // Once time counts as read, an older message changes nothing: it may have been sent again.
        let counts = state.is_some_and(|state| !settled(&state.delivered).as_slice().is_empty());
        let is_news = first.is_none_or(|first| sent < first && !counts);
        is_news.then(|| Learned {
            delivered: vec![Interval {
                start: sent,
                end: sent.checked_add(SECOND).unwrap_or(sent),
            }],
            ..Learned::default()
        })
    }

    /// Something was not read. What is to be learned of it.
    pub(super) fn missing(&self, place: &Place, name: &str, gap: Gap) -> Option<Learned> {
        let empty = TrailState::default();
        let state = self.states.get(place).unwrap_or(&empty);
        let found = if state.gaps.contains_key(name) {
            return None;
        } else if state.gaps.len() < MOST_GAPS {
            (name.into(), gap)
        } else {
            let (name, known) = state.gaps.first_key_value()?;
            let wider = Interval {
                start: known.span.start.min(gap.span.start),
                end: known.span.end.max(gap.span.end),
            };
            if wider == known.span {
                return None;
            }
            let gap = Gap {
                span: wider,
                ..known.clone()
            };
            (name.clone(), gap)
        };
        Some(Learned {
            found: BTreeMap::from([found]),
            ..Learned::default()
        })
    }

    /// Something was read. What is to be learned where it was missing.
    pub(super) fn found(&self, place: &Place, name: &str) -> Option<Learned> {
        let state = self.states.get(place)?;
        let (name, gap) = state.gaps.get_key_value(name)?;
        let closed = vec![name.clone()];
        let events = self.covered(place, &state.proved, [gap.span], &closed);
        Some(Learned {
            events,
            closed,
            ..Learned::default()
        })
    }

    /// A digest file says what was delivered within a span, and all of it was read. What is to be
    /// learned: whatever was missing of this time is not.
    pub(super) fn proved(
        &self,
        bucket: &str,
        file: &DigestFile,
        span: Interval,
    ) -> Option<Learned> {
        let state = self.states.get(&file.place);
        if state.is_none() && self.states.len() >= MOST_PLACES {
            return None;
        }
        let empty = TrailState::default();
        let state = state.unwrap_or(&empty);
        let own = name_of(bucket, &file.key);
        let mut proved = state.proved.clone();
        proved.insert(span);
        let of_this_time = |name: &str| {
            let key = name
                .strip_prefix(bucket)
                .and_then(|key| key.strip_prefix('/'));
            let file = key.map(|key| ObjectKey::parse(None, key));
            matches!(file, Some(ObjectKey::Log(file)) if proved.covers(minute_of(&file)))
        };
        let gaps = state.gaps.keys();
        let closed = gaps.filter(|name| **name == own || of_this_time(name));
        let closed: Vec<Arc<str>> = closed.cloned().collect();
        let spans = closed
            .iter()
            .filter_map(|name| Some(state.gaps.get(name)?.span));
        let spans = spans.chain([missed(span)]);
        let events = self.covered(&file.place, &proved, spans, &closed);
        let is_news = !closed.is_empty() || !state.proved.covers(span);
        is_news.then(|| Learned {
            proved: vec![span],
            events,
            closed,
            ..Learned::default()
        })
    }

    /// The parts of these spans that are covered once `proved` is, and these gaps are closed.
    fn covered(
        &self,
        place: &Place,
        proved: &Intervals,
        spans: impl IntoIterator<Item = Interval>,
        closed: &[Arc<str>],
    ) -> Vec<Interval> {
        let mut delivered = proved.clone();
        let state = self.states.get(place);
        for run in state.map_or(&[][..], |state| state.delivered.as_slice()) {
            delivered.insert(*run);
        }
        let mut events = spans
            .into_iter()
            .collect::<Intervals>()
            .intersect(&settled(&delivered));
        for missing in self.missing_in(place, proved, closed).as_slice() {
            events.remove(*missing);
        }
        events.as_slice().to_vec()
    }

    /// The event time that is known to be missing: of the place, and of all of them where digests
    /// do not prove that this place is not concerned.
    fn missing_in(&self, place: &Place, proved: &Intervals, closed: &[Arc<str>]) -> Intervals {
        let whole = whole();
        let everywhere = self.gaps_of(&whole);
        let mut missing: Intervals = everywhere.map(|gap| gap.span).collect();
        for span in settled(proved).as_slice() {
            missing.remove(*span);
        }
        let state = self.states.get(place);
        for (name, gap) in state.into_iter().flat_map(|state| &state.gaps) {
            if !closed.contains(name) {
                missing.insert(gap.span);
            }
        }
        missing
    }

    /// Whether a digest file is one that the queue should have told of, and nobody looked after.
    pub(super) fn lacks(&self, bucket: &str, file: &DigestFile) -> bool {
        let Some(state) = self.states.get(&file.place) else {
            return false;
        };
        let first = state.delivered.as_slice().first();
        let last = Interval {
            start: file.end.checked_sub(SECOND).unwrap_or(file.end),
            end: file.end,
        };
        first.is_some_and(|first| first.start < file.end)
            && !state.proved.covers(last)
            && !state.gaps.contains_key(&name_of(bucket, &file.key))
    }

    /// The digest files that found a file of this time missing: now that one was read, they may
    /// say something else.
    pub(super) fn doubted(&self, bucket: &str, file: &LogFile) -> Vec<DigestFile> {
        let Some(state) = self.states.get(&file.place) else {
            return vec![];
        };
        let near = state
            .gaps
            .iter()
            .filter(|(_, gap)| gap.span.start <= file.delivered && file.delivered < gap.span.end);
        near.filter_map(|(name, _)| {
            let key = name.strip_prefix(bucket)?.strip_prefix('/')?;
            match ObjectKey::parse(None, key) {
                ObjectKey::Digest(digest) => Some(digest),
                _ => None,
            }
        })
        .collect()
    }

    /// Until when digest files prove what was delivered.
    pub(super) fn proved_until(&self, place: &Place) -> Option<Timestamp> {
        let last = self.states.get(place)?.proved.as_slice().last()?;
        Some(last.end)
    }

    /// What is missing since before an instant need not be told any more.
    pub(super) fn forget(&self, before: Timestamp) -> Vec<(Place, Learned)> {
        let old = |state: &TrailState| {
            let old = state.gaps.iter().filter(|(_, gap)| gap.span.end < before);
            old.map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        self.states
            .iter()
            .map(|(place, state)| {
                let learned = Learned {
                    closed: old(state),
                    ..Learned::default()
                };
                (place.clone(), learned)
            })
            .filter(|(_, learned)| !learned.closed.is_empty())
            .collect()
    }

    /// The queue had nothing in it at an instant: what is therefore to be learned.
    pub(super) fn claims(
        &self,
        drained: Timestamp,
        retention: SignedDuration,
    ) -> Vec<(Place, Learned)> {
        // What is about to be dropped for its age may be dropped a little early.
        let slack = (retention / 10).min(SignedDuration::from_mins(5));
        let kept = drained
            .checked_sub(retention)
            .and_then(|kept| kept.checked_add(slack))
            .unwrap_or(Timestamp::MIN);
        let Ok(end) = drained.checked_sub(SETTLING) else {
            return vec![];
        };
        let mut claims = Vec::new();
        for place in self.places() {
            let Some(state) = self.states.get(place) else {
                continue;
            };
            let Some(first) = state.delivered.as_slice().first() else {
                continue;
            };
            let floor = first.start.max(kept);
            let start = match settled(&state.delivered).as_slice().last() {
                Some(last) if last.end >= floor => last.end,
                _ => floor,
            };
            let mut read = Intervals::default();
            read.insert(Interval { start, end });
            for missing in self.missing_in(place, &state.proved, &[]).as_slice() {
                read.remove(*missing);
            }
            if !read.as_slice().is_empty() {
                let learned = Learned {
                    delivered: vec![Interval {
                        start: floor,
                        end: drained,
                    }],
                    events: read.as_slice().to_vec(),
                    ..Learned::default()
                };
                claims.push((place.clone(), learned));
            }
        }
        claims
    }

    /// The accounts and regions.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.states.keys().filter(|place| !place.account.is_empty())
    }

    /// What was read of a place.
    pub(super) fn read(&self, place: &Place) -> BTreeMap<EventName, Intervals> {
        let state = self.states.get(place);
        let mut read = state.map(|state| state.events.clone()).unwrap_or_default();
        // What was missed by all of them was claimed by none, but maybe by another process.
        let proved = state.map(|state| state.proved.clone()).unwrap_or_default();
        for missing in self.missing_in(place, &proved, &[]).as_slice() {
            for read in read.values_mut() {
                read.remove(*missing);
            }
        }
        read.retain(|_, read| !read.as_slice().is_empty());
        read
    }

    fn gaps_of(&self, place: &Place) -> impl Iterator<Item = &Gap> {
        self.states
            .get(place)
            .into_iter()
            .flat_map(|state| state.gaps.values())
    }

    /// What is missing of a place, the latest first.
    pub(super) fn gaps(&self, place: &Place) -> Vec<Gap> {
        let everywhere = whole();
        let proved = self.states.get(place).map(|state| settled(&state.proved));
        let concerns = |gap: &&Gap| !proved.as_ref().is_some_and(|all| all.covers(gap.span));
        let everywhere = self.gaps_of(&everywhere).filter(concerns);
        let all = self.gaps_of(place).chain(everywhere);
        let mut gaps: Vec<Gap> = all.cloned().collect();
        gaps.sort_by_key(|gap| std::cmp::Reverse(gap.span.end));
        gaps.truncate(SHOWN_GAPS);
        gaps
    }
}

/// The minute that a file's name says it was delivered in.
fn minute_of(file: &LogFile) -> Interval {
    let end = file.delivered.checked_add(SignedDuration::from_mins(1));
    Interval {
        start: file.delivered,
        end: end.unwrap_or(Timestamp::MAX),
    }
}

/// A name for what is missing: the key of a file, or what stands for a message.
pub(super) fn name_of(bucket: &str, key: &str) -> Arc<str> {
    format!("{bucket}/{key}").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Reason;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_763_600_400 + minutes * 60).unwrap()
    }

    fn span(from: i64, to: i64) -> Interval {
        Interval {
            start: at(from),
            end: at(to),
        }
    }

    fn here() -> Place {
        Place {
            account: "111122223333".into(),
            region: "us-east-1".into(),
        }
    }

    fn gap(from: i64, to: i64) -> Gap {
        Gap {
            reason: Reason::FileUnreadable,
            message: "org-trail/x".to_owned(),
            span: span(from, to),
        }
    }

    fn see(cover: &mut Cover, minute: i64) -> bool {
        let learned = cover.seen(&here(), at(minute));
        learned.is_some_and(|learned| {
            cover.apply(&here(), &learned);
            true
        })
    }

    fn miss(cover: &mut Cover, place: &Place, name: &str, gap: Gap) -> bool {
        let learned = cover.missing(place, name, gap);
        learned.is_some_and(|learned| {
            cover.apply(place, &learned);
            true
        })
    }

    /// What is claimed at an instant counts from then on.
    fn drain(cover: &mut Cover, minute: i64, retention: SignedDuration) -> Vec<Interval> {
        let mut spans = Vec::new();
        for (place, learned) in cover.claims(at(minute), retention) {
            cover.apply(&place, &learned);
            spans.extend(learned.events);
        }
        spans
    }

    #[test]
    fn time_counts_from_the_first_file_to_some_minutes_before_the_queue_was_empty() {
        let mut cover = Cover::default();
        assert_eq!(drain(&mut cover, 0, DAY), []);
        assert!(see(&mut cover, 10));
        assert!(!see(&mut cover, 12));
        assert_eq!(drain(&mut cover, 20, DAY), []);
        assert!(cover.read(&here()).is_empty());
        assert_eq!(drain(&mut cover, 40, DAY), [span(10, 25)]);
        assert_eq!(drain(&mut cover, 41, DAY), [span(25, 26)]);
        assert!(!see(&mut cover, 1), "sent again");
        assert_eq!(drain(&mut cover, 41, DAY), []);
    }

    #[test]
    fn messages_out_of_order_begin_with_the_earliest() {
        let mut cover = Cover::default();
        assert!(see(&mut cover, 12) && see(&mut cover, 10));
        assert_eq!(drain(&mut cover, 40, DAY), [span(10, 25)]);
    }

    #[test]
    fn an_outage_is_bridged_where_the_queue_kept_everything() {
        let mut cover = Cover::default();
        see(&mut cover, 0);
        drain(&mut cover, 40, DAY);
        assert_eq!(drain(&mut cover, 40 + 20 * 60, DAY), [span(25, 1225)]);
        // Two days later the first of them is lost: the queue keeps one.
        let late = 1240 + 2 * 24 * 60;
        let claims = drain(&mut cover, late, DAY);
        assert_eq!(claims, [span(late - 24 * 60 + 5, late - 15)]);
        let read = cover.read(&here());
        assert_eq!(read[&EventName::PutImage].as_slice().len(), 2);
    }

    #[test]
    fn what_was_not_read_is_a_gap_until_it_is() {
        let mut cover = Cover::default();
        see(&mut cover, 0);
        assert!(miss(&mut cover, &here(), "x", gap(20, 36)));
        assert!(!miss(&mut cover, &here(), "x", gap(20, 36)));
        assert_eq!(drain(&mut cover, 45, DAY), [span(0, 20)]);
        assert_eq!(drain(&mut cover, 60, DAY), [span(36, 45)]);
        assert_eq!(cover.gaps(&here()).len(), 1);
        let found = cover.found(&here(), "x").unwrap();
        assert_eq!(found.events, [span(20, 36)]);
        cover.apply(&here(), &found);
        assert_eq!(cover.gaps(&here()), []);
        let read = cover.read(&here());
        assert_eq!(read[&EventName::BatchGetImage].as_slice(), [span(0, 45)]);
    }

    #[test]
    fn a_gap_takes_back_what_another_process_claimed() {
        let mut cover = Cover::default();
        see(&mut cover, 0);
        drain(&mut cover, 60, DAY);
        miss(&mut cover, &here(), "x", gap(20, 36));
        let read = cover.read(&here());
        assert_eq!(
            read[&EventName::PutImage].as_slice(),
            [span(0, 20), span(36, 45)]
        );
    }

    #[test]
    fn what_names_no_place_is_missing_everywhere() {
        let mut cover = Cover::default();
        see(&mut cover, 0);
        miss(&mut cover, &whole(), "m", gap(10, 20));
        assert_eq!(drain(&mut cover, 45, DAY), [span(0, 10), span(20, 30)]);
        assert_eq!(cover.places().count(), 1);
        assert!(cover.forget(at(15)).is_empty());
        for (place, learned) in cover.forget(at(21)) {
            cover.apply(&place, &learned);
        }
        assert_eq!(cover.gaps(&here()), []);
    }

    fn log_name(minute: i64) -> String {
        let time = at(minute).to_zoned(jiff::tz::TimeZone::UTC);
        format!(
            "org-trail/AWSLogs/111122223333/CloudTrail/us-east-1/{}/\
             111122223333_CloudTrail_us-east-1_{}_0123456789abcdef.json.gz",
            time.strftime("%Y/%m/%d"),
            time.strftime("%Y%m%dT%H%MZ")
        )
    }

    fn digest_file(minute: i64) -> DigestFile {
        let time = at(minute).to_zoned(jiff::tz::TimeZone::UTC);
        let key = format!(
            "AWSLogs/111122223333/CloudTrail-Digest/us-east-1/{}/\
             111122223333_CloudTrail-Digest_us-east-1_org_us-east-1_{}.json.gz",
            time.strftime("%Y/%m/%d"),
            time.strftime("%Y%m%dT%H%M%SZ")
        );
        match ObjectKey::parse(None, &key) {
            ObjectKey::Digest(file) => file,
            other => panic!("{other:?}"),
        }
    }

    /// A digest file says that everything delivered within these minutes was read.
    fn prove(cover: &mut Cover, from: i64, to: i64) -> Option<Learned> {
        let learned = cover.proved("org-trail", &digest_file(to), span(from, to))?;
        cover.apply(&here(), &learned);
        Some(learned)
    }

    fn covered(cover: &Cover) -> Vec<Interval> {
        let read = cover.read(&here());
        read.get(&EventName::BatchGetImage)
            .map(|read| read.as_slice().to_vec())
            .unwrap_or_default()
    }

    #[test]
    fn digests_cover_an_hour_though_the_queue_was_never_empty_or_lost_what_it_had() {
        let mut cover = Cover::default();
        see(&mut cover, 30);
        prove(&mut cover, 0, 60);
        assert_eq!(covered(&cover), [span(0, 45)]);
        prove(&mut cover, 60, 120);
        assert_eq!(covered(&cover), [span(0, 105)]);
        assert_eq!(cover.proved_until(&here()), Some(at(120)));
        // Then it was empty: what is not proved yet counts by delivery.
        drain(&mut cover, 150, DAY);
        assert_eq!(covered(&cover), [span(0, 135)]);
        assert!(prove(&mut cover, 60, 120).is_none(), "nothing new");
    }

    #[test]
    fn an_empty_queue_covers_what_lies_between_two_hours_that_digests_prove() {
        let mut cover = Cover::default();
        see(&mut cover, 0);
        drain(&mut cover, 30, DAY);
        prove(&mut cover, 120, 180);
        assert_eq!(covered(&cover), [span(0, 15), span(120, 165)]);
        drain(&mut cover, 200, DAY);
        assert_eq!(covered(&cover), [span(0, 185)]);
    }

    #[test]
    fn what_a_digest_proves_is_missing_no_more() {
        let mut cover = Cover::default();
        see(&mut cover, 0);
        miss(&mut cover, &here(), &log_name(40), gap(25, 41));
        miss(&mut cover, &here(), &log_name(70), gap(55, 71));
        miss(&mut cover, &whole(), "a message", gap(10, 31));
        drain(&mut cover, 100, DAY);
        let parts = [span(0, 10), span(41, 55), span(71, 85)];
        assert_eq!(covered(&cover), parts);
        prove(&mut cover, 0, 60);
        assert_eq!(covered(&cover), [span(0, 55), span(71, 85)]);
        let left: Vec<Interval> = cover.gaps(&here()).iter().map(|gap| gap.span).collect();
        assert_eq!(left, [span(55, 71)]);
    }

    #[test]
    fn a_digest_that_finds_something_missing_takes_its_hour_back_until_it_is_read() {
        let mut cover = Cover::default();
        see(&mut cover, 0);
        drain(&mut cover, 200, DAY);
        let digest = digest_file(120);
        let name = name_of("org-trail", &digest.key);
        assert!(cover.lacks("org-trail", &digest));
        miss(&mut cover, &here(), &name, gap(45, 120));
        assert!(!cover.lacks("org-trail", &digest));
        assert_eq!(covered(&cover), [span(0, 45), span(120, 185)]);
        let ObjectKey::Log(log) = ObjectKey::parse(None, &log_name(90)["org-trail/".len()..])
        else {
            panic!("no log file");
        };
        assert_eq!(cover.doubted("org-trail", &log), [digest]);
        prove(&mut cover, 60, 120);
        assert_eq!(covered(&cover), [span(0, 185)]);
        assert_eq!(cover.gaps(&here()), []);
        // From before the queue was told of anything.
        assert!(!cover.lacks("org-trail", &digest_file(-60)));
    }

    #[test]
    fn gaps_without_number_become_wider_ones() {
        let mut cover = Cover::default();
        see(&mut cover, 0);
        for minute in 0..1000 {
            miss(
                &mut cover,
                &here(),
                &minute.to_string(),
                gap(minute, minute + 1),
            );
        }
        assert_eq!(cover.states[&here()].gaps.len(), MOST_GAPS);
        assert_eq!(cover.gaps(&here()).len(), SHOWN_GAPS);
        assert_eq!(drain(&mut cover, 1015, DAY), []);
    }
}
