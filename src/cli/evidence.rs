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
    borrow::Borrow,
    collections::{BTreeMap, HashMap, HashSet, btree_map::Entry},
    sync::Arc,
};

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
    pub repositories: HashSet<Repository>,
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
    scope: Scope,
    duplicates: u64,
    omitted: u64,
    seen: Fingerprints,
    spans: Spans,
    nodes: ClusterNodes,
    expected: ExpectedCallers,
    corrections: Corrections,
    texts: HashSet<Arc<str>>,
    callers: Interner<Caller>,
    images: Interner<[ImageId]>,
    changes: HashMap<Repository, BTreeMap<Arc<str>, Arc<Event>>>,
    pulls: HashMap<Repository, Pulls>,
}

/// What is counted of every record.
#[derive(Debug)]
pub struct Record {
    id: Fingerprint,
    shared_id: Option<Fingerprint>,
    time: Timestamp,
    account: Arc<str>,
    region: Arc<str>,
    omitted: bool,
}

impl Record {
    fn of(event: &Event) -> Self {
        Self::from(Counted {
            id: &event.id,
            shared_id: event.shared_id.as_deref(),
            time: event.time,
            account: event.account.clone(),
            region: event.region.clone(),
            omitted: event.omitted,
        })
    }
}

impl From<Counted<'_>> for Record {
    fn from(record: Counted<'_>) -> Self {
        Self {
            id: Fingerprint::of(0, record.id),
            shared_id: record.shared_id.map(|shared| Fingerprint::of(1, shared)),
            time: record.time,
            account: record.account,
            region: record.region,
            omitted: record.omitted,
        }
    }
}

/// Each distinct value once, by number.
#[derive(Debug)]
struct Interner<T: ?Sized> {
    numbers: HashMap<Arc<T>, u32>,
    values: Vec<Arc<T>>,
}

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Self {
            numbers: HashMap::new(),
            values: Vec::new(),
        }
    }
}

impl<T: ?Sized + Eq + std::hash::Hash> Interner<T> {
    fn number(&mut self, value: impl Borrow<T> + Into<Arc<T>>) -> u32 {
        if let Some(number) = self.numbers.get(value.borrow()) {
            return *number;
        }
        // Four thousand million distinct callers do not fit into memory anyway.
        let number = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        let value: Arc<T> = value.into();
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }
}

/// Callers that were asked for lately, and whether a pull by them makes no finding.
#[derive(Debug, Default)]
struct ExpectedCallers {
    /// Each with the number of node principals that were known then: with more, more is expected.
    verdicts: HashMap<Caller, (bool, usize)>,
}

impl ExpectedCallers {
    /// Most callers remembered.
    const KEPT: usize = 4096;

    fn holds(&mut self, caller: &Caller, rules: &Rules, nodes: &ClusterNodes) -> bool {
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
    pub fn new(scope: Scope) -> Self {
        let nodes = ClusterNodes {
            instances: scope.instances.clone(),
            keys: HashSet::new(),
        };
        Self {
            scope,
            duplicates: 0,
            omitted: 0,
            seen: Fingerprints::default(),
            spans: Spans::default(),
            nodes,
            expected: ExpectedCallers::default(),
            corrections: Corrections::default(),
            texts: HashSet::new(),
            callers: Interner::default(),
            images: Interner::default(),
            changes: HashMap::new(),
            pulls: HashMap::new(),
        }
    }

    /// Counts a record that nothing is judged by.
    pub fn count(&mut self, record: &Record) {
        let Record {
            id,
            shared_id,
            time,
            account,
            region,
            omitted,
        } = record;
        let known_id = !self.seen.insert(*id);
        let known_call = shared_id.is_some_and(|shared| !self.seen.insert(shared));
        self.duplicates += u64::from(known_id || known_call);
        self.omitted += u64::from(*omitted);
        self.spans.add(account, region, *time);
    }

    /// Takes an event: counts it, and keeps what may matter of it.
    pub fn add(&mut self, event: Event) {
        self.count(&Record::of(&event));
        if let Some(original) = &event.replaces {
            self.corrections.add(&event.id, original);
        }
        if event.time > self.scope.now {
            return;
        }
        match &event.action {
            Action::None => {}
            Action::Pull(_) => self.pull(event),
            _ => self.change(event),
        }
    }

    fn pull(&mut self, mut event: Event) {
        // Every copy of a call teaches, whichever of them will be reported.
        self.nodes.learn(&event.caller);
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
        self.share_texts(&mut event);
        let corrected = settle::corrected(&event);
        let (Action::Pull(images), Some(repository)) = (event.action, event.repository) else {
            return;
        };
        let row = pulls::NewPull {
            id: &event.id,
            shared_id: event.shared_id.as_deref(),
            corrected,
            time: event.time,
            caller: self.callers.number(event.caller),
            images: self.images.number(images),
            denied,
        };
        self.pulls.entry(repository).or_default().add(&row);
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

    /// The same text as one allocation.
    fn text(&mut self, text: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        self.texts.insert(text.clone());
        text.clone()
    }

    fn share_texts(&mut self, event: &mut Event) {
        event.account = self.text(&event.account);
        event.region = self.text(&event.region);
        if let Some(repository) = &mut event.repository {
            repository.account = self.text(&repository.account);
            repository.region = self.text(&repository.region);
            repository.name = self.text(&repository.name);
        }
        let caller = &mut event.caller;
        caller.principal.key = self.text(&caller.principal.key);
        let optional = [
            &mut caller.principal.kind,
            &mut caller.principal.account,
            &mut caller.principal.service,
            &mut caller.session,
            &mut caller.arn,
        ];
        for text in optional.into_iter().flatten() {
            *text = self.text(text);
        }
    }

    /// ECR records seen again: an `eventID`, or the second copy of a `sharedEventID`.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// ECR records whose content CloudTrail left out.
    pub fn omitted(&self) -> u64 {
        self.omitted
    }

    /// What was read of each registry account and region, sorted.
    pub fn spans(&self) -> impl Iterator<Item = (&str, &str, &Span)> {
        self.spans.iter()
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
