//! The replay server, asked by the SDK that the operator reads with.
//!
//! `replay_boto3.rs` asks it with a client of another make.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail their test"
)]

mod support;

use std::{io::Write as _, time::Duration};

use aws_config::{BehaviorVersion, Region, retry::RetryConfig};
use aws_sdk_cloudtrail::config::Credentials;
use aws_sdk_cloudtrail::{
    Client,
    error::{DisplayErrorContext, ProvideErrorMetadata as _, SdkError},
    operation::lookup_events::{LookupEventsError, LookupEventsOutput},
    primitives::DateTime,
    types::{LookupAttribute, LookupAttributeKey},
};
use flate2::{Compression, write::GzEncoder};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use support::Replay;

const NO_QUOTA: [&str; 2] = ["--quota", "0"];

/// A synthetic record, `seconds` old.
fn record(id: u32, name: &str, seconds: i64) -> Value {
    let time = Timestamp::now() - SignedDuration::from_secs(seconds);
    json!({
        "eventVersion": "1.11",
        "userIdentity": {
            "type": "AssumedRole",
            "arn": "arn:aws:sts::111122223333:assumed-role/node/i-0a1b2c3d4e5f67890",
            "accountId": "111122223333",
            "accessKeyId": "ASIAIOSFODNN7EXAMPLE",
        },
        "eventTime": Timestamp::from_second(time.as_second()).unwrap().to_string(),
        "eventSource": "ecr.amazonaws.com",
        "eventName": name,
        "awsRegion": "us-east-1",
        "readOnly": name == "BatchGetImage",
        "resources": [{
            "ARN": "arn:aws:ecr:us-east-1:111122223333:repository/shop/web",
            "accountId": "111122223333",
            "type": "AWS::ECR::Repository",
        }],
        "eventID": format!("00000000-0000-4000-8000-{id:012}"),
        "recipientAccountId": "111122223333",
    })
}

fn records(count: u32, name: &str) -> Value {
    (0..count)
        .map(|id| record(id, name, i64::from(id) + 10))
        .collect()
}

async fn client(replay: &Replay, region: &'static str) -> Client {
    let config = aws_config::defaults(BehaviorVersion::latest())
        .endpoint_url(replay.url())
        .region(Region::new(region))
        .credentials_provider(Credentials::new(
            "AKIAIOSFODNN7EXAMPLE",
            "none",
            None,
            None,
            "test",
        ))
        .retry_config(RetryConfig::disabled())
        .load()
        .await;
    Client::new(&config)
}

fn named(name: &str) -> LookupAttribute {
    LookupAttribute::builder()
        .attribute_key(LookupAttributeKey::EventName)
        .attribute_value(name)
        .build()
        .unwrap()
}

type Looked = Result<LookupEventsOutput, SdkError<LookupEventsError>>;

async fn look_up(client: &Client, name: &str) -> Looked {
    client
        .lookup_events()
        .lookup_attributes(named(name))
        .send()
        .await
}

fn ids(output: &LookupEventsOutput) -> Vec<u32> {
    let id = |event: &aws_sdk_cloudtrail::types::Event| {
        let id = event.event_id().unwrap();
        id.rsplit('-').next().unwrap().parse().unwrap()
    };
    output.events().iter().map(id).collect()
}

fn code(result: &Looked) -> &str {
    match result {
        Ok(output) => panic!("no error: {output:?}"),
        Err(error) => error
            .code()
            .unwrap_or_else(|| panic!("no error code: {}", DisplayErrorContext(error))),
    }
}

