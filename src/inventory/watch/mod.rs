//! The watch: pods, nodes and namespaces of a cluster → the index, for as long as the process runs.
//!
//! One `kube` watcher for each kind lists page by page, watches from there, and lists again when
//! the API server has forgotten where it was (410 Gone). What it decodes is one of our own small
//! objects; one that cannot be decoded is logged, counted and passed over, not an end of the stream.

mod health;
mod object;

use std::{
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, Instant},
};

use futures::StreamExt;
use kube::{
    Api, Client,
    api::ObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tracing::{debug, warn};

use self::{
    health::{bounded, is_gone},
    object::{Followed, Watched},
};
use super::{Changes, Index, Kind, Namespace, Node, Pod};

pub use self::health::{Failure, Health};

/// Objects in a page of a list. A page is held in memory, and pods are 13 KB each.
const PAGE: u32 = 200;

/// A failure that was not followed by another one for this long is over, even when nothing has
/// happened in the cluster since: the watcher tries again at most a minute later, and a connection
/// attempt ends after 30 seconds.
const QUIET: Duration = Duration::from_secs(100);

/// The API server restarts now and then. Only what goes on for longer is a failure to tell of.
const PERSISTENT: Duration = Duration::from_secs(20);

/// What runs in a cluster, kept current by [`Inventory::run`].
#[derive(Debug)]
pub struct Inventory {
    index: RwLock<Index>,
    states: Mutex<[State; Kind::ALL.len()]>,
    namespaces_wanted: watch::Sender<bool>,
    changed: Notify,
}

#[derive(Clone, Debug, Default)]
struct State {
    lists: u64,
    undecodable: u64,
    /// The failure, and when the row of failures that it belongs to began.
    failing: Option<(Failure, Instant)>,
    /// Whether the failure is to be told of.
    told: bool,
}

impl Default for Inventory {
    fn default() -> Self {
        Self {
            index: RwLock::default(),
            states: Mutex::default(),
            namespaces_wanted: watch::Sender::new(false),
            changed: Notify::new(),
        }
    }
}

impl Inventory {
    /// An inventory that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known to run. Hold it shortly: nothing is learned meanwhile.
    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has changed since this was last asked.
    pub fn take_changes(&self) -> Changes {
        self.index
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take_changes()
    }

    /// Waits until something has changed that [`Self::take_changes`] or [`Self::health`] tells. For
    /// one waiter.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Has namespaces watched from now on: some policy selects them by label.
    pub fn want_namespaces(&self) {
        self.namespaces_wanted
            .send_if_modified(|wanted| !std::mem::replace(wanted, true));
    }

    /// How each watch is doing.
    #[must_use]
    pub fn health(&self) -> Vec<Health> {
        let wanted = *self.namespaces_wanted.borrow();
        let states = self.states();
        Kind::ALL
            .into_iter()
            .filter(|kind| wanted || *kind != Kind::Namespace)
            .map(|kind| {
                let state = &states[kind as usize];
                Health {
                    kind,
                    synced: state.lists > 0,
                    lists: state.lists,
                    undecodable: state.undecodable,
                    failure: state
                        .failing
                        .as_ref()
                        .filter(|_| state.told)
                        .map(|(failure, _)| failure.clone()),
                }
            })
            .collect()
    }

    /// Whether everything that is watched has been seen at least once.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.health().iter().all(|health| health.synced)
    }

    /// Watches the cluster until it is dropped.
    pub async fn run(&self, client: Client) {
        let namespaces = async {
            let mut wanted = self.namespaces_wanted.subscribe();
            // The sender is ours, so it is there.
            if wanted.wait_for(|wanted| *wanted).await.is_ok() {
                self.follow::<Namespace>(client.clone()).await;
            }
        };
        futures::join!(
            self.follow::<Pod>(client.clone()),
            self.follow::<Node>(client.clone()),
            namespaces,
        );
    }

    async fn follow<K: Followed>(&self, client: Client) {
        let objects = Api::<Watched<K>>::all(client);
        let config = watcher::Config::default().page_size(PAGE);
        let mut events = pin!(watcher(objects, config).default_backoff());
        loop {
            match timeout(QUIET, events.next()).await {
                Ok(Some(Ok(event))) => self.handle(event),
                Ok(Some(Err(error))) => self.failed(K::KIND, &error, Instant::now()),
                // A watcher never ends.
                Ok(None) => return,
                Err(_) => {
                    if self.states()[K::KIND as usize].lists > 0 {
                        self.recovered(K::KIND);
                    }
                }
            }
        }
    }

    fn handle<K: Followed>(&self, event: Event<Watched<K>>) {
        match event {
            Event::Init => self.write(K::KIND, |index| index.begin(K::KIND)),
            Event::InitApply(watched) | Event::Apply(watched) => {
                match watched.object {
                    Ok(object) => self.write(K::KIND, |index| object.apply(index)),
                    Err(error) => self.undecodable(K::KIND, &watched.meta, &error),
                }
                self.recovered(K::KIND);
            }
            Event::InitDone => {
                self.states()[K::KIND as usize].lists += 1;
                self.write(K::KIND, |index| index.finish(K::KIND));
                debug!(kind = K::KIND.as_str(), "listed");
                self.recovered(K::KIND);
                self.changed.notify_one();
            }
            Event::Delete(watched) => {
                let namespace = watched.meta.namespace.as_deref().unwrap_or_default();
                let name = watched.meta.name.as_deref().unwrap_or_default();
                self.write(K::KIND, |index| K::delete(index, namespace, name));
                self.recovered(K::KIND);
            }
        }
    }

    /// Changes the index, and says so if that changed anything. During the very first list nobody
    /// is told: half an inventory is none.
    fn write(&self, kind: Kind, change: impl FnOnce(&mut Index)) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut index);
        let changed = index.has_changes();
        drop(index);
        if changed && self.states()[kind as usize].lists > 0 {
            self.changed.notify_one();
        }
    }

    fn states(&self) -> MutexGuard<'_, [State; Kind::ALL.len()]> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn undecodable(&self, kind: Kind, meta: &ObjectMeta, error: &str) {
        self.states()[kind as usize].undecodable += 1;
        warn!(
            kind = kind.as_str(),
            namespace = bounded(meta.namespace.as_deref().unwrap_or_default()),
            name = bounded(meta.name.as_deref().unwrap_or_default()),
            error,
            "passed over an object that cannot be decoded"
        );
    }

    fn failed(&self, kind: Kind, error: &watcher::Error, now: Instant) {
        if is_gone(error) {
            // What was missed meanwhile is listed now: the ordinary way of catching up.
            debug!(kind = kind.as_str(), "listing again");
            return;
        }
        let failure = Failure::new(kind, error);
        let mut states = self.states();
        let state = &mut states[kind as usize];
        let since = state.failing.as_ref().map_or(now, |(_, since)| *since);
        let told =
            failure.is_definite() || state.lists == 0 || now.duration_since(since) >= PERSISTENT;
        let news = told && !state.told;
        if state.failing.is_none() || news {
            warn!(kind = kind.as_str(), reason = failure.reason, "{failure}");
        }
        state.told = told;
        state.failing = Some((failure, since));
        drop(states);
        if news {
            self.changed.notify_one();
        }
    }

    fn recovered(&self, kind: Kind) {
        let mut states = self.states();
        let state = &mut states[kind as usize];
        let told = std::mem::take(&mut state.told);
        state.failing = None;
        drop(states);
        if told {
            self.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn watched(name: &str, image: &str) -> Watched<Pod> {
        let text = format!(
            r#"{{"metadata": {{"namespace": "shop", "name": "{name}", "resourceVersion": "7",
                              "creationTimestamp": "2026-11-22T12:00:00Z"}},
                "spec": {{"containers": [{{"name": "app", "image": {image}}}]}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    const IMAGE: &str = r#""111122223333.dkr.ecr.us-east-1.amazonaws.com/web""#;

    fn synced() -> Inventory {
        let inventory = Inventory::new();
        inventory.handle::<Pod>(Event::Init);
        inventory.handle(Event::InitApply(watched("web", IMAGE)));
        inventory.handle::<Pod>(Event::InitDone);
        inventory
    }

    fn pods(inventory: &Inventory) -> Health {
        inventory.health().remove(0)
    }

    fn error(code: u16) -> watcher::Error {
        let status = Status {
            code,
            message: "because".into(),
            ..Status::default()
        };
        watcher::Error::InitialListFailed(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn an_object_that_cannot_be_decoded_is_counted_and_leaves_the_others_alone() {
        let inventory = synced();
        inventory.handle(Event::Apply(watched("odd", "3")));
        inventory.handle(Event::Apply(watched("other", IMAGE)));
        assert_eq!(pods(&inventory).undecodable, 1);
        assert_eq!(inventory.index().pod_count(), 2);
        // One that went needs only its name.
        inventory.handle(Event::Delete(watched("web", "3")));
        assert_eq!(inventory.index().pod_count(), 1);
    }

    #[test]
    fn nobody_is_told_of_half_a_first_list() {
        let told = |inventory: &Inventory| is_ready(inventory.changed());
        let inventory = Inventory::new();
        inventory.handle::<Pod>(Event::Init);
        inventory.handle(Event::InitApply(watched("web", IMAGE)));
        assert!(!told(&inventory));
        assert!(!pods(&inventory).synced);
        inventory.handle::<Pod>(Event::InitDone);
        assert!(told(&inventory));
        assert!(pods(&inventory).synced);
        assert!(!inventory.synced(), "nodes are not there yet");
    }

    /// Whether a future is ready at once.
    fn is_ready(future: impl Future<Output = ()>) -> bool {
        use std::task::{Context, Poll, Waker};
        let mut context = Context::from_waker(Waker::noop());
        matches!(pin!(future).poll(&mut context), Poll::Ready(()))
    }

    #[test]
    fn an_api_server_that_restarts_is_no_failure_but_one_that_stays_away_is() {
        let inventory = synced();
        let start = Instant::now();
        for seconds in [0, 10, 19] {
            let now = start + Duration::from_secs(seconds);
            inventory.failed(Kind::Pod, &error(503), now);
            assert_eq!(pods(&inventory).failure, None);
        }
        let now = start + Duration::from_secs(20);
        inventory.failed(Kind::Pod, &error(503), now);
        let failure = pods(&inventory).failure.unwrap();
        assert_eq!(failure.reason, "ServerError");
        assert_eq!(failure.to_string(), "cannot list pods: because");
        inventory.handle(Event::Apply(watched("web", IMAGE)));
        assert_eq!(pods(&inventory).failure, None);
    }

    #[test]
    fn what_waiting_does_not_help_against_is_told_at_once() {
        for (code, reason) in [(401, "Unauthorized"), (403, "Forbidden"), (404, "Refused")] {
            let inventory = synced();
            inventory.failed(Kind::Pod, &error(code), Instant::now());
            assert_eq!(pods(&inventory).failure.unwrap().reason, reason);
        }
    }

    #[test]
    fn a_first_list_that_fails_is_told_at_once() {
        let inventory = Inventory::new();
        inventory.failed(Kind::Node, &error(429), Instant::now());
        assert_eq!(
            inventory.health()[1].failure.as_ref().unwrap().reason,
            "Throttled"
        );
    }

    #[test]
    fn having_to_list_again_is_no_failure() {
        let inventory = Inventory::new();
        inventory.failed(Kind::Pod, &error(410), Instant::now());
        assert_eq!(pods(&inventory).failure, None);
    }
}
