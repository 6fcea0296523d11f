//! What the ledger promises to those who append and read.

use std::collections::BTreeSet;

use ecr_audit::event::EventName;
use ecr_audit::event::Repository;
use ecr_audit::ledger::{Backend, CallerId, Ledger, Page, Undecodable};

use crate::database::{Database, on_both};
use crate::record::{Record, at, id, page, repository, span};

on_both! {
    a_pull_comes_back_as_its_record_said,
    a_page_that_is_read_again_adds_nothing,
    only_repositories_with_something_new_are_named,
    of_two_copies_of_a_call_the_one_with_the_callers_arn_counts,
    a_correction_replaces_a_pull_whichever_arrives_first,
    a_correction_under_its_own_id_replaces_the_record_whichever_arrives_first,
    of_several_corrections_the_same_one_counts_in_any_order,
    pulls_by_callers_that_were_not_asked_for_stay_in_the_database,
    pulls_by_tag_are_counted_without_being_read,
    coverage_grows_together_with_the_facts,
    pruned_pulls_leave_callers_changes_and_a_shorter_coverage,
    unreadable_records_are_counted_once_and_kept_within_bounds,
    nodes_are_remembered_by_cluster,
    state_is_set_and_read,
    a_reopened_ledger_knows_what_was_appended,
    other_processes_hear_of_what_is_new,
}

async fn all_pulls(ledger: &Ledger, repository: &Repository) -> Vec<ecr_audit::event::Pull> {
    let callers = ledger.callers().await.unwrap();
    let mut pulls = ledger
        .pulls(
            repository,
            span(-1_000_000, 1_000_000),
            callers.iter().map(|(id, _)| *id),
        )
        .await
        .unwrap();
    pulls.sort_by_key(|pull| (pull.time, pull.id.clone()));
    pulls
}

async fn a_pull_comes_back_as_its_record_said(database: Database) {
    let ledger = database.open().await;
    let event = Record::pull(1, 5).event();
    let appended = ledger
        .append(&page(std::slice::from_ref(&event)))
        .await
        .unwrap();
    assert_eq!(appended.new_events, 1);
    assert_eq!(
        appended.repositories,
        BTreeSet::from([repository("shop/web")])
    );
    let pulls = all_pulls(&ledger, &repository("shop/web")).await;
    let [pull] = pulls.as_slice() else {
        panic!("{pulls:?}")
    };
    assert_eq!(pull.id, event.id);
    assert_eq!(pull.time, event.time);
    assert_eq!(pull.caller, event.caller);
    assert!(!pull.denied);
    let ecr_audit::event::Action::Pull(images) = &event.action else {
        panic!()
    };
    assert_eq!(*pull.images, **images);
}

async fn a_page_that_is_read_again_adds_nothing(database: Database) {
    let ledger = database.open().await;
    let events = [Record::pull(1, 5).event(), Record::delete(2, 6).event()];
    ledger.append(&page(&events)).await.unwrap();
    let again = ledger.append(&page(&events)).await.unwrap();
    assert_eq!(again.new_events, 0);
    assert_eq!(again.duplicates, 2);
    assert!(again.repositories.is_empty());
    assert_eq!(all_pulls(&ledger, &repository("shop/web")).await.len(), 1);
    let changes = ledger.changes(&repository("shop/web")).await.unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!(*changes[0], events[1]);
}

async fn only_repositories_with_something_new_are_named(database: Database) {
    let ledger = database.open().await;
    let old = Record::pull(1, 5).of("old").event();
    ledger
        .append(&page(std::slice::from_ref(&old)))
        .await
        .unwrap();
    let new = Record::pull(2, 5).of("new").event();
    let appended = ledger.append(&page(&[old, new])).await.unwrap();
    assert_eq!(appended.repositories, BTreeSet::from([repository("new")]));
}

async fn of_two_copies_of_a_call_the_one_with_the_callers_arn_counts(database: Database) {
    let own = || Record::pull(1, 5).shared(9).event();
    let owners = || Record::pull(2, 5).shared(9).owners_copy().event();
    for events in [[own(), owners()], [owners(), own()]] {
        let database = database.another().await;
        let ledger = database.open().await;
        for event in &events {
            ledger
                .append(&page(std::slice::from_ref(event)))
                .await
                .unwrap();
        }
        let pulls = all_pulls(&ledger, &repository("shop/web")).await;
        assert_eq!(pulls.len(), 1);
        assert_eq!(*pulls[0].id, id(1));
        // What the other copy teaches of its caller stays.
        assert_eq!(ledger.callers().await.unwrap().len(), 2);
    }
}

async fn a_correction_replaces_a_pull_whichever_arrives_first(database: Database) {
    let original = || Record::pull(1, 5).event();
    let correction = || Record::pull(2, 5).session("i-0def").corrects(1).event();
    for events in [[original(), correction()], [correction(), original()]] {
        let database = database.another().await;
        let ledger = database.open().await;
        for event in &events {
            ledger
                .append(&page(std::slice::from_ref(event)))
                .await
                .unwrap();
        }
        let pulls = all_pulls(&ledger, &repository("shop/web")).await;
        assert_eq!(pulls.len(), 1);
        assert_eq!(*pulls[0].id, id(2));
        assert_eq!(pulls[0].caller.session.as_deref(), Some("i-0def"));
    }
}

