//! Promise: a trail's bucket is read whole, and only what was delivered and read counts as
//! evidence. The real reader and the real ledger, against S3 as the emulator has it.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail their test"
)]

mod support;

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use ecr_audit::event::{EventName, Interval, Repository};
use ecr_audit::ledger::Ledger;
use ecr_audit::source::{
    Health, Origin, PollerKey, PollerSpec, Pollers, Proof, Reason, SourceKind, Tally,
};
use futures::join;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use support::records::{ACCOUNT, REGION, ago, pull, push, role};
use support::trail::{Delivered, gzip};
use support::{Ministack, Trail, eventually};

const REPOSITORY: &str = "shop/web";
const OTHER: &str = "444455556666";
const LIMIT: Duration = Duration::from_mins(3);

const TEST: &str = "a_bucket_is_read_whole_whatever_lies_in_it";
const INNER: &str = "TEST_BUCKET";

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// The SDK finds the emulator by environment variables: the promises are tested in a process of
/// its own, all at once, each with its own bucket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_is_read_whole_whatever_lies_in_it() {
    if std::env::var(INNER).is_ok() {
        join!(
            every_account_is_read_back_to_its_oldest_file(),
            what_was_read_is_not_read_again_after_an_abort(),
            a_file_that_is_none_is_a_gap_by_name_until_it_is_there(),
            digests_prove_what_was_delivered_and_name_what_is_missing(),
            each_trail_account_and_region_has_a_chain_of_digests_of_its_own(),
            a_bucket_that_goes_and_comes_back_is_read_on(),
        );
        return;
    }
    let ministack = Ministack::start().await;
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture"])
        .envs(ministack.environment())
        .env(INNER, "yes")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{errors}"
    );
}

/// A reader with a ledger.
struct Reading {
    folder: Arc<tempfile::TempDir>,
    ledger: Ledger,
    pollers: Pollers,
}

impl Reading {
    async fn start(spec: PollerSpec) -> Self {
        Self::on(Arc::new(tempfile::tempdir().unwrap()), spec).await
    }

    async fn on(folder: Arc<tempfile::TempDir>, spec: PollerSpec) -> Self {
        let file = folder.path().join("ledger.db");
        let ledger = Ledger::open(file.to_str().unwrap()).await.unwrap();
        let pollers = Pollers::new(Arc::new(ledger.clone()));
        pollers.set(vec![spec]);
        Self {
            folder,
            ledger,
            pollers,
        }
    }

    /// Another reader with the same ledger, in this one's place.
    async fn again(self, spec: PollerSpec) -> Self {
        self.pollers.stop().await;
        self.ledger.close().await;
        Self::on(self.folder.clone(), spec).await
    }

    /// Of the bucket as a whole.
    fn whole(&self) -> Arc<Health> {
        self.pollers.health().remove(0)
    }

    fn place(&self, account: &str) -> Option<Arc<Health>> {
        let all = self.pollers.health().into_iter();
        let mut of_account = all.filter(|health| health.account.as_deref() == Some(account));
        of_account.next()
    }

    /// Waits until everything that is there was read.
    async fn read(&self, account: &str) -> Arc<Health> {
        eventually("the whole trail", LIMIT, async || {
            let health = self.place(account).ok_or("nothing is known yet")?;
            let is_read = health.last_success.is_some()
                && health.backfill.is_none()
                && health.last_error.is_none();
            if is_read {
                Ok(health)
            } else {
                Err(format!("{health:?}"))
            }
        })
        .await
    }

    async fn facts(&self) -> (usize, usize) {
        let repository = Repository {
            account: ACCOUNT.into(),
            region: REGION.into(),
            name: REPOSITORY.into(),
        };
        let callers = self.ledger.callers().await.unwrap();
        let ever = Interval {
            start: Timestamp::UNIX_EPOCH,
            end: ago(-HOUR),
        };
        let ids = callers.into_iter().map(|(id, _)| id);
        let pulls = self.ledger.pulls(&repository, ever, ids).await.unwrap();
        let changes = self.ledger.changes(&repository).await.unwrap();
        (changes.len(), pulls.len())
    }

