//! One message's work: its facts, or the files that it names, until they are in the ledger, and what
//! digest files say of these.
//!
//! Nothing here deletes a message. [`End`] says whether it may be: only when everything that it
//! brings is stored, or is known to be missing for good and told as a gap.

mod digests;
mod fetch;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_sdk_s3::Client;
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use super::{
    client::Queue,
    cover::{Cover, name_of, whole},
    faults::{Faults, Task},
    message::{Content, Object, Poison},
};
use crate::{
    event::{Event, Interval},
    source::{
        Changes, Counters, Gap, Learned, Page, Place, PollerSpec, Reason, SourceKind, Store, Tally,
        UndecodableRecord,
        fault::Fault,
        trail::{LogFile, ObjectKey, Objects, SETTLING},
    },
};

/// What this is in metrics.
pub(super) const KIND: SourceKind = SourceKind::Sqs;

/// The files of one message that are read side by side.
const SIDE_BY_SIDE: usize = 4;
/// How long after the minute in a file's name its events may have happened.
const DELIVERED_WITHIN: SignedDuration = SignedDuration::from_mins(1);

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Everything that it brings is kept: it is deleted.
    Done,
    /// It is left to the queue.
    Left,
}

/// What asks AWS; made anew when credentials change.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) queue: Queue,
    pub(super) s3: Client,
}

/// What all work on one queue shares.
pub(super) struct Worker {
    pub(super) store: Arc<dyn Store>,
    pub(super) changes: Arc<Changes>,
    pub(super) counters: Arc<Counters>,
    pub(super) spec: watch::Receiver<PollerSpec>,
    pub(super) objects: Arc<Objects>,
    /// What coverage is stored under.
    pub(super) name: Arc<str>,
    pub(super) clients: Mutex<Arc<Clients>>,
    pub(super) faults: Mutex<Faults>,
    /// Locked while something is learned, so that memory and ledger say the same.
    pub(super) cover: tokio::sync::Mutex<Cover>,
    /// Files read so far.
    pub(super) files: AtomicU64,
    /// Digest files that were looked after.
    pub(super) digests: Mutex<HashSet<Arc<str>>>,
    /// Something is to be shown.
    pub(super) moved: AtomicBool,
}

