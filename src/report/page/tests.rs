//! What the page says, and that nothing which a stranger chose can say anything else.

use std::{collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::json;

use super::{PolicyPage, Snapshot, Standing, coverage::Coverage, render};
use crate::{
    api::{
        EcrAuditFindingSpec, EcrAuditPolicyStatus, FindingTotals, FindingType, ImageTotals, Impact,
    },
    event::{EventName, Interval},
    report::{
        evidence::{Evidence, SourceHealth},
        vocabulary::{ConditionType, Reason, Truth},
    },
    source::{Backfill, Gap, Health, LastError, Origin, PollerKey, PollerSpec},
};

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn ago(minutes: i64) -> Timestamp {
    now() - SignedDuration::from_mins(minutes)
}

fn days(days: i64) -> i64 {
    days * 24 * 60
}

/// A finding in which every text of others is this one.
fn finding(kind: FindingType, impact: Option<Impact>, text: &str) -> EcrAuditFindingSpec {
    let rule = kind
        .is_removal()
        .then(|| json!({"priority": 1, "description": text}));
    serde_json::from_value(json!({
        "policy": text,
        "remedy": format!("Ask {text}."),
        "containerCount": 7,
        "type": kind,
        "impact": impact,
        "excepted": false,
        "inferred": true,
        "image": {"account": text, "region": text, "repository": text, "digest": text},
        "reference": text,
        "workload": {"namespace": text, "kind": text, "name": text},
        "containers": [{"pod": text, "container": text}, {"pod": "b", "container": text}],
        "cause": kind.is_removal().then(|| json!(
            {"eventName": text, "digest": "sha256:0", "rule": rule}
        )),
        "principal": (!kind.is_removal()).then(|| json!(
            {"key": text, "type": text, "accountId": text, "session": text}
        )),
        "count": 2,
        "firstTime": ago(60),
        "lastTime": ago(30),
        "eventIDs": [text, "2"],
    }))
    .unwrap()
}

fn condition(kind: ConditionType, status: Truth, reason: Reason, message: &str) -> Condition {
    Condition {
        type_: kind.as_str().to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.as_str().to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(ago(90)),
        observed_generation: Some(1),
    }
}

/// The status of a policy that found nothing.
fn quiet() -> EcrAuditPolicyStatus {
    let good = [
        (ConditionType::Ready, Reason::Judged),
        (ConditionType::EvidenceComplete, Reason::Complete),
        (ConditionType::ImagesRetained, Reason::Retained),
    ];
    EcrAuditPolicyStatus {
        observed_generation: Some(1),
        conditions: good
            .map(|(kind, reason)| condition(kind, Truth::True, reason, "so it is"))
            .into(),
        covered_since: Some(ago(days(90))),
        images: Some(ImageTotals {
            running: 4,
            present: 4,
            ..ImageTotals::default()
        }),
        findings: Some(FindingTotals::default()),
        sources: None,
    }
}

fn policy(
    name: &str,
    status: EcrAuditPolicyStatus,
    findings: &[EcrAuditFindingSpec],
) -> PolicyPage {
    let named = findings.iter().map(|spec| (Some("finding-1"), spec));
    PolicyPage::new(name.to_owned(), status, named)
}

fn reader(account: Option<&str>, region: &str) -> Health {
    let mut health = Health::new(&PollerSpec {
        key: PollerKey {
            origin: Origin::LookupEvents {
                account: account.map(Into::into),
            },
            region: region.into(),
            assume_role: None,
        },
        poll_period: SignedDuration::from_secs(60),
        reread_period: SignedDuration::from_secs(900),
        backfill: SignedDuration::from_hours(90 * 24),
        lookback: SignedDuration::from_hours(30 * 24),
        accounts: None,
        buckets: None,
    });
    health.last_success = Some(ago(1));
    for name in EventName::JUDGED {
        let since = ago(days(if name == EventName::BatchGetImage {
            30
        } else {
            90
        }));
        health.horizon.insert(name, since);
        let read = Interval {
            start: since,
            end: ago(1),
        };
        health.coverage.insert(name, [read].into_iter().collect());
    }
    health
}

fn snapshot(policies: Vec<PolicyPage>, sources: Vec<Health>) -> Snapshot {
    let names = sources
        .iter()
        .map(|health| (health.key.clone(), vec!["production/history".to_owned()]));
    Snapshot {
        time: ago(0),
        policies,
        names: names.collect::<HashMap<_, _>>(),
        sources: sources.into_iter().map(Arc::new).collect(),
    }
}

fn page(snapshot: Snapshot) -> String {
    let standing = Standing::Leads(Some(Arc::new(snapshot)));
    render(&standing, "operator-0", &[], false, now()).unwrap()
}

fn answer(policies: Vec<PolicyPage>) -> String {
    let html = page(snapshot(policies, vec![]));
    let (_, rest) = html.split_once("<h1 id=\"answer\">").unwrap();
    rest.split_once("</h1>").unwrap().0.to_owned()
}

/// Tags and attributes in their order, without what is in and between them.
fn skeleton(html: &str) -> Vec<String> {
    let mut tags = Vec::new();
    for part in html.split('<').skip(1) {
        let (tag, text) = part.split_once('>').expect("a tag that ends");
        assert!(!text.contains('>'), "{part}");
        let outside = tag.split('"').step_by(2);
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        tags.push(outside.collect::<Vec<_>>().join("\"\""));
    }
    tags
}

const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}&lt;\u{202e}\u{2066}\u{0}\u{1b}[2J\r\n\u{2028}\u{5d0}\u{5d1}--><!--]]>";

