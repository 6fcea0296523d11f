//! An Event history that is no server: what `LookupEvents` would answer at a given moment, for
//! days of records within seconds. The replay server is the same for real requests.

#![allow(dead_code, unreachable_pub, reason = "shared by a test and an example")]

use std::collections::{BTreeMap, HashMap};

use ecr_audit::{
    event::{EventName, Interval},
    source::lookup_events::{
        Answer,
        planner::{Kind, Planner, Request, Step},
    },
};
use jiff::{SignedDuration, Timestamp};

/// Records of a page.
const PAGE: usize = 50;
/// From one request to the next.
const PACE: SignedDuration = SignedDuration::from_secs(1);
/// From a request to its stored answer.
const ROUND_TRIP: SignedDuration = SignedDuration::from_millis(200);

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// `eventTime`.
    pub time: Timestamp,
    /// When `LookupEvents` shows it first.
    pub visible: Timestamp,
}

/// What happened, newest first.
#[derive(Default)]
pub struct History {
    records: BTreeMap<EventName, Vec<Record>>,
    /// When each was read first.
    pub seen: HashMap<(EventName, usize), Timestamp>,
    /// When each window on its way was first asked for.
    asked: HashMap<(EventName, Kind), Timestamp>,
}

impl History {
    /// With these records, in any order.
    pub fn new(records: BTreeMap<EventName, Vec<Record>>) -> Self {
        let mut records = records;
        for records in records.values_mut() {
            records.sort_by_key(|record| std::cmp::Reverse(record.time));
        }
        Self {
            records,
            seen: HashMap::new(),
            asked: HashMap::new(),
        }
    }

    /// Every record with its place in [`Self::seen`].
    pub fn records(&self) -> impl Iterator<Item = ((EventName, usize), Record)> {
        self.records.iter().flat_map(|(name, records)| {
            let records = records.iter().enumerate();
            records.map(|(index, record)| ((*name, index), *record))
        })
    }

    /// The answer, and how many of its records are new to the reader.
    pub fn lookup(&mut self, request: &Request) -> (Answer, u64) {
        let mut answer = Answer::default();
        let Some(records) = self.records.get(&request.name) else {
            return (answer, 0);
        };
        // The token names the record that the page before ended with.
        let from = match &request.token {
            Some(token) => token.parse::<usize>().expect("a token of this history") + 1,
            None => records
                .partition_point(|record| request.last.is_some_and(|last| record.time > last)),
        };
        let mut fresh = 0;
        for (index, record) in records.iter().enumerate().skip(from) {
            if record.time < request.start {
                break;
            }
            if record.visible > request.at {
                continue;
            }
            if answer.times.len() == PAGE {
                return (self.with_token(answer, request, index), fresh);
            }
            answer.times.push(Some(record.time));
            if let std::collections::hash_map::Entry::Vacant(seen) =
                self.seen.entry((request.name, index))
            {
                seen.insert(request.at + ROUND_TRIP);
                fresh += 1;
            }
        }
        (answer, fresh)
    }

    /// Everything of the span that was visible at `at` has been seen.
    fn check(&self, name: EventName, span: Interval, at: Timestamp) {
        let Some(records) = self.records.get(&name) else {
            return;
        };
        let from = records.partition_point(|record| record.time >= span.end);
        for (index, record) in records.iter().enumerate().skip(from) {
            if record.time < span.start {
                break;
            }
            let seen = self.seen.contains_key(&(name, index));
            assert!(
                seen || record.visible > at,
                "{record:?} counts as read, and was not"
            );
        }
    }

    /// The page before the record at `next` is full: its last visible record is the token.
    fn with_token(&self, mut answer: Answer, request: &Request, next: usize) -> Answer {
        let last = self.records[&request.name][..next]
            .iter()
            .rposition(|record| record.visible <= request.at)
            .expect("a full page has a last record");
        answer.token = Some(last.to_string());
        answer
    }
}

/// What became of a request.
pub enum Fate {
    /// It is answered.
    Answered,
    /// It fails, and is not to be sent again for so long.
    Fails(SignedDuration),
    /// Its token is not known any more.
    LosesToken,
}

/// Lets a planner read from `now` to `end`. `decide` is shown each request before it is answered.
/// Requests keep the pace that the limiter keeps.
///
/// What an answer proves is checked: whatever was visible when its window was first asked for has
/// been seen.
pub fn read(
    planner: &mut Planner,
    history: &mut History,
    mut now: Timestamp,
    end: Timestamp,
    mut decide: impl FnMut(&Planner, &Request) -> Fate,
) {
    let mut free = now;
    while now < end {
        let request = match planner.next(now.max(free)) {
            Step::Wait(until) => {
                assert!(until > now, "a wait that does not wait");
                now = until;
                continue;
            }
            Step::Ask(request) => request,
        };
        free = request.at + PACE;
        now = request.at + ROUND_TRIP;
        match decide(planner, &request) {
            Fate::Answered => {}
            Fate::Fails(pause) => {
                planner.failed(&request, request.at + pause);
                continue;
            }
            Fate::LosesToken => {
                planner.failed(&request, request.at + PACE);
                planner.lost_token(&request);
                continue;
            }
        }
        let (answer, fresh) = history.lookup(&request);
        let job = (request.name, request.kind);
        if request.token.is_none() {
            history.asked.insert(job, request.at);
        }
        let proof = planner.proof(&request, &answer).expect("a usable answer");
        if let Some(read) = proof.read {
            history.check(request.name, read, history.asked[&job]);
        }
        planner.stored(&request, &answer, fresh);
    }
}
