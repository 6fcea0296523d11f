//! The loop: whatever moved (a policy, what runs, what was read, the time), the repositories that
//! it concerns are judged anew, and what came out is published where it differs.
//!
//! One task owns everything, so nothing has to be locked but the inventory's index, which other
//! tasks fill. A pass goes through every policy: dereference → validate → assess ([`judge`]) →
//! publish ([`write`]).

mod judge;
mod readers;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp, civil::Date};
use kube::{Client, ResourceExt, api::DynamicObject};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    admin::{Gate, Readiness},
    assess::{Cache, Teacher},
    lease::Leadership,
    policies::Change,
    policy::{Compiled, dereference, validate},
    publish::{Key, Published, Publisher},
    status_page::Board,
    visit,
};
use crate::{
    api::{EcrAuditFinding, EcrAuditPolicy},
    event::Repository,
    inventory::Inventory,
    ledger::Ledger,
    report::{judgement::Fault, metrics::Metrics, vocabulary::Reason},
    source::{Changed, PollerSpec, Pollers},
};

/// How long things that move together are waited for before a pass.
const GATHER: Duration = Duration::from_millis(200);
/// How often a pass is made when nothing moves but the time.
const TICK: Duration = Duration::from_secs(15);
/// How soon a pass that failed is made again, at first and at last.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often the finding objects are read again, in case somebody changed or removed one.
const REREAD: SignedDuration = SignedDuration::from_secs(60);
/// How often pulls that no lookback needs are forgotten.
const PRUNE: SignedDuration = SignedDuration::from_hours(1);
/// How much longer than the longest lookback pulls are kept.
const PRUNE_SLACK: SignedDuration = SignedDuration::from_hours(24);
/// How long it is remembered which file of a trail was read, for those that hear of it twice.
const FILES_KEPT: SignedDuration = SignedDuration::from_hours(4 * 24);

/// A policy, and what is known about it.
pub(super) struct Policy {
    pub object: EcrAuditPolicy,
    pub compiled: Result<Compiled, Fault>,
    pub cache: Cache,
    /// Everything has to be judged anew.
    pub stale: bool,
    pub published: BTreeMap<Key, Published>,
    pub written_at: Option<Timestamp>,
    pub write_fault: Option<Fault>,
    /// New findings whose Events are still to be written.
    pub untold: Vec<EcrAuditFinding>,
    pub readers: Vec<(String, PollerSpec)>,
}

/// Everything that the loop owns.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says what is to be done next"
)]
pub(super) struct Controller {
    client: Client,
    ledger: Ledger,
    pollers: Pollers,
    inventory: Arc<Inventory>,
    publisher: Publisher,
    leadership: Leadership,
    metrics: Metrics,
    board: Board,
    readiness: Readiness,
    /// Whether the custom resources are defined as this version needs them.
    definitions: watch::Receiver<bool>,
    policies: BTreeMap<String, Policy>,
    /// Whether every policy was listed once.
    listed: bool,
    teacher: Teacher,
    cluster: Option<String>,
    dirty: HashSet<Repository>,
    all_dirty: bool,
    new_facts: bool,
    nodes_known: bool,
    leader_since: Option<Timestamp>,
    /// Finding objects have to be read from the API before any is written.
    unread: bool,
    read_at: Option<Timestamp>,
    wanted: Vec<PollerSpec>,
    /// What the ledger said last of the facts that other processes bring.
    touched: BTreeMap<Repository, String>,
    heard_at: Option<Timestamp>,
    judged_on: Option<Date>,
    pruned_at: Option<Timestamp>,
    pulls_seen: visit::PullsSeen,
    /// The failures that were logged since everything was written last.
    told: BTreeSet<String>,
}

