//! `/_replay/…`: the server's own endpoints, to tell it what happens next.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Query, State},
    http::StatusCode,
    response::IntoResponse,
    routing::get,
};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Server, faults::Fault, records, stats::Stats};

/// The largest text that is taken in one request.
const MAX_BODY: usize = 512 << 20;

pub(crate) fn routes() -> Router<Arc<Server>> {
    let records = get(count_records).post(add_records).delete(clear_records);
    Router::new()
        .route("/_replay/records", records)
        .route("/_replay/faults", get(show_faults).put(set_faults))
        .route(
            "/_replay/external-ids",
            axum::routing::put(set_external_ids),
        )
        .route("/_replay/stats", get(show_stats).delete(clear_stats))
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

type Refused = (StatusCode, Json<Value>);

fn refused(error: impl std::fmt::Display) -> Refused {
    (
        StatusCode::BAD_REQUEST,
        Json(json!({"error": error.to_string()})),
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Added {
    /// The moment that the records take for now: every time in them is moved by what has
    /// passed since.
    #[serde(rename = "asOf")]
    as_of: Option<Timestamp>,
}

async fn add_records(
    State(server): State<Arc<Server>>,
    Query(added): Query<Added>,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    let now = server.now();
    let shift = shift(added.as_of, now);
    let given = records::read_text(&body, shift).map_err(refused)?;
    let count = server.state().history.add(given, now).map_err(refused)?;
    Ok(Json(json!({"added": count})))
}

/// How far times move, in whole seconds: `eventTime` has no fraction.
pub(crate) fn shift(as_of: Option<Timestamp>, now: Timestamp) -> SignedDuration {
    as_of.map_or(SignedDuration::ZERO, |as_of| {
        SignedDuration::from_secs(now.as_second() - as_of.as_second())
    })
}

async fn count_records(State(server): State<Arc<Server>>) -> Json<Value> {
    let state = server.state();
    let counts: Vec<Value> = (state.history.counts().into_iter())
        .map(|(place, records)| {
            json!({"account": place.account, "region": place.region, "records": records})
        })
        .collect();
    Json(counts.into())
}

async fn clear_records(State(server): State<Arc<Server>>) -> StatusCode {
    server.state().history.clear();
    StatusCode::NO_CONTENT
}

async fn show_faults(State(server): State<Arc<Server>>) -> Json<Vec<Fault>> {
    Json(server.state().faults.0.clone())
}

/// Replaces every fault. Read by hand, so that no content type is needed.
async fn set_faults(State(server): State<Arc<Server>>, body: Bytes) -> Result<StatusCode, Refused> {
    let faults: Vec<Fault> = serde_json::from_slice(&body).map_err(refused)?;
    server.state().faults.0 = faults;
    Ok(StatusCode::NO_CONTENT)
}

/// Replaces what roles ask for: role ARN → external id.
async fn set_external_ids(
    State(server): State<Arc<Server>>,
    body: Bytes,
) -> Result<StatusCode, Refused> {
    let ids: BTreeMap<String, String> = serde_json::from_slice(&body).map_err(refused)?;
    server.state().external_ids = ids;
    Ok(StatusCode::NO_CONTENT)
}

async fn show_stats(State(server): State<Arc<Server>>) -> impl IntoResponse {
    Json(json!(server.state().stats.report()))
}

async fn clear_stats(State(server): State<Arc<Server>>) -> StatusCode {
    server.state().stats = Stats::default();
    StatusCode::NO_CONTENT
}
