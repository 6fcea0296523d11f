//! Reading facts: each call once, and of replaced records only what replaced them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use sqlx::{AssertSqlSafe, Row as _, any::AnyRow};

use super::{
    Backend, Ledger, LedgerError,
    append::{CORRECTION, DENIED, INSTANCE},
    coverage::timestamp,
    cursor::Cursor,
    intern::repository_digest,
    key::{unpack, without_hash},
    meter::Timed as _,
    schema::counts,
    statement::integers,
};
use crate::event::{Caller, Event, ImageId, Interval, Principal, Pull, Repository, is_instance_id};

/// A caller's number in this ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerId(i64);

/// The number of what pulls of one repository name alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(i64);

/// What pulls have named by a tag alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagTarget {
    /// Its number.
    pub id: TargetId,
    /// What the calls named; at least one without a digest.
    pub images: Arc<[ImageId]>,
}

/// What `pulls_by_caller` holds, in the index's own words: by these a database knows that it may use
/// it.
const OF_OTHERS: &str = " AND (p.flags & 8) = 0";
const _: () = assert!(INSTANCE == 8);

/// How many ids go into one statement's list.
const LIST: usize = 4_096;

/// First and last second of an interval, both within.
fn seconds(within: Interval) -> (i64, i64) {
    let first = within.start.as_second() + i64::from(within.start.subsec_nanosecond() > 0);
    let last = within.end.as_second() - i64::from(within.end.subsec_nanosecond() == 0);
    (first, last)
}

fn caller(row: &AnyRow) -> Result<(i64, Caller), LedgerError> {
    let text = |column: usize| -> Result<Option<Arc<str>>, LedgerError> {
        let text: &str = row.try_get(column)?;
        Ok((!text.is_empty()).then(|| text.into()))
    };
    let key: &str = row.try_get(1)?;
    let caller = Caller {
        principal: Principal {
            key: key.into(),
            kind: text(2)?,
            account: text(3)?,
            service: text(4)?,
        },
        session: text(5)?,
        arn: text(6)?,
    };
    Ok((row.try_get(0)?, caller))
}

const CALLER_COLUMNS: &str = "id, principal, type, account, service, session, arn";

fn images(row: &AnyRow) -> Result<(i64, Arc<[ImageId]>), LedgerError> {
    let json: &str = row.try_get(1)?;
    let images: Vec<ImageId> =
        serde_json::from_str(json).map_err(|error| LedgerError::Unreadable {
            what: "target",
            reason: error.to_string(),
        })?;
    Ok((row.try_get(0)?, images.into()))
}

