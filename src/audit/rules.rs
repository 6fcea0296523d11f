//! A policy's spec, compiled: matchers for principals, exceptions, the lookback.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

use super::{ClusterNodes, validate};
use crate::{
    api::{EcrAuditPolicySpec, Exception, ExpectedPullers, Finding},
    event::{Caller, Repository, is_instance_id},
};

/// A policy that cannot be judged.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{field}: {reason}")]
pub struct InvalidPolicy {
    /// Path of the field, for example `spec.exceptions[0].until`.
    pub field: String,
    /// What is wrong, and what was expected.
    pub reason: String,
}

/// A policy's spec, validated and compiled.
#[derive(Debug, Clone)]
pub struct Rules {
    registries: Option<HashSet<String>>,
    pullers: Option<Expected>,
    pushers: Option<Expected>,
    lookback: SignedDuration,
    exceptions: Vec<CompiledException>,
}

/// Callers that a policy expects.
#[derive(Debug, Clone)]
struct Expected {
    cluster_nodes: bool,
    principals: Vec<String>,
    accounts: HashSet<String>,
    services: HashSet<String>,
}

#[derive(Debug, Clone)]
struct CompiledException {
    exception: Exception,
    until: Date,
}

/// Default of `spec.lookbackDays`, which also bounds the count of unresolved pulls without a policy.
const LOOKBACK_DAYS: i64 = 30;

impl Rules {
    /// Compiles a policy. Checks what the CRD's schema checks, for policies that no API server saw.
    ///
    /// # Errors
    /// [`InvalidPolicy`] with the field's path.
    pub fn compile(spec: &EcrAuditPolicySpec) -> Result<Self, InvalidPolicy> {
        validate::spec(spec)?;
        let exceptions = spec
            .exceptions
            .iter()
            .flatten()
            .enumerate()
            .map(|(i, exception)| {
                let until =
                    validate::date(&exception.until, &format!("spec.exceptions[{i}].until"))?;
                Ok(CompiledException {
                    exception: exception.clone(),
                    until,
                })
            });
        Ok(Self {
            registries: spec
                .images
                .as_ref()
                .and_then(|images| images.registry_ids.as_ref())
                .map(|ids| ids.iter().cloned().collect()),
            pullers: spec.expected_pullers.as_ref().map(|expected| {
                let ExpectedPullers {
                    cluster_nodes,
                    principals,
                    accounts,
                    services,
                } = expected;
                Expected::new(
                    *cluster_nodes,
                    principals.as_ref(),
                    accounts.as_ref(),
                    services.as_ref(),
                )
            }),
            pushers: spec.expected_pushers.as_ref().map(|expected| {
                Expected::new(
                    false,
                    expected.principals.as_ref(),
                    expected.accounts.as_ref(),
                    expected.services.as_ref(),
                )
            }),
            lookback: days(spec.lookback_days),
            exceptions: exceptions.collect::<Result<_, _>>()?,
        })
    }

    /// The rules of `check` without a policy: only removals are judged, for every image.
    pub fn removals_only() -> Self {
        Self {
            registries: None,
            pullers: None,
            pushers: None,
            lookback: days(LOOKBACK_DAYS),
            exceptions: Vec::new(),
        }
    }

    /// Whether the policy audits images of this repository's registry.
    pub fn selects(&self, repository: &Repository) -> bool {
        let registries = self.registries.as_ref();
        registries.is_none_or(|ids| ids.contains(&*repository.account))
    }

    /// Whether pulls are judged at all.
    pub fn judges_pulls(&self) -> bool {
        self.pullers.is_some()
    }

    /// Whether pushes are judged at all.
    pub fn judges_pushes(&self) -> bool {
        self.pushers.is_some()
    }

    /// Whether pulls are expected of the nodes of this cluster.
    pub fn expects_cluster_nodes(&self) -> bool {
        self.pullers
            .as_ref()
            .is_some_and(|expected| expected.cluster_nodes)
    }

    /// Whether a pull by this caller is expected; `None` when pulls are not judged.
    pub fn expects_puller(&self, caller: &Caller, nodes: &ClusterNodes) -> Option<bool> {
        Some(self.pullers.as_ref()?.holds(caller, nodes))
    }

    /// Whether a push by this caller is expected; `None` when pushes are not judged.
    pub fn expects_pusher(&self, caller: &Caller) -> Option<bool> {
        Some(
            self.pushers
                .as_ref()?
                .holds(caller, &ClusterNodes::default()),
        )
    }

    /// How long a pull or push stays a finding.
    pub fn lookback(&self) -> SignedDuration {
        self.lookback
    }

    /// The first instant whose pulls and pushes are judged at `now`; it belongs to them.
    pub fn lookback_start(&self, now: Timestamp) -> Timestamp {
        now.checked_sub(self.lookback).unwrap_or(Timestamp::MIN)
    }

