//! How much the ledger holds.

use sqlx::{AssertSqlSafe, Row as _};

use super::{Backend, Ledger, LedgerError, meter::Timed as _};

/// The tables that grow with what is read, or with time; the others are small.
const TABLES: [&str; 14] = [
    "pulls",
    "changes",
    "callers",
    "targets",
    "pullers",
    "repositories",
    "corrections",
    "superseded",
    "coverage_keys",
    "coverage",
    "unread_records",
    "nodes",
    "trail_files",
    "trail_gaps",
];

/// Those whose rows people ask for.
const COUNTED: [&str; 5] = [
    "pulls",
    "changes",
    "callers",
    "repositories",
    "unread_records",
];

impl Ledger {
    /// The bytes that the ledger's tables and indexes take, freed pages of a SQLite file included,
    /// its write-ahead log not. Costs next to nothing.
    pub async fn bytes(&self) -> Result<i64, LedgerError> {
        let sql = match self.backend() {
            Backend::Sqlite => {
                "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
                    .to_owned()
            }
            Backend::Postgres => {
                let names = TABLES.map(|name| format!("('{name}')")).join(",");
                format!(
                    "SELECT coalesce(sum(pg_total_relation_size(to_regclass(name))), 0)::bigint
                     FROM (VALUES {names}) AS tables(name)"
                )
            }
        };
        let row = sqlx::query(AssertSqlSafe(sql))
            .fetch_one(self.pool())
            .reads(self)
            .await?;
        Ok(row.try_get(0)?)
    }

    /// The rows of the tables that tell how much was read. Goes through an index of each, which
    /// takes a while where there are many.
    pub async fn rows(&self) -> Result<Vec<(&'static str, i64)>, LedgerError> {
        let mut counts = Vec::with_capacity(COUNTED.len());
        for table in COUNTED {
            let sql = format!("SELECT count(*) FROM {table}");
            let row = sqlx::query(AssertSqlSafe(sql))
                .fetch_one(self.pool())
                .reads(self)
                .await?;
            counts.push((table, row.try_get(0)?));
        }
        Ok(counts)
    }
}
