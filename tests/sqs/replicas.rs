//! The operator as users run it, twice, on one PostgreSQL ledger and one queue: the standby reads
//! as well, and the leader judges what either of them brought.

use std::path::Path;
use std::time::Duration;

use ecr_audit::event::Interval;
use ecr_audit::source::{Learned, Store as _};
use serde_json::json;

use crate::support::operator::{expect_condition, findings, policy};
use crate::support::records::{ACCOUNT, REGION, ago, digest, expiry, push};
use crate::support::servers::{Folder, Server, free_ports};
use crate::support::{Access, ControlPlane, Postgres, eventually, http, objects};
use crate::world::{LIMIT, WEB, World, here, notification, open, pull};

const POLICY: &str = "production";

/// A replica, and where its metrics are.
fn replica(folder: &Folder, access: &Access, name: &str, ledger: &str) -> (Server, String) {
    let [port] = free_ports();
    let address = format!("127.0.0.1:{port}");
    let mut command = access.command(Path::new(env!("CARGO_BIN_EXE_ecr-audit")));
    command
        .args(["run", "--log-format", "text", "--listen", &address])
        .args(["--ledger", ledger])
        .env("POD_NAMESPACE", "default")
        .env("POD_NAME", name)
        .env("RUST_LOG", "info");
    (folder.spawn(name, command), address)
}

/// How many messages a replica has stored.
async fn stored(address: &str) -> u64 {
    let (_, text) = http::request(address, "GET", "/metrics", "").await;
    let line = "ecr_audit_queue_messages_total{outcome=\"stored\"} ";
    let found = text.lines().find_map(|text| text.strip_prefix(line));
    found.map_or(0, |count| count.parse().unwrap())
}

pub async fn the_leader_judges_what_either_replica_reads() {
    let world = World::new().await;
    let control_plane = ControlPlane::start().await;
    let admin = control_plane.admin();
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    for file in std::fs::read_dir(crds).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        admin.apply(&text).await;
    }
    let registry = format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com");
    let image = format!("{registry}/{WEB}:v1");
    let id = format!("{registry}/{WEB}@{}", digest("a"));
    let namespace = admin.namespace("shop").await;
    let pod = objects::running_pod(&namespace, "web-1", "node-1", &[("web", &image, &id)]);
    admin.create(pod).await;

    // An earlier operator has read the queue for a day, until an hour ago.
    let url = Postgres::shared().await.database().await;
    let ledger = open(&url).await;
    let span = Interval {
        start: ago(25 * 3600),
        end: ago(3600),
    };
    let learned = Learned {
        delivered: vec![span],
        events: vec![span],
        ..Learned::default()
    };
    let name = world.queue.replace("http://", "sqs://");
    ledger.learn(&name, &here(), learned).await.unwrap();

    let folder = Folder::new("ecr-audit-sqs-");
    let one = replica(&folder, &admin, "operator-0", &url);
    let other = replica(&folder, &admin, "operator-1", &url);
    let spec = json!({
        "apiVersion": "ecraudit.io/v1alpha1", "kind": "EcrAuditPolicy",
        "metadata": {"name": POLICY},
        "spec": {"sources": [{"name": "trail", "sqs": {
            "queueUrl": world.queue, "region": REGION, "buckets": [world.bucket]}}]},
    });
    admin.apply(&spec.to_string()).await;
    world
        .file(ago(3000), &[push(ago(3500), WEB, "a", "v1")])
        .await;
    let complete = ("True", "Complete");
    let message = expect_condition(&admin, POLICY, "EvidenceComplete", complete, LIMIT).await;
    assert!(message.contains("by delivery time"), "{message}");
    let retained = ("True", "Retained");
    expect_condition(&admin, POLICY, "ImagesRetained", retained, LIMIT).await;

    // Enough for both of them to get some; one of them tells of an expiry.
    for file in 0..60 {
        world.file(ago(300), &[pull(1000 + file)]).await;
    }
    let run = expiry(ago(1200), WEB, &digest("a"), 1, "keep the last two");
    world.file(ago(300), &[run]).await;
    let expired = ("False", "ImageExpired");
    expect_condition(&admin, POLICY, "ImagesRetained", expired, LIMIT).await;
    eventually("the finding", LIMIT, async || {
        let found = findings(&admin, &namespace).await;
        if found == ["web-1, ImageExpired, Unpullable"] {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
    world.emptied().await;
    let (first, second) = (stored(&one.1).await, stored(&other.1).await);
    assert!(first > 0 && second > 0, "{first} and {second}");
    assert_eq!(first + second, 62);

    // A message that says nothing shows, and the condition says when it is over.
    world.send(&json!({"hello": "world"})).await;
    let unreadable = ("False", "MessageUnreadable");
    let message = expect_condition(&admin, POLICY, "EvidenceComplete", unreadable, LIMIT).await;
    assert!(message.contains("message "), "{message}");
    // A bucket that nobody asked for is not read.
    let elsewhere = crate::world::key(ago(60));
    world.send(&notification("somebody-else", &elsewhere)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let status = policy(&admin, POLICY).await["status"].take();
    assert_eq!(status["findings"]["total"], 1, "{status:#}");
}
