//! One writer: a `Lease` that one process holds at a time.
//!
//! Every change of the lease carries the `resourceVersion` it was decided on, so two processes
//! cannot both win. A holder that cannot renew in time stops being one by itself, before anybody
//! else may take over: it measures by its own monotonic clock from when it *sent* the renewal that
//! succeeded, and asks again before every write, so that neither a paused process nor a clock
//! that jumps makes two. Others measure by theirs how long the lease has not changed; the times
//! that are written in it are for people. So is the holder's name: what tells a process from
//! another one of the same name, such as its own successor in a restarted container, is a random
//! number in an annotation.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use super::admin::{Gate, Readiness};
use crate::report::text::plain;

/// Name of the lease.
const NAME: &str = "ecr-audit-operator";
/// For how long a lease that is not renewed stays its holder's.
const DURATION: Duration = Duration::from_secs(10);
/// How long after sending its last renewal the holder still acts as one.
const DEADLINE: Duration = Duration::from_secs(7);
/// How long after that nobody else may lead yet: what it had sent must have an answer by then.
/// [`DURATION`] less [`DEADLINE`].
const GRACE: Duration = Duration::from_secs(3);
/// How often the holder renews.
const RENEW: Duration = Duration::from_secs(2);
/// How often others look.
const LOOK: Duration = Duration::from_secs(1);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(4);
/// Annotation that says which process holds the lease.
const SESSION: &str = "ecraudit.io/session";

/// Who leads, as this process knows it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership {
    leads: watch::Receiver<bool>,
    until: Arc<Mutex<Option<Instant>>>,
    holder: Arc<Mutex<Option<String>>>,
}

impl Leadership {
    /// Who held the lease when it was read last; none when nobody did.
    #[must_use]
    pub fn holder(&self) -> Option<String> {
        self.holder
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether this process may write, right now.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| Instant::now() < until)
    }

    /// Waits for the answer to a write, but no longer than nobody else can lead: what is still on
    /// its way then is abandoned. None when it was.
    pub async fn while_held<T>(&self, write: impl Future<Output = T>) -> Option<T> {
        let mut write = pin!(write);
        loop {
            let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
            let end = until? + GRACE;
            match time::timeout_at(end.into(), &mut write).await {
                Ok(answer) => return Some(answer),
                // Renewed meanwhile, it may go on.
                Err(_) if self.is_held() => {}
                Err(_) => return None,
            }
        }
    }

    /// Waits until leadership was won or lost.
    pub async fn changed(&mut self) -> bool {
        // The sender lives as long as the campaign; when that has ended, nobody leads here.
        if self.leads.changed().await.is_err() {
            return false;
        }
        *self.leads.borrow_and_update()
    }
}

/// Takes part in the election until told to stop, then gives the lease back.
pub struct Campaign {
    api: Api<Lease>,
    identity: String,
    session: String,
    leads: watch::Sender<bool>,
    until: Arc<Mutex<Option<Instant>>>,
    holder: Arc<Mutex<Option<String>>>,
    readiness: Readiness,
}

/// What another holder's lease looked like, and since when.
struct Observed {
    version: Option<String>,
    since: Instant,
}

