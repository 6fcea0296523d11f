//! What is written to the Kubernetes API: finding objects, a policy's status, Events.
//!
//! Every change of an object carries the `resourceVersion` that it was judged on, so that a
//! leader that slept is refused, and nothing is written without asking first whether this process
//! still leads, or waited for once another one can.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{
        ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
        Preconditions,
    },
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::json;

use super::lease::Leadership;
use crate::{
    api::{
        API_VERSION, EcrAuditFinding, EcrAuditFindingSpec, EcrAuditPolicy, EcrAuditPolicyStatus,
    },
    report::{sentence::sentence, text::plain, vocabulary::Reason},
};

/// Name under which fields are owned.
const MANAGER: &str = "ecr-audit-operator";
/// Objects in one page of a list.
const PAGE: u32 = 200;
/// Writes that are under way at a time.
const WRITES: usize = 8;
/// Most Events about new findings of one policy at once; the rest are told by number.
const EVENTS: usize = 20;
/// Longest note of an Event, in bytes. The API takes 1 KiB.
const NOTE: usize = 1000;

/// Namespace and name.
pub(super) type Key = (String, String);

/// A finding object as it is in the API.
#[derive(Clone, Debug)]
pub(super) struct Published {
    uid: Option<String>,
    version: Option<String>,
    /// None when it does not decode: it is replaced or removed.
    pub spec: Option<EcrAuditFindingSpec>,
}

/// A write that the API did not take.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The object changed since it was judged, or is not there: look again.
    #[error("the object has changed")]
    Conflict,
    /// The operator may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// This process does not lead any more.
    #[error("another process leads")]
    NotLeader,
    /// Anything else: worth trying again.
    #[error("{0}")]
    Api(String),
}

impl WriteError {
    fn new(verb: &str, resource: &str, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if matches!(status.code, 404 | 409 | 410 | 412) => {
                Self::Conflict
            }
            kube::Error::Api(status) if status.code == 403 => Self::Forbidden(plain(
                &format!("cannot {verb} {resource}: {}", status.message),
                300,
            )),
            kube::Error::Api(status) => Self::Api(plain(
                &format!("cannot {verb} {resource}: {}", status.message),
                300,
            )),
            error => Self::Api(plain(&format!("cannot {verb} {resource}: {error}"), 300)),
        }
    }

    /// A bounded name, for metrics.
    pub(super) const fn category(&self) -> &'static str {
        match self {
            Self::Conflict => "Conflict",
            Self::Forbidden(_) => "Forbidden",
            Self::NotLeader => "NotLeader",
            Self::Api(_) => "Api",
        }
    }

    /// The reason of a condition that tells of it.
    pub(super) const fn reason(&self) -> Reason {
        match self {
            Self::Forbidden(_) => Reason::Forbidden,
            _ => Reason::WriteFailed,
        }
    }
}

/// Writes for one process.
#[derive(Clone)]
pub(super) struct Publisher {
    client: Client,
    leadership: Leadership,
    recorder: Recorder,
}

const FINDINGS: &str = "ecrauditfindings.ecraudit.io";
const STATUS: &str = "ecrauditpolicies.ecraudit.io/status";

impl Publisher {
    /// A publisher that writes while this process leads, under this process's name.
    pub(super) fn new(client: Client, leadership: Leadership, instance: String) -> Self {
        let reporter = Reporter {
            controller: format!("ecraudit.io/{MANAGER}"),
            instance: Some(instance),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            leadership,
        }
    }

