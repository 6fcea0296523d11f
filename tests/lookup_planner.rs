//! Promise: of what CloudTrail's Event history shows, nothing is lost and nothing counts as read
//! that was not, in whatever order and however late it comes, and within half of the quota. The
//! planner alone, against days of simulated records.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

#[path = "support/event_history.rs"]
mod event_history;

use std::collections::BTreeMap;

use ecr_audit::{
    event::{EventName, Interval},
    source::lookup_events::{
        Answer, Unusable,
        planner::{Config, Kind, Planner, Request, Step},
    },
};
use event_history::{Fate, History, Record, read};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

fn config(poll: i64) -> Config {
    Config {
        poll_period: SignedDuration::from_secs(poll),
        reread_period: SignedDuration::from_mins(15),
        backfill: SignedDuration::from_hours(90 * 24),
        lookback: SignedDuration::from_hours(30 * 24),
    }
}

fn fresh() -> Planner {
    Planner::new(config(60), &BTreeMap::new())
}

/// As after a start: only what the ledger keeps is known.
fn restarted(planner: &Planner, poll: i64) -> Planner {
    let coverage = EventName::JUDGED.map(|name| (name, planner.coverage(name)));
    Planner::new(config(poll), &coverage.into())
}

fn records(
    of: EventName,
    times: impl IntoIterator<Item = (i64, i64)>,
) -> BTreeMap<EventName, Vec<Record>> {
    let records = times.into_iter().map(|(time, delay)| Record {
        time: at(time),
        visible: at(time + delay),
    });
    BTreeMap::from([(of, records.collect())])
}

fn ask(planner: &Planner, now: Timestamp) -> Request {
    match planner.next(now) {
        Step::Ask(request) => request,
        Step::Wait(until) => panic!("waits until {until}"),
    }
}

fn answer(times: &[i64], token: Option<&str>) -> Answer {
    Answer {
        times: times.iter().map(|time| Some(at(*time))).collect(),
        token: token.map(str::to_owned),
    }
}

#[test]
fn a_page_proves_what_is_newer_than_its_last_second() {
    let planner = fresh();
    let request = ask(&planner, at(0));
    let proof = planner
        .proof(&request, &answer(&[-5, -9, -9], Some("more")))
        .unwrap();
    let read = Interval {
        start: at(-8),
        end: at(0),
    };
    assert_eq!(proof.read, Some(read));
    assert_eq!(proof.settled, None);
}

#[test]
fn the_last_page_proves_the_rest_of_the_window() {
    let mut planner = fresh();
    let first = ask(&planner, at(0));
    let page = answer(&[-5, -9], Some("more"));
    planner.stored(&first, &page, 2);
    let second = ask(&planner, at(1));
    assert_eq!((second.start, second.last), (first.start, first.last));
    assert_eq!(second.token.as_deref(), Some("more"));
    let proof = planner.proof(&second, &answer(&[-9], None)).unwrap();
    assert_eq!(
        proof.read,
        Some(Interval {
            start: first.start,
            end: at(-8)
        })
    );
}

#[test]
fn an_answer_out_of_order_proves_nothing_before_its_end() {
    let mut planner = fresh();
    let first = ask(&planner, at(0));
    let page = answer(&[-9, -5], Some("more"));
    assert_eq!(planner.proof(&first, &page).unwrap().read, None);
    planner.stored(&first, &page, 2);
    let second = ask(&planner, at(1));
    let proof = planner.proof(&second, &answer(&[], None)).unwrap();
    assert_eq!(
        proof.read,
        Some(Interval {
            start: first.start,
            end: at(0)
        })
    );
}

#[test]
fn an_answer_without_times_proves_nothing_before_its_end() {
    let planner = fresh();
    let request = ask(&planner, at(0));
    let page = Answer {
        times: vec![None, Some(at(-3))],
        token: Some("more".to_owned()),
    };
    assert_eq!(planner.proof(&request, &page).unwrap().read, None);
}

#[test]
fn a_token_that_leads_back_to_itself_is_refused() {
    let mut planner = fresh();
    let first = ask(&planner, at(0));
    planner.stored(&first, &answer(&[-5], Some("same")), 1);
    let second = ask(&planner, at(1));
    let proof = planner.proof(&second, &answer(&[-6], Some("same")));
    assert_eq!(proof, Err(Unusable::SameToken));
}

