//! Promise: the Event history is read whole, through every way in which CloudTrail fails,
//! and nothing counts as read that was not. The real reader and the real ledger, against
//! the replay server.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail their test"
)]

mod support;

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ecr_audit::api::AssumeRole;
use ecr_audit::event::{EventName, Interval, Repository};
use ecr_audit::ledger::Ledger;
use ecr_audit::source::{Health, Origin, PollerKey, PollerSpec, Pollers, Reason};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use support::records::{ago, digest, expiry, pull, push, role};
use support::{Replay, eventually};

const REPOSITORY: &str = "shop/web";
/// Everything here takes some seconds: the reader asks once a second.
const LIMIT: Duration = Duration::from_mins(6);

const TEST: &str = "the_event_history_is_read_whole_whatever_happens";
const URL: &str = "TEST_REPLAY_URL";
const SCENARIO: &str = "TEST_SCENARIO";

/// One of the functions below: its name, and the arguments of its replay server.
type Scenario = (&'static str, &'static [&'static str]);

macro_rules! scenarios {
    ($($name:ident $arguments:expr;)*) => {
        const SCENARIOS: &[Scenario] = &[$((stringify!($name), &$arguments),)*];

        async fn scenario(name: &str, replay: &Replay) {
            match name {
                $(stringify!($name) => $name(replay).await,)*
                _ => panic!("no scenario {name}"),
            }
        }
    };
}

scenarios! {
    a_fault_of_one_event_name_holds_up_no_other [];
    a_walk_over_many_pages_survives_what_can_happen_to_it [];
    events_that_come_late_or_twice_are_found_and_count_once [];
    at_most_half_of_the_quota_is_used_and_new_events_are_seen_meanwhile [];
    what_does_not_decode_is_kept_and_the_rest_of_the_page_read [];
    each_account_is_read_through_its_role_and_fails_alone [];
    a_session_that_ends_is_renewed_without_a_fault ["--session-seconds", "14"];
}

/// Each scenario waits for most of its time, so that they wait together. And each runs in a
/// process of its own: the SDK finds the replay server by environment variables.
#[tokio::test]
async fn the_event_history_is_read_whole_whatever_happens() {
    if let Ok(url) = std::env::var(URL) {
        let name = std::env::var(SCENARIO).unwrap();
        let replay = Replay::at(url);
        match name.parse::<usize>() {
            Ok(fault) => {
                let (fault, reason) = faults().swap_remove(fault);
                fault_shows_and_passes(&replay, fault, reason).await;
            }
            Err(_) => scenario(&name, &replay).await,
        }
        return;
    }
    let faults = (0..faults().len()).map(|fault| process(fault.to_string(), &[]));
    let others = SCENARIOS
        .iter()
        .map(|(name, arguments)| process((*name).to_owned(), arguments));
    let (faults, others) = (join_all(faults), join_all(others));
    let (faults, others) = tokio::join!(faults, others);
    let failed: Vec<String> = faults.into_iter().chain(others).flatten().collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Runs one scenario, and returns what it printed if it fails.
async fn process(scenario: String, arguments: &[&str]) -> Option<String> {
    let replay = Replay::start(arguments).await;
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture"])
        .envs(replay.environment())
        .env(URL, replay.url())
        .env(SCENARIO, &scenario)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && text.contains("1 passed");
    (!passed).then(|| format!("scenario {scenario}:\n{text}{errors}"))
}

/// A reader with a ledger.
struct Reading {
    _folder: tempfile::TempDir,
    ledger: Ledger,
    pollers: Pollers,
}

impl Reading {
    async fn start(wanted: Vec<PollerSpec>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger.db");
        let ledger = Ledger::open(file.to_str().unwrap()).await.unwrap();
        let pollers = Pollers::new(Arc::new(ledger.clone()));
        pollers.set(wanted);
        Self {
            _folder: folder,
            ledger,
            pollers,
        }
    }

    fn health(&self) -> Health {
        let [health] = <[Arc<Health>; 1]>::try_from(self.pollers.health()).unwrap();
        Arc::unwrap_or_clone(health)
    }

    async fn fails(&self, reason: Reason) -> Health {
        eventually(reason.as_str(), LIMIT, async || {
            let health = self.health();
            match &health.last_error {
                Some(error) if error.reason == reason => Ok(health),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Waits until everything that is wanted has been read.
    async fn whole(&self) -> Health {
        eventually("the whole history", LIMIT, async || {
            let health = self.health();
            let read = health.last_success.is_some()
                && health.last_error.is_none()
                && health.backfill.is_none()
                && !health.coverage.is_empty();
            if read {
                Ok(health)
            } else {
                Err(format!("{health:?}"))
            }
        })
        .await
    }

    async fn changes(&self) -> usize {
        self.ledger.changes(&repository()).await.unwrap().len()
    }

    async fn pulls(&self) -> usize {
        let callers = self.ledger.callers().await.unwrap();
        let ids = callers.into_iter().map(|(id, _)| id);
        let ever = Interval {
            start: Timestamp::UNIX_EPOCH,
            end: ago(-3600),
        };
        self.ledger
            .pulls(&repository(), ever, ids)
            .await
            .unwrap()
            .len()
    }

    async fn holds(&self, changes: usize, pulls: usize) {
        eventually("the facts", LIMIT, async || {
            let seen = (self.changes().await, self.pulls().await);
            if seen == (changes, pulls) {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await;
    }
}

fn repository() -> Repository {
    Repository {
        account: support::records::ACCOUNT.into(),
        region: support::records::REGION.into(),
        name: REPOSITORY.into(),
    }
}

/// The operator's own account in one region. A poll is six requests, one a second: these
/// periods leave time to read what happened before.
fn own() -> PollerSpec {
    PollerSpec {
        key: PollerKey {
            origin: Origin::LookupEvents { account: None },
            region: support::records::REGION.into(),
            assume_role: None,
        },
        poll_period: SignedDuration::from_secs(15),
        reread_period: SignedDuration::from_mins(15),
        backfill: SignedDuration::from_hours(90 * 24),
        lookback: SignedDuration::from_hours(30 * 24),
        accounts: None,
        buckets: None,
    }
}

/// A push, three pulls and an expiry over some days: two changes.
fn week() -> Vec<Value> {
    let day = 24 * 3600;
    let image = json!({"imageTag": "v1"});
    let node = || role("node", "i-0a1b2c3d4e5f60718");
    vec![
        push(ago(6 * day), REPOSITORY, "one", "v1"),
        pull(ago(5 * day), REPOSITORY, &image, node()),
        pull(ago(3 * day), REPOSITORY, &image, node()),
        pull(ago(day), REPOSITORY, &image, role("notebook", "who")),
        expiry(ago(3600), REPOSITORY, &digest("one"), 1, "keep two"),
    ]
}

/// Every fault that can hit a request, and the reason that it shows with. Each is a scenario.
fn faults() -> Vec<(Value, Reason)> {
    let of = |kind| json!({"kind": kind});
    vec![
        (of("throttle"), Reason::Throttled),
        (of("serverError"), Reason::ServerError),
        (of("reset"), Reason::Connection),
        (of("truncate"), Reason::Truncated),
        (of("noEvents"), Reason::Malformed),
        (
            json!({"kind": "answer", "body": "{\"Events\": null}"}),
            Reason::Malformed,
        ),
        (
            json!({"kind": "answer", "body": "{\"Events\": {}}"}),
            Reason::Malformed,
        ),
        (json!({"kind": "answer", "body": ""}), Reason::Malformed),
        (of("garbage"), Reason::Malformed),
        (of("accessDenied"), Reason::AccessDenied),
        (of("expiredToken"), Reason::ExpiredToken),
        (
            json!({"kind": "serverError", "operation": "GetCallerIdentity"}),
            Reason::ServerError,
        ),
        (
            json!({"kind": "accessDenied", "operation": "GetCallerIdentity"}),
            Reason::AccessDenied,
        ),
    ]
}

async fn fault_shows_and_passes(replay: &Replay, fault: Value, reason: Reason) {
    replay.add(&week().into()).await;
    replay.set_faults(json!([fault])).await;
    let reading = Reading::start(vec![own()]).await;
    let health = reading.fails(reason).await;
    for (name, read) in &health.coverage {
        assert!(read.as_slice().is_empty(), "{name}: {read:?}");
    }
    assert_eq!(health.last_success, None);
    assert_eq!((reading.changes().await, reading.pulls().await), (0, 0));

    replay.set_faults(json!([])).await;
    reading.whole().await;
    reading.holds(2, 3).await;
}

async fn a_fault_of_one_event_name_holds_up_no_other(replay: &Replay) {
    replay.add(&week().into()).await;
    let fault = json!({"kind": "accessDenied", "eventName": "PutImage"});
    replay.set_faults(json!([fault])).await;
    let reading = Reading::start(vec![own()]).await;
    reading.holds(1, 3).await;
    let health = reading.fails(Reason::AccessDenied).await;
    assert!(health.coverage[&EventName::PutImage].as_slice().is_empty());
    assert!(
        !health.coverage[&EventName::BatchGetImage]
            .as_slice()
            .is_empty()
    );
}

async fn a_walk_over_many_pages_survives_what_can_happen_to_it(replay: &Replay) {
    let pushed = |n: i64| push(ago(7200 + n * 60), REPOSITORY, &format!("image {n}"), "v1");
    replay.add(&(0..330).map(pushed).collect()).await;
    let of_pushes =
        |kind: &str, next: u32| json!({"kind": kind, "eventName": "PutImage", "next": next});
    replay
        .set_faults(json!([
            {"kind": "repeat", "events": 3},
            of_pushes("invalidNextToken", 1),
            of_pushes("emptyPage", 1),
            of_pushes("truncate", 1),
            of_pushes("reset", 1),
        ]))
        .await;
    let reading = Reading::start(vec![own()]).await;
    reading.holds(330, 0).await;
    reading.whole().await;
    assert_eq!(reading.changes().await, 330);
    let left = replay.faults().await;
    assert_eq!(
        left.as_array().unwrap().len(),
        1,
        "not everything happened: {left}"
    );
}

async fn events_that_come_late_or_twice_are_found_and_count_once(replay: &Replay) {
    let mut all = week();
    let image = json!({"imageTag": "v1"});
    // Of the last 24 hours, in no order: one is minutes late, one hours.
    for (age, delay) in [(20 * 3600, 15), (600, 15), (5 * 3600, 25)] {
        let late = pull(ago(age), REPOSITORY, &image, role("notebook", "late"));
        all.push(json!({"record": late, "visibleAfterSeconds": delay}));
    }
    all.extend(all.clone());
    all.reverse();
    replay.add(&all.into()).await;
    let mut spec = own();
    spec.reread_period = SignedDuration::from_secs(20);
    let reading = Reading::start(vec![spec]).await;
    reading.whole().await;
    reading.holds(2, 6).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((reading.changes().await, reading.pulls().await), (2, 6));
}

async fn at_most_half_of_the_quota_is_used_and_new_events_are_seen_meanwhile(replay: &Replay) {
    let pushed = |n: i64| push(ago(7200 + n * 60), REPOSITORY, &format!("image {n}"), "v1");
    replay.add(&(0..1500).map(pushed).collect()).await;
    // Two wishes for one place are one reader.
    let reading = Reading::start(vec![own(), own()]).await;
    eventually("the first pages", LIMIT, async || {
        match reading.changes().await {
            0 => Err("nothing yet"),
            _ => Ok(()),
        }
    })
    .await;
    let removal = expiry(ago(1), REPOSITORY, &digest("image 1400"), 1, "keep two");
    replay.add(&removal).await;
    let added = Instant::now();
    eventually("the new event", LIMIT, async || {
        let facts = reading.ledger.changes(&repository()).await.unwrap();
        let seen = facts
            .iter()
            .any(|fact| fact.name == EventName::PolicyExecutionEvent);
        if seen { Ok(()) } else { Err(facts.len()) }
    })
    .await;
    // One poll, or one round of six names if that takes longer, and some slack.
    assert!(
        added.elapsed() < Duration::from_secs(11),
        "{:?}",
        added.elapsed()
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    let quota = replay.stats().await["quota"][0].take();
    let (calls, seconds) = (
        quota["calls"].as_f64().unwrap(),
        quota["seconds"].as_f64().unwrap(),
    );
    assert!(calls <= seconds + 1.0, "{quota}");
    assert_eq!(quota["throttled"], 0, "{quota}");
}

async fn what_does_not_decode_is_kept_and_the_rest_of_the_page_read(replay: &Replay) {
    let mut all = week();
    let hostile = "\u{7}\"\n".repeat(40_000);
    for text in [
        r#"{"eventSource": "ecr.amazonaws.com", "#.to_owned(),
        hostile,
    ] {
        let record = push(ago(7000), REPOSITORY, "two", "v2");
        all.push(json!({"record": record, "cloudTrailEvent": text}));
    }
    let mut other = push(ago(6000), REPOSITORY, "three", "v3");
    other["eventSource"] = "ecr-public.amazonaws.com".into();
    all.push(other);
    replay.add(&all.into()).await;
    let reading = Reading::start(vec![own()]).await;
    reading.whole().await;
    reading.holds(2, 3).await;
    let kept = reading.ledger.undecodable(10).await.unwrap();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept.iter().all(|record| record.reason.len() < 1000));
}

fn through_role(account: &str, external_id: Option<&str>) -> PollerSpec {
    let mut spec = own();
    spec.key.origin = Origin::LookupEvents {
        account: Some(account.into()),
    };
    spec.key.assume_role = Some(Arc::new(AssumeRole {
        role_name: Some("audit/ecr-audit".to_owned()),
        external_id: external_id.map(str::to_owned),
        ..AssumeRole::default()
    }));
    spec
}

async fn each_account_is_read_through_its_role_and_fails_alone(replay: &Replay) {
    let (one, two) = ("444455556666", "777788889999");
    let arn = |account| format!("arn:aws:iam::{account}:role/audit/ecr-audit");
    replay
        .set_external_ids(json!({arn(one): "ours", arn(two): "ours"}))
        .await;
    replay.add(&week().into()).await;
    let wanted = vec![through_role(one, Some("ours")), through_role(two, None)];
    let reading = Reading::start(wanted).await;
    let of = |account: &str| {
        let mut all = reading.pollers.health().into_iter();
        all.rfind(|health| health.key.account().map(AsRef::as_ref) == Some(account))
            .unwrap()
    };
    let expect = async |account: &str, reason: Option<Reason>| {
        eventually(account, LIMIT, async || {
            let health = of(account);
            let seen = health.last_error.as_ref().map(|error| error.reason);
            let settled = seen.is_some() || health.last_success.is_some();
            if settled && seen == reason {
                Ok(())
            } else {
                Err(format!("{health:?}"))
            }
        })
        .await;
    };
    expect(two, Some(Reason::AssumeRoleFailed)).await;
    expect(one, None).await;
    assert!(of(two).last_success.is_none());
    // The role's trust is repaired.
    replay.set_external_ids(json!({})).await;
    expect(two, None).await;
    // Neither account holds the events of the third.
    assert_eq!(reading.changes().await, 0);
}

async fn a_session_that_ends_is_renewed_without_a_fault(replay: &Replay) {
    let account = "444455556666";
    let reading = Reading::start(vec![through_role(account, None)]).await;
    reading.whole().await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(20) {
        let health = reading.health();
        assert_eq!(health.last_error, None);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let stats = replay.stats().await;
    let assumed = stats["sts"].as_array().unwrap().iter();
    let calls = assumed.filter(|call| call["operation"] == "AssumeRole");
    let calls: u64 = calls.map(|call| call["calls"].as_u64().unwrap()).sum();
    assert!((2..20).contains(&calls), "{stats}");
}
