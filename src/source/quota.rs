//! The pace of requests: AWS allows two `LookupEvents` a second for an account and region, to
//! everybody in the account together. At most half of that is ours, unless somebody who knows the
//! account says otherwise.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::MutexGuard,
    time::{Instant, sleep_until},
};

use super::Place;

/// From one request to the next, where nobody says otherwise.
pub(crate) const PACE: Duration = Duration::from_secs(1);

/// One account and region's pace.
#[derive(Debug)]
pub(crate) struct Limiter {
    pace: Duration,
    next: tokio::sync::Mutex<Instant>,
}

/// The right to send one request. Given back when it is dropped without being taken.
pub(crate) struct Turn<'a> {
    pace: Duration,
    next: MutexGuard<'a, Instant>,
}

impl Turn<'_> {
    /// The request is sent now.
    pub(crate) fn take(mut self) {
        *self.next = Instant::now() + self.pace;
    }
}

impl Limiter {
    fn new(pace: Duration) -> Self {
        Self {
            pace,
            next: tokio::sync::Mutex::new(Instant::now()),
        }
    }

    /// Waits until a request may be sent. Cancel-safe.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        let next = self.next.lock().await;
        sleep_until(*next).await;
        Turn {
            pace: self.pace,
            next,
        }
    }

    /// Sends nothing for a while: others have used up the quota.
    pub(crate) async fn pause(&self, pause: Duration) {
        let mut next = self.next.lock().await;
        *next = (*next).max(Instant::now() + pause);
    }
}

/// The limiters of all places.
#[derive(Debug)]
pub(crate) struct Limiters {
    pace: Duration,
    places: Mutex<HashMap<Place, Weak<Limiter>>>,
}

impl Limiters {
    /// Limiters of this pace.
    pub(crate) fn new(pace: Duration) -> Self {
        Self {
            pace,
            places: Mutex::default(),
        }
    }

    /// From one request to the next.
    pub(crate) fn pace(&self) -> Duration {
        self.pace
    }

    /// The one of a place, whoever reads there.
    pub(crate) fn of(&self, place: &Place) -> Arc<Limiter> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, limiter| limiter.strong_count() > 0);
        if let Some(limiter) = places.get(place).and_then(Weak::upgrade) {
            return limiter;
        }
        let limiter = Arc::new(Limiter::new(self.pace));
        places.insert(place.clone(), Arc::downgrade(&limiter));
        limiter
    }
}