#[tokio::test]
async fn a_record_comes_back_with_its_own_text() {
    let replay = Replay::start(NO_QUOTA).await;
    let text = record(7, "BatchGetImage", 60)
        .to_string()
        .replacen('{', "{ \n ", 1);
    replay.add_text(&text).await;
    let answer = look_up(&client(&replay, "us-east-1").await, "BatchGetImage")
        .await
        .unwrap();
    let [event] = answer.events() else {
        panic!("{answer:?}");
    };
    assert_eq!(event.cloud_trail_event(), Some(text.as_str()));
    assert_eq!(event.event_name(), Some("BatchGetImage"));
    assert_eq!(event.event_source(), Some("ecr.amazonaws.com"));
    assert_eq!(event.read_only(), Some("true"));
    assert_eq!(event.username(), Some("i-0a1b2c3d4e5f67890"));
    assert_eq!(event.access_key_id(), Some("ASIAIOSFODNN7EXAMPLE"));
    let record: Value = serde_json::from_str(&text).unwrap();
    let time: Timestamp = record["eventTime"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        event.event_time(),
        Some(&DateTime::from_secs(time.as_second()))
    );
    assert_eq!(
        event.resources()[0].resource_name(),
        Some("arn:aws:ecr:us-east-1:111122223333:repository/shop/web")
    );
    assert!(answer.next_token().is_none());
}

#[tokio::test]
async fn pages_are_newest_first_and_end() {
    let replay = Replay::start(NO_QUOTA).await;
    replay.add(&records(120, "PutImage")).await;
    replay.add(&records(3, "DeleteRepository")).await;
    let client = client(&replay, "us-east-1").await;
    let pages = client.lookup_events().lookup_attributes(named("PutImage"));
    let mut pages = pages.into_paginator().send();
    let mut seen = Vec::new();
    while let Some(page) = pages.next().await {
        seen.push(ids(&page.unwrap()));
    }
    assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), [50, 50, 20]);
    assert_eq!(seen.concat(), (0..120).collect::<Vec<_>>());
    assert_eq!(replay.lookups(Some("PutImage"), "pages").await, 3);
    assert_eq!(replay.lookups(Some("PutImage"), "events").await, 120);
}

#[tokio::test]
async fn both_bounds_of_a_lookup_are_inclusive_to_the_second() {
    let replay = Replay::start(NO_QUOTA).await;
    let all = records(10, "PutImage");
    replay.add(&all).await;
    let time = |id: usize| -> i64 {
        let time: Timestamp = all[id]["eventTime"].as_str().unwrap().parse().unwrap();
        time.as_second()
    };
    let client = client(&replay, "us-east-1").await;
    let answer = client
        .lookup_events()
        .start_time(DateTime::from_secs_and_nanos(time(6), 400_000_000))
        .end_time(DateTime::from_secs(time(3)))
        .send()
        .await
        .unwrap();
    assert_eq!(ids(&answer), [3, 4, 5, 6]);
    let backwards = client
        .lookup_events()
        .start_time(DateTime::from_secs(time(3)))
        .end_time(DateTime::from_secs(time(6)))
        .send()
        .await;
    assert_eq!(code(&backwards), "InvalidTimeRangeException");
}

#[tokio::test]
async fn what_is_older_than_90_days_or_elsewhere_is_not_returned() {
    let replay = Replay::start(NO_QUOTA).await;
    let days = 24 * 60 * 60;
    let (kept, gone) = (
        record(1, "PutImage", 89 * days),
        record(2, "PutImage", 91 * days),
    );
    let mut elsewhere = record(3, "PutImage", 60);
    elsewhere["awsRegion"] = "eu-central-1".into();
    let mut foreign = record(4, "PutImage", 60);
    foreign["recipientAccountId"] = "444455556666".into();
    replay.add(&json!([kept, gone, elsewhere, foreign])).await;
    let here = look_up(&client(&replay, "us-east-1").await, "PutImage")
        .await
        .unwrap();
    assert_eq!(ids(&here), [1]);
    let there = look_up(&client(&replay, "eu-central-1").await, "PutImage")
        .await
        .unwrap();
    assert_eq!(ids(&there), [3]);
}

#[tokio::test]
async fn a_late_record_is_seen_when_it_says() {
    let replay = Replay::start(NO_QUOTA).await;
    replay
        .add(&json!({"record": record(1, "PutImage", 7200), "visibleAfterSeconds": 2}))
        .await;
    let client = client(&replay, "us-east-1").await;
    assert!(ids(&look_up(&client, "PutImage").await.unwrap()).is_empty());
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(ids(&look_up(&client, "PutImage").await.unwrap()), [1]);
}

