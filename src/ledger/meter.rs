//! How long the ledger takes, and what it fails to do, told to whoever counts that.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{ANSWER, InTime, Ledger, LedgerError};

/// What a ledger is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// To open, its schema brought up to date.
    Open,
    /// To take in a page, waiting for the turn to write included.
    Append,
    /// To answer a question.
    Query,
    /// Any other write: nodes, what is known of a trail, what is forgotten.
    Write,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 4] = [Self::Open, Self::Append, Self::Query, Self::Write];

    /// As metrics spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Append => "append",
            Self::Query => "query",
            Self::Write => "write",
        }
    }
}

/// Who is told of every operation that has ended.
pub trait Meter: Send + Sync {
    /// It took this long, and failed if there is an error.
    fn done(&self, operation: Operation, took: Duration, error: Option<&LedgerError>);
}

/// Nobody is.
pub(super) struct Unmetered;

impl Meter for Unmetered {
    fn done(&self, _: Operation, _: Duration, _: Option<&LedgerError>) {}
}

/// A ledger's meter.
pub(super) struct Metered(pub(super) Arc<dyn Meter>);

impl fmt::Debug for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metered")
    }
}

/// Does something, and tells the meter.
pub(super) async fn metered<T>(
    meter: &dyn Meter,
    operation: Operation,
    work: impl Future<Output = Result<T, LedgerError>> + Send,
) -> Result<T, LedgerError> {
    let began = Instant::now();
    let result = work.await;
    meter.done(operation, began.elapsed(), result.as_ref().err());
    result
}

impl Ledger {
    /// Does something, and tells the meter.
    pub(super) async fn timed<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, LedgerError>> + Send,
    ) -> Result<T, LedgerError> {
        metered(&*self.inner.meter.0, operation, work).await
    }
}

/// Waits for one statement as [`InTime`] does, and tells the meter.
pub(super) trait Timed: InTime + Send {
    /// A statement that reads.
    fn reads(
        self,
        ledger: &Ledger,
    ) -> impl Future<Output = Result<Self::Answer, LedgerError>> + Send {
        ledger.timed(Operation::Query, self.within(ANSWER))
    }

    /// A statement that writes.
    fn writes(
        self,
        ledger: &Ledger,
    ) -> impl Future<Output = Result<Self::Answer, LedgerError>> + Send {
        ledger.timed(Operation::Write, self.within(ANSWER))
    }
}

impl<T: InTime + Send> Timed for T {}