async fn a_correction_under_its_own_id_replaces_the_record_whichever_arrives_first(
    database: Database,
) {
    let original = || Record::delete(1, 5).event();
    let correction = || Record::delete(1, 5).session("i-0def").corrects(1).event();
    for events in [[original(), correction()], [correction(), original()]] {
        let database = database.another().await;
        let ledger = database.open().await;
        for event in &events {
            let appended = ledger
                .append(&page(std::slice::from_ref(event)))
                .await
                .unwrap();
            if event.replaces.is_some() {
                assert!(appended.repositories.contains(&repository("shop/web")));
            }
        }
        let changes = ledger.changes(&repository("shop/web")).await.unwrap();
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].caller.session.as_deref(), Some("i-0def"));
    }
}

async fn of_several_corrections_the_same_one_counts_in_any_order(database: Database) {
    let records = || {
        vec![
            Record::pull(1, 5).event(),
            Record::pull(2, 5).session("a").corrects(1).event(),
            Record::pull(3, 5).session("b").corrects(1).event(),
        ]
    };
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
        let database = database.another().await;
        let ledger = database.open().await;
        for index in order {
            ledger
                .append(&page(&records()[index..=index]))
                .await
                .unwrap();
        }
        let pulls = all_pulls(&ledger, &repository("shop/web")).await;
        assert_eq!(pulls.len(), 1, "{order:?}");
        assert_eq!(pulls[0].caller.session.as_deref(), Some("b"));
    }
}

async fn pulls_by_callers_that_were_not_asked_for_stay_in_the_database(database: Database) {
    let ledger = database.open().await;
    let events = [
        Record::pull(1, 5).event(),
        Record::pull(2, 6).session("i-0def").event(),
        Record::pull(3, 7).session("i-0def").denied().event(),
    ];
    ledger.append(&page(&events)).await.unwrap();
    let wanted: Vec<CallerId> = ledger
        .pullers(&repository("shop/web"))
        .await
        .unwrap()
        .into_iter()
        .filter(|(_, caller)| caller.session.as_deref() == Some("i-0def"))
        .map(|(id, _)| id)
        .collect();
    let mut pulls = ledger
        .pulls(&repository("shop/web"), span(0, 100), wanted.clone())
        .await
        .unwrap();
    pulls.sort_by_key(|pull| pull.time);
    assert_eq!(pulls.len(), 2);
    assert!(!pulls[0].denied && pulls[1].denied);
    // The end of the interval is not within, its start is.
    let pulls = ledger
        .pulls(&repository("shop/web"), span(6, 7), wanted)
        .await
        .unwrap();
    assert_eq!(pulls.len(), 1);
}

async fn pulls_by_tag_are_counted_without_being_read(database: Database) {
    let ledger = database.open().await;
    let events = [
        Record::pull(1, 5).event(),
        Record::pull(2, 6).event(),
        Record::pull(3, 7).denied().event(),
        Record::pull(4, 8).digest().event(),
        Record::pull(5, 5).shared(9).event(),
        Record::pull(6, 5).shared(9).owners_copy().event(),
    ];
    ledger.append(&page(&events)).await.unwrap();
    let targets = ledger.tag_targets(&repository("shop/web")).await.unwrap();
    let [target] = targets.as_slice() else {
        panic!("{targets:?}")
    };
    let count = |from, to| {
        let ledger = ledger.clone();
        let id = target.id;
        async move {
            ledger
                .count_pulls(&repository("shop/web"), &[id], span(from, to))
                .await
                .unwrap()
        }
    };
    assert_eq!(count(0, 100).await, 3);
    assert_eq!(count(6, 100).await, 1);
}

async fn coverage_grows_together_with_the_facts(database: Database) {
    let ledger = database.open().await;
    let covered = |ledger: Ledger| async move {
        let all = ledger.all_coverage().await.unwrap();
        all[0].read.as_slice().to_vec()
    };
    for (from, to, expected) in [
        (0, 10, vec![span(0, 10)]),
        (20, 30, vec![span(0, 10), span(20, 30)]),
        (22, 28, vec![span(0, 10), span(20, 30)]),
        (10, 15, vec![span(0, 15), span(20, 30)]),
        (5, 25, vec![span(0, 30)]),
        (40, 40, vec![span(0, 30)]),
    ] {
        let page = Page {
            covered: Some(span(from, to)),
            settled: Some(span(from, to.min(from + 1))),
            ..page(&[])
        };
        ledger.append(&page).await.unwrap();
        assert_eq!(covered(ledger.clone()).await, expected);
    }
    let all = ledger.all_coverage().await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].read.as_slice(), [span(0, 30)]);
    let settled = [
        span(0, 1),
        span(5, 6),
        span(10, 11),
        span(20, 21),
        span(22, 23),
    ];
    assert_eq!(all[0].settled.as_slice(), settled);
}

