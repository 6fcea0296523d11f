//! What the ledger tells of itself: how much it holds, how long it takes, what it fails to do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ecr_audit::ledger::{Ledger, LedgerError, Meter, Operation};

use crate::database::{Database, on_both};
use crate::record::{Record, page};

on_both! {
    what_the_ledger_holds_is_measured,
    what_the_ledger_does_and_fails_to_do_is_told,
}

async fn what_the_ledger_holds_is_measured(database: Database) {
    let ledger = database.open().await;
    let empty = ledger.bytes().await.unwrap();
    assert!(empty > 10_000, "{empty}");
    let events: Vec<_> = (1..=2_000)
        .map(|number| Record::pull(number, i64::from(number)).event())
        .collect();
    ledger.append(&page(&events)).await.unwrap();
    let full = ledger.bytes().await.unwrap();
    assert!(full > empty + 50_000, "{empty} {full}");
    let rows = ledger.rows().await.unwrap();
    assert!(rows.contains(&("pulls", 2_000)), "{rows:?}");
    assert!(rows.contains(&("repositories", 1)), "{rows:?}");
    assert!(rows.contains(&("changes", 0)), "{rows:?}");
}

#[derive(Default)]
struct Told(Mutex<Vec<(Operation, Option<&'static str>)>>);

impl Meter for Told {
    fn done(&self, operation: Operation, _: Duration, error: Option<&LedgerError>) {
        let error = error.map(LedgerError::category);
        self.0.lock().unwrap().push((operation, error));
    }
}

async fn what_the_ledger_does_and_fails_to_do_is_told(database: Database) {
    let told = Arc::new(Told::default());
    let heard = || std::mem::take(&mut *told.0.lock().unwrap());
    let ledger = Ledger::open_metered(&database.url, None, told.clone())
        .await
        .unwrap();
    assert_eq!(heard(), [(Operation::Open, None)]);
    let events = [Record::pull(1, 5).event()];
    ledger.append(&page(&events)).await.unwrap();
    assert_eq!(heard(), [(Operation::Append, None)]);
    ledger.callers().await.unwrap();
    assert_eq!(heard(), [(Operation::Query, None)]);
    ledger.set_state("a", "b").await.unwrap();
    assert_eq!(heard(), [(Operation::Write, None)]);
    ledger.close().await;
    ledger.append(&page(&events)).await.unwrap_err();
    ledger.callers().await.unwrap_err();
    let failed = Some("Unavailable");
    let expected = [(Operation::Append, failed), (Operation::Query, failed)];
    assert_eq!(heard(), expected);
    let nowhere = Ledger::open_metered("gopher://ledger", None, told.clone()).await;
    nowhere.unwrap_err();
    assert_eq!(heard(), [(Operation::Open, Some("InvalidAddress"))]);
}