impl Worker {
    pub(super) fn clients(&self) -> Arc<Clients> {
        let clients = self.clients.lock();
        clients.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a fault; how long to wait before the next try.
    pub(super) fn failed(&self, task: Task, fault: Fault) -> Duration {
        let (region, reason) = (self.spec.borrow().key.region.clone(), fault.reason);
        self.counters
            .count_error(KIND, &Arc::default(), &region, reason);
        let message = fault.message.clone();
        let (wait, is_news) = self.faults().note(task, fault, Timestamp::now());
        if is_news {
            warn!(queue = %self.name, %reason, %message, "the queue is not read as it should be");
            self.moved.store(true, Ordering::Relaxed);
        }
        wait
    }

    /// It works.
    pub(super) fn works(&self, task: &Task) {
        if self.faults().clear(task) {
            info!(queue = %self.name, ?task, "it works again");
            self.moved.store(true, Ordering::Relaxed);
        }
    }

    /// Stores what messages are themselves. They are in the ledger when this returns.
    pub(super) async fn facts(&self, contents: Vec<Content>) {
        let mut pages: BTreeMap<Place, (Vec<Event>, Vec<UndecodableRecord>)> = BTreeMap::new();
        let place = |account: &str, region: &str| Place {
            account: account.into(),
            region: region.into(),
        };
        for content in contents {
            if let Some(event) = content.event {
                let key = place(&event.account, &event.region);
                pages.entry(key).or_default().0.push(event);
            }
            if let Some(unread) = content.unread {
                let key = place(&unread.account, &unread.region);
                pages.entry(key).or_default().1.push(UndecodableRecord {
                    text: unread.text,
                    error: unread.reason,
                    time: Some(Timestamp::now()),
                });
            }
        }
        for (place, (events, undecodable)) in pages {
            let page = Page {
                source: KIND.as_str().into(),
                place,
                // An event that was brought says nothing of those that were not.
                names: vec![],
                events,
                undecodable,
                read: None,
                settled: None,
            };
            let stored = loop {
                match self.store.append(page.clone()).await {
                    Ok(stored) => break stored,
                    Err(error) => self.ledger_failed(error.to_string()).await,
                }
            };
            self.works(&Task::Ledger);
            for (name, count) in stored.by_name {
                self.counters.count_events(KIND, name, count);
            }
            if !stored.repositories.is_empty() {
                self.changes.repositories(stored.repositories);
            }
        }
    }

    async fn ledger_failed(&self, message: String) {
        let fault = Fault::new(Reason::Ledger, message);
        sleep(self.failed(Task::Ledger, fault)).await;
    }

    /// Reads the files that a message names.
    pub(super) async fn objects(&self, objects: Vec<Object>, sent: Timestamp) -> End {
        let ends: Vec<End> = stream::iter(objects)
            .map(|object| async move { Box::pin(self.object(&object, sent)).await })
            .buffer_unordered(SIDE_BY_SIDE)
            .collect()
            .await;
        if ends.contains(&End::Left) {
            End::Left
        } else {
            End::Done
        }
    }

    async fn object(&self, object: &Object, sent: Timestamp) -> End {
        let key = ObjectKey::parse(None, &object.key);
        let place = match &key {
            ObjectKey::Log(file) => &file.place,
            ObjectKey::Digest(file) => &file.place,
            ObjectKey::Other => {
                self.skipped();
                return End::Done;
            }
        };
        if !self.spec.borrow().wants_bucket(&object.bucket) {
            // Another trail's, or none: anybody can name a bucket.
            self.skipped();
            return End::Done;
        }
        let is_wanted = self.spec.borrow().wants_account(&place.account);
        if !is_wanted {
            self.skipped();
            let mut cover = self.cover.lock().await;
            if let ObjectKey::Log(file) = &key
                && cover.places().any(|known| known == place)
            {
                // It was wanted once, and may be again: what is left out now is not there then.
                let gap = gap(object, file, Reason::FileMissing, "left out by the policy");
                let name = name_of(&object.bucket, &object.key);
                let learned = cover.missing(place, &name, gap);
                self.learn(&mut cover, place, learned).await;
            }
            return End::Done;
        }
        {
            let mut cover = self.cover.lock().await;
            let learned = cover.seen(place, sent);
            self.learn(&mut cover, place, learned).await;
        }
        match &key {
            ObjectKey::Log(file) => self.file(object, file).await,
            ObjectKey::Digest(file) => self.digest(&object.bucket, file.clone()).await,
            ObjectKey::Other => End::Done,
        }
    }

    /// Reads a file.
    async fn file(&self, object: &Object, file: &LogFile) -> End {
        match self.read(object, &ObjectKey::Log(file.clone())).await {
            Ok(_) => {
                self.files.fetch_add(1, Ordering::Relaxed);
                let doubted = {
                    let mut cover = self.cover.lock().await;
                    let name = name_of(&object.bucket, &object.key);
                    let learned = cover.found(&file.place, &name);
                    self.learn(&mut cover, &file.place, learned).await;
                    cover.doubted(&object.bucket, file)
                };
                for digest in doubted {
                    self.forget_digest(&digest);
                    self.digest(&object.bucket, digest).await;
                }
                End::Done
            }
            Err(fault) => {
                let is_gone = fault.reason == Reason::FileMissing;
                self.miss(object, file, fault).await;
                // What a lifecycle rule removed does not come back, however often it is asked for.
                if is_gone { End::Done } else { End::Left }
            }
        }
    }

    async fn miss(&self, object: &Object, file: &LogFile, fault: Fault) {
        let gap = gap(object, file, fault.reason, &fault.message);
        let name = name_of(&object.bucket, &object.key);
        let mut cover = self.cover.lock().await;
        let learned = cover.missing(&file.place, &name, gap);
        self.learn(&mut cover, &file.place, learned).await;
    }

    /// A message that nobody can read. It may have told of a file of any account.
    pub(super) async fn poison(&self, id: &str, sent: Timestamp, poison: Poison) {
        let message = format!("message {id}: {poison}");
        self.failed(
            Task::Messages,
            Fault::new(Reason::MessageUnreadable, &message),
        );
        if poison == Poison::Subscription {
            // It brings nothing: the topic sends nothing until somebody confirms it.
            return;
        }
        let gap = Gap {
            reason: Reason::MessageUnreadable,
            message: Fault::new(Reason::MessageUnreadable, message).message,
            span: Interval {
                start: sent.checked_sub(SETTLING).unwrap_or(sent),
                end: sent.checked_add(DELIVERED_WITHIN).unwrap_or(sent),
            },
        };
        let mut cover = self.cover.lock().await;
        let learned = cover.missing(&whole(), id, gap);
        self.learn(&mut cover, &whole(), learned).await;
    }

    /// The queue had nothing in it at an instant: that counts as read, in ledger and memory.
    pub(super) async fn drained(&self, at: Timestamp, retention: SignedDuration) {
        let mut cover = self.cover.lock().await;
        loop {
            // What other processes could not read is missing here, too.
            match self.store.trail(&self.name).await {
                Ok(states) => break *cover = Cover::new(states),
                Err(error) => self.ledger_failed(error.to_string()).await,
            }
        }
        let old = at
            .checked_sub(self.spec.borrow().lookback)
            .unwrap_or(Timestamp::MIN);
        let mut all = cover.forget(old);
        all.extend(cover.claims(at, retention));
        for (place, learned) in all {
            self.learn(&mut cover, &place, Some(learned)).await;
        }
    }

    /// Keeps what was learned, in the ledger first.
    async fn learn(&self, cover: &mut Cover, place: &Place, learned: Option<Learned>) {
        let Some(learned) = learned else { return };
        while let Err(error) = self.store.learn(&self.name, place, learned.clone()).await {
            self.ledger_failed(error.to_string()).await;
        }
        self.works(&Task::Ledger);
        cover.apply(place, &learned);
        self.moved.store(true, Ordering::Relaxed);
    }

    fn skipped(&self) {
        self.tally(|tally| tally.skipped += 1);
    }

    fn tally(&self, count: impl FnOnce(&mut Tally)) {
        let mut tally = Tally::default();
        count(&mut tally);
        self.counters.count_objects(KIND, tally);
    }
}

/// The time that a file is about which was not read.
fn gap(object: &Object, file: &LogFile, reason: Reason, message: &str) -> Gap {
    let message = format!("s3://{}/{}: {message}", object.bucket, object.key);
    let delivered = file.delivered;
    Gap {
        reason,
        // On one line and bounded.
        message: Fault::new(reason, message).message,
        span: Interval {
            start: delivered.checked_sub(SETTLING).unwrap_or(delivered),
            end: delivered.checked_add(DELIVERED_WITHIN).unwrap_or(delivered),
        },
    }
}
