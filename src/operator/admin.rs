//! The admin server: `/healthz`, `/readyz` and `/metrics` on one port.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::report::metrics::Metrics;

/// What has to be there before the operator can do its work. Back-fill is none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gate {
    /// The ledger is open.
    Ledger,
    /// The custom resources are defined, with every field that this version needs.
    Definitions,
    /// The policies were listed.
    Policies,
    /// The lease may be read and written, whoever holds it.
    Lease,
    /// Pods, nodes and namespaces are known.
    Inventory,
}

impl Gate {
    const ALL: [Self; 5] = [
        Self::Ledger,
        Self::Definitions,
        Self::Policies,
        Self::Lease,
        Self::Inventory,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::Definitions => "definitions",
            Self::Policies => "policies",
            Self::Lease => "lease",
            Self::Inventory => "inventory",
        }
    }
}

/// What `/readyz` tells. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    /// What each gate waits for; an open one waits for nothing.
    gates: Arc<RwLock<BTreeMap<Gate, Option<String>>>>,
}

impl Readiness {
    /// The gate is open.
    pub fn open(&self, gate: Gate) {
        self.set(gate, None);
    }

    /// The gate waits for something; logged when that is news.
    pub fn wait(&self, gate: Gate, why: &str) {
        self.set(gate, Some(why.to_owned()));
    }

    fn set(&self, gate: Gate, why: Option<String>) {
        let mut gates = self.gates.write().unwrap_or_else(PoisonError::into_inner);
        if gates.get(&gate) == Some(&why) {
            return;
        }
        if let Some(why) = &why {
            tracing::warn!(gate = gate.name(), %why, "not ready");
        } else {
            tracing::info!(gate = gate.name(), "ready");
        }
        gates.insert(gate, why);
    }

    /// Whether every gate is open.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.report().0
    }

    /// What is waited for, a line for each gate that is closed.
    pub(super) fn waits(&self) -> Vec<String> {
        let (_, lines) = self.report();
        let closed = lines.lines().filter(|line| !line.ends_with(": ok"));
        closed.map(str::to_owned).collect()
    }

    /// Each gate's name, and whether it is open.
    fn gates(&self) -> Vec<(&'static str, bool)> {
        let gates = self.gates.read().unwrap_or_else(PoisonError::into_inner);
        Gate::ALL
            .map(|gate| (gate.name(), matches!(gates.get(&gate), Some(None))))
            .into()
    }

    fn report(&self) -> (bool, String) {
        let gates = self.gates.read().unwrap_or_else(PoisonError::into_inner);
        let mut ready = true;
        let mut lines = String::new();
        for gate in Gate::ALL {
            let line = match gates.get(&gate) {
                Some(None) => "ok",
                Some(Some(why)) => {
                    ready = false;
                    why
                }
                None => {
                    ready = false;
                    "not synced yet"
                }
            };
            for part in [gate.name(), ": ", line, "\n"] {
                lines.push_str(part);
            }
        }
        (ready, lines)
    }
}

#[derive(Clone)]
struct Shared {
    readiness: Readiness,
    metrics: Metrics,
}

/// Serves until told to stop.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    metrics: Metrics,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(Shared { readiness, metrics });
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let (ready, lines) = shared.readiness.report();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, lines).into_response()
}

async fn scrape(State(shared): State<Shared>) -> Response {
    let gates = shared.readiness.gates();
    shared.metrics.process(|process| process.gates = gates);
    match shared.metrics.text() {
        Ok(text) => (
            [(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
