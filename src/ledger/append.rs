//! Adding a page: its facts and the time it covers, in one transaction.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use sqlx::{Any, AssertSqlSafe, Row as _, Transaction, any::AnyArguments, query::Query};

use super::{
    APPEND, Backend, InTime as _, Ledger, LedgerError, coverage,
    intern::{Ids, Interned},
    key::{call_key, event_key, pack},
    meter::Operation,
    remember,
    statement::{rows, slices, storable},
    touched,
    trail::{self, FileRow},
};
use crate::event::{
    Action, Event, EventName, ImageId, Interval, Outcome, Repository, is_instance_id,
};

/// Flag of a row: the call was refused.
pub(super) const DENIED: i64 = 1;
/// Flag of a row: its record names the caller by ARN, and counts before a copy that does not.
pub(super) const NAMES_ARN: i64 = 2;
/// Flag of a row: its record corrects another one.
pub(super) const CORRECTION: i64 = 4;
/// Flag of a row: the caller's session is an instance's, as that of a node is. These are the bulk of
/// all pulls, and an index leaves them out.
pub(super) const INSTANCE: i64 = 8;

/// How often an append that collided with another writer is tried.
const ATTEMPTS: usize = 6;

/// What a source has read at once: a page of an API's answer, a file, a message.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Kind of the source, for example `lookupEvents`.
    pub source: &'a str,
    /// Account whose CloudTrail was read.
    pub account: &'a str,
    /// AWS region that was read.
    pub region: &'a str,
    /// The event names that [`Self::covered`] and [`Self::settled`] are about.
    pub names: &'a [EventName],
    /// The decoded records.
    pub events: &'a [Event],
    /// ECR records that could not be decoded.
    pub undecodable: &'a [Undecodable<'a>],
    /// The event time that is now read in full, if this page says so.
    pub covered: Option<Interval>,
    /// The part of it that was read so long after its events that even late ones were seen.
    pub settled: Option<Interval>,
}

/// A record of ECR that could not be decoded. Kept for inspection, within bounds.
#[derive(Clone, Copy, Debug)]
pub struct Undecodable<'a> {
    /// The record's text.
    pub text: &'a str,
    /// Why it was not decoded.
    pub reason: &'a str,
    /// Its time: `eventTime` where that can be told, else when it was read.
    pub time: Timestamp,
}

/// What an append changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Records that the ledger did not hold yet, of those that say something of an image.
    pub new_events: usize,
    /// The same by name.
    pub by_name: BTreeMap<EventName, u64>,
    /// Records that it held already, or that this page holds twice.
    pub duplicates: usize,
    /// The repositories that the new records are about.
    pub repositories: BTreeSet<Repository>,
}

/// A row of `pulls`, in the order of its key.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct PullRow {
    repository: i64,
    time: i64,
    call: Vec<u8>,
    /// Empty when it is the call's id: a record without `sharedEventID` that corrects nothing.
    event: Vec<u8>,
    caller: i64,
    target: i64,
    flags: i64,
}

impl Ledger {
    /// Adds a page, whole or not at all. Appending it again, or a page that shares records with
    /// it, adds nothing twice, also when several processes do so at once.
    pub async fn append(&self, page: &Page<'_>) -> Result<Appended, LedgerError> {
        self.append_with(page, None).await
    }

    /// The same, with a trail's file that is read in full with this page.
    pub(super) async fn append_with(
        &self,
        page: &Page<'_>,
        file: Option<&FileRow<'_>>,
    ) -> Result<Appended, LedgerError> {
        self.timed(Operation::Append, self.append_patiently(page, file))
            .await
    }

    async fn append_patiently(
        &self,
        page: &Page<'_>,
        file: Option<&FileRow<'_>>,
    ) -> Result<Appended, LedgerError> {
        let mut pause = Duration::from_millis(10);
        for _ in 1..ATTEMPTS {
            match self.append_once(page, file).within(APPEND).await {
                Err(error) if error.is_collision() => {
                    tracing::debug!(%error, "append again");
                    tokio::time::sleep(pause).await;
                    pause *= 3;
                }
                result => return result,
            }
        }
        self.append_once(page, file).within(APPEND).await
    }

