//! A cluster that runs an expired image, a policy over it, and a CloudTrail.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::operator::condition;
use crate::support::records::{ACCOUNT, REGION, ago, digest, expiry, pull, push, role};
use crate::support::{ControlPlane, Options, Replay, eventually, running_pod};

pub(crate) const POLICY: &str = "production";
/// For what takes a few requests at one a second, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_mins(8);

/// The policy: read often, expect the release role alone.
const SPEC: &str = "\
apiVersion: ecraudit.io/v1alpha1
kind: EcrAuditPolicy
metadata: {name: production}
spec:
  sources: [{name: history, lookupEvents: {pollPeriodSeconds: 10, rereadPeriodSeconds: 30}}]
  expectedPullers: {clusterNodes: false}
";

/// A control plane with a pod of `shop/web`, which runs the image `one`, and the policy.
pub(crate) struct Cluster {
    pub(crate) control_plane: ControlPlane,
    pub(crate) namespace: String,
}

impl Cluster {
    pub(crate) async fn new() -> Self {
        let control_plane = ControlPlane::start_with(Options::default()).await;
        let admin = control_plane.admin();
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/ecraudit.io.yaml");
        admin.apply(&std::fs::read_to_string(crds).unwrap()).await;
        let namespace = admin.namespace("shop").await;
        let cluster = Self {
            control_plane,
            namespace,
        };
        cluster.run_pod("web-0", "web").await;
        admin.apply(SPEC).await;
        cluster
    }

    /// A pod that runs the image `one` of `shop/<repository>`.
    pub(crate) async fn run_pod(&self, name: &str, repository: &str) {
        let image = format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/shop/{repository}");
        let (reference, id) = (format!("{image}:v1"), format!("{image}@{}", digest("one")));
        let containers = [("app", reference.as_str(), id.as_str())];
        let pod = running_pod(&self.namespace, name, "node-1", &containers);
        self.control_plane.admin().create(pod).await;
    }

    /// Waits until a condition has this status and reason, and returns its message.
    pub(crate) async fn says(&self, kind: &str, expected: (&str, &str)) -> String {
        let admin = self.control_plane.admin();
        eventually(&format!("{kind} {expected:?}"), SOON, async || {
            let arguments = ["get", "ecrauditpolicy", POLICY, "-o", "json"];
            let output = admin.try_kubectl(arguments).await;
            let policy: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let (status, reason, message) = condition(&policy, kind);
            ((status.as_str(), reason.as_str()) == expected)
                .then_some(message)
                .ok_or(format!("{:#}", policy["status"]))
        })
        .await
    }

    /// `workload type count` of every finding; none while the API server does not answer.
    pub(crate) async fn findings(&self) -> Option<BTreeSet<String>> {
        let arguments = ["get", "eaf", "-n", &self.namespace, "-o", "json"];
        let output = self.control_plane.admin().try_kubectl(arguments).await;
        let list: Value = serde_json::from_slice(&output.stdout).ok()?;
        let items = list["items"].as_array()?.iter();
        let told = items.map(|item| {
            let spec = &item["spec"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (workload, kind) = (text(&spec["workload"]["name"]), text(&spec["type"]));
            format!("{workload} {kind} {}", spec["count"])
        });
        Some(told.collect())
    }

    /// Waits until these, and no others, are the findings.
    pub(crate) async fn finds(&self, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(|&text| text.to_owned()).collect();
        eventually("the findings", SOON, async || {
            let found = self.findings().await;
            (found.as_ref() == Some(&expected))
                .then_some(())
                .ok_or(format!("{found:#?}, not {expected:#?}"))
        })
        .await;
    }
}

/// What happened to `shop/<repository>` up to now: a push two days ago, an expiry an hour ago.
pub(crate) fn expired(repository: &str) -> Value {
    let name = format!("shop/{repository}");
    json!([
        push(ago(2 * 24 * 3600), &name, "one", "v1"),
        expiry(ago(3600), &name, &digest("one"), 1, "keep two"),
    ])
}

/// Pulls of the image `one` by somebody, one every second up to now.
pub(crate) fn pulls(repository: &str, count: i64) -> Value {
    let name = format!("shop/{repository}");
    let image = json!({"imageDigest": digest("one")});
    let one = |second| pull(ago(second), &name, &image, role("notebook", "who"));
    (1..=count).map(one).collect()
}

/// A CloudTrail without a quota, in which the image of `shop/web` has expired.
pub(crate) async fn history() -> Replay {
    let replay = Replay::start(["--quota", "0"]).await;
    replay.add(&expired("web")).await;
    replay
}
