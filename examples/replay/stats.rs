//! What was asked of the server, and the quota of `LookupEvents`: a token bucket for each
//! account and region, as everybody in the account shares it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{faults::Operation, history::Place};

/// How a lookup ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With a page of this many events.
    Page(usize),
    /// With a `ThrottlingException`, be it for the quota or for a fault.
    Throttled,
    /// With any other error.
    Failed,
}

/// Everything that `GET /_replay/stats` shows.
#[derive(Default)]
pub(crate) struct Stats {
    lookups: BTreeMap<(Place, String), Lookup>,
    places: BTreeMap<Place, Rate>,
    sts: BTreeMap<(Operation, String), Sts>,
}

#[derive(Clone, Copy, Default, Serialize)]
struct Lookup {
    calls: u64,
    pages: u64,
    events: u64,
    throttled: u64,
    failed: u64,
}

#[derive(Default)]
struct Rate {
    calls: u64,
    throttled: u64,
    first: Option<Instant>,
    recent: VecDeque<Instant>,
    peak: usize,
}

#[derive(Clone, Copy, Default, Serialize)]
struct Sts {
    calls: u64,
    failed: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report<'a> {
    lookups: Vec<LookupReport<'a>>,
    quota: Vec<QuotaReport<'a>>,
    sts: Vec<StsReport<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LookupReport<'a> {
    #[serde(flatten)]
    place: &'a Place,
    event_name: &'a str,
    #[serde(flatten)]
    counts: Lookup,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QuotaReport<'a> {
    #[serde(flatten)]
    place: &'a Place,
    calls: u64,
    throttled: u64,
    /// Calls in the busiest second.
    peak_per_second: usize,
    /// Since the first call.
    seconds: f64,
}

#[derive(Serialize)]
struct StsReport<'a> {
    operation: Operation,
    role: &'a str,
    #[serde(flatten)]
    counts: Sts,
}

impl Stats {
    /// Counts a lookup; `name` is the event name, or what else was looked up.
    pub(crate) fn lookup(&mut self, place: &Place, name: &str, ending: Ending) {
        let key = (place.clone(), name.to_owned());
        let counts = self.lookups.entry(key).or_default();
        counts.calls += 1;
        let rate = self.places.entry(place.clone()).or_default();
        rate.calls += 1;
        match ending {
            Ending::Page(events) => {
                counts.pages += 1;
                counts.events += u64::try_from(events).unwrap_or(u64::MAX);
            }
            Ending::Throttled => {
                counts.throttled += 1;
                rate.throttled += 1;
            }
            Ending::Failed => counts.failed += 1,
        }
        let now = Instant::now();
        rate.first.get_or_insert(now);
        rate.recent.push_back(now);
        while let Some(oldest) = rate.recent.front()
            && now.duration_since(*oldest) >= Duration::from_secs(1)
        {
            rate.recent.pop_front();
        }
        rate.peak = rate.peak.max(rate.recent.len());
    }

    /// Counts a call of STS; `role` is empty where no role is assumed.
    pub(crate) fn sts(&mut self, operation: Operation, role: &str, ok: bool) {
        let counts = self.sts.entry((operation, role.to_owned())).or_default();
        counts.calls += 1;
        counts.failed += u64::from(!ok);
    }

    pub(crate) fn report(&self) -> Report<'_> {
        let now = Instant::now();
        Report {
            lookups: (self.lookups.iter())
                .map(|((place, event_name), counts)| LookupReport {
                    place,
                    event_name,
                    counts: *counts,
                })
                .collect(),
            quota: (self.places.iter())
                .map(|(place, rate)| QuotaReport {
                    place,
                    calls: rate.calls,
                    throttled: rate.throttled,
                    peak_per_second: rate.peak,
                    seconds: (rate.first)
                        .map_or(0.0, |first| now.duration_since(first).as_secs_f64()),
                })
                .collect(),
            sts: (self.sts.iter())
                .map(|((operation, role), counts)| StsReport {
                    operation: *operation,
                    role,
                    counts: *counts,
                })
                .collect(),
        }
    }
}

/// The requests that each account and region may make.
pub(crate) struct Quota {
    per_second: f64,
    burst: f64,
    buckets: HashMap<Place, (f64, Instant)>,
}

impl Quota {
    /// `per_second` of 0 is no quota.
    pub(crate) fn new(per_second: f64, burst: f64) -> Self {
        Self {
            per_second,
            burst,
            buckets: HashMap::new(),
        }
    }

    /// Takes one request; false if none is left.
    pub(crate) fn take(&mut self, place: &Place) -> bool {
        if self.per_second <= 0.0 {
            return true;
        }
        let now = Instant::now();
        let full = (self.burst, now);
        let (tokens, at) = self.buckets.entry(place.clone()).or_insert(full);
        let refilled = now.duration_since(*at).as_secs_f64() * self.per_second;
        *tokens = (*tokens + refilled).min(self.burst);
        *at = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }
}
