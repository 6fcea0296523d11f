//! The findings of all policies, the worst first.

use jiff::Timestamp;

use super::{Level, MESSAGE, NAME, PolicyPage, policies::Named, time::Moment};
use crate::{
    api::{FindingType, Impact},
    report::{judgement::severity, sentence::happened, text::plain},
};

/// Findings that are shown.
pub(super) const FINDINGS: usize = 50;
/// Containers of one finding that are shown.
const CONTAINERS: usize = 5;
/// Longest text of others, in bytes: the longest ARN would be 2048.
const TEXT: usize = 512;

/// The first of a list, and how many more there are.
pub(super) struct Shown<T> {
    pub items: Vec<T>,
    pub more: usize,
}

impl<T> Shown<T> {
    pub(super) fn first<A>(most: usize, all: Vec<A>, view: impl Fn(A) -> T) -> Self {
        let more = all.len().saturating_sub(most);
        Self {
            items: all.into_iter().take(most).map(view).collect(),
            more,
        }
    }
}

/// One finding.
pub(super) struct FindingView {
    pub class: &'static str,
    /// What it comes to, in a few words.
    pub badge: &'static str,
    pub kind: &'static str,
    pub workload_kind: String,
    pub workload: String,
    pub namespace: String,
    pub reference: String,
    pub happened: String,
    pub last: Moment,
    pub first: Moment,
    pub count: i64,
    pub impact: &'static str,
    pub remedy: String,
    pub digest: Option<String>,
    pub cause: Option<String>,
    pub principal: Option<String>,
    pub containers: Shown<String>,
    pub events: Vec<String>,
    pub policy: String,
    pub excepted: bool,
    pub inferred: bool,
    pub command: String,
}

/// The worst findings of all policies, and how many more there are.
pub(super) fn shown(policies: &[PolicyPage], now: Timestamp) -> Shown<FindingView> {
    let mut all: Vec<&Named> = policies
        .iter()
        .flat_map(|policy| &policy.findings)
        .collect();
    all.sort_by_cached_key(|named| severity(&named.spec.finding));
    let rest: usize = policies.iter().map(|policy| policy.more).sum();
    let mut shown = Shown::first(FINDINGS, all, |named| FindingView::new(named, now));
    shown.more = shown.more.saturating_add(rest);
    shown
}

impl FindingView {
    fn new(named: &Named, now: Timestamp) -> Self {
        let Named { name, spec } = named;
        let finding = &spec.finding;
        let (level, badge) = badge(finding.finding_type, finding.impact);
        let level = if finding.excepted {
            Level::Unknown
        } else {
            level
        };
        let namespace = plain(&finding.workload.namespace, NAME);
        let total = usize::try_from(spec.container_count).unwrap_or_default();
        let containers = finding.containers.iter().take(CONTAINERS).map(|container| {
            plain(
                &format!("{}/{}", container.pod, container.container),
                2 * NAME,
            )
        });
        let containers: Vec<String> = containers.collect();
        Self {
            class: level.class(),
            badge,
            kind: finding.finding_type.as_str(),
            workload_kind: plain(&finding.workload.kind, NAME),
            workload: plain(&finding.workload.name, NAME),
            reference: plain(&finding.reference, TEXT),
            happened: plain(&capital(&happened(finding)), MESSAGE),
            last: Moment::new(finding.last_time, now),
            first: Moment::new(finding.first_time, now),
            count: finding.count,
            impact: impact(finding.impact),
            remedy: plain(&spec.remedy, MESSAGE),
            digest: finding.image.digest.as_deref().map(|text| plain(text, 128)),
            cause: finding.cause.as_ref().map(|cause| {
                let of = cause
                    .digest
                    .as_deref()
                    .filter(|digest| finding.image.digest.as_deref() != Some(digest));
                let of = of.map_or_else(String::new, |digest| format!(" of {digest}"));
                plain(&format!("{}{of}", cause.event_name), TEXT)
            }),
            principal: finding.principal.as_ref().map(|who| {
                let session = who.session.as_ref();
                let session = session.map_or_else(String::new, |name| format!(", session {name}"));
                plain(&format!("{}{session}", who.key), TEXT)
            }),
            containers: Shown {
                more: total.saturating_sub(containers.len()),
                items: containers,
            },
            events: finding
                .event_ids
                .iter()
                .take(10)
                .map(|id| plain(id, 64))
                .collect(),
            policy: plain(&spec.policy, NAME),
            excepted: finding.excepted,
            inferred: finding.inferred,
            command: format!("kubectl describe eaf -n {namespace} {}", plain(name, NAME)),
            namespace,
        }
    }
}

/// With a capital, as a sentence begins.
fn capital(text: &str) -> String {
    let mut rest = text.chars();
    let first = rest.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(rest).collect()
}

fn badge(kind: FindingType, impact: Option<Impact>) -> (Level, &'static str) {
    match (kind, impact) {
        (_, Some(Impact::Unpullable)) => (Level::Bad, "cannot be pulled"),
        (_, Some(Impact::WouldChange)) => (Level::Warn, "would change"),
        (FindingType::UnexpectedPush, _) => (Level::Warn, "unexpected push"),
        (FindingType::UnexpectedPull, _) => (Level::Warn, "unexpected pull"),
        (FindingType::DeniedPush, _) => (Level::Unknown, "refused push"),
        (FindingType::DeniedPull, _) => (Level::Unknown, "refused pull"),
        (_, Some(Impact::Unknown) | None) => (Level::Bad, "removed"),
    }
}

const fn impact(impact: Option<Impact>) -> &'static str {
    match impact {
        Some(Impact::Unpullable) => "A new node cannot pull it.",
        Some(Impact::WouldChange) => "A new node would run another image.",
        Some(Impact::Unknown) => "The evidence does not tell what a new node would get.",
        None => "",
    }
}
