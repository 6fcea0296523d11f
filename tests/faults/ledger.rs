//! The ledger's database is killed, locked and full while the operator works on it; clusters share
//! one.

use std::time::Duration;

use serde_json::json;
use sqlx::{Connection as _, Row as _};

use crate::support::operator::Operator;
use crate::support::servers::Folder;
use crate::support::{Postgres, Replay};
use crate::world::{Cluster, expired, history, pulls};

async fn count(url: &str, table: &str) -> i64 {
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(url).await.unwrap();
    let sql = format!("SELECT count(*) FROM {table}");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .fetch_one(&mut connection)
        .await
        .unwrap();
    row.get(0)
}

fn start(
    folder: &Folder,
    name: &str,
    cluster: &Cluster,
    replay: &Replay,
    ledger: &str,
) -> Operator {
    let admin = cluster.control_plane.admin();
    Operator::start_with(folder, name, &admin, ledger, replay.environment())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_killed_under_load_loses_nothing_and_is_told_of() {
    let (cluster, replay) = (Cluster::new().await, history().await);
    let mut server = Postgres::start().await;
    let url = server.database().await;
    let folder = Folder::new("operator-");
    let operator = start(&folder, "operator-0", &cluster, &replay, &url);
    cluster.finds(&["web-0 ImageExpired 1"]).await;
    replay.add(&pulls("web", 300)).await;
    cluster
        .says("PullersExpected", ("False", "UnexpectedPull"))
        .await;
    // New ones are read while it is killed.
    replay.add(&pulls("web", 300)).await;
    server.kill();
    cluster.says("Ready", ("False", "LedgerFailing")).await;
    let found = cluster.findings().await.unwrap();
    assert_eq!(found.len(), 2, "nothing vanishes: {found:?}");
    replay.add(&pulls("web", 300)).await;
    server.begin().await;
    cluster.says("Ready", ("True", "Judged")).await;
    cluster
        .finds(&["web-0 ImageExpired 1", "web-0 UnexpectedPull 900"])
        .await;
    cluster.says("EvidenceComplete", ("True", "Complete")).await;
    assert_eq!(count(&url, "pull_history").await, 900);
    assert_eq!(count(&url, "change_history").await, 2);
    assert!(operator.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_another_process_locks_is_told_of_and_loses_nothing() {
    let (cluster, replay) = (Cluster::new().await, history().await);
    let folder = Folder::new("operator-");
    let ledger = folder.path().join("ledger.db").display().to_string();
    let _operator = start(&folder, "operator-0", &cluster, &replay, &ledger);
    cluster.finds(&["web-0 ImageExpired 1"]).await;

    let url = format!("sqlite:{ledger}");
    sqlx::any::install_default_drivers();
    let mut other = sqlx::AnyConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN EXCLUSIVE")
        .execute(&mut other)
        .await
        .unwrap();
    replay.add(&pulls("web", 10)).await;
    let message = cluster
        .says("EvidenceComplete", ("False", "LedgerFailing"))
        .await;
    assert!(message.contains("locked"), "{message}");
    let found = cluster.findings().await.unwrap();
    assert_eq!(
        found.len(),
        1,
        "nothing vanishes, nothing is invented: {found:?}"
    );
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    cluster
        .finds(&["web-0 ImageExpired 1", "web-0 UnexpectedPull 10"])
        .await;
    cluster.says("EvidenceComplete", ("True", "Complete")).await;
    assert_eq!(count(&url, "pull_history").await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_share_a_ledger_and_one_that_cannot_read_audits_what_another_one_read() {
    let server = Postgres::start().await;
    let url = server.database().await;
    let (reads, audits) = (Cluster::new().await, Cluster::new().await);
    let replay = history().await;
    replay.add(&pulls("web", 5)).await;
    // The other one's credentials are good for nothing but to say who it is.
    let denied = Replay::start(["--quota", "0"]).await;
    denied
        .set_faults(json!([{"kind": "accessDenied", "operation": "LookupEvents"}]))
        .await;
    let folder = Folder::new("operator-");
    let _one = start(&folder, "one", &reads, &replay, &url);
    let _two = start(&folder, "two", &audits, &denied, &url);
    let expected = ["web-0 ImageExpired 1", "web-0 UnexpectedPull 5"];
    reads.finds(&expected).await;
    audits.finds(&expected).await;
    audits
        .says("EvidenceComplete", ("False", "AccessDenied"))
        .await;

    // What happens from here on reaches it, too.
    audits.run_pod("api-0", "api").await;
    replay.add(&expired("api")).await;
    audits
        .finds(&[
            "api-0 ImageExpired 1",
            "web-0 ImageExpired 1",
            "web-0 UnexpectedPull 5",
        ])
        .await;
    reads.finds(&expected).await;
    reads.says("EvidenceComplete", ("True", "Complete")).await;
    assert_eq!(count(&url, "pull_history").await, 5);
    tokio::time::sleep(Duration::from_secs(1)).await;
}
