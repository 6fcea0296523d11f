//! Several policies: they share what they read, and are judged each for itself.

use crate::support::eventually;
use crate::world::{POLICY, SOON, World, story};

/// Valid for the schema, but no selector.
const BROKEN: &str = "
apiVersion: ecraudit.io/v1alpha1
kind: EcrAuditPolicy
metadata: {name: broken}
spec: {workloads: {namespaceSelector: {matchExpressions: [{key: a, operator: Near}]}}}
";

/// So few requests a second that two readers would be seen to ask more often.
const RATE: u32 = 4;

pub(crate) async fn policies_share_readers_and_are_judged_each_for_itself() {
    let world = World::with_rate(RATE).await;
    let operator = world.operator("operator-0").await;
    let admin = world.admin();
    admin.apply(&story("policy.yaml")).await;
    let expects = |name: &str, puller: &str| {
        story("policy.yaml")
            .replace("name: production", &format!("name: {name}"))
            .replace("    services: [inspector2.amazonaws.com]", puller)
    };
    let notebooks = "    principals: [\"arn:aws:iam::111122223333:role/data/*\"]";
    let notebooks = format!("    services: [inspector2.amazonaws.com]\n{notebooks}");
    admin.apply(&expects("lax", &notebooks)).await;
    admin.apply(BROKEN).await;
    world.tell("2-pull").await;
    world.expect_judged().await;
    world
        .expect("PullersExpected", ("False", "UnexpectedPull"))
        .await;
    let expected = ("True", "AsExpected");
    world.expect_of("lax", "PullersExpected", expected).await;
    let expired = ("False", "ImageExpired");
    world.expect_of("lax", "ImagesRetained", expired).await;
    let invalid = ("False", "InvalidSpec");
    world.expect_of("broken", "Ready", invalid).await;
    // A broken one leaves the others alone.
    world.expect("Ready", ("True", "Judged")).await;
    let quota = world.replay.stats().await["quota"][0].take();
    let calls = quota["calls"].as_f64().unwrap();
    let allowed = quota["seconds"].as_f64().unwrap() * f64::from(RATE) + 1.0;
    assert!(calls <= allowed, "two policies read twice: {quota}");
    let peak = quota["peakPerSecond"].as_u64().unwrap();
    assert!(peak <= u64::from(RATE) + 2, "two read twice: {quota}");

    // Edited, the first one expects the same.
    let everybody = "    accounts: [\"111122223333\"]";
    admin.apply(&expects(POLICY, everybody)).await;
    world.expect("PullersExpected", expected).await;
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
    world.expect_no_refusal();
}
