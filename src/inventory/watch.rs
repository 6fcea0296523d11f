//! The watch: pods, nodes and namespaces of a cluster → the index, for as long as the process runs.
//!
//! One `kube` watcher for each kind lists page by page, watches from there, and lists again when
//! the API server has forgotten where it was (410 Gone). What it decodes is one of our own small
//! objects; one that cannot be decoded is logged, counted and passed over, not an end of the stream.

use std::{
    borrow::Cow,
    fmt,
    pin::pin,
    sync::{Mutex, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use futures::StreamExt;
use kube::{
    Api, Client, Resource,
    api::ObjectMeta,
    core::{ClusterResourceScope, NamespaceResourceScope},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tracing::{debug, warn};

use super::{Changes, Index, Kind, Namespace, Node, Pod};

/// Objects in a page of a list. A page is held in memory, and pods are 13 KB each.
const PAGE: u32 = 200;

/// A failure that was not followed by another one for this long is over, even when nothing has
/// happened in the cluster since: the watcher tries again at most a minute later, and a connection
/// attempt ends after 30 seconds.
const QUIET: Duration = Duration::from_secs(100);

/// The API server restarts now and then. Only what goes on for longer is a failure to tell of.
const PERSISTENT: Duration = Duration::from_secs(20);

/// Longest message of a failure; part of it is the server's own text.
const MAX_MESSAGE: usize = 300;

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

/// How the watch of one kind is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is watched.
    pub kind: Kind,
    /// Whether every object of this kind has been seen at least once.
    pub synced: bool,
    /// How many times every object was listed.
    pub lists: u64,
    /// How many times an object could not be decoded.
    pub undecodable: u64,
    /// Why it does not work at present.
    pub failure: Option<Failure>,
}

/// Why objects could not be listed or watched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {verb} {}: {message}", kind.plural())]
pub struct Failure {
    /// What could not be read.
    pub kind: Kind,
    /// The verb of the request, as an RBAC rule names it: `list` or `watch`.
    pub verb: &'static str,
    /// `Forbidden`, `Unauthorized`, `Throttled`, `ServerError`, `Refused`, `Malformed` or
    /// `Unreachable`.
    pub reason: &'static str,
    /// The API server's message, or the transport's; bounded.
    pub message: String,
}

impl Failure {
    fn new(kind: Kind, error: &watcher::Error) -> Self {
        let (verb, reason, message) = match error {
            watcher::Error::InitialListFailed(error) => described("list", error),
            watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
                described("watch", error)
            }
            watcher::Error::WatchError(status) => {
                ("watch", reason(status.code), status.message.clone())
            }
            watcher::Error::NoResourceVersion => ("list", "Malformed", error.to_string()),
        };
        Self {
            kind,
            verb,
            reason,
            message: bounded(&message),
        }
    }

    /// Whether waiting will not help.
    fn is_definite(&self) -> bool {
        matches!(self.reason, "Forbidden" | "Unauthorized" | "Refused")
    }
}

fn described(verb: &'static str, error: &kube::Error) -> (&'static str, &'static str, String) {
    match error {
        kube::Error::Api(status) => (verb, reason(status.code), status.message.clone()),
        kube::Error::SerdeError(_) => (verb, "Malformed", error.to_string()),
        _ => (verb, "Unreachable", chain(error)),
    }
}

fn reason(code: u16) -> &'static str {
    match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        429 => "Throttled",
        400..500 => "Refused",
        _ => "ServerError",
    }
}

/// Whether the API server no longer knows where a watch, or a list of several pages, was.
fn is_gone(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status) => status.code == 410,
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => status.code == 410,
        _ => false,
    }
}

/// An error with its causes: the outermost says only that a request failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

