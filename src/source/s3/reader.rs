//! Finds the accounts and regions of a bucket, polls each, and reads their history meanwhile.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_sdk_s3::Client;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    listing::{Folder, Lister, client},
    place::{Pace, Tracked},
    read::Work,
};
use crate::source::{
    Board, Changes, Counters, LastError, Origin, PollerSpec, Reason, SourceKind, Store,
    credentials::config,
    fault::Fault,
    trail::{Looker, Objects, trail},
};

/// Accounts and regions that are read at the same time.
const AT_ONCE: usize = 8;
/// How often it is looked for new accounts and regions.
const DISCOVERY: Duration = Duration::from_mins(10);
/// How often it is asked which file is the oldest.
const OLDEST: SignedDuration = SignedDuration::from_hours(24);
/// How often progress is shown.
const PROGRESS: Duration = Duration::from_secs(2);

/// The reader of one bucket.
pub(crate) struct Reader {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) objects: Arc<Objects>,
    pub(crate) changes: Arc<Changes>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) spec: watch::Receiver<PollerSpec>,
    pub(crate) health: Board,
    pub(crate) stop: CancellationToken,
}

/// What is known of the bucket.
#[derive(Default)]
struct Session {
    client: Option<Client>,
    tracked: BTreeMap<Folder, Tracked>,
    discovered: Option<(Instant, PollerSpec)>,
    /// Days of history that were read, with the files and bytes in them and the time they took.
    days: f64,
    files: f64,
    bytes: f64,
    seconds: f64,
    published: Option<Instant>,
    error: Option<LastError>,
    backoff: Option<ExponentialBackoff>,
}

