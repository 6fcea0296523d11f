//! Looks at how much the ledger holds, now and then, for the metrics.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    ledger::{Ledger, LedgerError, Meter, Operation},
    report::metrics::Metrics,
};

/// How often its size is asked for.
const SIZE: Duration = Duration::from_mins(1);
/// Counting its rows takes the longer the more there are: it rests for so many times as long.
const REST: u32 = 1_000;

/// The ledger tells the metrics what it does.
pub(super) fn meter(metrics: &Metrics) -> Arc<dyn Meter> {
    Arc::new(Told(metrics.clone()))
}

struct Told(Metrics);

impl Meter for Told {
    fn done(&self, operation: Operation, took: Duration, error: Option<&LedgerError>) {
        self.0.ledger(operation, took, error);
    }
}

/// Keeps the figures up to date until told to stop.
pub(super) async fn watch(ledger: Ledger, metrics: Metrics, stop: CancellationToken) {
    let mut count_at = Instant::now();
    loop {
        let measured = async {
            let bytes = ledger.bytes().await?;
            metrics.process(|process| process.ledger_bytes = Some(bytes));
            if Instant::now() >= count_at {
                let began = Instant::now();
                let rows = ledger.rows().await?;
                count_at = Instant::now() + began.elapsed() * REST;
                metrics.process(|process| process.ledger_rows = rows);
            }
            Ok::<_, LedgerError>(())
        };
        tokio::select! {
            () = stop.cancelled() => return,
            measured = measured => {
                if let Err(error) = measured {
                    // Counted, and told by who needs the ledger.
                    tracing::debug!(%error, "the ledger cannot be measured");
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(SIZE) => {}
        }
    }
}
