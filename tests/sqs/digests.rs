//! What a trail's digest files say of what the queue brought.

use std::sync::Arc;

use ecr_audit::event::{EventName, Interval};
use ecr_audit::source::{Health, Learned, Place, Pollers, Proof, Reason, Store as _};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::support::records::{self, ACCOUNT, REGION, ago};
use crate::support::trail::{Delivered, gzip};
use crate::support::{Trail, eventually};
use crate::world::{LIMIT, Reading, WEB, World, expect_pulls, here, notification, open};

const OTHER: &str = "444455556666";
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const HALF: SignedDuration = SignedDuration::from_mins(30);

fn trail_of(world: &World) -> Trail {
    Trail {
        client: world.s3.clone(),
        bucket: world.bucket.clone(),
        root: "AWSLogs/o-a1b2c3d4e5".to_owned(),
        name: "org".to_owned(),
        region: REGION.to_owned(),
    }
}

fn one_pull(time: Timestamp) -> serde_json::Value {
    let image = json!({"imageTag": "v1"});
    records::pull(time, WEB, &image, records::role("node", "i-0a"))
}

/// A log file that was delivered then, but is not in the bucket.
fn not_there(trail: &Trail, account: &str, delivered: Timestamp) -> Delivered {
    Delivered {
        key: trail.key(account, delivered),
        text: json!({"Records": [one_pull(delivered)]}).to_string(),
    }
}

async fn put(trail: &Trail, file: &Delivered) {
    trail.put(&file.key, gzip(file.text.as_bytes())).await;
}

fn covers(health: &Health, start: Timestamp, end: Timestamp) -> bool {
    EventName::JUDGED.into_iter().all(|name| {
        let read = health.coverage.get(&name);
        read.is_some_and(|read| read.covers(Interval { start, end }))
    })
}

fn place(pollers: &Pollers, account: &str) -> Option<Arc<Health>> {
    let all = pollers.health().into_iter();
    let mut of_account = all.filter(|health| health.account.as_deref() == Some(account));
    of_account.next()
}

/// Waits until digests prove everything until then, and these gaps are all that there are.
async fn proved(pollers: &Pollers, account: &str, end: Timestamp, gaps: &[Reason]) -> Arc<Health> {
    eventually("proof", LIMIT, async || {
        let health = place(pollers, account).ok_or("nothing is known yet")?;
        let found: Vec<Reason> = health.gaps.iter().map(|gap| gap.reason).collect();
        if health.proof == (Proof::Digests { until: end }) && found == gaps {
            Ok(health)
        } else {
            Err(format!("{health:#?}"))
        }
    })
    .await
}