    async fn append_once(
        &self,
        page: &Page<'_>,
        file: Option<&FileRow<'_>>,
    ) -> Result<Appended, LedgerError> {
        let turn = self.write_turn().await;
        let mut transaction = self.begin().await?;
        let mut ids = Ids::default();
        let known = &self.inner.interned;
        let appended = append_facts(page, known, &mut ids, &mut transaction).await?;
        remember::add_unread(page, &mut transaction).await?;
        coverage::add(page, &mut transaction).await?;
        if let Some(file) = file {
            trail::add_file(page, file, &mut transaction).await?;
        }
        touched::touch(self.backend(), &appended.repositories, &mut transaction).await?;
        transaction.commit().await?;
        known.commit(ids);
        drop(turn);
        Ok(appended)
    }
}

/// The records of a page that say something of an image, each once.
struct Sorted<'a> {
    pulls: Vec<&'a Event>,
    changes: BTreeMap<Vec<u8>, &'a Event>,
    corrections: Vec<&'a Event>,
    facts: usize,
}

fn sort(events: &[Event]) -> Sorted<'_> {
    let mut sorted = Sorted {
        pulls: vec![],
        changes: BTreeMap::new(),
        corrections: vec![],
        facts: 0,
    };
    for event in events {
        // A correction counts even if it says nothing itself: what it replaces no longer does.
        if event.replaces.is_some() {
            sorted.corrections.push(event);
        }
        if event.repository.is_none() || event.action == Action::None {
            continue;
        }
        sorted.facts += 1;
        if matches!(event.action, Action::Pull(_)) {
            sorted.pulls.push(event);
        } else {
            sorted.changes.insert(event_key(event), event);
        }
    }
    sorted
}

async fn append_facts(
    page: &Page<'_>,
    known: &Interned,
    ids: &mut Ids,
    transaction: &mut Transaction<'static, Any>,
) -> Result<Appended, LedgerError> {
    let sorted = sort(page.events);
    let facts = sorted
        .pulls
        .iter()
        .copied()
        .chain(sorted.changes.values().copied());
    ids.add_repositories(known, facts, transaction).await?;
    let mut places: HashMap<i64, &Repository> = HashMap::new();
    for event in page.events {
        if let Some(repository) = &event.repository
            && let Some(id) = ids.repository(repository)
        {
            places.insert(id, repository);
        }
    }

    let mut by_name: BTreeMap<EventName, u64> = BTreeMap::new();
    let mut touched = add_pulls(&sorted.pulls, known, ids, transaction).await?;
    if !touched.is_empty() {
        by_name.insert(EventName::BatchGetImage, touched.len() as u64);
    }
    touched.extend(add_changes(&sorted.changes, known, ids, &mut by_name, transaction).await?);
    let new_events = touched.len();
    let mut repositories: BTreeSet<Repository> = touched
        .into_iter()
        .collect::<HashSet<i64>>()
        .into_iter()
        .filter_map(|id| places.get(&id).map(|&repository| repository.clone()))
        .collect();
    repositories.extend(add_corrections(&sorted.corrections, transaction).await?);
    Ok(Appended {
        new_events,
        by_name,
        duplicates: sorted.facts.saturating_sub(new_events),
        repositories,
    })
}

fn missing_id(what: &'static str) -> LedgerError {
    LedgerError::Unreadable {
        what,
        reason: "it has no id in this transaction".to_owned(),
    }
}

fn flags(event: &Event) -> i64 {
    let mut flags = 0;
    if event.outcome == Outcome::Denied {
        flags |= DENIED;
    }
    if event.caller.principal.key.starts_with("arn:") {
        flags |= NAMES_ARN;
    }
    if event.replaces.is_some() {
        flags |= CORRECTION;
    }
    if event.caller.session.as_deref().is_some_and(is_instance_id) {
        flags |= INSTANCE;
    }
    flags
}

