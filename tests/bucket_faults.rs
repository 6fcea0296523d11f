//! Promise: whatever S3 answers when something is wrong is told in words that name it, is over when
//! it is over, and costs no fact: the real reader and the real ledger, against an emulator of S3
//! behind a proxy that answers as AWS does.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail their test"
)]

mod support;

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use ecr_audit::event::{Interval, Repository};
use ecr_audit::ledger::Ledger;
use ecr_audit::source::{Origin, PollerKey, PollerSpec, Pollers, Reason};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use support::records::{ACCOUNT, REGION, ago, pull, role};
use support::servers::free_ports;
use support::{Answer, AwsProxy, Ministack, Trail, eventually};

const TEST: &str = "faults_of_a_bucket_are_told_and_cost_nothing";
const EMULATOR: &str = "TEST_EMULATOR";
const WEB: &str = "shop/web";
const LIMIT: Duration = Duration::from_mins(2);

/// The SDK finds the proxy by environment variables: the promise is tested in a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_a_bucket_are_told_and_cost_nothing() {
    if let Ok(emulator) = std::env::var(EMULATOR) {
        return each_fault_is_told_and_over(&emulator).await;
    }
    let ministack = Ministack::start().await;
    let [port] = free_ports();
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture"])
        .envs(ministack.environment())
        .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
        .env(EMULATOR, ministack.url())
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

async fn each_fault_is_told_and_over(emulator: &str) {
    let endpoint = std::env::var("AWS_ENDPOINT_URL").unwrap();
    let (_, port) = endpoint.rsplit_once(':').unwrap();
    let proxy = AwsProxy::before(emulator, port.parse().unwrap()).await;
    let trail = Trail::new("org-trail", "AWSLogs").await;
    trail
        .deliver(ACCOUNT, ago(3600), &[one_pull(ago(3600))])
        .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.db");
    let ledger = Ledger::open(file.to_str().unwrap()).await.unwrap();
    let pollers = Pollers::new(Arc::new(ledger.clone()));
    pollers.set(vec![PollerSpec {
        key: PollerKey {
            origin: Origin::S3 {
                bucket: "org-trail".into(),
                prefix: "".into(),
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
    }]);
    let mut files = 1;
    holds(&ledger, files).await;
    for (of, answer, reasons) in faults() {
        let what = format!("{of} {answer:?}");
        proxy.fail(of, answer.clone());
        trail.deliver(ACCOUNT, ago(0), &[one_pull(ago(60))]).await;
        files += 1;
        let message = eventually(&what, LIMIT, async || {
            let healths = pollers.health();
            let errors = healths
                .iter()
                .filter_map(|health| health.last_error.clone());
            let errors: Vec<_> = errors.collect();
            let told = errors.iter().find(|error| reasons.contains(&error.reason));
            told.map(|error| error.message.clone())
                .ok_or(format!("{errors:?}"))
        })
        .await;
        if let Answer::Xml(_, code, _) = answer {
            assert!(message.contains(code), "{message}");
        }
        assert!(proxy.heal() > 0, "{what}");
        eventually(&format!("the end of {what}"), LIMIT, async || {
            let healths = pollers.health();
            match healths.iter().find_map(|health| health.last_error.clone()) {
                None => Ok(()),
                Some(error) => Err(format!("{error:?}")),
            }
        })
        .await;
        holds(&ledger, files).await;
    }
    let gaps = pollers
        .health()
        .iter()
        .map(|health| health.gaps.len())
        .sum::<usize>();
    assert_eq!(gaps, 0);
    pollers.stop().await;
}

type Fault = (&'static str, Answer, &'static [Reason]);

fn faults() -> Vec<Fault> {
    let (list, get) = ("list-type=2", "x-id=GetObject");
    let xml = |status, code| Answer::Xml(status, code, "it is refused");
    vec![
        (list, xml(403, "AccessDenied"), &[Reason::AccessDenied]),
        (get, xml(403, "AccessDenied"), &[Reason::AccessDenied]),
        (
            get,
            Answer::Xml(
                403,
                "AccessDenied",
                "User: arn:aws:sts::111122223333:assumed-role/audit/x is not authorized to \
                 perform: kms:Decrypt on the resource associated with this ciphertext",
            ),
            &[Reason::KeyDenied],
        ),
        (get, xml(400, "KMS.DisabledException"), &[Reason::KeyDenied]),
        (
            list,
            xml(403, "InvalidAccessKeyId"),
            &[Reason::AccessDenied],
        ),
        (list, xml(400, "ExpiredToken"), &[Reason::ExpiredToken]),
        (get, xml(400, "ExpiredToken"), &[Reason::ExpiredToken]),
        (
            list,
            xml(403, "RequestTimeTooSkewed"),
            &[Reason::ClockSkewed],
        ),
        (list, xml(503, "SlowDown"), &[Reason::Throttled]),
        (get, xml(503, "SlowDown"), &[Reason::Throttled]),
        (list, xml(500, "InternalError"), &[Reason::ServerError]),
        (list, xml(404, "NoSuchBucket"), &[Reason::BucketMissing]),
        (list, xml(301, "PermanentRedirect"), &[Reason::WrongRegion]),
        (
            list,
            xml(400, "AuthorizationHeaderMalformed"),
            &[Reason::WrongRegion],
        ),
        (list, Answer::Reset, &[Reason::Connection]),
        (get, Answer::Reset, &[Reason::Connection]),
        (
            list,
            Answer::Cut(20),
            &[Reason::Truncated, Reason::Connection],
        ),
        (
            get,
            Answer::Cut(20),
            &[Reason::Truncated, Reason::Connection],
        ),
    ]
}

fn one_pull(time: Timestamp) -> serde_json::Value {
    let image = json!({"imageTag": "v1"});
    pull(time, WEB, &image, role("node", "i-0a1b2c3d4e5f60718"))
}

/// Waits until the ledger has so many pulls, and no more.
async fn holds(ledger: &Ledger, expected: usize) {
    eventually("the pulls", LIMIT, async || {
        let repository = Repository {
            account: ACCOUNT.into(),
            region: REGION.into(),
            name: WEB.into(),
        };
        let callers = ledger.callers().await.unwrap();
        let ever = Interval {
            start: Timestamp::UNIX_EPOCH,
            end: ago(-3600),
        };
        let ids = callers.into_iter().map(|(id, _)| id);
        let pulls = ledger.pulls(&repository, ever, ids).await.unwrap().len();
        if pulls == expected {
            Ok(())
        } else {
            Err(format!("{pulls}, not {expected}"))
        }
    })
    .await;
}
