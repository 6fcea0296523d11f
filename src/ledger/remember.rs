//! What is kept beside the facts: nodes of clusters, records that could not be read, small state;
//! and what is forgotten.

use std::{collections::HashSet, sync::Arc};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use sqlx::{Any, AssertSqlSafe, Row as _, Transaction};

use super::{
    Ledger, LedgerError,
    append::Page,
    coverage::{self, timestamp},
    meter::Timed as _,
    statement::{rows, slices, storable},
};
use crate::event::EventName;

/// How many undecodable records are kept with their text.
const KEPT_TEXTS: i64 = 1_000;

/// Longest text kept of one, in bytes.
const MAX_TEXT: usize = 16 * 1024;

/// Longest reason kept, in bytes.
const MAX_REASON: usize = 512;

/// Seconds of pulls that one statement removes.
const PRUNE_SPAN: i64 = 6 * 3600;

const UNDECODABLE: &str = "undecodable";
const OMITTED: &str = "omitted";

/// An undecodable record as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRecord {
    /// Kind of the source that brought it.
    pub source: String,
    /// Account whose CloudTrail was read.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// Its time.
    pub time: Timestamp,
    /// Why it was not decoded.
    pub reason: String,
    /// Its text, cut off at 16 KiB.
    pub text: String,
}

/// How many records of an account and region could not be read, in full or at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadCount {
    /// Account whose CloudTrail was read.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// ECR records that could not be decoded.
    pub undecodable: u64,
    /// ECR records whose content CloudTrail left out for its size.
    pub omitted: u64,
}

fn cut(text: &str, length: usize) -> &str {
    text.get(..text.floor_char_boundary(length)).unwrap_or(text)
}

/// Adds a page's undecodable records, and notes those whose content was left out; each once.
pub(super) async fn add_unread(
    page: &Page<'_>,
    transaction: &mut Transaction<'static, Any>,
) -> Result<(), LedgerError> {
    let omitted = page.events.iter().filter(|event| event.omitted);
    let omitted = omitted.map(|event| (OMITTED, event.id.as_ref(), "", event.time));
    let undecodable = page
        .undecodable
        .iter()
        .map(|record| (UNDECODABLE, record.text, record.reason, record.time));
    let mut kept = None;
    for (kind, text, reason, time) in undecodable.chain(omitted) {
        let kept = match &mut kept {
            Some(kept) => kept,
            none => {
                let row = sqlx::query("SELECT count(*) FROM unread_records WHERE text <> ''")
                    .fetch_one(&mut **transaction)
                    .await?;
                none.insert(row.try_get::<i64, _>(0)?)
            }
        };
        let keep = kind == UNDECODABLE && *kept < KEPT_TEXTS;
        let added = sqlx::query(
            "INSERT INTO unread_records (digest,kind,source,account,region,time,reason,text)
             VALUES ($1,$2,$3,$4,$5,$6,$7,$8) ON CONFLICT DO NOTHING",
        )
        .bind(Sha256::digest(text.as_bytes()).to_vec())
        .bind(kind)
        .bind(storable(page.source))
        .bind(storable(page.account))
        .bind(storable(page.region))
        .bind(time.as_second())
        .bind(storable(cut(reason, MAX_REASON)))
        .bind(if keep {
            storable(cut(text, MAX_TEXT))
        } else {
            String::new()
        })
        .execute(&mut **transaction)
        .await?;
        if keep && added.rows_affected() > 0 {
            *kept += 1;
        }
    }
    Ok(())
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}

