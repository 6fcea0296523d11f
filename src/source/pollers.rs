//! The readers of all policies together: one for each origin, region and credentials.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Board, Counters, Health, Origin, PollerKey, PollerSpec, Store, lookup_events,
    quota::{Limiters, PACE},
    s3, sqs,
    trail::Objects,
};
use crate::event::Repository;

/// More changed repositories than this are told as "all of them".
const MOST_CHANGED: usize = 10_000;

/// How long [`Pollers::stop`] waits for one reader.
const MOST_WAIT: Duration = Duration::from_secs(5);

/// What moved since one asked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Repositories that got new facts.
    pub repositories: BTreeSet<Repository>,
    /// Too many to be named: every repository may have changed.
    pub all: bool,
    /// Coverage or faults moved: ask [`Pollers::health`].
    pub health: bool,
}

/// Where the readers say what moved, and one listener hears it. What is said while nobody listens
/// is kept, merged.
#[derive(Debug, Default)]
pub struct Changes {
    changed: Mutex<Changed>,
    notify: Notify,
}

impl Changes {
    /// Waits until something moved, and takes it. Cancel-safe.
    pub async fn next(&self) -> Changed {
        loop {
            let taken = self.take();
            if taken != Changed::default() {
                return taken;
            }
            self.notify.notified().await;
        }
    }

    /// Takes what moved already.
    #[must_use]
    pub fn take(&self) -> Changed {
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the facts alone: that coverage moved is still to be told.
    #[must_use]
    pub fn take_facts(&self) -> Changed {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::take(&mut *changed);
        changed.health = taken.health;
        Changed {
            health: false,
            ..taken
        }
    }

    pub(crate) fn repositories(&self, repositories: impl IntoIterator<Item = Repository>) {
        self.say(|changed| {
            if !changed.all {
                changed.repositories.extend(repositories);
            }
            if changed.repositories.len() > MOST_CHANGED {
                changed.all = true;
                changed.repositories.clear();
            }
        });
    }

    pub(crate) fn health(&self) {
        self.say(|changed| changed.health = true);
    }

    fn say(&self, what: impl FnOnce(&mut Changed)) {
        what(&mut self.changed.lock().unwrap_or_else(PoisonError::into_inner));
        self.notify.notify_one();
    }
}

/// The readers of all policies. They end with [`Pollers::stop`].
pub struct Pollers {
    store: Arc<dyn Store>,
    changes: Arc<Changes>,
    counters: Arc<Counters>,
    limiters: Arc<Limiters>,
    /// Shared by all readers of buckets and queues.
    objects: Arc<Objects>,
    running: Mutex<HashMap<PollerKey, Running>>,
    stop: CancellationToken,
}

struct Running {
    spec: watch::Sender<PollerSpec>,
    health: watch::Receiver<Vec<Arc<Health>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Pollers {
    /// No reader yet; see [`Pollers::set`].
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::with_pace(store, PACE)
    }

    /// The same, with this time from one request to the next in an account and region. AWS allows
    /// two a second, and everybody in the account shares these.
    #[must_use]
    pub fn with_pace(store: Arc<dyn Store>, pace: Duration) -> Self {
        Self {
            objects: Arc::new(Objects::new(store.clone())),
            store,
            changes: Arc::default(),
            counters: Arc::default(),
            limiters: Arc::new(Limiters::new(pace)),
            running: Mutex::default(),
            stop: CancellationToken::new(),
        }
    }

    /// Makes the readers those that are wanted: starts, changes and stops. Several wishes for one
    /// key become one reader that serves all. To be called within a Tokio runtime.
    pub fn set(&self, wanted: Vec<PollerSpec>) {
        let mut merged: HashMap<PollerKey, PollerSpec> = HashMap::new();
        for spec in wanted {
            match merged.entry(spec.key.clone()) {
                Entry::Occupied(mut have) => have.get_mut().merge(&spec),
                Entry::Vacant(free) => {
                    free.insert(spec);
                }
            }
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|key, reader| {
            let keep = merged.contains_key(key);
            if !keep {
                reader.stop.cancel();
            }
            keep
        });
        for (key, spec) in merged {
            match running.entry(key) {
                Entry::Occupied(have) => {
                    have.get().spec.send_if_modified(|old| {
                        let changed = *old != spec;
                        *old = spec;
                        changed
                    });
                }
                Entry::Vacant(free) => {
                    free.insert(self.start(&spec));
                }
            }
        }
        drop(running);
        self.changes.health();
    }

    fn start(&self, spec: &PollerSpec) -> Running {
        let stop = self.stop.child_token();
        let (health, health_of) = Board::new(spec);
        let (wanted, spec_of) = watch::channel(spec.clone());
        let task = match spec.key.origin {
            Origin::LookupEvents { .. } => tokio::spawn(
                lookup_events::Reader {
                    store: self.store.clone(),
                    changes: self.changes.clone(),
                    counters: self.counters.clone(),
                    limiters: self.limiters.clone(),
                    spec: spec_of,
                    health,
                    stop: stop.clone(),
                }
                .run(),
            ),
            Origin::Sqs { .. } => tokio::spawn(
                sqs::Reader {
                    store: self.store.clone(),
                    changes: self.changes.clone(),
                    counters: self.counters.clone(),
                    objects: self.objects.clone(),
                    spec: spec_of,
                    health,
                    stop: stop.clone(),
                }
                .run(),
            ),
            Origin::S3 { .. } => tokio::spawn(
                s3::Reader {
                    store: self.store.clone(),
                    objects: self.objects.clone(),
                    changes: self.changes.clone(),
                    counters: self.counters.clone(),
                    spec: spec_of,
                    health,
                    stop: stop.clone(),
                }
                .run(),
            ),
        };
        Running {
            spec: wanted,
            health: health_of,
            stop,
            task,
        }
    }

    /// How every reader is, and every account and region that it reads.
    pub fn health(&self) -> Vec<Arc<Health>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .values()
            .flat_map(|reader| reader.health.borrow().clone())
            .collect()
    }

    /// Where changes are told; for one listener.
    pub fn changes(&self) -> Arc<Changes> {
        self.changes.clone()
    }

    /// Counts for the metrics.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Ends every reader, and waits until they have: a page that is being stored is stored.
    pub async fn stop(&self) {
        self.stop.cancel();
        let tasks: Vec<_> = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.drain().map(|(_, reader)| reader.task).collect()
        };
        for task in tasks {
            // A reader that failed has nothing left to end.
            let _ = timeout(MOST_WAIT, task).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn facts_are_taken_without_what_is_said_of_coverage() {
        let repository = Repository {
            account: "111122223333".into(),
            region: "us-east-1".into(),
            name: "shop/web".into(),
        };
        let changes = Changes::default();
        changes.repositories([repository.clone()]);
        changes.health();
        let facts = changes.take_facts();
        assert!(facts.repositories.contains(&repository) && !facts.health);
        let rest = changes.next().await;
        assert!(rest.repositories.is_empty() && rest.health);
        assert_eq!(changes.take(), Changed::default());
    }
}
