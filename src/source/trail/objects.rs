//! Fetches objects and stores what is in them.
//!
//! All readers of the process share the memory that objects on their way may take, so a bucket full
//! of large files, or a thousand messages at once, cost time and not memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZero,
    sync::{Arc, Mutex, PoisonError},
};

use aws_sdk_s3::Client;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::LogFile;
use crate::{
    event::{DecodeError, Event, EventName, Repository, decode},
    source::{
        FilePage, Reason, Store, UndecodableRecord,
        fault::Fault,
        files::object::{self, Content, Memory},
    },
};

/// What all objects on their way may take together, as they lie in the bucket.
const BUDGET: u64 = 64 << 20;
/// The longest object that is read.
const LONGEST: u64 = BUDGET;
/// What an object takes of the budget whose length nobody told.
const GUESS: u64 = 1 << 20;
/// The budget's unit.
const UNIT: u64 = 1 << 10;
/// Records that are stored in one transaction.
const BATCH: usize = 5_000;
/// Bytes of records that cannot be decoded that are stored at a time.
const UNREAD: usize = 4 << 20;
/// Objects that are decoded at the same time, if the machine has cores for them. More would wait for
/// one another, each with its text in memory.
const MOST_DECODING: usize = 4;
/// The longest text of a digest file that is read.
const LONGEST_DIGEST: u64 = 16 << 20;

/// Fetches objects, within bounds, and stores what is in them.
pub(crate) struct Objects {
    store: Arc<dyn Store>,
    budget: Arc<Semaphore>,
    decoding: Arc<Semaphore>,
    memory: Mutex<Vec<Memory>>,
}

/// A log file that was read and stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Read {
    /// SHA-256 of its text.
    pub(crate) hash: [u8; 32],
    /// Its length, as it lies in the bucket.
    pub(crate) bytes: u64,
    /// Events that were not known before, by name.
    pub(crate) new: BTreeMap<EventName, u64>,
    /// Repositories that these are about.
    pub(crate) repositories: BTreeSet<Repository>,
}

/// An object in memory, and its part of the budget.
struct Fetched {
    bytes: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

/// Records on their way to the ledger.
#[derive(Default)]
struct Batch {
    events: Vec<Event>,
    undecodable: Vec<UndecodableRecord>,
    /// How long the texts of these are.
    unread: usize,
}

impl Batch {
    fn record(&mut self, text: &[u8]) {
        match decode(text) {
            Ok(event) => self.events.push(event),
            Err(DecodeError::OtherService) => {}
            Err(error) => {
                self.unread += text.len();
                self.undecodable.push(UndecodableRecord {
                    text: String::from_utf8_lossy(text).into_owned(),
                    error: error.to_string(),
                    time: None,
                });
            }
        }
    }