/// Adds pulls; one repository's id for each that is new.
async fn add_pulls(
    pulls: &[&Event],
    known: &Interned,
    ids: &mut Ids,
    transaction: &mut Transaction<'static, Any>,
) -> Result<Vec<i64>, LedgerError> {
    let mut targets: Vec<(i64, Arc<[ImageId]>)> = Vec::with_capacity(pulls.len());
    for event in pulls {
        let repository = event.repository.as_ref();
        let id = repository.and_then(|repository| ids.repository(repository));
        let images: &[ImageId] = match &event.action {
            Action::Pull(images) => images,
            _ => &[],
        };
        targets.push((id.ok_or_else(|| missing_id("repository"))?, images.into()));
    }
    ids.add_callers(known, pulls.iter().copied(), transaction)
        .await?;
    ids.add_targets(known, &targets, transaction).await?;

    let mut added: Vec<PullRow> = Vec::with_capacity(pulls.len());
    for (event, target) in pulls.iter().zip(&targets) {
        let plain = event.shared_id.is_none() && event.replaces.is_none();
        added.push(PullRow {
            repository: target.0,
            time: event.time.as_second(),
            call: call_key(event),
            event: if plain { vec![] } else { event_key(event) },
            caller: ids
                .caller(&event.caller)
                .ok_or_else(|| missing_id("caller"))?,
            target: ids.target(target).ok_or_else(|| missing_id("target"))?,
            flags: flags(event),
        });
    }
    // Neighbours go to the same page of the file; and two writers that take the same rows in one
    // order do not wait for each other in a circle.
    added.sort_unstable();
    let pairs = added.iter().map(|row| (row.repository, row.caller));
    ids.add_pullers(known, pairs, transaction).await?;

    insert_pulls(known.backend(), &added, transaction).await
}

fn pulls_statement(
    backend: Backend,
    rows_of: &[PullRow],
    end: &str,
) -> Query<'static, Any, AnyArguments> {
    let sql = format!(
        "INSERT INTO pulls (repository,time,call_id,event_id,caller,target,flags) VALUES {} \
         ON CONFLICT DO NOTHING{end}",
        rows(backend, rows_of.len(), 7)
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for row in rows_of {
        query = query
            .bind(row.repository)
            .bind(row.time)
            .bind(row.call.clone())
            .bind(row.event.clone())
            .bind(row.caller)
            .bind(row.target)
            .bind(row.flags);
    }
    query
}

/// Stores pulls; one repository's id for each that was not there.
///
/// To be told which rows were new takes longer than to store them. Nearly always all of a statement
/// were, or none, and their number says so; where it does not, they are stored again, and told.
async fn insert_pulls(
    backend: Backend,
    added: &[PullRow],
    transaction: &mut Transaction<'static, Any>,
) -> Result<Vec<i64>, LedgerError> {
    let mut touched = Vec::with_capacity(added.len());
    if added.is_empty() {
        return Ok(touched);
    }
    execute("SAVEPOINT pulls", transaction).await?;
    let mut is_told = true;
    for slice in slices(added) {
        let result = pulls_statement(backend, slice, "")
            .execute(&mut **transaction)
            .await?;
        match usize::try_from(result.rows_affected()) {
            Ok(0) => {}
            Ok(new) if new == slice.len() => {
                touched.extend(slice.iter().map(|row| row.repository));
            }
            _ => {
                is_told = false;
                break;
            }
        }
    }
    if !is_told {
        execute("ROLLBACK TO SAVEPOINT pulls", transaction).await?;
        touched.clear();
        for slice in slices(added) {
            let query = pulls_statement(backend, slice, " RETURNING repository");
            for row in query.fetch_all(&mut **transaction).await? {
                touched.push(row.try_get(0)?);
            }
        }
    }
    execute("RELEASE SAVEPOINT pulls", transaction).await?;
    Ok(touched)
}

async fn execute(
    statement: &'static str,
    transaction: &mut Transaction<'static, Any>,
) -> Result<(), LedgerError> {
    sqlx::query(statement).execute(&mut **transaction).await?;
    Ok(())
}