    /// Sends a write if this process leads, and waits for its answer while no other one can.
    async fn send<T>(
        &self,
        verb: &str,
        resource: &str,
        write: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, WriteError> {
        if !self.leadership.is_held() {
            return Err(WriteError::NotLeader);
        }
        let answer = self.leadership.while_held(write).await;
        let answer = answer.ok_or(WriteError::NotLeader)?;
        answer.map_err(|error| WriteError::new(verb, resource, error))
    }

    /// Every finding object, by the uid of the policy that owns it.
    pub(super) async fn published(
        &self,
    ) -> Result<BTreeMap<String, BTreeMap<Key, Published>>, WriteError> {
        let resource = ApiResource::erase::<EcrAuditFinding>(&());
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let mut all: BTreeMap<String, BTreeMap<Key, Published>> = BTreeMap::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api
                .list(&params)
                .await
                .map_err(|error| WriteError::new("list", FINDINGS, error))?;
            for object in page.items {
                let owner = object
                    .owner_references()
                    .iter()
                    .find(|owner| owner.kind == EcrAuditPolicy::kind(&()))
                    .map_or_else(String::new, |owner| owner.uid.clone());
                let key = (object.namespace().unwrap_or_default(), object.name_any());
                let published = Published {
                    uid: object.metadata.uid.clone(),
                    version: object.metadata.resource_version.clone(),
                    spec: serde_json::from_value(object.data["spec"].clone()).ok(),
                };
                all.entry(owner).or_default().insert(key, published);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    /// Makes the finding objects of a policy those that are wanted. Returns what was new, and
    /// the first error; what could be written was, and `published` says so.
    pub(super) async fn findings(
        &self,
        wanted: Vec<EcrAuditFinding>,
        published: &mut BTreeMap<Key, Published>,
    ) -> (Vec<EcrAuditFinding>, usize, Option<WriteError>) {
        let mut writes = Vec::new();
        let mut kept = std::collections::BTreeSet::new();
        for object in wanted {
            let key = (object.namespace().unwrap_or_default(), object.name_any());
            kept.insert(key.clone());
            match published.get(&key) {
                Some(old) if old.spec.as_ref() == Some(&object.spec) => {}
                old => writes.push(Write::Apply(key, Box::new(object), old.cloned())),
            }
        }
        for (key, old) in published.iter().filter(|(key, _)| !kept.contains(*key)) {
            writes.push(Write::Delete(key.clone(), old.clone()));
        }
        let results: Vec<_> = stream::iter(writes)
            .map(|write| self.write(write))
            .buffer_unordered(WRITES)
            .collect()
            .await;
        let mut created = Vec::new();
        let mut failed = None;
        let mut written = 0;
        for result in results {
            match result {
                Ok(Written::Applied(key, object, is_new)) => {
                    written += 1;
                    published.insert(
                        key,
                        Published {
                            uid: object.metadata.uid.clone(),
                            version: object.metadata.resource_version.clone(),
                            spec: Some(object.spec.clone()),
                        },
                    );
                    if is_new {
                        created.push(*object);
                    }
                }
                Ok(Written::Deleted(key)) => {
                    written += 1;
                    published.remove(&key);
                }
                // A conflict is looked into by listing again, so it hides no other error.
                Err(error) => {
                    if failed.is_none() || matches!(error, WriteError::Conflict) {
                        failed = Some(error);
                    }
                }
            }
        }
        (created, written, failed)
    }

    async fn write(&self, write: Write) -> Result<Written, WriteError> {
        match write {
            Write::Apply((namespace, name), mut object, None) => {
                let api = self.findings_of(&namespace);
                let params = PostParams {
                    field_manager: Some(MANAGER.to_owned()),
                    ..PostParams::default()
                };
                // Created, not applied: one that is there already was not judged here.
                let content = without_null(&object)?;
                let created = api.create(&params, &content);
                let created = self.send("create", FINDINGS, created).await?;
                object.metadata = created.metadata;
                Ok(Written::Applied((namespace, name), object, true))
            }
            Write::Apply((namespace, name), mut object, Some(old)) => {
                let api = self.findings_of(&namespace);
                object.metadata.resource_version = old.version;
                let content = Patch::Apply(without_null(&object)?);
                let params = PatchParams::apply(MANAGER).force();
                let applied = api.patch(&name, &params, &content);
                let applied = self.send("patch", FINDINGS, applied).await?;
                object.metadata = applied.metadata;
                Ok(Written::Applied((namespace, name), object, false))
            }
            Write::Delete((namespace, name), old) => {
                let api = self.findings_of(&namespace);
                let params = DeleteParams::default().preconditions(Preconditions {
                    uid: old.uid,
                    resource_version: old.version,
                });
                let deleted = async {
                    match api.delete(&name, &params).await {
                        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                        deleted => deleted.map(drop),
                    }
                };
                self.send("delete", FINDINGS, deleted).await?;
                Ok(Written::Deleted((namespace, name)))
            }
        }
    }

    fn findings_of(&self, namespace: &str) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<EcrAuditFinding>(&());
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    /// Writes a policy's status; its new `resourceVersion`.
    pub(super) async fn status(
        &self,
        policy: &EcrAuditPolicy,
        status: &EcrAuditPolicyStatus,
    ) -> Result<Option<String>, WriteError> {
        let api: Api<DynamicObject> = Api::all_with(
            self.client.clone(),
            &ApiResource::erase::<EcrAuditPolicy>(&()),
        );
        let patch = json!({
            "apiVersion": API_VERSION,
            "kind": EcrAuditPolicy::kind(&()),
            "metadata": {
                "name": policy.metadata.name,
                "resourceVersion": policy.metadata.resource_version,
            },
            "status": status,
        });
        let (name, patch) = (policy.name_any(), Patch::Apply(patch));
        let params = PatchParams::apply(MANAGER).force();
        let written = api.patch_status(&name, &params, &patch);
        let written = self.send("patch", STATUS, written).await?;
        Ok(written.metadata.resource_version)
    }

    /// Tells of new findings in the namespaces of their workloads. What was told is taken out of
    /// `untold`; the rest is for another time.
    pub(super) async fn events(
        &self,
        policy: &EcrAuditPolicy,
        untold: &mut Vec<EcrAuditFinding>,
    ) -> Result<(), WriteError> {
        let about_policy = policy.object_ref(&());
        untold.retain(|object| !object.spec.finding.excepted);
        for _ in 0..untold.len().min(EVENTS) {
            let object = &untold[0];
            let event = Event {
                type_: EventType::Warning,
                reason: object.spec.finding.finding_type.as_str().to_owned(),
                note: Some(plain(&sentence(&object.spec.finding), NOTE)),
                action: "Audit".to_owned(),
                secondary: Some(about_policy.clone()),
            };
            self.record(&event, &object.object_ref(&())).await?;
            untold.remove(0);
        }
        if !untold.is_empty() {
            let event = Event {
                type_: EventType::Warning,
                reason: "Findings".to_owned(),
                note: Some(format!("and {} more new findings", untold.len())),
                action: "Audit".to_owned(),
                secondary: None,
            };
            self.record(&event, &about_policy).await?;
            untold.clear();
        }
        Ok(())
    }

    async fn record(&self, event: &Event, about: &ObjectReference) -> Result<(), WriteError> {
        let published = self.recorder.publish(event, about);
        self.send("create", "events.events.k8s.io", published).await
    }
}

/// The object without an impact that is null, which `kubectl get` would show as such.
fn without_null(object: &EcrAuditFinding) -> Result<DynamicObject, WriteError> {
    let mut value =
        serde_json::to_value(object).map_err(|error| WriteError::Api(error.to_string()))?;
    if let Some(spec) = value["spec"].as_object_mut()
        && spec.get("impact").is_some_and(serde_json::Value::is_null)
    {
        spec.remove("impact");
    }
    serde_json::from_value(value).map_err(|error| WriteError::Api(error.to_string()))
}

enum Write {
    Apply(Key, Box<EcrAuditFinding>, Option<Published>),
    Delete(Key, Published),
}

enum Written {
    Applied(Key, Box<EcrAuditFinding>, bool),
    Deleted(Key),
}
