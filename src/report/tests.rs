//! What is published, from evidence that reaches far, not far, or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    carry::Carry,
    evidence::{CHANGES, Evidence, PULLS, SourceHealth},
    judgement::{Facts, conditions},
    objects::{MOST_FINDINGS, objects},
    status::{image_totals, is_due},
    vocabulary::{ConditionType, Reason, Truth},
};
use crate::{
    api::{
        Cause, ContainerName, EcrAuditPolicy, EcrAuditPolicySpec, EcrAuditPolicyStatus,
        ExpectedPullers, Finding, FindingType, Image, ImageState, Impact, PrincipalName, Workload,
    },
    audit::{ClusterNodes, Rules},
    event::{EventName, Interval},
    source::{Health, LastError, Origin, PollerKey, PollerSpec},
};

const ACCOUNT: &str = "111122223333";
const REGION: &str = "us-east-1";

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn ago(hours: i64) -> Timestamp {
    now() - SignedDuration::from_hours(hours)
}

/// One source that has read these names from so many hours ago until a minute ago.
fn evidence(hours: i64, names: &[EventName]) -> Evidence {
    let spec = PollerSpec {
        key: PollerKey {
            origin: Origin::LookupEvents {
                account: Some(ACCOUNT.into()),
            },
            region: REGION.into(),
            assume_role: None,
        },
        poll_period: SignedDuration::from_secs(60),
        reread_period: SignedDuration::from_secs(900),
        backfill: SignedDuration::from_hours(90 * 24),
        lookback: SignedDuration::from_hours(30 * 24),
        accounts: None,
        buckets: None,
    };
    let mut health = Health::new(&spec);
    health.last_success = Some(now());
    for name in names {
        let read = Interval {
            start: ago(hours),
            end: now() - SignedDuration::from_mins(1),
        };
        health.coverage.insert(*name, [read].into_iter().collect());
    }
    for name in EventName::JUDGED {
        let days = if name == EventName::BatchGetImage {
            30
        } else {
            90
        };
        health.horizon.insert(name, ago(24 * days));
    }
    Evidence::new(vec![SourceHealth {
        name: "history".to_owned(),
        health: Arc::new(health),
    }])
}

fn everything() -> Evidence {
    evidence(90 * 24, &EventName::JUDGED)
}

fn finding(finding_type: FindingType, hours: i64) -> Finding {
    let removal = finding_type.is_removal();
    Finding {
        finding_type,
        impact: removal.then_some(Impact::Unpullable),
        excepted: false,
        inferred: false,
        image: Image {
            account: ACCOUNT.to_owned(),
            region: REGION.to_owned(),
            repository: "shop/web".to_owned(),
            digest: Some("sha256:aaaa".to_owned()),
        },
        reference: format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/shop/web:v1"),
        workload: Workload {
            namespace: "shop".to_owned(),
            kind: "Deployment".to_owned(),
            name: "web".to_owned(),
        },
        containers: containers(),
        cause: removal.then(|| Cause {
            event_name: "PolicyExecutionEvent".to_owned(),
            digest: Some("sha256:aaaa".to_owned()),
            rule: None,
        }),
        principal: (!removal).then(|| PrincipalName {
            key: "arn:aws:iam::111122223333:role/scanner".to_owned(),
            principal_type: Some("AssumedRole".to_owned()),
            account_id: Some(ACCOUNT.to_owned()),
            session: None,
        }),
        count: 3,
        first_time: ago(hours),
        last_time: ago(hours),
        event_ids: vec!["1".to_owned()],
    }
}

fn containers() -> Vec<ContainerName> {
    vec![ContainerName {
        pod: "web-1".to_owned(),
        container: "web".to_owned(),
    }]
}

fn rules(principals: &[&str]) -> Rules {
    Rules::compile(&EcrAuditPolicySpec {
        expected_pullers: Some(ExpectedPullers {
            cluster_nodes: true,
            principals: Some(principals.iter().map(|&p| p.to_owned()).collect()),
            accounts: None,
            services: None,
        }),
        ..EcrAuditPolicySpec::default()
    })
    .unwrap()
}

struct Carried<'a> {
    evidence: &'a Evidence,
    rules: &'a Rules,
    runs: bool,
    state: ImageState,
}

impl Carried<'_> {
    fn of(&self, made: &[Finding], published: &Finding) -> Vec<Finding> {
        let mut findings = made.to_vec();
        Carry {
            evidence: self.evidence,
            rules: self.rules,
            nodes: &ClusterNodes::default(),
            now: now(),
            runs: &|_| if self.runs { containers() } else { vec![] },
            state: &|_| self.state,
        }
        .merge(&mut findings, &[published]);
        findings
    }
}

