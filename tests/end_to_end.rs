//! Promise: from CloudTrail's Event history to `kubectl get ecrauditpolicies`. The real program
//! runs against a real API server and a replayed CloudTrail: what happens to images that run is
//! told within seconds, faults say what is wrong and when it is over, and what was told survives
//! the end of the process and the loss of its ledger.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail their test"
)]

mod support;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use support::{Access, ControlPlane, Replay, eventually};

const DEFINITIONS: &str = include_str!("../crds/ecraudit.io.yaml");
/// The moment that the story takes for now.
const NOW: &str = "2026-11-20T12:00:00Z";
const SOON: Duration = Duration::from_mins(5);

fn story(name: &str) -> String {
    fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("demo/story")
            .join(name),
    )
    .unwrap()
}

/// The program, as a Deployment would run it. Killed when dropped.
struct Operator {
    child: Child,
    port: u16,
}

impl Operator {
    fn start(admin: &Access, replay: &Replay, ledger: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = admin
            .command(env!("CARGO_BIN_EXE_ecr-audit"))
            .args(["run", "--listen", &format!("127.0.0.1:{port}"), "--ledger"])
            .arg(ledger)
            .envs(replay.environment())
            .env("POD_NAMESPACE", "default")
            .env("POD_NAME", "operator-0")
            .env("RUST_LOG", "warn")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, port }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let output = tokio::task::spawn_blocking(move || {
            Command::new("curl")
                .args(["-s", "-w", "\n%{http_code}", &url])
                .output()
                .unwrap()
        })
        .await
        .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, code) = text.rsplit_once('\n').unwrap();
        (code.parse().unwrap(), body.to_owned())
    }

    async fn terminate(mut self) -> std::process::ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        let mut ended = None;
        for _ in 0..100 {
            ended = self.child.try_wait().unwrap();
            if ended.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        ended.expect("ended within 10 seconds")
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn status(admin: &Access, policy: &str) -> Value {
    let text = admin.kubectl(["get", "eap", policy, "-o", "json"]).await;
    serde_json::from_str::<Value>(&text).unwrap()["status"].take()
}

fn condition(status: &Value, kind: &str) -> Value {
    status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == kind)
        .cloned()
        .unwrap_or_default()
}

async fn becomes(admin: &Access, policy: &str, kind: &str, wanted: &str, reason: &str) -> Value {
    let what = format!("{policy}'s {kind} to be {wanted}, {reason}");
    eventually(&what, SOON, async || {
        let seen = condition(&status(admin, policy).await, kind);
        if seen["status"] == wanted && seen["reason"] == reason {
            Ok(seen)
        } else {
            Err(seen.to_string())
        }
    })
    .await
}