impl Campaign {
    /// A campaign for the lease in a namespace, under this name. The client should be nobody
    /// else's: a renewal waits behind no other request.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        identity: String,
        readiness: Readiness,
    ) -> (Self, Leadership) {
        let (leads, leads_of) = watch::channel(false);
        let until = Arc::new(Mutex::new(None));
        let holder = Arc::new(Mutex::new(None));
        let leadership = Leadership {
            leads: leads_of,
            until: until.clone(),
            holder: holder.clone(),
        };
        let campaign = Self {
            api: Api::namespaced(client, namespace),
            identity,
            session: random(),
            leads,
            until,
            holder,
            readiness,
        };
        (campaign, leadership)
    }

    /// Runs until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut observed: Option<Observed> = None;
        let mut said = String::new();
        loop {
            let sent = Instant::now();
            let leads = match time::timeout(REQUEST, self.try_once(&mut observed)).await {
                Ok(Ok(leads)) => {
                    said.clear();
                    self.readiness.open(Gate::Lease);
                    leads
                }
                Ok(Err(error)) => {
                    // Nobody leads for want of a right: that does not pass by itself.
                    if let kube::Error::Api(status) = &error
                        && status.code == 403
                    {
                        self.readiness
                            .wait(Gate::Lease, &plain(&status.message, 300));
                    }
                    let error = error.to_string();
                    if said != error {
                        tracing::warn!(%error, "the lease cannot be read or written");
                        said = error;
                    }
                    false
                }
                Err(_) => false,
            };
            if leads {
                self.set_until(Some(sent + DEADLINE));
                self.say(true);
            } else if !self.is_held() {
                self.set_until(None);
                self.say(false);
            }
            let pause = if self.is_held() { RENEW } else { LOOK };
            tokio::select! {
                () = stop.cancelled() => break,
                () = time::sleep(pause) => {}
            }
        }
        let led = self.is_held();
        self.set_until(None);
        self.say(false);
        if led && time::timeout(REQUEST, self.release()).await.is_err() {
            tracing::warn!("the lease could not be given back in time");
        }
    }

    fn is_held(&self) -> bool {
        self.until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| Instant::now() < until)
    }

    fn set_until(&self, until: Option<Instant>) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    fn say(&self, leads: bool) {
        self.leads.send_if_modified(|old| {
            let changed = *old != leads;
            *old = leads;
            if changed {
                tracing::info!(identity = %self.identity, leads, "leadership");
            }
            changed
        });
    }

    /// Renews, takes over, or finds that another one holds the lease.
    async fn try_once(&self, observed: &mut Option<Observed>) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(NAME).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    annotations: Some([self.mark()].into()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.claim(None, false)),
            };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let version = lease.metadata.resource_version.clone();
        *self.holder.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(holder.clone()).filter(|holder| !holder.is_empty());
        let is_mine = self.holds(&lease);
        if !is_mine && !holder.is_empty() {
            let seen = observed.get_or_insert_with(|| Observed {
                version: version.clone(),
                since: Instant::now(),
            });
            if seen.version != version {
                *seen = Observed {
                    version,
                    since: Instant::now(),
                };
            }
            let held_for = spec
                .lease_duration_seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .map_or(DURATION, Duration::from_secs);
            if seen.since.elapsed() < held_for {
                return Ok(false);
            }
        }
        *observed = None;
        let mut claimed = Lease {
            spec: Some(self.claim(Some(&spec), is_mine)),
            ..lease
        };
        let annotations = claimed.metadata.annotations.get_or_insert_default();
        annotations.extend([self.mark()]);
        won(self
            .api
            .replace(NAME, &PostParams::default(), &claimed)
            .await)
    }

    fn mark(&self) -> (String, String) {
        (SESSION.to_owned(), self.session.clone())
    }

    /// Whether this very process wrote the lease last.
    fn holds(&self, lease: &Lease) -> bool {
        let holder = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.as_ref());
        let annotations = lease.metadata.annotations.as_ref();
        holder == Some(&self.identity)
            && annotations.and_then(|all| all.get(SESSION)) == Some(&self.session)
    }

    fn claim(&self, old: Option<&LeaseSpec>, was_mine: bool) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: old
                .filter(|_| was_mine)
                .and_then(|old| old.acquire_time.clone())
                .or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if old.is_none() || was_mine {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) {
        let released = async {
            let lease = self.api.get(NAME).await?;
            if !self.holds(&lease) {
                return Ok(());
            }
            let spec = lease.spec.clone().unwrap_or_default();
            let released = Lease {
                spec: Some(LeaseSpec {
                    holder_identity: Some(String::new()),
                    lease_duration_seconds: Some(1),
                    ..spec
                }),
                ..lease
            };
            self.api
                .replace(NAME, &PostParams::default(), &released)
                .await
                .map(|_| ())
        };
        match released.await {
            Ok(()) => tracing::info!("the lease was given back"),
            Err(error) => tracing::warn!(%error, "the lease could not be given back"),
        }
    }
}

/// Whether a write of the lease went through; somebody else's was faster otherwise.
fn won(written: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// A number that no other process has: the standard library seeds its hashers from the system's
/// random numbers.
fn random() -> String {
    let number = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", number(), number())
}