impl Controller {
    /// A controller that has seen nothing yet.
    #[expect(clippy::too_many_arguments, reason = "it wires everything")]
    pub(super) fn new(
        client: Client,
        ledger: Ledger,
        pollers: Pollers,
        inventory: Arc<Inventory>,
        publisher: Publisher,
        leadership: Leadership,
        metrics: Metrics,
        board: Board,
        readiness: Readiness,
        definitions: watch::Receiver<bool>,
    ) -> Self {
        Self {
            client,
            ledger,
            pollers,
            inventory,
            publisher,
            leadership,
            metrics,
            board,
            readiness,
            definitions,
            policies: BTreeMap::new(),
            listed: false,
            teacher: Teacher::default(),
            cluster: None,
            dirty: HashSet::new(),
            all_dirty: true,
            new_facts: true,
            nodes_known: false,
            leader_since: None,
            unread: true,
            read_at: None,
            wanted: vec![],
            touched: BTreeMap::new(),
            heard_at: None,
            judged_on: None,
            pruned_at: None,
            pulls_seen: visit::PullsSeen::default(),
            told: BTreeSet::new(),
        }
    }

    /// Runs until told to stop, then ends the readers.
    pub(super) async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        stop: CancellationToken,
    ) {
        let sources = self.pollers.changes();
        let inventory = self.inventory.clone();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(change) = changes.recv() => self.policy_changed(change),
                () = inventory.changed() => {}
                facts = sources.next() => self.facts_changed(facts),
                _ = self.leadership.changed() => {}
                Ok(()) = self.definitions.changed() => {}
                _ = tick.tick() => {}
                () = sleep(retry.unwrap_or(TICK)), if retry.is_some() => {}
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(GATHER) => {}
            }
            while let Ok(change) = changes.try_recv() {
                self.policy_changed(change);
            }
            tokio::select! {
                () = stop.cancelled() => break,
                whole = self.timed_pass() => {
                    retry = (!whole).then(|| {
                        retry.map_or(RETRY.0, |pause: Duration| (pause * 2).min(RETRY.1))
                    });
                }
            }
        }
        self.pollers.stop().await;
    }

    fn policy_changed(&mut self, change: Change) {
        match change {
            Change::All(objects) => {
                self.listed = true;
                let names: BTreeSet<String> = objects.iter().map(ResourceExt::name_any).collect();
                for policy in self.policies.keys().cloned().collect::<Vec<_>>() {
                    if !names.contains(&policy) {
                        self.deleted(&policy);
                    }
                }
                for object in objects {
                    self.applied(object);
                }
            }
            Change::Applied(object) => self.applied(*object),
            Change::Deleted(name) => self.deleted(&name),
        }
    }

    fn applied(&mut self, object: DynamicObject) {
        let name = object.name_any();
        let (object, validity) = dereference(object);
        let known = self.policies.get_mut(&name);
        if let Some(policy) = known.filter(|policy| is_same_spec(&policy.object, &object)) {
            policy.object = object;
            return;
        }
        let compiled = validity.and_then(|()| validate(&object.spec));
        if let Err(fault) = &compiled {
            tracing::warn!(policy = %name, reason = %fault.reason, "the policy cannot be judged: {}", fault.message);
        }
        if compiled
            .as_ref()
            .is_ok_and(|compiled| compiled.scope.needs_labels())
        {
            self.inventory.want_namespaces();
        }
        let old = self.policies.remove(&name);
        let (published, written_at, readers) = match old {
            Some(old) if old.object.metadata.uid == object.metadata.uid => {
                (old.published, old.written_at, old.readers)
            }
            Some(_) => {
                // Deleted and made again: the old one's findings are nobody's.
                self.unread = true;
                (BTreeMap::new(), None, vec![])
            }
            None => (BTreeMap::new(), None, vec![]),
        };
        self.policies.insert(
            name,
            Policy {
                object,
                compiled,
                cache: Cache::new(),
                stale: true,
                published,
                written_at,
                write_fault: None,
                untold: vec![],
                readers,
            },
        );
    }

    fn deleted(&mut self, name: &str) {
        if self.policies.remove(name).is_some() {
            // Its findings are removed with everything that belongs to no policy.
            self.unread = true;
        }
    }

    fn facts_changed(&mut self, facts: Changed) {
        let Changed {
            repositories,
            all,
            health: _,
        } = facts;
        self.new_facts |= all || !repositories.is_empty();
        self.all_dirty |= all;
        self.dirty.extend(repositories);
    }

    /// One pass, counted if this process leads.
    async fn timed_pass(&mut self) -> bool {
        let began = Instant::now();
        let whole = self.pass().await;
        if self.leader_since.is_some() {
            let result = if whole { "ok" } else { "failed" };
            self.metrics.reconcile(result, began.elapsed());
        }
        whole
    }

    /// One pass. Whether nothing is left to be tried again.
    async fn pass(&mut self) -> bool {
        let now = Timestamp::now();
        let changes = self.inventory.take_changes();
        self.dirty.extend(changes.repositories);
        self.nodes_known &= !changes.instances;
        self.report_inventory();
        if !self.leadership.is_held() {
            self.stand_by();
            return true;
        }
        if self.leader_since.is_none() {
            self.leader_since = Some(now);
            self.unread = true;
            self.all_dirty = true;
            self.new_facts = true;
            self.nodes_known = false;
        }
        // What an older definition does not know would be dropped or refused.
        if !self.listed || !*self.definitions.borrow() {
            return true;
        }
        let is_due = self
            .read_at
            .is_none_or(|at| now.duration_since(at).abs() >= REREAD);
        self.unread |= is_due;
        let mut whole = self.read_published(now).await;
        // What is covered has to be judged: a reader tells of facts before it says that it has read
        // them, so the facts that come with this health are those told until after it was asked.
        let changes = self.pollers.changes();
        self.facts_changed(changes.take());
        let health = self.pollers.health();
        self.facts_changed(changes.take_facts());
        let ledger = self.assess(now).await;
        let fault = ledger.err().map(|error| {
            tracing::error!(%error, "the ledger fails");
            whole = false;
            Fault {
                reason: Reason::LedgerFailing,
                message: error.to_string(),
            }
        });
        self.read_sources();
        let health = self.with_new_readers(health);
        whole &= self.publish(fault, health, now).await;
        self.prune(now);
        if whole {
            self.told.clear();
        }
        whole
    }

    fn report_inventory(&self) {
        let failure = self
            .inventory
            .health()
            .into_iter()
            .find_map(|health| health.failure);
        if self.inventory.synced() {
            self.readiness.open(Gate::Inventory);
        } else if let Some(failure) = failure {
            self.readiness.wait(Gate::Inventory, &failure.to_string());
        }
        let pods = self.inventory.index().pod_count();
        self.metrics
            .process(|process| process.pods = i64::try_from(pods).unwrap_or(i64::MAX));
    }

    fn stand_by(&mut self) {
        if self.leader_since.take().is_some() {
            for policy in self.policies.values_mut() {
                policy.published.clear();
                policy.cache.clear();
                policy.stale = true;
            }
        }
        // Whoever judges next judges everything.
        self.dirty.clear();
        if self.listed {
            self.want(self.shared_readers());
        }
        self.metrics.process(|process| process.leader = false);
        self.metrics.set_policies(BTreeMap::new());
        self.metrics.set_sources(vec![], self.pollers.counters());
        self.board.clear();
    }

    /// Forgets the pulls that no policy's lookback needs, now and then.
    fn prune(&mut self, now: Timestamp) {
        let longest = self
            .policies
            .values()
            .filter_map(|policy| Some(policy.compiled.as_ref().ok()?.rules.lookback()))
            .max();
        let is_due = self
            .pruned_at
            .is_none_or(|at| now.duration_since(at) >= PRUNE);
        let Some(before) = longest
            .filter(|_| is_due)
            .and_then(|longest| now.checked_sub(longest + PRUNE_SLACK).ok())
        else {
            return;
        };
        self.pruned_at = Some(now);
        let ledger = self.ledger.clone();
        let files_before = now.checked_sub(FILES_KEPT).unwrap_or(Timestamp::MIN);
        tokio::spawn(async move {
            if let Err(error) = ledger.prune_files(files_before).await {
                tracing::warn!(%error, "the files of trails could not be pruned");
            }
            match ledger.prune(before).await {
                Ok(0) => {}
                Ok(pulls) => tracing::info!(pulls, %before, "forgot pulls that no lookback needs"),
                Err(error) => tracing::warn!(%error, "pulls could not be pruned"),
            }
        });
    }
}

fn is_same_spec(old: &EcrAuditPolicy, new: &EcrAuditPolicy) -> bool {
    old.metadata.uid == new.metadata.uid && old.metadata.generation == new.metadata.generation
}
