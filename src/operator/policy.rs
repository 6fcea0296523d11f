//! A policy as the operator works with it: dereferenced from the API's object, validated, and
//! turned into rules, a scope and the readers it needs. No client is required here.

use std::{collections::BTreeSet, sync::Arc};

use jiff::SignedDuration;
use kube::api::DynamicObject;

use crate::{
    api::{
        EcrAuditPolicy, EcrAuditPolicySpec, EcrAuditPolicyStatus, LookupEvents, S3, Source, Sqs,
    },
    audit::Rules,
    inventory::Scope,
    report::{judgement::Fault, vocabulary::Reason},
    source::{Origin, PollerKey, PollerSpec},
};

/// The name of the source that a policy without sources has.
pub(super) const DEFAULT_SOURCE: &str = "default";

/// How often what a queue proves is moved on, at least; its messages are waited for all the time.
const QUEUE_PERIOD: SignedDuration = SignedDuration::from_secs(60);

/// What a valid policy asks for.
#[derive(Debug)]
pub(super) struct Compiled {
    /// The rules.
    pub rules: Rules,
    /// Which of what runs it audits.
    pub scope: Scope,
    sources: Vec<CompiledSource>,
}

#[derive(Debug)]
struct CompiledSource {
    name: String,
    accounts: Option<Vec<Arc<str>>>,
    assume_role: Option<Arc<crate::api::AssumeRole>>,
    how: How,
}

/// How a source is read.
#[derive(Debug)]
enum How {
    LookupEvents(LookupEvents),
    S3(S3),
    Sqs(Sqs),
}

/// The policy of an object of the API, whatever its spec looks like.
///
/// # Errors
/// The object's metadata and status with what is wrong with its spec.
pub(super) fn dereference(object: DynamicObject) -> (EcrAuditPolicy, Result<(), Fault>) {
    let DynamicObject {
        types: _,
        metadata,
        mut data,
    } = object;
    let spec = serde_path_to_error::deserialize(data["spec"].take());
    // A status that this version does not understand is written anew.
    let status = serde_json::from_value::<Option<EcrAuditPolicyStatus>>(data["status"].take());
    let (spec, validity) = match spec {
        Ok(spec) => (spec, Ok(())),
        Err(error) => (
            EcrAuditPolicySpec::default(),
            Err(Fault {
                reason: Reason::InvalidSpec,
                message: format!("spec.{}: {}", error.path(), error.inner()),
            }),
        ),
    };
    let policy = EcrAuditPolicy {
        metadata,
        spec,
        status: status.ok().flatten(),
    };
    (policy, validity)
}

/// Compiles a policy's spec.
///
/// # Errors
/// Why it cannot be judged.
pub(super) fn validate(spec: &EcrAuditPolicySpec) -> Result<Compiled, Fault> {
    let invalid = |message: String| Fault {
        reason: Reason::InvalidSpec,
        message,
    };
    let rules = Rules::compile(spec).map_err(|error| invalid(error.to_string()))?;
    let scope = Scope::new(spec.workloads.as_ref(), spec.images.as_ref())
        .map_err(|error| invalid(format!("spec.workloads.namespaceSelector: {error}")))?;
    let default = || {
        vec![Source {
            name: DEFAULT_SOURCE.to_owned(),
            lookup_events: Some(LookupEvents::default()),
            ..Source::default()
        }]
    };
    let sources = spec.sources.clone().unwrap_or_else(default);
    let sources = sources.into_iter().map(compile_source);
    Ok(Compiled {
        rules,
        scope,
        sources: sources.collect(),
    })
}

fn compile_source(source: Source) -> CompiledSource {
    let Source {
        name,
        accounts,
        assume_role,
        lookup_events,
        sqs,
        s3,
    } = source;
    let how = match (lookup_events, s3, sqs) {
        (_, Some(s3), _) => How::S3(s3),
        (_, _, Some(sqs)) => How::Sqs(sqs),
        (lookup, None, None) => How::LookupEvents(lookup.unwrap_or_default()),
    };
    CompiledSource {
        name,
        accounts: accounts.map(|ids| ids.iter().map(|id| id.as_str().into()).collect()),
        assume_role: assume_role.map(Arc::new),
        how,
    }
}

