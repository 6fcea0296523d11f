//! The events that `check` and `principals` read: on several threads, and of all that is read only
//! what can matter to the images that run.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use indicatif::{HumanBytes, HumanCount, ProgressBar};

use super::{
    evidence::{self, Evidence, Identity, Tally},
    input::{Inputs, complain},
};
use crate::{
    audit::Rules,
    event::{self, Caller, Counted, Decoder, Event, Repository, RepositoryRef},
    report::json,
    source::files,
};

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
        self.input.is_faulty()
    }
}

impl Inputs {
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
        let scope = Arc::new(evidence::Scope {
            digests: digests.flatten().cloned().collect(),
            repositories: repositories.into_iter().collect(),
            instances: self.index.instances(),
            rules,
            now: self.now,
        });
        let gathered = Mutex::new(Gathered {
            evidence: Evidence::new(scope.clone()),
            undecodable: 0,
            faults: Vec::new(),
        });
        let mut sinks: Vec<_> = (0..self.threads.get())
            .map(|_| Gatherer::new(&gathered, scope.clone()))
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
}

struct Gathered {
    evidence: Evidence,
    undecodable: u64,
    faults: Vec<files::InputError>,
}

/// What one thread has decoded and not yet handed over.
struct Gatherer<'g> {
    gathered: &'g Mutex<Gathered>,
    scope: Arc<evidence::Scope>,
    decoder: Decoder,
    tally: Tally,
    seen: Vec<Identity>,
    events: Vec<Event>,
    /// Who pulled from elsewhere by a session of one of the cluster's nodes.
    nodes: Vec<Arc<Caller>>,
}

impl<'g> Gatherer<'g> {
    /// Records that are handed over at once, so that threads seldom wait for each other.
    const BATCH: usize = 64;

    fn new(gathered: &'g Mutex<Gathered>, scope: Arc<evidence::Scope>) -> Self {
        Self {
            gathered,
            scope,
            decoder: Decoder::default(),
            tally: Tally::default(),
            seen: Vec::with_capacity(Self::BATCH),
            events: Vec::with_capacity(Self::BATCH),
            nodes: Vec::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'g, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_over(&mut self) {
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let evidence = &mut gathered.evidence;
        for record in self.seen.drain(..) {
            evidence.see(record);
        }
        for node in self.nodes.drain(..) {
            evidence.learn(&node);
        }
        for event in self.events.drain(..) {
            evidence.add(event);
        }
    }

    fn finish(mut self) {
        self.hand_over();
        self.lock().evidence.merge(&self.tally);
    }
}

impl files::Sink for Gatherer<'_> {
    fn record(&mut self, record: files::Record<'_>) {
        let Self {
            scope,
            tally,
            seen,
            nodes,
            ..
        } = self;
        let mut count = |record: &Counted<'_>| {
            tally.add(record);
            seen.push(record.into());
        };
        let matters = |repository: &RepositoryRef<'_>| scope.repositories.contains(repository);
        let elsewhere = |record: Counted<'_>| {
            count(&record);
            let past = record.time <= scope.now;
            let session = |puller: &Arc<Caller>| {
                let session = puller.session.as_ref();
                session.is_some_and(|session| scope.instances.contains(session))
            };
            nodes.extend(record.puller.filter(|puller| past && session(puller)));
        };
        match self.decoder.decode_judged(record.text, matters, elsewhere) {
            Ok(event) => {
                if let Some(event) = event {
                    count(&Counted::from(&event));
                    self.events.push(event);
                }
                if self.seen.len() >= Self::BATCH {
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

    /// What ECR itself tells of images that are there is evidence, too; it is no record, and what
    /// cannot be read of it proves nothing.
    fn notice(&mut self, event: files::Record<'_>) {
        let told = event::notice(event.text).ok().flatten();
        let matters = |repository: &Repository| self.scope.repositories.contains(repository);
        let told = told.filter(|event| event.repository.as_ref().is_some_and(matters));
        self.events.extend(told);
        if self.events.len() >= Self::BATCH {
            self.hand_over();
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
