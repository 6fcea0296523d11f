//! The operator: wires sources, ledger, inventory, judgement and report together, and nothing
//! else.
//!
//! [`run`] starts the tasks: the admin server, the campaign for the [`lease`], the watches, and the
//! one loop that judges and publishes. They end together.

pub mod admin;
mod assess;
mod controller;
mod definitions;
mod gauge;
pub mod lease;
mod policies;
mod policy;
mod publish;
mod requests;
pub mod status_page;
mod visit;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::Config;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    inventory::Inventory,
    ledger::{Ledger, LedgerError},
    report::metrics::Metrics,
    source::Pollers,
};
use admin::{Gate, Readiness};
use controller::Controller;
use lease::Campaign;
use publish::Publisher;
use status_page::{Board, StatusPage};

/// How long what runs may take to end. Kubernetes waits for 30 seconds.
const END: Duration = Duration::from_secs(8);
/// How often a ledger that cannot be reached is tried again.
const LEDGER_RETRY: Duration = Duration::from_secs(2);
/// How long the API server may take for the next part of an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Changes of policies that wait for the loop.
const CHANGES: usize = 64;

/// What `ecr-audit run` was told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where facts and coverage are kept: a file, `sqlite://FILE` or `postgres://…`.
    pub ledger: String,
    /// The file that holds the password of a PostgreSQL ledger.
    pub ledger_password: Option<PathBuf>,
    /// Address of the admin server.
    pub listen: SocketAddr,
    /// Time from one request of the Event history to the next, in an account and region.
    pub lookup_pace: Duration,
    /// Address of the status page, on loopback; none: there is no page.
    pub status_listen: Option<SocketAddr>,
}

/// Why the operator could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address of the admin server cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The process cannot be told to end.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
    /// There is no cluster, neither around this process nor in `KUBECONFIG`.
    #[error("no cluster: {0}")]
    NoCluster(#[from] kube::config::InferConfigError),
    /// The cluster's address or credentials cannot be used.
    #[error("the cluster cannot be used: {0}")]
    Cluster(#[source] kube::Error),
    /// The ledger cannot be opened.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A defect of this program.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Runs until the process is told to end.
///
/// # Errors
/// [`RunError`] when it cannot start.
pub async fn run(options: Options) -> Result<(), RunError> {
    let stop = stop_on_signal()?;
    let listener = listen(options.listen).await?;
    let status_listener = match options.status_listen {
        // Nobody is left unaudited because a page has no place.
        Some(address) => listen(address)
            .await
            .inspect_err(|error| tracing::warn!(%error, "there is no status page"))
            .ok(),
        None => None,
    };
    let metrics = Metrics::new()?;
    metrics.process(|process| process.started = Some(Timestamp::now()));
    let readiness = Readiness::default();
    let admin = tokio::spawn(admin::serve(
        listener,
        readiness.clone(),
        metrics.clone(),
        stop.clone(),
    ));
    let mut config = Config::infer().await?;
    let namespace = std::env::var("POD_NAMESPACE")
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| config.default_namespace.clone());
    // A watch may be silent for minutes; nothing else may.
    let quiet_client = requests::client(config.clone(), &metrics).map_err(RunError::Cluster)?;
    config.read_timeout = Some(ANSWER);
    config.reset_reader_on_write = true;
    let lease_client = requests::client(config.clone(), &metrics).map_err(RunError::Cluster)?;
    let client = requests::client(config, &metrics).map_err(RunError::Cluster)?;
    let identity = identity();
    let (campaign, leadership) = Campaign::new(
        lease_client,
        &namespace,
        identity.clone(),
        readiness.clone(),
    );
    let board = Board::new(status_listener.is_some());
    let status_page = status_listener.map(|listener| {
        let page = StatusPage {
            board: board.clone(),
            leadership: leadership.clone(),
            readiness: readiness.clone(),
            identity: identity.clone(),
            namespace: namespace.clone(),
        };
        tokio::spawn(status_page::serve(listener, page, stop.clone()))
    });
    let Some(ledger) = open(&options, &readiness, &metrics, &stop).await? else {
        return Ok(());
    };
    let gauge = tokio::spawn(gauge::watch(ledger.clone(), metrics.clone(), stop.clone()));
    tracing::info!(listen = %options.listen, ledger = ?ledger.backend(), namespace, "started");

    let campaign = tokio::spawn(campaign.run(stop.clone()));
    let inventory = Arc::new(Inventory::new());
    let watched = inventory.clone();
    let inventory_client = quiet_client.clone();
    let inventory_watch = tokio::spawn(async move { watched.run(inventory_client).await });
    let (changes, changes_of) = mpsc::channel(CHANGES);
    let policies = tokio::spawn(policies::watch(
        quiet_client.clone(),
        readiness.clone(),
        changes,
    ));
    let (current, definitions) = watch::channel(false);
    let compared = tokio::spawn(definitions::watch(quiet_client, readiness.clone(), current));
    let publisher = Publisher::new(client.clone(), leadership.clone(), identity);
    let pollers = Pollers::with_pace(Arc::new(ledger.clone()), options.lookup_pace);
    let controller = Controller::new(
        client,
        ledger.clone(),
        pollers,
        inventory,
        publisher,
        leadership,
        metrics,
        board,
        readiness,
        definitions,
    );
    Box::pin(controller.run(changes_of, stop.clone())).await;

    // Only a signal ends the loop.
    inventory_watch.abort();
    compared.abort();
    policies.abort();
    let ended = timeout(END, async {
        // A task that failed has nothing left to end.
        let _ = campaign.await;
        let _ = gauge.await;
        let _ = admin.await;
        if let Some(page) = status_page {
            let _ = page.await;
        }
        ledger.close().await;
    });
    if ended.await.is_err() {
        tracing::warn!("not everything ended in time");
    }
    tracing::info!("ended");
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Listen { address, source })
}

/// Opens the ledger; waits for one that cannot be reached. None when told to stop meanwhile.
async fn open(
    options: &Options,
    readiness: &Readiness,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<Option<Ledger>, LedgerError> {
    let meter = gauge::meter(metrics);
    loop {
        let password = options.ledger_password.clone();
        match Ledger::open_metered(&options.ledger, password, meter.clone()).await {
            Ok(ledger) => {
                readiness.open(Gate::Ledger);
                return Ok(Some(ledger));
            }
            // A password may be on its way.
            Err(
                error @ (LedgerError::Unavailable(_)
                | LedgerError::Silent(_)
                | LedgerError::Locked(_)
                | LedgerError::AccessDenied(_)
                | LedgerError::PasswordFile { .. }),
            ) => {
                readiness.wait(Gate::Ledger, &error.to_string());
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = sleep(LEDGER_RETRY) => {}
        }
    }
}

/// `POD_NAME`, or what tells this process from others outside of a cluster.
fn identity() -> String {
    std::env::var("POD_NAME")
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| {
            let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "local".to_owned());
            format!("{host}-{}", std::process::id())
        })
}

/// A token that the first signal cancels.
fn stop_on_signal() -> Result<CancellationToken, RunError> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to end");
        told.cancel();
    });
    Ok(stop)
}
