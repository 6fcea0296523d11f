//! Reading one account and region: the files of a day, its digests, and what was missing.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp, civil::Date};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{
    listing::{Files, Lister},
    place::{SLACK, Tracked, before, date, span_of},
};
use crate::{
    event::{Interval, Intervals},
    source::{
        Changes, Counters, Gap, Learned, Reason, SourceKind, Tally,
        fault::Fault,
        trail::{
            DigestFile, LogFile, Looker, ObjectKey, Read, gap_of, hour_before, missed, missed_by,
            name_of, trail,
        },
    },
};

/// Files of one account and region that are fetched at the same time.
const AT_ONCE: usize = 8;
/// How often the digest files are listed.
const DIGESTS: SignedDuration = SignedDuration::from_mins(10);
/// How long after a day began the last digest files and log files of the day before may come.
const DIGEST_DELAY: SignedDuration = SignedDuration::from_hours(3);
/// Digest files that are remembered.
const MOST_DIGESTS: usize = 2_000;

type Found = BTreeMap<Arc<str>, Gap>;

/// What reading needs, for every account and region alike.
pub(super) struct Work<'a> {
    pub(super) looker: Looker<'a>,
    pub(super) lister: Lister<'a>,
    pub(super) counters: &'a Counters,
    pub(super) changes: &'a Changes,
    /// Files and bytes that were read.
    pub(super) files: AtomicU64,
    pub(super) bytes: AtomicU64,
}

