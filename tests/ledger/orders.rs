//! Any order and any repetition of the same records gives the same answers.

use std::collections::{BTreeMap, BTreeSet};

use ecr_audit::event::Event;
use ecr_audit::ledger::Ledger;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::database::Database;
use crate::record::{Record, page, repository};
use crate::story;

const REPOSITORIES: [&str; 2] = ["shop/web", "base"];

/// What one record of the generated set is made from.
#[derive(Clone, Debug)]
struct Plan {
    /// Which call it tells of; its time, repository and kind follow from that.
    call: u32,
    /// 0: a record without `sharedEventID`; 1: the caller's copy; 2: the owner's copy.
    copy: u32,
    /// 0: none; 1: a correction under an id of its own; 2: another one; 3: one under the id of
    /// the record that it corrects.
    correction: u32,
}

impl Plan {
    fn original_id(&self) -> u32 {
        self.call * 10 + self.copy
    }

    fn event(&self) -> Event {
        let original = self.original_id();
        let id = match self.correction {
            1 | 2 => 1000 * self.correction + original,
            _ => original,
        };
        let second = i64::from(self.call % 4);
        let record = match self.call % 3 {
            0 => Record::delete(id, second),
            1 => Record::pull(id, second),
            _ => Record::pull(id, second).denied(),
        };
        let record = record.of(REPOSITORIES[(self.call % 2) as usize]);
        let record = match self.copy {
            0 => record,
            1 => record.shared(self.call * 10 + 9),
            _ => record.shared(self.call * 10 + 9).owners_copy(),
        };
        let record = record.session_unless_foreign(&format!("i-{}{}", self.call, self.correction));
        match self.correction {
            0 => record,
            _ => record.corrects(original),
        }
        .event()
    }
}

/// The ids that count, said as plainly as possible.
fn expected(plans: &[Plan]) -> BTreeSet<String> {
    let mut winners: BTreeMap<u32, Plan> = BTreeMap::new();
    for plan in plans {
        // Of several corrections of one record, the one with the greatest id.
        let rank = |plan: &Plan| match plan.correction {
            0 => 0,
            3 => 1,
            other => 1 + other,
        };
        let best = winners.entry(plan.original_id()).or_insert(plan.clone());
        if rank(plan) > rank(best) {
            *best = plan.clone();
        }
    }
    let mut calls: BTreeMap<(u32, bool), Event> = BTreeMap::new();
    for plan in winners.values() {
        let event = plan.event();
        let rank = |event: &Event| {
            let named = event.caller.principal.key.starts_with("arn:");
            (!named, event.id.clone())
        };
        let best = calls
            .entry((plan.call, plan.copy == 0))
            .or_insert(event.clone());
        if rank(&event) < rank(best) {
            *best = event;
        }
    }
    calls
        .into_values()
        .map(|event| {
            let session = event.caller.session.as_deref().unwrap_or_default();
            format!("{} {session}", event.id)
        })
        .collect()
}

async fn answers(ledger: &Ledger) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for name in REPOSITORIES {
        let place = repository(name);
        let (pulls, _) = story::read(ledger, &place).await;
        for (id, _, session, _) in pulls {
            assert!(all.insert(format!("{id} {}", session.unwrap_or_default())));
        }
        for event in ledger.changes(&place).await.unwrap() {
            let session = event.caller.session.as_deref().unwrap_or_default();
            assert!(all.insert(format!("{} {session}", event.id)));
        }
    }
    all
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let plan = (0_u32..6, 0_u32..3, 0_u32..4).prop_map(|(call, copy, correction)| Plan {
        call,
        copy,
        correction,
    });
    // Repetitions are part of it.
    prop::collection::vec(plan, 1..40)
}

async fn database(kind: &str) -> Database {
    match kind {
        "sqlite" => Database::sqlite(),
        _ => Database::postgres().await,
    }
}

fn any_order_gives_the_same_answers(kind: &'static str, cases: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let input = (plans(), 1_usize..8);
    TestRunner::new(config)
        .run(&input, |(plans, per_page)| {
            runtime.block_on(async {
                let database = database(kind).await;
                let ledger = database.open().await;
                let events: Vec<Event> = plans.iter().map(Plan::event).collect();
                for events in events.chunks(per_page) {
                    ledger.append(&page(events)).await.unwrap();
                }
                assert_eq!(answers(&ledger).await, expected(&plans));
                ledger.close().await;
            });
            Ok(())
        })
        .unwrap();
}

#[test]
fn any_order_gives_the_same_answers_in_sqlite() {
    any_order_gives_the_same_answers("sqlite", 60);
}

#[test]
fn any_order_gives_the_same_answers_in_postgres() {
    any_order_gives_the_same_answers("postgres", 15);
}