    async fn holds(&self, changes: usize, pulls: usize) {
        eventually("the facts", LIMIT, async || {
            let facts = self.facts().await;
            if facts == (changes, pulls) {
                Ok(())
            } else {
                Err(format!("{facts:?}, not {:?}", (changes, pulls)))
            }
        })
        .await;
    }

    fn tally(&self) -> Tally {
        let all = self.pollers.counters().objects();
        all.get(&SourceKind::S3).copied().unwrap_or_default()
    }

    /// Waits for gaps with these reasons, the latest first.
    async fn gaps(&self, reasons: &[Reason]) -> Arc<Health> {
        eventually("the gaps", LIMIT, async || {
            let health = self.place(ACCOUNT).ok_or("nothing is known yet")?;
            let found: Vec<Reason> = health.gaps.iter().map(|gap| gap.reason).collect();
            if found == reasons && health.backfill.is_none() {
                Ok(health)
            } else {
                Err(format!("{health:?}"))
            }
        })
        .await
    }
}

fn spec(bucket: &str, prefix: &str) -> PollerSpec {
    PollerSpec {
        key: PollerKey {
            origin: Origin::S3 {
                bucket: bucket.into(),
                prefix: prefix.into(),
            },
            region: REGION.into(),
            assume_role: None,
        },
        poll_period: SignedDuration::from_secs(1),
        reread_period: SignedDuration::ZERO,
        backfill: SignedDuration::from_hours(24 * 90),
        lookback: SignedDuration::from_hours(24 * 30),
        accounts: None,
        buckets: None,
    }
}

fn one_pull(time: Timestamp) -> Value {
    let image = json!({"imageTag": "v1"});
    pull(
        time,
        REPOSITORY,
        &image,
        role("node", "i-0a1b2c3d4e5f60718"),
    )
}

fn covers(health: &Health, from: Timestamp, to: Timestamp) -> bool {
    let span = Interval {
        start: from,
        end: to,
    };
    let mut names = EventName::JUDGED.into_iter();
    names.all(|name| {
        health
            .coverage
            .get(&name)
            .is_some_and(|read| read.covers(span))
    })
}

async fn every_account_is_read_back_to_its_oldest_file() {
    let root = "audit/AWSLogs/o-a1b2c3d4e5";
    let trail = Trail::new("accounts", root).await;
    let oldest = ago(3 * DAY);
    let other =
        json!({"eventSource": "s3.amazonaws.com", "eventName": "GetObject", "eventID": "1"});
    let first = push(ago(3 * DAY + 60), REPOSITORY, "one", "v1");
    trail
        .deliver(ACCOUNT, oldest, &[other.clone(), first])
        .await;
    for hours in [30, 20, 2] {
        let time = ago(hours * HOUR);
        trail
            .deliver(ACCOUNT, time, &[one_pull(time), other.clone()])
            .await;
    }
    let elsewhere = push(ago(2 * HOUR), REPOSITORY, "two", "v2");
    trail.deliver(OTHER, ago(HOUR), &[elsewhere]).await;
    // What else lies in such a bucket.
    let log = trail.key(ACCOUNT, ago(HOUR));
    for key in [
        log.replace("/CloudTrail/", "/CloudTrail-Insight/"),
        log.replace(root, "audit/AWSLogs/notes"),
        log.replace(".json.gz", ".txt"),
        format!("{root}/readme"),
    ] {
        trail.put(&key, b"not for us".to_vec()).await;
    }

    let mut only = spec("accounts", "audit/");
    only.accounts = Some([ACCOUNT.into()].into());
    let reading = Reading::start(only).await;
    let health = reading.read(ACCOUNT).await;
    reading.holds(1, 3).await;
    assert!(reading.whole().names_all);
    assert!(reading.place(OTHER).is_none());
    assert!(covers(&health, oldest, ago(17 * 60)), "{health:?}");
    // Not before the oldest file, and not what may still be on its way.
    let read = &health.coverage[&EventName::PutImage];
    let minute = SignedDuration::from_mins(1);
    assert!(read.as_slice()[0].start >= oldest - minute);
    assert!(read.as_slice().last().unwrap().end <= ago(15 * 60 - 1));
    assert_eq!((health.proof, health.gaps.len()), (Proof::Delivery, 0));

    // The limit is lifted, and something new comes.
    reading.pollers.set(vec![spec("accounts", "audit/")]);
    reading.read(OTHER).await;
    reading.holds(2, 3).await;
    let read = reading.tally().read;
    trail.deliver(ACCOUNT, ago(0), &[one_pull(ago(60))]).await;
    // A name whose time is a little older than what was listed already.
    trail
        .deliver(ACCOUNT, ago(20 * 60), &[one_pull(ago(1300))])
        .await;
    reading.holds(2, 5).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let tally = reading.tally();
    assert_eq!((tally.read, tally.failed), (read + 2, 0));
    assert!(tally.known > 0 && tally.skipped > 0 && tally.bytes > 0);
}