impl Work<'_> {
    /// What is new of a place.
    pub(super) async fn poll(&self, tracked: &mut Tracked) -> Result<(), Fault> {
        let now = Timestamp::now();
        let today = date(now);
        let first = span_of(today).start;
        let mut days = vec![today];
        if now.duration_since(first) < SLACK
            && let Ok(yesterday) = today.yesterday()
        {
            days.insert(0, yesterday);
        }
        for day in days {
            let span = span_of(day);
            let from = tracked.poll_from(span);
            let Some(found) = self.files(tracked, day, from, true, None).await? else {
                continue;
            };
            let delivered = read_span(tracked, from, span.end.min(now));
            let mut learned = tracked.learned(delivered, vec![], found, vec![]);
            if !tracked.has_digests {
                learned.forget = None;
            }
            self.keep(tracked, learned, now).await?;
            let old = before(now, SLACK + SLACK);
            tracked.recent.retain(|(delivered, _)| *delivered >= old);
        }
        self.poll_digests(tracked, now).await?;
        self.look_again(tracked, now).await
    }

    /// A day of the history. Whether it was read to its end, or the time was up.
    pub(super) async fn day(
        &self,
        tracked: &mut Tracked,
        day: Date,
        until: Instant,
    ) -> Result<bool, Fault> {
        let now = Timestamp::now();
        let span = span_of(day);
        let files = self.files(tracked, day, span.start, false, Some(until));
        let Some(mut found) = files.await? else {
            return Ok(false);
        };
        let mut proved = vec![];
        if tracked.has_digests {
            (proved, found) = self.digests(tracked, day, found, now).await?;
        }
        let delivered = read_span(tracked, span.start, span.end);
        let mut learned = tracked.learned(delivered, proved, found, vec![]);
        learned.forget = Some(span.end);
        self.keep(tracked, learned, now).await?;
        Ok(true)
    }

    /// Reads every file of a day that was delivered at `from` or later and not read before; what is
    /// missing of these. None when the time was up before all were read.
    async fn files(
        &self,
        tracked: &mut Tracked,
        day: Date,
        from: Timestamp,
        is_poll: bool,
        until: Option<Instant>,
    ) -> Result<Option<Found>, Fault> {
        let span = Interval {
            start: from,
            end: span_of(day).end,
        };
        let mut known = if is_poll && tracked.knows_recent && from > span_of(day).start {
            HashSet::new()
        } else {
            self.known(tracked, span).await?
        };
        if is_poll {
            tracked.recent.extend(known.drain());
            tracked.knows_recent = true;
        }
        let folder = tracked.folder.day(Files::Logs, day);
        let since = tracked.folder.since(day, from);
        let after = (from > span_of(day).start).then_some(since.as_str());
        let (mut found, mut token) = (Found::new(), None);
        loop {
            let page = self.lister.page(&folder, after, token).await?;
            let mut tally = Tally::default();
            let mut fresh: Vec<(LogFile, Option<u64>)> = Vec::new();
            for (key, length) in page.objects {
                match key {
                    ObjectKey::Log(file) if is_here(tracked, &file) => {
                        let id = (file.delivered, file.unique.clone());
                        if known.contains(&id) || tracked.recent.contains(&id) {
                            tally.known += 1;
                        } else if !tracked.state.gaps.contains_key(&file.key) {
                            fresh.push((file, length));
                        }
                    }
                    _ => tally.skipped += 1,
                }
            }
            self.count(tally);
            let mut reading = stream::iter(fresh)
                .map(async |(file, length)| {
                    let Looker {
                        objects,
                        client,
                        bucket,
                        ..
                    } = self.looker;
                    let now = Timestamp::now();
                    let read = objects.read(client, bucket, &file, length, now).await;
                    (file, read)
                })
                .buffer_unordered(AT_ONCE);
            let mut fault = None;
            while let Some((file, read)) = reading.next().await {
                match read {
                    Ok(read) => {
                        self.note(read);
                        if is_poll {
                            tracked.recent.insert((file.delivered, file.unique));
                        }
                    }
                    Err(error) => {
                        self.count(Tally {
                            failed: 1,
                            ..Tally::default()
                        });
                        match gap_of(&error, missed_by(&file)) {
                            Some(gap) => {
                                self.tell(&file, &error);
                                found.insert(file.key, gap);
                            }
                            None => fault = Some(error),
                        }
                    }
                }
            }
            drop(reading);
            if let Some(fault) = fault {
                return Err(fault);
            }
            token = page.next;
            if token.is_none() {
                return Ok(Some(found));
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(None);
            }
        }
    }

    async fn known(
        &self,
        tracked: &Tracked,
        span: Interval,
    ) -> Result<HashSet<(Timestamp, Arc<str>)>, Fault> {
        let folder = &tracked.folder;
        let trail = trail(self.looker.bucket, &folder.root);
        let known = self.looker.store.files(&trail, &folder.place, span).await;
        let known = known.map_err(|error| Fault::new(Reason::Ledger, error.to_string()))?;
        Ok(known
            .into_iter()
            .map(|file| (file.delivered, file.unique))
            .collect())
    }

    async fn poll_digests(&self, tracked: &mut Tracked, now: Timestamp) -> Result<(), Fault> {
        let is_due = tracked
            .digests_listed
            .is_none_or(|at| now.duration_since(at) >= DIGESTS);
        if !tracked.has_digests || !is_due {
            return Ok(());
        }
        let today = date(now);
        let mut days = vec![today];
        if now.duration_since(span_of(today).start) < DIGEST_DELAY
            && let Ok(yesterday) = today.yesterday()
        {
            days.insert(0, yesterday);
        }
        for day in days {
            let (proved, found) = self.digests(tracked, day, Found::new(), now).await?;
            if proved.is_empty() && found.is_empty() {
                continue;
            }
            let mut learned = tracked.learned(None, proved, found, vec![]);
            // What the next digest files will list is delivered later.
            let last = learned.proved.iter().map(|span| span.end).max();
            let of_today = last.map(|end| before(end, DIGEST_DELAY));
            learned.forget = of_today.filter(|_| day == today);
            self.keep(tracked, learned, now).await?;
        }
        tracked.digests_listed = Some(now);
        Ok(())
    }

    /// Looks after the digest files of a day: what they prove, and what is missing in addition.
    async fn digests(
        &self,
        tracked: &mut Tracked,
        day: Date,
        mut found: Found,
        now: Timestamp,
    ) -> Result<(Vec<Interval>, Found), Fault> {
        let folder = tracked.folder.day(Files::Digests, day);
        let (mut listed, mut token) = (Vec::new(), None);
        loop {
            let page = self.lister.page(&folder, None, token).await?;
            let digests = page.objects.into_iter().filter_map(|(key, _)| match key {
                ObjectKey::Digest(file) => Some(file),
                _ => None,
            });
            listed.extend(digests.filter(|file| {
                *file.root == *tracked.folder.root && file.place == tracked.folder.place
            }));
            token = page.next;
            if token.is_none() {
                break;
            }
        }
        let mut proved = Vec::new();
        for file in &listed {
            let is_known = tracked.digests.contains(&file.key)
                || tracked.state.gaps.contains_key(&file.key)
                || ends_in(&tracked.proved_before, file.end);
            if !is_known {
                let (span, gaps) = self.digest(tracked, file, &listed, now).await?;
                proved.extend(span);
                found.extend(gaps);
            }
        }
        if tracked.digests.len() > MOST_DIGESTS {
            tracked.digests.clear();
            tracked.proved_before.clone_from(&tracked.state.proved);
        }
        tracked
            .digests
            .extend(listed.into_iter().map(|file| file.key));
        Ok((proved, found))
    }

    /// Looks after one digest file and the one before it.
    async fn digest(
        &self,
        tracked: &Tracked,
        file: &DigestFile,
        listed: &[DigestFile],
        now: Timestamp,
    ) -> Result<(Option<Interval>, Found), Fault> {
        let checked = self.looker.check(file, now).await?;
        debug!(digest = name_of(&file.key), gap = ?checked.gap, "a digest file was looked after");
        checked.read.into_iter().for_each(|read| self.note(read));
        let mut found = Found::new();
        if let Some(previous) = &checked.previous
            && !file.is_backfill
            && let Some((key, gap)) = self
                .hole(tracked, file, previous, checked.span, listed)
                .await?
        {
            found.insert(key, gap);
        }
        let proved = checked.gap.is_none().then_some(checked.span);
        if let Some(gap) = checked.gap {
            warn!(
                account = %file.place.account, region = %file.place.region,
                reason = %gap.reason, message = %gap.message, "a trail's files are not complete"
            );
            found.insert(file.key.clone(), gap);
        }
        Ok((proved, found))
    }

    /// Whether the digest file before one is gone, and what is therefore not known.
    async fn hole(
        &self,
        tracked: &Tracked,
        file: &DigestFile,
        previous: &str,
        span: Interval,
        listed: &[DigestFile],
    ) -> Result<Option<(Arc<str>, Gap)>, Fault> {
        let is_known = listed.iter().any(|file| *file.key == *previous)
            || tracked.digests.contains(previous)
            || tracked.state.gaps.contains_key(previous);
        let ObjectKey::Digest(before_it) = ObjectKey::parse(None, previous) else {
            return Ok(None);
        };
        // Where history ends, digest files were removed with the files that they list.
        let day = SignedDuration::from_hours(24);
        let is_end = tracked
            .oldest
            .is_none_or(|(oldest, _)| span.start.duration_since(oldest) < day);
        if is_known || is_end || ends_in(&tracked.proved_before, before_it.end) {
            return Ok(None);
        }
        let there = self.lister.page(previous, None, None).await?;
        let is_it =
            |key: &ObjectKey| matches!(key, ObjectKey::Digest(found) if *found.key == *previous);
        if there.objects.iter().any(|(key, _)| is_it(key)) {
            return Ok(None);
        }
        let earlier = listed.iter().filter(|other| {
            other.trail == file.trail && !other.is_backfill && other.end <= span.start
        });
        let hour = hour_before(before_it.end);
        let start = earlier
            .map(|other| other.end)
            .max()
            .unwrap_or(hour)
            .min(hour);
        let message = format!(
            "{}: a digest follows it, and it is not in the bucket",
            name_of(previous)
        );
        let fault = Fault::new(Reason::DigestMissing, message);
        let end = span.start;
        let gap = Gap {
            reason: fault.reason,
            message: fault.message,
            span: missed(Interval { start, end }),
        };
        Ok(Some((before_it.key, gap)))
    }

    /// Looks whether what was missing is there by now.
    async fn look_again(&self, tracked: &mut Tracked, now: Timestamp) -> Result<(), Fault> {
        for key in tracked.due_again(now) {
            let mut learned = Learned::default();
            match ObjectKey::parse(None, &key) {
                ObjectKey::Log(file) => {
                    let Looker {
                        objects,
                        client,
                        bucket,
                        ..
                    } = self.looker;
                    match objects.read(client, bucket, &file, None, now).await {
                        Ok(read) => {
                            self.note(read);
                            learned = tracked.learned(None, vec![], Found::new(), vec![key]);
                        }
                        Err(fault) if gap_of(&fault, missed_by(&file)).is_some() => {}
                        Err(fault) => return Err(fault),
                    }
                }
                ObjectKey::Digest(file) => {
                    let (proved, mut found) = self.digest(tracked, &file, &[], now).await?;
                    let old = tracked.state.gaps.get(&key);
                    let is_missing = |gap: &Gap| gap.reason == Reason::DigestMissing;
                    let is_same =
                        old.is_some_and(is_missing) && found.get(&key).is_some_and(is_missing);
                    if is_same {
                        // It is not there yet.
                        found.remove(&key);
                    }
                    found.retain(|key, gap| tracked.state.gaps.get(key) != Some(gap));
                    let closed = proved.map(|_| key).into_iter().collect();
                    if proved.is_some() || !found.is_empty() {
                        learned =
                            tracked.learned(None, proved.into_iter().collect(), found, closed);
                    }
                }
                ObjectKey::Other => {}
            }
            if !learned.is_empty() {
                self.keep(tracked, learned, now).await?;
            }
        }
        Ok(())
    }

    async fn keep(
        &self,
        tracked: &mut Tracked,
        learned: Learned,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let Some(learned) = tracked.absorb(learned, now) else {
            return Ok(());
        };
        let trail = trail(self.looker.bucket, &tracked.folder.root);
        let place = &tracked.folder.place;
        let stored = self
            .looker
            .store
            .learn(&trail, place, learned.clone())
            .await;
        stored.map_err(|error| {
            tracked.give_back(learned);
            Fault::new(Reason::Ledger, error.to_string())
        })
    }

    fn note(&self, read: Read) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(read.bytes, Ordering::Relaxed);
        self.count(Tally {
            read: 1,
            bytes: read.bytes,
            ..Tally::default()
        });
        for (name, events) in read.new {
            self.counters.count_events(SourceKind::S3, name, events);
        }
        if !read.repositories.is_empty() {
            self.changes.repositories(read.repositories);
        }
    }

    fn count(&self, tally: Tally) {
        self.counters.count_objects(SourceKind::S3, tally);
    }

    fn tell(&self, file: &LogFile, fault: &Fault) {
        let (account, region) = (&file.place.account, &file.place.region);
        self.counters
            .count_error(SourceKind::S3, account, region, fault.reason);
        warn!(
            %account, %region, reason = %fault.reason, message = %fault.message,
            "a file of the trail cannot be read"
        );
    }
}

/// Whether a file belongs to the account and region whose folder it lies in.
fn is_here(tracked: &Tracked, file: &LogFile) -> bool {
    *file.root == *tracked.folder.root && file.place == tracked.folder.place
}

/// Whether the hour that ends then is among what was proved. Another trail's chain may prove it
/// while this one says that a file is missing: so each is looked after once.
fn ends_in(proved: &Intervals, end: Timestamp) -> bool {
    let last = Interval {
        start: before(end, SignedDuration::from_secs(1)),
        end,
    };
    proved.covers(last)
}

/// The delivery time that was read in full: nothing is known before the oldest file.
fn read_span(tracked: &Tracked, from: Timestamp, end: Timestamp) -> Option<Interval> {
    let (oldest, _) = tracked.oldest?;
    let start = from.max(oldest);
    (start < end).then_some(Interval { start, end })
}
