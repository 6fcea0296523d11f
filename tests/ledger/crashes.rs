//! A process that appends is killed at random points, as often as `ECR_AUDIT_SOAK` says; the
//! server of a ledger is killed under load.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use ecr_audit::ledger::Ledger;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::database::Database;
use crate::story;
use crate::support::Postgres;

const CHILD_LEDGER: &str = "ECR_AUDIT_TEST_CHILD_LEDGER";

/// How often the process is killed: 50 times, or as often as a soak asks.
fn rounds(usual: u32) -> u32 {
    match std::env::var("ECR_AUDIT_SOAK") {
        Ok(rounds) => rounds.parse().expect("a number of rounds"),
        Err(_) => usual,
    }
}

/// This test binary, to run one of its tests that only make sense as a child.
pub(crate) fn child(test: &str, database: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture", test])
        .env(CHILD_LEDGER, database);
    command
}

/// The ledger that a child works on.
pub(crate) fn childs_ledger() -> String {
    std::env::var(CHILD_LEDGER).expect("a ledger: this test is started by another one")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of other tests, which start it as a process of its own and kill it"]
async fn child_that_appends_for_ever() {
    let ledger = Ledger::open(&childs_ledger()).await.unwrap();
    let mut number = story::pages_covered(&ledger).await;
    loop {
        story::append(&ledger, number).await.unwrap();
        number += 1;
        println!("stored {number}");
    }
}

/// Runs the child until it has stored some pages and a moment has passed, and kills it; how many
/// pages it said were stored.
fn run_and_kill(database: &str, pages: usize, delay: Duration) -> u32 {
    let mut child = child("crashes::child_that_appends_for_ever", database)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut stored = lines
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("stored ")?.parse::<u32>().ok());
    let before = stored.nth(pages).expect("a child that stores pages");
    std::thread::sleep(delay);
    child.kill().unwrap();
    let last = stored.last().unwrap_or(before);
    child.wait().unwrap();
    last
}

async fn killed_at_random_points(database: &Database, rounds: u32) {
    let mut random = StdRng::seed_from_u64(20_261_122);
    for round in 0..rounds {
        // A page takes a few milliseconds: the kill falls anywhere into one.
        let pages = random.random_range(0..4);
        let delay = Duration::from_micros(random.random_range(0..8_000));
        let url = database.url.clone();
        let said = tokio::task::spawn_blocking(move || run_and_kill(&url, pages, delay))
            .await
            .unwrap();
        let ledger = database.open().await;
        let covered = story::pages_covered(&ledger).await;
        // Nothing that was said to be stored is lost; at most one more page was.
        assert!(
            (said..=said + 1).contains(&covered),
            "round {round}: {said} pages were stored, {covered} are there"
        );
        if round % 10 == 9 || round + 1 == rounds {
            story::assert_holds_exactly(&ledger, covered).await;
        }
        ledger.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_at_most_the_page_in_flight_in_sqlite() {
    killed_at_random_points(&Database::sqlite(), rounds(40)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_at_most_the_page_in_flight_in_postgres() {
    killed_at_random_points(&Database::postgres().await, rounds(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_comes_back_has_lost_nothing() {
    let mut server = Postgres::start().await;
    let url = server.database().await;
    let ledger = Ledger::open(&url).await.unwrap();
    let appending = {
        let ledger = ledger.clone();
        tokio::spawn(async move {
            let mut faults = BTreeSet::new();
            for number in 0..150 {
                while let Err(error) = story::append(&ledger, number).await {
                    faults.insert(error.category());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            faults
        })
    };
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.begin().await;
    }
    let mut faults = appending.await.unwrap();
    // An append that had not begun waits for the server; one that had is told of its end.
    faults.remove("Unavailable");
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(story::pages_covered(&ledger).await, 150);
    story::assert_holds_exactly(&ledger, 150).await;
}
