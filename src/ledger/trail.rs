//! The files of trails: which were read, which delivery time was read in full, what is missing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::{Any, Row as _, Transaction};

use super::{
    Ledger, LedgerError,
    append::Page,
    coverage::{Key, LOG_FILES, cut, extend, key_id, lock_key, timestamp, whole_seconds},
    meter::Timed as _,
    statement::storable,
};
use crate::{
    event::{EventName, Interval},
    source::{Gap, KnownFile, Learned, Place, Reason, TrailState},
};

/// A file that was read in full.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileRow<'a> {
    pub(super) delivered: Timestamp,
    pub(super) unique: &'a str,
    pub(super) hash: [u8; 32],
    pub(super) read: Timestamp,
}

/// The row that says which delivery time of a trail was read; its id names the place.
const fn place_key<'a>(trail: &'a str, account: &'a str, region: &'a str) -> Key<'a> {
    Key {
        source: trail,
        account,
        region,
        name: LOG_FILES,
        settled: false,
    }
}

pub(super) async fn add_file(
    page: &Page<'_>,
    file: &FileRow<'_>,
    transaction: &mut Transaction<'static, Any>,
) -> Result<(), LedgerError> {
    let place = place_key(page.source, page.account, page.region);
    let place = key_id(place, transaction).await?;
    sqlx::query(
        "INSERT INTO trail_files (place,time,name,hash,read_time) VALUES ($1,$2,$3,$4,$5)
         ON CONFLICT (place, time, name)
         DO UPDATE SET hash = excluded.hash, read_time = excluded.read_time",
    )
    .bind(place)
    .bind(file.delivered.as_second())
    .bind(storable(file.unique))
    .bind(file.hash.to_vec())
    .bind(file.read.as_second())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

fn unreadable(what: &'static str) -> LedgerError {
    LedgerError::Unreadable {
        what,
        reason: "it has another form".to_owned(),
    }
}

impl Ledger {
    /// The files of a trail and place that were read, delivered within a span.
    pub(super) async fn trail_files(
        &self,
        trail: &str,
        place: &Place,
        delivered: Interval,
    ) -> Result<Vec<KnownFile>, LedgerError> {
        let rows = sqlx::query(
            "SELECT f.time, f.name, f.hash FROM trail_files f
             JOIN coverage_keys k ON k.id = f.place
             WHERE k.source = $1 AND k.account = $2 AND k.region = $3 AND k.name = $4
               AND f.time >= $5 AND f.time < $6",
        )
        .bind(storable(trail))
        .bind(storable(&place.account))
        .bind(storable(&place.region))
        .bind(LOG_FILES)
        .bind(delivered.start.as_second())
        .bind(delivered.end.as_second())
        .fetch_all(self.pool())
        .reads(self)
        .await?;
        rows.iter()
            .map(|row| {
                let (name, hash): (&str, Vec<u8>) = (row.try_get(1)?, row.try_get(2)?);
                Ok(KnownFile {
                    delivered: timestamp(row.try_get(0)?)?,
                    unique: name.into(),
                    hash: hash.try_into().map_err(|_| unreadable("hash"))?,
                })
            })
            .collect()
    }

    /// What is known of a trail, in every account and region.
    pub(super) async fn trail_state(
        &self,
        trail: &str,
    ) -> Result<BTreeMap<Place, TrailState>, LedgerError> {
        let mut states: BTreeMap<Place, TrailState> = BTreeMap::new();
        let place_of = |account: &str, region: &str| Place {
            account: account.into(),
            region: region.into(),
        };
        let whole = Some((trail, "", ""));
        for coverage in self.coverage_where(whole, LOG_FILES, true).await? {
            let state = states
                .entry(place_of(&coverage.account, &coverage.region))
                .or_default();
            state.delivered = coverage.read;
            state.proved = coverage.settled;
        }
        for coverage in self.coverage_where(whole, LOG_FILES, false).await? {
            let state = states
                .entry(place_of(&coverage.account, &coverage.region))
                .or_default();
            state.events.insert(coverage.name, coverage.read);
        }
        let rows = sqlx::query(
            "SELECT k.account, k.region, g.name, g.reason, g.message, g.start_time, g.end_time
             FROM trail_gaps g JOIN coverage_keys k ON k.id = g.place WHERE k.source = $1",
        )
        .bind(storable(trail))
        .fetch_all(self.pool())
        .reads(self)
        .await?;
        for row in &rows {
            let reason: &str = row.try_get(3)?;
            let reason = Reason::ALL.into_iter().find(|one| one.as_str() == reason);
            let gap = Gap {
                // One that a newer version wrote: that something is missing is true.
                reason: reason.unwrap_or(Reason::FileMissing),
                message: row.try_get(4)?,
                span: Interval {
                    start: timestamp(row.try_get(5)?)?,
                    end: timestamp(row.try_get(6)?)?,
                },
            };
            let name: &str = row.try_get(2)?;
            states
                .entry(place_of(row.try_get(0)?, row.try_get(1)?))
                .or_default()
                .gaps
                .insert(name.into(), gap);
        }
        Ok(states)
    }

    /// Stores what was learned of a trail in one account and region, as a whole.
    pub(super) async fn learn_trail(
        &self,
        trail: &str,
        place: &Place,
        learned: &Learned,
    ) -> Result<(), LedgerError> {
        if learned.is_empty() {
            return Ok(());
        }
        self.store_learned(trail, place, learned).writes(self).await
    }

    async fn store_learned(
        &self,
        trail: &str,
        place: &Place,
        learned: &Learned,
    ) -> Result<(), LedgerError> {
        let turn = self.write_turn().await;
        let mut transaction = self.begin().await?;
        let key = place_key(trail, &place.account, &place.region);
        let id = lock_key(key, &mut transaction).await?;
        for interval in learned.delivered.iter().copied().filter_map(whole_seconds) {
            extend(id, interval.0, interval.1, &mut transaction).await?;
        }
        if !learned.proved.is_empty() {
            let settled = lock_key(
                Key {
                    settled: true,
                    ..key
                },
                &mut transaction,
            )
            .await?;
            for interval in learned.proved.iter().copied().filter_map(whole_seconds) {
                extend(settled, interval.0, interval.1, &mut transaction).await?;
            }
        }
        if !learned.events.is_empty() || !learned.found.is_empty() {
            let mut names = EventName::JUDGED;
            names.sort_unstable();
            for name in names {
                let key = Key {
                    name: name.as_str(),
                    ..key
                };
                let key = lock_key(key, &mut transaction).await?;
                for interval in learned.events.iter().copied().filter_map(whole_seconds) {
                    extend(key, interval.0, interval.1, &mut transaction).await?;
                }
                for gap in learned.found.values() {
                    let (start, end) = (gap.span.start.as_second(), gap.span.end.as_second());
                    cut(key, start, end, &mut transaction).await?;
                }
            }
        }
        for name in &learned.closed {
            sqlx::query("DELETE FROM trail_gaps WHERE place = $1 AND name = $2")
                .bind(id)
                .bind(storable(name))
                .execute(&mut *transaction)
                .await?;
        }
        for (name, gap) in &learned.found {
            sqlx::query(
                "INSERT INTO trail_gaps (place,name,reason,message,start_time,end_time)
                 VALUES ($1,$2,$3,$4,$5,$6) ON CONFLICT (place, name)
                 DO UPDATE SET reason = excluded.reason, message = excluded.message,
                     start_time = excluded.start_time, end_time = excluded.end_time",
            )
            .bind(id)
            .bind(storable(name))
            .bind(gap.reason.as_str())
            .bind(storable(&gap.message))
            .bind(gap.span.start.as_second())
            .bind(gap.span.end.as_second())
            .execute(&mut *transaction)
            .await?;
        }
        if let Some(before) = learned.forget {
            sqlx::query("DELETE FROM trail_files WHERE place = $1 AND time < $2")
                .bind(id)
                .bind(before.as_second())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        drop(turn);
        Ok(())
    }
}
