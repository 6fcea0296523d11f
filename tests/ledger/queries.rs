//! The queries of `docs/ledger.md` run as they stand, on both databases, and answer.

use ecr_audit::event::{Event, decode};
use ecr_audit::ledger::{Ledger, Undecodable};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, any::AnyRow};

use crate::database::{Database, on_both};
use crate::record::{Record, at, page};
use crate::story;

on_both! {
    every_query_of_the_documentation_answers,
    expired_images_name_their_rule,
    the_views_show_each_call_once,
}

const DOCUMENT: &str = include_str!("../../docs/ledger.md");

/// CloudTrail's example of a lifecycle run, at a given time, with a NUL in its rule.
fn lifecycle_run(second: i64, digest: &str) -> Event {
    let record = serde_json::json!({
        "eventVersion": "1.05",
        "userIdentity": {"accountId": "111122223333", "invokedBy": "AWS Internal"},
        "eventTime": at(second).to_string(),
        "eventSource": "ecr.amazonaws.com",
        "eventName": "PolicyExecutionEvent",
        "awsRegion": "us-east-1",
        "eventID": "9354dd7f-9aac-4e9d-956d-12561a4923aa",
        "eventType": "AwsServiceEvent",
        "recipientAccountId": "111122223333",
        "serviceEventDetails": {
            "repositoryName": "shop/web",
            "lifecycleEventPolicy": {"lifecycleEventRules": [{
                "rulePriority": 7, "description": "old\u{0} ones", "action": "expire",
            }]},
            "lifecycleEventImageActions": [{
                "lifecycleEventImage": {"digest": digest, "tagList": ["v1"]},
                "rulePriority": 7,
            }],
            "lifecycleEventFailureDetails": [],
        },
    });
    decode(record.to_string().as_bytes()).unwrap()
}

async fn query(database: &Database, sql: &str) -> Vec<AnyRow> {
    let url = if database.url.starts_with("postgres") {
        database.url.clone()
    } else {
        format!("sqlite:{}", database.url)
    };
    let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
    let rows = sqlx::query(AssertSqlSafe(sql.to_owned()))
        .fetch_all(&mut connection)
        .await
        .unwrap_or_else(|error| panic!("{error}\n{sql}"));
    connection.close().await.unwrap();
    rows
}

async fn filled(database: &Database) -> Ledger {
    let ledger = database.open().await;
    for number in 0..3 {
        story::append(&ledger, number).await.unwrap();
    }
    let digest = format!("sha256:{}", "ab".repeat(32));
    let events = [
        lifecycle_run(500, &digest),
        Record::pull(900, 400).of("shop/web").digest().event(),
    ];
    let undecodable = [Undecodable {
        text: "{}",
        reason: "eventID is missing or malformed",
        time: at(1),
    }];
    let page = ecr_audit::ledger::Page {
        undecodable: &undecodable,
        ..page(&events)
    };
    ledger.append(&page).await.unwrap();
    ledger
}

async fn every_query_of_the_documentation_answers(database: Database) {
    let ledger = filled(&database).await;
    let queries: Vec<&str> = DOCUMENT
        .split("```sql\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap())
        .collect();
    assert!(queries.len() >= 7);
    for sql in queries {
        assert!(!query(&database, sql).await.is_empty(), "{sql}");
    }
    ledger.close().await;
}

async fn expired_images_name_their_rule(database: Database) {
    let ledger = filled(&database).await;
    let rows = query(
        &database,
        "SELECT at, digest, effect, rule_priority, event_id, rule_description FROM expired_images",
    )
    .await;
    let [row] = rows.as_slice() else {
        panic!("{} rows", rows.len())
    };
    assert_eq!(row.get::<String, _>(0), at(500).to_string());
    assert_eq!(
        row.get::<String, _>(1),
        format!("sha256:{}", "ab".repeat(32))
    );
    assert_eq!(row.get::<String, _>(2), "Expire");
    assert_eq!(row.get::<i64, _>(3), 7);
    assert_eq!(row.get::<String, _>(4), "9354dd7f9aac4e9d956d12561a4923aa");
    assert!(row.get::<String, _>(5).starts_with("old"));
    ledger.close().await;
}

async fn the_views_show_each_call_once(database: Database) {
    let ledger = filled(&database).await;
    let shown = query(&database, "SELECT event_id FROM pull_history")
        .await
        .len();
    let mut counted = 0;
    let mut changes = 0;
    for place in ledger.repositories().await.unwrap() {
        counted += story::read(&ledger, &place).await.0.len();
        changes += ledger.changes(&place).await.unwrap().len();
    }
    assert_eq!(shown, counted);
    let shown = query(&database, "SELECT event_id FROM change_history")
        .await
        .len();
    assert_eq!(shown, changes);
    ledger.close().await;
}
