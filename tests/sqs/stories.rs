//! What a queue brings, in which order and however often.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_sqs::types::QueueAttributeName;
use ecr_audit::event::{Action, EventName, Interval, Repository};
use ecr_audit::ledger::Ledger;
use ecr_audit::source::{Learned, Pollers, SourceKind, Store};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::records::{ACCOUNT, REGION, ago, digest, expiry};
use crate::world::{
    LIMIT, Reading, WEB, World, expect_pulls, here, key, notification, open, pull, pulls, unique,
};

fn eventbridge(source: &str, kind: &str, detail: &Value) -> Value {
    json!({"version": "0", "id": format!("{:032x}", rand::random::<u128>()), "detail-type": kind,
           "source": source, "account": ACCOUNT, "time": ago(60).to_string(), "region": REGION,
           "resources": [], "detail": detail})
}

async fn changes(ledger: &Ledger, is_it: impl Fn(&Action) -> bool) -> usize {
    let repository = Repository {
        account: ACCOUNT.into(),
        region: REGION.into(),
        name: WEB.into(),
    };
    let changes = ledger.changes(&repository).await.unwrap();
    changes.iter().filter(|event| is_it(&event.action)).count()
}

pub async fn every_kind_of_message_is_read_and_then_deleted() {
    let world = World::new().await;
    // S3 tells the queue, first with a test event.
    world.file(ago(300), &[pull(600)]).await;
    // S3 tells a topic, which wraps what it gives to the queue.
    let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let arn = world
        .attribute(&world.queue, QueueAttributeName::QueueArn)
        .await;
    let topic = Topic::new(&config, &unique("topic"), &arn).await;
    // CloudTrail itself tells the topic of files.
    let told = key(ago(240));
    world
        .put(
            &told,
            crate::world::gzip(&json!({"Records": [pull(500)]}).to_string()),
        )
        .await;
    topic
        .publish(&json!({"s3Bucket": world.bucket, "s3ObjectKey": [told]}).to_string())
        .await;
    // EventBridge brings records, and what ECR says itself.
    world
        .send(&eventbridge(
            "aws.ecr",
            "AWS API Call via CloudTrail",
            &pull(400),
        ))
        .await;
    let run = expiry(ago(390), WEB, &digest("a"), 1, "keep two");
    world
        .send(&eventbridge(
            "aws.ecr",
            "AWS Service Event via CloudTrail",
            &run,
        ))
        .await;
    let replicated = json!({"result": "SUCCESS", "repository-name": WEB, "image-tag": "v1",
        "image-digest": digest("b"), "action-type": "REPLICATE"});
    world
        .send(&eventbridge(
            "aws.ecr",
            "ECR Replication Action",
            &replicated,
        ))
        .await;
    // Not asked for: another bucket's object, other files of the trail's bucket.
    world
        .send(&notification("somebody-else", &key(ago(60))))
        .await;
    world
        .put("AWSLogs/111122223333/Config/x.json.gz", vec![1])
        .await;
    world.put("notes.txt", vec![1]).await;

    let reading = Reading::start(&world).await;
    expect_pulls(&reading.ledger, 3).await;
    world.emptied().await;
    assert_eq!(
        changes(&reading.ledger, |action| matches!(
            action,
            Action::LifecycleRun(_)
        ))
        .await,
        1
    );
    assert_eq!(
        changes(&reading.ledger, |action| matches!(
            action,
            Action::Appeared(_)
        ))
        .await,
        1
    );
    let counters = reading.pollers.counters();
    let tally = counters.objects()[&SourceKind::Sqs];
    assert_eq!((tally.skipped, tally.failed), (3, 0), "{tally:?}");
    // The file that CloudTrail told of, S3 told of, too: maybe at the same moment.
    assert_eq!(tally.read + tally.known, 3, "{tally:?}");
    let events = counters.events();
    assert_eq!(events[&(SourceKind::Sqs, EventName::BatchGetImage)], 3);
    reading.works().await;
    eventually("the time of the last reading", LIMIT, async || {
        reading.whole().last_success.ok_or("none")
    })
    .await;
    // What counts as read is a matter of the next quarter of an hour, but since when is known.
    let state = eventually("the place", LIMIT, async || {
        let trail = reading.ledger.trail(&name(&world)).await.unwrap();
        trail.get(&here()).cloned().ok_or("nothing")
    })
    .await;
    assert_eq!(state.delivered.as_slice().len(), 1);
    assert!(reading.place().unwrap().gaps.is_empty());
    reading.pollers.stop().await;
}

