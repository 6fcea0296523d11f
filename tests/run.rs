//! Promise: the audit works from end to end. The real operator, a real control plane, and a
//! CloudTrail with a story in it (`demo/story`): what a platform engineer sees, and when.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail their test"
)]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use support::operator::{Operator, condition, expect_condition, findings, policy};
use support::servers::Folder;
use support::{Access, ControlPlane, Replay, eventually};

/// The moment that the story takes for now.
const NOW: &str = "2026-11-20T12:00:00Z";
const POLICY: &str = "production";
/// For what follows the first reading of the history, which is one request a second.
const BEGINNING: Duration = Duration::from_mins(10);
/// For what follows an event: one poll of 10 s, six requests, and slack for a busy machine.
const SOON: Duration = Duration::from_mins(3);

fn story(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/story");
    fs::read_to_string(folder.join(name)).unwrap()
}

/// A cluster that runs the story's pods, and an AWS with its history.
struct World {
    // Servers end before their folder goes: fields are dropped in this order.
    replay: Replay,
    control_plane: ControlPlane,
    folder: Folder,
}

impl World {
    async fn new() -> Self {
        let control_plane = ControlPlane::start().await;
        let admin = control_plane.admin();
        let crds = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("crds")).unwrap();
        for file in crds {
            admin
                .apply(&fs::read_to_string(file.unwrap().path()).unwrap())
                .await;
        }
        for list in ["nodes.json", "pods.json"] {
            let mut list: Value = serde_json::from_str(&story(list)).unwrap();
            for object in list["items"].as_array_mut().unwrap() {
                admin.create(object.take()).await;
            }
        }
        let world = Self {
            replay: Replay::start::<&str>([]).await,
            control_plane,
            folder: Folder::new("ecr-audit-run-"),
        };
        world.tell("1-history").await;
        world
    }

    fn admin(&self) -> Access {
        self.control_plane.admin()
    }

    fn operator(&self, name: &str) -> Operator {
        Operator::start(&self.folder, name, &self.admin(), &self.replay)
    }

    /// Lets a part of the story happen.
    async fn tell(&self, part: &str) {
        let records = story(&format!("events/{part}.json"));
        self.replay.add_as_of(NOW, &records).await;
    }

    async fn expect(&self, kind: &str, expected: (&str, &str), limit: Duration) -> String {
        expect_condition(&self.admin(), POLICY, kind, expected, limit).await
    }

    async fn expect_findings(&self, expected: &[&str], limit: Duration) {
        eventually("the findings", limit, async || {
            let seen = findings(&self.admin(), "shop").await;
            if seen == expected {
                Ok(())
            } else {
                Err(format!("{seen:#?}"))
            }
        })
        .await;
    }
}

const CART: &str = "cart, ImageExpired, WouldChange";
const WEB: &str = "web, ImageExpired, Unpullable";
const PULL: &str = "web, UnexpectedPull, -";

