//! What `check` and `principals` read: a policy, what runs, and events.
//!
//! What runs is read first, because it says which of the events can matter.

use std::{
    fs::File,
    io::{self, BufReader, IsTerminal, Read},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{HumanBytes, HumanCount, ProgressBar};
use jiff::Timestamp;

use super::{
    cluster,
    evidence::{self, Evidence},
    policy,
};
use crate::{
    api::{EcrAuditPolicy, FindingType},
    audit::{Container, Rules},
    event::{Counted, Decoder, Event, Repository},
    inventory::{self, Index},
    report::{json, table::printable},
    source::files,
};

/// Inputs that `check` and `principals` share.
#[derive(Debug, Args)]
pub struct InputArgs {
    /// The policy, YAML or JSON. Without one only removals are judged, for every image that runs.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Output of `kubectl get pods -A -o json`; without it the current kube context is asked.
    #[arg(long, value_name = "FILE")]
    pub pods: Option<PathBuf>,
    /// Output of `kubectl get nodes -o json`.
    #[arg(long, value_name = "FILE", requires = "pods")]
    pub nodes: Option<PathBuf>,
    /// The time of the judgement, RFC 3339; by default now.
    #[arg(long, value_name = "TIME")]
    pub now: Option<Timestamp>,
    /// Threads that read events; by default one for each CPU.
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
}

/// A policy, and what runs.
#[derive(Debug)]
pub struct Inputs {
    /// The policy; none without `--policy`.
    pub policy: Option<EcrAuditPolicy>,
    /// Its rules.
    pub rules: Rules,
    /// Which of what runs it audits.
    pub scope: inventory::Scope,
    /// What runs.
    pub index: Index,
    /// The time of the judgement, in whole seconds.
    pub now: Timestamp,
    /// What a ledger knows the cluster by; none when what runs was read from files.
    pub cluster: Option<String>,
    threads: NonZeroUsize,
}

/// Events, read and kept as far as they matter.
#[derive(Debug)]
pub struct Events {
    /// What to judge.
    pub evidence: Evidence,
    /// Files, records and errors.
    pub input: json::Input,
}

impl Events {
    /// Whether something could not be read.
    pub fn faulty(&self) -> bool {
        !self.input.errors.is_empty() || self.input.undecodable > 0
    }
}

impl InputArgs {
    /// Reads the policy and what runs. `events` are named here only because standard input can be
    /// read once.
    ///
    /// # Errors
    /// When one of them cannot be read, or they do not suffice for the judgement.
    pub fn read(&self, events: &[PathBuf]) -> anyhow::Result<Inputs> {
        let files = [&self.policy, &self.pods, &self.nodes];
        let named = files.into_iter().flatten().chain(events);
        if named.filter(|path| is_stdin(path)).count() > 1 {
            bail!("standard input (-) can be read once only");
        }
        let now = self.now.unwrap_or_else(Timestamp::now);
        let now = Timestamp::from_second(now.as_millisecond().div_euclid(1000))
            .context("--now is out of range")?;
        let threads = self
            .threads
            .map_or_else(std::thread::available_parallelism, Ok);
        let file = self
            .policy
            .as_ref()
            .map(|path| read_policy(path))
            .transpose()?;
        let (policy, rules) = match file {
            Some(file) => (Some(file.policy), file.rules),
            None => (None, Rules::removals_only()),
        };
        let spec = policy.as_ref().map(|policy| &policy.spec);
        let scope = inventory::Scope::new(
            spec.and_then(|spec| spec.workloads.as_ref()),
            spec.and_then(|spec| spec.images.as_ref()),
        )
        .context("spec.workloads.namespaceSelector")?;
        let mut index = Index::new();
        let mut cluster = None;
        if let Some(pods) = &self.pods {
            if self.nodes.is_none() && rules.expects_cluster_nodes() {
                bail!(
                    "--nodes is missing: the policy expects pulls by the nodes of the cluster \
                     (spec.expectedPullers.clusterNodes), and only they tell which these are. Give \
                     the output of `kubectl get nodes -o json`, or set clusterNodes to false"
                );
            }
            for path in [Some(pods), self.nodes.as_ref()].into_iter().flatten() {
                read_objects(path, &mut index)?;
            }
            let unlabelled = index.namespaces_without_labels();
            if scope.needs_labels() && !unlabelled.is_empty() {
                bail!(
                    "{}: holds no labels of {} (spec.workloads.namespaceSelector needs \
                     them): add the output of `kubectl get namespaces -o json` to it",
                    pods.display(),
                    some_of(&unlabelled)
                );
            }
        } else {
            cluster = cluster::read(&scope, &mut index)?;
        }
        Ok(Inputs {
            policy,
            rules,
            scope,
            index,
            now,
            cluster,
            threads: threads.unwrap_or(NonZeroUsize::MIN),
        })
    }
}

/// The first few namespaces, and how many more there are.
fn some_of(namespaces: &[&str]) -> String {
    const NAMED: usize = 3;
    let named = namespaces.iter().take(NAMED).copied();
    let named = named.collect::<Vec<_>>().join(", ");
    match namespaces.len() {
        1 => format!("namespace {named}"),
        n if n <= NAMED => format!("namespaces {named}"),
        n => format!("{n} namespaces ({named}, …)"),
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    Ok(if is_stdin(path) {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path)?))
    })
}

