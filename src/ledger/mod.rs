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
mod error;
mod intern;
mod key;
mod read;
mod remember;
mod schema;
mod statement;
mod store;
mod touched;
mod trail;

use std::sync::Arc;

use sqlx::{Any, AnyPool, Transaction};
use tokio::sync::Mutex;

pub use append::{Appended, Page, Undecodable};
pub use connect::Backend;
pub use coverage::Coverage;
pub use error::LedgerError;
pub use read::{CallerId, TagTarget, TargetId};
pub use remember::{KeptRecord, UnreadCount};
pub use schema::SCHEMA_VERSION;

use intern::Interned;

/// The ledger: a pool of connections to one database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: AnyPool,
    backend: Backend,
    /// SQLite has one writer; waiting here is fair, waiting at its lock is not.
    writer: Mutex<()>,
    /// Ids of what committed transactions have stored.
    interned: Interned,
}

impl Ledger {
    /// Opens the ledger at a file's path, `sqlite://FILE` or `postgres://…`, and brings its schema
    /// up to this version.
    ///
    /// A path that does not exist becomes a new, empty ledger; its folder must exist.
    pub async fn open(url: &str) -> Result<Self, LedgerError> {
        let (pool, backend) = connect::connect(url).await?;
        schema::migrate(&pool, backend).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                pool,
                backend,
                writer: Mutex::new(()),
                interned: Interned::default(),
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
        &self.inner.pool
    }

    /// Begins a transaction that will write.
    async fn begin(&self) -> Result<Transaction<'static, Any>, LedgerError> {
        Ok(self.pool().begin_with(self.backend().begin_write()).await?)
    }

    /// Held while a transaction writes, where the database lets only one do so.
    async fn write_turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        match self.backend() {
            Backend::Sqlite => Some(self.inner.writer.lock().await),
            Backend::Postgres => None,
        }
    }
}
