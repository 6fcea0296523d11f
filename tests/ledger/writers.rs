//! Several processes append at once.

use futures::future::join_all;
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use crate::database::{Database, on_both};
use crate::story;

on_both! {
    writers_that_append_the_same_pages_at_once_count_them_once,
    a_ledger_that_many_open_at_once_is_made_once,
}

const WRITERS: u64 = 4;
const PAGES: u32 = 30;

async fn writers_that_append_the_same_pages_at_once_count_them_once(database: Database) {
    // Each writer has a pool of its own, as another process would.
    let mut writers = Vec::new();
    for seed in 0..WRITERS {
        let ledger = database.open().await;
        let mut order: Vec<u32> = (0..PAGES).collect();
        order.shuffle(&mut StdRng::seed_from_u64(seed));
        writers.push(tokio::spawn(async move {
            for number in order {
                story::append(&ledger, number).await.unwrap();
            }
            ledger.close().await;
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let ledger = database.open().await;
    assert_eq!(story::pages_covered(&ledger).await, PAGES);
    story::assert_holds_exactly(&ledger, PAGES).await;
}

async fn a_ledger_that_many_open_at_once_is_made_once(database: Database) {
    let opened = join_all((0..6).map(|_| database.open())).await;
    story::append(&opened[0], 0).await.unwrap();
    story::assert_holds_exactly(&opened[5], 1).await;
}