#[tokio::test]
async fn the_story_is_seen_as_it_happens() {
    let world = World::new().await;
    let operator = world.operator("operator-0");
    world.admin().apply(&story("policy.yaml")).await;
    world
        .expect("EvidenceComplete", ("True", "Complete"), BEGINNING)
        .await;
    world.expect("Ready", ("True", "Judged"), SOON).await;
    world
        .expect("PullersExpected", ("True", "AsExpected"), SOON)
        .await;
    world
        .expect("PushersExpected", ("True", "AsExpected"), SOON)
        .await;
    let message = world
        .expect("ImagesRetained", ("False", "ImageExpired"), SOON)
        .await;
    assert!(message.contains("shop/cart"), "{message}");
    world.expect_findings(&[CART], SOON).await;

    world.tell("2-pull").await;
    let message = world
        .expect("PullersExpected", ("False", "UnexpectedPull"), SOON)
        .await;
    assert!(
        message.contains("role/data/notebook-execution"),
        "{message}"
    );

    world.tell("3-expiry").await;
    world.expect_findings(&[CART, WEB, PULL], SOON).await;
    let status = eventually("the count", SOON, async || {
        let status = policy(&world.admin(), POLICY).await["status"].take();
        if status["findings"]["total"] == 3 {
            Ok(status)
        } else {
            Err(format!("{status:#}"))
        }
    })
    .await;
    assert_eq!(status["images"]["running"], 4, "{status:#}");
    assert_eq!(status["images"]["expired"], 2, "{status:#}");
    let message = world
        .expect("ImagesRetained", ("False", "ImageExpired"), SOON)
        .await;
    assert!(
        message.contains("shop/web") && message.contains("keep the last 2 images"),
        "{message}"
    );

    let expired = operator.metrics("ecr_audit_images{").await;
    let expired: Vec<_> = expired.iter().filter(|line| line.ends_with(" 2")).collect();
    assert!(
        expired.iter().any(|line| line.contains("xpired")),
        "{expired:?}"
    );
    assert_eq!(operator.get("/healthz").await.0, 200);
    assert_eq!(operator.get("/readyz").await.0, 200);
    let table = world.admin().kubectl(["get", "eap"]).await;
    assert!(
        table.lines().count() == 2 && table.contains(POLICY),
        "{table}"
    );
    let quota = world.replay.stats().await["quota"][0].take();
    let (calls, seconds) = (
        quota["calls"].as_f64().unwrap(),
        quota["seconds"].as_f64().unwrap(),
    );
    assert!(
        calls <= seconds + 1.0,
        "more than half of the quota: {quota}"
    );
    let log = operator.log_tail();
    assert!(operator.terminate().await.success(), "{log}");
}

#[tokio::test]
async fn late_double_and_shuffled_events_give_the_same_answer() {
    let world = World::new().await;
    world.replay.clear().await;
    let mut all: Vec<Value> = ["3-expiry", "2-pull", "1-history"]
        .iter()
        .flat_map(|part| {
            let mut file: Value =
                serde_json::from_str(&story(&format!("events/{part}.json"))).unwrap();
            file["Records"].as_array_mut().unwrap().split_off(0)
        })
        .collect();
    all.extend(all.clone());
    all.reverse();
    let late = |(place, record): (usize, Value)| match place % 3 {
        0 => json!({"record": record, "visibleAfterSeconds": 5 + place}),
        _ => record,
    };
    let all: Value = all.into_iter().enumerate().map(late).collect();
    world.replay.add_as_of(NOW, &all.to_string()).await;
    let _operator = world.operator("operator-0");
    world.admin().apply(&story("policy.yaml")).await;
    world
        .expect_findings(&[CART, WEB, PULL], BEGINNING * 2)
        .await;
    let status = policy(&world.admin(), POLICY).await["status"].take();
    assert_eq!(status["findings"]["total"], 3, "{status:#}");
}

#[tokio::test]
async fn faults_show_in_conditions_and_pass() {
    let world = World::new().await;
    let operator = world.operator("operator-0");
    world.admin().apply(&story("policy.yaml")).await;
    world
        .expect("EvidenceComplete", ("True", "Complete"), BEGINNING)
        .await;
    for (fault, reason) in [("accessDenied", "AccessDenied"), ("throttle", "Throttled")] {
        world.replay.set_faults(json!([{"kind": fault}])).await;
        let message = world
            .expect("EvidenceComplete", ("False", reason), BEGINNING)
            .await;
        assert!(message.contains("111122223333"), "{message}");
        // What is known stays known.
        let seen = policy(&world.admin(), POLICY).await;
        assert_eq!(condition(&seen, "ImagesRetained").0, "False");
        world.expect_findings(&[CART], Duration::from_secs(1)).await;
        let errors = operator.metrics("ecr_audit_source_errors_total{").await;
        assert!(
            errors.iter().any(|line| line.contains(reason)),
            "{errors:?}"
        );
        world.replay.set_faults(json!([])).await;
        world
            .expect("EvidenceComplete", ("True", "Complete"), BEGINNING)
            .await;
    }
}

