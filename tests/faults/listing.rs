//! `check` asks a cluster with many pods, while the API server forgets what it is being asked for.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use serde_json::Value;

use crate::support::records::{ACCOUNT, REGION, digest};
use crate::support::{ControlPlane, Options, Proxy, programs, running_pod};

const PODS: usize = 1_200;

#[tokio::test(flavor = "multi_thread")]
async fn a_list_whose_moment_is_forgotten_between_two_pages_is_read_to_its_end() {
    let options = Options {
        api_server_flags: vec![
            "--etcd-compaction-interval=1s".to_owned(),
            // Pages come from etcd, as they do where the cache does not hold their moment.
            "--feature-gates=ListFromCacheSnapshot=false".to_owned(),
        ],
        ..Options::default()
    };
    let control_plane = ControlPlane::start_with(options).await;
    let admin = control_plane.admin();
    let namespace = admin.namespace("shop").await;
    let image = format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/shop/web");
    let (reference, id) = (format!("{image}:v1"), format!("{image}@{}", digest("one")));
    stream::iter(0..PODS)
        .for_each_concurrent(16, |number| {
            let containers = [("app", reference.as_str(), id.as_str())];
            let pod = running_pod(&namespace, &format!("web-{number}"), "node-1", &containers);
            let admin = &admin;
            async move {
                admin.create(pod).await;
            }
        })
        .await;

    let folder = tempfile::tempdir().unwrap();
    let events = folder.path().join("events.json");
    std::fs::write(&events, "{\"Records\": []}").unwrap();
    let proxy = Proxy::before(admin.address()).await;
    let access = admin.through("slow", proxy.address());
    let check = async || {
        let mut command = access.command(env!("CARGO_BIN_EXE_ecr-audit"));
        command.args(["check", "--output", "json", "--events"]);
        command.arg(&events);
        let output = programs::output(command).await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        report["images"][0]["containers"].clone()
    };
    // The answer to the first page stops on its way, and what it was about is compacted meanwhile.
    let forget = async {
        proxy.stall_after(200_000).await;
        for number in 0..6 {
            let arguments = ["label", "namespace", &namespace, "--overwrite"];
            let label = format!("beat={number}");
            admin
                .kubectl(arguments.into_iter().chain([label.as_str()]))
                .await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        proxy.heal();
    };
    let (containers, ()) = tokio::join!(check(), forget);
    assert_eq!(containers, PODS);
    // The API server has indeed forgotten: the metric counts what it had to refuse.
    let metrics = admin.kubectl(["get", "--raw", "/metrics"]).await;
    let refused = metrics.lines().find(|line| {
        line.starts_with("apiserver_request_total{")
            && line.contains("code=\"410\"")
            && line.contains("resource=\"pods\"")
    });
    assert!(refused.is_some(), "nothing was refused");
}