/// On one line, and not longer than anybody reads.
fn bounded(message: &str) -> String {
    message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_MESSAGE)
        .collect()
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
                Ok(Some(Err(error))) => self.failed(K::KIND, &error),
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

    fn states(&self) -> std::sync::MutexGuard<'_, [State; Kind::ALL.len()]> {
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

    fn failed(&self, kind: Kind, error: &watcher::Error) {
        if is_gone(error) {
            // What was missed meanwhile is listed now: the ordinary way of catching up.
            debug!(kind = kind.as_str(), "listing again");
            return;
        }
        let failure = Failure::new(kind, error);
        let mut states = self.states();
        let state = &mut states[kind as usize];
        let now = Instant::now();
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

/// A kind of object that the index is made of, as the API serves it.
trait Followed: DeserializeOwned + Clone + fmt::Debug + Send + Sync + 'static {
    type Scope;
    const KIND: Kind;
    fn apply(&self, index: &mut Index);
    fn delete(index: &mut Index, namespace: &str, name: &str);
    /// Namespace, name and resource version.
    fn identity(&mut self) -> Identity;
}

impl Followed for Pod {
    type Scope = NamespaceResourceScope;
    const KIND: Kind = Kind::Pod;
    fn apply(&self, index: &mut Index) {
        index.apply_pod(self);
    }
    fn delete(index: &mut Index, namespace: &str, name: &str) {
        index.delete_pod(namespace, name);
    }
    fn identity(&mut self) -> Identity {
        Identity {
            namespace: Some(self.namespace.as_ref().to_owned()),
            name: Some(self.name.as_ref().to_owned()),
            resource_version: self.resource_version.take(),
        }
    }
}

impl Followed for Node {
    type Scope = ClusterResourceScope;
    const KIND: Kind = Kind::Node;
    fn apply(&self, index: &mut Index) {
        index.apply_node(self);
    }
    fn delete(index: &mut Index, _namespace: &str, name: &str) {
        index.delete_node(name);
    }
    fn identity(&mut self) -> Identity {
        Identity {
            namespace: None,
            name: Some(self.name.as_ref().to_owned()),
            resource_version: self.resource_version.take(),
        }
    }
}

impl Followed for Namespace {
    type Scope = ClusterResourceScope;
    const KIND: Kind = Kind::Namespace;
    fn apply(&self, index: &mut Index) {
        index.apply_namespace(self);
    }
    fn delete(index: &mut Index, _namespace: &str, name: &str) {
        index.delete_namespace(name);
    }
    fn identity(&mut self) -> Identity {
        Identity {
            namespace: None,
            name: Some(self.name.as_ref().to_owned()),
            resource_version: self.resource_version.take(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Identity {
    namespace: Option<String>,
    name: Option<String>,
    resource_version: Option<String>,
}

/// All that is read of an object that cannot be decoded.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Undecodable {
    metadata: Identity,
}

/// An object as the watcher carries it: what `kube` must know of it, and ours, or why there is none.
#[derive(Clone, Debug)]
struct Watched<K> {
    meta: ObjectMeta,
    object: Result<K, String>,
}

impl<'de, K: Followed> Deserialize<'de> for Watched<K> {
    /// One object that does not decode must not take its page, or its stream, with it: only text
    /// that is no JSON is an error here.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&'de RawValue>::deserialize(deserializer)?.get();
        let (identity, object) = match serde_json::from_str::<K>(text) {
            Ok(mut object) => (object.identity(), Ok(object)),
            Err(error) => {
                let undecodable: Undecodable = serde_json::from_str(text).unwrap_or_default();
                (undecodable.metadata, Err(bounded(&error.to_string())))
            }
        };
        let meta = ObjectMeta {
            namespace: identity.namespace,
            name: identity.name,
            resource_version: identity.resource_version,
            ..ObjectMeta::default()
        };
        Ok(Self { meta, object })
    }
}

impl<K: Followed> Resource for Watched<K> {
    type DynamicType = ();
    type Scope = K::Scope;
    fn kind((): &()) -> Cow<'_, str> {
        K::KIND.as_str().into()
    }
    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        K::KIND.plural().into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}
