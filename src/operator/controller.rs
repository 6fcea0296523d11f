//! The loop: whatever moved (a policy, what runs, what was read, the time), the repositories that
//! it concerns are judged anew, and what came out is published where it differs.
//!
//! One task owns everything, so nothing has to be locked but the inventory's index, which other
//! tasks fill. A pass goes through every policy: dereference → validate → assess → publish.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ObjectMeta},
};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    admin::{Gate, Readiness},
    assess::{Cache, Teacher, judge, load},
    lease::Leadership,
    policies::Change,
    policy::{Compiled, dereference, validate},
    publish::{Key, Published, Publisher, WriteError},
    status_page::Board,
    visit::{self, Outcome, Visit},
};
use crate::{
    api::{EcrAuditFinding, EcrAuditPolicy},
    event::Repository,
    inventory::Inventory,
    ledger::{Backend, Ledger, LedgerError},
    report::{
        judgement::Fault,
        metrics::{Metrics, PolicySeries},
        page::{PolicyPage, Snapshot},
        sentence::sentence,
        status::is_due,
        vocabulary::Reason,
    },
    source::{Changed, PollerKey, PollerSpec, Pollers, SourceKind},
};

/// How long things that move together are waited for before a pass.
const GATHER: Duration = Duration::from_millis(200);
/// How often a pass is made when nothing moves but the time.
const TICK: Duration = Duration::from_secs(15);
/// How soon a pass that failed is made again, at first and at last.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often the ledger is asked what other processes have brought.
const HEAR: SignedDuration = SignedDuration::from_secs(5);
/// How often pulls that no lookback needs are forgotten.
const PRUNE: SignedDuration = SignedDuration::from_hours(1);
/// How much longer than the longest lookback pulls are kept.
const PRUNE_SLACK: SignedDuration = SignedDuration::from_hours(24);
/// How long it is remembered which file of a trail was read, for those that hear of it twice.
const FILES_KEPT: SignedDuration = SignedDuration::from_hours(4 * 24);
/// Failed writes that are logged until everything was written.
const TOLD: usize = 20;
/// How long a new leader waits for the inventory before it says that it is missing.
const INVENTORY_PATIENCE: SignedDuration = SignedDuration::from_secs(10);

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
            let seconds = began.elapsed().as_secs_f64();
            self.metrics.process(|process| {
                *process.reconciles.entry(result).or_default() += 1;
                process.reconcile_seconds += seconds;
            });
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
        let mut whole = self.read_published().await;
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
        whole &= self.publish(fault, now).await;
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

    /// Reads the finding objects that there are; those of no policy are removed.
    async fn read_published(&mut self) -> bool {
        if !self.unread {
            return true;
        }
        let mut all = match self.publisher.published().await {
            Ok(all) => all,
            Err(error) => {
                self.failed(&error);
                for policy in self.policies.values_mut() {
                    policy.write_fault = Some(fault(&error));
                }
                return false;
            }
        };
        for policy in self.policies.values_mut() {
            let uid = policy.object.metadata.uid.clone().unwrap_or_default();
            policy.published = all.remove(&uid).unwrap_or_default();
            policy.write_fault = None;
        }
        self.unread = false;
        for (_, mut orphans) in all {
            let (_, written, error) = self.publisher.findings(vec![], &mut orphans).await;
            self.wrote(written);
            if let Some(error) = error {
                self.failed(&error);
                self.unread = true;
            }
        }
        !self.unread
    }

    /// Judges what has to be judged anew.
    async fn assess(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        self.hear(now).await?;
        self.learn_nodes(now).await?;
        let today = now.to_zoned(TimeZone::UTC).date();
        if self.judged_on.replace(today) != Some(today) {
            // Exceptions end with the day.
            self.all_dirty = true;
        }
        let due = self.due(now);
        let mut assessments = 0;
        let started = Instant::now();
        for (repository, names) in &due {
            let loaded = load(&self.ledger, repository).await?;
            for name in names {
                let Some(policy) = self.policies.get_mut(name) else {
                    continue;
                };
                let Ok(compiled) = &policy.compiled else {
                    continue;
                };
                let nodes = self.teacher.nodes();
                let evidence = loaded
                    .evidence(&self.ledger, repository, &compiled.rules, nodes, now)
                    .await?;
                let assessed = judge(
                    &self.inventory.index(),
                    &compiled.scope,
                    repository,
                    &evidence,
                    nodes,
                    &compiled.rules,
                    now,
                );
                policy.cache.insert(repository.clone(), assessed);
                assessments += 1;
            }
            tokio::task::yield_now().await;
        }
        for policy in self.policies.values_mut() {
            policy.stale = false;
        }
        self.all_dirty = false;
        self.dirty.clear();
        let seconds = started.elapsed().as_secs_f64();
        self.metrics.process(|process| {
            process.assessments += assessments;
            process.assessment_seconds += seconds;
        });
        Ok(())
    }

    /// Which repositories have to be judged, for which policies. Forgets what does not run.
    fn due(&mut self, now: Timestamp) -> BTreeMap<Repository, Vec<String>> {
        let index = self.inventory.index();
        let mut due: BTreeMap<Repository, Vec<String>> = BTreeMap::new();
        for (name, policy) in &mut self.policies {
            let Ok(compiled) = &policy.compiled else {
                continue;
            };
            let running: HashSet<&Repository> = index.repositories(&compiled.scope).collect();
            policy
                .cache
                .retain(|repository, _| running.contains(repository));
            for repository in running {
                let is_current = !self.all_dirty
                    && !policy.stale
                    && !self.dirty.contains(repository)
                    && policy.cache.get(repository).is_some_and(|assessed| {
                        assessed.expires.is_none_or(|expires| expires >= now)
                    });
                if !is_current {
                    due.entry(repository.clone())
                        .or_default()
                        .push(name.clone());
                }
            }
        }
        due
    }

    async fn learn_nodes(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let mut is_news = false;
        if !self.nodes_known {
            let cluster = self.cluster().await;
            let running = self.inventory.index().instances();
            let ids: Vec<Arc<str>> = running.iter().cloned().collect();
            self.ledger.remember_nodes(&cluster, &ids, now).await?;
            let mut instances = self.ledger.nodes(&cluster).await?;
            instances.extend(running);
            is_news |= self.teacher.set_instances(instances);
            self.nodes_known = true;
        }
        if self.new_facts || is_news {
            is_news |= self.teacher.learn(&self.ledger).await?;
            self.new_facts = false;
        }
        if is_news {
            for policy in self.policies.values_mut() {
                policy.stale |= policy
                    .compiled
                    .as_ref()
                    .is_ok_and(|compiled| compiled.rules.expects_cluster_nodes());
            }
        }
        Ok(())
    }

    /// What tells this cluster from others that share the ledger: the uid of `kube-system`.
    async fn cluster(&mut self) -> String {
        if let Some(cluster) = &self.cluster {
            return cluster.clone();
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        match api.get_metadata("kube-system").await {
            Ok(namespace) => {
                let ObjectMeta { uid, .. } = namespace.metadata;
                let uid = uid.unwrap_or_default();
                self.cluster = Some(uid.clone());
                uid
            }
            Err(error) => {
                tracing::warn!(%error, "cannot get the namespace kube-system, whose uid names the cluster");
                String::new()
            }
        }
    }

    /// The readers that every replica runs: those of queues, which hand each message to one of
    /// them, where the replicas share the ledger.
    fn shared_readers(&self) -> Vec<PollerSpec> {
        if self.ledger.backend() == Backend::Sqlite {
            return vec![];
        }
        let compiled = self
            .policies
            .values()
            .map(|policy| policy.compiled.as_ref());
        compiled
            .filter_map(Result::ok)
            .flat_map(|compiled| compiled.readers(&BTreeSet::new()))
            .map(|(_, spec)| spec)
            .filter(|spec| spec.key.kind() == SourceKind::Sqs)
            .collect()
    }

    fn want(&mut self, wanted: Vec<PollerSpec>) {
        if wanted != self.wanted {
            self.wanted.clone_from(&wanted);
            self.pollers.set(wanted);
        }
    }

    /// What other processes have brought since.
    async fn hear(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        if self
            .heard_at
            .is_some_and(|at| now.duration_since(at).abs() < HEAR)
        {
            return Ok(());
        }
        self.heard_at = Some(now);
        let touched = self.ledger.touched().await?;
        for (repository, count) in &touched {
            if self.touched.get(repository) != Some(count) {
                self.dirty.insert(repository.clone());
                self.new_facts = true;
            }
        }
        self.touched = touched;
        Ok(())
    }

    /// Makes the readers those that the policies ask for.
    fn read_sources(&mut self) {
        let mut wanted = Vec::new();
        let synced = self.inventory.synced();
        for policy in self.policies.values_mut() {
            if let Ok(compiled) = &policy.compiled {
                let regions = visit::regions(&policy.cache);
                // Regions that are not known yet are no reason to stop reading.
                if synced || !compiled.derives_regions() {
                    policy.readers = compiled.readers(&regions);
                }
                wanted.extend(policy.readers.iter().map(|(_, spec)| spec.clone()));
            }
        }
        self.want(wanted);
    }

    async fn publish(&mut self, fault: Option<Fault>, now: Timestamp) -> bool {
        let health = self.pollers.health();
        let synced = self.inventory.synced();
        let waited = self
            .leader_since
            .is_some_and(|since| now.duration_since(since) > INVENTORY_PATIENCE);
        let mut whole = true;
        let mut series: BTreeMap<String, PolicySeries> = BTreeMap::new();
        let mut pages = Vec::new();
        let told = self.inventory.health().iter().any(|h| h.failure.is_some());
        if synced || waited || told {
            for name in self.policies.keys().cloned().collect::<Vec<_>>() {
                // Taken out while it is worked on, since everything else is needed, too.
                let Some(mut policy) = self.policies.remove(&name) else {
                    continue;
                };
                let visit = Visit {
                    ledger: &self.ledger,
                    inventory: &self.inventory,
                    nodes: self.teacher.nodes(),
                    health: &health,
                    fault: fault.as_ref(),
                    leader_since: self.leader_since,
                    now,
                };
                let outcome = visit.judge(&policy, &mut self.pulls_seen).await;
                series.insert(name.clone(), outcome.series.clone());
                if self.board.is_shown() {
                    pages.push(page(&policy, &outcome));
                }
                whole &= self.write(&mut policy, outcome, now).await;
                self.policies.insert(name, policy);
            }
        } else {
            whole = false;
        }
        self.metrics.process(|process| process.leader = true);
        self.metrics.set_policies(series);
        self.metrics
            .set_sources(health.clone(), self.pollers.counters());
        if self.board.is_shown() && (synced || waited || told) {
            self.board.set(Snapshot {
                time: now,
                policies: pages,
                sources: health,
                names: self.source_names(),
            });
        }
        whole
    }

    /// Which sources of which policies each reader serves.
    fn source_names(&self) -> HashMap<PollerKey, Vec<String>> {
        let mut names: HashMap<PollerKey, Vec<String>> = HashMap::new();
        for (policy, known) in &self.policies {
            for (source, spec) in &known.readers {
                let served = names.entry(spec.key.clone()).or_default();
                served.push(format!("{policy}/{source}"));
            }
        }
        names
    }

    /// Writes what differs from what is there.
    async fn write(&mut self, policy: &mut Policy, outcome: Outcome, now: Timestamp) -> bool {
        let Outcome {
            objects,
            mut status,
            series: _,
        } = outcome;
        let mut error = None;
        if let (Some(objects), false) = (objects, self.unread) {
            let (created, written, failed) = self
                .publisher
                .findings(objects, &mut policy.published)
                .await;
            self.wrote(written);
            error = failed;
            for object in &created {
                tracing::info!(
                    policy = %policy.object.name_any(),
                    finding = %object.name_any(),
                    "{}", sentence(&object.spec.finding)
                );
            }
            policy.untold.extend(created);
            let untold = &mut policy.untold;
            if let Err(failed) = self.publisher.events(&policy.object, untold).await {
                self.failed(&failed);
                error = error.or(Some(failed));
            }
        }
        let mut whole = error.is_none();
        if let Some(error) = error {
            self.failed(&error);
            match error {
                WriteError::Conflict => self.unread = true,
                WriteError::NotLeader => return false,
                error => policy.write_fault = Some(fault(&error)),
            }
        } else if !self.unread && policy.write_fault.take().is_some() {
            // Told at the next visit, which is at once.
            whole = false;
        }
        let due = is_due(
            &status,
            policy.object.status.as_ref(),
            policy.written_at,
            now,
        );
        if due {
            match self.publisher.status(&policy.object, &status).await {
                Ok(version) => {
                    self.wrote(1);
                    policy.object.metadata.resource_version = version;
                    policy.object.status = Some(std::mem::take(&mut status));
                    policy.written_at = Some(now);
                }
                Err(error) => {
                    // After a conflict the watch brings the object as it is now.
                    self.failed(&error);
                    whole = false;
                }
            }
        }
        whole
    }

    fn wrote(&self, writes: usize) {
        let writes = u64::try_from(writes).unwrap_or(u64::MAX);
        self.metrics.process(|process| process.writes += writes);
    }

    fn failed(&mut self, error: &WriteError) {
        let category = error.category();
        match error {
            WriteError::Conflict | WriteError::NotLeader => {
                tracing::debug!(%error, "a write was not taken");
            }
            WriteError::Forbidden(_) | WriteError::Api(_) => {
                // The same one again and again is told once.
                if self.told.len() < TOLD && self.told.insert(error.to_string()) {
                    tracing::warn!(%error, reason = category, "a write was not taken");
                }
            }
        }
        self.metrics
            .process(|process| *process.write_errors.entry(category).or_default() += 1);
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

/// What the status page shows of a policy: the findings that there shall be or, when they stay as
/// they are, that there are.
fn page(policy: &Policy, outcome: &Outcome) -> PolicyPage {
    let name = policy.object.name_any();
    let status = outcome.status.clone();
    match &outcome.objects {
        Some(objects) => PolicyPage::new(
            name,
            status,
            objects
                .iter()
                .map(|object| (object.metadata.name.as_deref(), &object.spec)),
        ),
        None => PolicyPage::new(
            name,
            status,
            policy
                .published
                .iter()
                .filter_map(|((_, name), old)| Some((Some(name.as_str()), old.spec.as_ref()?))),
        ),
    }
}

fn fault(error: &WriteError) -> Fault {
    Fault {
        reason: error.reason(),
        message: error.to_string(),
    }
}

fn is_same_spec(old: &EcrAuditPolicy, new: &EcrAuditPolicy) -> bool {
    old.metadata.uid == new.metadata.uid && old.metadata.generation == new.metadata.generation
}
