//! How long an assessment takes while the ledger grows around what runs.
//!
//! `cargo bench --bench growth` judges ten repositories with twenty running images each, out of a
//! ledger that holds 10,000 facts, 100,000, a million, ten million: first in SQLite, then (up to a
//! million) in PostgreSQL (see `tests/support/postgres.rs` for which). What is known of the running
//! images stays the same. What is added are pulls by the cluster's nodes: of other repositories,
//! or, in a second ledger, of other images of the very same repositories. The median of 15 rounds;
//! a round reads and judges all ten, as the operator does after a change in each.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_wrap,
    reason = "a measurement, not the product"
)]

use std::{collections::HashSet, time::Instant};

use ecr_audit::{
    api::EcrAuditPolicySpec,
    audit::{ClusterNodes, Container, RepositoryEvidence, Rules, assess},
    event::{
        Action, Caller, Digest, Event, EventName, ImageId, Interval, Outcome, Platform, Principal,
        Reference, Repository,
    },
    ledger::{CallerId, Ledger, Page},
};
use jiff::{SignedDuration, Timestamp};

#[path = "../tests/support/mod.rs"]
mod support;

const ACCOUNT: &str = "111122223333";
const REGION: &str = "us-east-1";
const RUNNING: usize = 10;
const IMAGES: usize = 20;
/// Pulls of each running repository by somebody who is not expected, and by nodes.
const UNEXPECTED: usize = 20;
const OWN: usize = 900;
const NODES: usize = 1_000;
const OTHERS: usize = 500;
const ROUNDS: usize = 15;
const PAGE: usize = 5_000;
const START: i64 = 1_760_000_000;
const SPAN: i64 = 20 * 86_400;
/// More events than there are.
const MOST: i64 = 11_000_000;

fn repository(name: String) -> Repository {
    Repository {
        account: ACCOUNT.into(),
        region: REGION.into(),
        name: name.into(),
    }
}

fn caller(role: &str, session: &str) -> Caller {
    Caller {
        principal: Principal {
            key: format!("arn:aws:iam::{ACCOUNT}:role/{role}").into(),
            kind: Some("AssumedRole".into()),
            account: Some(ACCOUNT.into()),
            service: None,
        },
        session: Some(session.into()),
        arn: Some(format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{session}").into()),
    }
}

fn node(number: usize) -> Caller {
    caller("eks-node", &format!("i-{:017x}", number % NODES))
}

fn event(
    number: usize,
    name: EventName,
    repository: &Repository,
    who: Caller,
    action: Action,
) -> Event {
    let hex = format!("{number:032x}");
    // Pushes come first; pulls one after the other, as they do.
    let second = match name {
        EventName::PutImage => 0,
        _ => 1 + number as i64 * (SPAN - 2) / MOST,
    };
    Event {
        id: [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ]
        .join("-")
        .into(),
        shared_id: None,
        replaces: None,
        time: Timestamp::from_second(START + second).unwrap(),
        name,
        account: ACCOUNT.into(),
        region: REGION.into(),
        repository: Some(repository.clone()),
        caller: who.into(),
        outcome: Outcome::Allowed,
        omitted: false,
        action,
    }
}

fn tag(name: &str, number: usize) -> ImageId {
    ImageId {
        digest: None,
        tag: Some(format!("{name}{number}").into()),
    }
}

fn digest(repository: &Repository, image: usize) -> Digest {
    Digest::of_manifest(&format!("{} {image}", repository.name))
}

/// Gives events their numbers, and stores them.
struct Filling<'a> {
    ledger: &'a Ledger,
    number: usize,
    page: Vec<Event>,
}

impl Filling<'_> {
    async fn add(&mut self, name: EventName, repository: &Repository, who: Caller, action: Action) {
        self.number += 1;
        self.page
            .push(event(self.number, name, repository, who, action));
        if self.page.len() == PAGE {
            self.flush().await;
        }
    }

    async fn flush(&mut self) {
        let page = Page {
            source: "lookupEvents",
            account: ACCOUNT,
            region: REGION,
            names: &[],
            events: &self.page,
            undecodable: &[],
            covered: None,
            settled: None,
        };
        self.ledger.append(&page).await.unwrap();
        self.page.clear();
    }
}

/// What runs, and what is known of it.
async fn fill(filling: &mut Filling<'_>, running: &[Repository]) {
    for repository in running {
        for image in 0..IMAGES {
            let action = Action::Push {
                image: ImageId {
                    digest: Some(digest(repository, image)),
                    ..tag("v", image)
                },
                manifest: None,
                digest_matches: None,
            };
            let release = caller("release", "ci");
            filling
                .add(EventName::PutImage, repository, release, action)
                .await;
        }
        for pull in 0..OWN + UNEXPECTED {
            let who = match pull {
                0..UNEXPECTED => caller("scanner", "nightly"),
                _ => node(pull),
            };
            let action = Action::Pull(vec![tag("v", pull % IMAGES)]);
            filling
                .add(EventName::BatchGetImage, repository, who, action)
                .await;
        }
    }
    filling.flush().await;
}

