//! The evidence that `check` judges: what the events say of the repositories that running images
//! come from, and of nothing else.
//!
//! The judgement must not depend on the order of the events, on how often one comes, or on the
//! files that they came in. So nothing is decided while they arrive: what may matter is kept in a
//! compact form, and which copy of a call counts is decided when a repository is asked for.

mod fingerprints;
mod pulls;
mod settle;
mod spans;

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    sync::Arc,
};

// Every judged record is looked up in some of these, with long keys: by a hash that is quick.
use hashbrown::{HashMap as Map, HashSet as Set};
use jiff::Timestamp;

pub use self::spans::Span;
use self::{
    fingerprints::{Fingerprint, Fingerprints},
    pulls::Pulls,
    settle::Corrections,
    spans::Spans,
};
use crate::{
    audit::{ClusterNodes, RepositoryEvidence, Rules},
    event::{Action, Caller, Counted, Digest, Event, ImageId, Outcome, Repository},
};

/// What the events must concern to be kept.
#[derive(Debug)]
pub struct Scope {
    /// Repositories that running images come from.
    pub repositories: Set<Repository>,
    /// Digests that run, or that references name: those of manifests and of configs.
    pub digests: HashSet<Digest>,
    /// Instance ids of the cluster's nodes.
    pub instances: HashSet<Arc<str>>,
    /// Who is expected to pull, and how long pulls are judged.
    pub rules: Rules,
    /// The evaluation time: later events judge nothing.
    pub now: Timestamp,
}

/// Events of ECR, as far as they can matter.
#[derive(Debug)]
pub struct Evidence {
    scope: Arc<Scope>,
    duplicates: u64,
    tally: Tally,
    seen: Fingerprints,
    nodes: ClusterNodes,
    expected: ExpectedCallers,
    corrections: Corrections,
    texts: Set<Arc<str>>,
    callers: Interner<Caller>,
    images: Interner<[ImageId]>,
    changes: Map<Repository, BTreeMap<Arc<str>, Arc<Event>>>,
    pulls: Map<Repository, Pulls>,
}

/// What is counted of every record, as far as it needs no look at the others: each thread counts
/// by itself.
#[derive(Debug, Default)]
pub struct Tally {
    spans: Spans,
    omitted: u64,
}

impl Tally {
    /// Counts a record.
    pub fn add(&mut self, record: &Counted<'_>) {
        self.spans.add(record.account, record.region, record.time);
        self.omitted += u64::from(record.omitted);
    }
}

/// What tells whether a record was seen before.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    id: Fingerprint,
    shared_id: Option<Fingerprint>,
}

impl From<&Counted<'_>> for Identity {
    fn from(record: &Counted<'_>) -> Self {
        Self {
            id: Fingerprint::of(0, record.id),
            shared_id: record.shared_id.map(|shared| Fingerprint::of(1, shared)),
        }
    }
}

/// Each distinct value once, by number.
#[derive(Debug)]
struct Interner<T: ?Sized> {
    numbers: Map<Arc<T>, u32>,
    values: Vec<Arc<T>>,
}

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Self {
            numbers: Map::default(),
            values: Vec::new(),
        }
    }
}

impl<T: ?Sized + Eq + std::hash::Hash> Interner<T> {
    /// The number of a value, which `keep` gives in the form that is kept if it is new.
    fn number(&mut self, value: &T, keep: impl FnOnce() -> Arc<T>) -> u32 {
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        // Four thousand million distinct callers do not fit into memory anyway.
        let number = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        let value = keep();
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }
}

/// Callers that were asked for lately, and whether a pull by them makes no finding.
#[derive(Debug, Default)]
struct ExpectedCallers {
    /// Each with the number of node principals that were known then: with more, more is expected.
    verdicts: Map<Arc<Caller>, (bool, usize)>,
}

impl ExpectedCallers {
    /// Most callers remembered.
    const KEPT: usize = 4096;

    fn holds(&mut self, caller: &Arc<Caller>, rules: &Rules, nodes: &ClusterNodes) -> bool {
        match self.verdicts.get(caller) {
            Some((true, _)) => return true,
            Some((false, keys)) if *keys == nodes.keys.len() => return false,
            _ => {}
        }
        let expected = rules.expects_puller(caller, nodes) != Some(false);
        if self.verdicts.len() >= Self::KEPT {
            self.verdicts.clear();
        }
        self.verdicts
            .insert(caller.clone(), (expected, nodes.keys.len()));
        expected
    }
}

impl Evidence {
    /// Evidence of nothing yet.
    pub fn new(scope: Arc<Scope>) -> Self {
        let nodes = ClusterNodes {
            instances: scope.instances.clone(),
            keys: HashSet::new(),
        };
        Self {
            scope,
            duplicates: 0,
            tally: Tally::default(),
            seen: Fingerprints::default(),
            nodes,
            expected: ExpectedCallers::default(),
            corrections: Corrections::default(),
            texts: Set::default(),
            callers: Interner::default(),
            images: Interner::default(),
            changes: Map::default(),
            pulls: Map::default(),
        }
    }

    /// Takes note of a record: whether it was seen before.
    pub fn see(&mut self, record: Identity) {
        let known_id = !self.seen.insert(record.id);
        let known_call = record
            .shared_id
            .is_some_and(|shared| !self.seen.insert(shared));
        self.duplicates += u64::from(known_id || known_call);
    }

    /// Takes what a thread has counted.
    pub fn merge(&mut self, tally: &Tally) {
        self.tally.spans.merge(&tally.spans);
        self.tally.omitted += tally.omitted;
    }

