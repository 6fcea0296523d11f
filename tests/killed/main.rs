//! Promise: an operator that is killed at any point of its ingest loses nothing, counts nothing
//! twice, and has never claimed to have read what it has not.
//!
//! The real program, again and again, on a real API server, with a trail's bucket that it lists and
//! a queue that tells of another one: files keep coming, accounts with a history too, and the
//! ledger, SQLite's and PostgreSQL's, is held against the records that were delivered. 50 kills, or
//! as many as `ECR_AUDIT_SOAK` says (`make soak`: 1,000).

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail their test"
)]

#[path = "../support/mod.rs"]
mod support;
mod truth;
mod world;

use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use support::Postgres;
use world::World;

/// Rounds between two comparisons of every fact.
const COMPARE: u32 = 10;
/// Rounds between two accounts that are new in the bucket, with a history.
const NEW_ACCOUNT: u32 = 20;

/// Kills: two fifths of them, or three, of what the environment asks for or of 50.
fn rounds(fifths: u32) -> u32 {
    let all = match std::env::var("ECR_AUDIT_SOAK") {
        Ok(rounds) => rounds.parse().expect("a number of rounds"),
        Err(_) => 50,
    };
    all * fifths / 5
}

async fn killed_while_it_ingests(ledger: &str, rounds: u32) {
    let mut random = StdRng::seed_from_u64(20_261_122);
    let mut world = World::new(ledger).await;
    let (mut idle, mut within, mut done) = (0, 0, 0);
    let begun = Instant::now();
    // How long it takes to read what is new: learned, as machines differ.
    let mut reach = 500_000_u64;
    for round in 0..rounds {
        if round % NEW_ACCOUNT == 0 {
            world.deliver_history(round / NEW_ACCOUNT).await;
        }
        world.deliver_news().await;
        let before = world.rows().await;
        let mut operator = world.start(round);
        // Most are killed while files are read, some before anything else has happened.
        let is_reading = random.random_bool(0.9);
        if is_reading {
            world.expect_reading(&mut operator).await;
        }
        let delay = Duration::from_micros(random.random_range(0..reach));
        tokio::time::sleep(delay).await;
        world.kill(operator).await;
        match world.rows().await {
            rows if rows == before => {
                idle += 1;
                if is_reading {
                    reach = (reach * 5 / 4).min(10_000_000);
                }
            }
            rows if rows < world.delivered() => within += 1,
            _ => {
                done += 1;
                reach = (reach * 3 / 4).max(50_000);
            }
        }
        if round % COMPARE == COMPARE - 1 {
            world.compare(false).await;
            eprintln!(
                "{} kills in {:.0?}: {idle} before anything was stored, {within} between, {done} after",
                round + 1,
                begun.elapsed()
            );
        }
    }
    // A harness that never hits what it aims at proves nothing.
    assert!(within * 5 >= rounds, "{idle} {within} {done}");
    let operator = world.start(rounds);
    world.expect_everything().await;
    world.terminate(operator).await;
    world.compare(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_operator_has_lost_and_invented_nothing_in_sqlite() {
    killed_while_it_ingests("ledger.db", rounds(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_operator_has_lost_and_invented_nothing_in_postgres() {
    let url = Postgres::shared().await.database().await;
    killed_while_it_ingests(&url, rounds(2)).await;
}
