//! What Prometheus scrapes, made when it scrapes: a series whose reason is gone is gone with it.
//!
//! Labels are bounded: names of AWS and Kubernetes objects only, cut to what these may be long,
//! and a bounded number of findings and containers. Only the leader has anything to say about
//! policies.

mod timed;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jiff::Timestamp;
use prometheus::{
    CounterVec, GaugeVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use self::timed::Timed;
use super::{
    process::figures,
    text::plain,
    vocabulary::{ConditionType, Truth},
};
use crate::{
    api::{Finding, FindingType, ImageState, ImageTotals, Impact},
    ledger::{LedgerError, Operation},
    source::{Counters, Health},
};

/// Most findings of one policy that have a series of their own, the worst first.
const FINDINGS: usize = 1000;
/// Most containers of one policy that have a series of their own.
const CONTAINERS: usize = 5000;
/// Longest label value, in bytes: the longest name in Kubernetes.
const LABEL: usize = 253;

/// What is exported of one policy.
#[derive(Clone, Debug, Default)]
pub struct PolicySeries {
    /// Running images by state.
    pub images: Option<ImageTotals>,
    /// Findings, not excepted, under their objects' names, the worst first.
    pub findings: Vec<FindingSeries>,
    /// How many of each type and impact there are, not excepted: those that are judged.
    pub totals: BTreeMap<(FindingType, Option<Impact>), i64>,
    /// The conditions' statuses.
    pub conditions: Vec<(ConditionType, Truth)>,
}

/// One finding.
#[derive(Clone, Debug)]
pub struct FindingSeries {
    /// The object's name.
    pub name: String,
    /// The finding.
    pub finding: Arc<Finding>,
    /// `imageID` of each container, as its node reports it, in the order of the finding's.
    pub image_ids: Vec<String>,
}

/// Which types and impacts a policy has series for, and how many findings each.
#[must_use]
pub fn totals(
    findings: &[Finding],
    judges_pulls: bool,
    judges_pushes: bool,
) -> BTreeMap<(FindingType, Option<Impact>), i64> {
    let mut totals = BTreeMap::new();
    for kind in FindingType::ALL {
        let is_judged = match kind {
            FindingType::UnexpectedPull | FindingType::DeniedPull => judges_pulls,
            FindingType::UnexpectedPush | FindingType::DeniedPush => judges_pushes,
            _ => true,
        };
        let impacts: &[Option<Impact>] = if kind.is_removal() {
            &[
                Some(Impact::Unpullable),
                Some(Impact::WouldChange),
                Some(Impact::Unknown),
            ]
        } else {
            &[None]
        };
        if is_judged {
            totals.extend(impacts.iter().map(|impact| ((kind, *impact), 0)));
        }
    }
    for finding in findings.iter().filter(|finding| !finding.excepted) {
        *totals
            .entry((finding.finding_type, finding.impact))
            .or_default() += 1;
    }
    totals
}

/// What the operator is doing.
#[derive(Clone, Debug, Default)]
pub struct ProcessSeries {
    /// Whether this process is the leader.
    pub leader: bool,
    /// Pods that run something of ECR.
    pub pods: i64,
    /// Assessments of a repository for a policy, since the start.
    pub assessments: u64,
    /// Writes to the Kubernetes API that did not succeed, by reason.
    pub write_errors: BTreeMap<&'static str, u64>,
    /// Writes to the Kubernetes API.
    pub writes: u64,
    /// Gates of readiness, and whether each is open.
    pub gates: Vec<(&'static str, bool)>,
    /// Bytes that the ledger takes, once that was asked.
    pub ledger_bytes: Option<i64>,
    /// Rows of the ledger's tables.
    pub ledger_rows: Vec<(&'static str, i64)>,
    /// When the process started.
    pub started: Option<Timestamp>,
}

#[derive(Default)]
struct State {
    policies: BTreeMap<String, PolicySeries>,
    process: ProcessSeries,
    sources: Vec<Arc<Health>>,
    counters: Option<Arc<Counters>>,
}

/// The metrics of this process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    state: Arc<RwLock<State>>,
    timed: Timed,
}

impl Metrics {
    /// No series yet but the build's.
    ///
    /// # Errors
    /// When two metrics have one name, which would be a defect of this crate.
    pub fn new() -> Result<Self, prometheus::Error> {
        let state = Arc::new(RwLock::new(State::default()));
        let registry = Registry::new();
        registry.register(Box::new(Pulled {
            state: state.clone(),
            descriptions: families(&State::default())?
                .iter()
                .flat_map(|family| family.desc().into_iter().cloned().collect::<Vec<_>>())
                .collect(),
        }))?;
        let timed = Timed::new(&registry)?;
        Ok(Self {
            registry,
            state,
            timed,
        })
    }

    /// A request to the Kubernetes API has ended.
    pub fn api_request(
        &self,
        verb: &'static str,
        resource: &'static str,
        code: &'static str,
        took: Duration,
    ) {
        self.timed.api_request(verb, resource, code, took);
    }

    /// A pass over all policies has ended.
    pub fn reconcile(&self, result: &'static str, took: Duration) {
        self.timed.reconcile(result, took);
    }

    /// So many assessments were made, in this time together.
    pub fn assessments(&self, count: u64, took: Duration) {
        self.process(|process| process.assessments += count);
        self.timed.assessments(took);
    }

    /// The ledger has done something, or failed to.
    pub fn ledger(&self, operation: Operation, took: Duration, error: Option<&LedgerError>) {
        self.timed.ledger(operation, took, error);
    }

    /// Replaces what is exported of the policies.
    pub fn set_policies(&self, policies: BTreeMap<String, PolicySeries>) {
        self.with(|state| state.policies = policies);
    }

    /// Changes what is exported of the process.
    pub fn process(&self, change: impl FnOnce(&mut ProcessSeries)) {
        self.with(|state| change(&mut state.process));
    }

    /// Replaces what is exported of the sources.
    pub fn set_sources(&self, sources: Vec<Arc<Health>>, counters: Arc<Counters>) {
        self.with(|state| {
            state.sources = sources;
            state.counters = Some(counters);
        });
    }

    /// The text format of Prometheus.
    ///
    /// # Errors
    /// When a metric cannot be written, which would be a defect of this crate.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    fn with(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }
}

struct Pulled {
    state: Arc<RwLock<State>>,
    descriptions: Vec<Desc>,
}

impl Collector for Pulled {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match families(&state) {
            Ok(families) => families
                .iter()
                .flat_map(|family| family.collect())
                .collect(),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be made");
                vec![]
            }
        }
    }
}