#[test]
fn a_published_finding_stays_while_the_evidence_does_not_reach_its_events() {
    let rules = rules(&[]);
    for kind in [FindingType::ImageExpired, FindingType::UnexpectedPull] {
        let old = finding(kind, 48);
        let carried = |evidence: &Evidence, runs, state| {
            Carried {
                evidence,
                rules: &rules,
                runs,
                state,
            }
            .of(&[], &old)
        };
        let unknown = ImageState::Unknown;
        // An empty ledger; one that reaches a day back; one whose pulls alone are missing.
        assert_eq!(
            carried(&evidence(0, &[]), true, unknown),
            std::slice::from_ref(&old)
        );
        assert_eq!(
            carried(&evidence(24, &EventName::JUDGED), true, unknown),
            std::slice::from_ref(&old)
        );
        // What removed it is read, but not yet the pushes of long ago that tell of indexes.
        assert_eq!(
            carried(&evidence(72, &EventName::JUDGED), true, unknown),
            std::slice::from_ref(&old)
        );
        assert_eq!(carried(&everything(), true, unknown), []);
        assert_eq!(carried(&evidence(0, &[]), false, unknown), []);
    }
    let pull = finding(FindingType::UnexpectedPull, 48);
    let without_pulls = evidence(90 * 24, &CHANGES);
    let carried = Carried {
        evidence: &without_pulls,
        rules: &rules,
        runs: true,
        state: ImageState::Present,
    };
    assert_eq!(carried.of(&[], &pull), std::slice::from_ref(&pull));
    assert!(PULLS.iter().all(|name| !CHANGES.contains(name)));
}

#[test]
fn a_removal_is_taken_back_when_newer_evidence_shows_the_digest_present() {
    let rules = rules(&[]);
    let day = evidence(24, &EventName::JUDGED);
    let old = finding(FindingType::ImageExpired, 48);
    let carried = Carried {
        evidence: &day,
        rules: &rules,
        runs: true,
        state: ImageState::Present,
    };
    assert_eq!(carried.of(&[], &old), []);
    let recent = finding(FindingType::ImageExpired, 1);
    assert_eq!(carried.of(&[], &recent), std::slice::from_ref(&recent));
}

#[test]
fn a_pull_is_taken_back_when_the_policy_expects_it_or_the_lookback_ends() {
    let nothing = evidence(0, &[]);
    let old = finding(FindingType::UnexpectedPull, 48);
    for (rules, kept) in [
        (rules(&[]), true),
        (rules(&["arn:aws:iam::111122223333:role/scan*"]), false),
        (Rules::removals_only(), false),
    ] {
        let carried = Carried {
            evidence: &nothing,
            rules: &rules,
            runs: true,
            state: ImageState::Unknown,
        };
        assert_eq!(carried.of(&[], &old).len(), usize::from(kept));
        let ancient = finding(FindingType::UnexpectedPull, 31 * 24);
        assert_eq!(carried.of(&[], &ancient), []);
    }
}

#[test]
fn a_count_does_not_shrink_while_a_part_of_its_events_is_not_read_again() {
    let rules = rules(&[]);
    let old = finding(FindingType::UnexpectedPull, 48);
    let new = Finding {
        count: 1,
        event_ids: vec!["2".to_owned()],
        ..finding(FindingType::UnexpectedPull, 1)
    };
    let merged = |evidence: &Evidence| {
        Carried {
            evidence,
            rules: &rules,
            runs: true,
            state: ImageState::Unknown,
        }
        .of(std::slice::from_ref(&new), &old)
    };
    let partial = merged(&evidence(24, &EventName::JUDGED));
    assert_eq!((partial[0].count, partial[0].first_time), (3, ago(48)));
    assert_eq!(partial[0].last_time, ago(1));
    assert_eq!(merged(&everything()), std::slice::from_ref(&new));
}

#[test]
fn a_pull_is_inferred_only_when_no_change_is_still_to_be_read() {
    let rules = rules(&[]);
    let inferred = Finding {
        inferred: true,
        ..finding(FindingType::UnexpectedPull, 1)
    };
    let removal = finding(FindingType::TagRemoved, 1);
    let made = |evidence: &Evidence| {
        Carried {
            evidence,
            rules: &rules,
            runs: false,
            state: ImageState::Unknown,
        }
        .of(&[inferred.clone(), removal.clone()], &inferred)
    };
    assert_eq!(
        made(&evidence(24, &EventName::JUDGED)),
        std::slice::from_ref(&removal)
    );
    assert_eq!(made(&everything()).len(), 2);
}

