//! Promise: what a queue is told of reaches the ledger, once, whatever happens on the way, and a
//! message is deleted only after that. The real reader and the real ledger against an emulator of
//! SQS, SNS and S3.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "helpers of tests fail their test"
)]

#[path = "../support/mod.rs"]
mod support;

mod digests;
mod faults;
mod replicas;
mod stories;
mod world;

use std::process::Stdio;

use futures::future::join_all;
use support::servers::free_ports;
use support::{AwsProxy, Ministack};
use tokio::sync::OnceCell;

const TEST: &str = "what_a_queue_is_told_of_reaches_the_ledger_whatever_happens";
const SCENARIO: &str = "TEST_SCENARIO";
/// The emulator, and the port at which the scenario's proxy before it listens.
const EMULATOR: &str = "TEST_EMULATOR";
const PORT: &str = "TEST_PORT";
/// The ledger of the scenario that is killed.
const LEDGER: &str = "TEST_LEDGER";

macro_rules! scenarios {
    ($($module:ident :: $name:ident),* $(,)?) => {
        const SCENARIOS: &[&str] = &[$(stringify!($name),)*];

        async fn scenario(name: &str) {
            match name {
                $(stringify!($name) => $module::$name().await,)*
                _ => panic!("no scenario {name}"),
            }
        }
    };
}

scenarios! {
    stories::every_kind_of_message_is_read_and_then_deleted,
    stories::ten_thousand_messages_about_one_file_are_one_file,
    stories::files_come_in_any_order_by_days,
    stories::two_readers_of_one_queue_lose_nothing_and_take_nothing_twice,
    stories::what_was_read_before_a_restart_goes_on,
    stories::a_reader_that_is_killed_loses_nothing,
    replicas::the_leader_judges_what_either_replica_reads,
    faults::what_nobody_can_read_is_left_to_the_queue_and_named,
    faults::a_file_that_is_gone_is_a_gap_and_no_endless_try,
    faults::a_bucket_that_is_missing_is_told_and_holds_its_messages,
    faults::a_queue_that_is_missing_is_told_and_read_when_it_is_there,
    faults::a_slow_file_is_read_once_though_it_takes_longer_than_the_visibility_timeout,
    faults::faults_of_the_bucket_are_told_and_cost_nothing,
    faults::faults_of_the_queue_are_told_and_cost_nothing,
    faults::messages_that_cannot_be_hidden_are_told_and_count_once,
    digests::coverage_is_what_digests_say_was_delivered_and_was_read,
    digests::a_digest_file_that_the_queue_did_not_tell_of_is_looked_for,
}

/// The scenarios whose messages come through the proxy, too.
const FAULTS_OF_QUEUES: [&str; 2] = [
    "faults_of_the_queue_are_told_and_cost_nothing",
    "messages_that_cannot_be_hidden_are_told_and_count_once",
];

/// Each scenario waits for most of its time, so that they wait together. And each runs in a
/// process of its own: the SDK finds the emulator by environment variables.
#[tokio::test]
async fn what_a_queue_is_told_of_reaches_the_ledger_whatever_happens() {
    if let Ok(name) = std::env::var(SCENARIO) {
        if name == "ingest" {
            stories::ingest(&std::env::var(LEDGER).unwrap()).await;
        } else {
            proxy().await;
            scenario(&name).await;
        }
        return;
    }
    let ministack = Ministack::start().await;
    let failed = join_all(SCENARIOS.iter().map(|name| process(name, &ministack))).await;
    let failed: Vec<String> = failed.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// This scenario's proxy before the emulator.
async fn proxy() -> &'static AwsProxy {
    static PROXY: OnceCell<AwsProxy> = OnceCell::const_new();
    let start = async || {
        let port = std::env::var(PORT).unwrap().parse().unwrap();
        AwsProxy::before(&std::env::var(EMULATOR).unwrap(), port).await
    };
    PROXY.get_or_init(start).await
}

/// Runs one scenario, and returns what it printed if it fails.
async fn process(scenario: &str, ministack: &Ministack) -> Option<String> {
    let [port] = free_ports();
    let proxied = format!("http://127.0.0.1:{port}");
    let queues = if FAULTS_OF_QUEUES.contains(&scenario) {
        proxied.clone()
    } else {
        ministack.url()
    };
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture"])
        .envs(ministack.environment())
        // Objects come through a proxy that the scenario makes slow or faulty.
        .env("AWS_ENDPOINT_URL_S3", &proxied)
        .env("AWS_ENDPOINT_URL_SQS", queues)
        .env(EMULATOR, ministack.url())
        .env(PORT, port.to_string())
        .env(SCENARIO, scenario)
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