#[tokio::test]
async fn a_next_token_is_good_for_its_own_parameters_until_it_expires() {
    let replay = Replay::start(["--quota", "0", "--token-seconds", "2"]).await;
    replay.add(&records(120, "PutImage")).await;
    let client = client(&replay, "us-east-1").await;
    let first = look_up(&client, "PutImage").await.unwrap();
    let token = first.next_token().unwrap();
    let next = |name: &'static str| {
        let lookup = client.lookup_events().lookup_attributes(named(name));
        lookup.next_token(token).send()
    };
    assert_eq!(ids(&next("PutImage").await.unwrap())[0], 50);
    assert_eq!(
        ids(&next("PutImage").await.unwrap())[0],
        50,
        "the same token twice"
    );
    assert_eq!(
        code(&next("BatchGetImage").await),
        "InvalidNextTokenException"
    );
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(code(&next("PutImage").await), "InvalidNextTokenException");
}

#[tokio::test]
async fn the_quota_is_two_a_second_for_each_account_and_region() {
    let replay = Replay::start::<&str>([]).await;
    let (here, there) = (
        client(&replay, "us-east-1").await,
        client(&replay, "eu-west-1").await,
    );
    let mut throttled = 0;
    for _ in 0..6 {
        if let Err(error) = look_up(&here, "PutImage").await {
            assert_eq!(error.code(), Some("ThrottlingException"));
            assert_eq!(error.raw_response().unwrap().status().as_u16(), 400);
            throttled += 1;
        }
    }
    assert!(throttled >= 3, "{throttled} of 6 throttled");
    assert!(
        look_up(&there, "PutImage").await.is_ok(),
        "another region has its own quota"
    );
    let stats = replay.stats().await;
    assert_eq!(stats["quota"][1]["region"], "us-east-1");
    assert_eq!(stats["quota"][1]["throttled"], throttled);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(look_up(&here, "PutImage").await.is_ok());
}

#[tokio::test]
async fn faults_hit_the_calls_that_they_name_and_then_end() {
    let replay = Replay::start(NO_QUOTA).await;
    let client = client(&replay, "us-east-1").await;
    let named = [
        (json!({"kind": "throttle"}), "ThrottlingException"),
        (json!({"kind": "accessDenied"}), "AccessDeniedException"),
        (json!({"kind": "expiredToken"}), "ExpiredTokenException"),
    ];
    for (mut fault, expected) in named {
        fault["next"] = 1.into();
        fault["eventName"] = "PutImage".into();
        replay.set_faults(json!([fault])).await;
        assert!(look_up(&client, "BatchGetImage").await.is_ok());
        assert_eq!(code(&look_up(&client, "PutImage").await), expected);
        assert!(look_up(&client, "PutImage").await.is_ok());
        assert_eq!(replay.faults().await, json!([]));
    }
    replay
        .set_faults(json!([{"kind": "serverError", "status": 500, "next": 1}]))
        .await;
    let failed = look_up(&client, "PutImage").await.unwrap_err();
    assert_eq!(failed.raw_response().unwrap().status().as_u16(), 500);
}

#[tokio::test]
async fn connections_break_and_bodies_are_cut_off_on_request() {
    let replay = Replay::start(NO_QUOTA).await;
    replay.add(&records(20, "PutImage")).await;
    let client = client(&replay, "us-east-1").await;
    for (kind, seen) in [
        ("reset", "reset"),
        ("truncate", "end of file before message length reached"),
        ("garbage", "unexpected token"),
    ] {
        replay.set_faults(json!([{"kind": kind, "next": 1}])).await;
        let failed = look_up(&client, "PutImage").await.unwrap_err();
        let text = DisplayErrorContext(&failed).to_string();
        assert!(text.contains(seen), "{kind}: {text}");
        assert_eq!(ids(&look_up(&client, "PutImage").await.unwrap()).len(), 20);
    }
    // The SDK takes an answer without events for an empty page: readers must not.
    replay
        .set_faults(json!([{"kind": "noEvents", "next": 1}]))
        .await;
    assert!(look_up(&client, "PutImage").await.unwrap().events.is_none());
}

