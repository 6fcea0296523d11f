//! A small world: records as CloudTrail writes them, containers as the inventory sees them.

use std::sync::Arc;

use ecr_audit::{
    api::{EcrAuditPolicySpec, Finding},
    audit::{ClusterNodes, Container, RepositoryAssessment, RepositoryEvidence, Rules, assess},
    event::{Action, Digest, Event, Platform, Pull, Reference, decode, notice},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub const ACCOUNT: &str = "111122223333";
pub const REGISTRY: &str = "111122223333.dkr.ecr.us-east-1.amazonaws.com";
pub const WEB: &str = "111122223333.dkr.ecr.us-east-1.amazonaws.com/shop/web:v1";

/// Minutes after the world's beginning.
pub fn at(minutes: i64) -> Timestamp {
    "2026-11-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_mins(minutes)
}

/// An image manifest's text; `config` tells images apart.
pub fn manifest(config: &str) -> String {
    let config = Digest::of_manifest(config);
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
           "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2,
                      "digest": config.as_str()},
           "layers": []})
    .to_string()
}

/// An index's text: each child with its architecture on Linux.
pub fn index(children: &[(&str, &str)]) -> String {
    let manifests: Vec<Value> = children
        .iter()
        .map(|(architecture, text)| {
            json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": text.len(),
                   "digest": digest(text).as_str(),
                   "platform": {"os": "linux", "architecture": architecture}})
        })
        .collect();
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
           "manifests": manifests})
    .to_string()
}

pub fn digest(manifest: &str) -> Digest {
    Digest::of_manifest(manifest)
}

pub fn role(name: &str, session: &str) -> Value {
    json!({"type": "AssumedRole", "principalId": format!("AROA{}:{session}", name.to_uppercase()),
           "arn": format!("arn:aws:sts::{ACCOUNT}:assumed-role/{name}/{session}"),
           "accountId": ACCOUNT,
           "sessionContext": {"sessionIssuer": {"type": "Role", "accountId": ACCOUNT,
               "arn": format!("arn:aws:iam::{ACCOUNT}:role/{name}"), "userName": name}}})
}

pub fn role_key(name: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/{name}")
}

/// A record of a call on `shop/web`; `minutes` is also what its `eventID` ends with.
pub fn call(minutes: i64, name: &str, request: Value, response: Value) -> Value {
    let mut request = request;
    request["repositoryName"] = json!("shop/web");
    request["registryId"] = json!(ACCOUNT);
    json!({"eventVersion": "1.11", "eventSource": "ecr.amazonaws.com", "eventName": name,
           "eventTime": at(minutes).to_string(), "awsRegion": "us-east-1",
           "eventID": format!("{name}-{minutes:06}"), "userIdentity": role("release", "ci-42"),
           "sourceIPAddress": "AWS Internal", "userAgent": "AWS Internal",
           "requestParameters": request, "responseElements": response,
           "resources": [{"accountId": ACCOUNT,
               "ARN": format!("arn:aws:ecr:us-east-1:{ACCOUNT}:repository/shop/web")}],
           "eventType": "AwsApiCall", "eventCategory": "Management",
           "recipientAccountId": ACCOUNT})
}

pub fn push(minutes: i64, tag: Option<&str>, manifest: &str) -> Value {
    let mut id = json!({"imageDigest": digest(manifest).as_str()});
    let mut request = json!({"imageManifest": manifest});
    if let Some(tag) = tag {
        id["imageTag"] = json!(tag);
        request["imageTag"] = json!(tag);
    }
    let image = json!({"registryId": ACCOUNT, "repositoryName": "shop/web",
                       "imageId": id, "imageManifest": manifest});
    call(minutes, "PutImage", request, json!({"image": image}))
}

pub fn pull(minutes: i64, ids: Value, who: Value) -> Value {
    let mut record = call(
        minutes,
        "BatchGetImage",
        json!({"imageIds": ids}),
        Value::Null,
    );
    record["readOnly"] = json!(true);
    record["userIdentity"] = who;
    record
}