async fn what_was_read_is_not_read_again_after_an_abort() {
    let trail = Trail::new("abort", "AWSLogs").await;
    let mut pulls = 0;
    for days in 0..12 {
        for file in 0..8 {
            let time = ago(days * DAY + file * 60 + 300);
            let records: Vec<Value> = (0..20).map(|_| one_pull(time)).collect();
            pulls += records.len();
            trail.deliver(ACCOUNT, time, &records).await;
        }
    }
    let mut reading = Reading::start(spec("abort", "")).await;
    let mut read = 0;
    for part in 1..=3 {
        eventually("a part", LIMIT, async || {
            let facts = reading.facts().await;
            (facts.1 >= pulls * part / 5)
                .then_some(())
                .ok_or(format!("{facts:?}"))
        })
        .await;
        read += reading.tally().read;
        reading = reading.again(spec("abort", "")).await;
    }
    let health = reading.read(ACCOUNT).await;
    reading.holds(0, pulls).await;
    assert!(covers(&health, ago(11 * DAY), ago(17 * 60)), "{health:?}");
    read += reading.tally().read;
    // What was on its way at an abort is read twice, and today's last half hour, but no more.
    assert!(read < 96 + 3 * 24, "{read}");
}

async fn a_file_that_is_none_is_a_gap_by_name_until_it_is_there() {
    let trail = Trail::new("broken", "AWSLogs").await;
    trail
        .deliver(ACCOUNT, ago(2 * DAY), &[one_pull(ago(2 * DAY))])
        .await;
    let whole = trail
        .deliver(ACCOUNT, ago(8 * HOUR), &[one_pull(ago(8 * HOUR))])
        .await;
    trail
        .deliver(ACCOUNT, ago(HOUR), &[one_pull(ago(HOUR))])
        .await;
    let mut cut = gzip(whole.text.as_bytes());
    cut.truncate(cut.len() - 20);
    trail.put(&whole.key, cut).await;
    let bad = trail.key(ACCOUNT, ago(3 * HOUR));
    trail
        .put(&bad, b"<html>not a log file</html>".to_vec())
        .await;

    let reading = Reading::start(spec("broken", "")).await;
    let unreadable = Reason::FileUnreadable;
    let health = reading.gaps(&[unreadable, unreadable]).await;
    let name = bad.rsplit('/').next().unwrap();
    assert!(health.gaps[0].message.contains(name), "{health:?}");
    assert!(covers(&health, ago(150 * 60), ago(17 * 60)));
    assert!(covers(&health, ago(7 * HOUR), ago(4 * HOUR)));
    assert!(covers(&health, ago(2 * DAY), ago(9 * HOUR)));
    assert!(!covers(&health, ago(8 * HOUR + 60), ago(8 * HOUR)));
    assert!(health.horizon[&EventName::PutImage] >= health.gaps[0].span.end);

    // Repaired, and looked after by the next reader.
    trail.put(&whole.key, gzip(whole.text.as_bytes())).await;
    trail.put(&bad, gzip(whole.text.as_bytes())).await;
    let reading = reading.again(spec("broken", "")).await;
    let health = reading.gaps(&[]).await;
    assert!(covers(&health, ago(2 * DAY), ago(17 * 60)), "{health:?}");
    reading.holds(0, 3).await;
}