impl Ledger {
    async fn repository_id(&self, repository: &Repository) -> Result<Option<i64>, LedgerError> {
        let row = sqlx::query("SELECT id FROM repositories WHERE digest = $1")
            .bind(repository_digest(repository)?)
            .fetch_optional(self.pool())
            .reads(self)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Everything but pulls that happened in a repository, each call once, in no order.
    pub async fn changes(&self, repository: &Repository) -> Result<Vec<Arc<Event>>, LedgerError> {
        let Some(id) = self.repository_id(repository).await? else {
            return Ok(vec![]);
        };
        let rows = sqlx::query(
            "SELECT c.call_id, c.event FROM changes c WHERE c.repository = $1 AND NOT EXISTS
             (SELECT 1 FROM superseded s WHERE s.event_id = c.event_id)",
        )
        .bind(id)
        .fetch_all(self.pool())
        .reads(self)
        .await?;
        let rank = |event: &Event| {
            (
                !event.caller.principal.key.starts_with("arn:"),
                event.id.clone(),
            )
        };
        let mut calls: HashMap<Vec<u8>, Arc<Event>> = HashMap::with_capacity(rows.len());
        for row in rows {
            let call: Vec<u8> = row.try_get(0)?;
            let event: Event =
                serde_json::from_str(row.try_get(1)?).map_err(|error| LedgerError::Unreadable {
                    what: "event",
                    reason: error.to_string(),
                })?;
            match calls.get(&call) {
                Some(have) if rank(have) <= rank(&event) => {}
                _ => {
                    calls.insert(call, Arc::new(event));
                }
            }
        }
        Ok(calls.into_values().collect())
    }

    /// The repositories that something is known of.
    pub async fn repositories(&self) -> Result<BTreeSet<Repository>, LedgerError> {
        let rows = sqlx::query("SELECT account, region, name FROM repositories")
            .fetch_all(self.pool())
            .reads(self)
            .await?;
        rows.iter()
            .map(|row| {
                let text = |column: usize| -> Result<Arc<str>, LedgerError> {
                    let text: &str = row.try_get(column)?;
                    Ok(text.into())
                };
                Ok(Repository {
                    account: text(0)?,
                    region: text(1)?,
                    name: text(2)?,
                })
            })
            .collect()
    }

    /// Everyone whose pull, allowed or denied, was ever recorded, also where the pull itself has
    /// been pruned, and also the copies of a call that name the caller less well.
    pub async fn callers(&self) -> Result<Vec<(CallerId, Caller)>, LedgerError> {
        self.new_callers(&mut Cursor::default()).await
    }

    /// Those that were added since one asked last, each once, also those whose numbers became
    /// visible out of order.
    pub async fn new_callers(
        &self,
        cursor: &mut Cursor,
    ) -> Result<Vec<(CallerId, Caller)>, LedgerError> {
        let now = Instant::now();
        let sql = format!("SELECT {CALLER_COLUMNS} FROM callers WHERE id > $1 ORDER BY id");
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(cursor.floor(now))
            .fetch_all(self.pool())
            .reads(self)
            .await?;
        let mut callers = Vec::with_capacity(rows.len());
        for row in &rows {
            let (id, caller) = caller(row)?;
            if cursor.see(id, now) {
                callers.push((CallerId(id), caller));
            }
        }
        cursor.settle(self.backend());
        Ok(callers)
    }

    /// Who has pulled from a repository, now or long ago.
    pub async fn pullers(
        &self,
        repository: &Repository,
    ) -> Result<Vec<(CallerId, Caller)>, LedgerError> {
        let Some(id) = self.repository_id(repository).await? else {
            return Ok(vec![]);
        };
        let sql = format!(
            "SELECT {CALLER_COLUMNS} FROM callers
             WHERE id IN (SELECT caller FROM pullers WHERE repository = $1) ORDER BY id"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(id)
            .fetch_all(self.pool())
            .reads(self)
            .await?;
        rows.iter()
            .map(|row| caller(row).map(|(id, caller)| (CallerId(id), caller)))
            .collect()
    }

    /// The pulls from a repository by these callers, each call once, in no order. Those of other
    /// callers never leave the database, however many they are.
    pub async fn pulls(
        &self,
        repository: &Repository,
        within: Interval,
        by: impl IntoIterator<Item = CallerId>,
    ) -> Result<Vec<Pull>, LedgerError> {
        let Some(id) = self.repository_id(repository).await? else {
            return Ok(vec![]);
        };
        let rows = sqlx::query(
            "SELECT c.id, c.session FROM pullers p JOIN callers c ON c.id = p.caller
             WHERE p.repository = $1",
        )
        .bind(id)
        .fetch_all(self.pool())
        .reads(self)
        .await?;
        let wanted: BTreeSet<i64> = by.into_iter().map(|caller| caller.0).collect();
        let (mut instances, mut others) = (Vec::new(), Vec::new());
        for row in rows {
            let caller = row.try_get(0)?;
            if wanted.contains(&caller) {
                if is_instance_id(row.try_get(1)?) {
                    instances.push(caller);
                } else {
                    others.push(caller);
                }
            }
        }

        let (first, last) = seconds(within);
        let mut rows = Vec::new();
        // Of the others an index finds the pulls; with those of instances it would be as large as
        // the table itself.
        let by_index = match self.backend() {
            // Without statistics it takes a repository to have ten pulls.
            Backend::Sqlite => " INDEXED BY pulls_by_caller",
            Backend::Postgres => "",
        };
        let others = others.chunks(LIST).map(|list| (list, by_index, OF_OTHERS));
        let instances = instances.chunks(LIST).map(|list| (list, "", ""));
        for (list, index, only) in others.chain(instances) {
            let sql = format!(
                "SELECT p.time, p.call_id, p.event_id, p.caller, p.target, p.flags
                 FROM pulls p{index}
                 WHERE p.repository = $1 AND p.time >= $2 AND p.time <= $3
                   AND p.caller IN ({}){only} AND {}",
                integers(list.iter().copied()),
                counts("pulls")
            );
            rows.extend(
                sqlx::query(AssertSqlSafe(sql))
                    .bind(id)
                    .bind(first)
                    .bind(last)
                    .persistent(false)
                    .fetch_all(self.pool())
                    .reads(self)
                    .await?,
            );
        }
        self.resolve(&rows).await
    }

    /// Puts callers and images in the place of their numbers.
    async fn resolve(&self, rows: &[AnyRow]) -> Result<Vec<Pull>, LedgerError> {
        let mut callers: HashMap<i64, Option<Arc<Caller>>> = HashMap::new();
        let mut targets: HashMap<i64, Option<Arc<[ImageId]>>> = HashMap::new();
        for row in rows {
            callers.insert(row.try_get(3)?, None);
            targets.insert(row.try_get(4)?, None);
        }
        let ids: Vec<i64> = callers.keys().copied().collect();
        for list in ids.chunks(LIST) {
            let list = integers(list.iter().copied());
            let sql = format!("SELECT {CALLER_COLUMNS} FROM callers WHERE id IN ({list})");
            for row in self.unprepared(sql).await? {
                let (id, caller) = caller(&row)?;
                callers.insert(id, Some(Arc::new(caller)));
            }
        }
        let ids: Vec<i64> = targets.keys().copied().collect();
        for list in ids.chunks(LIST) {
            let list = integers(list.iter().copied());
            let sql = format!("SELECT id, images FROM targets WHERE id IN ({list})");
            for row in self.unprepared(sql).await? {
                let (id, images) = images(&row)?;
                targets.insert(id, Some(images));
            }
        }
        let unreadable = |what| LedgerError::Unreadable {
            what,
            reason: "a number in it names nothing".to_owned(),
        };
        rows.iter()
            .map(|row| {
                let (call, event): (&[u8], &[u8]) = (row.try_get(1)?, row.try_get(2)?);
                let flags: i64 = row.try_get(5)?;
                let id = match (event.is_empty(), flags & CORRECTION != 0) {
                    (true, _) => call,
                    (false, true) => without_hash(event),
                    (false, false) => event,
                };
                Ok(Pull {
                    id: unpack(id).ok_or_else(|| unreadable("event id"))?.into(),
                    time: timestamp(row.try_get(0)?)?,
                    images: targets
                        .get(&row.try_get(4)?)
                        .and_then(Clone::clone)
                        .ok_or_else(|| unreadable("pull"))?,
                    caller: callers
                        .get(&row.try_get(3)?)
                        .and_then(Clone::clone)
                        .ok_or_else(|| unreadable("pull"))?,
                    denied: flags & DENIED != 0,
                })
            })
            .collect()
    }

    async fn unprepared(&self, sql: String) -> Result<Vec<AnyRow>, LedgerError> {
        sqlx::query(AssertSqlSafe(sql))
            .persistent(false)
            .fetch_all(self.pool())
            .reads(self)
            .await
    }

    /// What pulls from a repository have ever named by a tag alone.
    pub async fn tag_targets(
        &self,
        repository: &Repository,
    ) -> Result<Vec<TagTarget>, LedgerError> {
        let Some(id) = self.repository_id(repository).await? else {
            return Ok(vec![]);
        };
        let rows = sqlx::query(
            "SELECT id, images FROM targets WHERE repository = $1 AND by_tag = 1 ORDER BY id",
        )
        .bind(id)
        .fetch_all(self.pool())
        .reads(self)
        .await?;
        rows.iter()
            .map(|row| {
                let (id, images) = images(row)?;
                Ok(TagTarget {
                    id: TargetId(id),
                    images,
                })
            })
            .collect()
    }

    /// How many allowed calls have named one of these targets, by anyone, within a time.
    pub async fn count_pulls(
        &self,
        repository: &Repository,
        targets: &[TargetId],
        within: Interval,
    ) -> Result<u64, LedgerError> {
        let Some(id) = self.repository_id(repository).await? else {
            return Ok(0);
        };
        let (first, last) = seconds(within);
        let mut count: i64 = 0;
        for list in targets.chunks(LIST) {
            let sql = format!(
                "SELECT count(*) FROM pulls p
                 WHERE p.repository = $1 AND p.time >= $2 AND p.time <= $3
                   AND p.target IN ({}) AND (p.flags & {DENIED}) = 0 AND {}",
                integers(list.iter().map(|target| target.0)),
                counts("pulls")
            );
            let row = sqlx::query(AssertSqlSafe(sql))
                .bind(id)
                .bind(first)
                .bind(last)
                .persistent(false)
                .fetch_one(self.pool())
                .reads(self)
                .await?;
            count += row.try_get::<i64, _>(0)?;
        }
        Ok(u64::try_from(count).unwrap_or_default())
    }
}