#[tokio::test]
async fn an_event_can_come_on_two_pages_and_a_page_can_be_empty() {
    let replay = Replay::start(NO_QUOTA).await;
    replay.add(&records(60, "PutImage")).await;
    replay
        .set_faults(json!([
            {"kind": "repeat", "events": 2},
            {"kind": "emptyPage", "next": 1},
        ]))
        .await;
    let client = client(&replay, "us-east-1").await;
    let mut pages = client.lookup_events().into_paginator().send();
    let mut seen = Vec::new();
    while let Some(page) = pages.next().await {
        seen.push(ids(&page.unwrap()));
    }
    assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), [0, 50, 12]);
    assert_eq!(seen[2][..3], [48, 49, 50]);
    assert_eq!(seen[2].last(), Some(&59));
}

#[tokio::test]
async fn records_are_moved_in_time_and_nothing_else_in_them_is() {
    let replay = Replay::start(NO_QUOTA).await;
    let given = r#"{"Records": [{"eventTime":"2020-03-12T20:22:12Z","eventName":"PolicyExecutionEvent",
        "eventSource":"ecr.amazonaws.com","awsRegion":"us-east-1","note":"at \"2020-03-12T20:22:12Z\", too",
        "serviceEventDetails":{"lastEvaluatedAt":0,"pushedAt":1584042813000}}]}"#;
    let before = Timestamp::now().as_second();
    replay.add_as_of("2020-03-12T20:22:22Z", given).await;
    let answer = look_up(&client(&replay, "us-east-1").await, "PolicyExecutionEvent")
        .await
        .unwrap();
    let text = answer.events()[0].cloud_trail_event().unwrap();
    let moved: Value = serde_json::from_str(text).unwrap();
    let time: Timestamp = moved["eventTime"].as_str().unwrap().parse().unwrap();
    let age = before - time.as_second();
    assert!((8..=10).contains(&age), "{age} s old");
    let details = &moved["serviceEventDetails"];
    assert_eq!(details["lastEvaluatedAt"], 0);
    // 1584042813 is 2020-03-12T19:53:33Z, 1719 s before the event.
    assert_eq!(details["pushedAt"], (time.as_second() - 1719) * 1000);
    assert_eq!(moved["note"], "at \"2020-03-12T20:22:12Z\", too");
}

#[tokio::test]
async fn files_are_read_at_the_start_and_sigterm_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    let lines = [record(1, "PutImage", 60), record(2, "PutImage", 50)];
    write(
        "a.jsonl",
        format!("{}\n{}\n", lines[0], lines[1]).as_bytes(),
    );
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(
        json!({"Records": [record(3, "PutImage", 40)]})
            .to_string()
            .as_bytes(),
    )
    .unwrap();
    write("b.json.gz", &gzip.finish().unwrap());
    let looked_up = json!({"Events": [{"CloudTrailEvent": record(4, "PutImage", 30).to_string()}]});
    write("c.json", looked_up.to_string().as_bytes());
    write("README.md", b"no records");
    let replay = Replay::start(["--quota", "0", folder.path().to_str().unwrap()]).await;
    let answer = look_up(&client(&replay, "us-east-1").await, "PutImage")
        .await
        .unwrap();
    assert_eq!(ids(&answer), [4, 3, 2, 1]);
    // A client that keeps its connection does not keep the server.
    assert!(replay.terminate().await.success());
}

#[tokio::test]
async fn text_that_holds_no_record_is_refused_whole() {
    let replay = Replay::start(NO_QUOTA).await;
    let mut nameless = record(2, "PutImage", 60);
    nameless.as_object_mut().unwrap().remove("eventName");
    let two = json!([record(1, "PutImage", 60), nameless]).to_string();
    for (text, reason) in [
        ("{\"Records\": [", "not JSON"),
        ("{\"answer\": 42}", "neither a record nor"),
        (two.as_str(), "record 1: eventName is missing"),
    ] {
        let (status, answer) = replay.request("POST", "/_replay/records", text).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains(reason), "{answer}");
    }
    let answer = look_up(&client(&replay, "us-east-1").await, "PutImage")
        .await
        .unwrap();
    assert!(answer.events().is_empty());
}
