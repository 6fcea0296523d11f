//! The reader that `make bench-trail` and `make bench-day` measure: the operator's own readers, and
//! nothing of the operator around them.
//!
//! ```text
//! ingest disk FOLDER [--ledger URL]           trail files below a folder
//! ingest s3 BUCKET FILES [--ledger URL]       a trail's bucket, until that many files were read
//! ingest history EVENTS [--ledger URL]        the Event history, until that many were stored
//! ```
//!
//! Without a ledger what was decoded is counted and dropped. It prints one line: what it read, and
//! how long that took; whoever started it knows what it cost.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use ecr_audit::{
    event::{Event, EventName, Interval, decode},
    ledger::Ledger,
    source::{
        Coverage, FilePage, KnownFile, Learned, Origin, Page, Place, PollerKey, PollerSpec,
        Pollers, SourceKind, Store, StoreError, Stored, TrailState,
        files::{self, Progress, Record},
    },
};
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

/// Records that are stored in one transaction, as the readers of buckets do it.
const BATCH: usize = 5_000;
const REGION: &str = "us-east-1";

/// Counts what would be stored, and hands it on if there is a ledger.
struct Counted {
    ledger: Option<Ledger>,
    events: AtomicU64,
    new: AtomicU64,
}

impl Counted {
    fn note(&self, events: usize, stored: &Stored) {
        self.events.fetch_add(events as u64, Ordering::Relaxed);
        self.new.fetch_add(stored.new_events, Ordering::Relaxed);
    }
}

impl Store for Counted {
    fn coverage<'a>(
        &'a self,
        source: &'a str,
        place: &'a Place,
    ) -> BoxFuture<'a, Result<BTreeMap<EventName, Coverage>, StoreError>> {
        match &self.ledger {
            Some(ledger) => Store::coverage(ledger, source, place),
            None => Box::pin(async { Ok(BTreeMap::new()) }),
        }
    }

    fn append(&self, page: Page) -> BoxFuture<'_, Result<Stored, StoreError>> {
        Box::pin(async move {
            let events = page.events.len();
            let stored = match &self.ledger {
                Some(ledger) => Store::append(ledger, page).await?,
                None => Stored::default(),
            };
            self.note(events, &stored);
            Ok(stored)
        })
    }

    fn append_file(&self, page: FilePage) -> BoxFuture<'_, Result<Stored, StoreError>> {
        Box::pin(async move {
            let events = page.events.len();
            let stored = match &self.ledger {
                Some(ledger) => ledger.append_file(page).await?,
                None => Stored::default(),
            };
            self.note(events, &stored);
            Ok(stored)
        })
    }

    fn files<'a>(
        &'a self,
        trail: &'a str,
        place: &'a Place,
        delivered: Interval,
    ) -> BoxFuture<'a, Result<Vec<KnownFile>, StoreError>> {
        match &self.ledger {
            Some(ledger) => ledger.files(trail, place, delivered),
            None => Box::pin(async { Ok(vec![]) }),
        }
    }

    fn trail<'a>(
        &'a self,
        trail: &'a str,
    ) -> BoxFuture<'a, Result<BTreeMap<Place, TrailState>, StoreError>> {
        match &self.ledger {
            Some(ledger) => ledger.trail(trail),
            None => Box::pin(async { Ok(BTreeMap::new()) }),
        }
    }

    fn learn<'a>(
        &'a self,
        trail: &'a str,
        place: &'a Place,
        learned: Learned,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        match &self.ledger {
            Some(ledger) => ledger.learn(trail, place, learned),
            None => Box::pin(async { Ok(()) }),
        }
    }
}

