//! From the text that names a ledger to a pool of connections.

use std::{
    fs,
    path::PathBuf,
    str::FromStr as _,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

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
/// foreign keys would look each of them up once more. The log is written back after 16 MiB, not 4:
/// what many pages of a back-fill add to the same places is then written back once.
const SQLITE_SETTINGS: &str = "
    PRAGMA busy_timeout = 10000;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = OFF;
    PRAGMA cache_size = -8192;
    PRAGMA temp_store = MEMORY;
    PRAGMA wal_autocheckpoint = 4096;
    PRAGMA journal_size_limit = 67108864;";

/// Settings of each PostgreSQL connection: no statement of ours takes that long, and one that waits
/// for a client that is gone, or for its locks, must not hold up the others.
const POSTGRES_SETTINGS: &str = "
    SET statement_timeout = '50s';
    SET idle_in_transaction_session_timeout = '60s'";

/// How often the file with the password is looked at.
const LOOK: Duration = Duration::from_secs(1);

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

/// A password that stands in a file of its own, which somebody may replace at any time.
#[derive(Debug)]
pub(super) struct PasswordFile {
    file: PathBuf,
    /// What connections are made with, but for the password.
    options: AnyConnectOptions,
    /// When it was looked at last, and what was there.
    last: Mutex<(Instant, String)>,
}

impl PasswordFile {
    fn new(file: PathBuf, options: AnyConnectOptions) -> Result<Self, LedgerError> {
        let password = read_password(&file)?;
        Ok(Self {
            file,
            options,
            last: Mutex::new((Instant::now(), password)),
        })
    }

    fn options(&self, password: &str) -> Result<AnyConnectOptions, LedgerError> {
        let mut options = self.options.clone();
        // The URL's own encoding takes a percent sign for one that is encoded already.
        let password = password.replace('%', "%25");
        match options.database_url.set_password(Some(&password)) {
            Ok(()) => Ok(options),
            Err(()) => Err(LedgerError::Address {
                reason: "a URL that can have no password".to_owned(),
            }),
        }
    }

    /// Has the pool connect with the password that is in the file now.
    pub(super) fn refresh(&self, pool: &AnyPool) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0.elapsed() < LOOK {
            return;
        }
        last.0 = Instant::now();
        // One that is just being replaced is there a moment later.
        if let Ok(password) = read_password(&self.file)
            && password != last.1
            && let Ok(options) = self.options(&password)
        {
            tracing::info!("the ledger's password has changed");
            pool.set_connect_options(options);
            last.1 = password;
        }
    }
}

/// The file's text without the end of its line, which editors add.
fn read_password(file: &PathBuf) -> Result<String, LedgerError> {
    let text = fs::read_to_string(file).map_err(|error| LedgerError::PasswordFile {
        file: file.display().to_string(),
        reason: error.kind().to_string(),
    })?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// A pool, which database it is of, and where its password comes from if not from the text.
pub(super) async fn connect(
    text: &str,
    password: Option<PathBuf>,
) -> Result<(AnyPool, Backend, Option<PasswordFile>), LedgerError> {
    sqlx::any::install_default_drivers();
    let (url, backend) = address(text)?;
    let mut options = AnyConnectOptions::from_str(&url)
        .map_err(|_| LedgerError::Address {
            reason: "a malformed URL".to_owned(),
        })?
        .disable_statement_logging();
    let password = match password.filter(|_| backend == Backend::Postgres) {
        Some(file) => {
            let password = PasswordFile::new(file.clone(), options)?;
            options = password.options(&read_password(&file)?)?;
            Some(password)
        }
        None => None,
    };
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
    Ok((pool, backend, password))
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
    let settings = match backend {
        Backend::Sqlite => SQLITE_SETTINGS,
        Backend::Postgres => POSTGRES_SETTINGS,
    };
    sqlx::raw_sql(settings).execute(connection).await?;
    Ok(())
}
