//! What was delivered, record by record, and what a ledger therefore has to hold.

use std::collections::{BTreeMap, BTreeSet};

use ecr_audit::event::{EventName, Interval, Repository};
use ecr_audit::ledger::Ledger;
use ecr_audit::source::{Place, Store as _};
use jiff::{SignedDuration, Timestamp};
use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::support::records::{ACCOUNT, REGION, pull, push, role};

const REPOSITORIES: [&str; 3] = ["shop/web", "shop/api", "base"];
/// Records of a file.
const PER_FILE: usize = 20;
/// How long before its file is delivered an event happens, in seconds.
const DELAY: i64 = 300;

/// For how long what was listed is listed again.
const LISTED_AGAIN: SignedDuration = SignedDuration::from_mins(30);

/// A file of a trail.
pub(crate) struct File {
    trail: String,
    account: String,
    delivered: Timestamp,
    unique: String,
    ids: Vec<String>,
}

/// An event that must be there.
struct Fact {
    repository: &'static str,
    time: Timestamp,
    session: String,
    is_pull: bool,
}

/// All that was delivered.
#[derive(Default)]
pub(crate) struct Truth {
    facts: BTreeMap<String, Fact>,
    files: Vec<File>,
    /// One that a later file repeats, as CloudTrail sometimes does.
    last: Option<Value>,
}

fn ever() -> Interval {
    Interval {
        start: Timestamp::UNIX_EPOCH,
        end: Timestamp::now() + SignedDuration::from_hours(24),
    }
}

impl Truth {
    /// How many facts there are.
    pub(crate) fn len(&self) -> usize {
        self.facts.len()
    }

    /// Records for a file that is delivered then; with their ids.
    pub(crate) fn records(
        &mut self,
        delivered: Timestamp,
        random: &mut StdRng,
    ) -> (Vec<Value>, Vec<String>) {
        let time = Timestamp::from_second(delivered.as_second() - DELAY).unwrap();
        let mut records: Vec<Value> = self.last.take().into_iter().collect();
        let mut ids = Vec::new();
        for number in 0..PER_FILE {
            let repository = REPOSITORIES[random.random_range(0..REPOSITORIES.len())];
            let session = format!("i-{:017x}", random.random_range(0..40_u32));
            let is_pull = number > 0;
            let record = if is_pull {
                let image = json!({"imageTag": format!("v{}", random.random_range(0..9_u32))});
                pull(time, repository, &image, role("node", &session))
            } else {
                let image = format!("{repository} {}", random.random::<u64>());
                push(time, repository, &image, "v1")
            };
            let id = record["eventID"].as_str().unwrap().to_owned();
            let fact = Fact {
                repository,
                time,
                session,
                is_pull,
            };
            self.facts.insert(id.clone(), fact);
            ids.push(id);
            records.push(record);
        }
        self.last = records.last().cloned();
        let other = json!({"eventSource": "s3.amazonaws.com", "eventName": "GetObject",
            "eventID": format!("{:032x}", random.random::<u128>())});
        records.push(other);
        (records, ids)
    }

    /// Notes that a file of these was delivered, under this key.
    pub(crate) fn delivered(
        &mut self,
        trail: String,
        account: &str,
        delivered: Timestamp,
        key: &str,
        ids: Vec<String>,
    ) {
        let name = key.strip_suffix(".json.gz").unwrap();
        let unique = name.rsplit('_').next().unwrap().to_owned();
        // The name's time is in minutes.
        let minute = delivered.as_second() / 60 * 60;
        self.files.push(File {
            trail,
            account: account.to_owned(),
            delivered: Timestamp::from_second(minute).unwrap(),
            unique,
            ids,
        });
    }

    /// Holds a ledger against it. `is_all`: everything must be there by now.
    pub(crate) async fn compare(&self, ledger: &Ledger, is_all: bool) {
        let found = self.found(ledger).await;
        if is_all {
            let lost = self.facts.keys().filter(|id| !found.contains(*id));
            let lost: Vec<_> = lost.take(3).collect();
            assert!(lost.is_empty(), "lost: {lost:?}");
        }
        self.compare_files(ledger, &found).await;
        self.compare_coverage(ledger, &found).await;
    }

