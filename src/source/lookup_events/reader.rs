//! Reads one account and region: asks what the planner wants, stores, tells.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::source::{Changes, Counters, Health, PollerSpec, Store};

/// The reader of one account and region.
pub(crate) struct Reader {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) changes: Arc<Changes>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) spec: watch::Receiver<PollerSpec>,
    pub(crate) health: watch::Sender<Health>,
    pub(crate) stop: CancellationToken,
}

impl Reader {
    /// Reads until it is stopped.
    pub(crate) async fn run(self) {
        self.stop.cancelled().await;
    }
}