/// Adds everything else; one repository's id for each that is new.
async fn add_changes(
    changes: &BTreeMap<Vec<u8>, &Event>,
    known: &Interned,
    ids: &Ids,
    by_name: &mut BTreeMap<EventName, u64>,
    transaction: &mut Transaction<'static, Any>,
) -> Result<Vec<i64>, LedgerError> {
    let added: Vec<(&Vec<u8>, &Event)> = changes.iter().map(|(key, event)| (key, *event)).collect();
    let mut touched = Vec::new();
    for slice in slices(&added) {
        let sql = format!(
            "INSERT INTO changes (event_id,call_id,repository,time,name,principal,flags,event) \
             VALUES {} ON CONFLICT DO NOTHING RETURNING repository, name",
            rows(known.backend(), slice.len(), 8)
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for (key, event) in slice {
            let repository = event.repository.as_ref();
            let json = serde_json::to_string(event).map_err(|error| LedgerError::Unreadable {
                what: "event",
                reason: error.to_string(),
            })?;
            query = query
                .bind(key.as_slice())
                .bind(call_key(event))
                .bind(
                    repository
                        .and_then(|repository| ids.repository(repository))
                        .ok_or_else(|| missing_id("repository"))?,
                )
                .bind(event.time.as_second())
                .bind(event.name.as_str())
                .bind(storable(&event.caller.principal.key))
                .bind(flags(event))
                .bind(json);
        }
        for row in query.fetch_all(&mut **transaction).await? {
            touched.push(row.try_get(0)?);
            let Ok(name) = row.try_get::<&str, _>(1)?.parse();
            *by_name.entry(name).or_default() += 1;
        }
    }
    Ok(touched)
}

/// Notes which records are replaced. Of several corrections of one record, the one with the
/// greatest key counts: any rule would do, as long as it is the same in any order of arrival.
///
/// The repositories whose facts this changes, as far as the corrections name them.
async fn add_corrections(
    corrections: &[&Event],
    transaction: &mut Transaction<'static, Any>,
) -> Result<BTreeSet<Repository>, LedgerError> {
    let mut repositories = BTreeSet::new();
    if corrections.is_empty() {
        return Ok(repositories);
    }
    // One at a time: which one counts depends on all that are there.
    sqlx::query("UPDATE state SET value = '' WHERE key = 'corrections'")
        .execute(&mut **transaction)
        .await?;
    let mut originals = BTreeSet::new();
    for event in corrections {
        let Some(replaces) = &event.replaces else {
            continue;
        };
        let (replaces, own) = (pack(replaces), pack(&event.id));
        let added = sqlx::query(
            "INSERT INTO corrections (replaces,event_id,own_id) VALUES ($1,$2,$3)
             ON CONFLICT DO NOTHING",
        )
        .bind(replaces.as_slice())
        .bind(event_key(event))
        .bind(own.as_slice())
        .execute(&mut **transaction)
        .await?;
        if added.rows_affected() > 0 {
            repositories.extend(event.repository.clone());
            originals.insert(replaces);
            originals.insert(own);
        }
    }
    for original in originals {
        for loser in replaced_by_corrections(&original, transaction).await? {
            sqlx::query("INSERT INTO superseded (event_id) VALUES ($1) ON CONFLICT DO NOTHING")
                .bind(loser)
                .execute(&mut **transaction)
                .await?;
        }
    }
    Ok(repositories)
}

/// The keys that no longer count, since something corrects the record of this id.
async fn replaced_by_corrections(
    original: &[u8],
    transaction: &mut Transaction<'static, Any>,
) -> Result<Vec<Vec<u8>>, LedgerError> {
    let rivals = sqlx::query("SELECT event_id FROM corrections WHERE replaces = $1")
        .bind(original)
        .fetch_all(&mut **transaction)
        .await?;
    let mut losers: Vec<Vec<u8>> = Vec::with_capacity(rivals.len());
    for row in &rivals {
        losers.push(row.try_get(0)?);
    }
    losers.sort_unstable();
    if losers.pop().is_none() {
        return Ok(vec![]);
    }
    losers.push(original.to_vec());
    // The record that is replaced may be a correction of another one itself.
    let earlier =
        sqlx::query("SELECT event_id FROM corrections WHERE own_id = $1 AND replaces <> $1")
            .bind(original)
            .fetch_all(&mut **transaction)
            .await?;
    for row in &earlier {
        losers.push(row.try_get(0)?);
    }
    Ok(losers)
}