#[test]
fn a_removal_keeps_its_cause_its_name_and_its_impact_until_its_time_is_read_again() {
    let rules = rules(&[]);
    let by = |key: &str| {
        Some(PrincipalName {
            key: key.to_owned(),
            principal_type: None,
            account_id: None,
            session: None,
        })
    };
    let old = Finding {
        principal: by("janitor"),
        ..finding(FindingType::ImageDeleted, 48)
    };
    // What came later is read first.
    let new = Finding {
        principal: by("boss"),
        impact: Some(Impact::Unknown),
        cause: Some(Cause {
            event_name: "DeleteRepository".to_owned(),
            digest: None,
            rule: None,
        }),
        ..finding(FindingType::ImageDeleted, 1)
    };
    let merged = |evidence: &Evidence| {
        Carried {
            evidence,
            rules: &rules,
            runs: true,
            state: ImageState::Unknown,
        }
        .of(std::slice::from_ref(&new), &old)
    };
    assert_eq!(
        merged(&evidence(24, &EventName::JUDGED)),
        std::slice::from_ref(&old)
    );
    assert_eq!(merged(&everything()), std::slice::from_ref(&new));
}

#[test]
fn pulls_that_do_not_come_are_not_taken_for_none() {
    let blind = [(ACCOUNT.to_owned(), REGION.to_owned())];
    let verdicts: BTreeMap<_, _> = facts_with(&everything(), &[], REGION, &blind, |facts| {
        let verdicts = facts.verdicts().into_iter();
        verdicts
            .map(|verdict| (verdict.condition, (verdict.status, verdict.reason)))
            .collect()
    });
    let of = |kind| verdicts.get(&kind).copied();
    let unknown = Some((Truth::Unknown, Reason::PullsNotSeen));
    assert_eq!(of(ConditionType::PullersExpected), unknown);
    let gap = Some((Truth::False, Reason::PullsNotSeen));
    assert_eq!(of(ConditionType::EvidenceComplete), gap);
    let retained = of(ConditionType::ImagesRetained).map(|(status, _)| status);
    assert_eq!(retained, Some(Truth::True));
}

#[test]
fn a_condition_that_holds_by_exceptions_says_so() {
    let excepted = |finding_type| Finding {
        excepted: true,
        ..finding(finding_type, 1)
    };
    let findings = [
        excepted(FindingType::ImageExpired),
        excepted(FindingType::TagRemoved),
        excepted(FindingType::UnexpectedPull),
    ];
    let verdicts = verdicts(&everything(), &findings, REGION);
    for (kind, end) in [
        (
            ConditionType::ImagesRetained,
            ", but for 2 findings that exceptions cover",
        ),
        (
            ConditionType::PullersExpected,
            ", but for 1 finding that exceptions cover",
        ),
    ] {
        let (status, _, message) = &verdicts[&kind];
        assert_eq!(*status, Truth::True);
        assert!(message.contains(end), "{message}");
    }
}

fn verdicts(
    evidence: &Evidence,
    findings: &[Finding],
    region: &str,
) -> BTreeMap<ConditionType, (Truth, Reason, String)> {
    facts(evidence, findings, region, |facts| {
        facts
            .verdicts()
            .into_iter()
            .map(|verdict| {
                (
                    verdict.condition,
                    (verdict.status, verdict.reason, verdict.message),
                )
            })
            .collect()
    })
}

