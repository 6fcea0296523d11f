//! An endless sequence of pages, each told by its number, and what a ledger must hold after the
//! first of them: the truth that crashes and crowds are compared with.

use std::collections::BTreeSet;

use ecr_audit::event::{Event, EventName, Pull, Repository};
use ecr_audit::ledger::{Ledger, Page};

use crate::record::{Record, page, repository, span};

/// Records on a page.
const PER_PAGE: u32 = 20;

/// Seconds that a page covers.
const SPAN: i64 = 10;

const REPOSITORIES: [&str; 3] = ["shop/web", "shop/api", "base"];

/// The records of a page: pulls by changing sessions, some shared by two accounts, deletions, and
/// corrections of records of the page before.
pub(crate) fn events(number: u32) -> Vec<Event> {
    let first = number * PER_PAGE;
    (first..first + PER_PAGE)
        .map(|id| {
            let second = i64::from(number) * SPAN + i64::from(id % 10);
            let session = format!("i-{:x}", id % 7);
            let name = REPOSITORIES[(id % 3) as usize];
            let record = match id % PER_PAGE {
                0 => Record::delete(id, second),
                1 => Record::pull(id, second).shared(id),
                // The second copy of the call above, as the image's owner sees it.
                2 => {
                    let second = second - 1;
                    Record::pull(id, second).shared(id - 1).owners_copy()
                }
                3 if number > 0 => Record::pull(id, second - SPAN).corrects(id - PER_PAGE),
                4 => Record::pull(id, second).digest().denied(),
                _ => Record::pull(id, second),
            };
            let name = match id % PER_PAGE {
                2 => REPOSITORIES[((id - 1) % 3) as usize],
                _ => name,
            };
            record.session_unless_foreign(&session).of(name).event()
        })
        .collect()
}

/// Appends a page with what it covers.
pub(crate) async fn append(
    ledger: &Ledger,
    number: u32,
) -> Result<(), ecr_audit::ledger::LedgerError> {
    let events = events(number);
    let from = i64::from(number) * SPAN;
    let page = Page {
        names: &EventName::JUDGED,
        covered: Some(span(from, from + SPAN)),
        ..page(&events)
    };
    ledger.append(&page).await.map(drop)
}

/// How many pages the coverage says were read, which must be the first ones.
pub(crate) async fn pages_covered(ledger: &Ledger) -> u32 {
    let coverage = ledger.all_coverage().await.unwrap();
    if coverage.is_empty() {
        return 0;
    }
    assert_eq!(coverage.len(), EventName::JUDGED.len());
    for name in &coverage {
        assert_eq!(name.read, coverage[0].read, "{:?}", name.name);
    }
    let [covered] = coverage[0].read.as_slice() else {
        panic!("{coverage:?}")
    };
    assert_eq!(covered.start, span(0, 1).start);
    let seconds = covered.end.as_second() - covered.start.as_second();
    assert_eq!(seconds % SPAN, 0);
    u32::try_from(seconds / SPAN).unwrap()
}

/// A pull as far as tests compare it.
type Seen = (String, i64, Option<String>, bool);

pub(crate) fn seen(pull: &Pull) -> Seen {
    (
        pull.id.to_string(),
        pull.time.as_second(),
        pull.caller.session.as_deref().map(ToOwned::to_owned),
        pull.denied,
    )
}

/// Everything that counts of a repository.
pub(crate) async fn read(
    ledger: &Ledger,
    place: &Repository,
) -> (BTreeSet<Seen>, BTreeSet<String>) {
    let callers = ledger.pullers(place).await.unwrap();
    let within = span(-1_000_000, 1_000_000_000);
    let pulls = ledger
        .pulls(place, within, callers.iter().map(|(id, _)| *id))
        .await
        .unwrap();
    let distinct: BTreeSet<Seen> = pulls.iter().map(seen).collect();
    assert_eq!(distinct.len(), pulls.len(), "a pull counts twice");
    let changes = ledger.changes(place).await.unwrap();
    let ids: BTreeSet<String> = changes.iter().map(|event| event.id.to_string()).collect();
    assert_eq!(ids.len(), changes.len(), "a change counts twice");
    (distinct, ids)
}

/// What a ledger that holds the first pages must say, worked out from the sequence itself.
pub(crate) async fn assert_holds_exactly(ledger: &Ledger, pages: u32) {
    for name in REPOSITORIES {
        let place = repository(name);
        let mut pulls = BTreeSet::new();
        let mut changes = BTreeSet::new();
        for number in 0..pages {
            for (event, id) in events(number).iter().zip(number * PER_PAGE..) {
                let corrected = id % PER_PAGE == 3 && number + 1 < pages;
                // The owner's copy of a call, and a corrected record, do not count.
                if event.repository.as_ref() != Some(&place) || id % PER_PAGE == 2 || corrected {
                    continue;
                }
                if event.name == EventName::BatchDeleteImage {
                    changes.insert(event.id.to_string());
                } else {
                    let session = event.caller.session.as_deref().map(ToOwned::to_owned);
                    let denied = event.outcome == ecr_audit::event::Outcome::Denied;
                    pulls.insert((
                        event.id.to_string(),
                        event.time.as_second(),
                        session,
                        denied,
                    ));
                }
            }
        }
        let (have_pulls, have_changes) = read(ledger, &place).await;
        let lost: Vec<_> = pulls.difference(&have_pulls).take(3).collect();
        let invented: Vec<_> = have_pulls.difference(&pulls).take(3).collect();
        assert!(
            lost.is_empty() && invented.is_empty(),
            "{name} after {pages} pages: lost {lost:?}, invented {invented:?}"
        );
        assert_eq!(have_changes, changes, "{name}");
    }
}
