//! Promise: the operator judges what lies in a trail's bucket, and says by what it knows that it
//! has read everything: the real program, against S3 as the emulator has it.

#![allow(clippy::panic, reason = "helpers of tests fail their test")]

mod support;

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use support::operator::{expect_condition, findings};
use support::records::{ACCOUNT, REGION, ago, digest, expiry, push};
use support::servers::{Folder, free_ports};
use support::{ControlPlane, Ministack, Trail, eventually, objects};

const POLICY: &str = "production";
const WEB: &str = "shop/web";
const LIMIT: Duration = Duration::from_mins(2);
const HOUR: i64 = 3600;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_judges_what_lies_in_a_bucket() {
    let ministack = Ministack::start().await;
    let control_plane = ControlPlane::start().await;
    let admin = control_plane.admin();
    admin.apply(include_str!("../crds/ecraudit.io.yaml")).await;
    let registry = format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com");
    let image = format!("{registry}/{WEB}:v1");
    let id = format!("{registry}/{WEB}@{}", digest("a"));
    let namespace = admin.namespace("shop").await;
    let pod = objects::running_pod(&namespace, "web-1", "node-1", &[("web", &image, &id)]);
    admin.create(pod).await;

    let trail = Trail::on(&ministack, "org-trail", "AWSLogs").await;
    let pushed = push(ago(3 * HOUR), WEB, "a", "v1");
    trail.deliver(ACCOUNT, ago(3 * HOUR - 300), &[pushed]).await;
    let run = expiry(ago(HOUR), WEB, &digest("a"), 1, "keep the last two");
    trail.deliver(ACCOUNT, ago(HOUR - 300), &[run]).await;

    let folder = Folder::new("ecr-audit-bucket-");
    let [port] = free_ports();
    let mut command = admin.command(Path::new(env!("CARGO_BIN_EXE_ecr-audit")));
    command
        .args(["run", "--log-format", "text"])
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .args([
            "--ledger",
            &folder.path().join("ledger.db").to_string_lossy(),
        ])
        .envs(ministack.environment())
        .env("POD_NAMESPACE", "default")
        .env("POD_NAME", "operator-0")
        .env("RUST_LOG", "info");
    let _operator = folder.spawn("operator", command);
    let policy = json!({
        "apiVersion": "ecraudit.io/v1alpha1", "kind": "EcrAuditPolicy",
        "metadata": {"name": POLICY},
        "spec": {"sources": [{"name": "archive", "s3": {
            "bucket": trail.bucket, "prefix": "", "region": REGION}}]},
    });
    admin.apply(&policy.to_string()).await;

    let expired = ("False", "ImageExpired");
    let message = expect_condition(&admin, POLICY, "ImagesRetained", expired, LIMIT).await;
    assert!(message.contains("keep the last two"), "{message}");
    let complete = ("True", "Complete");
    let message = expect_condition(&admin, POLICY, "EvidenceComplete", complete, LIMIT).await;
    assert!(message.contains("by delivery time"), "{message}");
    eventually("the finding", LIMIT, async || {
        let found = findings(&admin, &namespace).await;
        if found == ["web-1, ImageExpired, Unpullable"] {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
}