    /// The exceptions whose last day is over.
    pub fn expired_exceptions(&self, now: Timestamp) -> impl Iterator<Item = &Exception> {
        let today = now.to_zoned(TimeZone::UTC).date();
        self.exceptions
            .iter()
            .filter(move |compiled| compiled.until < today)
            .map(|compiled| &compiled.exception)
    }

    /// The exceptions that a caller's name does not rule out, a bit each. Without a caller (a rule
    /// acted): those that name no principals.
    pub(super) fn excepted_callers(&self, caller: Option<&Caller>) -> ExceptionSet {
        let mut set = 0;
        for (i, compiled) in self.exceptions.iter().enumerate() {
            let holds = match (&compiled.exception.principals, caller) {
                (None, _) => true,
                (Some(patterns), Some(caller)) => {
                    patterns.iter().any(|pattern| names(pattern, caller))
                }
                (Some(_), None) => false,
            };
            set |= ExceptionSet::from(holds) << i;
        }
        set
    }

    /// Whether one of these exceptions still holds and covers a finding.
    pub(super) fn excepts(&self, finding: &Finding, set: ExceptionSet, now: Timestamp) -> bool {
        let today = now.to_zoned(TimeZone::UTC).date();
        let by_caller = |i: usize| (set >> i) & 1 == 1;
        self.exceptions
            .iter()
            .enumerate()
            .filter(|(i, compiled)| by_caller(*i) && today <= compiled.until)
            .any(|(_, compiled)| covers(&compiled.exception, finding))
    }
}

/// A bit for each of a policy's exceptions, of which there are at most [`validate::MAX_EXCEPTIONS`].
pub(super) type ExceptionSet = u128;

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(days.saturating_mul(24).clamp(0, 1_000_000))
}

/// Whether type, namespace and repository match. Each field narrows; an absent one matches all.
fn covers(exception: &Exception, finding: &Finding) -> bool {
    let Exception {
        owner: _,
        reason: _,
        until: _,
        types,
        namespaces,
        repositories,
        principals: _,
    } = exception;
    let any = |patterns: &Option<Vec<String>>, text: &str| {
        let patterns = patterns.as_ref();
        patterns.is_none_or(|patterns| patterns.iter().any(|pattern| wildcard(pattern, text)))
    };
    types
        .as_ref()
        .is_none_or(|types| types.contains(&finding.finding_type))
        && any(namespaces, &finding.workload.namespace)
        && any(repositories, &finding.image.repository)
}

/// Whether a pattern names a caller: by its stable key, or by `userIdentity.arn`.
fn names(pattern: &str, caller: &Caller) -> bool {
    wildcard(pattern, &caller.principal.key)
        || caller
            .arn
            .as_ref()
            .is_some_and(|arn| wildcard(pattern, arn))
}

impl Expected {
    fn new(
        cluster_nodes: bool,
        principals: Option<&Vec<String>>,
        accounts: Option<&Vec<String>>,
        services: Option<&Vec<String>>,
    ) -> Self {
        Self {
            cluster_nodes,
            principals: principals.into_iter().flatten().cloned().collect(),
            accounts: accounts.into_iter().flatten().cloned().collect(),
            services: services.into_iter().flatten().cloned().collect(),
        }
    }

    fn holds(&self, caller: &Caller, nodes: &ClusterNodes) -> bool {
        let of_arn = || caller.principal.key.strip_prefix("arn:")?.split(':').nth(3);
        let account = caller.principal.account.as_deref().or_else(of_arn);
        self.cluster_nodes && nodes.holds(caller)
            || self.principals.iter().any(|pattern| names(pattern, caller))
            || account.is_some_and(|account| self.accounts.contains(account))
            || caller
                .principal
                .service
                .as_ref()
                .is_some_and(|service| self.services.contains(&**service))
    }
}

impl ClusterNodes {
    /// Whether a caller is a node of this cluster: its session is named by the instance id of one,
    /// or by any instance id where its key is one that such a session has used (replaced nodes).
    pub fn holds(&self, caller: &Caller) -> bool {
        caller.session.as_ref().is_some_and(|session| {
            self.instances.contains(session)
                || is_instance_id(session) && self.keys.contains(&caller.principal.key)
        })
    }

    /// Learns from a caller that pulled: the key of a session that is one of these nodes.
    pub fn learn(&mut self, caller: &Caller) {
        let session = caller.session.as_ref();
        if session.is_some_and(|session| self.instances.contains(session)) {
            self.keys.insert(caller.principal.key.clone());
        }
    }
}

/// IAM's wildcards: `*` is any text, `?` any one character.
pub(super) fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on after the last star, and the text it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    (p, t) = (after, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}
