//! Small integers for what many rows repeat: repositories, callers, the images a pull names.
//!
//! Each of these tables finds its rows by a digest of their content, so that long and hostile
//! names cost the index no more than short ones. Ids that committed transactions stored are
//! remembered, within a bound; ids are never given twice, so a remembered one stays right.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sha2::{Digest as _, Sha256};
use sqlx::{Any, AssertSqlSafe, Row as _, Transaction};

use super::{
    Backend, LedgerError,
    statement::{parameters, rows, slices, storable},
};
use crate::event::{Caller, Event, ImageId, Repository};

/// How many ids of each kind are remembered.
const REMEMBERED: usize = 16_384;

/// Bytes of SHA-256 that find a row.
const DIGEST_LEN: usize = 16;

type Images = Arc<[ImageId]>;

/// What committed transactions have stored. Shared by all appends, and locked for moments only.
#[derive(Debug)]
pub(super) struct Interned {
    /// Where they are stored.
    backend: Backend,
    ids: Mutex<Ids>,
}

/// Ids by content: those that one transaction uses. They are remembered once it has committed,
/// and forgotten otherwise.
#[derive(Debug, Default)]
pub(super) struct Ids {
    repositories: HashMap<Repository, i64>,
    callers: HashMap<Caller, i64>,
    targets: HashMap<(i64, Images), i64>,
    pullers: HashSet<(i64, i64)>,
}

impl Interned {
    pub(super) fn new(backend: Backend) -> Self {
        Self {
            backend,
            ids: Mutex::default(),
        }
    }

    /// Where they are stored.
    pub(super) const fn backend(&self) -> Backend {
        self.backend
    }

    fn lock(&self) -> MutexGuard<'_, Ids> {
        // A panic elsewhere leaves true entries behind, perhaps fewer than there could be.
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what a transaction used, which has committed.
    pub(super) fn commit(&self, used: Ids) {
        let mut ids = self.lock();
        remember(&mut ids.repositories, used.repositories);
        remember(&mut ids.callers, used.callers);
        remember(&mut ids.targets, used.targets);
        if ids.pullers.len() > REMEMBERED * 4 {
            ids.pullers.clear();
        }
        ids.pullers.extend(used.pullers);
    }
}

/// Emptied when full: what is in use comes back with the next pages.
fn remember<K: Hash + Eq>(ids: &mut HashMap<K, i64>, used: HashMap<K, i64>) {
    if ids.len() > REMEMBERED {
        ids.clear();
    }
    ids.extend(used);
}

/// A table whose rows are found by digest.
struct Table {
    name: &'static str,
    columns: &'static str,
}

const REPOSITORIES: Table = Table {
    name: "repositories",
    columns: "account,region,name",
};
const CALLERS: Table = Table {
    name: "callers",
    columns: "principal,type,account,service,session,arn",
};
const TARGETS: Table = Table {
    name: "targets",
    columns: "repository,by_tag,images",
};

enum Value {
    Text(String),
    Integer(i64),
}

fn unstorable(error: &serde_json::Error) -> LedgerError {
    LedgerError::Unreadable {
        what: "name",
        reason: error.to_string(),
    }
}

type Digest = [u8; DIGEST_LEN];

fn digest(content: &impl serde::Serialize) -> Result<Digest, LedgerError> {
    let content = serde_json::to_vec(content).map_err(|error| unstorable(&error))?;
    let mut digest = Digest::default();
    digest.copy_from_slice(&Sha256::digest(&content)[..DIGEST_LEN]);
    Ok(digest)
}

fn text(field: Option<&Arc<str>>) -> Value {
    Value::Text(field.map(|text| storable(text)).unwrap_or_default())
}

/// The digest that finds a repository's row.
pub(super) fn repository_digest(repository: &Repository) -> Result<Vec<u8>, LedgerError> {
    Ok(digest(repository)?.to_vec())
}

