//! Promise: the API server refuses a policy that cannot be judged, and says what was expected;
//! what a policy leaves out is filled in.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail their test"
)]

mod support;

use serde_json::{Value, json};
use support::ControlPlane;

const DEFINITIONS: &str = include_str!("../crds/ecraudit.io.yaml");

async fn refused(admin: &support::Access, spec: &str) -> String {
    let policy = format!(
        "apiVersion: ecraudit.io/v1alpha1\nkind: EcrAuditPolicy\nmetadata: {{name: bad}}\nspec: {spec}\n"
    );
    let output = admin.try_apply(&policy).await;
    assert!(!output.status.success(), "taken: {spec}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn bad_policies_are_refused_with_what_was_expected_and_good_ones_completed() {
    let admin = ControlPlane::shared().await.admin();
    admin.apply(DEFINITIONS).await;
    let established = ["wait", "--for=condition=Established", "crd", "--all"];
    admin.kubectl(established).await;
    for (spec, said) in [
        ("{sources: [{name: a}]}", "a source is exactly one of"),
        (
            "{sources: [{name: a, lookupEvents: {}, s3: {bucket: trail, region: us-east-1}}]}",
            "a source is exactly one of",
        ),
        (
            "{sources: [{name: a, lookupEvents: {}}, {name: a, lookupEvents: {}}]}",
            "Duplicate value",
        ),
        ("{sources: []}", "at least 1 items"),
        (
            "{sources: [{name: a, lookupEvents: {pollPeriodSeconds: 9}}]}",
            "greater than or equal to 10",
        ),
        (
            "{sources: [{name: a, lookupEvents: {rereadPeriodSeconds: 29}}]}",
            "greater than or equal to 30",
        ),
        (
            "{sources: [{name: a, accounts: ['111122223333'], lookupEvents: {}}]}",
            "accounts and assumeRole.roleName belong together",
        ),
        (
            "{sources: [{name: a, assumeRole: {roleName: x}, lookupEvents: {}}]}",
            "accounts and assumeRole.roleName belong together",
        ),
        (
            "{sources: [{name: a, assumeRole: {}, lookupEvents: {}}]}",
            "exactly one of roleArn and roleName",
        ),
        ("{images: {registryIDs: ['12']}}", "has 12 digits"),
        ("{expectedPullers: {principals: ['ci-*']}}", "is an ARN"),
        (
            "{expectedPushers: {services: [inspector2]}}",
            "a service principal",
        ),
        (
            "{exceptions: [{owner: a, reason: b, until: 2027-13-31}]}",
            "must be of type date",
        ),
        ("{exceptions: [{owner: a, reason: b}]}", "until: Required"),
        ("{lookbackDays: 0}", "greater than or equal to 1"),
    ] {
        let message = refused(&admin, spec).await;
        assert!(message.contains(said), "{spec}: {message}");
    }

    let policy = json!({
        "apiVersion": "ecraudit.io/v1alpha1", "kind": "EcrAuditPolicy",
        "metadata": {"name": "good"},
        "spec": {"sources": [{"name": "a", "lookupEvents": {}}], "expectedPullers": {}},
    });
    let created = admin.create(policy).await;
    assert_eq!(
        created.data["spec"],
        json!({
            "sources": [{"name": "a", "lookupEvents": {
                "pollPeriodSeconds": 60, "rereadPeriodSeconds": 900, "backfillDays": 90,
            }}],
            "expectedPullers": {"clusterNodes": true},
            "lookbackDays": 30,
        })
    );
    let empty = json!({
        "apiVersion": "ecraudit.io/v1alpha1", "kind": "EcrAuditPolicy",
        "metadata": {"name": "empty"}, "spec": {},
    });
    let created = admin.create(empty).await;
    assert_eq!(created.data["spec"], json!({"lookbackDays": 30}));
    let listed = admin.kubectl(["get", "ecr-audit"]).await;
    assert!(
        listed.contains("UNEXPECTED PULLS   COVERED SINCE"),
        "{listed}"
    );
    let _: Value =
        serde_json::from_str(&admin.kubectl(["get", "eap", "-o", "json"]).await).unwrap();
}