type Families = Vec<Box<dyn Collector>>;

fn families(state: &State) -> Result<Families, prometheus::Error> {
    let mut families = policy_families(&state.policies)?;
    families.extend(source_families(&state.sources, state.counters.as_deref())?);
    families.extend(message_family(state.counters.as_deref())?);
    families.extend(process_families(&state.process)?);
    Ok(families)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

#[expect(clippy::too_many_lines, reason = "a list of series")]
fn policy_families(
    policies: &BTreeMap<String, PolicySeries>,
) -> Result<Families, prometheus::Error> {
    let images = gauges(
        "ecr_audit_images",
        "Distinct ECR images that run, by state.",
        &["policy", "state"],
    )?;
    let findings = gauges(
        "ecr_audit_findings",
        "Findings that no exception covers.",
        &["policy", "type", "impact"],
    )?;
    let finding_info = gauges(
        "ecr_audit_finding_info",
        "1 for each finding that no exception covers; the worst, up to a bound.",
        &[
            "policy",
            "finding",
            "type",
            "impact",
            "namespace",
            "workload_kind",
            "workload",
            "account",
            "region",
            "repository",
        ],
    )?;
    let container_info = gauges(
        "ecr_audit_finding_container_info",
        "1 for each container of these findings, up to a bound.",
        &[
            "policy",
            "finding",
            "namespace",
            "pod",
            "container",
            "image_id",
        ],
    )?;
    let conditions = gauges(
        "ecr_audit_condition",
        "1 for the status that a policy's condition has, 0 for the others.",
        &["policy", "type", "status"],
    )?;
    for (policy, series) in policies {
        let policy = &*plain(policy, LABEL);
        if let Some(totals) = &series.images {
            for (state, count) in [
                (ImageState::Present, totals.present),
                (ImageState::Expired, totals.expired),
                (ImageState::Deleted, totals.deleted),
                (ImageState::Archived, totals.archived),
                (ImageState::Unknown, totals.unknown),
            ] {
                images
                    .with_label_values(&[policy, state.as_str()])
                    .set(count);
            }
        }
        for ((kind, impact), count) in &series.totals {
            findings
                .with_label_values(&[policy, kind.as_str(), impact.map_or("", Impact::as_str)])
                .set(*count);
        }
        for (condition, status) in &series.conditions {
            for truth in Truth::ALL {
                conditions
                    .with_label_values(&[policy, condition.as_str(), truth.as_str()])
                    .set(i64::from(truth == *status));
            }
        }
        let mut containers = 0;
        for one in series.findings.iter().take(FINDINGS) {
            let finding = &one.finding;
            finding_info
                .with_label_values(&[
                    policy,
                    &one.name,
                    finding.finding_type.as_str(),
                    finding.impact.map_or("", Impact::as_str),
                    &plain(&finding.workload.namespace, LABEL),
                    &plain(&finding.workload.kind, LABEL),
                    &plain(&finding.workload.name, LABEL),
                    &plain(&finding.image.account, LABEL),
                    &plain(&finding.image.region, LABEL),
                    &plain(&finding.image.repository, LABEL),
                ])
                .set(1);
            for (container, image_id) in finding.containers.iter().zip(&one.image_ids) {
                if containers == CONTAINERS {
                    break;
                }
                containers += 1;
                container_info
                    .with_label_values(&[
                        policy,
                        &one.name,
                        &plain(&finding.workload.namespace, LABEL),
                        &plain(&container.pod, LABEL),
                        &plain(&container.container, LABEL),
                        &plain(image_id, 1024),
                    ])
                    .set(1);
            }
        }
    }
    Ok(vec![
        Box::new(images),
        Box::new(findings),
        Box::new(finding_info),
        Box::new(container_info),
        Box::new(conditions),
    ])
}

/// What became of queues' messages.
fn message_family(counters: Option<&Counters>) -> Result<Families, prometheus::Error> {
    let messages = CounterVec::new(
        Opts::new(
            "ecr_audit_queue_messages_total",
            "Messages of queues by what became of them: stored, empty, or why they were left.",
        ),
        &["outcome"],
    )?;
    for (outcome, count) in counters.map(Counters::messages).unwrap_or_default() {
        messages.with_label_values(&[outcome]).inc_by(float(count));
    }
    Ok(vec![Box::new(messages)])
}

#[expect(clippy::too_many_lines, reason = "a list of series")]
fn source_families(
    sources: &[Arc<Health>],
    counters: Option<&Counters>,
) -> Result<Families, prometheus::Error> {
    let place = ["source", "account", "region"];
    let until = GaugeVec::new(
        Opts::new(
            "ecr_audit_source_covered_until_timestamp_seconds",
            "The end of what was read without a gap, of every event name.",
        ),
        &place,
    )?;
    let success = GaugeVec::new(
        Opts::new(
            "ecr_audit_source_last_success_timestamp_seconds",
            "When a page was read last.",
        ),
        &place,
    )?;
    let gaps = gauges(
        "ecr_audit_source_gaps",
        "Files and messages that were delivered and cannot be read, up to a bound.",
        &["source", "account", "region", "reason"],
    )?;
    let errors = CounterVec::new(
        Opts::new("ecr_audit_source_errors_total", "Reads that failed."),
        &["source", "account", "region", "reason"],
    )?;
    let requests = CounterVec::new(
        Opts::new("ecr_audit_source_requests_total", "Requests sent to AWS."),
        &place,
    )?;
    let events = CounterVec::new(
        Opts::new(
            "ecr_audit_events_total",
            "Events that were read and not known before.",
        ),
        &["source", "event_name"],
    )?;
    let objects = CounterVec::new(
        Opts::new(
            "ecr_audit_objects_total",
            "Objects of buckets, by what became of them: read, known (read before), skipped (no log file), failed.",
        ),
        &["source", "result"],
    )?;
    let bytes = CounterVec::new(
        Opts::new(
            "ecr_audit_object_bytes_total",
            "Bytes of the objects that were read, as they lie in their bucket.",
        ),
        &["source"],
    )?;
    for health in sources {
        let account = plain(health.account.as_deref().unwrap_or_default(), LABEL);
        let kind = health.key.kind().as_str();
        let labels = [kind, &*account, &*plain(&health.region, LABEL)];
        let end = crate::event::EventName::JUDGED
            .iter()
            .map(|name| {
                let last = health.coverage.get(name)?.as_slice().last()?;
                Some(last.end)
            })
            .min()
            .flatten();
        if let Some(end) = end {
            until.with_label_values(&labels).set(seconds(end));
        }
        if let Some(at) = health.last_success {
            success.with_label_values(&labels).set(seconds(at));
        }
        for gap in &health.gaps {
            let [kind, account, region] = labels;
            gaps.with_label_values(&[kind, account, region, gap.reason.as_str()])
                .inc();
        }
    }
    if let Some(counters) = counters {
        for ((kind, account, region, reason), count) in counters.errors() {
            errors
                .with_label_values(&[kind.as_str(), &*account, &*region, reason.as_str()])
                .inc_by(float(count));
        }
        for ((kind, account, region), count) in counters.requests() {
            requests
                .with_label_values(&[kind.as_str(), &*account, &*region])
                .inc_by(float(count));
        }
        for ((kind, name), count) in counters.events() {
            events
                .with_label_values(&[kind.as_str(), name.as_str()])
                .inc_by(float(count));
        }
        for (kind, tally) in counters.objects() {
            let kind = kind.as_str();
            for (result, count) in [
                ("read", tally.read),
                ("known", tally.known),
                ("skipped", tally.skipped),
                ("failed", tally.failed),
            ] {
                objects
                    .with_label_values(&[kind, result])
                    .inc_by(float(count));
            }
            bytes.with_label_values(&[kind]).inc_by(float(tally.bytes));
        }
    }
    Ok(vec![
        Box::new(until),
        Box::new(success),
        Box::new(gaps),
        Box::new(errors),
        Box::new(requests),
        Box::new(events),
        Box::new(objects),
        Box::new(bytes),
    ])
}

fn process_families(process: &ProcessSeries) -> Result<Families, prometheus::Error> {
    let build = gauges(
        "ecr_audit_build_info",
        "1, with the version of the operator.",
        &["version"],
    )?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let leader = IntGauge::new(
        "ecr_audit_leader",
        "1 while this process writes, 0 while it stands by.",
    )?;
    leader.set(i64::from(process.leader));
    let pods = IntGauge::new("ecr_audit_pods", "Pods that run something of ECR.")?;
    pods.set(process.pods);
    let counter = |name: &str, help: &str, value: f64| {
        let counter = prometheus::Counter::new(name, help)?;
        counter.inc_by(value);
        Ok::<_, prometheus::Error>(counter)
    };
    let assessments = counter(
        "ecr_audit_assessments_total",
        "Assessments of one repository for one policy.",
        float(process.assessments),
    )?;
    let writes = counter(
        "ecr_audit_api_writes_total",
        "Writes to the Kubernetes API that succeeded.",
        float(process.writes),
    )?;
    let errors = CounterVec::new(
        Opts::new(
            "ecr_audit_api_write_errors_total",
            "Writes to the Kubernetes API that did not succeed.",
        ),
        &["reason"],
    )?;
    for (reason, count) in &process.write_errors {
        errors.with_label_values(&[*reason]).inc_by(float(*count));
    }
    let gates = gauges(
        "ecr_audit_gate_open",
        "1 for what the operator needs and has, 0 for what it waits for.",
        &["gate"],
    )?;
    for (gate, is_open) in &process.gates {
        gates.with_label_values(&[*gate]).set(i64::from(*is_open));
    }
    let ledger_bytes = gauges(
        "ecr_audit_ledger_size_bytes",
        "Bytes that the ledger's tables and indexes take, a SQLite file's write-ahead log not.",
        &[],
    )?;
    if let Some(bytes) = process.ledger_bytes {
        ledger_bytes.with_label_values::<&str>(&[]).set(bytes);
    }
    let ledger_rows = gauges(
        "ecr_audit_ledger_rows",
        "Rows of the ledger's tables, counted every minute, or less often where that takes long.",
        &["table"],
    )?;
    for (table, rows) in &process.ledger_rows {
        ledger_rows.with_label_values(&[*table]).set(*rows);
    }
    let mut families: Families = vec![
        Box::new(build),
        Box::new(leader),
        Box::new(pods),
        Box::new(assessments),
        Box::new(writes),
        Box::new(errors),
        Box::new(gates),
        Box::new(ledger_bytes),
        Box::new(ledger_rows),
    ];
    families.extend(machine_families(process)?);
    Ok(families)
}

/// What the process takes of the machine.
fn machine_families(process: &ProcessSeries) -> Result<Families, prometheus::Error> {
    let start = prometheus::Gauge::new(
        "ecr_audit_process_start_time_seconds",
        "When the process started, since the epoch.",
    )?;
    if let Some(started) = process.started {
        start.set(seconds(started));
    }
    let cpu = prometheus::Counter::new(
        "ecr_audit_process_cpu_seconds_total",
        "Time of a processor that the process has taken.",
    )?;
    let memory = IntGauge::new(
        "ecr_audit_process_resident_memory_bytes",
        "Resident memory of the process.",
    )?;
    let fds = IntGauge::new(
        "ecr_audit_process_open_fds",
        "Open file descriptors of the process.",
    )?;
    if let Some(figures) = figures() {
        cpu.inc_by(figures.cpu_seconds);
        memory.set(figures.resident_bytes);
        fds.set(figures.open_fds);
    }
    Ok(vec![
        Box::new(start),
        Box::new(cpu),
        Box::new(memory),
        Box::new(fds),
    ])
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus counts in floating point"
)]
fn float(count: u64) -> f64 {
    count as f64
}

fn seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}