impl Ids {
    /// Stores the repositories that are not stored yet.
    pub(super) async fn add_repositories(
        &mut self,
        known: &Interned,
        events: impl Iterator<Item = &Event>,
        transaction: &mut Transaction<'static, Any>,
    ) -> Result<(), LedgerError> {
        let mut missing: BTreeMap<Digest, (&Repository, Vec<Value>)> = BTreeMap::new();
        {
            let known = known.lock();
            for repository in events.filter_map(|event| event.repository.as_ref()) {
                if self.repositories.contains_key(repository) {
                    continue;
                }
                if let Some(id) = known.repositories.get(repository) {
                    self.repositories.insert(repository.clone(), *id);
                    continue;
                }
                missing.entry(digest(repository)?).or_insert_with(|| {
                    let row = vec![
                        Value::Text(storable(&repository.account)),
                        Value::Text(storable(&repository.region)),
                        Value::Text(storable(&repository.name)),
                    ];
                    (repository, row)
                });
            }
        }
        for (repository, id) in intern(known.backend, &REPOSITORIES, missing, transaction).await? {
            self.repositories.insert(repository.clone(), id);
        }
        Ok(())
    }

    /// Stores the callers that are not stored yet.
    pub(super) async fn add_callers(
        &mut self,
        known: &Interned,
        pulls: impl Iterator<Item = &Event>,
        transaction: &mut Transaction<'static, Any>,
    ) -> Result<(), LedgerError> {
        let mut seen = HashSet::new();
        let mut missing: BTreeMap<Digest, (&Caller, Vec<Value>)> = BTreeMap::new();
        {
            let known = known.lock();
            for caller in pulls.map(|event| &event.caller) {
                if !seen.insert(caller) {
                    continue;
                }
                if let Some(id) = known.callers.get(caller) {
                    self.callers.insert(Caller::clone(caller), *id);
                    continue;
                }
                let principal = &caller.principal;
                let row = vec![
                    Value::Text(storable(&principal.key)),
                    text(principal.kind.as_ref()),
                    text(principal.account.as_ref()),
                    text(principal.service.as_ref()),
                    text(caller.session.as_ref()),
                    text(caller.arn.as_ref()),
                ];
                missing.insert(digest(caller)?, (caller, row));
            }
        }
        for (caller, id) in intern(known.backend, &CALLERS, missing, transaction).await? {
            self.callers.insert(caller.clone(), id);
        }
        Ok(())
    }

    /// Stores what pulls named and is not stored yet.
    pub(super) async fn add_targets(
        &mut self,
        known: &Interned,
        targets: &[(i64, Images)],
        transaction: &mut Transaction<'static, Any>,
    ) -> Result<(), LedgerError> {
        let mut seen = HashSet::new();
        let mut missing: BTreeMap<Digest, (&(i64, Images), Vec<Value>)> = BTreeMap::new();
        {
            let known = known.lock();
            for target in targets {
                if !seen.insert(target) {
                    continue;
                }
                if let Some(id) = known.targets.get(target) {
                    self.targets.insert(target.clone(), *id);
                    continue;
                }
                let (repository, images) = target;
                let by_tag = images.iter().any(|image| image.digest.is_none());
                let json = serde_json::to_string(images).map_err(|error| unstorable(&error))?;
                let row = vec![
                    Value::Integer(*repository),
                    Value::Integer(by_tag.into()),
                    Value::Text(json),
                ];
                missing.insert(digest(target)?, (target, row));
            }
        }
        for (target, id) in intern(known.backend, &TARGETS, missing, transaction).await? {
            self.targets.insert(target.clone(), id);
        }
        Ok(())
    }

