//! How the queue is, for whoever looks; and credentials that may be outdated.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use futures::future::FutureExt;
use jiff::SignedDuration;
use tokio::time::Instant;

use super::{CLAIM, Called, Loop};
use crate::source::{
    Health, Proof, Reason,
    fault::Fault,
    sqs::{faults::Task, reader::clients},
};

/// Credentials are found anew no more often than this.
const RENEWAL: Duration = Duration::from_secs(5);
/// How long a message that nobody can read is told as a fault, or that messages could not be hidden.
const POISON: Duration = Duration::from_mins(2);

impl Loop<'_> {
    /// Notes a fault; where it may lie in the credentials, they are found anew.
    pub(super) fn failed(&mut self, task: Task, fault: Fault) -> Duration {
        let may_renew = matches!(
            fault.reason,
            Reason::ExpiredToken
                | Reason::AccessDenied
                | Reason::AssumeRoleFailed
                | Reason::NoCredentials
        );
        let wait = self.worker.failed(task, fault);
        if may_renew {
            self.renew();
        }
        wait
    }

    fn renew(&mut self) {
        if self.renewed.elapsed() < RENEWAL {
            return;
        }
        self.renewed = Instant::now();
        let worker = self.worker;
        let renew = async move {
            let spec = worker.spec.borrow().clone();
            // If that fails, too, the next request says why.
            if let Ok(clients) = Box::pin(clients(&spec)).await {
                let mut have = worker
                    .clients
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *have = Arc::new(clients);
            }
            Called::Renewed
        };
        self.calls.push(renew.boxed());
    }

    /// Shows how the queue is, where that has changed.
    pub(super) fn publish(&mut self) {
        let worker = self.worker;
        let a_while = POISON.max(self.attributes.visibility * 2);
        let is_over = |since: Option<Instant>| since.is_some_and(|at| at.elapsed() > a_while);
        if is_over(self.poisoned) {
            self.poisoned = None;
            worker.works(&Task::Messages);
        }
        if is_over(self.unhidden) {
            // Nothing takes long any more.
            self.unhidden = None;
            worker.works(&Task::Hide);
        }
        let (last_success, was_drained) = (self.last_success, self.was_drained);
        let error = worker.faults().worst();
        let may_renew = error.as_ref().is_some_and(|error| {
            matches!(error.reason, Reason::ExpiredToken | Reason::AccessDenied)
        });
        if may_renew && self.renewed.elapsed() >= Duration::from_secs(30) {
            // Also where it is the bucket that refuses.
            self.renew();
        }
        self.health.modify(|health| {
            health.last_success = last_success;
            health.last_error.clone_from(&error);
            health.names_all = was_drained;
        });
        let Ok(cover) = worker.cover.try_lock() else {
            return;
        };
        if !worker.moved.swap(false, Ordering::Relaxed) {
            return;
        }
        let spec = worker.spec.borrow().clone();
        let places: Vec<_> = cover
            .places()
            .filter(|place| spec.wants_account(&place.account))
            .map(|place| {
                Arc::new(Health {
                    account: Some(place.account.clone()),
                    region: place.region.clone(),
                    last_success,
                    coverage: cover.read(place),
                    gaps: cover.gaps(place),
                    proof: match cover.proved_until(place) {
                        Some(until) => Proof::Digests { until },
                        None => Proof::Delivery,
                    },
                    poll_period: spec.poll_period.max(
                        SignedDuration::try_from(self.claim_period).unwrap_or(spec.poll_period),
                    ),
                    ..Health::new(&spec)
                })
            })
            .collect();
        // Many places are moved on less often: each is a write.
        let cost = Duration::from_millis(20) * u32::try_from(places.len()).unwrap_or(u32::MAX);
        self.claim_period = CLAIM.max(cost);
        drop(cover);
        self.health.places(places);
        worker.changes.health();
    }
}