#[tokio::test]
async fn a_killed_operator_goes_on_where_it_was() {
    let world = World::new().await;
    let operator = world.operator("operator-0");
    world.admin().apply(&story("policy.yaml")).await;
    world
        .expect("EvidenceComplete", ("True", "Complete"), BEGINNING)
        .await;
    world.tell("2-pull").await;
    world.expect_findings(&[CART, PULL], SOON).await;
    operator.kill();
    world.tell("3-expiry").await;
    world.replay.clear_stats().await;
    let _next = world.operator("operator-0");
    // Nothing vanishes while the next one begins.
    let began = std::time::Instant::now();
    eventually("the expiry", BEGINNING, async || {
        let seen = findings(&world.admin(), "shop").await;
        assert!(seen.iter().any(|finding| finding == CART), "{seen:?}");
        assert!(seen.iter().any(|finding| finding == PULL), "{seen:?}");
        if seen == [CART, WEB, PULL] {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    world
        .expect("EvidenceComplete", ("True", "Complete"), BEGINNING)
        .await;
    // The history is not read again.
    let calls = world.replay.lookups(None, "events").await;
    assert!(
        calls < 28,
        "{calls} events read anew after {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn policies_share_readers_and_are_judged_each_for_itself() {
    let world = World::new().await;
    let operator = world.operator("operator-0");
    let admin = world.admin();
    admin.apply(&story("policy.yaml")).await;
    let lax = story("policy.yaml")
        .replace("name: production", "name: lax")
        .replace(
            "    services: [inspector2.amazonaws.com]",
            "    services: [inspector2.amazonaws.com]\n    principals: [\"arn:aws:iam::111122223333:role/data/*\"]",
        );
    admin.apply(&lax).await;
    // Valid for the schema, but no selector.
    let broken = "apiVersion: ecraudit.io/v1alpha1\nkind: EcrAuditPolicy\nmetadata: {name: broken}\n\
        spec: {workloads: {namespaceSelector: {matchExpressions: [{key: a, operator: Near}]}}}\n";
    admin.apply(broken).await;
    world.tell("2-pull").await;
    world
        .expect("EvidenceComplete", ("True", "Complete"), BEGINNING)
        .await;
    world
        .expect("PullersExpected", ("False", "UnexpectedPull"), SOON)
        .await;
    let lax = |kind: &'static str, expected| {
        let admin = world.admin();
        async move { expect_condition(&admin, "lax", kind, expected, SOON).await }
    };
    lax("PullersExpected", ("True", "AsExpected")).await;
    lax("ImagesRetained", ("False", "ImageExpired")).await;
    expect_condition(&admin, "broken", "Ready", ("False", "InvalidSpec"), SOON).await;
    let quota = world.replay.stats().await["quota"][0].take();
    let (calls, seconds) = (
        quota["calls"].as_f64().unwrap(),
        quota["seconds"].as_f64().unwrap(),
    );
    assert!(calls <= seconds + 1.0, "two policies read twice: {quota}");

    // Edited, the first one expects the same.
    let edited = story("policy.yaml").replace(
        "    services: [inspector2.amazonaws.com]",
        "    accounts: [\"111122223333\"]",
    );
    admin.apply(&edited).await;
    world
        .expect("PullersExpected", ("True", "AsExpected"), SOON)
        .await;
    // A deleted one leaves no series behind.
    admin.kubectl(["delete", "ecrauditpolicy", "lax"]).await;
    eventually("the end of its series", SOON, async || {
        let lines = operator.metrics("ecr_audit_").await;
        match lines.iter().find(|line| line.contains("policy=\"lax\"")) {
            None => Ok(()),
            Some(line) => Err(line.clone()),
        }
    })
    .await;
}