/// A queue as the ledger names it.
fn name(world: &World) -> String {
    world.queue.replace("http://", "sqs://")
}

/// An SNS topic that gives everything to a queue. Its protocol is simple enough to be written
/// down here, and this test is the only one that needs it.
struct Topic {
    http: String,
    arn: String,
}

impl Topic {
    async fn new(_: &aws_config::SdkConfig, name: &str, queue: &str) -> Self {
        let url = std::env::var("AWS_ENDPOINT_URL").unwrap();
        let mut topic = Self {
            http: url.trim_start_matches("http://").to_owned(),
            arn: String::new(),
        };
        let answer = topic.call(&format!("Action=CreateTopic&Name={name}")).await;
        let (_, rest) = answer.split_once("<TopicArn>").unwrap();
        rest.split_once('<').unwrap().0.clone_into(&mut topic.arn);
        let body = format!(
            "Action=Subscribe&TopicArn={}&Protocol=sqs&Endpoint={queue}",
            topic.arn
        );
        topic.call(&body).await;
        topic
    }

    async fn publish(&self, message: &str) {
        let message =
            percent_encoding::utf8_percent_encode(message, percent_encoding::NON_ALPHANUMERIC);
        self.call(&format!(
            "Action=Publish&TopicArn={}&Message={message}",
            self.arn
        ))
        .await;
    }

    async fn call(&self, body: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(&self.http).await.unwrap();
        let scope = "Credential=test/20261122/us-east-1/sns/aws4_request";
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}&Version=2010-03-31",
            self.http,
            body.len() + "&Version=2010-03-31".len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }
}

pub async fn ten_thousand_messages_about_one_file_are_one_file() {
    let world = World::new().await;
    let key = world.file(ago(300), &[pull(600), pull(601)]).await;
    let one = notification(&world.bucket, &key).to_string();
    let all = vec![one; 10_000];
    futures::future::join_all(all.chunks(1_000).map(|some| world.send_all(some))).await;
    let begun = Instant::now();
    let reading = Reading::start(&world).await;
    world.emptied().await;
    println!("10,000 messages in {:?}", begun.elapsed());
    assert_eq!(pulls(&reading.ledger).await, 2);
    let tally = reading.pollers.counters().objects()[&SourceKind::Sqs];
    assert!(tally.read + tally.known >= 10_000, "{tally:?}");
    // Only those that came before the first one was stored.
    assert!(tally.read <= 100, "{tally:?}");
    reading.pollers.stop().await;
}

pub async fn files_come_in_any_order_by_days() {
    let world = World::new().await;
    for day in [3, 0, 9, 1, 25, 2] {
        let seconds = day * 86_400 + 600;
        world.file(ago(seconds - 300), &[pull(seconds)]).await;
    }
    let reading = Reading::start(&world).await;
    expect_pulls(&reading.ledger, 6).await;
    world.emptied().await;
    // However old a file is: what the queue was not told of before is not known.
    let trail = reading.ledger.trail(&name(&world)).await.unwrap();
    let first = trail[&here()].delivered.as_slice()[0].start;
    assert!(first > ago(600), "{first}");
    reading.pollers.stop().await;
}

