//! Reading objects: again and again while they cannot be read now, and not again once they were.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use aws_sdk_s3::Client;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{KIND, Worker};
use crate::{
    event::Interval,
    source::{
        Reason,
        fault::Fault,
        sqs::{
            faults::{Task, backoff},
            message::Object,
        },
        trail::{Checked, LogFile, Looker, ObjectKey, Read, trail},
    },
};

/// How long a file is tried that cannot be read now, while others can.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long one is tried while none can: SQS hides a message for at most 12 hours.
const LONGEST: Duration = Duration::from_hours(11);
/// The least that the ledger tells apart.
const SECOND: SignedDuration = SignedDuration::from_secs(1);

impl Worker {
    /// Reads an object, again and again while it cannot be read now; the fault with which that
    /// ended. What a digest file says is returned.
    pub(super) async fn read(
        &self,
        object: &Object,
        key: &ObjectKey,
    ) -> Result<Option<Checked>, Fault> {
        let begun = Instant::now();
        let others = self.files.load(Ordering::Relaxed);
        let task = Task::Bucket(object.bucket.as_str().into());
        let mut pauses = backoff();
        loop {
            let clients = self.clients();
            let fault = match self.read_once(&clients.s3, object, key).await {
                Ok(checked) => {
                    self.works(&task);
                    self.works(&Task::Ledger);
                    return Ok(checked);
                }
                Err(fault) => fault,
            };
            self.tally(|tally| tally.failed += 1);
            let others_are_read = self.files.load(Ordering::Relaxed) > others;
            let patience = if others_are_read { PATIENCE } else { LONGEST };
            let is_of_file = matches!(fault.reason, Reason::FileMissing | Reason::FileUnreadable);
            if is_of_file || (begun.elapsed() > patience && fault.reason != Reason::Ledger) {
                warn!(
                    queue = %self.name, bucket = %object.bucket, key = %object.key,
                    reason = %fault.reason, message = %fault.message, "a file was not read"
                );
                let region = self.spec.borrow().key.region.clone();
                let account = match key {
                    ObjectKey::Log(file) => file.place.account.clone(),
                    ObjectKey::Digest(file) => file.place.account.clone(),
                    ObjectKey::Other => Arc::default(),
                };
                self.counters
                    .count_error(KIND, &account, &region, fault.reason);
                return Err(fault);
            }
            let task = match fault.reason {
                Reason::Ledger => Task::Ledger,
                _ => task.clone(),
            };
            self.failed(task, fault);
            sleep(pauses.next().unwrap_or(Duration::from_mins(1))).await;
        }
    }

    async fn read_once(
        &self,
        s3: &Client,
        object: &Object,
        key: &ObjectKey,
    ) -> Result<Option<Checked>, Fault> {
        match key {
            ObjectKey::Log(file) => self.log_file(s3, object, file).await.map(|()| None),
            ObjectKey::Digest(file) => {
                let looker = Looker {
                    store: &*self.store,
                    objects: &self.objects,
                    client: s3,
                    bucket: &object.bucket,
                };
                let mut checked = looker.check(file, Timestamp::now()).await?;
                for read in std::mem::take(&mut checked.read) {
                    self.note(read);
                }
                Ok(Some(checked))
            }
            ObjectKey::Other => Ok(None),
        }
    }

    async fn log_file(&self, s3: &Client, object: &Object, file: &LogFile) -> Result<(), Fault> {
        let known = Interval {
            start: file.delivered,
            end: file.delivered.checked_add(SECOND).unwrap_or(file.delivered),
        };
        let trail = trail(&object.bucket, &file.root);
        let files = self.store.files(&trail, &file.place, known).await;
        let files = files.map_err(|error| Fault::new(Reason::Ledger, error.to_string()))?;
        if files.iter().any(|known| known.unique == file.unique) {
            self.tally(|tally| tally.known += 1);
            return Ok(());
        }
        let now = Timestamp::now();
        let read = self
            .objects
            .read(s3, &object.bucket, file, None, now)
            .await?;
        self.note(read);
        Ok(())
    }

    fn note(&self, read: Read) {
        self.tally(|tally| {
            tally.read += 1;
            tally.bytes += read.bytes;
        });
        for (name, count) in read.new {
            self.counters.count_events(KIND, name, count);
        }
        if !read.repositories.is_empty() {
            self.changes.repositories(read.repositories);
        }
    }
}
