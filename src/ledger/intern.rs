//! Small integers for what many rows repeat: repositories, callers, the images a pull names.
//!
//! Each of these tables finds its rows by a digest of their content, so that long and hostile
//! names cost the index no more than short ones. Ids that committed transactions stored are
//! remembered, within a bound; ids are never given twice, so a remembered one stays right.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use sqlx::{Any, AssertSqlSafe, Row as _, Transaction};

use super::{
    LedgerError,
    statement::{parameters, rows, slices, storable},
};
use crate::event::{Caller, Event, ImageId, Repository};

/// How many ids of each kind are remembered.
const REMEMBERED: usize = 16_384;

/// Bytes of SHA-256 that find a row.
const DIGEST_LEN: usize = 16;

/// Ids by content. Emptied when full: what is in use comes back with the next page.
#[derive(Debug)]
struct Remembered<K>(HashMap<K, i64>);

impl<K> Default for Remembered<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq> Remembered<K> {
    fn extend(&mut self, added: HashMap<K, i64>) {
        if self.0.len() + added.len() > REMEMBERED {
            self.0.clear();
        }
        self.0.extend(added.into_iter().take(REMEMBERED));
    }
}

type Images = Arc<[ImageId]>;

/// What committed transactions have stored.
#[derive(Debug, Default)]
pub(super) struct Interned {
    repositories: Remembered<Repository>,
    callers: Remembered<Caller>,
    targets: Remembered<(i64, Images)>,
    pullers: HashSet<(i64, i64)>,
}

/// The ids that one transaction uses, and those of them that it found out itself: these are
/// remembered once it has committed, and forgotten otherwise.
#[derive(Debug, Default)]
pub(super) struct Ids {
    repositories: HashMap<Repository, i64>,
    callers: HashMap<Caller, i64>,
    targets: HashMap<(i64, Images), i64>,
    pullers: HashSet<(i64, i64)>,
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

type Digest = [u8; DIGEST_LEN];

fn digest(content: &impl serde::Serialize) -> Result<Digest, LedgerError> {
    let content = serde_json::to_vec(content).map_err(|error| LedgerError::Unreadable {
        what: "name",
        reason: error.to_string(),
    })?;
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

impl Interned {
    pub(super) fn commit(&mut self, ids: Ids) {
        self.repositories.extend(ids.repositories);
        self.callers.extend(ids.callers);
        self.targets.extend(ids.targets);
        if self.pullers.len() + ids.pullers.len() > REMEMBERED * 4 {
            self.pullers.clear();
        }
        self.pullers.extend(ids.pullers);
    }
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
        for repository in events.filter_map(|event| event.repository.as_ref()) {
            if known.repositories.0.contains_key(repository) {
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
        for (repository, id) in intern(&REPOSITORIES, missing, transaction).await? {
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
        for caller in pulls.map(|event| &event.caller) {
            if known.callers.0.contains_key(caller) || !seen.insert(caller) {
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
        for (caller, id) in intern(&CALLERS, missing, transaction).await? {
            self.callers.insert(caller.clone(), id);
        }
        Ok(())
    }

    /// Stores what pulls named and is not stored yet.
    pub(super) async fn add_targets(
        &mut self,
        known: &Interned,
        targets: impl Iterator<Item = (i64, Images)>,
        transaction: &mut Transaction<'static, Any>,
    ) -> Result<(), LedgerError> {
        let mut seen = HashSet::new();
        let mut missing: BTreeMap<Digest, ((i64, Images), Vec<Value>)> = BTreeMap::new();
        for target in targets {
            if known.targets.0.contains_key(&target) || !seen.insert(target.clone()) {
                continue;
            }
            let (repository, images) = &target;
            let by_tag = images.iter().any(|image| image.digest.is_none());
            let json = serde_json::to_string(images).map_err(|error| LedgerError::Unreadable {
                what: "target",
                reason: error.to_string(),
            })?;
            let row = vec![
                Value::Integer(*repository),
                Value::Integer(by_tag.into()),
                Value::Text(json),
            ];
            missing.insert(digest(&target)?, (target, row));
        }
        self.targets
            .extend(intern(&TARGETS, missing, transaction).await?);
        Ok(())
    }

    /// Notes who pulled from which repository.
    pub(super) async fn add_pullers(
        &mut self,
        known: &Interned,
        pairs: impl Iterator<Item = (i64, i64)>,
        transaction: &mut Transaction<'static, Any>,
    ) -> Result<(), LedgerError> {
        let mut added: Vec<(i64, i64)> = pairs
            .filter(|pair| !known.pullers.contains(pair) && self.pullers.insert(*pair))
            .collect();
        // Two writers that take the same rows in one order do not wait for each other in a circle.
        added.sort_unstable();
        for slice in slices(&added) {
            let sql = format!(
                "INSERT INTO pullers (repository,caller) VALUES {} ON CONFLICT DO NOTHING",
                rows(slice.len(), 2)
            );
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for (repository, caller) in slice {
                query = query.bind(*repository).bind(*caller);
            }
            query.execute(&mut **transaction).await?;
        }
        Ok(())
    }

    pub(super) fn repository(&self, known: &Interned, repository: &Repository) -> Option<i64> {
        let id = self.repositories.get(repository);
        id.or_else(|| known.repositories.0.get(repository)).copied()
    }

    pub(super) fn caller(&self, known: &Interned, caller: &Caller) -> Option<i64> {
        let id = self.callers.get(caller);
        id.or_else(|| known.callers.0.get(caller)).copied()
    }

    pub(super) fn target(&self, known: &Interned, target: &(i64, Images)) -> Option<i64> {
        let id = self.targets.get(target);
        id.or_else(|| known.targets.0.get(target)).copied()
    }
}

/// The ids of these rows: of those that are there, and of those that are added now.
async fn intern<K>(
    table: &Table,
    mut missing: BTreeMap<Digest, (K, Vec<Value>)>,
    transaction: &mut Transaction<'static, Any>,
) -> Result<Vec<(K, i64)>, LedgerError> {
    let mut found = Vec::with_capacity(missing.len());
    find(table, &mut missing, &mut found, transaction).await?;
    if missing.is_empty() {
        return Ok(found);
    }
    insert(table, &missing, transaction).await?;
    // Also finds what another writer has added meanwhile.
    find(table, &mut missing, &mut found, transaction).await?;
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
            parameters(1, slice.len())
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
            rows(slice.len(), columns)
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
