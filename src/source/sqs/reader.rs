//! Reads one queue: finds credentials, asks what the queue and the ledger know, and begins.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64},
};

use jiff::Timestamp;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    client::{Attributes, Queue},
    cover::Cover,
    drive::Loop,
    faults::{Faults, Task},
    work::{Clients, KIND, Worker},
};
use crate::source::{
    Board, Changes, Counters, PollerSpec, Reason, Store, credentials::config, fault::Fault,
    trail::Objects,
};

/// The reader of one queue.
pub(crate) struct Reader {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) changes: Arc<Changes>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) objects: Arc<Objects>,
    pub(crate) spec: watch::Receiver<PollerSpec>,
    pub(crate) health: Board,
    pub(crate) stop: CancellationToken,
}

impl Reader {
    /// Reads until it is stopped. Messages that are held then come back to whoever reads next.
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        let _ = stop.run_until_cancelled_owned(Box::pin(self.read())).await;
    }

    async fn read(mut self) {
        let Some((worker, attributes)) = self.begin().await else {
            return;
        };
        if !attributes.redrives {
            warn!(
                queue = %worker.name,
                "the queue has no redrive policy: messages that cannot be read stay in it"
            );
        }
        Loop::new(&worker, &self.health, attributes).run().await;
    }

    /// Credentials, what the queue says of itself, and what the ledger has of it.
    async fn begin(&mut self) -> Option<(Worker, Attributes)> {
        let mut faults = Faults::default();
        loop {
            let spec = self.spec.borrow_and_update().clone();
            let name = name_of(spec.key.queue_url()?);
            let begun = async {
                let clients = Box::pin(clients(&spec)).await?;
                let attributes = clients.queue.attributes().await?;
                let states = self.store.trail(&name).await;
                let states =
                    states.map_err(|error| Fault::new(Reason::Ledger, error.to_string()))?;
                Ok::<_, Fault>((clients, attributes, states))
            };
            match begun.await {
                Ok((clients, attributes, states)) => {
                    info!(queue = %name, "reading the queue");
                    self.health.modify(|health| health.last_error = None);
                    let worker = Worker {
                        store: self.store.clone(),
                        changes: self.changes.clone(),
                        counters: self.counters.clone(),
                        spec: self.spec.clone(),
                        name,
                        objects: self.objects.clone(),
                        clients: Mutex::new(Arc::new(clients)),
                        faults: Mutex::default(),
                        cover: tokio::sync::Mutex::new(Cover::new(states)),
                        files: AtomicU64::new(0),
                        digests: Mutex::default(),
                        moved: AtomicBool::new(true),
                    };
                    return Some((worker, attributes));
                }
                Err(fault) => {
                    let region = &spec.key.region;
                    self.counters
                        .count_error(KIND, &Arc::default(), region, fault.reason);
                    warn!(
                        queue = %name, reason = %fault.reason, message = %fault.message,
                        "the queue cannot be read"
                    );
                    let (wait, _) = faults.note(Task::Begin, fault, Timestamp::now());
                    self.health
                        .modify(|health| health.last_error = faults.worst());
                    self.changes.health();
                    tokio::select! {
                        () = sleep(wait) => {}
                        changed = self.spec.changed() => {
                            if changed.is_err() {
                                // Nobody wants it any more: what stops it is on its way.
                                sleep(wait).await;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A queue in the ledger: its address without the scheme.
fn name_of(url: &str) -> Arc<str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    format!("sqs://{rest}").into()
}

/// What asks AWS, with the credentials that there are now.
pub(super) async fn clients(spec: &PollerSpec) -> Result<Clients, Fault> {
    let config = config(&spec.key).await?;
    let url = spec.key.queue_url().map_or("", |url| url);
    Ok(Clients {
        queue: Queue::new(&config, url),
        s3: aws_sdk_s3::Client::new(&config),
    })
}