/// A page in which every text that others choose is this one.
fn full(text: &str) -> String {
    let mut status = quiet();
    status.conditions[0] = condition(
        ConditionType::Ready,
        Truth::False,
        Reason::AccessDenied,
        text,
    );
    status.conditions[2].type_ = text.to_owned();
    status.conditions[2].reason = text.to_owned();
    let findings: Vec<_> = FindingType::ALL
        .map(|kind| {
            let impact = kind.is_removal().then_some(Impact::Unpullable);
            finding(kind, impact, text)
        })
        .into();
    let mut failing = reader(Some(text), text);
    failing.last_error = Some(LastError {
        reason: crate::source::Reason::AccessDenied,
        message: text.to_owned(),
        since: ago(10),
    });
    failing.backfill = Some(Backfill {
        requests: 7,
        duration: SignedDuration::from_mins(3),
        span: SignedDuration::from_hours(3),
        files: 0,
        bytes: 0,
    });
    failing.coverage.clear();
    failing.gaps = vec![Gap {
        reason: crate::source::Reason::FileMissing,
        message: text.to_owned(),
        span: Interval {
            start: ago(30),
            end: ago(20),
        },
    }];
    let mut bucket = reader(None, text);
    bucket.key.origin = Origin::S3 {
        bucket: text.into(),
        prefix: text.into(),
    };
    let mut snapshot = snapshot(vec![policy(text, status, &findings)], vec![failing, bucket]);
    for names in snapshot.names.values_mut() {
        *names = vec![text.to_owned()];
    }
    let standing = Standing::Leads(Some(Arc::new(snapshot)));
    render(&standing, text, &[text.to_owned()], false, now()).unwrap()
}

