//! From the text that names a ledger to a pool of connections.

use std::{str::FromStr as _, time::Duration};

use sqlx::{
    AnyConnection, AnyPool, ConnectOptions as _, Connection as _,
    any::{AnyConnectOptions, AnyPoolOptions},
};

use super::LedgerError;

/// The databases that a ledger can live in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A file, for one process.
    Sqlite,
    /// A server that several replicas or clusters share.
    Postgres,
}

/// Settings of each SQLite connection.
///
/// `synchronous = FULL` makes a commit survive a power loss, too: a source may acknowledge a
/// message as soon as its facts are committed. Ids are checked by the code that interns them;
/// foreign keys would look each of them up once more.
const SQLITE_SETTINGS: &str = "
    PRAGMA busy_timeout = 10000;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = OFF;
    PRAGMA cache_size = -8192;
    PRAGMA temp_store = MEMORY;
    PRAGMA journal_size_limit = 67108864;";

/// How long a connection may take, or one of the pool may be busy.
const MOST_WAIT: Duration = Duration::from_secs(10);

impl Backend {
    /// Begins a transaction that writes. SQLite takes its write lock at once: a transaction that
    /// begins as a reader and then finds another writer can only fail.
    pub(super) const fn begin_write(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }
}

/// The URL for sqlx, and which database it names.
fn address(text: &str) -> Result<(String, Backend), LedgerError> {
    let invalid = |reason: &str| LedgerError::Address {
        reason: reason.to_owned(),
    };
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return Ok((text.to_owned(), Backend::Postgres));
    }
    let path = match text.split_once("://") {
        Some(("sqlite" | "file", path)) => path,
        Some(_) => return Err(invalid("an unknown kind of URL")),
        None => text.strip_prefix("sqlite:").unwrap_or(text),
    };
    if path.is_empty() {
        return Err(invalid("no file is named"));
    }
    // sqlx decodes percent signs and takes what follows `?` for options: keep the path literal.
    let mut literal = String::with_capacity(path.len());
    for character in path.chars() {
        match character {
            '%' => literal.push_str("%25"),
            '?' => literal.push_str("%3F"),
            '#' => literal.push_str("%23"),
            other => literal.push(other),
        }
    }
    Ok((format!("sqlite:{literal}?mode=rwc"), Backend::Sqlite))
}

pub(super) async fn connect(text: &str) -> Result<(AnyPool, Backend), LedgerError> {
    sqlx::any::install_default_drivers();
    let (url, backend) = address(text)?;
    let options = AnyConnectOptions::from_str(&url)
        .map_err(|_| LedgerError::Address {
            reason: "a malformed URL".to_owned(),
        })?
        .disable_statement_logging();
    // One connection first, outside the pool: a pool tries again and again, and in the end reports
    // that it took too long.
    let mut first = tokio::time::timeout(MOST_WAIT, options.connect())
        .await
        .map_err(|_| sqlx::Error::PoolTimedOut)??;
    set_up(backend, &mut first).await?;
    first.close().await?;

    let pool = AnyPoolOptions::new()
        .max_connections(match backend {
            Backend::Sqlite => 4,
            Backend::Postgres => 8,
        })
        .acquire_timeout(MOST_WAIT)
        // A file does not go away; a server's connection does, and is then replaced unseen.
        .test_before_acquire(backend == Backend::Postgres)
        .before_acquire(|connection, _| Box::pin(is_free(connection)))
        .after_connect(move |connection, _| Box::pin(set_up(backend, connection)))
        .connect_lazy_with(options);
    Ok((pool, backend))
}

/// Whether a connection is in no transaction. A full disk makes SQLite roll back by itself; sqlx
/// then rolls back in vain, and believes for ever that the transaction is open. Such a connection
/// is replaced.
async fn is_free(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    if connection.is_in_transaction() {
        // A rollback may still be under way; what comes after it waits for it.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

async fn set_up(backend: Backend, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    if backend == Backend::Sqlite {
        sqlx::raw_sql(SQLITE_SETTINGS).execute(connection).await?;
    }
    Ok(())
}
