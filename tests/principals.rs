//! `ecr-audit principals`, the real command: who touched what runs, and a policy that expects it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails is the test that fails"
)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use ecr_audit::{
    event::{Event, EventName, decode},
    ledger::{Ledger, Page},
};
use serde_json::Value;

fn run(subcommand: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ecr-audit"))
        .arg(subcommand)
        .args(args)
        .args(["--pods", "pods.json", "--now", "2026-11-22T00:00:00Z"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/check"))
        .env("KUBECONFIG", "/dev/null")
        .env_remove("ECR_AUDIT_LEDGER")
        .output()
        .expect("run")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

#[test]
fn everyone_is_listed_with_counts_times_and_what_the_policy_says() {
    let args = [
        "--policy",
        "policy.yaml",
        "--nodes",
        "nodes.json",
        "--events",
        "story",
    ];
    let output = run("principals", &args);
    insta::assert_snapshot!(text(&output.stdout));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_call_counts_once_however_many_workloads_run_the_image() {
    let output = run(
        "principals",
        &["--output", "json", "--events", "story", "story"],
    );
    let lines = json(&output);
    let scanner = lines
        .as_array()
        .expect("list")
        .iter()
        .find(|line| line["principal"]["key"] == "arn:aws:iam::111122223333:role/scanner")
        .expect("the scanner");
    assert_eq!(scanner["count"], 2);
    assert_eq!(
        scanner["expected"],
        Value::Null,
        "without a policy nothing is judged"
    );
}

/// The policy that a suggestion makes.
fn policy(suggestion: &str) -> String {
    let spec = format!("  {}\n", suggestion.trim_end().replace('\n', "\n  "));
    format!(
        "apiVersion: ecraudit.io/v1alpha1\nkind: EcrAuditPolicy\nmetadata: {{name: suggested}}\nspec:\n{spec}"
    )
}

#[test]
fn the_suggestion_fed_back_leaves_nothing_unexpected() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("policy.yaml");
    for nodes in [&["--nodes", "nodes.json"][..], &[]] {
        let suggested = run(
            "principals",
            &[nodes, &["--suggest", "--events", "story"]].concat(),
        );
        if !nodes.is_empty() {
            insta::assert_snapshot!("suggestion", text(&suggested.stdout));
        }
        fs::write(&file, policy(text(&suggested.stdout))).expect("write");
        let file = file.to_str().expect("UTF-8");
        let args = ["--policy", file, "--output", "json", "--events", "story"];
        let report = json(&run("check", &[nodes, &args].concat()));
        let findings = report["findings"].as_array().expect("list");
        let types: Vec<&str> = findings
            .iter()
            .map(|finding| finding["type"].as_str().expect("type"))
            .collect();
        // What was refused stays news; what was removed is not a matter of principals.
        assert_eq!(
            types,
            ["ImageExpired", "DeniedPull"],
            "{}",
            text(&suggested.stdout)
        );
    }
}

#[test]
fn a_ledger_gives_the_answer_that_the_same_events_give() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("ledger.db");
    let file = file.to_str().expect("UTF-8");
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let ledger = Ledger::open(file).await.expect("ledger");
        let events = story();
        let page = Page {
            source: "lookupEvents",
            account: "111122223333",
            region: "us-east-1",
            names: &EventName::JUDGED,
            events: &events,
            undecodable: &[],
            covered: None,
            settled: None,
        };
        ledger.append(&page).await.expect("append");
        ledger.close().await;
    });
    let common = [
        "--policy",
        "policy.yaml",
        "--nodes",
        "nodes.json",
        "--output",
        "json",
    ];
    let from_ledger = run("principals", &[&common[..], &["--ledger", file]].concat());
    let from_events = run(
        "principals",
        &[&common[..], &["--events", "story"]].concat(),
    );
    assert_eq!(json(&from_ledger), json(&from_events));
}

#[test]
fn a_ledger_that_is_not_there_is_an_error_and_not_made() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("no.db");
    let output = run("principals", &["--ledger", file.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no such ledger"));
    assert!(!file.exists());
}

/// The records of the story, decoded.
fn story() -> Vec<Event> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/check/story");
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect(name);
    let parsed = |name: &str| -> Value { serde_json::from_str(&read(name)).expect("JSON") };
    let mut texts: Vec<Arc<str>> = read("lines.jsonl").lines().map(Arc::from).collect();
    for record in parsed("trail.json")["Records"].as_array().expect("Records") {
        texts.push(record.to_string().into());
    }
    for event in parsed("lookup-events.json")["Events"]
        .as_array()
        .expect("Events")
    {
        texts.push(event["CloudTrailEvent"].as_str().expect("text").into());
    }
    texts
        .iter()
        .filter_map(|text| decode(text.as_bytes()).ok())
        .collect()
}