#[test]
fn an_answer_to_a_window_that_was_given_up_proves_nothing() {
    let mut planner = fresh();
    let first = ask(&planner, at(0));
    planner.stored(&first, &answer(&[-5], Some("more")), 1);
    let second = ask(&planner, at(1));
    planner.lost_token(&second);
    let proof = planner.proof(&second, &answer(&[-6], None)).unwrap();
    assert_eq!(proof.read, None);
    planner.stored(&second, &answer(&[-6], None), 1);
    let covered = planner.coverage(second.name).read;
    assert_eq!(
        covered.as_slice(),
        [Interval {
            start: at(-4),
            end: at(0)
        }]
    );
}

#[test]
fn a_failed_request_waits_and_lets_the_other_names_go_on() {
    let mut planner = fresh();
    let first = ask(&planner, at(0));
    planner.failed(&first, at(30));
    let second = ask(&planner, at(1));
    assert_ne!(first.name, second.name);
    let mut names = vec![second.name];
    let mut now = 1;
    while now < 29 {
        if let Step::Ask(request) = planner.next(at(now)) {
            assert_ne!((request.name, request.kind), (first.name, Kind::Poll));
            names.push(request.name);
            planner.stored(&request, &answer(&[], None), 0);
        }
        now += 1;
    }
    let again = ask(&planner, at(30));
    assert_eq!((again.name, again.kind), (first.name, Kind::Poll));
}

#[test]
fn a_clock_that_goes_back_stops_no_poll() {
    let mut planner = fresh();
    let mut history = History::new(BTreeMap::new());
    read(&mut planner, &mut history, at(0), at(HOUR), |_, _| {
        Fate::Answered
    });
    let mut polls = 0;
    read(
        &mut planner,
        &mut history,
        at(-3 * HOUR),
        at(120 - 3 * HOUR),
        |_, request| {
            polls += i32::from(request.kind == Kind::Poll);
            Fate::Answered
        },
    );
    assert!(polls >= 6, "{polls}");
}

#[test]
fn the_history_is_filled_newest_first_removals_before_pulls_and_each_span_once() {
    let pulls = records(EventName::BatchGetImage, (1..=9000).map(|n| (-n * 600, 0)));
    let deletions = records(
        EventName::BatchDeleteImage,
        (1..=9000).map(|n| (-n * 864, 0)),
    );
    let mut history = History::new(pulls.into_iter().chain(deletions).collect());
    let mut planner = fresh();
    let mut asked: Vec<Request> = vec![];
    let mut estimate = None;
    read(
        &mut planner,
        &mut history,
        at(0),
        at(HOUR),
        |planner, request| {
            if request.kind == Kind::Backfill {
                asked.push(request.clone());
                estimate = estimate.or_else(|| planner.backfill(at(0)));
            }
            Fate::Answered
        },
    );
    assert!(estimate.is_some_and(|left| left.requests > 0));
    assert_eq!(planner.backfill(at(HOUR)), None);
    // The last day of all names, then the rest of each name.
    let old: Vec<&Request> = asked.iter().filter(|r| r.start < at(-2 * DAY)).collect();
    let order: Vec<EventName> = old.iter().map(|request| request.name).collect();
    let mut by_name = order.clone();
    by_name.sort_by_key(|name| EventName::JUDGED.iter().position(|judged| judged == name));
    assert_eq!(order, by_name);
    for request in &old {
        let reach = if request.name == EventName::BatchGetImage {
            30
        } else {
            90
        };
        assert!(request.start >= at(-reach * DAY - 1), "{request:?}");
    }
    // 4,320 pulls within the lookback, 9,000 deletions: two windows each, and four names with none.
    let least = 4320_usize.div_ceil(50) + 9000_usize.div_ceil(50);
    assert!(asked.len() <= least + 2 * 6, "{} of {least}", asked.len());
    let unread = history.records().filter(|(key, record)| {
        let reach = if key.0 == EventName::BatchGetImage {
            30
        } else {
            90
        };
        record.time > at(-reach * DAY) && !history.seen.contains_key(key)
    });
    assert_eq!(unread.count(), 0);
}

#[test]
fn what_was_pruned_is_read_again_when_more_is_wanted() {
    let mut planner = fresh();
    let mut history = History::new(BTreeMap::new());
    read(&mut planner, &mut history, at(0), at(300), |_, _| {
        Fate::Answered
    });
    assert_eq!(planner.backfill(at(300)), None);
    let longer = Config {
        lookback: SignedDuration::from_hours(60 * 24),
        ..config(60)
    };
    let coverage = EventName::JUDGED.map(|name| (name, planner.coverage(name)));
    planner.configure(longer, &coverage.into());
    assert!(planner.backfill(at(300)).is_some());
}

