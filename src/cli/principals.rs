//! `ecr-audit principals`: who pulled and pushed the images that run, and the policy that would
//! expect just that. The answer to the storm of the first day.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::bail;
use clap::Args;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{
    check::Output,
    input::{self, InputArgs, Inputs},
};
use crate::{
    api::{EcrAuditPolicySpec, ExpectedPullers, ExpectedPushers, PrincipalName},
    audit::{Activity, ActivityKey, ClusterNodes, Deed, RepositoryEvidence, Rules, activity},
    event::{Caller, Interval, Repository},
    ledger::Ledger,
    report::table::printable,
};

/// Flags of `ecr-audit principals`.
#[derive(Debug, Args)]
pub struct PrincipalsArgs {
    #[command(flatten)]
    input: InputArgs,
    /// CloudTrail records, as for `check`.
    #[arg(long, value_name = "PATH", num_args = 1.., required_unless_present = "ledger")]
    events: Vec<PathBuf>,
    /// What a running operator has gathered, in place of events: its ledger's file or URL.
    #[arg(
        long,
        value_name = "FILE|URL",
        env = "ECR_AUDIT_LEDGER",
        hide_env_values = true,
        conflicts_with = "events"
    )]
    ledger: Option<String>,
    /// Print the `expectedPullers` and `expectedPushers` that would make all of this expected.
    #[arg(long)]
    suggest: bool,
    /// Form of the answer.
    #[arg(long, value_enum, default_value = "table", conflicts_with = "suggest")]
    output: Output,
}

/// What one principal did to the images that run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    principal: PrincipalName,
    /// The AWS service that it is, or acts for.
    service: Option<String>,
    action: &'static str,
    /// Refused for lack of permission.
    denied: bool,
    /// Null where the policy does not judge such calls.
    expected: Option<bool>,
    /// By sessions of this cluster's nodes.
    cluster_node: bool,
    count: u64,
    first_time: Timestamp,
    last_time: Timestamp,
    /// The repositories it concerned, `account/region/name`.
    repositories: BTreeSet<String>,
}

