//! Durable facts and coverage, in SQLite or PostgreSQL, through sqlx.
//!
//! Facts are only ever added. What a record says is stored under the record's own identity
//! (`eventID`, and `sharedEventID` where CloudTrail logs one call in two accounts), so a page that
//! is read again, by this process or another one, adds nothing. Which of several copies counts,
//! and what a correction replaced, is decided when facts are read: the answer depends on the set
//! of records, never on their order. A page's facts and the time it covers are one transaction.
//!
//! Both databases run the same statements; only the schema's DDL and a few settings differ.
//! `docs/ledger.md` describes the tables and views for those who query them.

mod append;
mod connect;
mod coverage;
mod cursor;
mod error;
mod intern;
mod key;
mod measure;
mod meter;
mod read;
mod remember;
mod schema;
mod statement;
mod store;
mod touched;
mod trail;

use std::{path::PathBuf, sync::Arc, time::Duration};

use sqlx::{Any, AnyPool, Transaction};
use tokio::{sync::Mutex, time::timeout};

pub use append::{Appended, Page, Undecodable};
pub use connect::Backend;
pub use coverage::Coverage;
pub use cursor::Cursor;
pub use error::LedgerError;
pub(crate) use key::pack;
pub use meter::{Meter, Operation};
pub use read::{CallerId, TagTarget, TargetId};
pub use remember::{KeptRecord, UnreadCount};
pub use schema::SCHEMA_VERSION;

use connect::PasswordFile;
use intern::Interned;
use meter::{Metered, Unmetered, metered};

/// How long the database may take to answer. A server behind a network that lets nothing through
/// would be waited for for ever; PostgreSQL itself ends statements before.
const ANSWER: Duration = Duration::from_mins(1);

/// The ledger: a pool of connections to one database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: AnyPool,
    backend: Backend,
    password: Option<PasswordFile>,
    /// SQLite has one writer; waiting here is fair, waiting at its lock is not.
    writer: Mutex<()>,
    /// Ids of what committed transactions have stored.
    interned: Interned,
    meter: Metered,
}

impl Ledger {
    /// Opens the ledger at a file's path, `sqlite://FILE` or `postgres://…`, and brings its schema
    /// up to this version.
    ///
    /// A path that does not exist becomes a new, empty ledger; its folder must exist.
    pub async fn open(url: &str) -> Result<Self, LedgerError> {
        Self::open_with(url, None).await
    }

    /// The same, with the password of PostgreSQL from a file. It is read again for new connections:
    /// a password can be changed while this runs.
    pub async fn open_with(url: &str, password: Option<PathBuf>) -> Result<Self, LedgerError> {
        Self::open_metered(url, password, Arc::new(Unmetered)).await
    }

    /// The same, with a meter that is told of everything the ledger does, opening included.
    pub async fn open_metered(
        url: &str,
        password: Option<PathBuf>,
        meter: Arc<dyn Meter>,
    ) -> Result<Self, LedgerError> {
        let opened = Self::open_now(url, password, Metered(meter.clone()));
        metered(&*meter, Operation::Open, opened).await
    }

    async fn open_now(
        url: &str,
        password: Option<PathBuf>,
        meter: Metered,
    ) -> Result<Self, LedgerError> {
        let (pool, backend, password) = connect::connect(url, password).await?;
        schema::migrate(&pool, backend).in_time().await?;
        Ok(Self {
            inner: Arc::new(Inner {
                pool,
                backend,
                password,
                writer: Mutex::new(()),
                interned: Interned::new(backend),
                meter,
            }),
        })
    }

    /// Which database this is.
    pub fn backend(&self) -> Backend {
        self.inner.backend
    }

    /// Ends all connections, after what is running has finished.
    pub async fn close(&self) {
        self.inner.pool.close().await;
    }

    fn pool(&self) -> &AnyPool {
        if let Some(password) = &self.inner.password {
            password.refresh(&self.inner.pool);
        }
        &self.inner.pool
    }

    /// Begins a transaction that will write.
    async fn begin(&self) -> Result<Transaction<'static, Any>, LedgerError> {
        self.pool()
            .begin_with(self.backend().begin_write())
            .in_time()
            .await
    }

    /// Held while a transaction writes, where the database lets only one do so.
    async fn write_turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        match self.backend() {
            Backend::Sqlite => Some(self.inner.writer.lock().await),
            Backend::Postgres => None,
        }
    }
}

/// How long the page of a large file may take.
const APPEND: Duration = Duration::from_mins(5);

/// Waits for the database, but not for ever.
trait InTime: Sized {
    /// What it answers.
    type Answer;
    fn within(
        self,
        limit: Duration,
    ) -> impl Future<Output = Result<Self::Answer, LedgerError>> + Send;
    fn in_time(self) -> impl Future<Output = Result<Self::Answer, LedgerError>> + Send {
        self.within(ANSWER)
    }
}

impl<T, E, F> InTime for F
where
    F: Future<Output = Result<T, E>> + Send,
    LedgerError: From<E>,
{
    type Answer = T;
    async fn within(self, limit: Duration) -> Result<T, LedgerError> {
        match timeout(limit, self).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(LedgerError::Silent(limit.as_secs())),
        }
    }
}
