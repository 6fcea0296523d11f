//! However the events come, one judgement: through files in any order, doubled, split and on any
//! number of threads, and through the ledger page by page.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails is the test that fails"
)]

mod history;

use std::{collections::BTreeSet, fs, io::Write, num::NonZeroUsize, path::PathBuf};

use ecr_audit::{
    api::{EcrAuditPolicy, FindingType},
    audit::{ClusterNodes, RepositoryEvidence, Rules, assess},
    cli::{self, InputArgs},
    event::{Event, EventName, Interval, Repository, decode},
    inventory::{self, Index, Scope},
    ledger::{Ledger, Page},
};
use jiff::{SignedDuration, Timestamp};
use proptest::{prelude::*, sample::Index as Pick, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};

use history::{ACCOUNT, NOW, POLICY, REPOSITORIES, cluster, history};

/// A folder with a policy, pods and nodes.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new((pods, nodes): &(Value, Value)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
        fs::write(folder.path().join("pods.json"), pods.to_string()).unwrap();
        fs::write(folder.path().join("nodes.json"), nodes.to_string()).unwrap();
        Self(folder)
    }

    /// Writes files of events, each in a form of its own, and has them judged.
    fn check(&self, files: &[Vec<&Value>], threads: usize) -> Value {
        let events = tempfile::tempdir().unwrap();
        for (n, records) in files.iter().enumerate() {
            let text = match n % 3 {
                0 => json!({"Records": records}).to_string(),
                1 => {
                    let lines: Vec<String> = records.iter().map(ToString::to_string).collect();
                    lines.join("\n")
                }
                _ => json!(records).to_string(),
            };
            if text.is_empty() {
                continue;
            }
            let mut bytes = text.into_bytes();
            if n % 2 == 1 {
                let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
                gzip.write_all(&bytes).unwrap();
                bytes = gzip.finish().unwrap();
            }
            fs::write(events.path().join(n.to_string()), bytes).unwrap();
        }
        let path = |name: &str| Some(self.0.path().join(name));
        let input = InputArgs {
            policy: path("policy.yaml"),
            pods: path("pods.json"),
            nodes: path("nodes.json"),
            now: Some(NOW.parse().unwrap()),
            threads: NonZeroUsize::new(threads),
        };
        let (report, _) = cli::report(&input, &[PathBuf::from(events.path())]).unwrap();
        assert_eq!(report.input.undecodable, 0);
        assert_eq!(report.input.errors, []);
        json!({"images": report.images, "findings": report.findings,
               "unresolved": report.input.unresolved_pulls})
    }
}

/// The same records in another order, some of them again, in several files.
fn shuffled<'a>(
    records: &'a [Value],
    order: &[Pick],
    again: &[Pick],
    files: usize,
) -> Vec<Vec<&'a Value>> {
    let mut rest: Vec<&Value> = records.iter().collect();
    if !rest.is_empty() {
        rest.extend(again.iter().map(|pick| pick.get(records)));
    }
    let mut split = vec![Vec::new(); files];
    for (n, pick) in order.iter().cycle().enumerate() {
        if rest.is_empty() {
            break;
        }
        let record = rest.swap_remove(pick.index(rest.len()));
        split[(n + pick.index(7)) % files].push(record);
    }
    split
}