    const fn is_full(&self) -> bool {
        self.events.len() + self.undecodable.len() >= BATCH || self.unread >= UNREAD
    }
}

impl Objects {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        let units = usize::try_from(BUDGET / UNIT).unwrap_or(usize::MAX);
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            store,
            budget: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))),
            decoding: Arc::new(Semaphore::new(cores.min(MOST_DECODING))),
            memory: Mutex::default(),
        }
    }

    /// Reads a log file and stores its facts, with the last of them that it was read. `length` is
    /// what a listing or message says; `now` when this is.
    ///
    /// # Errors
    /// [`Reason::FileMissing`] and [`Reason::FileUnreadable`] are about the file itself, anything
    /// else about the way to it. What was read before a fault is stored, the file is not noted.
    pub(crate) async fn read(
        &self,
        client: &Client,
        bucket: &str,
        file: &LogFile,
        length: Option<u64>,
        now: Timestamp,
    ) -> Result<Read, Fault> {
        let fetched = self.get(client, bucket, &file.key, length).await?;
        let bytes = fetched.bytes.len() as u64;
        let trail = trail(bucket, &file.root);
        let page = |batch: Batch, end| FilePage {
            trail: trail.clone(),
            place: file.place.clone(),
            delivered: file.delivered,
            unique: file.unique.clone(),
            events: batch.events,
            undecodable: batch.undecodable,
            end,
        };
        let (sender, mut batches) = mpsc::channel::<Batch>(2);
        let turn = self.decoding.clone().acquire_owned().await;
        let turn = turn.map_err(|error| Fault::new(Reason::Refused, error.to_string()))?;
        let mut memory = self.take_memory();
        let decoding = tokio::task::spawn_blocking(move || {
            let mut batch = Batch::default();
            let content = object::read(&fetched.bytes, &mut memory, &mut |text| {
                batch.record(text);
                if batch.is_full() {
                    // Nobody listens any more: what is found is of no use.
                    let _ = sender.blocking_send(std::mem::take(&mut batch));
                }
            });
            (batch, content, memory, turn)
        });
        let mut read = Read {
            bytes,
            ..Read::default()
        };
        while let Some(batch) = batches.recv().await {
            self.keep(page(batch, None), &mut read).await?;
        }
        let (mut batch, content, memory, turn) = decoding
            .await
            .map_err(|error| unreadable(&file.key, &error.to_string()))?;
        self.give_back(memory);
        drop(turn);
        let Content {
            hash,
            too_long,
            fault,
        } = content;
        for index in too_long {
            batch.undecodable.push(UndecodableRecord {
                text: format!("{} record {index}", file.key),
                error: "longer than 4 MiB, which no record of CloudTrail is".to_owned(),
                time: None,
            });
        }
        let end = fault.is_none().then_some((now, hash));
        self.keep(page(batch, end), &mut read).await?;
        if let Some(fault) = fault {
            return Err(unreadable(&file.key, &fault));
        }
        read.hash = hash;
        Ok(read)
    }

    /// The text of a digest file.
    ///
    /// # Errors
    /// As [`Objects::read`].
    pub(crate) async fn text(
        &self,
        client: &Client,
        bucket: &str,
        key: &str,
        length: Option<u64>,
    ) -> Result<Vec<u8>, Fault> {
        let fetched = self.get(client, bucket, key, length).await?;
        object::text(&fetched.bytes, LONGEST_DIGEST).map_err(|fault| unreadable(key, &fault))
    }

    async fn keep(&self, page: FilePage, read: &mut Read) -> Result<(), Fault> {
        let stored = self.store.append_file(page).await;
        let stored = stored.map_err(|error| Fault::new(Reason::Ledger, error.to_string()))?;
        for (name, count) in stored.by_name {
            *read.new.entry(name).or_default() += count;
        }
        read.repositories.extend(stored.repositories);
        Ok(())
    }

    async fn get(
        &self,
        client: &Client,
        bucket: &str,
        key: &str,
        length: Option<u64>,
    ) -> Result<Fetched, Fault> {
        let mut wanted = length.unwrap_or(GUESS);
        loop {
            if wanted > LONGEST {
                return Err(unreadable(key, "longer than 64 MiB"));
            }
            let permit = self.permit(wanted).await?;
            let answer = client.get_object().bucket(bucket).key(key).send().await;
            let answer = answer.map_err(|error| of_object(&Fault::of(&error), key))?;
            let told = answer
                .content_length()
                .and_then(|length| u64::try_from(length).ok());
            if let Some(told) = told
                && told > wanted
            {
                wanted = told;
                continue;
            }
            let mut bytes =
                Vec::with_capacity(usize::try_from(told.unwrap_or(wanted)).unwrap_or(0));
            let mut body = answer.body;
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(|error| {
                    let mut text = format!("{}: {error}", name_of(key));
                    let mut cause = std::error::Error::source(&error);
                    while let Some(error) = cause {
                        text = format!("{text}: {error}");
                        cause = error.source();
                    }
                    Fault::new(Reason::Truncated, text)
                })?;
                bytes.extend_from_slice(&chunk);
                if bytes.len() as u64 > wanted {
                    return Err(unreadable(key, "longer than its answer said"));
                }
            }
            if told.is_some_and(|told| told != bytes.len() as u64) {
                let text = format!("{}: the answer ended before it was whole", name_of(key));
                return Err(Fault::new(Reason::Truncated, text));
            }
            return Ok(Fetched {
                bytes,
                _permit: permit,
            });
        }
    }

    async fn permit(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Fault> {
        let units = u32::try_from(bytes.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX);
        let permit = self.budget.clone().acquire_many_owned(units).await;
        // It is never closed.
        permit.map_err(|error| Fault::new(Reason::Refused, error.to_string()))
    }

    fn take_memory(&self) -> Memory {
        let mut free = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop().unwrap_or_default()
    }

    fn give_back(&self, memory: Memory) {
        let mut free = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < MOST_DECODING {
            free.push(memory);
        }
    }
}

/// How the ledger names a trail's evidence.
pub(crate) fn trail(bucket: &str, root: &str) -> Arc<str> {
    format!("s3://{bucket}/{root}").into()
}

/// The last part of a key, which names account, region and time, too.
pub(crate) fn name_of(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}

fn unreadable(key: &str, fault: &str) -> Fault {
    Fault::new(Reason::FileUnreadable, format!("{}: {fault}", name_of(key)))
}

fn of_object(fault: &Fault, key: &str) -> Fault {
    let message = format!("{}: {}", name_of(key), fault.message);
    Fault::new(fault.reason, message)
}