    /// The ids of what is there: nothing else, and nothing twice.
    async fn found(&self, ledger: &Ledger) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for name in REPOSITORIES {
            let repository = Repository {
                account: ACCOUNT.into(),
                region: REGION.into(),
                name: name.into(),
            };
            let callers = ledger.pullers(&repository).await.unwrap();
            let callers = callers.into_iter().map(|(id, _)| id);
            for pull in ledger.pulls(&repository, ever(), callers).await.unwrap() {
                let fact = self.facts.get(&*pull.id);
                let is_true = fact.is_some_and(|fact| {
                    fact.is_pull
                        && fact.repository == name
                        && fact.time == pull.time
                        && Some(fact.session.as_str()) == pull.caller.session.as_deref()
                });
                assert!(is_true, "invented: {pull:?}");
                assert!(found.insert(pull.id.to_string()), "twice: {pull:?}");
            }
            for change in ledger.changes(&repository).await.unwrap() {
                let fact = self.facts.get(&*change.id);
                let is_true = fact.is_some_and(|fact| {
                    !fact.is_pull && fact.repository == name && fact.time == change.time
                });
                assert!(is_true, "invented: {change:?}");
                assert!(found.insert(change.id.to_string()), "twice: {change:?}");
            }
        }
        found
    }

    /// A file that counts as read was read to its end.
    async fn compare_files(&self, ledger: &Ledger, found: &BTreeSet<String>) {
        let mut known = BTreeSet::new();
        let mut places = BTreeSet::new();
        for file in &self.files {
            if places.insert((&file.trail, &file.account)) {
                let place = Place {
                    account: file.account.as_str().into(),
                    region: REGION.into(),
                };
                let files = ledger.files(&file.trail, &place, ever()).await.unwrap();
                known.extend(files.into_iter().map(|file| file.unique));
            }
            if known.contains(file.unique.as_str()) {
                assert_holds(&file.ids, found, "a file that was read");
            }
        }
        assert!(known.len() <= self.files.len());
    }

    /// What counts as covered is there: delivery time, and event time.
    async fn compare_coverage(&self, ledger: &Ledger, found: &BTreeSet<String>) {
        let trails: BTreeSet<&String> = self.files.iter().map(|file| &file.trail).collect();
        for trail in trails {
            for (place, state) in ledger.trail(trail).await.unwrap() {
                let files = self.files.iter();
                let here = files.filter(|f| f.trail == *trail && *f.account == *place.account);
                for file in here {
                    let at = |time: Timestamp| Interval {
                        start: time,
                        end: time + SignedDuration::from_secs(1),
                    };
                    // A name's time may be over before the file is there: the last half hour is
                    // listed again, and makes no claim.
                    let is_final = file.delivered < Timestamp::now() - LISTED_AGAIN;
                    if is_final && state.delivered.covers(at(file.delivered)) {
                        assert_holds(&file.ids, found, "delivery time that was read");
                    }
                    let is_covered = |name: EventName, time: Timestamp| {
                        let read = state.events.get(&name);
                        read.is_some_and(|read| read.covers(at(time)))
                    };
                    for id in &file.ids {
                        let fact = &self.facts[id];
                        let name = if fact.is_pull {
                            EventName::BatchGetImage
                        } else {
                            EventName::PutImage
                        };
                        if is_covered(name, fact.time) {
                            assert_holds(std::slice::from_ref(id), found, "covered time");
                        }
                    }
                }
            }
        }
    }
}

fn assert_holds(ids: &[String], found: &BTreeSet<String>, what: &str) {
    let missing: Vec<_> = ids.iter().filter(|id| !found.contains(*id)).collect();
    assert!(missing.is_empty(), "{what}, and without {missing:?}");
}
