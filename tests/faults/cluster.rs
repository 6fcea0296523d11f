//! The API server and its etcd are killed under load.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::operator::Operator;
use crate::support::servers::Folder;
use crate::world::{Cluster, expired, history, pulls};

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_and_an_etcd_that_are_killed_cost_no_finding() {
    let cluster = Arc::new(Cluster::new().await);
    let replay = history().await;
    let folder = Folder::new("operator-");
    let ledger = folder.path().join("ledger.db").display().to_string();
    let admin = cluster.control_plane.admin();
    let operator =
        Operator::start_with(&folder, "operator-0", &admin, &ledger, replay.environment());
    cluster.finds(&["web-0 ImageExpired 1"]).await;
    replay.add(&pulls("web", 20)).await;

    // Whenever the API server answers, what was found is there, and nothing that never happened.
    let stop = Arc::new(AtomicBool::new(false));
    let (watched, stopped) = (cluster.clone(), stop.clone());
    let witness = tokio::spawn(async move {
        let mut seen = BTreeSet::new();
        while !stopped.load(Ordering::Relaxed) {
            if let Some(found) = watched.findings().await {
                assert!(found.contains("web-0 ImageExpired 1"), "{found:?}");
                seen.extend(found);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        seen
    });
    for number in 0..4 {
        cluster.run_pod(&format!("api-{number}"), "api").await;
        if number % 2 == 0 {
            cluster.control_plane.restart_api_server().await;
        } else {
            cluster.control_plane.restart_etcd().await;
        }
        if number == 1 {
            replay.add(&expired("api")).await;
        }
    }
    let expected = [
        "api-0 ImageExpired 1",
        "api-1 ImageExpired 1",
        "api-2 ImageExpired 1",
        "api-3 ImageExpired 1",
        "web-0 ImageExpired 1",
        "web-0 UnexpectedPull 20",
    ];
    cluster.finds(&expected).await;
    cluster.says("Ready", ("True", "Judged")).await;
    stop.store(true, Ordering::Relaxed);
    let seen = witness.await.expect("nothing vanished");
    let invented = seen.iter().filter(|text| {
        // A pull may be counted while not all of them are read.
        !expected.contains(&text.as_str()) && !text.starts_with("web-0 UnexpectedPull ")
    });
    let invented: Vec<_> = invented.collect();
    assert!(invented.is_empty(), "{invented:?}");
    assert!(operator.terminate().await.success());
}
