//! A new, empty ledger of either kind.

use ecr_audit::ledger::Ledger;
use tempfile::TempDir;

use crate::support::Postgres;

/// Where a test's ledger lives. Dropping it removes a file; a server's database goes with the
/// server.
pub(crate) struct Database {
    pub(crate) url: String,
    folder: Option<TempDir>,
}

impl Database {
    pub(crate) fn sqlite() -> Self {
        let folder = TempDir::new().unwrap();
        Self {
            url: folder.path().join("ledger.db").display().to_string(),
            folder: Some(folder),
        }
    }

    pub(crate) async fn postgres() -> Self {
        Self {
            url: Postgres::shared().await.database().await,
            folder: None,
        }
    }

    /// Another empty one of the same kind.
    pub(crate) async fn another(&self) -> Self {
        match self.folder {
            Some(_) => Self::sqlite(),
            None => Self::postgres().await,
        }
    }

    pub(crate) async fn open(&self) -> Ledger {
        Ledger::open(&self.url).await.unwrap()
    }
}

/// Runs each of these functions on an empty database of both kinds.
macro_rules! on_both {
    ($($promise:ident),* $(,)?) => {
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $promise() {
                    super::$promise(crate::database::Database::sqlite()).await;
                }
            )*
        }
        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $promise() {
                    super::$promise(crate::database::Database::postgres().await).await;
                }
            )*
        }
    };
}
pub(crate) use on_both;
