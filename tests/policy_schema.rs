//! Promise: the API server refuses a policy that cannot be judged, and says what was expected;
//! what a policy leaves out is filled in.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod support;

use std::fs;
use std::path::Path;

use ecr_audit::api::EcrAuditPolicy;
use ecr_audit::audit::Rules;
use serde_json::{Value, json};
use support::{Access, ControlPlane};
use tokio::sync::OnceCell;

const DEFINITIONS: &str = include_str!("../crds/ecraudit.io.yaml");

/// A control plane that knows the definitions, which one test at a time can make.
async fn defined() -> Access {
    static DEFINED: OnceCell<()> = OnceCell::const_new();
    let admin = ControlPlane::shared().await.admin();
    let define = async || {
        admin.apply(DEFINITIONS).await;
        let established = ["wait", "--for=condition=Established", "crd", "--all"];
        admin.kubectl(established).await;
    };
    DEFINED.get_or_init(define).await;
    admin
}

async fn refused(admin: &Access, spec: &str) -> String {
    let policy = format!(
        "apiVersion: ecraudit.io/v1alpha1\nkind: EcrAuditPolicy\nmetadata: {{name: bad}}\nspec: {spec}\n"
    );
    let output = admin.try_apply(&policy).await;
    assert!(!output.status.success(), "taken: {spec}");
    String::from_utf8(output.stderr).unwrap()
}

/// The policies in the documentation; what is only a `spec` gets the rest.
fn documented() -> Vec<String> {
    let mut policies = Vec::new();
    for page in ["README.md", "docs/install.md", "docs/queues.md"] {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let text = fs::read_to_string(page).unwrap();
        for block in text.split("```yaml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            if block.contains("EcrAuditPolicy") {
                policies.push(block.to_owned());
            } else if block.starts_with("spec:") {
                policies.push(format!(
                    "apiVersion: ecraudit.io/v1alpha1\nkind: EcrAuditPolicy\nmetadata: {{name: a}}\n{block}"
                ));
            }
        }
    }
    policies
}

#[tokio::test]
async fn the_policies_of_the_documentation_are_taken_and_can_be_judged() {
    let admin = defined().await;
    let documented = documented();
    assert!(documented.len() >= 4, "{documented:?}");
    let [s3, sqs] = ["s3: {bucket", "sqs:"].map(|kind| {
        let policy = documented.iter().find(|policy| policy.contains(kind));
        policy.unwrap().clone()
    });
    // A list of accounts says which files of a bucket or queue are read: no role is needed for it.
    assert!(s3.contains("accounts:"), "{s3}");
    assert!(!sqs.contains("assumeRole"), "{sqs}");
    for policy in documented {
        let output = admin.try_apply(&policy).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{policy}\n{said}");
        let policy: EcrAuditPolicy = serde_saphyr::from_str(&policy).unwrap();
        if let Err(error) = Rules::compile(&policy.spec) {
            panic!("{:?}: {error}", policy.spec);
        }
    }
}

#[tokio::test]
async fn bad_policies_are_refused_with_what_was_expected_and_good_ones_completed() {
    let admin = defined().await;
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
            "{sources: [{name: a, assumeRole: {roleName: x}, s3: {bucket: trail, region: us-east-1}}]}",
            "sqs and s3 assume one role, by assumeRole.roleArn",
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