impl Ledger {
    /// The undecodable records that were kept with their text, latest first.
    pub async fn undecodable(&self, limit: u32) -> Result<Vec<KeptRecord>, LedgerError> {
        let rows = sqlx::query(
            "SELECT source, account, region, time, reason, text FROM unread_records
             WHERE kind = 'undecodable' AND text <> '' ORDER BY time DESC, digest LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(self.pool())
        .reads(self)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(KeptRecord {
                    source: row.try_get(0)?,
                    account: row.try_get(1)?,
                    region: row.try_get(2)?,
                    time: timestamp(row.try_get(3)?)?,
                    reason: row.try_get(4)?,
                    text: row.try_get(5)?,
                })
            })
            .collect()
    }

    /// How many records since then could not be read, of each account and region that has some.
    pub async fn unread_counts(&self, since: Timestamp) -> Result<Vec<UnreadCount>, LedgerError> {
        let rows = sqlx::query(
            "SELECT account, region,
                    count(CASE WHEN kind = 'undecodable' THEN 1 END),
                    count(CASE WHEN kind = 'omitted' THEN 1 END)
             FROM unread_records WHERE time >= $1 GROUP BY account, region
             ORDER BY account, region",
        )
        .bind(since.as_second())
        .fetch_all(self.pool())
        .reads(self)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(UnreadCount {
                    account: row.try_get(0)?,
                    region: row.try_get(1)?,
                    undecodable: unsigned(row.try_get(2)?),
                    omitted: unsigned(row.try_get(3)?),
                })
            })
            .collect()
    }

    /// Remembers that these instances are nodes of a cluster at `now`.
    pub async fn remember_nodes(
        &self,
        cluster: &str,
        instances: &[Arc<str>],
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let mut instances: Vec<String> = instances.iter().map(|id| storable(id)).collect();
        instances.sort_unstable();
        instances.dedup();
        if instances.is_empty() {
            return Ok(());
        }
        self.store_nodes(cluster, &instances, now)
            .writes(self)
            .await
    }

    async fn store_nodes(
        &self,
        cluster: &str,
        instances: &[String],
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let turn = self.write_turn().await;
        let mut transaction = self.begin().await?;
        for slice in slices(instances) {
            let sql = format!(
                "INSERT INTO nodes (cluster,instance,first_seen,last_seen) VALUES {}
                 ON CONFLICT (cluster, instance) DO UPDATE SET last_seen = excluded.last_seen
                 WHERE excluded.last_seen > nodes.last_seen",
                rows(self.backend(), slice.len(), 4)
            );
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for instance in slice {
                query = query
                    .bind(storable(cluster))
                    .bind(instance.as_str())
                    .bind(now.as_second())
                    .bind(now.as_second());
            }
            query.execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        drop(turn);
        Ok(())
    }

    /// The instance ids of every node that a cluster is remembered to have had.
    pub async fn nodes(&self, cluster: &str) -> Result<HashSet<Arc<str>>, LedgerError> {
        let rows = sqlx::query("SELECT instance FROM nodes WHERE cluster = $1")
            .bind(storable(cluster))
            .fetch_all(self.pool())
            .reads(self)
            .await?;
        rows.iter()
            .map(|row| {
                let instance: &str = row.try_get(0)?;
                Ok(instance.into())
            })
            .collect()
    }

    /// Small state of the program itself, by key.
    pub async fn state(&self, key: &str) -> Result<Option<String>, LedgerError> {
        let row = sqlx::query("SELECT value FROM state WHERE key = $1")
            .bind(storable(key))
            .fetch_optional(self.pool())
            .reads(self)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Sets it.
    pub async fn set_state(&self, key: &str, value: &str) -> Result<(), LedgerError> {
        let turn = self.write_turn().await;
        sqlx::query(
            "INSERT INTO state (key, value) VALUES ($1, $2)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        )
        .bind(storable(key))
        .bind(storable(value))
        .execute(self.pool())
        .writes(self)
        .await?;
        drop(turn);
        Ok(())
    }

    /// Forgets which files of trails were read before an instant, by the time of the reading. Read
    /// again, they add nothing; which delivery time was read in full is remembered apart.
    pub async fn prune_files(&self, before: Timestamp) -> Result<u64, LedgerError> {
        let turn = self.write_turn().await;
        let result = sqlx::query("DELETE FROM trail_files WHERE read_time < $1")
            .bind(before.as_second())
            .execute(self.pool())
            .writes(self)
            .await?;
        drop(turn);
        Ok(result.rows_affected())
    }

    /// Forgets the pulls before an instant; how many. What they taught stays: callers, and
    /// everything that is no pull.
    ///
    /// Their time no longer counts as read from here on, even if this stops half-way.
    pub async fn prune(&self, before: Timestamp) -> Result<u64, LedgerError> {
        self.shrink(EventName::BatchGetImage, before)
            .writes(self)
            .await?;
        let rows = sqlx::query("SELECT id FROM repositories ORDER BY id")
            .fetch_all(self.pool())
            .reads(self)
            .await?;
        let mut pruned = 0;
        for row in rows {
            pruned += self
                .prune_repository(row.try_get(0)?, before.as_second())
                .await?;
        }
        Ok(pruned)
    }

    /// What is forgotten no longer counts as read.
    async fn shrink(&self, name: EventName, before: Timestamp) -> Result<(), LedgerError> {
        let turn = self.write_turn().await;
        let mut transaction = self.begin().await?;
        coverage::shrink(name, before.as_second(), &mut transaction).await?;
        transaction.commit().await?;
        drop(turn);
        Ok(())
    }

    /// A few hours of one repository at a time, so that appends get their turn between them.
    async fn prune_repository(&self, repository: i64, before: i64) -> Result<u64, LedgerError> {
        let mut pruned = 0;
        loop {
            let first = sqlx::query("SELECT min(time) FROM pulls WHERE repository = $1")
                .bind(repository)
                .fetch_one(self.pool())
                .reads(self)
                .await?;
            let first: Option<i64> = first.try_get(0)?;
            let Some(first) = first.filter(|first| *first < before) else {
                return Ok(pruned);
            };
            let turn = self.write_turn().await;
            let result = sqlx::query("DELETE FROM pulls WHERE repository = $1 AND time < $2")
                .bind(repository)
                .bind(before.min(first + PRUNE_SPAN))
                .execute(self.pool())
                .writes(self)
                .await?;
            drop(turn);
            pruned += result.rows_affected();
        }
    }
}
