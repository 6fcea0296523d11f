//! The faults of one queue that last, and how long to wait before the next try.

use std::{collections::BTreeMap, collections::HashMap, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use jiff::Timestamp;

use crate::source::{LastError, fault::Fault};

/// The most buckets whose faults are told apart.
const MOST_BUCKETS: usize = 16;

/// What failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Task {
    /// Credentials, or the first questions.
    Begin,
    Receive,
    Delete,
    /// Hiding messages from others while they are worked on.
    Hide,
    /// Asking how much is in the queue.
    Look,
    Ledger,
    /// Messages that nobody can read.
    Messages,
    Bucket(Arc<str>),
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    lasting: BTreeMap<Task, LastError>,
    backoffs: HashMap<Task, ExponentialBackoff>,
}

/// From one try to the next: a second at first, a minute at last.
pub(super) fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(Duration::from_mins(1))
        .with_jitter()
        .without_max_times()
        .build()
}

impl Faults {
    /// Notes a fault; how long to wait, and whether it is news.
    pub(super) fn note(&mut self, task: Task, fault: Fault, now: Timestamp) -> (Duration, bool) {
        let before = self.lasting.get(&task);
        let is_same = before.is_some_and(|before| before.reason == fault.reason);
        let buckets = self.lasting.keys();
        let is_full = before.is_none()
            && matches!(task, Task::Bucket(_))
            && buckets
                .filter(|task| matches!(task, Task::Bucket(_)))
                .count()
                >= MOST_BUCKETS;
        if is_full {
            return (Duration::from_mins(1), false);
        }
        let since = before
            .filter(|_| is_same)
            .map_or(now, |before| before.since);
        let error = LastError {
            reason: fault.reason,
            message: fault.message,
            since,
        };
        self.lasting.insert(task.clone(), error);
        let backoff = self.backoffs.entry(task).or_insert_with(backoff);
        let wait = backoff.next().unwrap_or(Duration::from_mins(1));
        (wait, !is_same)
    }

    /// It works again. Whether it did not.
    pub(super) fn clear(&mut self, task: &Task) -> bool {
        self.backoffs.remove(task);
        self.lasting.remove(task).is_some()
    }

    /// The one that lasts longest.
    pub(super) fn worst(&self) -> Option<LastError> {
        let all = self.lasting.values();
        all.min_by_key(|error| error.since).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Reason;

    #[test]
    fn a_fault_is_told_once_and_waited_for_longer_each_time() {
        let mut faults = Faults::default();
        let fault = || Fault::new(Reason::AccessDenied, "no");
        let at = |second| Timestamp::from_second(second).unwrap();
        let (first, is_news) = faults.note(Task::Receive, fault(), at(1));
        assert!(is_news && first < Duration::from_secs(3));
        let waits = (2..20).map(|second| faults.note(Task::Receive, fault(), at(second)));
        let (longest, is_news) = waits.max().unwrap();
        assert!(!is_news && longest >= Duration::from_secs(30));
        assert_eq!(faults.worst().unwrap().since, at(1));
        assert!(faults.clear(&Task::Receive) && faults.worst().is_none());
    }

    #[test]
    fn faults_of_buckets_without_number_stay_few() {
        let mut faults = Faults::default();
        for bucket in 0..1000 {
            let task = Task::Bucket(bucket.to_string().into());
            faults.note(
                task,
                Fault::new(Reason::BucketMissing, "no"),
                Timestamp::UNIX_EPOCH,
            );
        }
        assert_eq!(faults.lasting.len(), MOST_BUCKETS);
        assert!(faults.backoffs.len() <= MOST_BUCKETS);
    }
}