#[test]
fn no_name_can_become_a_tag_an_attribute_or_a_direction() {
    let (harmless, hostile) = (full("name"), full(HOSTILE));
    assert_eq!(skeleton(&harmless), skeleton(&hostile));
    assert!(hostile.contains("&#60;script&#62;"), "{hostile}");
    let steers = |c: char| {
        c != '\n' && c.is_control()
            || matches!(c, '\u{2028}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert_eq!(hostile.find(steers), None);
    // Letters that run from right to left stand where they cannot turn their neighbours.
    for (at, _) in hostile.match_indices('\u{5d0}') {
        let before = &hostile[..at];
        let isolated = before.rfind("<bdi>") > before.rfind("</bdi>");
        let is_plain = before.rfind("aria-label=").max(before.rfind("<title>")) > before.rfind('>');
        assert!(isolated || is_plain, "{}", &before[before.len() - 200..]);
    }
}

#[test]
fn a_standby_says_who_leads_and_escapes_it() {
    let standing = |leader: Option<&str>| Standing::StandsBy {
        leader: leader.map(str::to_owned),
        namespace: "ecr-audit".to_owned(),
        port: 8081,
    };
    let page = |leader| render(&standing(leader), "operator-1", &[], false, now()).unwrap();
    let html = page(Some("operator-0"));
    assert!(html.contains("This replica stands by"), "{html}");
    assert!(
        html.contains("<bdi>operator-0</bdi></strong> leads"),
        "{html}"
    );
    assert!(html.contains("kubectl -n ecr-audit port-forward pod/operator-0 8081"));
    assert!(!html.contains("id=\"findings\""));
    assert_eq!(skeleton(&html), skeleton(&page(Some(HOSTILE))));
    assert!(page(None).contains("No leader is known yet"));
}

#[test]
fn the_answer_comes_first_and_says_no_more_than_the_evidence() {
    assert_eq!(
        answer(vec![]),
        "There is no policy yet, so nothing is audited"
    );
    let said = answer(vec![policy("production", quiet(), &[])]);
    assert_eq!(
        said,
        "No running image has been removed since 2026-08-22 12:00 UTC"
    );
    let mut unsure = quiet();
    unsure.conditions[2] = condition(
        ConditionType::ImagesRetained,
        Truth::Unknown,
        Reason::RegistryNotCovered,
        "no source reads account 444455556666",
    );
    let said = answer(vec![policy("production", unsure, &[])]);
    assert_eq!(said, "Nothing was found, but not everything is known");

    let pull = finding(FindingType::UnexpectedPull, None, "a");
    let said = answer(vec![policy(
        "production",
        quiet(),
        std::slice::from_ref(&pull),
    )]);
    assert_eq!(said, "1 unexpected principal pulled what runs");
    let gone = |text| finding(FindingType::ImageExpired, Some(Impact::Unpullable), text);
    let all = [pull, gone("a"), gone("b"), gone("a")];
    // The image that two workloads, or two policies, run is one image.
    let twice = vec![
        policy("production", quiet(), &all),
        policy("staging", quiet(), &all[1..2]),
    ];
    assert_eq!(
        answer(twice),
        "2 running images cannot be pulled by a new node"
    );
    let mut excepted = gone("a");
    excepted.finding.excepted = true;
    let said = answer(vec![policy("production", quiet(), &[excepted])]);
    assert!(said.starts_with("No running image"), "{said}");
}

#[test]
fn what_the_answer_may_lack_is_said_beside_it() {
    let mut status = quiet();
    let denied = "source history in us-east-1: not authorized";
    for (at, kind) in [ConditionType::Ready, ConditionType::EvidenceComplete]
        .into_iter()
        .enumerate()
    {
        status.conditions[at] = condition(kind, Truth::False, Reason::AccessDenied, denied);
    }
    let html = page(snapshot(vec![policy("production", status, &[])], vec![]));
    let said = format!("production: AccessDenied: {denied}");
    assert_eq!(
        html.matches(&said).count(),
        1,
        "said by two conditions: {html}"
    );

    let mut old = snapshot(vec![policy("production", quiet(), &[])], vec![]);
    old.time = ago(5);
    assert!(page(old).contains("does not get through a pass"));
    let fresh = page(snapshot(vec![policy("production", quiet(), &[])], vec![]));
    assert!(!fresh.contains("What the answer may lack"), "{fresh}");
}

#[test]
fn a_page_about_very_much_stays_small() {
    let long = "x".repeat(2_000);
    let findings: Vec<_> = (0..100)
        .map(|number| {
            let mut spec = finding(FindingType::ImageExpired, Some(Impact::Unpullable), &long);
            spec.finding.workload.name = format!("{number}-{long}");
            spec
        })
        .collect();
    let mut status = quiet();
    if let Some(totals) = &mut status.findings {
        totals.surplus = Some(500);
    }
    let policies = (0..30)
        .map(|number| policy(&format!("p{number}"), status.clone(), &findings))
        .collect();
    let sources: Vec<Health> = (0..200)
        .map(|number| {
            let mut health = reader(Some(&format!("{number:012}")), "us-east-1");
            // Read in a thousand pieces.
            let pieces = (0..1000).map(|piece| Interval {
                start: ago(days(80) - 100 * piece),
                end: ago(days(80) - 100 * piece - 50),
            });
            if number == 7 {
                health
                    .coverage
                    .insert(EventName::PutImage, pieces.collect());
            }
            health
        })
        .collect();
    let html = page(snapshot(policies, sources));
    assert!(html.len() < 1_000_000, "{} bytes", html.len());
    assert!(html.contains("and 17950 more"), "findings");
    assert!(html.contains("and 10 more"), "policies");
    assert!(html.contains("and 170 more places"), "places");
    assert!(html.contains("and 150 more, none of them worse"), "sources");
}

#[test]
fn a_gap_is_drawn_told_and_comes_first() {
    let mut holed = reader(Some("222222222222"), "us-east-1");
    let hole = Interval {
        start: ago(days(45)),
        end: ago(days(45) - 30),
    };
    for name in EventName::JUDGED {
        holed.coverage.entry(name).or_default().remove(hole);
    }
    let whole = reader(Some("111111111111"), "us-east-1");
    let sources = [whole, holed].map(|health| SourceHealth {
        name: String::new(),
        health: Arc::new(health),
    });
    let coverage = Coverage::new(&Evidence::new(sources.into()), now());
    let [worst, good] = &*coverage.places.items else {
        panic!("two places");
    };
    assert_eq!(worst.account, "222222222222");
    let [changes, pulls] = &*worst.rows else {
        panic!("two rows");
    };
    assert_eq!(
        changes.gaps,
        ["not read: 2026-10-06 12:00:00 UTC to 2026-10-06 12:30:00 UTC (30 min)"]
    );
    let gap = changes.bars.iter().find(|bar| bar.class == "gap").unwrap();
    // In the middle of 90 days, and wide enough to be seen.
    assert!(
        (495..=500).contains(&gap.x) && gap.width >= 4,
        "{} {}",
        gap.x,
        gap.width
    );
    // Pulls are read 30 days back: what is older is nothing that is missing.
    assert!(pulls.gaps.is_empty(), "{:?}", pulls.gaps);
    assert!(
        good.rows
            .iter()
            .all(|row| row.class == "good" && row.gaps.is_empty())
    );
    assert_eq!(coverage.marks.first().map(String::as_str), Some("22 Aug"));
    assert_eq!(coverage.marks.last().map(String::as_str), Some("now"));
}

#[test]
fn what_is_still_to_be_read_is_no_gap() {
    let mut begins = reader(Some("111111111111"), "us-east-1");
    for name in EventName::JUDGED {
        let read = Interval {
            start: ago(days(10)),
            end: ago(1),
        };
        begins.coverage.insert(name, [read].into_iter().collect());
    }
    begins.backfill = Some(Backfill {
        requests: 7,
        duration: SignedDuration::from_mins(3),
        span: SignedDuration::from_hours(3),
        files: 0,
        bytes: 0,
    });
    let sources = vec![SourceHealth {
        name: String::new(),
        health: Arc::new(begins),
    }];
    let coverage = Coverage::new(&Evidence::new(sources), now());
    for row in &coverage.places.items[0].rows {
        assert_eq!(row.class, "unknown");
        assert!(
            row.gaps[0].starts_with("still to be read: "),
            "{:?}",
            row.gaps
        );
        assert!(row.bars.iter().all(|bar| bar.class != "gap"));
    }
}