/// The judgement through the ledger: the pages are appended, then each repository is asked for.
async fn by_ledger(pages: &[Vec<&Value>], (pods, nodes): &(Value, Value)) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.db");
    let url = file.to_str().unwrap();
    let now: Timestamp = NOW.parse().unwrap();
    for page in pages {
        // Each page by a process of its own, as it were.
        let ledger = Ledger::open(url).await.unwrap();
        let events: Vec<Event> = page
            .iter()
            .map(|record| decode(record.to_string().as_bytes()).unwrap())
            .collect();
        let page = Page {
            source: "lookupEvents",
            account: ACCOUNT,
            region: "us-east-1",
            names: &EventName::JUDGED,
            events: &events,
            undecodable: &[],
            covered: None,
            settled: None,
        };
        ledger.append(&page).await.unwrap();
        ledger.close().await;
    }
    let ledger = Ledger::open(url).await.unwrap();
    let mut index = Index::new();
    for list in [pods, nodes] {
        inventory::read::read("list", list.to_string().as_bytes(), &mut index).unwrap();
    }
    let policy: EcrAuditPolicy = serde_saphyr::from_str(POLICY).unwrap();
    let rules = Rules::compile(&policy.spec).unwrap();
    let mut cluster = ClusterNodes {
        instances: index.instances(),
        ..ClusterNodes::default()
    };
    for (_, caller) in ledger.callers().await.unwrap() {
        cluster.learn(&caller);
    }
    let lookback = Interval {
        start: rules.lookback_start(now),
        end: now + SignedDuration::from_secs(1),
    };
    let scope = Scope::default();
    let (mut images, mut findings, mut unresolved) = (vec![], vec![], 0);
    for (region, name) in REPOSITORIES {
        let repository = Repository {
            account: ACCOUNT.into(),
            region: region.into(),
            name: name.into(),
        };
        let containers = index.containers(&repository, &scope);
        if containers.is_empty() {
            continue;
        }
        let pullers = ledger.pullers(&repository).await.unwrap();
        let pullers = pullers.into_iter().map(|(id, _)| id);
        let evidence = RepositoryEvidence {
            changes: ledger.changes(&repository).await.unwrap(),
            pulls: ledger.pulls(&repository, lookback, pullers).await.unwrap(),
        };
        let judged = assess(&repository, &containers, &evidence, &cluster, &rules, now);
        unresolved += judged.unresolved_pulls;
        findings.extend(judged.findings);
        images.extend(judged.images.into_iter().map(|image| {
            json!({"account": ACCOUNT, "region": region, "repository": name, "digest": image.digest,
                   "state": image.state, "containers": image.containers})
        }));
    }
    findings.sort_by(ecr_audit::api::Finding::report_order);
    images.sort_by_key(|image| {
        let text = |key: &str| image[key].as_str().map(ToOwned::to_owned);
        (text("region"), text("repository"), text("digest"))
    });
    json!({"images": images, "findings": findings, "unresolved": unresolved})
}

/// The other tests compare: this one sees to it that there is something to compare.
#[test]
fn generated_histories_hold_findings_of_every_type() {
    let mut runner = TestRunner::deterministic();
    let mut types = BTreeSet::new();
    for _ in 0..60 {
        let (records, cluster) = (history(), cluster())
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let judged = Folder::new(&cluster).check(&[records.iter().collect()], 1);
        for finding in judged["findings"].as_array().unwrap() {
            types.insert(finding["type"].as_str().unwrap().to_owned());
        }
    }
    let all: BTreeSet<String> = FindingType::ALL.map(|of| of.as_str().to_owned()).into();
    assert_eq!(types, all);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn order_duplication_files_and_threads_change_nothing(
        records in history(),
        cluster in cluster(),
        order in prop::collection::vec(any::<Pick>(), 1..20),
        again in prop::collection::vec(any::<Pick>(), 0..10),
        (files, threads) in (1..6_usize, 1..4_usize),
    ) {
        let folder = Folder::new(&cluster);
        let plain = folder.check(&[records.iter().collect()], 1);
        let other = folder.check(&shuffled(&records, &order, &again, files), threads);
        prop_assert_eq!(plain.to_string(), other.to_string());
    }

    #[test]
    fn a_record_that_differs_under_the_same_id_is_chosen_in_any_order(
        records in history(),
        others in history(),
        cluster in cluster(),
        order in prop::collection::vec(any::<Pick>(), 1..20),
    ) {
        // Both histories use the same ids for different things.
        let both: Vec<Value> = records.into_iter().chain(others).collect();
        let folder = Folder::new(&cluster);
        let plain = folder.check(&[both.iter().collect()], 1);
        let other = folder.check(&shuffled(&both, &order, &[], 2), 1);
        prop_assert_eq!(plain.to_string(), other.to_string());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_and_files_agree(
        records in history(),
        cluster in cluster(),
        order in prop::collection::vec(any::<Pick>(), 1..20),
        again in prop::collection::vec(any::<Pick>(), 0..10),
        pages in 1..5_usize,
    ) {
        let files = Folder::new(&cluster).check(&[records.iter().collect()], 1);
        let pages = shuffled(&records, &order, &again, pages);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ledger = runtime.block_on(by_ledger(&pages, &cluster));
        prop_assert_eq!(files.to_string(), ledger.to_string());
    }
}