fn read_policy(path: &Path) -> anyhow::Result<policy::PolicyFile> {
    let name = || path.display().to_string();
    let mut bytes = Vec::new();
    let limit = policy::MAX_FILE as u64 + 1;
    let mut file = open(path).with_context(name)?.take(limit);
    file.read_to_end(&mut bytes).with_context(name)?;
    policy::parse(&bytes).with_context(name)
}

fn read_objects(path: &Path, index: &mut Index) -> anyhow::Result<()> {
    let name = path.display().to_string();
    let file = open(path).with_context(|| name.clone())?;
    inventory::read::read(&name, file, index)?;
    Ok(())
}

impl Inputs {
    /// The repositories that audited images run from, sorted.
    pub fn repositories(&self) -> Vec<Repository> {
        let mut repositories: Vec<Repository> = self
            .index
            .repositories(&self.scope)
            .filter(|repository| !self.containers(repository).is_empty())
            .cloned()
            .collect();
        repositories.sort_unstable();
        repositories
    }

    /// The audited containers that run from a repository.
    pub fn containers(&self, repository: &Repository) -> Vec<Container<'_>> {
        self.index.containers(repository, &self.scope)
    }

    /// Reads events, and keeps what may matter: of pulls those that `rules` do not expect. What
    /// cannot be read is named on standard error.
    pub fn events(&self, paths: &[PathBuf], rules: Rules) -> Events {
        let inputs: Vec<files::Input> = paths.iter().cloned().map(Into::into).collect();
        let repositories = self.repositories();
        let containers = repositories
            .iter()
            .flat_map(|repository| self.containers(repository));
        let digests = containers
            .flat_map(|container| [container.running, container.reference.digest.as_ref()]);
        let scope = evidence::Scope {
            digests: digests.flatten().cloned().collect(),
            repositories: repositories.into_iter().collect(),
            instances: self.index.instances(),
            rules,
            now: self.now,
        };
        let gathered = Mutex::new(Gathered {
            evidence: Evidence::new(scope),
            undecodable: 0,
            faults: Vec::new(),
        });
        let mut sinks: Vec<_> = (0..self.threads.get())
            .map(|_| Gatherer::new(&gathered))
            .collect();
        let progress = files::Progress::default();
        let report = watched(&progress, || files::read(&inputs, &mut sinks, &progress));
        for sink in sinks {
            sink.finish();
        }
        let mut gathered = gathered
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        gathered.faults.sort();
        gathered.faults.truncate(files::MAX_ERRORS);

        let unnamed = report.error_count - report.errors.len() as u64;
        let unnamed = unnamed + gathered.undecodable - gathered.faults.len() as u64;
        for error in report.errors.iter().chain(&gathered.faults) {
            complain(&error.to_string());
        }
        if unnamed > 0 {
            complain(&format!("and {unnamed} more errors"));
        }
        let errors = report.errors.iter().map(|error| json::InputError {
            path: error.path.display().to_string(),
            reason: match error.record {
                Some(record) => format!("record {record}: {}", error.reason),
                None => error.reason.clone(),
            },
        });
        let input = json::Input {
            files: report.files,
            records: report.records,
            ecr_records: report.ecr_records,
            duplicates: gathered.evidence.duplicates(),
            undecodable: gathered.undecodable,
            skipped: report.skipped,
            omitted: gathered.evidence.omitted(),
            unresolved_pulls: 0,
            errors: errors.collect(),
        };
        Events {
            evidence: gathered.evidence,
            input,
        }
    }

    /// What to know of the judgement as a whole: exceptions that have expired, nodes that cannot be
    /// told by their sessions.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self
            .rules
            .expired_exceptions(self.now)
            .map(|exception| {
                let types = exception.types.iter().flatten();
                let types: Vec<&str> = types.copied().map(FindingType::as_str).collect();
                let types = types.join(", ");
                format!(
                    "the exception of {} ({}{}) has expired: {} was its last day. What it covered \
                     counts again",
                    exception.owner,
                    exception.reason,
                    if types.is_empty() {
                        types
                    } else {
                        format!("; {types}")
                    },
                    exception.until
                )
            })
            .collect();
        let unknown = self.index.nodes_without_session();
        if self.rules.expects_cluster_nodes() && unknown > 0 {
            notes.push(format!(
                "nodes that are no EC2 instances (Fargate, hybrid): {unknown}. Their pulls cannot be told \
                 by the session, so their role belongs in spec.expectedPullers.principals"
            ));
        }
        notes
    }
}