/// Reads, counts, prints. The exit code is 2 when the input had a fault, else 0.
pub(super) fn run(args: &PrincipalsArgs) -> anyhow::Result<ExitCode> {
    let inputs = args.input.read(&args.events)?;
    let (deeds, faulty) = match &args.ledger {
        Some(url) => (
            super::runtime()?.block_on(from_ledger(&inputs, url))?,
            false,
        ),
        None => from_events(&inputs, &args.events)?,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    if args.suggest {
        out.write_all(suggestion(&inputs, &deeds)?.as_bytes())?;
    } else {
        let lines = deeds.lines();
        match args.output {
            Output::Json => {
                serde_json::to_writer_pretty(&mut out, &lines)?;
                out.write_all(b"\n")?;
            }
            Output::Table => write!(out, "{}", Lines(&inputs, &lines))?,
        }
    }
    out.flush()?;
    for note in inputs.notes() {
        input::complain(&note);
    }
    Ok(ExitCode::from(if faulty { 2 } else { 0 }))
}

/// What was done, by principal, deed, and how it is judged, over all repositories.
#[derive(Default)]
struct Deeds(BTreeMap<ActivityKey, (Activity, BTreeSet<String>)>);

impl Deeds {
    fn add(&mut self, repository: &Repository, found: Activity) {
        let key = found.key();
        let name = repository.to_string();
        match self.0.get_mut(&key) {
            None => {
                self.0.insert(key, (found, BTreeSet::from([name])));
            }
            Some((known, names)) => {
                known.count += found.count;
                known.first = known.first.min(found.first);
                // Of one second, any: the session is only an example.
                if found.last > known.last {
                    known.last = found.last;
                    known.caller = found.caller;
                }
                names.insert(name);
            }
        }
    }

    /// What is not expected first, then by principal.
    fn lines(&self) -> Vec<Line> {
        let mut lines: Vec<Line> = self
            .0
            .values()
            .map(|(activity, repositories)| {
                let caller = &activity.caller;
                let (action, denied) = match activity.deed {
                    Deed::Pull => ("Pull", false),
                    Deed::DeniedPull => ("Pull", true),
                    Deed::Push => ("Push", false),
                    Deed::DeniedPush => ("Push", true),
                };
                let text = |text: &Option<Arc<str>>| text.as_deref().map(ToOwned::to_owned);
                Line {
                    principal: PrincipalName {
                        key: caller.principal.key.to_string(),
                        principal_type: text(&caller.principal.kind),
                        account_id: text(&caller.principal.account),
                        session: text(&caller.session),
                    },
                    service: text(&caller.principal.service),
                    action,
                    denied,
                    expected: activity.expected,
                    cluster_node: activity.node,
                    count: activity.count,
                    first_time: activity.first,
                    last_time: activity.last,
                    repositories: repositories.clone(),
                }
            })
            .collect();
        lines.sort_by_key(|line| match line.expected {
            Some(false) => 0,
            None => 1,
            Some(true) => 2,
        });
        lines
    }
}

/// Whether there was a fault in the input goes with it.
fn from_events(inputs: &Inputs, paths: &[PathBuf]) -> anyhow::Result<(Deeds, bool)> {
    // Nobody is expected, so that no pull is left out.
    let mut everybody: EcrAuditPolicySpec = match &inputs.policy {
        Some(policy) => policy.spec.clone(),
        None => EcrAuditPolicySpec::default(),
    };
    everybody.expected_pullers = Some(ExpectedPullers {
        cluster_nodes: false,
        principals: None,
        accounts: None,
        services: None,
    });
    let events = inputs.events(paths, Rules::compile(&everybody)?);
    let mut deeds = Deeds::default();
    for repository in inputs.repositories() {
        let evidence = events.evidence.repository(&repository);
        gather(
            &mut deeds,
            inputs,
            &repository,
            &evidence,
            events.evidence.nodes(),
        );
    }
    Ok((deeds, events.faulty()))
}

async fn from_ledger(inputs: &Inputs, url: &str) -> anyhow::Result<Deeds> {
    // Opening would make a new, empty ledger of a name that was misspelt.
    let file = url.strip_prefix("sqlite://").unwrap_or(url);
    if !file.contains("://") && !Path::new(file).exists() {
        bail!("{file}: no such ledger");
    }
    let ledger = Ledger::open(url).await?;
    let mut nodes = ClusterNodes {
        instances: inputs.index.instances(),
        ..ClusterNodes::default()
    };
    // Nodes that the operator has seen come and go.
    if let Some(cluster) = &inputs.cluster {
        nodes.instances.extend(ledger.nodes(cluster).await?);
    }
    for (_, caller) in ledger.callers().await? {
        nodes.learn(&caller);
    }
    let lookback = Interval {
        start: inputs.rules.lookback_start(inputs.now),
        end: inputs
            .now
            .checked_add(SignedDuration::from_secs(1))
            .unwrap_or(Timestamp::MAX),
    };
    let mut deeds = Deeds::default();
    for repository in inputs.repositories() {
        let pullers = ledger.pullers(&repository).await?;
        let pullers = pullers.into_iter().map(|(id, _)| id);
        let evidence = RepositoryEvidence {
            changes: ledger.changes(&repository).await?,
            pulls: ledger.pulls(&repository, lookback, pullers).await?,
        };
        gather(&mut deeds, inputs, &repository, &evidence, &nodes);
    }
    ledger.close().await;
    Ok(deeds)
}

fn gather(
    deeds: &mut Deeds,
    inputs: &Inputs,
    repository: &Repository,
    evidence: &RepositoryEvidence,
    nodes: &ClusterNodes,
) {
    let containers = inputs.containers(repository);
    for found in activity(&containers, evidence, nodes, &inputs.rules, inputs.now) {
        deeds.add(repository, found);
    }
}

/// The table.
struct Lines<'a>(&'a Inputs, &'a [Line]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(inputs, lines) = self;
        writeln!(
            f,
            "Who pulled and pushed the images that run, {} to {}",
            inputs.rules.lookback_start(inputs.now),
            inputs.now
        )?;
        if lines.is_empty() {
            return writeln!(f, "\n  nobody, as far as the evidence goes");
        }
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            // A principal's name is not broken: it is there to be copied.
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(["EXPECTED", "ACTION", "COUNT", "FIRST", "LAST", "PRINCIPAL"]);
        for line in *lines {
            let expected = match (line.expected, line.cluster_node) {
                (Some(true), true) => "yes (node)",
                (Some(true), false) => "yes",
                (Some(false), _) => "no",
                (None, _) => "not judged",
            };
            let action = match (line.action, line.denied) {
                (action, false) => action.to_lowercase(),
                (action, true) => format!("{}, refused", action.to_lowercase()),
            };
            table.add_row([
                expected.to_owned(),
                action,
                line.count.to_string(),
                line.first_time.to_string(),
                line.last_time.to_string(),
                printable(&line.principal.key),
            ]);
        }
        if let Some(count) = table.column_mut(2) {
            count.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f)?;
        for line in table.lines() {
            writeln!(f, " {}", line.trim_end())?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Suggestion {
    expected_pullers: ExpectedPullers,
    expected_pushers: ExpectedPushers,
}

/// The YAML that would make what was allowed expected.
fn suggestion(inputs: &Inputs, deeds: &Deeds) -> anyhow::Result<String> {
    let (mut pullers, mut pushers, mut refused) = (Expected::default(), Expected::default(), 0);
    for (activity, _) in deeds.0.values() {
        match activity.deed {
            // Without the nodes, `check` could not tell them either.
            Deed::Pull if activity.node => {}
            Deed::Pull => pullers.add(&activity.caller),
            Deed::Push => pushers.add(&activity.caller),
            Deed::DeniedPull | Deed::DeniedPush => refused += 1,
        }
    }
    let suggestion = Suggestion {
        expected_pullers: ExpectedPullers {
            cluster_nodes: !inputs.index.instances().is_empty(),
            principals: list(pullers.principals),
            accounts: None,
            services: list(pullers.services),
        },
        expected_pushers: ExpectedPushers {
            principals: list(pushers.principals),
            accounts: None,
            services: list(pushers.services),
        },
    };
    let mut text = format!(
        "# Who pulled and pushed the images that run, {} to {}: read it before you trust it.\n",
        inputs.rules.lookback_start(inputs.now),
        inputs.now
    );
    if refused > 0 {
        text.push_str("# Calls that were refused for lack of permission are left out.\n");
    }
    text.push_str(&serde_saphyr::to_string(&suggestion)?);
    Ok(text)
}

#[derive(Default)]
struct Expected {
    principals: BTreeSet<String>,
    services: BTreeSet<String>,
}

impl Expected {
    fn add(&mut self, caller: &Caller) {
        let plain = |text: &str| !text.contains(|c: char| c.is_whitespace() || c.is_control());
        match caller.principal.service.as_deref() {
            Some(service) if plain(service) => self.services.insert(service.to_owned()),
            // A blank cannot stand in a pattern, but a wildcard can stand for it.
            _ => self.principals.insert(
                caller
                    .principal
                    .key
                    .chars()
                    .map(|c| {
                        if c.is_whitespace() || c.is_control() {
                            '?'
                        } else {
                            c
                        }
                    })
                    .collect(),
            ),
        };
    }
}

fn list(names: BTreeSet<String>) -> Option<Vec<String>> {
    (!names.is_empty()).then(|| names.into_iter().collect())
}