    /// Notes who pulled from which repository.
    pub(super) async fn add_pullers(
        &mut self,
        known: &Interned,
        pairs: impl Iterator<Item = (i64, i64)>,
        transaction: &mut Transaction<'static, Any>,
    ) -> Result<(), LedgerError> {
        let mut added: Vec<(i64, i64)> = {
            let known = known.lock();
            pairs
                .filter(|pair| !known.pullers.contains(pair) && self.pullers.insert(*pair))
                .collect()
        };
        // Two writers that take the same rows in one order do not wait for each other in a circle.
        added.sort_unstable();
        for slice in slices(&added) {
            let sql = format!(
                "INSERT INTO pullers (repository,caller) VALUES {} ON CONFLICT DO NOTHING",
                rows(known.backend, slice.len(), 2)
            );
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for (repository, caller) in slice {
                query = query.bind(*repository).bind(*caller);
            }
            query.execute(&mut **transaction).await?;
        }
        Ok(())
    }

    pub(super) fn repository(&self, repository: &Repository) -> Option<i64> {
        self.repositories.get(repository).copied()
    }

    pub(super) fn caller(&self, caller: &Caller) -> Option<i64> {
        self.callers.get(caller).copied()
    }

    pub(super) fn target(&self, target: &(i64, Images)) -> Option<i64> {
        self.targets.get(target).copied()
    }
}

/// The ids of these rows: of those that are there, and of those that are added now.
async fn intern<K>(
    backend: Backend,
    table: &Table,
    mut missing: BTreeMap<Digest, (K, Vec<Value>)>,
    transaction: &mut Transaction<'static, Any>,
) -> Result<Vec<(K, i64)>, LedgerError> {
    let mut found = Vec::with_capacity(missing.len());
    find(backend, table, &mut missing, &mut found, transaction).await?;
    if missing.is_empty() {
        return Ok(found);
    }
    insert(backend, table, &missing, transaction).await?;
    // Also finds what another writer has added meanwhile.
    find(backend, table, &mut missing, &mut found, transaction).await?;
    if missing.is_empty() {
        Ok(found)
    } else {
        Err(LedgerError::Unreadable {
            what: "name",
            reason: format!("a row just added to {} is not there", table.name),
        })
    }
}

async fn find<K>(
    backend: Backend,
    table: &Table,
    missing: &mut BTreeMap<Digest, (K, Vec<Value>)>,
    found: &mut Vec<(K, i64)>,
    transaction: &mut Transaction<'static, Any>,
) -> Result<(), LedgerError> {
    let digests: Vec<Digest> = missing.keys().copied().collect();
    for slice in slices(&digests) {
        let sql = format!(
            "SELECT id, digest FROM {} WHERE digest IN ({})",
            table.name,
            parameters(backend, slice.len())
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for digest in slice {
            query = query.bind(digest.to_vec());
        }
        for row in query.fetch_all(&mut **transaction).await? {
            let digest: &[u8] = row.try_get(1)?;
            let key = Digest::try_from(digest)
                .ok()
                .and_then(|digest| missing.remove(&digest));
            if let Some((key, _)) = key {
                found.push((key, row.try_get(0)?));
            }
        }
    }
    Ok(())
}

async fn insert<K>(
    backend: Backend,
    table: &Table,
    missing: &BTreeMap<Digest, (K, Vec<Value>)>,
    transaction: &mut Transaction<'static, Any>,
) -> Result<(), LedgerError> {
    let added: Vec<(&Digest, &Vec<Value>)> = missing
        .iter()
        .map(|(digest, (_, row))| (digest, row))
        .collect();
    for slice in slices(&added) {
        let columns = slice.first().map_or(0, |(_, row)| row.len() + 1);
        let sql = format!(
            "INSERT INTO {} (digest,{}) VALUES {} ON CONFLICT DO NOTHING",
            table.name,
            table.columns,
            rows(backend, slice.len(), columns)
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for (digest, row) in slice {
            query = query.bind(digest.to_vec());
            for value in *row {
                query = match value {
                    Value::Text(text) => query.bind(text.as_str()),
                    Value::Integer(integer) => query.bind(*integer),
                };
            }
        }
        query.execute(&mut **transaction).await?;
    }
    Ok(())
}
