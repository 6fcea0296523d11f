//! Which time was read, of which source, account, region and event name.

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use sqlx::{Any, Row as _, Transaction};

use super::{Ledger, LedgerError, append::Page, meter::Timed as _, statement::storable};
use crate::event::{EventName, Interval, Intervals};

/// What one source has read of one event name in one account and region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Kind of the source, for example `lookupEvents`.
    pub source: String,
    /// Account whose CloudTrail was read.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// Event name.
    pub name: EventName,
    /// The time that was read.
    pub read: Intervals,
    /// The part of it that was read so long after its events that even late ones were seen.
    pub settled: Intervals,
}

/// In the place of an event name: the delivery time of which every log file of a trail was read;
/// settled, the part of it that digest files prove.
pub(super) const LOG_FILES: &str = "LogFiles";

pub(super) fn timestamp(seconds: i64) -> Result<Timestamp, LedgerError> {
    Timestamp::from_second(seconds).map_err(|error| LedgerError::Unreadable {
        what: "time",
        reason: error.to_string(),
    })
}

/// One row of `coverage_keys`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'a> {
    pub(super) source: &'a str,
    pub(super) account: &'a str,
    pub(super) region: &'a str,
    pub(super) name: &'a str,
    pub(super) settled: bool,
}

impl Key<'_> {
    fn digest(&self) -> Vec<u8> {
        let mut hash = Sha256::new();
        for part in [self.source, self.account, self.region, self.name] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.update([u8::from(self.settled)]);
        hash.finalize()[..16].to_vec()
    }
}

/// Adds what a page covers. Only whole seconds within the interval count as read: a start within
/// a second is moved to the next one, an end to the one before.
pub(super) async fn add(
    page: &Page<'_>,
    transaction: &mut Transaction<'static, Any>,
) -> Result<(), LedgerError> {
    add_one(page, page.covered, false, transaction).await?;
    add_one(page, page.settled, true, transaction).await
}

async fn add_one(
    page: &Page<'_>,
    added: Option<Interval>,
    settled: bool,
    transaction: &mut Transaction<'static, Any>,
) -> Result<(), LedgerError> {
    let Some(covered) = added else {
        return Ok(());
    };
    let Some((start, end)) = whole_seconds(covered) else {
        return Ok(());
    };
    // Two writers that take the same rows in one order do not wait for each other in a circle.
    let mut names = page.names.to_vec();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let key = Key {
            source: page.source,
            account: page.account,
            region: page.region,
            name: name.as_str(),
            settled,
        };
        let key = lock_key(key, transaction).await?;
        extend(key, start, end, transaction).await?;
    }
    Ok(())
}

/// The seconds that lie in an interval as a whole, if any does.
pub(super) fn whole_seconds(interval: Interval) -> Option<(i64, i64)> {
    let start = interval.start.as_second() + i64::from(interval.start.subsec_nanosecond() > 0);
    let end = interval.end.as_second();
    (start < end).then_some((start, end))
}

/// The key's id. Its row stays locked until the transaction ends, so that intervals which two
/// writers add at the same time both count.
pub(super) async fn lock_key(
    key: Key<'_>,
    transaction: &mut Transaction<'static, Any>,
) -> Result<i64, LedgerError> {
    const LOCK: &str =
        "UPDATE coverage_keys SET writes = writes + 1 WHERE digest = $1 RETURNING id";
    let digest = key.digest();
    if let Some(row) = sqlx::query(LOCK)
        .bind(digest.clone())
        .fetch_optional(&mut **transaction)
        .await?
    {
        return Ok(row.try_get(0)?);
    }
    make_key(key, transaction).await?;
    let row = sqlx::query(LOCK)
        .bind(digest)
        .fetch_one(&mut **transaction)
        .await?;
    Ok(row.try_get(0)?)
}

/// The key's id, without a lock.
pub(super) async fn key_id(
    key: Key<'_>,
    transaction: &mut Transaction<'static, Any>,
) -> Result<i64, LedgerError> {
    const FIND: &str = "SELECT id FROM coverage_keys WHERE digest = $1";
    let digest = key.digest();
    if let Some(row) = sqlx::query(FIND)
        .bind(digest.clone())
        .fetch_optional(&mut **transaction)
        .await?
    {
        return Ok(row.try_get(0)?);
    }
    make_key(key, transaction).await?;
    let row = sqlx::query(FIND)
        .bind(digest)
        .fetch_one(&mut **transaction)
        .await?;
    Ok(row.try_get(0)?)
}