struct Gathered {
    evidence: Evidence,
    undecodable: u64,
    faults: Vec<files::InputError>,
}

/// What one thread has decoded and not yet handed over.
struct Gatherer<'g> {
    gathered: &'g Mutex<Gathered>,
    decoder: Decoder,
    events: Vec<Event>,
    counted: Vec<evidence::Record>,
}

impl<'g> Gatherer<'g> {
    /// Records that are handed over at once, so that threads seldom wait for each other.
    const BATCH: usize = 64;

    fn new(gathered: &'g Mutex<Gathered>) -> Self {
        Self {
            gathered,
            decoder: Decoder::default(),
            events: Vec::with_capacity(Self::BATCH),
            counted: Vec::with_capacity(Self::BATCH),
        }
    }

    fn lock(&self) -> MutexGuard<'g, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_over(&mut self) {
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        for record in self.counted.drain(..) {
            gathered.evidence.count(&record);
        }
        for event in self.events.drain(..) {
            gathered.evidence.add(event);
        }
    }

    fn finish(mut self) {
        self.hand_over();
    }
}

impl files::Sink for Gatherer<'_> {
    fn record(&mut self, record: files::Record<'_>) {
        let counted = &mut self.counted;
        let count = |record: Counted<'_>| counted.push(record.into());
        match self.decoder.decode_judged(record.text, count) {
            Ok(event) => {
                self.events.extend(event);
                if self.events.len() + self.counted.len() >= Self::BATCH {
                    self.hand_over();
                }
            }
            Err(error) => self.lock().fault(files::InputError {
                path: record.path.to_owned(),
                record: Some(record.index),
                reason: error.to_string(),
            }),
        }
    }
}

impl Gathered {
    /// Counts a record that cannot be decoded.
    fn fault(&mut self, fault: files::InputError) {
        self.undecodable += 1;
        self.faults.push(fault);
        // The smallest are kept, so that which ones these are depends on the input alone.
        if self.faults.len() >= 2 * files::MAX_ERRORS {
            self.faults.sort();
            self.faults.truncate(files::MAX_ERRORS);
        }
    }
}

/// One line on standard error, harmless to a terminal.
pub(super) fn complain(message: &str) {
    use std::io::Write as _;
    // When standard error is closed, there is nobody left to tell.
    let _ = writeln!(io::stderr(), "ecr-audit: {}", printable(message));
}

/// Does `work`, and shows meanwhile on a terminal how far it has come.
fn watched<T>(progress: &files::Progress, work: impl FnOnce() -> T) -> T {
    if !io::stderr().is_terminal() {
        return work();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let bar = ProgressBar::new_spinner();
            while !done.load(Ordering::Relaxed) {
                let seconds = bar.elapsed().as_secs().max(1);
                bar.set_message(format!(
                    "{} files, {}, {} records, {} records/s",
                    HumanCount(progress.files()),
                    HumanBytes(progress.bytes()),
                    HumanCount(progress.records()),
                    HumanCount(progress.records() / seconds),
                ));
                bar.tick();
                std::thread::park_timeout(Duration::from_millis(100));
            }
            bar.finish_and_clear();
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}
