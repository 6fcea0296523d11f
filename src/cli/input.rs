//! What `check` and `principals` read besides events: a policy, and what runs. It is read first,
//! because it says which of the events can matter.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;

use super::{cluster, policy};
use crate::{
    api::{EcrAuditPolicy, FindingType},
    audit::{Container, Rules},
    event::Repository,
    inventory::{self, Index},
    report::table::printable,
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
    pub(super) threads: NonZeroUsize,
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

/// One line on standard error, harmless to a terminal.
pub(super) fn complain(message: &str) {
    use std::io::Write as _;
    // When standard error is closed, there is nobody left to tell.
    let _ = writeln!(io::stderr(), "ecr-audit: {}", printable(message));
}
