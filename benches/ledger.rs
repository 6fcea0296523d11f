//! How fast the ledger takes facts, how much of the disk a pull costs, and how fast it answers.
//!
//! `cargo bench --bench ledger` appends a million pulls by 1,000 principals from 100 repositories
//! to a new SQLite file, page sizes as buckets' files and as `LookupEvents` have them, and 200,000 to a
//! PostgreSQL server (see `tests/support/postgres.rs` for which); then reads. As a test it runs
//! with a few pages, to see that it runs.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a measurement, not the product"
)]

use std::{sync::Arc, time::Instant};

use ecr_audit::{
    event::{
        Action, Caller, Digest, Event, EventName, ImageId, Interval, Outcome, Principal, Repository,
    },
    ledger::{CallerId, Ledger, Page, TargetId},
};
use jiff::Timestamp;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sqlx::{Connection as _, Row as _};

#[path = "../tests/support/mod.rs"]
mod support;

const PRINCIPALS: usize = 1_000;
const REPOSITORIES: usize = 100;
/// Digests and tags that are pulled in each repository.
const TARGETS: usize = 20;
/// 30 days, in seconds.
const SPAN: i64 = 30 * 86_400;
const START: i64 = 1_760_000_000;

struct World {
    random: StdRng,
    callers: Vec<Arc<Caller>>,
    repositories: Vec<Repository>,
    targets: Vec<ImageId>,
}

impl World {
    fn new() -> Self {
        let caller = |number: usize| Caller {
            principal: Principal {
                key: format!("arn:aws:iam::111122223333:role/team-{number}").into(),
                kind: Some("AssumedRole".into()),
                account: Some("111122223333".into()),
                service: None,
            },
            session: Some(format!("i-{number:017x}").into()),
            arn: Some(
                format!("arn:aws:sts::111122223333:assumed-role/team-{number}/i-{number:017x}")
                    .into(),
            ),
        };
        let repository = |number: usize| Repository {
            account: "111122223333".into(),
            region: "us-east-1".into(),
            name: format!("team/service-{number}").into(),
        };
        let target = |number: usize| ImageId {
            digest: number
                .is_multiple_of(2)
                .then(|| Digest::of_manifest(&number.to_string())),
            tag: (number % 2 == 1).then(|| format!("v{number}").into()),
        };
        Self {
            random: StdRng::seed_from_u64(1),
            callers: (0..PRINCIPALS)
                .map(|number| Arc::new(caller(number)))
                .collect(),
            repositories: (0..REPOSITORIES).map(repository).collect(),
            targets: (0..TARGETS).map(target).collect(),
        }
    }

    fn uuid(&mut self) -> Arc<str> {
        let hex = format!("{:032x}", self.random.random::<u128>());
        let part = |from: usize, to: usize| &hex[from..to];
        let parts = [
            part(0, 8),
            part(8, 12),
            part(12, 16),
            part(16, 20),
            part(20, 32),
        ];
        parts.join("-").into()
    }

    /// A page of pulls that happened one after the other, `at` of `of` in the span.
    fn page(&mut self, size: usize, at: usize, of: usize) -> Vec<Event> {
        (0..size)
            .map(|_| {
                let second = START
                    + SPAN * i64::try_from(at).unwrap() / i64::try_from(of).unwrap()
                    + self.random.random_range(0..60);
                let repository = &self.repositories[self.random.random_range(0..REPOSITORIES)];
                let repository = repository.clone();
                let caller = self.callers[self.random.random_range(0..PRINCIPALS)].clone();
                let target = self.targets[self.random.random_range(0..TARGETS)].clone();
                Event {
                    id: self.uuid(),
                    shared_id: None,
                    replaces: None,
                    time: Timestamp::from_second(second).unwrap(),
                    name: EventName::BatchGetImage,
                    account: repository.account.clone(),
                    region: repository.region.clone(),
                    repository: Some(repository),
                    caller,
                    outcome: Outcome::Allowed,
                    omitted: false,
                    action: Action::Pull(vec![target]),
                }
            })
            .collect()
    }
}

/// CPU time of this process so far, which tells more than the clock where others share the machine.
/// Of PostgreSQL it is the client's part.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    // In hundredths of a second, the 14th and the 15th field of the line.
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|field| field.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

