//! Reads one account and region: asks what the planner wants, stores, tells.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use aws_sdk_cloudtrail::Client;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    client::{Looked, client, lookup},
    planner::{Config, Kind, Planner, Request, Step},
};
use crate::{
    event::EventName,
    source::{
        Board, Changes, Counters, Coverage, LastError, Page, Place, PollerSpec, Reason, SourceKind,
        Store,
        credentials::access,
        fault::Fault,
        quota::{Limiter, Limiters},
    },
};

const KIND: SourceKind = SourceKind::LookupEvents;

/// The longest sleep: a clock that was set is noticed after it.
const LONGEST_SLEEP: SignedDuration = SignedDuration::from_secs(5);
/// Credentials are found anew no more often than this.
const RENEWAL: Duration = Duration::from_secs(5);
/// Progress alone is told this often.
const PROGRESS: Duration = Duration::from_secs(10);

/// The reader of one account and region.
pub(crate) struct Reader {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) changes: Arc<Changes>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) limiters: Arc<Limiters>,
    pub(crate) spec: watch::Receiver<PollerSpec>,
    pub(crate) health: Board,
    pub(crate) stop: CancellationToken,
}

/// What failed: the credentials or the ledger's coverage, or one kind of reading of one name.
type Task = Option<(Kind, EventName)>;

/// What a reader knows once its credentials have said whose they are.
struct Session {
    place: Place,
    client: Client,
    renewed: Instant,
    limiter: Arc<Limiter>,
    planner: Planner,
}

/// The faults that last, and when to try again.
#[derive(Default)]
struct Faults {
    lasting: BTreeMap<Task, LastError>,
    backoffs: HashMap<Task, ExponentialBackoff>,
}

impl Faults {
    /// Notes a fault; how long to wait.
    fn note(&mut self, task: Task, fault: Fault, now: Timestamp) -> Duration {
        let since = match self.lasting.get(&task) {
            Some(before) if before.reason == fault.reason => before.since,
            _ => now,
        };
        let error = LastError {
            reason: fault.reason,
            message: fault.message,
            since,
        };
        self.lasting.insert(task, error);
        let backoff = self.backoffs.entry(task).or_insert_with(|| {
            ExponentialBuilder::default()
                .with_min_delay(Duration::from_secs(1))
                .with_max_delay(Duration::from_mins(1))
                .with_jitter()
                .without_max_times()
                .build()
        });
        backoff.next().unwrap_or(Duration::from_mins(1))
    }

    /// It works again.
    fn clear(&mut self, task: Task) {
        self.lasting.remove(&task);
        self.backoffs.remove(&task);
    }
}