pub async fn two_readers_of_one_queue_lose_nothing_and_take_nothing_twice() {
    let world = World::new().await;
    let first = Reading::start(&world).await;
    let second = Pollers::new(Arc::new(first.ledger.clone()));
    second.set(vec![world.spec()]);
    for file in 0..60 {
        let records: Vec<Value> = (0..20)
            .map(|record| pull(600 + file * 20 + record))
            .collect();
        world.file(ago(300), &records).await;
    }
    expect_pulls(&first.ledger, 1200).await;
    world.emptied().await;
    let read = |pollers: &Pollers| {
        let counters = pollers.counters();
        let tally = counters.objects().get(&SourceKind::Sqs).copied();
        let events = counters.events();
        let new = events.get(&(SourceKind::Sqs, EventName::BatchGetImage));
        (
            tally.unwrap_or_default().read,
            new.copied().unwrap_or_default(),
        )
    };
    let (one, other) = (read(&first.pollers), read(&second));
    assert!(one.0 > 0 && other.0 > 0, "{one:?} {other:?}");
    assert_eq!(one.1 + other.1, 1200, "{one:?} {other:?}");
    first.pollers.stop().await;
    second.stop().await;
}

pub async fn what_was_read_before_a_restart_goes_on() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.db");
    let ledger = open(file.to_str().unwrap()).await;
    // An earlier process has read for a day, until an hour ago.
    let hours = |from: i64, to: i64| Interval {
        start: ago(from * 3600),
        end: ago(to * 3600),
    };
    let learned = Learned {
        delivered: vec![hours(25, 1)],
        events: vec![hours(25, 1)],
        ..Learned::default()
    };
    ledger.learn(&name(&world), &here(), learned).await.unwrap();
    let pollers = Pollers::new(Arc::new(ledger.clone()));
    pollers.set(vec![world.spec()]);
    world.file(ago(300), &[pull(600)]).await;
    let covered = eventually("coverage", LIMIT, async || {
        let all = pollers.health();
        let place = all
            .iter()
            .find(|health| health.account.is_some())
            .ok_or("no place")?;
        let read = place.coverage[&EventName::BatchGetImage]
            .as_slice()
            .to_vec();
        match read.as_slice() {
            [one] if one.end > ago(16 * 60) => Ok(*one),
            other => Err(Box::leak(format!("{other:?}").into_boxed_str()) as &str),
        }
    })
    .await;
    assert!(covered.start < ago(24 * 3600) && covered.end <= ago(14 * 60));
    let whole = pollers.health().into_iter().find(|h| h.account.is_none());
    assert!(whole.unwrap().names_all);
    pollers.stop().await;
}

/// Reads a queue into a ledger until it is killed.
pub async fn ingest(ledger: &str) {
    let world = World::without_bucket().await;
    let mut spec = world.spec();
    spec.buckets = None;
    let queue = std::env::var("TEST_QUEUE").unwrap();
    spec.key.origin = ecr_audit::source::Origin::Sqs {
        queue_url: queue.as_str().into(),
    };
    let pollers = Pollers::new(Arc::new(open(ledger).await));
    pollers.set(vec![spec]);
    std::future::pending::<()>().await;
}

pub async fn a_reader_that_is_killed_loses_nothing() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.db");
    let files = 120;
    for file in 0..files {
        let records: Vec<Value> = (0..50)
            .map(|record| pull(600 + file * 50 + record))
            .collect();
        world.file(ago(300), &records).await;
    }
    let start = || {
        let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
        command
            .args([crate::TEST, "--exact", "--nocapture"])
            .env(crate::SCENARIO, "ingest")
            .env(crate::LEDGER, &file)
            .env("TEST_QUEUE", &world.queue)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        command.spawn().unwrap()
    };
    for pause in [700, 300, 1100, 500, 900] {
        let mut child = start();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        child.kill().await.unwrap();
    }
    let _last = start();
    world.emptied().await;
    let ledger = open(file.to_str().unwrap()).await;
    assert_eq!(pulls(&ledger).await, u64::try_from(files).unwrap() * 50);
    let now = Timestamp::now();
    let trail = format!("s3://{}/AWSLogs/o-a1b2c3d4e5", world.bucket);
    let delivered = Interval {
        start: now - SignedDuration::from_hours(1),
        end: now,
    };
    let known = ledger.files(&trail, &here(), delivered).await.unwrap();
    assert_eq!(known.len(), usize::try_from(files).unwrap());
}
