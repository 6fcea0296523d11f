//! Which repositories got new facts, for the processes that did not bring them.
//!
//! Where several processes share a database, the one that judges is not always the one that reads:
//! each append counts up its repositories' numbers, in the same transaction.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Any, AssertSqlSafe, Row as _, Transaction};

use super::{
    Ledger, LedgerError,
    connect::Backend,
    meter::Timed as _,
    statement::{rows, slices, storable},
};
use crate::event::Repository;

/// What the keys in `state` begin with.
const PREFIX: &str = "touched/";

fn key(repository: &Repository) -> String {
    let Repository {
        account,
        region,
        name,
    } = repository;
    storable(&format!("{PREFIX}{account}/{region}/{name}"))
}

fn repository(key: &str) -> Option<Repository> {
    let mut parts = key.strip_prefix(PREFIX)?.splitn(3, '/');
    Some(Repository {
        account: parts.next()?.into(),
        region: parts.next()?.into(),
        name: parts.next()?.into(),
    })
}

/// Counts these up.
pub(super) async fn touch(
    backend: Backend,
    repositories: &BTreeSet<Repository>,
    transaction: &mut Transaction<'static, Any>,
) -> Result<(), LedgerError> {
    if backend == Backend::Sqlite {
        // A file has one process, which knows what it does.
        return Ok(());
    }
    // In order: two writers of the same rows do not wait for each other in a circle. And at once,
    // with nothing to come but the commit: they are the same rows for all that read one fleet.
    let keys: BTreeSet<String> = repositories.iter().map(key).collect();
    let keys: Vec<String> = keys.into_iter().collect();
    for slice in slices(&keys) {
        let sql = format!(
            "INSERT INTO state (key, value) VALUES {} ON CONFLICT (key)
             DO UPDATE SET value = CAST(CAST(state.value AS BIGINT) + 1 AS TEXT)",
            rows(backend, slice.len(), 2)
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for key in slice {
            query = query.bind(key.as_str()).bind("1");
        }
        query.execute(&mut **transaction).await?;
    }
    Ok(())
}

impl Ledger {
    /// Repositories that ever got new facts, with a text that changes whenever they do. Empty
    /// where one process has the ledger to itself.
    pub async fn touched(&self) -> Result<BTreeMap<Repository, String>, LedgerError> {
        if self.backend() == Backend::Sqlite {
            return Ok(BTreeMap::new());
        }
        let rows = sqlx::query("SELECT key, value FROM state WHERE key LIKE 'touched/%'")
            .fetch_all(self.pool())
            .reads(self)
            .await?;
        let mut touched = BTreeMap::new();
        for row in rows {
            let key: &str = row.try_get(0)?;
            if let Some(repository) = repository(key) {
                touched.insert(repository, row.try_get(1)?);
            }
        }
        Ok(touched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_comes_back_from_its_key() {
        let one = Repository {
            account: "111122223333".into(),
            region: "us-east-1".into(),
            name: "shop/web/api".into(),
        };
        assert_eq!(repository(&key(&one)), Some(one));
    }
}