async fn make_key(
    key: Key<'_>,
    transaction: &mut Transaction<'static, Any>,
) -> Result<(), LedgerError> {
    sqlx::query(
        "INSERT INTO coverage_keys (digest,source,account,region,name,settled,writes)
         VALUES ($1,$2,$3,$4,$5,$6,0) ON CONFLICT DO NOTHING",
    )
    .bind(key.digest())
    .bind(storable(key.source))
    .bind(storable(key.account))
    .bind(storable(key.region))
    .bind(storable(key.name))
    .bind(i64::from(key.settled))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Takes `[start, end)` out.
pub(super) async fn cut(
    key: i64,
    start: i64,
    end: i64,
    transaction: &mut Transaction<'static, Any>,
) -> Result<(), LedgerError> {
    let overlapping = sqlx::query(
        "DELETE FROM coverage WHERE key = $1 AND start_time < $3 AND end_time > $2
         RETURNING start_time, end_time",
    )
    .bind(key)
    .bind(start)
    .bind(end)
    .fetch_all(&mut **transaction)
    .await?;
    for row in overlapping {
        let (from, to): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        for (from, to) in [(from, start), (end, to)] {
            if from < to {
                sqlx::query("INSERT INTO coverage (key, start_time, end_time) VALUES ($1,$2,$3)")
                    .bind(key)
                    .bind(from)
                    .bind(to)
                    .execute(&mut **transaction)
                    .await?;
            }
        }
    }
    Ok(())
}

/// Adds `[start, end)` and makes one interval of those that it touches.
pub(super) async fn extend(
    key: i64,
    mut start: i64,
    mut end: i64,
    transaction: &mut Transaction<'static, Any>,
) -> Result<(), LedgerError> {
    let touching = sqlx::query(
        "SELECT start_time, end_time FROM coverage
         WHERE key = $1 AND start_time <= $3 AND end_time >= $2",
    )
    .bind(key)
    .bind(start)
    .bind(end)
    .fetch_all(&mut **transaction)
    .await?;
    if let [only] = touching.as_slice() {
        let (from, to): (i64, i64) = (only.try_get(0)?, only.try_get(1)?);
        if from <= start && end <= to {
            return Ok(());
        }
    }
    for row in &touching {
        start = start.min(row.try_get(0)?);
        end = end.max(row.try_get(1)?);
    }
    if !touching.is_empty() {
        sqlx::query("DELETE FROM coverage WHERE key = $1 AND start_time >= $2 AND end_time <= $3")
            .bind(key)
            .bind(start)
            .bind(end)
            .execute(&mut **transaction)
            .await?;
    }
    sqlx::query("INSERT INTO coverage (key, start_time, end_time) VALUES ($1,$2,$3)")
        .bind(key)
        .bind(start)
        .bind(end)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Takes everything before an instant out of the coverage of one event name.
pub(super) async fn shrink(
    name: EventName,
    before: i64,
    transaction: &mut Transaction<'static, Any>,
) -> Result<(), LedgerError> {
    // Locks the keys as `lock_key` does.
    sqlx::query("UPDATE coverage_keys SET writes = writes + 1 WHERE name = $1")
        .bind(name.as_str())
        .execute(&mut **transaction)
        .await?;
    sqlx::query(
        "DELETE FROM coverage WHERE end_time <= $1
         AND key IN (SELECT id FROM coverage_keys WHERE name = $2)",
    )
    .bind(before)
    .bind(name.as_str())
    .execute(&mut **transaction)
    .await?;
    sqlx::query(
        "UPDATE coverage SET start_time = $1 WHERE start_time < $1
         AND key IN (SELECT id FROM coverage_keys WHERE name = $2)",
    )
    .bind(before)
    .bind(name.as_str())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

impl Ledger {
    /// Everything that was read, by source, account, region and event name.
    pub async fn all_coverage(&self) -> Result<Vec<Coverage>, LedgerError> {
        self.coverage_where(None, LOG_FILES, false).await
    }

    /// The same, of one source, account and region where these are given (an empty account means
    /// every place of the source). What has the given name is left out, or is all there is (`only`).
    pub(super) async fn coverage_where(
        &self,
        place: Option<(&str, &str, &str)>,
        name: &str,
        only: bool,
    ) -> Result<Vec<Coverage>, LedgerError> {
        let (source, account, region) = place.unwrap_or_default();
        let rows = sqlx::query(
            "SELECT k.source, k.account, k.region, k.name, c.start_time, c.end_time, k.settled
             FROM coverage_keys k JOIN coverage c ON c.key = k.id
             WHERE ($1 = 0 OR (k.source = $2 AND ($3 = '' OR k.account = $3 AND k.region = $4)))
               AND (CASE WHEN k.name = $5 THEN 1 ELSE 0 END) = $6
             ORDER BY k.source, k.account, k.region, k.name, c.start_time",
        )
        .bind(i64::from(place.is_some()))
        .bind(storable(source))
        .bind(storable(account))
        .bind(storable(region))
        .bind(storable(name))
        .bind(i64::from(only))
        .fetch_all(self.pool())
        .reads(self)
        .await?;
        let mut all: Vec<Coverage> = Vec::new();
        for row in rows {
            let (source, account, region): (String, String, String) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let name: &str = row.try_get(3)?;
            let Ok(name) = name.parse::<EventName>();
            let interval = Interval {
                start: timestamp(row.try_get(4)?)?,
                end: timestamp(row.try_get(5)?)?,
            };
            let settled = row.try_get::<i64, _>(6)? != 0;
            let same = |have: &Coverage| {
                (&have.source, &have.account, &have.region, have.name)
                    == (&source, &account, &region, name)
            };
            if !all.last().is_some_and(same) {
                all.push(Coverage {
                    source,
                    account,
                    region,
                    name,
                    read: Intervals::default(),
                    settled: Intervals::default(),
                });
            }
            if let Some(last) = all.last_mut() {
                if settled {
                    last.settled.insert(interval);
                } else {
                    last.read.insert(interval);
                }
            }
        }
        Ok(all)
    }
}
