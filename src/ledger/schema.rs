//! The tables, and how an older ledger becomes a current one.
//!
//! The rule for migrations: **they only add.** A new version adds tables, columns with defaults
//! and indexes, and leaves what exists as it is, so that during a rolling update the old version
//! keeps working on the migrated ledger. `needs` in `schema_version` stays at the oldest version
//! that may still do so; it rises only when an addition must be understood to read facts rightly.

use sqlx::{AnyPool, Row as _};

use super::{
    Backend, LedgerError,
    append::{DENIED, INSTANCE, NAMES_ARN},
};

/// The schema's version that this program writes.
pub const SCHEMA_VERSION: i64 = 3;

/// The oldest version of the schema that a program must know to work with this one.
const NEEDS: i64 = 1;

/// Serializes migrations of replicas that start together (PostgreSQL); an arbitrary number.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock(7310468522901)";

/// One database's words for the same things.
struct Words {
    /// A column that numbers its rows, and never gives a number twice.
    id: &'static str,
    blob: &'static str,
    /// Ends a table that is stored in the order of its primary key.
    clustered: &'static str,
    /// The seconds in `time` as RFC 3339 has them.
    time: &'static str,
    /// The bytes in `event_id` in hexadecimal.
    event_id: &'static str,
    /// Every image that a lifecycle run `c` acted on, as JSON in `each_image.value`.
    images: &'static str,
    /// Fields of that JSON.
    digest: &'static str,
    effect: &'static str,
    priority: &'static str,
    description: &'static str,
}

const SQLITE: Words = Words {
    id: "INTEGER PRIMARY KEY AUTOINCREMENT",
    blob: "BLOB",
    clustered: "WITHOUT ROWID",
    time: "strftime('%Y-%m-%dT%H:%M:%SZ', time, 'unixepoch')",
    event_id: "lower(hex(event_id))",
    images: "json_each(c.event, '$.action.LifecycleRun') AS each_image",
    digest: "each_image.value ->> '$.digest'",
    effect: "each_image.value ->> '$.effect'",
    priority: "each_image.value ->> '$.rule.priority'",
    description: "each_image.value ->> '$.rule.description'",
};

const POSTGRES: Words = Words {
    id: "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    blob: "BYTEA",
    clustered: "",
    time: "to_char(to_timestamp(time) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
    event_id: "encode(event_id, 'hex')",
    // PostgreSQL's JSON has no NUL.
    images: "jsonb_array_elements(replace(c.event, '\\u0000', '\\ufffd')::jsonb
             -> 'action' -> 'LifecycleRun') AS each_image(value)",
    digest: "each_image.value ->> 'digest'",
    effect: "each_image.value ->> 'effect'",
    priority: "(each_image.value -> 'rule' ->> 'priority')::bigint",
    description: "each_image.value -> 'rule' ->> 'description'",
};