async fn append(ledger: &Ledger, what: &str, facts: usize, per_page: usize) {
    let mut world = World::new();
    let pages = facts.div_ceil(per_page);
    let mut busy = std::time::Duration::ZERO;
    let (mut new, mut cpu) = (0, 0.0);
    for number in 0..pages {
        let events = world.page(per_page, number, pages);
        let page = Page {
            source: "lookupEvents",
            account: "111122223333",
            region: "us-east-1",
            names: &[EventName::BatchGetImage],
            events: &events,
            undecodable: &[],
            covered: Some(Interval {
                start: Timestamp::from_second(START).unwrap(),
                end: Timestamp::from_second(START + 1 + i64::try_from(number).unwrap()).unwrap(),
            }),
            settled: None,
        };
        let (begun, used) = (Instant::now(), cpu_seconds());
        new += ledger.append(&page).await.unwrap().new_events;
        busy += begun.elapsed();
        cpu += cpu_seconds() - used;
    }
    println!(
        "{what}, {per_page} a page: {new} facts in {:.1} s, {:.0} facts/s, {:.1} µs of CPU each",
        busy.as_secs_f64(),
        new as f64 / busy.as_secs_f64(),
        cpu * 1e6 / new as f64
    );
}

async fn read(ledger: &Ledger, what: &str) {
    let place = Repository {
        account: "111122223333".into(),
        region: "us-east-1".into(),
        name: "team/service-7".into(),
    };
    let within = Interval {
        start: Timestamp::from_second(START).unwrap(),
        end: Timestamp::from_second(START + 2 * SPAN).unwrap(),
    };
    let begun = Instant::now();
    let pullers = ledger.pullers(&place).await.unwrap();
    println!(
        "{what}: {} pullers of a repository in {:.1} ms",
        pullers.len(),
        begun.elapsed().as_secs_f64() * 1e3
    );
    for wanted in [1, 10, pullers.len()] {
        let ids: Vec<CallerId> = pullers.iter().take(wanted).map(|(id, _)| *id).collect();
        let begun = Instant::now();
        let pulls = ledger.pulls(&place, within, ids).await.unwrap();
        println!(
            "{what}: {} pulls by {wanted} callers in {:.1} ms",
            pulls.len(),
            begun.elapsed().as_secs_f64() * 1e3
        );
    }
    let tags: Vec<TargetId> = ledger
        .tag_targets(&place)
        .await
        .unwrap()
        .iter()
        .map(|target| target.id)
        .collect();
    let begun = Instant::now();
    let count = ledger.count_pulls(&place, &tags, within).await.unwrap();
    println!(
        "{what}: {count} pulls by tag counted in {:.1} ms",
        begun.elapsed().as_secs_f64() * 1e3
    );
}

/// What the tables and their indexes take on the disk.
async fn database_size(url: &str) -> i64 {
    let mut connection = sqlx::AnyConnection::connect(url).await.unwrap();
    let sizes = "SELECT CAST(sum(pg_total_relation_size(oid)) AS BIGINT) FROM pg_class
                 WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    let row = sqlx::query(sizes).fetch_one(&mut connection).await.unwrap();
    row.get(0)
}

fn main() {
    let whole = std::env::args().any(|argument| argument == "--bench");
    let facts = if whole { 1_000_000 } else { 2_000 };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for per_page in [5_000, 1_000, 50] {
            let folder = tempfile::TempDir::new().unwrap();
            let path = folder.path().join("ledger.db");
            let ledger = Ledger::open(path.to_str().unwrap()).await.unwrap();
            append(&ledger, "SQLite", facts, per_page).await;
            read(&ledger, "SQLite").await;
            ledger.close().await;
            let bytes = std::fs::metadata(&path).unwrap().len();
            println!(
                "SQLite: {bytes} bytes, {:.1} a pull",
                bytes as f64 / facts as f64
            );
        }
        for per_page in [5_000, 1_000, 50] {
            let url = support::Postgres::shared().await.database().await;
            let ledger = Ledger::open(&url).await.unwrap();
            append(&ledger, "PostgreSQL", facts / 5, per_page).await;
            read(&ledger, "PostgreSQL").await;
            ledger.close().await;
            let bytes = database_size(&url).await;
            println!(
                "PostgreSQL: {bytes} bytes, {:.1} a pull",
                bytes as f64 / (facts / 5) as f64
            );
        }
    });
}
