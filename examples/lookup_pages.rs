//! What reading CloudTrail's Event history costs, and what it finds: the planner against a day of
//! simulated records, many of them late, at several rates.
//!
//! `cargo run --release --example lookup_pages` prints, for the second of two days: the pages of
//! polls and rereads by those of a perfect reader (for each name and poll the new events by 50, at
//! least one), the share of the account's two requests a second, how long after becoming visible
//! events were read, and how many were lost. `--exponential` spreads the usual delay widely;
//! numbers are other rates, in events a day.
//!
//! Up to 20,000 events a day, a third of them in bursts, the ratio is at most 2.0, at a tenth of
//! the quota. Beyond, it cannot be had together with the promise that what becomes visible within
//! 15 minutes is read a poll later: a page tells of 50 events, so to see that nothing came late
//! among the events of 15 minutes takes a page for each 50 of them, at each poll. There the promise
//! goes first: the ratio is 2.4 with 40,000 events a day and 4.1 with 100,000. With 400,000 and
//! more the polls fill half of the quota, a round takes minutes, and still nothing is lost.

#![allow(
    clippy::expect_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a measurement of small numbers"
)]

#[path = "../tests/support/event_history.rs"]
mod event_history;

use std::collections::BTreeMap;

use ecr_audit::{
    event::EventName,
    source::lookup_events::planner::{Config, Planner},
};
use event_history::{Fate, History, Record, read};
use jiff::{SignedDuration, Timestamp};
use rand::{RngExt as _, SeedableRng, rngs::StdRng};

const DAY: i64 = 86_400;
const POLL: i64 = 60;

/// How late a record is, in seconds: about five minutes, one in fifty up to an hour, one in a
/// thousand up to a day.
fn delay(random: &mut StdRng, exponential: bool) -> i64 {
    let kind: f64 = random.random();
    let part: f64 = random.random();
    if kind < 0.001 {
        return 3600 + (part * 82_000.0) as i64;
    }
    if kind < 0.02 {
        return 900 + (part * 2700.0) as i64;
    }
    if exponential {
        return ((-300.0 * (1.0 - part).ln()) as i64).min(900);
    }
    // Four even parts make a bell around five minutes, from one to nine.
    let bell: f64 = (0..4).map(|_| random.random::<f64>()).sum::<f64>() / 4.0;
    60 + (480.0 * bell) as i64
}

/// Two days: more by day than by night, and a third of all in bursts of a minute, as roll-outs are.
fn two_days(per_day: i64, start: Timestamp, exponential: bool) -> BTreeMap<EventName, Vec<Record>> {
    let mut random = StdRng::seed_from_u64(7);
    let mut records: BTreeMap<EventName, Vec<Record>> = BTreeMap::new();
    let bursts: Vec<i64> = (0..48).map(|_| random.random_range(0..2 * DAY)).collect();
    for _ in 0..2 * per_day {
        let name = match random.random_range(0..1000) {
            0..10 => EventName::PolicyExecutionEvent,
            10..25 => EventName::BatchDeleteImage,
            25 => EventName::DeleteRepository,
            26..30 => EventName::UpdateImageStorageClass,
            30..80 => EventName::PutImage,
            _ => EventName::BatchGetImage,
        };
        let second = if random.random_bool(1.0 / 3.0) {
            bursts[random.random_range(0..bursts.len())] + random.random_range(0..60)
        } else {
            loop {
                let second = random.random_range(0..2 * DAY);
                let hour = (second % DAY) / 3600;
                if (8..20).contains(&hour) || random.random_bool(0.4) {
                    break second;
                }
            }
        };
        let time = start + SignedDuration::from_secs(second);
        let late = SignedDuration::from_secs(delay(&mut random, exponential));
        records.entry(name).or_default().push(Record {
            time,
            visible: time + late,
        });
    }
    records
}

/// Of sorted seconds, the one that so many per mille do not exceed.
fn quantile(sorted: &[f64], per_mille: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * per_mille / 1000).copied().unwrap_or(0.0)
}

fn main() {
    let exponential = std::env::args().any(|argument| argument == "--exponential");
    let mut rates: Vec<i64> = std::env::args()
        .filter_map(|rate| rate.parse().ok())
        .collect();
    if rates.is_empty() {
        rates = vec![
            500, 2_000, 5_000, 10_000, 20_000, 40_000, 100_000, 400_000, 1_000_000,
        ];
    }
    let start = Timestamp::from_second(1_767_225_600).expect("a time");
    let at = |second: i64| start + SignedDuration::from_secs(second);
    println!(
        "{:>9} | {:>6} {:>6} {:>7} {:>6} | {:>6} | {:>22} | {:>6} | {:>26} | {:>4}",
        "events",
        "polls",
        "reread",
        "perfect",
        "ratio",
        "quota",
        "in time: p50 p99 max s",
        "past P",
        "late: p50 p99 max min",
        "lost"
    );
    for per_day in rates {
        let mut history = History::new(two_days(per_day, start, exponential));
        let config = Config {
            poll_period: SignedDuration::from_secs(POLL),
            reread_period: SignedDuration::from_mins(15),
            backfill: SignedDuration::from_hours(90 * 24),
            lookback: SignedDuration::from_hours(30 * 24),
        };
        let mut planner = Planner::new(config, &BTreeMap::new());
        read(&mut planner, &mut history, at(0), at(DAY), |_, _| {
            Fate::Answered
        });
        let before = planner.pages();
        let mut requests = 0_u32;
        read(&mut planner, &mut history, at(DAY), at(2 * DAY), |_, _| {
            requests += 1;
            Fate::Answered
        });
        let after = planner.pages();
        // Whoever is late has a day to come; then everything must have been read.
        read(
            &mut planner,
            &mut history,
            at(2 * DAY),
            at(3 * DAY + DAY / 2),
            |_, _| Fate::Answered,
        );
        let (mut in_time, mut late) = (vec![], vec![]);
        let (mut past_period, mut lost) = (0, 0);
        for (key, record) in history.records() {
            let Some(seen) = history.seen.get(&key) else {
                lost += 1;
                continue;
            };
            if record.time < at(DAY) {
                continue;
            }
            let waited = seen.duration_since(record.visible).as_secs_f64();
            if record.visible.duration_since(record.time) <= SignedDuration::from_mins(15) {
                in_time.push(waited);
                past_period += u32::from(waited > POLL as f64 + 2.0);
            } else {
                late.push(waited / 60.0);
            }
        }
        in_time.sort_by(f64::total_cmp);
        late.sort_by(f64::total_cmp);
        let polls = after.polls - before.polls;
        let rereads = after.rereads - before.rereads;
        let perfect = after.perfect - before.perfect;
        println!(
            "{per_day:>9} | {polls:>6} {rereads:>6} {perfect:>7} {:>6.2} | {:>5.1}% | {:>7.0} {:>6.0} {:>7.0} | {:>5.2}% | {:>8.1} {:>8.1} {:>8.1} | {lost:>4}",
            (polls + rereads) as f64 / perfect as f64,
            100.0 * f64::from(requests) / (2.0 * DAY as f64),
            quantile(&in_time, 500),
            quantile(&in_time, 990),
            quantile(&in_time, 1000),
            100.0 * f64::from(past_period) / in_time.len() as f64,
            quantile(&late, 500),
            quantile(&late, 990),
            quantile(&late, 1000),
        );
    }
}