#[expect(clippy::too_many_lines, reason = "a list of tables")]
/// Version 1. Times are seconds since 1970 (UTC); a text or blob that does not apply is empty.
fn version_1(words: &Words) -> String {
    let Words {
        id,
        blob,
        clustered,
        ..
    } = words;
    format!(
        "
CREATE TABLE repositories (
    id {id},
    digest {blob} NOT NULL UNIQUE,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL
);
CREATE TABLE callers (
    id {id},
    digest {blob} NOT NULL UNIQUE,
    principal TEXT NOT NULL,
    type TEXT NOT NULL,
    account TEXT NOT NULL,
    service TEXT NOT NULL,
    session TEXT NOT NULL,
    arn TEXT NOT NULL
);
CREATE TABLE targets (
    id {id},
    digest {blob} NOT NULL UNIQUE,
    repository BIGINT NOT NULL,
    by_tag BIGINT NOT NULL,
    images TEXT NOT NULL
);
CREATE INDEX targets_by_repository ON targets (repository, by_tag);
CREATE TABLE pulls (
    repository BIGINT NOT NULL,
    time BIGINT NOT NULL,
    call_id {blob} NOT NULL,
    event_id {blob} NOT NULL,
    caller BIGINT NOT NULL,
    target BIGINT NOT NULL,
    flags BIGINT NOT NULL,
    PRIMARY KEY (repository, time, call_id, event_id)
) {clustered};
CREATE TABLE pullers (
    repository BIGINT NOT NULL,
    caller BIGINT NOT NULL,
    PRIMARY KEY (repository, caller)
) {clustered};
CREATE TABLE changes (
    event_id {blob} NOT NULL PRIMARY KEY,
    call_id {blob} NOT NULL,
    repository BIGINT NOT NULL,
    time BIGINT NOT NULL,
    name TEXT NOT NULL,
    principal TEXT NOT NULL,
    flags BIGINT NOT NULL,
    event TEXT NOT NULL
);
CREATE INDEX changes_by_call ON changes (call_id);
CREATE INDEX changes_by_repository ON changes (repository, time);
CREATE TABLE corrections (
    replaces {blob} NOT NULL,
    event_id {blob} NOT NULL,
    own_id {blob} NOT NULL,
    PRIMARY KEY (replaces, event_id)
) {clustered};
CREATE INDEX corrections_by_own_id ON corrections (own_id);
CREATE TABLE superseded (
    event_id {blob} NOT NULL PRIMARY KEY
) {clustered};
CREATE TABLE coverage_keys (
    id {id},
    digest {blob} NOT NULL UNIQUE,
    source TEXT NOT NULL,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    settled BIGINT NOT NULL,
    writes BIGINT NOT NULL
);
CREATE TABLE coverage (
    key BIGINT NOT NULL,
    start_time BIGINT NOT NULL,
    end_time BIGINT NOT NULL,
    PRIMARY KEY (key, start_time)
) {clustered};
CREATE TABLE unread_records (
    digest {blob} NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    source TEXT NOT NULL,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    time BIGINT NOT NULL,
    reason TEXT NOT NULL,
    text TEXT NOT NULL
) {clustered};
CREATE INDEX unread_records_by_place ON unread_records (account, region, kind, time);
CREATE TABLE nodes (
    cluster TEXT NOT NULL,
    instance TEXT NOT NULL,
    first_seen BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    PRIMARY KEY (cluster, instance)
) {clustered};
CREATE TABLE state (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
INSERT INTO state (key, value) VALUES ('corrections', '');
"
    )
}

/// Whether a row `p` of `pulls` or `changes` counts: nothing replaced it, and no better copy of
/// its call is there. A copy that names the caller by ARN is better; of two alike, the one with
/// the smaller event id.
pub(super) fn counts(table: &str) -> String {
    // Of a pull without copies the event's id is the call's, and is not stored a second time.
    let key = |row: &str| {
        format!("CASE WHEN length({row}.event_id) = 0 THEN {row}.call_id ELSE {row}.event_id END")
    };
    let superseded = |row: &str| {
        format!(
            "EXISTS (SELECT 1 FROM superseded s WHERE s.event_id = {})",
            key(row)
        )
    };
    let same_time = match table {
        "pulls" => "q.time = p.time AND",
        _ => "",
    };
    format!(
        "NOT {replaced} AND (length(p.event_id) = 0 OR NOT EXISTS (
             SELECT 1 FROM {table} q
             WHERE q.repository = p.repository AND {same_time} q.call_id = p.call_id
               AND q.event_id <> p.event_id
               AND ((q.flags & {NAMES_ARN}) > (p.flags & {NAMES_ARN})
                    OR ((q.flags & {NAMES_ARN}) = (p.flags & {NAMES_ARN})
                        AND {other} < {own}))
               AND NOT {other_replaced}))",
        replaced = superseded("p"),
        other = key("q"),
        own = key("p"),
        other_replaced = superseded("q"),
    )
}