async fn digests_prove_what_was_delivered_and_name_what_is_missing() {
    let trail = Trail::new("digests", "AWSLogs").await;
    trail
        .deliver(ACCOUNT, ago(4 * DAY), &[one_pull(ago(4 * DAY))])
        .await;
    let end = ago(90 * 60);
    let at = |hours: i64| end - SignedDuration::from_hours(hours);
    let mut files: Vec<Delivered> = Vec::new();
    let mut keys: Vec<String> = Vec::new();
    // The oldest hour first: hour N ends N hours before `end`.
    for hours in (0..8).rev() {
        let delivered = at(hours) - SignedDuration::from_mins(30);
        let file = trail
            .deliver(ACCOUNT, delivered, &[one_pull(delivered)])
            .await;
        let previous = keys.last().map(String::as_str);
        keys.push(trail.digest(ACCOUNT, at(hours), &[&file], previous).await);
        files.push(file);
    }
    let reading = Reading::start(spec("digests", "")).await;
    reading.read(ACCOUNT).await;
    let health = eventually("proof", LIMIT, async || {
        let health = reading.place(ACCOUNT).ok_or("nothing is known yet")?;
        match health.proof {
            Proof::Digests { until } if until == end => Ok(health),
            proof => Err(format!(
                "{proof:?} {:?}",
                reading.pollers.counters().errors()
            )),
        }
    })
    .await;
    assert!(covers(&health, ago(4 * DAY), ago(17 * 60)), "{health:?}");
    assert!(health.gaps.is_empty());
    reading.holds(0, 9).await;

    // One who comes later finds a file removed, one changed, and a digest file gone.
    trail.delete(&files[6].key).await;
    let forged = json!({"Records": [one_pull(at(3))]}).to_string();
    trail.put(&files[4].key, gzip(forged.as_bytes())).await;
    trail.delete(&keys[2]).await;
    let late = Reading::start(spec("digests", "")).await;
    let missing = [
        Reason::FileMissing,
        Reason::FileChanged,
        Reason::DigestMissing,
    ];
    let health = late.gaps(&missing).await;
    let name = files[6].key.rsplit('/').next().unwrap();
    assert!(health.gaps[0].message.contains(name), "{health:?}");
    let half = SignedDuration::from_mins(30);
    for (hours, is_covered) in [
        (0, true),
        (1, false),
        (2, true),
        (3, false),
        (5, false),
        (7, true),
    ] {
        let middle = at(hours) - half;
        let minute = SignedDuration::from_mins(1);
        assert_eq!(
            covers(&health, middle, middle + minute),
            is_covered,
            "{hours}"
        );
    }
    assert!(covers(&health, ago(4 * DAY), at(9)));

    // The first reader has read them all: what is gone since is no gap of its evidence.
    let reading = reading.again(spec("digests", "")).await;
    let health = reading.read(ACCOUNT).await;
    assert!(health.gaps.is_empty(), "{health:?}");

    // The file comes back from a copy.
    let text = files[6].text.as_bytes();
    trail.put(&files[6].key, gzip(text)).await;
    let late = late.again(spec("digests", "")).await;
    let health = late.gaps(&missing[1..]).await;
    let middle = at(1) - half;
    assert!(covers(&health, middle, middle + half), "{health:?}");
}

/// Hours of a trail in one account and region, the oldest first: files and digest files.
async fn hours(
    trail: &Trail,
    account: &str,
    end: Timestamp,
    count: i64,
) -> Vec<(Delivered, String)> {
    let mut hours: Vec<(Delivered, String)> = Vec::new();
    for back in (0..count).rev() {
        let end = end - SignedDuration::from_hours(back);
        let delivered = end - SignedDuration::from_mins(30);
        let records = [one_pull(delivered)];
        let file = trail.deliver(account, delivered, &records).await;
        let previous = hours.last().map(|(_, key)| key.as_str());
        let key = trail.digest(account, end, &[&file], previous).await;
        hours.push((file, key));
    }
    hours
}