impl CompiledSource {
    /// A reader of this kind. What the kind does not know is left as it is here.
    fn reader(&self, origin: Origin, region: &str, lookback: SignedDuration) -> PollerSpec {
        PollerSpec {
            key: PollerKey {
                origin,
                region: region.into(),
                assume_role: self.assume_role.clone(),
            },
            poll_period: QUEUE_PERIOD,
            reread_period: SignedDuration::ZERO,
            backfill: SignedDuration::ZERO,
            lookback,
            accounts: None,
            buckets: None,
        }
    }

    /// The account that the role's ARN names.
    fn account_of_role(&self) -> Option<Arc<str>> {
        let arn = self.assume_role.as_ref()?.role_arn.as_deref()?;
        arn.split(':').nth(4).map(Arc::from)
    }

    fn readers(&self, running: &BTreeSet<String>, lookback: SignedDuration) -> Vec<PollerSpec> {
        let limit = || Some(self.accounts.as_ref()?.iter().cloned().collect());
        match &self.how {
            How::LookupEvents(how) => {
                let regions: BTreeSet<&str> = match &how.regions {
                    Some(regions) => regions.iter().map(String::as_str).collect(),
                    None => running.iter().map(String::as_str).collect(),
                };
                // None: the operator's own.
                let accounts: BTreeSet<Option<Arc<str>>> = match &self.accounts {
                    Some(accounts) => accounts.iter().cloned().map(Some).collect(),
                    None => [self.account_of_role()].into(),
                };
                let pairs = accounts.into_iter().flat_map(|account| {
                    regions.iter().map(move |region| (account.clone(), *region))
                });
                pairs
                    .map(|(account, region)| PollerSpec {
                        poll_period: SignedDuration::from_secs(how.poll_period_seconds),
                        reread_period: SignedDuration::from_secs(how.reread_period_seconds),
                        backfill: SignedDuration::from_hours(24 * how.backfill_days),
                        ..self.reader(Origin::LookupEvents { account }, region, lookback)
                    })
                    .collect()
            }
            How::S3(how) => {
                let origin = Origin::S3 {
                    bucket: how.bucket.as_str().into(),
                    prefix: folder(how.prefix.as_deref().unwrap_or_default()),
                };
                vec![PollerSpec {
                    poll_period: SignedDuration::from_secs(how.poll_period_seconds),
                    backfill: SignedDuration::from_hours(24 * how.backfill_days),
                    accounts: limit(),
                    ..self.reader(origin, &how.region, lookback)
                }]
            }
            How::Sqs(how) => {
                let origin = Origin::Sqs {
                    queue_url: how.queue_url.as_str().into(),
                };
                let buckets = how.buckets.as_ref();
                vec![PollerSpec {
                    accounts: limit(),
                    buckets: buckets.map(|all| all.iter().map(|one| one.as_str().into()).collect()),
                    ..self.reader(origin, &how.region, lookback)
                }]
            }
        }
    }
}

/// What precedes `AWSLogs/`, with a slash at its end if it is anything.
fn folder(prefix: &str) -> Arc<str> {
    match prefix.trim_matches('/') {
        "" => "".into(),
        prefix => format!("{prefix}/").into(),
    }
}

impl Compiled {
    /// The readers that the policy needs, each under its source's name. `running` are the regions
    /// of the images that run.
    #[must_use]
    pub(super) fn readers(&self, running: &BTreeSet<String>) -> Vec<(String, PollerSpec)> {
        let lookback = self.rules.lookback();
        self.sources
            .iter()
            .flat_map(|source| {
                let readers = source.readers(running, lookback);
                readers.into_iter().map(|spec| (source.name.clone(), spec))
            })
            .collect()
    }

    /// Whether a source leaves its regions to what runs.
    #[must_use]
    pub(super) fn derives_regions(&self) -> bool {
        self.sources
            .iter()
            .any(|source| matches!(&source.how, How::LookupEvents(how) if how.regions.is_none()))
    }
}
