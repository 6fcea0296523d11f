//! Promise: the story that the demo tells is whole. Its records decode, their digests are
//! real, its pods run what was pushed in it, and replayed it is the recent past.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail their test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ecr_audit::event::{Action, EventName, decode};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use support::Replay;

/// The moment that the story takes for now.
const NOW: &str = "2026-11-20T12:00:00Z";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/story")
}

fn json(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(folder().join(name)).unwrap()).unwrap()
}

fn records() -> Vec<Value> {
    let files = ["1-history", "2-pull", "3-expiry"];
    let file = |name| json(&format!("events/{name}.json"))["Records"].take();
    files
        .into_iter()
        .flat_map(|name| file(name).as_array().unwrap().clone())
        .collect()
}

#[test]
fn every_record_decodes_and_is_told_once() {
    let mut ids = BTreeSet::new();
    let mut names = BTreeMap::<EventName, u32>::new();
    for record in records() {
        let event = decode(record.to_string().as_bytes()).unwrap();
        assert!(event.time < NOW.parse::<Timestamp>().unwrap());
        let preview = event.name == EventName::DryRunEvent;
        assert_eq!(event.action == Action::None, preview, "{record}");
        *names.entry(event.name).or_default() += 1;
        assert!(ids.insert(event.id));
        if let Action::Push { digest_matches, .. } = event.action {
            assert_eq!(digest_matches, Some(true), "{record}");
        }
    }
    let seen: Vec<_> = names
        .iter()
        .map(|(name, count)| (name.as_str(), *count))
        .collect();
    let expected = [
        ("PutImage", 9),
        ("BatchGetImage", 16),
        ("PolicyExecutionEvent", 2),
        ("DryRunEvent", 1),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn every_pod_runs_what_was_pushed_on_a_node_that_pulled_it() {
    let records = records();
    let pushed: BTreeSet<String> = records
        .iter()
        .filter_map(|record| record.pointer("/responseElements/image/imageId/imageDigest"))
        .map(|digest| digest.as_str().unwrap().to_owned())
        .collect();
    let pulls: Vec<String> = records
        .iter()
        .filter(|record| record["eventName"] == "BatchGetImage")
        .map(ToString::to_string)
        .collect();
    let nodes = json("nodes.json");
    for pod in json("pods.json")["items"].as_array().unwrap() {
        if pod["kind"] != "Pod" {
            continue;
        }
        let status = &pod["status"]["containerStatuses"][0];
        let (repository, digest) = status["imageID"].as_str().unwrap().split_once('@').unwrap();
        assert!(pushed.contains(digest), "{pod}");
        let node = nodes["items"].as_array().unwrap().iter();
        let node = node
            .clone()
            .find(|node| node["metadata"]["name"] == pod["spec"]["nodeName"]);
        let instance = node.unwrap()["spec"]["providerID"].as_str().unwrap();
        let instance = instance.rsplit('/').next().unwrap();
        let repository = repository.split_once('/').unwrap().1;
        let pulled = |text: &&String| text.contains(instance) && text.contains(repository);
        assert!(pulls.iter().any(|text| pulled(&text)), "{pod}");
    }
}

#[test]
fn its_judgement_is_what_the_story_says() {
    let check = |events: &str| -> Vec<String> {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ecr-audit"))
            .args(["check", "--policy", "policy.yaml", "--pods", "pods.json"])
            .args(["--nodes", "nodes.json", "--now", NOW, "--output", "json"])
            .args(["--events", events])
            .current_dir(folder())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        findings
            .map(|finding| {
                let cause = finding.pointer("/cause/rule/description");
                let principal = finding.pointer("/principal/key");
                [
                    text(&finding["workload"]["name"]),
                    text(&finding["type"]),
                    text(&finding["impact"]),
                    cause.or(principal).map(text).unwrap_or_default(),
                ]
                .join(", ")
            })
            .collect()
    };
    let cart = "cart, ImageExpired, WouldChange, remove untagged images after a day";
    assert_eq!(check("events/1-history.json"), [cart]);
    assert_eq!(
        check("events"),
        [
            cart,
            "web, ImageExpired, Unpullable, keep the last 2 images",
            "web, UnexpectedPull, -, arn:aws:iam::111122223333:role/data/notebook-execution",
        ]
    );
}

#[tokio::test]
async fn replayed_it_is_the_recent_past() {
    let events = folder().join("events");
    let arguments = ["--quota", "0", "--as-of", NOW, events.to_str().unwrap()];
    let replay = Replay::start(arguments).await;
    let config = aws_sdk_cloudtrail::Config::builder()
        .behavior_version_latest()
        .endpoint_url(replay.url())
        .region(aws_sdk_cloudtrail::config::Region::new("us-east-1"))
        .credentials_provider(aws_sdk_cloudtrail::config::Credentials::new(
            "AKIAIOSFODNN7EXAMPLE",
            "none",
            None,
            None,
            "test",
        ))
        .build();
    let client = aws_sdk_cloudtrail::Client::from_conf(config);
    let answer = client.lookup_events().send().await.unwrap();
    assert_eq!(answer.events().len(), records().len());
    let expiry = &answer.events()[0];
    assert_eq!(expiry.event_name(), Some("PolicyExecutionEvent"));
    let event = decode(expiry.cloud_trail_event().unwrap().as_bytes()).unwrap();
    let age = Timestamp::now().duration_since(event.time);
    assert!(
        age >= SignedDuration::from_secs(9) && age < SignedDuration::from_mins(2),
        "{age}"
    );
}
