//! How long a whole assessment takes: 10,000 distinct images in 500 repositories, run by 100,000
//! pods, over a million facts. `cargo bench --bench assess` prints seconds and microseconds a pod.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    reason = "a measurement, not the product"
)]

use std::{sync::Arc, time::Instant};

use ecr_audit::{
    api::EcrAuditPolicySpec,
    audit::{ClusterNodes, Container, RepositoryEvidence, Rules, assess},
    event::{
        Action, Caller, Digest, Event, EventName, ImageId, Outcome, Platform, Principal, Pull,
        Reference, Repository,
    },
};
use jiff::{SignedDuration, Timestamp};

const REPOSITORIES: usize = 500;
const IMAGES: usize = 20;
const PODS: usize = 10;
const PULLS: usize = 980_000;

struct World {
    repository: Repository,
    references: Vec<Reference>,
    digests: Vec<Digest>,
    pods: Vec<String>,
    evidence: RepositoryEvidence,
}

fn caller(name: &str, session: &str) -> Caller {
    Caller {
        principal: Principal {
            key: format!("arn:aws:iam::111122223333:role/{name}").into(),
            kind: Some("AssumedRole".into()),
            account: Some("111122223333".into()),
            service: None,
        },
        session: Some(session.into()),
        arn: Some(format!("arn:aws:sts::111122223333:assumed-role/{name}/{session}").into()),
    }
}

fn world(number: usize, start: Timestamp, callers: &[Arc<Caller>]) -> World {
    let repository = Repository {
        account: "111122223333".into(),
        region: "us-east-1".into(),
        name: format!("team/service-{number}").into(),
    };
    let host = "111122223333.dkr.ecr.us-east-1.amazonaws.com";
    let digests: Vec<Digest> = (0..IMAGES)
        .map(|i| Digest::of_manifest(&format!("{number}/{i}")))
        .collect();
    let references = (0..IMAGES)
        .map(|i| Reference::parse(&format!("{host}/{}:v{i}", repository.name)).unwrap())
        .collect();
    let mut evidence = RepositoryEvidence::default();
    for i in 0..IMAGES * 2 {
        evidence.changes.push(Arc::new(Event {
            id: format!("push-{number}-{i}").into(),
            shared_id: None,
            replaces: None,
            time: start + SignedDuration::from_secs(i as i64),
            name: EventName::PutImage,
            account: repository.account.clone(),
            region: repository.region.clone(),
            repository: Some(repository.clone()),
            caller: caller("release", "ci").into(),
            outcome: Outcome::Allowed,
            omitted: false,
            action: Action::Push {
                image: ImageId {
                    digest: Some(digests[i % IMAGES].clone()),
                    tag: Some(format!("v{}", i % IMAGES).into()),
                },
                manifest: None,
                digest_matches: None,
            },
        }));
    }
    let named: Vec<Arc<[ImageId]>> = (0..IMAGES)
        .flat_map(|i| {
            let by_tag = ImageId {
                digest: None,
                tag: Some(format!("v{i}").into()),
            };
            let by_digest = ImageId {
                digest: Some(digests[i].clone()),
                tag: None,
            };
            [Arc::from([by_tag]), Arc::from([by_digest])]
        })
        .collect();
    for i in 0..PULLS / REPOSITORIES {
        evidence.pulls.push(Pull {
            id: format!("pull-{number}-{i}").into(),
            time: start + SignedDuration::from_secs(1_000 + i as i64),
            images: named[i % named.len()].clone(),
            caller: callers[i % callers.len()].clone(),
            denied: false,
        });
    }
    let pods = (0..IMAGES * PODS)
        .map(|i| format!("service-{number}-{i}"))
        .collect();
    World {
        repository,
        references,
        digests,
        pods,
        evidence,
    }
}

fn main() {
    // `cargo test --all-targets` runs benchmarks, too, without this flag: nothing to test here.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let start: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
    let now = start + SignedDuration::from_hours(48);
    let spec: EcrAuditPolicySpec = serde_json::from_str(
        r#"{"expectedPullers": {}, "expectedPushers": {"principals": ["*"]}}"#,
    )
    .unwrap();
    let rules = Rules::compile(&spec).unwrap();
    let mut nodes = ClusterNodes::default();
    let mut callers: Vec<Arc<Caller>> = Vec::new();
    for i in 0..999 {
        let instance = format!("i-{i:017x}");
        nodes.instances.insert(instance.as_str().into());
        callers.push(Arc::new(caller("eks-node", &instance)));
    }
    callers.push(Arc::new(caller("scanner", "nightly")));
    for caller in &callers {
        nodes.learn(caller);
    }
    let worlds: Vec<World> = (0..REPOSITORIES)
        .map(|i| world(i, start, &callers))
        .collect();
    let platform = Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
    };

    let mut runs = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        let (mut images, mut findings) = (0, 0);
        for world in &worlds {
            let containers: Vec<Container<'_>> = world
                .pods
                .iter()
                .enumerate()
                .map(|(i, pod)| Container {
                    namespace: "team",
                    workload_kind: "Deployment",
                    workload_name: &world.repository.name,
                    pod,
                    container: "app",
                    reference: &world.references[i % IMAGES],
                    running: Some(&world.digests[i % IMAGES]),
                    created: start + SignedDuration::from_hours(1),
                    started: start + SignedDuration::from_hours(1),
                    platform: Some(&platform),
                })
                .collect();
            let judged = assess(
                &world.repository,
                &containers,
                &world.evidence,
                &nodes,
                &rules,
                now,
            );
            images += judged.images.len();
            findings += judged.findings.len();
        }
        runs.push(begun.elapsed().as_secs_f64());
        println!(
            "{images} images, {findings} findings: {:.3} s",
            runs[runs.len() - 1]
        );
    }
    runs.sort_by(f64::total_cmp);
    let pods = (REPOSITORIES * IMAGES * PODS) as f64;
    println!(
        "median {:.3} s, {:.2} µs a pod",
        runs[2],
        runs[2] * 1e6 / pods
    );
}