pub fn by_digest(digest: &Digest) -> Value {
    json!({"imageDigest": digest.as_str()})
}

pub fn by_tag(tag: &str) -> Value {
    json!({"imageTag": tag})
}

/// `BatchDeleteImage`: what it asked for, what the answer lists, and what failed.
pub fn delete(minutes: i64, asked: Value, answered: Value, failed: Value) -> Value {
    let failures: Vec<Value> = failed
        .as_array()
        .unwrap()
        .iter()
        .map(|id| json!({"imageId": id, "failureCode": "ImageNotFound", "failureReason": "…"}))
        .collect();
    call(
        minutes,
        "BatchDeleteImage",
        json!({"imageIds": asked}),
        json!({"imageIds": answered, "failures": failures}),
    )
}

pub fn delete_repository(minutes: i64) -> Value {
    call(
        minutes,
        "DeleteRepository",
        json!({"force": true}),
        json!({"repository": {}}),
    )
}

/// A lifecycle run by rule `priority`, whose action is `action`.
pub fn lifecycle(
    minutes: i64,
    priority: i64,
    action: &str,
    images: &[(&Digest, &[&str])],
) -> Value {
    let actions: Vec<Value> = images
        .iter()
        .map(|(digest, tags)| {
            json!({"lifecycleEventImage": {"digest": digest.as_str(), "tagStatus": "Tagged",
                       "tagList": tags, "pushedAt": 1_584_042_813_000_i64},
                   "rulePriority": priority})
        })
        .collect();
    json!({"eventVersion": "1.09", "eventSource": "ecr.amazonaws.com",
           "eventName": "PolicyExecutionEvent", "eventTime": at(minutes).to_string(),
           "eventID": format!("PolicyExecutionEvent-{minutes:06}"), "awsRegion": "us-east-1",
           "userIdentity": {"accountId": ACCOUNT, "invokedBy": "AWS Internal"},
           "requestParameters": null, "responseElements": null, "readOnly": true,
           "resources": [{"accountId": ACCOUNT, "type": "AWS::ECR::Repository",
               "ARN": format!("arn:aws:ecr:us-east-1:{ACCOUNT}:repository/shop/web")}],
           "eventType": "AwsServiceEvent", "recipientAccountId": ACCOUNT,
           "serviceEventDetails": {"repositoryName": "shop/web",
               "lifecycleEventPolicy": {"lifecycleEventRules": [
                   {"rulePriority": 1, "description": "keep the last 10", "action": "expire"},
                   {"rulePriority": priority, "description": "keep the last 10", "action": action}]},
               "lifecycleEventImageActions": actions, "lifecycleEventFailureDetails": []}})
}

pub fn storage_class(minutes: i64, id: Value, class: &str) -> Value {
    let request = json!({"imageId": id, "targetStorageClass": class});
    call(minutes, "UpdateImageStorageClass", request, Value::Null)
}

pub fn denied(mut record: Value) -> Value {
    record["errorCode"] = json!("AccessDenied");
    record["errorMessage"] = json!("not authorized");
    record["responseElements"] = Value::Null;
    record
}

/// One container that runs, or waits.
pub struct Running {
    pub pod: String,
    pub workload: String,
    pub reference: Reference,
    pub digest: Option<Digest>,
    pub created: Timestamp,
    pub platform: Option<Platform>,
}

/// Records and containers, judged together.
pub struct World {
    pub records: Vec<Value>,
    pub running: Vec<Running>,
    pub instances: Vec<&'static str>,
    pub policy: Value,
    pub now: Timestamp,
}

impl World {
    pub fn new() -> Self {
        Self {
            records: Vec::new(),
            running: Vec::new(),
            instances: Vec::new(),
            policy: json!({}),
            now: at(10_000),
        }
    }

    pub fn event(mut self, record: Value) -> Self {
        self.records.push(record);
        self
    }

