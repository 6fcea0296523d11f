//! Whether the cluster's definitions of the custom resources have every field that this version
//! writes and reads. Upgrades may leave them behind: fields that a definition does not have are
//! dropped or refused by the API server.
//!
//! The API server's `OpenAPI` document says what it takes. Every authenticated user may read that,
//! so no right has to be given for it, and it does not matter who installed the definitions, or how.

use std::time::Duration;

use axum::http::Request;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Client, CustomResourceExt, Resource};
use serde_json::Value;
use tokio::{sync::watch, time::sleep};

use super::admin::{Gate, Readiness};
use crate::{
    api::{API_VERSION, EcrAuditFinding, EcrAuditPolicy},
    report::text::plain,
};

/// How often definitions that are missing or behind are looked at again.
const RETRY: Duration = Duration::from_secs(2);
/// How often good ones are: somebody may install older ones.
const AGAIN: Duration = Duration::from_mins(5);
/// Most missing fields that are named.
const NAMED: usize = 3;

/// What the API server's definitions are to this version.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Everything is there.
    Current,
    /// The group and version is not served.
    Missing,
    /// These fields, or values of them, are not there.
    Behind(Vec<String>),
}

/// Keeps `current` up to date until nobody listens.
pub(super) async fn watch(client: Client, readiness: Readiness, current: watch::Sender<bool>) {
    let needed = needed();
    loop {
        let pause = match look(&client, &needed).await {
            Ok(Found::Current) => {
                readiness.open(Gate::Definitions);
                current.send_replace(true);
                AGAIN
            }
            Ok(Found::Missing) => {
                readiness.wait(
                    Gate::Definitions,
                    &format!("{API_VERSION} is not installed; waiting for it (ecr-audit crd prints the definitions)"),
                );
                current.send_replace(false);
                RETRY
            }
            Ok(Found::Behind(fields)) => {
                let more = match fields.len().saturating_sub(NAMED) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let named = fields[..fields.len().min(NAMED)].join(", ");
                readiness.wait(
                    Gate::Definitions,
                    &format!(
                        "the definitions of {API_VERSION} are older than this operator, without \
                         {named}{more}; waiting for an update (ecr-audit crd prints them)"
                    ),
                );
                current.send_replace(false);
                RETRY
            }
            Err(kube::Error::Api(status)) if status.code == 403 => {
                // What is refused here tells nothing about the definitions.
                let why = plain(&status.message, 300);
                tracing::warn!(%why, "the definitions cannot be compared with this version");
                readiness.open(Gate::Definitions);
                current.send_replace(true);
                AGAIN
            }
            Err(error) => {
                // What was known stays known while the API server is away.
                tracing::debug!(%error, "the definitions cannot be read");
                RETRY
            }
        };
        tokio::select! {
            () = current.closed() => return,
            () = sleep(pause) => {}
        }
    }
}

/// Kind, and schema of this version.
type Needed = (String, Value);

fn needed() -> Vec<Needed> {
    let schema = |definition: CustomResourceDefinition| {
        let mut definition = serde_json::to_value(definition).unwrap_or_default();
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
    };
    vec![
        (
            EcrAuditPolicy::kind(&()).into_owned(),
            schema(EcrAuditPolicy::crd()),
        ),
        (
            EcrAuditFinding::kind(&()).into_owned(),
            schema(EcrAuditFinding::crd()),
        ),
    ]
}

async fn look(client: &Client, needed: &[Needed]) -> Result<Found, kube::Error> {
    let request = Request::get(format!("/openapi/v3/apis/{API_VERSION}"))
        .body(vec![])
        .map_err(kube::Error::HttpError)?;
    let served: Value = match client.request(request).await {
        Ok(served) => served,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Found::Missing),
        Err(error) => return Err(error),
    };
    Ok(compare(needed, &served))
}

fn compare(needed: &[Needed], served: &Value) -> Found {
    let schemas = served["components"]["schemas"].as_object();
    let mut behind = vec![];
    for (kind, needed) in needed {
        let schema = schemas.into_iter().flatten().find(|(_, schema)| {
            let kinds = schema["x-kubernetes-group-version-kind"].as_array();
            kinds.is_some_and(|kinds| kinds.iter().any(|one| one["kind"] == **kind))
        });
        match schema {
            Some((_, served)) => missing(needed, served, kind, &mut behind),
            None => behind.push(kind.clone()),
        }
    }
    if behind.is_empty() {
        Found::Current
    } else {
        Found::Behind(behind)
    }
}

/// Adds the paths that `needed` has and `served` does not.
fn missing(needed: &Value, served: &Value, path: &str, found: &mut Vec<String>) {
    if served["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    for (name, needed) in needed["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match served["properties"].get(name) {
            Some(served) => missing(needed, served, &path, found),
            None => found.push(path),
        }
    }
    for part in ["items", "additionalProperties"] {
        if needed[part].is_object() {
            missing(&needed[part], &served[part], path, found);
        }
    }
    let values = |schema: &Value| schema["enum"].as_array().cloned();
    if let (Some(needed), Some(served)) = (values(needed), values(served)) {
        let lacks = |value: &&Value| !value.is_null() && !served.contains(value);
        for value in needed.iter().filter(lacks) {
            found.push(format!("{path}={value}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn served(mut change: impl FnMut(&mut Value)) -> Value {
        let mut schemas = serde_json::Map::new();
        for (kind, mut schema) in needed() {
            schema["x-kubernetes-group-version-kind"] =
                json!([{"group": "ecraudit.io", "kind": kind, "version": "v1alpha1"}]);
            schemas.insert(format!("io.ecraudit.v1alpha1.{kind}"), schema);
        }
        let mut served = json!({"components": {"schemas": schemas}});
        change(&mut served["components"]["schemas"]["io.ecraudit.v1alpha1.EcrAuditPolicy"]);
        served
    }

    #[test]
    fn definitions_of_this_version_and_newer_ones_are_current() {
        assert_eq!(compare(&needed(), &served(|_| {})), Found::Current);
        let newer = served(|policy| {
            policy["properties"]["spec"]["properties"]["tomorrow"] = json!({"type": "string"});
        });
        assert_eq!(compare(&needed(), &newer), Found::Current);
    }

    #[test]
    fn what_an_older_definition_lacks_is_named() {
        let older = served(|policy| {
            let spec = policy["properties"]["spec"]["properties"].as_object_mut();
            spec.unwrap().remove("exceptions");
        });
        let lacks = vec!["EcrAuditPolicy.spec.exceptions".to_owned()];
        assert_eq!(compare(&needed(), &older), Found::Behind(lacks));
        let no_policy = served(|policy| *policy = json!({}));
        let lacks = vec!["EcrAuditPolicy".to_owned()];
        assert_eq!(compare(&needed(), &no_policy), Found::Behind(lacks));
    }

    #[test]
    fn a_value_that_an_older_definition_does_not_take_is_named() {
        let schema = json!({"items": {"enum": ["A", "B"]}});
        let older = json!({"items": {"enum": ["A"]}});
        let mut found = vec![];
        missing(&schema, &older, "Kind.field", &mut found);
        assert_eq!(found, [r#"Kind.field="B""#]);
    }
}