async fn each_trail_account_and_region_has_a_chain_of_digests_of_its_own() {
    let trail = Trail::new("chains", "AWSLogs/o-a1b2c3d4e5").await;
    let abroad = trail.of_region("eu-central-1");
    let second = trail.named("security");
    // Each has hours of its own, at its own second.
    let end = ago(90 * 60);
    let later = end + SignedDuration::from_secs(17);
    let here = hours(&trail, ACCOUNT, end, 3).await;
    let there = hours(&abroad, ACCOUNT, later, 3).await;
    hours(&trail, OTHER, end, 3).await;
    let also = hours(&second, ACCOUNT, end, 3).await;
    // Without digest files.
    let quiet = trail.of_region("ap-south-1");
    quiet
        .deliver(OTHER, ago(2 * HOUR), &[one_pull(ago(2 * HOUR))])
        .await;
    // Two files that somebody removed before they were read: one abroad, one of the second trail.
    trail.delete(&there[1].0.key).await;
    trail.delete(&also[2].0.key).await;

    let reading = Reading::start(spec("chains", "")).await;
    let place = |account: &str, region: &str| {
        let all = reading.pollers.health().into_iter();
        let mut here = all.filter(|health| {
            health.account.as_deref() == Some(account) && *health.region == *region
        });
        here.next()
    };
    let expect = async |account, region, proof, gaps: &[&str]| {
        eventually(region, LIMIT, async || {
            let health = place(account, region).ok_or("nothing is known yet")?;
            let named = health.gaps.len() == gaps.len()
                && health.gaps.iter().zip(gaps).all(|(gap, key)| {
                    gap.reason == Reason::FileMissing
                        && gap.message.contains(key.rsplit('/').next().unwrap())
                });
            if health.proof == proof && named && health.backfill.is_none() {
                Ok(health)
            } else {
                Err(format!("{health:#?}"))
            }
        })
        .await
    };
    let until = |end| Proof::Digests { until: end };
    let health = expect(ACCOUNT, REGION, until(end), &[&also[2].0.key]).await;
    // What the first trail proves does not hide what the second one lacks.
    assert!(!covers(&health, end - SignedDuration::from_mins(30), end));
    let health = expect(ACCOUNT, "eu-central-1", until(later), &[&there[1].0.key]).await;
    assert!(covers(
        &health,
        later - SignedDuration::from_mins(50),
        ago(17 * 60)
    ));
    let health = expect(OTHER, REGION, until(end), &[]).await;
    assert!(covers(
        &health,
        end - SignedDuration::from_hours(2),
        ago(17 * 60)
    ));
    expect(OTHER, "ap-south-1", Proof::Delivery, &[]).await;
    // Twelve files of hours and one without; two of them were removed.
    assert_eq!(here.len() + there.len() + also.len(), 9);
    reading.holds(0, 11).await;
}

async fn a_bucket_that_goes_and_comes_back_is_read_on() {
    let reading = Reading::start(spec("comes-and-goes", "")).await;
    let missing = async || {
        eventually("no bucket", LIMIT, async || {
            let health = reading.whole();
            match &health.last_error {
                Some(error) if error.reason == Reason::BucketMissing => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    };
    missing().await;
    assert!(!reading.whole().names_all);
    let trail = Trail::new("comes-and-goes", "AWSLogs").await;
    let file = trail
        .deliver(ACCOUNT, ago(HOUR), &[one_pull(ago(HOUR))])
        .await;
    reading.holds(0, 1).await;
    reading.read(ACCOUNT).await;
    assert_eq!(reading.whole().last_error, None);

    trail.delete(&file.key).await;
    let bucket = trail.client.delete_bucket().bucket(&trail.bucket);
    bucket.send().await.unwrap();
    missing().await;
    // What was read stays known.
    assert!(covers(
        &reading.place(ACCOUNT).unwrap(),
        ago(HOUR),
        ago(30 * 60)
    ));
    let bucket = trail.client.create_bucket().bucket(&trail.bucket);
    bucket.send().await.unwrap();
    trail.put(&file.key, gzip(file.text.as_bytes())).await;
    trail.deliver(ACCOUNT, ago(0), &[one_pull(ago(60))]).await;
    reading.holds(0, 2).await;
    eventually("health", LIMIT, async || {
        let error = reading.whole().last_error.clone();
        error.map_or(Ok(()), |error| Err(format!("{error:?}")))
    })
    .await;
}
