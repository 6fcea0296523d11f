//! What is known of trails: which files were read, which delivery time, what is missing.

use ecr_audit::event::{EventName, Interval, Intervals};
use ecr_audit::source::{FilePage, Gap, KnownFile, Learned, Place, Reason, Store};
use jiff::{SignedDuration, Timestamp};

use crate::database::{Database, on_both};
use crate::faults::execute;
use crate::story;

on_both! {
    a_ledger_of_the_first_version_becomes_one_that_knows_of_trails,
    a_file_that_is_read_twice_is_remembered_once_with_its_latest_hash,
    a_gap_is_no_evidence_until_it_is_closed,
    trails_and_places_are_kept_apart,
}

const TRAIL: &str = "s3://org-trail/AWSLogs/o-a1b2c3d4e5";

fn place(account: &str) -> Place {
    Place {
        account: account.into(),
        region: "us-east-1".into(),
    }
}

fn at(minutes: i64) -> Timestamp {
    let start: Timestamp = "2026-11-20T00:00:00Z".parse().unwrap();
    start + SignedDuration::from_mins(minutes)
}

fn span(from: i64, to: i64) -> Interval {
    Interval {
        start: at(from),
        end: at(to),
    }
}

fn file(minute: i64, hash: u8) -> FilePage {
    FilePage {
        trail: TRAIL.into(),
        place: place("111122223333"),
        delivered: at(minute),
        unique: "AbCdEfGhIjKlMnOp".into(),
        events: vec![],
        undecodable: vec![],
        end: Some((at(minute + 10), [hash; 32])),
    }
}

async fn a_ledger_of_the_first_version_becomes_one_that_knows_of_trails(database: Database) {
    let ledger = database.open().await;
    story::append(&ledger, 0).await.unwrap();
    ledger.close().await;
    // Later versions only add: without what they added it is the first version's.
    execute(
        &database,
        "DROP INDEX pulls_by_caller; DROP TABLE trail_files; DROP TABLE trail_gaps; UPDATE schema_version SET version = 1",
    )
    .await;
    let ledger = database.open().await;
    story::append(&ledger, 1).await.unwrap();
    story::assert_holds_exactly(&ledger, 2).await;
    ledger.append_file(file(0, 1)).await.unwrap();
    ledger.close().await;
    // The second start finds nothing to do.
    let ledger = database.open().await;
    let files = ledger
        .files(TRAIL, &place("111122223333"), span(0, 10))
        .await;
    assert_eq!(files.unwrap().len(), 1);
}

async fn a_file_that_is_read_twice_is_remembered_once_with_its_latest_hash(database: Database) {
    let ledger = database.open().await;
    let here = place("111122223333");
    for page in [file(5, 1), file(5, 2), file(7, 3)] {
        ledger.append_file(page).await.unwrap();
    }
    let mut part = file(9, 4);
    part.end = None;
    ledger.append_file(part).await.unwrap();
    let files = ledger.files(TRAIL, &here, span(0, 100)).await.unwrap();
    let expected = [(5, 2), (7, 3)].map(|(minute, hash)| KnownFile {
        delivered: at(minute),
        unique: "AbCdEfGhIjKlMnOp".into(),
        hash: [hash; 32],
    });
    assert_eq!(files, expected);
    assert_eq!(ledger.files(TRAIL, &here, span(0, 5)).await.unwrap(), []);
    let forget = Learned {
        forget: Some(at(6)),
        ..Learned::default()
    };
    ledger.learn(TRAIL, &here, forget).await.unwrap();
    let files = ledger.files(TRAIL, &here, span(0, 100)).await.unwrap();
    assert_eq!(files, expected[1..]);
    assert_eq!(ledger.prune_files(at(18)).await.unwrap(), 1);
}

async fn a_gap_is_no_evidence_until_it_is_closed(database: Database) {
    let ledger = database.open().await;
    let here = place("111122223333");
    let gap = Gap {
        reason: Reason::FileMissing,
        message: "one is missing".to_owned(),
        span: span(60, 120),
    };
    let learned = Learned {
        delivered: vec![span(0, 240)],
        proved: vec![span(0, 60)],
        events: vec![span(0, 225)],
        found: [("digest".into(), gap.clone())].into(),
        ..Learned::default()
    };
    ledger.learn(TRAIL, &here, learned).await.unwrap();
    let state = &ledger.trail(TRAIL).await.unwrap()[&here];
    assert_eq!(state.delivered, Intervals::from_iter([span(0, 240)]));
    assert_eq!(state.proved, Intervals::from_iter([span(0, 60)]));
    for name in EventName::JUDGED {
        let covered = [span(0, 60), span(120, 225)].into_iter().collect();
        assert_eq!(state.events[&name], covered);
    }
    assert_eq!(state.gaps.values().collect::<Vec<_>>(), [&gap]);

    let closed = Learned {
        events: vec![span(60, 120)],
        closed: vec!["digest".into()],
        ..Learned::default()
    };
    ledger.learn(TRAIL, &here, closed).await.unwrap();
    let state = &ledger.trail(TRAIL).await.unwrap()[&here];
    let whole = Intervals::from_iter([span(0, 225)]);
    assert!(state.events.values().all(|covered| *covered == whole));
    assert!(state.gaps.is_empty());
    // People who ask for event names are not told of files.
    let all = ledger.all_coverage().await.unwrap();
    assert_eq!(all.len(), EventName::JUDGED.len());
}

async fn trails_and_places_are_kept_apart(database: Database) {
    let ledger = database.open().await;
    let (one, two) = (place("111122223333"), place("444455556666"));
    for (trail, here, from) in [
        (TRAIL, &one, 0),
        (TRAIL, &two, 10),
        ("s3://b/AWSLogs", &one, 20),
    ] {
        let learned = Learned {
            delivered: vec![span(from, from + 5)],
            ..Learned::default()
        };
        ledger.learn(trail, here, learned).await.unwrap();
    }
    let trail = ledger.trail(TRAIL).await.unwrap();
    assert_eq!(trail.len(), 2);
    assert_eq!(trail[&one].delivered, Intervals::from_iter([span(0, 5)]));
    assert_eq!(trail[&two].delivered, Intervals::from_iter([span(10, 15)]));
    assert_eq!(ledger.trail("s3://b/AWSLogs").await.unwrap().len(), 1);
    assert!(ledger.trail("s3://b").await.unwrap().is_empty());
}
