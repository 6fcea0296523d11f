//! What a policy's sources have read: by registry, what is covered, since when, and what is wrong.
//!
//! A registry is covered by the sources that read the trail of its account in its region. Several
//! of them are one piece of evidence: what any of them has read was read. Time counts as covered
//! without a gap from the end backwards, and only where every event name that the question needs
//! was read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    event::{EventName, Interval, Intervals},
    source::{Gap, Health, Proof},
};

/// The events that say whether an image is there: all but pulls.
pub const CHANGES: [EventName; 5] = [
    EventName::PolicyExecutionEvent,
    EventName::BatchDeleteImage,
    EventName::DeleteRepository,
    EventName::UpdateImageStorageClass,
    EventName::PutImage,
];

/// The events that say who pulled.
pub const PULLS: [EventName; 1] = [EventName::BatchGetImage];

/// How late CloudTrail may be before evidence counts as stale, two poll periods not included.
const DELIVERY: SignedDuration = SignedDuration::from_mins(15);

/// Back-fill ends where the reader says, give or take what passes while it reads.
const SLACK: SignedDuration = SignedDuration::from_mins(2);

/// Account id and region.
pub type PlaceName = (String, String);

/// One source of a policy in one account and region, under the policy's name for it.
#[derive(Clone, Debug)]
pub struct SourceHealth {
    /// `spec.sources[].name`.
    pub name: String,
    /// How its reader is.
    pub health: Arc<Health>,
}

/// What was read of one account and region.
#[derive(Clone, Debug, Default)]
pub struct Place {
    read: BTreeMap<EventName, Intervals>,
    target: BTreeMap<EventName, Timestamp>,
    poll_period: SignedDuration,
    /// How long the rest of the history will take, where that is known.
    pub backfill: Option<SignedDuration>,
    gaps: Vec<Gap>,
    /// By what each source knows that it has read everything.
    pub proofs: Vec<Proof>,
}

impl Place {
    fn add(&mut self, health: &Health) {
        for (name, intervals) in &health.coverage {
            let read = self.read.entry(*name).or_default();
            for interval in intervals.as_slice() {
                read.insert(*interval);
            }
        }
        for (name, target) in &health.horizon {
            let old = self.target.entry(*name).or_insert(*target);
            *old = (*old).min(*target);
        }
        self.poll_period = self.poll_period.max(health.poll_period);
        self.backfill = self.backfill.max(health.backfill.map(|rest| rest.duration));
        self.gaps.extend(health.gaps.iter().cloned());
        self.proofs.push(health.proof);
    }

    /// What is known to be missing, and no other source has read.
    pub fn gaps(&self, names: &[EventName]) -> impl Iterator<Item = &Gap> {
        self.gaps
            .iter()
            .filter(move |gap| !self.covers(names, gap.span))
    }

    /// The time in which every one of these names was read.
    #[must_use]
    pub fn read(&self, names: &[EventName]) -> Intervals {
        let mut sets = names.iter().map(|name| self.read.get(name));
        let Some(first) = sets.next().flatten().cloned() else {
            return Intervals::default();
        };
        sets.try_fold(first, |all, set| Some(all.intersect(set?)))
            .unwrap_or_default()
    }

    /// How far back these names are read, where a reader has said so of one of them.
    #[must_use]
    pub fn target(&self, names: &[EventName]) -> Option<Timestamp> {
        names
            .iter()
            .filter_map(|name| self.target.get(name))
            .min()
            .copied()
    }

    /// The latest span in which every one of these names was read without a gap.
    #[must_use]
    pub fn run(&self, names: &[EventName]) -> Option<Interval> {
        self.read(names).as_slice().last().copied()
    }

    /// How old the end of what was read may be before it counts as stale.
    #[must_use]
    pub fn patience(&self) -> SignedDuration {
        DELIVERY + self.poll_period + self.poll_period
    }

    /// Whether these names were read recently enough to say what is so now.
    #[must_use]
    pub fn is_fresh(&self, names: &[EventName], now: Timestamp) -> bool {
        self.run(names)
            .is_some_and(|run| now.duration_since(run.end) <= self.patience())
    }

    /// Whether history is still to be read of one of these names; also where nothing was read yet, or
    /// by a source that never reads back.
    #[must_use]
    pub fn is_backfilling(&self, names: &[EventName]) -> bool {
        names.iter().any(|name| self.start(*name).is_none()) || self.is_reading_back(names)
    }

    /// Whether a source is known to have older events of one of these names to read.
    #[must_use]
    pub fn is_reading_back(&self, names: &[EventName]) -> bool {
        names.iter().any(|name| {
            let start = self.start(*name);
            self.target.get(name).is_some_and(|target| {
                start.is_none_or(|start| start.duration_since(*target) > SLACK)
            })
        })
    }

    /// Since when a name was read without a gap until lately.
    fn start(&self, name: EventName) -> Option<Timestamp> {
        Some(self.read.get(&name)?.as_slice().last()?.start)
    }

    /// Whether every one of these names was read in this whole span.
    #[must_use]
    pub fn covers(&self, names: &[EventName], span: Interval) -> bool {
        names.iter().all(|name| {
            self.read
                .get(name)
                .is_some_and(|read| span.start >= span.end || read.covers(span))
        })
    }
}

/// What a policy's sources have read.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    places: BTreeMap<PlaceName, Place>,
    /// Each source in each account and region.
    pub sources: Vec<SourceHealth>,
}

impl Evidence {
    /// From the readers of a policy's sources. What is said of a bucket or queue as a whole is
    /// left out once its places say everything.
    #[must_use]
    pub fn new(mut sources: Vec<SourceHealth>) -> Self {
        let mut places: BTreeMap<PlaceName, Place> = BTreeMap::new();
        let mut named: BTreeSet<String> = BTreeSet::new();
        for source in &sources {
            if let Some(account) = &source.health.account {
                named.insert(source.name.clone());
                places
                    .entry((account.to_string(), source.health.region.to_string()))
                    .or_default()
                    .add(&source.health);
            }
        }
        sources.retain(|source| {
            let health = &source.health;
            let says_nothing = health.is_of_whole_source()
                && health.names_all
                && health.last_error.is_none()
                && named.contains(&source.name);
            !says_nothing
        });
        Self { places, sources }
    }

    /// What was read of an account and region; none when no source reads there.
    #[must_use]
    pub fn place(&self, account: &str, region: &str) -> Option<&Place> {
        self.places.get(&(account.to_owned(), region.to_owned()))
    }

    /// Every account and region that is read.
    pub fn places(&self) -> impl Iterator<Item = (&PlaceName, &Place)> {
        self.places.iter()
    }

    /// Whether a source has not said yet which accounts it reads.
    #[must_use]
    pub fn has_unnamed(&self) -> bool {
        self.sources
            .iter()
            .any(|source| source.health.account.is_none() && !source.health.names_all)
    }

    /// How old the newest evidence may be.
    #[must_use]
    pub fn patience(&self) -> SignedDuration {
        self.sources
            .iter()
            .map(|source| source.health.poll_period)
            .max()
            .map_or(DELIVERY, |poll| DELIVERY + poll + poll)
    }
}