impl Reader {
    /// Reads until it is stopped.
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        // A file that is being stored when this ends is stored by the transaction or not at all.
        let _ = stop.run_until_cancelled_owned(self.read()).await;
    }

    async fn read(mut self) {
        let mut session = Session::default();
        loop {
            let spec = self.spec.borrow_and_update().clone();
            let begun = Instant::now();
            let period = spec.poll_period.max(SignedDuration::from_secs(1));
            let next = begun + Duration::try_from(period).unwrap_or(Duration::from_mins(1));
            let round = Box::pin(self.round(&spec, &mut session, next)).await;
            let wait = match round {
                Ok(()) => {
                    session.error = None;
                    session.backoff = None;
                    next
                }
                Err(fault) => Instant::now() + self.failed(&spec, &mut session, fault),
            };
            let took = SignedDuration::try_from(begun.elapsed()).unwrap_or_default();
            self.publish(&spec, &mut session, took, true);
            tokio::select! {
                () = sleep_until(wait) => {}
                changed = self.spec.changed() => if changed.is_err() {
                    // Nobody wants it any more: what stops it is on its way.
                    sleep(Duration::from_secs(1)).await;
                },
            }
        }
    }

    /// Everything once: what is there, what is new, and history until the next poll is due.
    async fn round(
        &self,
        spec: &PollerSpec,
        session: &mut Session,
        next: Instant,
    ) -> Result<(), Fault> {
        let Origin::S3 { bucket, prefix } = &spec.key.origin else {
            return Err(Fault::new(Reason::Refused, "not a bucket"));
        };
        let client = if let Some(client) = &session.client {
            client.clone()
        } else {
            let made = client(&Box::pin(config(&spec.key)).await?);
            session.client.insert(made).clone()
        };
        let count = || {
            self.counters
                .count_request(SourceKind::S3, &"".into(), &spec.key.region);
        };
        let work = Work {
            looker: Looker {
                store: &*self.store,
                objects: &self.objects,
                client: &client,
                bucket,
            },
            lister: Lister {
                client: &client,
                bucket,
                count: &count,
            },
            counters: &self.counters,
            changes: &self.changes,
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        };
        self.discover(&work, prefix, spec, session).await?;
        if self.poll(&work, session).await? {
            // Where it is the credentials that are outdated, the next round finds others.
            session.client = None;
        }
        self.health.modify(|health| {
            health.names_all = true;
            health.last_success = Some(Timestamp::now());
            health.last_error = None;
        });
        session.error = None;
        self.publish(spec, session, SignedDuration::ZERO, true);
        self.history(&work, spec, session, next).await
    }

    async fn discover(
        &self,
        work: &Work<'_>,
        prefix: &str,
        spec: &PollerSpec,
        session: &mut Session,
    ) -> Result<(), Fault> {
        let is_due = session
            .discovered
            .as_ref()
            .is_none_or(|(at, of)| at.elapsed() >= DISCOVERY || of.accounts != spec.accounts);
        if is_due {
            let wants = |account: &str| spec.wants_account(account);
            let places = work.lister.places(prefix, &wants).await?;
            let mut states = BTreeMap::new();
            let mut tracked = BTreeMap::new();
            for (folder, has_digests) in places {
                let mut one = if let Some(one) = session.tracked.remove(&folder) {
                    one
                } else {
                    if !states.contains_key(&folder.root) {
                        let trail = trail(work.looker.bucket, &folder.root);
                        let state = self.store.trail(&trail).await;
                        let state =
                            state.map_err(|error| Fault::new(Reason::Ledger, error.to_string()))?;
                        states.insert(folder.root.clone(), state);
                    }
                    let of_root = states.get_mut(&folder.root);
                    let state = of_root.and_then(|states| states.remove(&folder.place));
                    Tracked::new(folder.clone(), state.unwrap_or_default())
                };
                one.has_digests = has_digests;
                tracked.insert(folder, one);
            }
            if session.discovered.is_none() {
                info!(
                    bucket = work.looker.bucket,
                    places = tracked.len(),
                    "reading the bucket"
                );
            }
            session.tracked = tracked;
            session.discovered = Some((Instant::now(), spec.clone()));
        }
        let fault = Mutex::new(None);
        let now = Timestamp::now();
        let unknown = session.tracked.values_mut().filter(|tracked| {
            tracked
                .oldest
                .is_none_or(|(_, asked)| now.duration_since(asked) >= OLDEST)
        });
        stream::iter(unknown)
            .for_each_concurrent(AT_ONCE, async |tracked| {
                match work.lister.oldest(&tracked.folder).await {
                    Ok(oldest) => tracked.oldest = oldest.map(|oldest| (oldest, now)),
                    Err(error) => {
                        remember(&fault, error);
                    }
                }
            })
            .await;
        take(fault).map_or(Ok(()), Err)
    }

    /// What is new, of every account and region. Whether access to one was denied.
    async fn poll(&self, work: &Work<'_>, session: &mut Session) -> Result<bool, Fault> {
        let whole = Mutex::new(None);
        let is_denied = AtomicBool::new(false);
        stream::iter(session.tracked.values_mut())
            .for_each_concurrent(AT_ONCE, async |tracked| {
                if is_set(&whole) {
                    return;
                }
                match Box::pin(work.poll(tracked)).await {
                    Ok(()) => tracked.poll_succeeded(Timestamp::now()),
                    Err(fault) if is_of_all(&fault) => remember(&whole, fault),
                    Err(fault) => {
                        if fault.reason == Reason::AccessDenied {
                            is_denied.store(true, Ordering::Relaxed);
                        }
                        self.tell(&tracked.folder, &fault);
                        tracked.poll_failed(&fault, Timestamp::now());
                    }
                }
            })
            .await;
        take(whole).map_or(Ok(is_denied.into_inner()), Err)
    }

    /// History, the newest days first, until `next`.
    async fn history(
        &self,
        work: &Work<'_>,
        spec: &PollerSpec,
        session: &mut Session,
        next: Instant,
    ) -> Result<(), Fault> {
        loop {
            let now = Timestamp::now();
            let begun = Instant::now();
            if begun >= next || self.spec.has_changed().unwrap_or(true) {
                return Ok(());
            }
            let mut due: Vec<_> = session
                .tracked
                .values_mut()
                .filter_map(|tracked| Some((tracked.next_day(spec, now)?, tracked)))
                .collect();
            due.sort_by_key(|(day, _)| std::cmp::Reverse(*day));
            due.truncate(AT_ONCE / 2);
            if due.is_empty() {
                return Ok(());
            }
            let whole = Mutex::new(None);
            let read = AtomicU64::new(0);
            let before = progress(work);
            stream::iter(due)
                .for_each_concurrent(AT_ONCE, async |(day, tracked)| {
                    match Box::pin(work.day(tracked, day, next)).await {
                        Ok(true) => {
                            tracked.day_read(day);
                            read.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(false) => {}
                        Err(fault) if is_of_all(&fault) => remember(&whole, fault),
                        Err(fault) => {
                            self.tell(&tracked.folder, &fault);
                            tracked.day_failed(day, &fault, Timestamp::now());
                        }
                    }
                })
                .await;
            let after = progress(work);
            session.days += float(read.into_inner());
            session.files += float(after.0 - before.0);
            session.bytes += float(after.1 - before.1);
            session.seconds += begun.elapsed().as_secs_f64();
            self.publish(spec, session, SignedDuration::ZERO, false);
            if let Some(fault) = take(whole) {
                return Err(fault);
            }
        }
    }

    /// Notes a fault that concerns the bucket as a whole; how long to wait.
    fn failed(&self, spec: &PollerSpec, session: &mut Session, fault: Fault) -> Duration {
        warn!(reason = %fault.reason, message = %fault.message, "the bucket cannot be read");
        self.counters
            .count_error(SourceKind::S3, &"".into(), &spec.key.region, fault.reason);
        let now = Timestamp::now();
        let since = match &session.error {
            Some(error) if error.reason == fault.reason => error.since,
            _ => now,
        };
        let error = LastError {
            reason: fault.reason,
            message: fault.message,
            since,
        };
        session.error = Some(error.clone());
        self.health.modify(|health| health.last_error = Some(error));
        // What the client holds may be outdated: files, roles and tokens are looked up anew.
        session.client = None;
        let backoff = session.backoff.get_or_insert_with(|| {
            ExponentialBuilder::default()
                .with_min_delay(Duration::from_secs(1))
                .with_max_delay(Duration::from_mins(1))
                .with_jitter()
                .without_max_times()
                .build()
        });
        backoff.next().unwrap_or(Duration::from_mins(1))
    }

    fn tell(&self, folder: &Folder, fault: &Fault) {
        let (account, region) = (&folder.place.account, &folder.place.region);
        self.counters
            .count_error(SourceKind::S3, account, region, fault.reason);
        warn!(
            %account, %region, reason = %fault.reason, message = %fault.message,
            "files of the trail cannot be read"
        );
    }

    /// Makes the state visible. A poll that took longer than its period is the period.
    fn publish(
        &self,
        spec: &PollerSpec,
        session: &mut Session,
        took: SignedDuration,
        at_once: bool,
    ) {
        let is_due = session.published.is_none_or(|at| at.elapsed() >= PROGRESS);
        if !at_once && !is_due {
            return;
        }
        session.published = Some(Instant::now());
        let now = Timestamp::now();
        let days_to_go: f64 = session
            .tracked
            .values()
            .map(|tracked| tracked.days_to_go(spec, now))
            .sum();
        let days = session.days.max(1.0);
        let pace = Pace {
            files: session.files / days,
            bytes: session.bytes / days,
            seconds: days_to_go * session.seconds / days,
        };
        let period = spec.poll_period.max(took);
        let places = session.tracked.values();
        let polled = places.filter(|tracked| tracked.has_news());
        let healths = polled.map(|tracked| {
            let mut health = tracked.health(spec, pace, now);
            health.poll_period = period;
            Arc::new(health)
        });
        self.health.places(healths.collect::<Vec<_>>());
        self.changes.health();
    }
}

fn remember(first: &Mutex<Option<Fault>>, fault: Fault) {
    let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
    first.get_or_insert(fault);
}

fn is_set(fault: &Mutex<Option<Fault>>) -> bool {
    fault
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .is_some()
}

fn take(fault: Mutex<Option<Fault>>) -> Option<Fault> {
    fault.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a fault of one account and region would be the same for every other.
const fn is_of_all(fault: &Fault) -> bool {
    matches!(
        fault.reason,
        Reason::BucketMissing
            | Reason::NoCredentials
            | Reason::AssumeRoleFailed
            | Reason::ExpiredToken
            | Reason::ClockSkewed
            | Reason::WrongRegion
            | Reason::Connection
            | Reason::ServerError
            | Reason::Throttled
            | Reason::Ledger
    )
}

fn progress(work: &Work<'_>) -> (u64, u64) {
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    (load(&work.files), load(&work.bytes))
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
const fn float(count: u64) -> f64 {
    count as f64
}