async fn findings(admin: &Access) -> Vec<String> {
    let names = [
        "get",
        "eaf",
        "-A",
        "-o",
        "jsonpath={.items[*].metadata.name}",
    ];
    let mut names: Vec<String> = admin
        .kubectl(names)
        .await
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

async fn cluster(admin: &Access) {
    admin.apply(DEFINITIONS).await;
    let established = ["wait", "--for=condition=Established", "crd", "--all"];
    admin.kubectl(established).await;
    for file in ["nodes.json", "pods.json"] {
        let list: Value = serde_json::from_str(&story(file)).unwrap();
        let mut items = list["items"].as_array().unwrap().clone();
        items.sort_by_key(|item| item["kind"] != "Namespace");
        for mut item in items {
            for field in ["uid", "resourceVersion", "creationTimestamp"] {
                item["metadata"].as_object_mut().unwrap().remove(field);
            }
            if item["kind"] == "Namespace" {
                item.as_object_mut().unwrap().remove("status");
            }
            admin.create(item).await;
        }
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a story is told in one go")]
async fn the_story_is_told_from_cloudtrail_to_kubectl() {
    let control_plane = ControlPlane::start().await;
    let admin = control_plane.admin();
    cluster(&admin).await;
    let replay = Replay::start(["--quota", "0"]).await;
    replay.add_as_of(NOW, &story("events/1-history.json")).await;
    let folder = tempfile::tempdir().unwrap();
    let mut operator = Operator::start(&admin, &replay, &folder.path().join("ledger.db"));
    admin.apply(&story("policy.yaml")).await;

    // The history is read, and what ran untouched is told to be so.
    becomes(&admin, "production", "Ready", "True", "Judged").await;
    becomes(&admin, "production", "EvidenceComplete", "True", "Complete").await;
    becomes(
        &admin,
        "production",
        "PullersExpected",
        "True",
        "AsExpected",
    )
    .await;
    assert_eq!(operator.get("/readyz").await.0, 200);
    assert_eq!(operator.get("/healthz").await.0, 200);

    // A role that nobody expects pulls an image, and a rule expires it.
    replay.add_as_of(NOW, &story("events/2-pull.json")).await;
    replay.add_as_of(NOW, &story("events/3-expiry.json")).await;
    let pulled = becomes(
        &admin,
        "production",
        "PullersExpected",
        "False",
        "UnexpectedPull",
    )
    .await;
    let message = pulled["message"].as_str().unwrap();
    assert!(message.contains(":role/"), "{message}");
    eventually("the expired image", SOON, async || {
        let seen = condition(&status(&admin, "production").await, "ImagesRetained");
        let message = seen["message"].as_str().unwrap_or_default().to_owned();
        if message.contains("shop/web:v1") && message.contains("lifecycle rule 1") {
            Ok(())
        } else {
            Err(message)
        }
    })
    .await;
    let table = admin.kubectl(["get", "eap"]).await;
    assert!(
        table.contains("production   True    4        2      1 "),
        "{table}"
    );
    let told = findings(&admin).await;
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[1].starts_with("web-imageexpired-"), "{told:?}");
    let events = admin.kubectl(["get", "events", "-n", "shop"]).await;
    assert!(events.contains("ImageExpired"), "{events}");
    let metrics = operator.get("/metrics").await.1;
    for line in [
        r#"ecr_audit_images{policy="production",state="Expired"} 2"#,
        r#"ecr_audit_findings{impact="",policy="production",type="UnexpectedPull"} 1"#,
        r#"ecr_audit_condition{policy="production",status="False",type="ImagesRetained"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }

    // A pod that ends is judged: nothing runs cart any more.
    let delete = ["delete", "pod", "-n", "shop", "-l", "app=cart", "--force"];
    let all = [
        "delete",
        "pod",
        "-n",
        "shop",
        "cart-5c66f7d9bb-4gq6r",
        "cart-5c66f7d9bb-zz8vt",
        "--force",
    ];
    admin.kubectl(delete).await;
    admin.try_kubectl(all).await;
    eventually("cart's finding to go", SOON, async || {
        let told = findings(&admin).await;
        if told.len() == 2 {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    })
    .await;
    let told = findings(&admin).await;

    // Killed, its ledger lost, CloudTrail out of reach: nothing that was told vanishes.
    operator.child.kill().unwrap();
    operator.child.wait().unwrap();
    replay.set_faults(json!([{"kind": "accessDenied"}])).await;
    let operator = Operator::start(&admin, &replay, &folder.path().join("empty.db"));
    becomes(&admin, "production", "Ready", "False", "AccessDenied").await;
    assert_eq!(findings(&admin).await, told);
    let after = status(&admin, "production").await;
    assert_eq!(condition(&after, "ImagesRetained")["status"], "False");
    assert_eq!(condition(&after, "PullersExpected")["status"], "False");
    assert_eq!(after["images"]["gone"], 1);

    // The fault is over, and the condition says so; the same is told as before.
    replay.set_faults(json!([])).await;
    becomes(&admin, "production", "Ready", "True", "Judged").await;
    becomes(&admin, "production", "EvidenceComplete", "True", "Complete").await;
    assert_eq!(findings(&admin).await, told);

    // A policy that cannot be judged says why, and leaves the other one alone.
    admin
        .apply(
            "apiVersion: ecraudit.io/v1alpha1\nkind: EcrAuditPolicy\nmetadata: {name: broken}\n\
             spec: {sources: [{name: trail, s3: {bucket: org-trail, region: us-east-1}}]}\n",
        )
        .await;
    let broken = becomes(&admin, "broken", "Ready", "False", "SourceUnsupported").await;
    assert!(broken["message"].as_str().unwrap().contains("trail"));
    becomes(&admin, "production", "Ready", "True", "Judged").await;

    // A policy is edited: the role is expected now. Then it is deleted, with its findings.
    let patch =
        json!({"spec": {"expectedPullers": {"principals": ["arn:aws:iam::111122223333:role/*"]}}});
    let patch = patch.to_string();
    let edit = ["patch", "eap", "production", "--type=merge", "-p", &patch];
    admin.kubectl(edit).await;
    becomes(
        &admin,
        "production",
        "PullersExpected",
        "True",
        "AsExpected",
    )
    .await;
    assert_eq!(findings(&admin).await.len(), 1);
    admin.kubectl(["delete", "eap", "production"]).await;
    eventually("the findings to go with their policy", SOON, async || {
        let told = findings(&admin).await;
        if told.is_empty() {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    })
    .await;
    let metrics = operator.get("/metrics").await.1;
    assert!(!metrics.contains(r#"policy="production""#), "{metrics}");

    assert!(operator.terminate().await.success());
    let lease = [
        "get",
        "lease",
        "ecr-audit-operator",
        "-o",
        "jsonpath={.spec.holderIdentity}",
    ];
    assert_eq!(admin.kubectl(lease).await, "");
}