impl Reader {
    /// Reads until it is stopped.
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        // A page that is being stored when this ends is stored by the transaction or not at all.
        let _ = stop.run_until_cancelled_owned(self.read()).await;
    }

    async fn read(mut self) {
        let mut faults = Faults::default();
        let mut session = self.begin(&mut faults).await;
        let mut told = Instant::now();
        loop {
            if self.spec.has_changed().unwrap_or(false) {
                self.reconfigure(&mut session, &mut faults).await;
            }
            let now = Timestamp::now();
            match session.planner.next(now) {
                Step::Wait(until) => {
                    let wait = until.duration_since(now).min(LONGEST_SLEEP);
                    tokio::select! {
                        () = sleep(wait.try_into().unwrap_or(Duration::from_millis(10))) => {}
                        changed = self.spec.changed() => {
                            if changed.is_err() {
                                return;
                            }
                            self.reconfigure(&mut session, &mut faults).await;
                        }
                    }
                }
                Step::Ask(_) => {
                    let limiter = session.limiter.clone();
                    let turn = limiter.turn().await;
                    // While it waited for its turn, something more urgent may have become due.
                    let Step::Ask(request) = session.planner.next(Timestamp::now()) else {
                        continue;
                    };
                    turn.take();
                    let changed = self.ask(&mut session, &request, &mut faults).await;
                    let progress = told.elapsed() >= PROGRESS;
                    if changed || progress {
                        told = Instant::now();
                    }
                    self.publish(&session, &faults, changed || progress);
                }
            }
        }
    }

    /// Credentials, whose they are, and what the ledger says has been read.
    async fn begin(&mut self, faults: &mut Faults) -> Session {
        loop {
            let spec = self.spec.borrow_and_update().clone();
            let begun = async {
                // Boxed: large, and seldom.
                let access = Box::pin(access(&spec.key)).await?;
                let place = Place {
                    account: access.account.clone(),
                    region: spec.key.region.clone(),
                };
                let coverage = self.coverage(&place).await?;
                Ok::<_, Fault>((access, place, coverage))
            };
            match begun.await {
                Ok((access, place, coverage)) => {
                    faults.clear(None);
                    info!(account = %place.account, region = %place.region, "reading the Event history");
                    let session = Session {
                        client: client(&access),
                        renewed: Instant::now(),
                        limiter: self.limiters.of(&place),
                        planner: Planner::new(Config::from(&spec), &coverage),
                        place,
                    };
                    self.publish(&session, faults, true);
                    return session;
                }
                Err(fault) => {
                    let account = spec.key.account().cloned().unwrap_or_default();
                    self.counters
                        .count_error(KIND, &account, &spec.key.region, fault.reason);
                    warn!(
                        %account, region = %spec.key.region, reason = %fault.reason,
                        message = %fault.message, "the Event history cannot be read"
                    );
                    let wait = faults.note(None, fault, Timestamp::now());
                    let error = faults.lasting.get(&None).cloned();
                    self.health.modify(|health| health.last_error = error);
                    self.changes.health();
                    tokio::select! {
                        () = sleep(wait) => {}
                        changed = self.spec.changed() => {
                            if changed.is_err() {
                                // Nobody wants it any more: what stops it is on its way.
                                sleep(wait).await;
                            }
                        }
                    }
                }
            }
        }
    }

    async fn coverage(&self, place: &Place) -> Result<BTreeMap<EventName, Coverage>, Fault> {
        let coverage = self.store.coverage(KIND.as_str(), place).await;
        coverage.map_err(|error| Fault::new(Reason::Ledger, error.to_string()))
    }

    /// The spec is another one. What was pruned meanwhile has to be read again if more is wanted.
    async fn reconfigure(&mut self, session: &mut Session, faults: &mut Faults) {
        let spec = self.spec.borrow_and_update().clone();
        match self.coverage(&session.place).await {
            Ok(coverage) => {
                session.planner.configure(Config::from(&spec), &coverage);
                *faults = Faults::default();
            }
            Err(fault) => {
                // What is known to be read stays what it was; a later change asks again.
                warn!(reason = %fault.reason, message = %fault.message, "coverage cannot be read");
                let known = EventName::JUDGED.map(|name| (name, session.planner.coverage(name)));
                session
                    .planner
                    .configure(Config::from(&spec), &known.into());
            }
        }
        self.publish(session, faults, true);
    }

    /// Sends one request and stores its answer. Whether more changed than progress.
    async fn ask(&self, session: &mut Session, request: &Request, faults: &mut Faults) -> bool {
        let task = Some((request.kind, request.name));
        self.counters
            .count_request(KIND, &session.place.account, &session.place.region);
        let stored = match Box::pin(lookup(&session.client, request)).await {
            Ok(looked) => self.keep(session, request, looked).await,
            Err(fault) => Err(fault),
        };
        match stored {
            Ok(fresh) => {
                let had_error = faults.lasting.contains_key(&task);
                faults.clear(task);
                self.health
                    .modify(|health| health.last_success = Some(request.at));
                had_error || fresh > 0
            }
            Err(fault) => {
                self.failed(session, request, fault, faults).await;
                true
            }
        }
    }

    /// Stores a page with what it proves; how many of its events were new.
    async fn keep(
        &self,
        session: &mut Session,
        request: &Request,
        looked: Looked,
    ) -> Result<u64, Fault> {
        let proof = session.planner.proof(request, &looked.answer);
        let proof = proof.map_err(|error| Fault::new(Reason::Malformed, error.to_string()))?;
        debug!(
            name = %request.name, kind = ?request.kind, events = looked.events.len(),
            others = looked.others, more = looked.answer.token.is_some(), "page"
        );
        let page = Page {
            source: KIND.as_str().into(),
            place: session.place.clone(),
            names: vec![request.name],
            events: looked.events,
            undecodable: looked.undecodable,
            read: proof.read,
            settled: proof.settled,
        };
        let stored = self.store.append(page).await;
        let stored = stored.map_err(|error| Fault::new(Reason::Ledger, error.to_string()))?;
        session
            .planner
            .stored(request, &looked.answer, stored.new_events);
        self.counters
            .count_events(KIND, request.name, stored.new_events);
        if !stored.repositories.is_empty() {
            self.changes.repositories(stored.repositories);
        }
        Ok(stored.new_events)
    }

    async fn failed(
        &self,
        session: &mut Session,
        request: &Request,
        fault: Fault,
        faults: &mut Faults,
    ) {
        let place = &session.place;
        self.counters
            .count_error(KIND, &place.account, &place.region, fault.reason);
        warn!(
            account = %place.account, region = %place.region, name = %request.name,
            kind = ?request.kind, reason = %fault.reason, message = %fault.message,
            "a page of the Event history was not read"
        );
        let reason = fault.reason;
        let now = Timestamp::now();
        let wait = faults.note(Some((request.kind, request.name)), fault, now);
        let until = SignedDuration::try_from(wait)
            .ok()
            .and_then(|wait| now.checked_add(wait).ok());
        session.planner.failed(request, until.unwrap_or(now));
        match reason {
            Reason::InvalidNextToken => session.planner.lost_token(request),
            Reason::Throttled => session.limiter.pause(wait).await,
            Reason::ExpiredToken
            | Reason::AccessDenied
            | Reason::AssumeRoleFailed
            | Reason::NoCredentials
                if session.renewed.elapsed() >= RENEWAL =>
            {
                // What the client holds may be outdated: files, roles and tokens are looked up
                // anew. If that fails, too, the next request says why.
                session.renewed = Instant::now();
                let key = self.spec.borrow().key.clone();
                if let Ok(access) = Box::pin(access(&key)).await
                    && access.account == session.place.account
                {
                    session.client = client(&access);
                }
            }
            _ => {}
        }
    }

    /// Makes the state visible, and tells so if that is worth a look.
    fn publish(&self, session: &Session, faults: &Faults, tell: bool) {
        let now = Timestamp::now();
        let period = self.spec.borrow().poll_period;
        let planner = &session.planner;
        let mut tell = tell;
        self.health.modify(|health| {
            let backfill = planner.backfill(now).map(|mut backfill| {
                // The planner counts a second for each request.
                let pace = self.limiters.pace().as_secs_f64();
                let duration = backfill.duration.as_secs_f64() * pace;
                backfill.duration =
                    SignedDuration::try_from_secs_f64(duration).unwrap_or(SignedDuration::MAX);
                backfill
            });
            let error = faults
                .lasting
                .values()
                .min_by_key(|error| error.since)
                .cloned();
            tell |= health.backfill.is_some() != backfill.is_some() || health.last_error != error;
            health.account = Some(session.place.account.clone());
            health.poll_period = period;
            health.last_error = error;
            health.backfill = backfill;
            let names = EventName::JUDGED.into_iter();
            health.coverage = names
                .clone()
                .map(|name| (name, planner.coverage(name).read))
                .collect();
            health.horizon = names
                .map(|name| (name, planner.horizon(name, now)))
                .collect();
        });
        if tell {
            self.changes.health();
        }
    }
}