pub async fn coverage_is_what_digests_say_was_delivered_and_was_read() {
    let world = World::new().await;
    let trail = trail_of(&world);
    let reading = Reading::start(&world).await;
    let first = ago(4 * 3600);
    let mut previous: Option<String> = None;
    for hour in 0..2 {
        let end = first + HOUR * hour;
        let records = [one_pull(end - HALF)];
        let file = trail.deliver(ACCOUNT, end - HALF, &records).await;
        previous = Some(
            trail
                .digest(ACCOUNT, end, &[&file], previous.as_deref())
                .await,
        );
    }
    expect_pulls(&reading.ledger, 2).await;
    let until = first + HOUR;
    let health = proved(&reading.pollers, ACCOUNT, until, &[]).await;
    // From before the queue was told of anything, and though it may never have been empty.
    assert!(
        covers(&health, first - HOUR, until - HALF / 2),
        "{health:#?}"
    );

    // An hour of which one file did not come, and one is another than was delivered.
    let end = until + HOUR;
    let lost = not_there(&trail, ACCOUNT, end - HALF);
    let good = trail
        .deliver(ACCOUNT, end - HALF, &[one_pull(end - HALF)])
        .await;
    let both = [&good, &lost];
    previous = Some(trail.digest(ACCOUNT, end, &both, previous.as_deref()).await);
    let health = proved(&reading.pollers, ACCOUNT, until, &[Reason::FileMissing]).await;
    let name = lost.key.rsplit('/').next().unwrap();
    assert!(health.gaps[0].message.contains(name), "{health:#?}");
    assert!(!covers(&health, end - HALF, end - HALF / 2), "{health:#?}");
    assert!(
        covers(&health, first - HOUR, until - HALF / 2),
        "{health:#?}"
    );
    let next = end + HOUR;
    let changed = trail
        .deliver(ACCOUNT, next - HALF, &[one_pull(next - HALF)])
        .await;
    let delivered = Delivered {
        text: json!({"Records": []}).to_string(),
        ..changed
    };
    trail
        .digest(ACCOUNT, next, &[&delivered], previous.as_deref())
        .await;
    let both = [Reason::FileChanged, Reason::FileMissing];
    proved(&reading.pollers, ACCOUNT, until, &both).await;

    // The file comes after all: the digest file says something else now.
    put(&trail, &lost).await;
    let health = proved(&reading.pollers, ACCOUNT, end, &[Reason::FileChanged]).await;
    assert!(covers(&health, first - HOUR, end - HALF / 2), "{health:#?}");
    assert!(
        !covers(&health, next - HALF, next - HALF / 2),
        "{health:#?}"
    );
    expect_pulls(&reading.ledger, 5).await;
    reading.works().await;
    world.emptied().await;
    reading.pollers.stop().await;
}

pub async fn a_digest_file_that_the_queue_did_not_tell_of_is_looked_for() {
    let world = World::without_bucket().await;
    let trail = trail_of(&world);
    let bucket = world.s3.create_bucket().bucket(&world.bucket);
    bucket.send().await.unwrap();
    // The queue has been told of files for six hours, of these chains of their last link alone.
    let first = ago(5 * 3600);
    let mut ends = Vec::new();
    for account in [ACCOUNT, OTHER] {
        let mut keys: Vec<String> = Vec::new();
        for hour in 0..4 {
            let end = first + HOUR * hour;
            let file = trail
                .deliver(account, end - HALF, &[one_pull(end - HALF)])
                .await;
            let previous = keys.last().map(String::as_str);
            keys.push(trail.digest(account, end, &[&file], previous).await);
        }
        if account == OTHER {
            trail.delete(&keys[1]).await;
        }
        ends.push(notification(&world.bucket, &keys[3]).to_string());
    }
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path().join("ledger.db").to_str().unwrap()).await;
    let (_, address) = world.queue.split_once("://").unwrap();
    let told = Learned {
        delivered: vec![Interval {
            start: first - HOUR,
            end: first - HOUR + SignedDuration::from_secs(1),
        }],
        ..Learned::default()
    };
    for account in [ACCOUNT, OTHER] {
        let place = Place {
            account: account.into(),
            region: REGION.into(),
        };
        let queue = format!("sqs://{address}");
        ledger.learn(&queue, &place, told.clone()).await.unwrap();
    }
    world.send_all(&ends).await;
    let pollers = Pollers::new(Arc::new(ledger.clone()));
    pollers.set(vec![world.spec()]);

    let until = first + HOUR * 3;
    // From the last link back to the first, or to the one that is not there.
    let reaches = async |account: &str, start: Timestamp, gaps: &[Reason]| {
        eventually("the chain", LIMIT, async || {
            let health = proved(&pollers, account, until, gaps).await;
            if covers(&health, start, until - HALF / 2) {
                Ok(health)
            } else {
                Err(format!("{health:#?}"))
            }
        })
        .await
    };
    let health = reaches(ACCOUNT, first - HOUR, &[]).await;
    assert_eq!(health.region, here().region);
    let health = reaches(OTHER, first + HOUR, &[Reason::DigestMissing]).await;
    assert!(!covers(&health, first + HALF, first + HOUR), "{health:#?}");
    // Every file of the one chain; of the other one those behind the missing link.
    expect_pulls(&ledger, 6).await;
    world.emptied().await;
    pollers.stop().await;
}