    /// Learns from whoever pulled anything, not after the evaluation time.
    pub fn learn(&mut self, puller: &Caller) {
        self.nodes.learn(puller);
    }

    /// Keeps what may matter of an event.
    pub fn add(&mut self, event: Event) {
        if let Some(original) = &event.replaces {
            self.corrections.add(&event.id, original);
        }
        if event.time > self.scope.now {
            return;
        }
        match &event.action {
            Action::None => {}
            Action::Pull(_) => self.pull(&event),
            _ => self.change(event),
        }
    }

    fn pull(&mut self, event: &Event) {
        // Every copy of a call teaches, whichever of them will be reported.
        self.learn(&event.caller);
        let (Action::Pull(images), Some(repository)) = (&event.action, &event.repository) else {
            return;
        };
        let since = self.scope.rules.lookback_start(self.scope.now);
        if event.time < since || !self.scope.repositories.contains(repository) {
            return;
        }
        let denied = event.outcome == Outcome::Denied;
        // What is expected makes no finding, and is the bulk. But a pull by tag may count as one
        // that could not be resolved, and a copy or correction may have to stand for another record.
        let alone = event.shared_id.is_none() && event.replaces.is_none();
        let resolved = denied || images.iter().all(|image| image.digest.is_some());
        if alone
            && resolved
            && self
                .expected
                .holds(&event.caller, &self.scope.rules, &self.nodes)
        {
            return;
        }
        let row = pulls::NewPull {
            id: &event.id,
            shared_id: event.shared_id.as_deref(),
            corrected: settle::corrected(event),
            time: event.time,
            caller: self.caller(&event.caller),
            images: self.images.number(images, || images.as_slice().into()),
            denied,
        };
        if let Some(pulls) = self.pulls.get_mut(repository) {
            pulls.add(&row);
        } else {
            self.pulls.entry(repository.clone()).or_default().add(&row);
        }
    }

    /// The number of a caller.
    fn caller(&mut self, caller: &Caller) -> u32 {
        let Self { callers, texts, .. } = self;
        callers.number(caller, || {
            let mut caller = caller.clone();
            caller.principal.key = shared(texts, &caller.principal.key);
            let optional = [
                &mut caller.principal.kind,
                &mut caller.principal.account,
                &mut caller.principal.service,
                &mut caller.session,
                &mut caller.arn,
            ];
            for text in optional.into_iter().flatten() {
                *text = shared(texts, text);
            }
            Arc::new(caller)
        })
    }

    fn change(&mut self, mut event: Event) {
        let Some(repository) = &event.repository else {
            return;
        };
        if !self.scope.repositories.contains(repository) {
            return;
        }
        let repository = repository.clone();
        self.share_texts(&mut event);
        if let Action::Push {
            manifest: Some(manifest),
            ..
        } = &mut event.action
        {
            // Which manifest names a config matters only where a node reports that config.
            manifest.config = manifest
                .config
                .take()
                .filter(|config| self.scope.digests.contains(config));
        }
        let event = Arc::new(event);
        match self
            .changes
            .entry(repository)
            .or_default()
            .entry(event.id.clone())
        {
            Entry::Vacant(entry) => {
                entry.insert(event);
            }
            Entry::Occupied(mut entry) => {
                if settle::supersedes(&event, entry.get()) {
                    entry.insert(event);
                }
            }
        }
    }

    fn share_texts(&mut self, event: &mut Event) {
        let texts = &mut self.texts;
        event.account = shared(texts, &event.account);
        event.region = shared(texts, &event.region);
        if let Some(repository) = &mut event.repository {
            repository.account = shared(texts, &repository.account);
            repository.region = shared(texts, &repository.region);
            repository.name = shared(texts, &repository.name);
        }
        let caller = self.caller(&event.caller);
        if let Some(caller) = usize::try_from(caller)
            .ok()
            .and_then(|caller| self.callers.values.get(caller))
        {
            event.caller = caller.clone();
        }
    }

    /// ECR records seen again: an `eventID`, or the second copy of a `sharedEventID`.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// ECR records whose content CloudTrail left out.
    pub fn omitted(&self) -> u64 {
        self.tally.omitted
    }

    /// What was read of each registry account and region, sorted.
    pub fn spans(&self) -> impl Iterator<Item = (&str, &str, &Span)> {
        self.tally.spans.iter()
    }

    /// The cluster's nodes, and the principals that pulls by them used.
    pub fn nodes(&self) -> &ClusterNodes {
        &self.nodes
    }

    /// What there is of one repository: each call once.
    pub fn repository(&self, repository: &Repository) -> RepositoryEvidence {
        let replaced = self.corrections.replaced();
        let changes = self
            .changes
            .get(repository)
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter(|event| !replaced.holds(&event.id, settle::corrected(event)))
            .cloned();
        let changes = settle::one_copy_each(changes.collect(), |event: &Arc<Event>| settle::Copy {
            shared_id: event.shared_id.as_deref(),
            key: &event.caller.principal.key,
            id: &event.id,
            is_pull: false,
        });
        let pulls = self
            .pulls
            .get(repository)
            .map(|pulls| pulls.settled(&self.callers.values, &self.images.values, &replaced))
            .unwrap_or_default();
        RepositoryEvidence { changes, pulls }
    }
}

/// The same text as one allocation.
fn shared(texts: &mut Set<Arc<str>>, text: &Arc<str>) -> Arc<str> {
    if let Some(known) = texts.get(text) {
        return known.clone();
    }
    texts.insert(text.clone());
    text.clone()
}