/// Reads files as `check` does, on one thread, and stores them as the readers of buckets do.
async fn disk(store: Arc<Counted>, folder: &str) -> anyhow::Result<()> {
    let folder = files::Input::from(folder);
    let (sender, mut batches) = mpsc::channel::<Vec<Event>>(2);
    let reading = tokio::task::spawn_blocking(move || {
        let mut events = Vec::new();
        let mut undecodable = 0_u64;
        let mut file = PathBuf::new();
        let mut sink = |record: Record<'_>| {
            // Each file is a transaction, as it has to be for one that is noted as read.
            if record.path != file {
                record.path.clone_into(&mut file);
                if !events.is_empty() {
                    let _ = sender.blocking_send(std::mem::take(&mut events));
                }
            }
            match decode(record.text) {
                Ok(event) => events.push(event),
                Err(_) => undecodable += 1,
            }
            if events.len() >= BATCH {
                // Nobody listens any more after a fault: it is reported there.
                let _ = sender.blocking_send(std::mem::take(&mut events));
            }
        };
        let report = files::read(
            &[folder],
            std::slice::from_mut(&mut sink),
            &Progress::default(),
        );
        let _ = sender.blocking_send(events);
        (report, undecodable)
    });
    let mut batch = 0;
    while let Some(events) = batches.recv().await {
        let page = FilePage {
            trail: "s3://disk/AWSLogs".into(),
            place: Place {
                account: "111122223333".into(),
                region: REGION.into(),
            },
            delivered: Timestamp::from_second(1_760_000_000)?,
            unique: format!("{batch:016}").into(),
            events,
            undecodable: vec![],
            end: Some((Timestamp::now(), [0; 32])),
        };
        batch += 1;
        store.append_file(page).await?;
    }
    let (report, undecodable) = reading.await?;
    if undecodable > 0 || report.error_count > 0 {
        bail!(
            "{undecodable} undecodable, {} unreadable",
            report.error_count
        );
    }
    Ok(())
}

fn spec(origin: Origin) -> PollerSpec {
    PollerSpec {
        key: PollerKey {
            origin,
            region: REGION.into(),
            assume_role: None,
        },
        poll_period: SignedDuration::from_secs(60),
        reread_period: SignedDuration::from_secs(900),
        backfill: SignedDuration::from_hours(24 * 90),
        lookback: SignedDuration::from_hours(24 * 90),
        accounts: None,
        buckets: None,
    }
}

/// Runs a reader of the operator until `is_done`.
async fn read(
    store: Arc<Counted>,
    spec: PollerSpec,
    is_done: impl Fn(&Pollers) -> bool,
) -> anyhow::Result<()> {
    // The account's quota is not what is measured.
    let pollers = Pollers::with_pace(store, Duration::from_millis(1));
    let kind = spec.key.kind();
    pollers.set(vec![spec]);
    while !is_done(&pollers) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Some(error) = pollers
            .health()
            .iter()
            .find_map(|one| one.last_error.clone())
        {
            bail!("{kind}: {}: {}", error.reason, error.message);
        }
    }
    pollers.stop().await;
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let at = arguments.iter().position(|one| one == "--ledger");
    let ledger = match at {
        Some(at) => {
            let url = arguments.drain(at..).nth(1).context("--ledger URL")?;
            Some(Ledger::open(&url).await?)
        }
        None => None,
    };
    let store = Arc::new(Counted {
        ledger: ledger.clone(),
        events: AtomicU64::new(0),
        new: AtomicU64::new(0),
    });
    let begun = Instant::now();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["disk", folder] => disk(store.clone(), folder).await?,
        ["s3", bucket, files] => {
            let files: u64 = files.parse()?;
            let origin = Origin::S3 {
                bucket: (*bucket).into(),
                prefix: "".into(),
            };
            read(store.clone(), spec(origin), move |pollers| {
                let read = pollers.counters().objects();
                read.get(&SourceKind::S3)
                    .is_some_and(|tally| tally.read >= files)
            })
            .await?;
        }
        ["history", events] => {
            let events: u64 = events.parse()?;
            let origin = Origin::LookupEvents { account: None };
            let counted = store.clone();
            read(store.clone(), spec(origin), move |_| {
                counted.events.load(Ordering::Relaxed) >= events
            })
            .await?;
        }
        _ => bail!("disk FOLDER, s3 BUCKET FILES or history EVENTS"),
    }
    let seconds = begun.elapsed().as_secs_f64();
    if let Some(ledger) = ledger {
        ledger.close().await;
    }
    println!(
        "{} ECR events, {} stored, {seconds:.1} s",
        store.events.load(Ordering::Relaxed),
        store.new.load(Ordering::Relaxed)
    );
    Ok(())
}