/// Reads and judges every running repository, as the operator does; how many findings.
async fn judge(
    ledger: &Ledger,
    running: &[Repository],
    nodes: &ClusterNodes,
    rules: &Rules,
) -> usize {
    let now = Timestamp::from_second(START + SPAN).unwrap();
    let within = Interval {
        start: rules.lookback_start(now),
        end: now,
    };
    let platform = Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
    };
    let mut findings = 0;
    for repository in running {
        let changes = ledger.changes(repository).await.unwrap();
        let pullers = ledger.pullers(repository).await.unwrap();
        let unexpected: Vec<CallerId> = pullers
            .iter()
            .filter(|(_, caller)| rules.expects_puller(caller, nodes) == Some(false))
            .map(|(id, _)| *id)
            .collect();
        let pulls = ledger.pulls(repository, within, unexpected).await.unwrap();
        let evidence = RepositoryEvidence { changes, pulls };
        let host = format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com");
        let images: Vec<(Reference, Digest)> = (0..IMAGES)
            .map(|image| {
                let reference = format!("{host}/{}:v{image}", repository.name);
                (
                    Reference::parse(&reference).unwrap(),
                    digest(repository, image),
                )
            })
            .collect();
        let started = now - SignedDuration::from_hours(1);
        let containers: Vec<Container<'_>> = images
            .iter()
            .map(|(reference, digest)| Container {
                namespace: "team",
                workload_kind: "Deployment",
                workload_name: &repository.name,
                pod: "web-1",
                container: "web",
                reference,
                running: Some(digest),
                created: started,
                started,
                platform: Some(&platform),
            })
            .collect();
        let judged = assess(repository, &containers, &evidence, nodes, rules, now);
        findings += judged.findings.len();
    }
    findings
}

async fn grow(ledger: &Ledger, what: &str, is_same_repository: bool, sizes: &[usize]) {
    let spec: EcrAuditPolicySpec = serde_json::from_str(r#"{"expectedPullers": {}}"#).unwrap();
    let rules = Rules::compile(&spec).unwrap();
    let mut nodes = ClusterNodes::default();
    for number in 0..NODES {
        let node = node(number);
        nodes.instances.insert(node.session.clone().unwrap());
        nodes.learn(&node);
    }
    let running: Vec<Repository> = (0..RUNNING)
        .map(|number| repository(format!("team/running-{number}")))
        .collect();
    let others: Vec<Repository> = (0..OTHERS)
        .map(|number| repository(format!("team/other-{number}")))
        .collect();
    let mut filling = Filling {
        ledger,
        number: 0,
        page: vec![],
    };
    fill(&mut filling, &running).await;
    for size in sizes {
        while filling.number < *size {
            let number = filling.number;
            let of = if is_same_repository {
                &running[number % RUNNING]
            } else {
                &others[number % OTHERS]
            };
            let action = Action::Pull(vec![tag("old-", number % 50)]);
            filling
                .add(EventName::BatchGetImage, of, node(number), action)
                .await;
        }
        filling.flush().await;
        let mut runs = Vec::new();
        let mut findings = HashSet::new();
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            findings.insert(judge(ledger, &running, &nodes, &rules).await);
            runs.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        assert_eq!(
            findings,
            HashSet::from([RUNNING * IMAGES]),
            "the same is found"
        );
        runs.sort_by(f64::total_cmp);
        println!(
            "{what:<36}{:>10} facts{:>9.1} ms, at best {:.1}",
            filling.number,
            runs[ROUNDS / 2],
            runs[0]
        );
    }
}

fn main() {
    let whole = std::env::args().any(|argument| argument == "--bench");
    let sizes: &[usize] = if whole {
        &[10_000, 100_000, 1_000_000, 10_000_000]
    } else {
        &[10_000]
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for (what, is_same) in [
            ("other repositories", false),
            ("the same repositories", true),
        ] {
            let folder = tempfile::TempDir::new().unwrap();
            let path = folder.path().join("ledger.db");
            let ledger = Ledger::open(path.to_str().unwrap()).await.unwrap();
            grow(&ledger, &format!("SQLite, {what}"), is_same, sizes).await;
            ledger.close().await;
            let url = support::Postgres::shared().await.database().await;
            let ledger = Ledger::open(&url).await.unwrap();
            let sizes = &sizes[..sizes.len().min(3)];
            grow(&ledger, &format!("PostgreSQL, {what}"), is_same, sizes).await;
            ledger.close().await;
        }
    });
}