#[test]
fn a_busy_name_keeps_no_other_from_its_poll() {
    // 40 pulls a second fill the quota: a poll of them takes minutes.
    let pulls = records(
        EventName::BatchGetImage,
        (0..40 * HOUR).map(|n| (n / 40, 240)),
    );
    let deletions = records(
        EventName::BatchDeleteImage,
        (0..HOUR / 30).map(|n| (n * 30, 200)),
    );
    let mut history = History::new(pulls.into_iter().chain(deletions).collect());
    let mut planner = fresh();
    read(&mut planner, &mut history, at(0), at(HOUR), |_, _| {
        Fate::Answered
    });
    for (key, record) in history.records() {
        if key.0 == EventName::BatchDeleteImage && record.visible < at(HOUR - 90) {
            let seen = history.seen.get(&key).expect("read");
            let waited = seen.duration_since(record.visible);
            assert!(waited <= SignedDuration::from_secs(62), "{waited}");
        }
    }
}

fn any_name() -> impl Strategy<Value = EventName> {
    prop::sample::select(EventName::JUDGED.to_vec())
}

proptest! {
    // Days of polls in each case: a few at a time.
    #![proptest_config(ProptestConfig::with_cases(2))]

    /// However late within a day, whatever fails, however often and long the process is away.
    #[test]
    fn nothing_is_lost(
        happened in prop::collection::vec((any_name(), 0..36 * HOUR, 0..DAY), 1..1500),
        bursts in prop::collection::vec((any_name(), 0..36 * HOUR, 0..DAY), 0..4),
        away in prop::collection::vec((0..36 * HOUR, 60..30 * HOUR), 0..3),
        faults in prop::collection::vec(0..40_u8, 1..64),
    ) {
        let mut all: BTreeMap<EventName, Vec<Record>> = BTreeMap::new();
        let burst = bursts.iter().flat_map(|burst| (0..180).map(move |n| (burst.0, burst.1 + n / 90, burst.2)));
        for (name, time, delay) in happened.into_iter().chain(burst) {
            all.entry(name).or_default().push(Record { time: at(time), visible: at(time + delay) });
        }
        let mut history = History::new(all);
        let mut planner = Planner::new(config(600), &BTreeMap::new());
        let mut away = away;
        away.sort_unstable();
        let mut now = 0;
        let mut request_number = 0;
        let mut fate = |_: &Planner, request: &Request| {
            request_number += 1;
            match faults[request_number % faults.len()] {
                0 => Fate::Fails(SignedDuration::from_secs(20)),
                1 if request.token.is_some() => Fate::LosesToken,
                _ => Fate::Answered,
            }
        };
        for (from, pause) in away {
            if from > now {
                read(&mut planner, &mut history, at(now), at(from), &mut fate);
                now = from;
            }
            now += pause;
            planner = restarted(&planner, 600);
        }
        // The last event has a day to appear, and each span some hours to be read for the last time.
        let end = now.max(60 * HOUR) + 30 * HOUR;
        read(&mut planner, &mut history, at(now), at(end), |_, _| Fate::Answered);
        let lost: Vec<_> = history.records().filter(|(key, _)| !history.seen.contains_key(key)).collect();
        prop_assert!(lost.is_empty(), "{lost:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// What becomes visible within 15 minutes is read a period and 2 seconds later.
    #[test]
    fn what_comes_in_time_is_read_in_time(
        happened in prop::collection::vec((any_name(), 0..6 * HOUR, 0..=900_i64), 1..600),
        poll in prop::sample::select(vec![10_i64, 30, 60, 300]),
    ) {
        let mut all: BTreeMap<EventName, Vec<Record>> = BTreeMap::new();
        for (name, time, delay) in happened {
            all.entry(name).or_default().push(Record { time: at(time), visible: at(time + delay) });
        }
        let mut history = History::new(all);
        let mut planner = Planner::new(config(poll), &BTreeMap::new());
        read(&mut planner, &mut history, at(-HOUR), at(7 * HOUR), |_, _| Fate::Answered);
        for (key, record) in history.records() {
            let seen = history.seen.get(&key).expect("read");
            let waited = seen.duration_since(record.visible);
            prop_assert!(waited <= SignedDuration::from_secs(poll + 2), "{record:?} {waited}");
        }
    }
}