    /// A pod of the Deployment `web` that was created at a minute and runs a digest.
    pub fn pod(self, name: &str, created: i64, reference: &str, digest: &Digest) -> Self {
        self.container(name, created, reference, Some(digest))
    }

    pub fn waiting(self, name: &str, created: i64, reference: &str) -> Self {
        self.container(name, created, reference, None)
    }

    fn container(mut self, name: &str, created: i64, text: &str, digest: Option<&Digest>) -> Self {
        self.running.push(Running {
            pod: name.to_owned(),
            workload: name.split('-').next().unwrap().to_owned(),
            reference: Reference::parse(text).unwrap(),
            digest: digest.cloned(),
            created: at(created),
            platform: Some(Platform {
                os: "linux".into(),
                architecture: "amd64".into(),
            }),
        });
        self
    }

    pub fn policy(mut self, spec: Value) -> Self {
        self.policy = spec;
        self
    }

    pub fn node(mut self, instance: &'static str) -> Self {
        self.instances.push(instance);
        self
    }

    pub fn now(mut self, minutes: i64) -> Self {
        self.now = at(minutes);
        self
    }

    /// Judges the repository of the first container.
    pub fn assess(&self) -> RepositoryAssessment {
        let spec: EcrAuditPolicySpec = serde_json::from_value(self.policy.clone()).unwrap();
        let rules = Rules::compile(&spec).unwrap();
        let repository = self.running[0].reference.repository.clone();
        let containers: Vec<Container<'_>> = self
            .running
            .iter()
            .filter(|running| running.reference.repository == repository)
            .map(|running| Container {
                namespace: "shop",
                workload_kind: "Deployment",
                workload_name: &running.workload,
                pod: &running.pod,
                container: "app",
                reference: &running.reference,
                running: running.digest.as_ref(),
                created: running.created,
                started: running.created,
                platform: running.platform.as_ref(),
            })
            .collect();
        let mut nodes = ClusterNodes {
            instances: self.instances.iter().map(|id| (*id).into()).collect(),
            ..ClusterNodes::default()
        };
        let mut evidence = RepositoryEvidence::default();
        for record in &self.records {
            let event = event(record);
            if let Action::Pull(images) = &event.action {
                if event.time <= self.now {
                    nodes.learn(&event.caller);
                }
                if event.repository.as_ref() == Some(&repository) {
                    evidence.pulls.push(Pull {
                        id: event.id.clone(),
                        time: event.time,
                        images: images.clone().into(),
                        caller: event.caller.clone(),
                        denied: event.outcome == ecr_audit::event::Outcome::Denied,
                    });
                }
            } else if event.repository.as_ref() == Some(&repository) {
                evidence.changes.push(Arc::new(event));
            }
        }
        assess(
            &repository,
            &containers,
            &evidence,
            &nodes,
            &rules,
            self.now,
        )
    }

    pub fn findings(&self) -> Vec<Finding> {
        self.assess().findings
    }

    /// Type and impact of each finding, as JSON has them.
    pub fn verdicts(&self) -> Vec<String> {
        self.findings()
            .iter()
            .map(|finding| {
                let impact = finding.impact.map(|impact| format!(" {impact:?}"));
                format!("{:?}{}", finding.finding_type, impact.unwrap_or_default())
            })
            .collect()
    }

    /// State of each running image.
    pub fn states(&self) -> Vec<String> {
        self.assess()
            .images
            .iter()
            .map(|image| format!("{:?}", image.state))
            .collect()
    }
}

/// The fact in a record of CloudTrail, or in an event that EventBridge brings from ECR itself.
pub fn event(record: &Value) -> Event {
    let text = record.to_string();
    if record["source"] == "aws.ecr" {
        return notice(text.as_bytes()).unwrap().unwrap();
    }
    decode(text.as_bytes()).unwrap()
}

/// One text where exactly one finding is expected.
pub fn only(findings: Vec<Finding>) -> Finding {
    let [finding] = findings.try_into().unwrap_or_else(|all: Vec<Finding>| {
        panic!("expected one finding, found {}: {all:#?}", all.len())
    });
    finding
}
