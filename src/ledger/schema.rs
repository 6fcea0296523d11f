//! The tables, and how an older ledger becomes a current one.
//!
//! The rule for migrations: **they only add.** A new version adds tables, columns with defaults
//! and indexes, and leaves what exists as it is, so that during a rolling update the old version
//! keeps working on the migrated ledger. `needs` in `schema_version` stays at the oldest version
//! that may still do so; it rises only when an addition must be understood to read facts rightly.

use sqlx::{AnyPool, Row as _};

use super::{Backend, LedgerError};

/// The schema's version that this program writes.
pub const SCHEMA_VERSION: i64 = 1;

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
}

const SQLITE: Words = Words {
    id: "INTEGER PRIMARY KEY AUTOINCREMENT",
    blob: "BLOB",
    clustered: "WITHOUT ROWID",
};

const POSTGRES: Words = Words {
    id: "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    blob: "BYTEA",
    clustered: "",
};

#[expect(clippy::too_many_lines, reason = "a list of tables")]
/// Version 1. Times are seconds since 1970 (UTC); a text or blob that does not apply is empty.
fn version_1(words: &Words) -> String {
    let Words {
        id,
        blob,
        clustered,
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
    event TEXT NOT NULL
);
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
    if version < 1 {
        sqlx::raw_sql(sqlx::AssertSqlSafe(version_1(words)))
            .execute(&mut *transaction)
            .await?;
        sqlx::query("INSERT INTO schema_version (version, needs) VALUES ($1, $2)")
            .bind(SCHEMA_VERSION)
            .bind(NEEDS)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(())
}
