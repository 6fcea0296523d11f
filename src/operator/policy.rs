//! A policy as the operator works with it: dereferenced from the API's object, validated, and
//! turned into rules, a scope and the readers it needs. No client is required here.

use std::{collections::BTreeSet, sync::Arc};

use jiff::SignedDuration;
use kube::api::DynamicObject;

use crate::{
    api::{EcrAuditPolicy, EcrAuditPolicySpec, EcrAuditPolicyStatus, LookupEvents, Source},
    audit::Rules,
    inventory::Scope,
    report::{judgement::Fault, vocabulary::Reason},
    source::{PollerKey, PollerSpec},
};

/// The name of the source that a policy without sources has.
pub(super) const DEFAULT_SOURCE: &str = "default";

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
    /// None: the operator's own, or the one of the role's ARN.
    accounts: Vec<Option<Arc<str>>>,
    assume_role: Option<Arc<crate::api::AssumeRole>>,
    how: LookupEvents,
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
        sources: sources.collect::<Result<_, _>>()?,
    })
}

fn compile_source(source: Source) -> Result<CompiledSource, Fault> {
    let Source {
        name,
        accounts,
        assume_role,
        lookup_events,
        sqs,
        s3,
    } = source;
    let unsupported = |kind| Fault {
        reason: Reason::SourceUnsupported,
        message: format!(
            "source {name} is of the kind {kind}, which this version cannot read; use lookupEvents"
        ),
    };
    if sqs.is_some() {
        return Err(unsupported("sqs"));
    }
    if s3.is_some() {
        return Err(unsupported("s3"));
    }
    let accounts = match accounts {
        Some(accounts) => accounts.iter().map(|id| Some(id.as_str().into())).collect(),
        None => vec![None],
    };
    Ok(CompiledSource {
        name,
        accounts,
        assume_role: assume_role.map(Arc::new),
        how: lookup_events.unwrap_or_default(),
    })
}

impl Compiled {
    /// The readers that the policy needs, each under its source's name. `running` are the regions
    /// of the images that run.
    #[must_use]
    pub(super) fn readers(&self, running: &BTreeSet<String>) -> Vec<(String, PollerSpec)> {
        let mut readers = Vec::new();
        for source in &self.sources {
            let regions: BTreeSet<&str> = match &source.how.regions {
                Some(regions) => regions.iter().map(String::as_str).collect(),
                None => running.iter().map(String::as_str).collect(),
            };
            for account in &source.accounts {
                for region in &regions {
                    let spec = PollerSpec {
                        key: PollerKey {
                            account: account.clone(),
                            region: (*region).into(),
                            assume_role: source.assume_role.clone(),
                        },
                        poll_period: SignedDuration::from_secs(source.how.poll_period_seconds),
                        reread_period: SignedDuration::from_secs(source.how.reread_period_seconds),
                        backfill: SignedDuration::from_hours(24 * source.how.backfill_days),
                        lookback: self.rules.lookback(),
                    };
                    readers.push((source.name.clone(), spec));
                }
            }
        }
        readers
    }

    /// Whether a source leaves its regions to what runs.
    #[must_use]
    pub(super) fn derives_regions(&self) -> bool {
        self.sources
            .iter()
            .any(|source| source.how.regions.is_none())
    }
}