/// The views of version 1, for people.
fn views_1(words: &Words) -> String {
    let Words {
        time,
        event_id,
        images,
        digest,
        effect,
        priority,
        description,
        ..
    } = words;
    let pulls = counts("pulls");
    let changes = counts("changes");
    format!(
        "
CREATE VIEW pull_history AS
SELECT time, {time} AS at, account, region, repository, images, principal, principal_type,
       principal_account, service, session, denied, {event_id} AS event_id
FROM (SELECT p.time AS time, r.account AS account, r.region AS region, r.name AS repository,
             t.images AS images, c.principal AS principal, c.type AS principal_type,
             c.account AS principal_account, c.service AS service, c.session AS session,
             p.flags & {DENIED} AS denied,
             CASE WHEN length(p.event_id) = 0 THEN p.call_id ELSE p.event_id END AS event_id
      FROM pulls p
      JOIN repositories r ON r.id = p.repository
      JOIN targets t ON t.id = p.target
      JOIN callers c ON c.id = p.caller
      WHERE {pulls}) AS counted;
CREATE VIEW change_history AS
SELECT time, {time} AS at, account, region, repository, name, principal, denied,
       {event_id} AS event_id, event
FROM (SELECT p.time AS time, r.account AS account, r.region AS region, r.name AS repository,
             p.name AS name, p.principal AS principal, p.flags & {DENIED} AS denied,
             p.event_id AS event_id, p.event AS event
      FROM changes p
      JOIN repositories r ON r.id = p.repository
      WHERE {changes}) AS counted;
CREATE VIEW expired_images AS
SELECT c.time AS time, c.at AS at, c.account AS account, c.region AS region,
       c.repository AS repository, {digest} AS digest, {effect} AS effect,
       {priority} AS rule_priority, {description} AS rule_description, c.event_id AS event_id
FROM change_history c, {images}
WHERE c.name = 'PolicyExecutionEvent' AND {effect} <> 'Kept';
CREATE VIEW evidence AS
SELECT source, account, region, name, settled, start_time, end_time
FROM coverage JOIN coverage_keys ON coverage_keys.id = coverage.key;
"
    )
}

/// What version 2 adds: the files of trails, and what of them is missing. `place` is the id of the
/// row of `coverage_keys` that says which delivery time was read.
fn version_2(words: &Words) -> String {
    let Words {
        blob, clustered, ..
    } = words;
    format!(
        "
CREATE TABLE trail_files (
    place BIGINT NOT NULL,
    time BIGINT NOT NULL,
    name TEXT NOT NULL,
    hash {blob} NOT NULL,
    read_time BIGINT NOT NULL,
    PRIMARY KEY (place, time, name)
) {clustered};
CREATE TABLE trail_gaps (
    place BIGINT NOT NULL,
    name TEXT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    start_time BIGINT NOT NULL,
    end_time BIGINT NOT NULL,
    PRIMARY KEY (place, name)
) {clustered};
"
    )
}

/// What version 3 adds: the way to the few pulls that are not of nodes, past the many that are.
fn version_3() -> String {
    format!(
        "CREATE INDEX pulls_by_caller ON pulls (repository, caller, time)
         WHERE (flags & {INSTANCE}) = 0;"
    )
}

pub(super) async fn migrate(pool: &AnyPool, backend: Backend) -> Result<(), LedgerError> {
    let words = match backend {
        Backend::Sqlite => &SQLITE,
        Backend::Postgres => &POSTGRES,
    };
    let mut transaction = pool.begin_with(backend.begin_write()).await?;
    if backend == Backend::Postgres {
        sqlx::raw_sql(MIGRATION_LOCK)
            .execute(&mut *transaction)
            .await?;
    }
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL, needs BIGINT NOT NULL)",
    )
    .execute(&mut *transaction)
    .await?;
    let row = sqlx::query("SELECT version, needs FROM schema_version")
        .fetch_optional(&mut *transaction)
        .await?;
    let (version, needs) = match &row {
        Some(row) => (row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?),
        None => (0, 0),
    };
    if needs > SCHEMA_VERSION {
        return Err(LedgerError::NewerVersion {
            found: version,
            needed: needs,
            known: SCHEMA_VERSION,
        });
    }
    if version >= SCHEMA_VERSION {
        transaction.rollback().await?;
        return Ok(());
    }
    let steps = [
        (1, [version_1(words), views_1(words)].concat()),
        (2, version_2(words)),
        (3, version_3()),
    ];
    for (_, step) in steps.into_iter().filter(|(to, _)| version < *to) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(step))
            .execute(&mut *transaction)
            .await?;
    }
    let record = if version == 0 {
        "INSERT INTO schema_version (version, needs) VALUES ($1, $2)"
    } else {
        "UPDATE schema_version SET version = $1, needs = CASE WHEN needs > $2 THEN needs ELSE $2 END"
    };
    sqlx::query(record)
        .bind(SCHEMA_VERSION)
        .bind(NEEDS)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}
