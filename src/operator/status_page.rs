//! The server of the status page, on loopback and nowhere else: it names every tenant's workloads
//! and principals, and asks nobody who he is. `kubectl port-forward` asks.
//!
//! A browser is not to be trusted with that: a page of somebody else could ask for `localhost`, or
//! for a name of its own that it lets point there. So requests that name another host are refused,
//! nothing may embed or read the answers, and the answers load nothing and run nothing.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Arc, PoisonError, RwLock},
};

use axum::{
    Router,
    extract::{RawQuery, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{admin::Readiness, lease::Leadership};
use crate::report::page::{STYLE, Snapshot, Standing, render};

/// Headers of every answer.
const HEADERS: [(HeaderName, HeaderValue); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
        ),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Where the loop leaves what it has judged. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Board {
    shown: bool,
    snapshot: Arc<RwLock<Option<Arc<Snapshot>>>>,
}

impl Board {
    /// A board that is empty; `shown` says whether anybody can see it.
    #[must_use]
    pub fn new(shown: bool) -> Self {
        Self {
            shown,
            snapshot: Arc::default(),
        }
    }

    /// Whether there is a page; else nothing has to be left here.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.shown
    }

    /// Replaces what is shown.
    pub fn set(&self, snapshot: Snapshot) {
        self.replace(Some(Arc::new(snapshot)));
    }

    /// Nothing is known here any more.
    pub fn clear(&self) {
        self.replace(None);
    }

    fn replace(&self, snapshot: Option<Arc<Snapshot>>) {
        *self
            .snapshot
            .write()
            .unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    fn get(&self) -> Option<Arc<Snapshot>> {
        self.snapshot
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What the page is made of.
#[derive(Clone, Debug)]
pub struct StatusPage {
    /// What was judged.
    pub board: Board,
    /// Who leads.
    pub leadership: Leadership,
    /// What is waited for.
    pub readiness: Readiness,
    /// The name of this process.
    pub identity: String,
    /// Its namespace.
    pub namespace: String,
}

/// Serves until told to stop.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    page: StatusPage,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!(url = %format_args!("http://{address}/"), "status page");
    let router = Router::new()
        .route("/", get(show))
        .route("/status.css", get(style))
        .with_state((page, address.port()))
        .layer(middleware::from_fn(guard));
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn show(
    State((page, port)): State<(StatusPage, u16)>,
    RawQuery(query): RawQuery,
) -> Response {
    let standing = if page.leadership.is_held() {
        Standing::Leads(page.board.get())
    } else {
        Standing::StandsBy {
            leader: page.leadership.holder(),
            namespace: page.namespace.clone(),
            port,
        }
    };
    let refresh = query.as_deref() == Some("refresh");
    let waits = page.readiness.waits();
    match render(&standing, &page.identity, &waits, refresh, Timestamp::now()) {
        Ok(html) => Html(html).into_response(),
        Err(error) => {
            tracing::error!(%error, "the status page cannot be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE)
}

/// Refuses requests that were meant for another host, and gives every answer its headers.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = if is_for_this_host(request.uri(), request.headers()) {
        next.run(request).await
    } else {
        (
            StatusCode::MISDIRECTED_REQUEST,
            "This page answers to localhost only: use kubectl port-forward.\n",
        )
            .into_response()
    };
    response.headers_mut().extend(HEADERS);
    response
}

/// Whether a request names this host by an address or name that cannot be somebody else's.
fn is_for_this_host(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut named = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (named.next(), named.next()) else {
        return false;
    };
    host.to_str().is_ok_and(is_loopback) && uri.host().is_none_or(is_loopback)
}

fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
    let v6 = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    is_port
        && (name.eq_ignore_ascii_case("localhost")
            || name.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback())
            || v6.is_some_and(|v6| v6.parse().is_ok_and(|ip: Ipv6Addr| ip.is_loopback())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(host: &str, uri: &str) -> bool {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_str(host).unwrap())]);
        is_for_this_host(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn a_name_that_only_points_here_is_refused() {
        for host in [
            "localhost",
            "LocalHost:8081",
            "127.0.0.1:8081",
            "[::1]:8081",
            "[::1]",
        ] {
            assert!(asks(host, "/"), "{host}");
        }
        for host in [
            "evil.example:8081",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.7:8081",
            "localhost:80@evil.example",
            "",
            "::1",
        ] {
            assert!(!asks(host, "/"), "{host}");
        }
        assert!(!asks("localhost", "http://evil.example/"));
        assert!(asks("localhost", "http://localhost:8081/"));
        assert!(!is_for_this_host(&Uri::from_static("/"), &HeaderMap::new()));
    }
}