async fn pruned_pulls_leave_callers_changes_and_a_shorter_coverage(database: Database) {
    let ledger = database.open().await;
    let events = [
        Record::pull(1, 5).event(),
        Record::pull(2, 15).session("i-0def").event(),
        Record::delete(3, 5).event(),
    ];
    let page = Page {
        names: &[EventName::BatchGetImage, EventName::BatchDeleteImage],
        covered: Some(span(0, 20)),
        ..page(&events)
    };
    ledger.append(&page).await.unwrap();
    assert_eq!(ledger.prune(at(10)).await.unwrap(), 1);
    let pulls = all_pulls(&ledger, &repository("shop/web")).await;
    assert_eq!(pulls.len(), 1);
    assert_eq!(*pulls[0].id, id(2));
    assert_eq!(ledger.callers().await.unwrap().len(), 2);
    assert_eq!(
        ledger.changes(&repository("shop/web")).await.unwrap().len(),
        1
    );
    for (name, expected) in [
        (EventName::BatchGetImage, span(10, 20)),
        (EventName::BatchDeleteImage, span(0, 20)),
    ] {
        let place = ecr_audit::source::Place {
            account: "111122223333".into(),
            region: "us-east-1".into(),
        };
        let covered = ledger.coverage_of("lookupEvents", &place).await.unwrap();
        assert_eq!(covered[&name].read.as_slice(), [expected]);
    }
}

async fn unreadable_records_are_counted_once_and_kept_within_bounds(database: Database) {
    let ledger = database.open().await;
    let long = "x".repeat(100_000);
    let undecodable = [
        Undecodable {
            text: "{\"eventID\": 7}",
            reason: "eventID is missing or malformed",
            time: at(1),
        },
        Undecodable {
            text: &long,
            reason: "not JSON\0",
            time: at(2),
        },
    ];
    let mut omitted = Record::delete(1, 5).event();
    omitted.omitted = true;
    let events = [omitted];
    let page = Page {
        undecodable: &undecodable,
        ..page(&events)
    };
    ledger.append(&page).await.unwrap();
    ledger.append(&page).await.unwrap();
    let counts = ledger.unread_counts(at(0)).await.unwrap();
    assert_eq!(counts.len(), 1);
    assert_eq!((counts[0].undecodable, counts[0].omitted), (2, 1));
    let kept = ledger.undecodable(10).await.unwrap();
    assert_eq!(kept.len(), 2);
    assert_eq!(kept[0].text.len(), 16 * 1024);
    assert_eq!(kept[1].text, undecodable[0].text);
    assert!(ledger.unread_counts(at(3)).await.unwrap()[0].undecodable == 0);
}

async fn nodes_are_remembered_by_cluster(database: Database) {
    let ledger = database.open().await;
    ledger
        .remember_nodes("one", &["i-1".into(), "i-2".into()], at(0))
        .await
        .unwrap();
    ledger
        .remember_nodes("one", &["i-2".into(), "i-3".into()], at(9))
        .await
        .unwrap();
    assert_eq!(ledger.nodes("one").await.unwrap().len(), 3);
    assert!(ledger.nodes("two").await.unwrap().is_empty());
}

async fn state_is_set_and_read(database: Database) {
    let ledger = database.open().await;
    assert_eq!(ledger.state("key").await.unwrap(), None);
    ledger.set_state("key", "one").await.unwrap();
    ledger.set_state("key", "two").await.unwrap();
    assert_eq!(ledger.state("key").await.unwrap().as_deref(), Some("two"));
}

async fn a_reopened_ledger_knows_what_was_appended(database: Database) {
    let ledger = database.open().await;
    ledger
        .append(&page(&[Record::pull(1, 5).event()]))
        .await
        .unwrap();
    ledger.close().await;
    let ledger = database.open().await;
    assert_eq!(all_pulls(&ledger, &repository("shop/web")).await.len(), 1);
    let again = ledger.append(&page(&[Record::pull(1, 5).event()])).await;
    assert_eq!(again.unwrap().new_events, 0);
}

async fn other_processes_hear_of_what_is_new(database: Database) {
    let (ledger, other) = (database.open().await, database.open().await);
    assert!(other.touched().await.unwrap().is_empty());
    let first = Record::pull(1, 5).event();
    ledger
        .append(&page(std::slice::from_ref(&first)))
        .await
        .unwrap();
    let heard = other.touched().await.unwrap();
    if ledger.backend() == Backend::Sqlite {
        assert!(heard.is_empty(), "a file has one process");
        return;
    }
    assert_eq!(heard.keys().collect::<Vec<_>>(), [&repository("shop/web")]);
    ledger
        .append(&page(std::slice::from_ref(&first)))
        .await
        .unwrap();
    assert_eq!(other.touched().await.unwrap(), heard, "nothing is new");
    let second = Record::pull(2, 6).event();
    ledger
        .append(&page(std::slice::from_ref(&second)))
        .await
        .unwrap();
    assert_ne!(other.touched().await.unwrap(), heard);
}