fn facts<T>(
    evidence: &Evidence,
    findings: &[Finding],
    region: &str,
    use_them: impl FnOnce(&Facts<'_>) -> T,
) -> T {
    facts_with(evidence, findings, region, &[], use_them)
}

fn facts_with<T>(
    evidence: &Evidence,
    findings: &[Finding],
    region: &str,
    not_seen: &[(String, String)],
    use_them: impl FnOnce(&Facts<'_>) -> T,
) -> T {
    let rules = rules(&[]);
    let images = image_totals([ImageState::Present, ImageState::Unknown]);
    let registries = BTreeSet::from([(ACCOUNT.to_owned(), region.to_owned())]);
    use_them(&Facts {
        evidence,
        findings,
        images: &images,
        registries: &registries,
        pulls_not_seen: not_seen,
        unread: &[],
        unresolved_pulls: 0,
        nodes_without_session: 2,
        rules: &rules,
        faults: &[],
        inventory_synced: true,
        now: now(),
    })
}

#[test]
fn complete_evidence_without_findings_makes_every_condition_true_that_is_asked_for() {
    let verdicts = verdicts(&everything(), &[], REGION);
    let status = |kind| (verdicts[&kind].0, verdicts[&kind].1);
    assert_eq!(status(ConditionType::Ready), (Truth::True, Reason::Judged));
    assert_eq!(
        status(ConditionType::EvidenceComplete),
        (Truth::True, Reason::Complete)
    );
    assert_eq!(
        status(ConditionType::ImagesRetained),
        (Truth::True, Reason::Retained)
    );
    assert_eq!(
        status(ConditionType::PullersExpected),
        (Truth::True, Reason::AsExpected)
    );
    assert_eq!(
        status(ConditionType::PushersExpected),
        (Truth::Unknown, Reason::NotConfigured)
    );
    let retained = &verdicts[&ConditionType::ImagesRetained].2;
    assert!(
        retained.contains("since 2026-08-22T12:00:00Z"),
        "{retained}"
    );
    assert!(retained.contains("1 of them older"), "{retained}");
    let pullers = &verdicts[&ConditionType::PullersExpected].2;
    assert!(
        pullers.contains("2 nodes without an instance id"),
        "{pullers}"
    );
}

#[test]
fn a_registry_that_no_source_reads_is_unknown_and_named() {
    let verdicts = verdicts(&everything(), &[], "eu-west-1");
    let (status, reason, message) = &verdicts[&ConditionType::EvidenceComplete];
    assert_eq!(
        (*status, *reason),
        (Truth::False, Reason::RegistryNotCovered)
    );
    assert!(message.contains("111122223333 in eu-west-1"), "{message}");
    for kind in [
        ConditionType::ImagesRetained,
        ConditionType::PullersExpected,
    ] {
        assert_eq!(verdicts[&kind].0, Truth::Unknown);
    }
}

#[test]
fn a_gap_within_the_lookback_makes_pullers_unknown_but_not_images() {
    let verdicts = verdicts(&evidence(24, &EventName::JUDGED), &[], REGION);
    assert_eq!(
        verdicts[&ConditionType::PullersExpected].1,
        Reason::Backfilling
    );
    assert_eq!(verdicts[&ConditionType::ImagesRetained].0, Truth::True);
    assert_eq!(
        verdicts[&ConditionType::EvidenceComplete].1,
        Reason::Backfilling
    );
}

#[test]
fn evidence_that_ended_too_long_ago_is_stale_after_fifteen_minutes_and_two_polls() {
    let mut late = everything();
    for (minutes, stale) in [(16, false), (18, true)] {
        for intervals in Arc::make_mut(&mut late.sources[0].health)
            .coverage
            .values_mut()
        {
            *intervals = [Interval {
                start: ago(90 * 24),
                end: now() - SignedDuration::from_mins(minutes),
            }]
            .into_iter()
            .collect();
        }
        let late = Evidence::new(late.sources.clone());
        let verdicts = verdicts(&late, &[], REGION);
        let reason = verdicts[&ConditionType::EvidenceComplete].1;
        assert_eq!(reason == Reason::Stale, stale, "{reason}");
        assert_eq!(
            verdicts[&ConditionType::ImagesRetained].0 == Truth::Unknown,
            stale
        );
    }
}

#[test]
fn a_violated_condition_names_the_worst_finding_on_one_bounded_line() {
    let mut hostile = finding(FindingType::ImageExpired, 1);
    hostile.reference = format!("{}\n\u{1b}[2J{}", hostile.reference, "x".repeat(100_000));
    hostile.workload.name = "\u{202e}\"web\"\n".repeat(1000);
    let mut excepted = finding(FindingType::ImageDeleted, 1);
    excepted.excepted = true;
    let findings = [
        finding(FindingType::UnexpectedPull, 1),
        finding(FindingType::TagRemoved, 1),
        hostile,
        excepted,
    ];
    let verdicts = verdicts(&everything(), &findings, REGION);
    let (status, reason, message) = &verdicts[&ConditionType::ImagesRetained];
    assert_eq!((*status, *reason), (Truth::False, Reason::ImageExpired));
    assert!(message.len() <= 1024 && !message.contains(['\n', '\u{1b}', '\u{202e}']));
    assert!(
        message.ends_with("and 1 more; of 1 more images the evidence does not tell"),
        "{message}"
    );
    assert_eq!(
        verdicts[&ConditionType::PullersExpected].1,
        Reason::UnexpectedPull
    );
}

#[test]
fn a_fault_of_a_source_is_the_reason_of_ready_and_of_evidence() {
    let mut sources = everything().sources;
    Arc::make_mut(&mut sources[0].health).last_error = Some(LastError {
        reason: crate::source::Reason::AccessDenied,
        message: "not authorized to perform cloudtrail:LookupEvents".to_owned(),
        since: now(),
    });
    let verdicts = verdicts(&Evidence::new(sources), &[], REGION);
    for kind in [ConditionType::Ready, ConditionType::EvidenceComplete] {
        let (status, reason, message) = &verdicts[&kind];
        assert_eq!((*status, *reason), (Truth::False, Reason::AccessDenied));
        assert!(message.contains("cloudtrail:LookupEvents"), "{message}");
    }
    assert_eq!(verdicts[&ConditionType::ImagesRetained].0, Truth::True);
}

#[test]
fn a_transition_is_when_the_status_changed_and_a_new_leader_waits_for_evidence() {
    let written = facts(&everything(), &[], REGION, |facts| {
        conditions(&facts.verdicts(), &[], Some(1), false, ago(5))
    });
    let nothing = evidence(0, &[]);
    facts(&nothing, &[], REGION, |facts| {
        let settling = conditions(&facts.verdicts(), &written, Some(1), true, now());
        let of = |conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
                  kind: ConditionType| {
            conditions
                .iter()
                .find(|condition| condition.type_ == kind.as_str())
                .cloned()
                .unwrap()
        };
        // What waits for evidence stays; that the evidence is incomplete is said at once.
        assert_eq!(of(&settling, ConditionType::ImagesRetained).status, "True");
        assert_eq!(
            of(&settling, ConditionType::EvidenceComplete).status,
            "False"
        );
        assert_eq!(
            of(&settling, ConditionType::Ready).last_transition_time.0,
            ago(5)
        );
        let settled = conditions(&facts.verdicts(), &written, Some(1), false, now());
        let retained = of(&settled, ConditionType::ImagesRetained);
        assert_eq!(retained.status, "Unknown");
        assert_eq!(retained.last_transition_time.0, now());
        // Another spec was never judged.
        let edited = conditions(&facts.verdicts(), &written, Some(2), true, now());
        assert_eq!(of(&edited, ConditionType::ImagesRetained).status, "Unknown");
    });
}

#[test]
fn times_alone_are_written_every_five_minutes_and_everything_else_at_once() {
    let status = |since: Timestamp, running: usize| EcrAuditPolicyStatus {
        covered_since: Some(since),
        images: Some(image_totals(vec![ImageState::Present; running])),
        ..EcrAuditPolicyStatus::default()
    };
    let written = status(ago(5), 1);
    let at = Some(now() - SignedDuration::from_mins(4));
    assert!(is_due(&written, None, None, now()));
    assert!(!is_due(&written, Some(&written), None, now()));
    assert!(!is_due(&status(ago(4), 1), Some(&written), at, now()));
    assert!(is_due(&status(ago(5), 2), Some(&written), at, now()));
    let later = now() + SignedDuration::from_mins(1);
    assert!(is_due(&status(ago(4), 1), Some(&written), at, later));
}

#[test]
fn objects_have_names_that_dns_takes_are_bounded_and_the_worst_come_first() {
    let mut policy = EcrAuditPolicy::new("production", EcrAuditPolicySpec::default());
    policy.metadata.uid = Some("uid".to_owned());
    let mut findings: Vec<Finding> = (0..MOST_FINDINGS + 5)
        .map(|number| {
            let mut finding = finding(FindingType::UnexpectedPull, 1);
            finding.workload.name = format!("web-{number}");
            finding.containers = vec![containers()[0].clone(); 60];
            finding
        })
        .collect();
    let mut worst = finding(FindingType::ImageExpired, 1);
    worst.workload.name = format!("_A.{}", "ü".repeat(300));
    findings.push(worst);
    let (objects, surplus) = objects(&policy, &findings);
    assert_eq!((objects.len(), surplus), (MOST_FINDINGS, 6));
    assert_eq!(
        objects[0].spec.finding.finding_type,
        FindingType::ImageExpired
    );
    let mut names = BTreeSet::new();
    for object in &objects {
        let name = object.metadata.name.clone().unwrap();
        assert!(name.len() <= 253 && !name.starts_with('-'));
        assert!(
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
            "{name}"
        );
        assert!(object.spec.finding.containers.len() <= 50);
        assert_eq!(
            object.metadata.owner_references.as_ref().unwrap()[0].uid,
            "uid"
        );
        assert!(names.insert(name));
    }
    assert_eq!(objects[1].spec.container_count, 60);
}
