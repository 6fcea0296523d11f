//! Tests of the inventory as a whole: Kubernetes' own JSON in, containers out.

mod index;
mod object;
mod read;

use serde_json::{Value, json};

use super::{Index, Node, Pod, Scope};
use crate::event::Repository;

/// A digest of `sha256:` and one hex digit, repeated.
fn digest(digit: char) -> String {
    format!("sha256:{}", String::from(digit).repeat(64))
}

fn image(name: &str) -> String {
    format!("111122223333.dkr.ecr.us-east-1.amazonaws.com/{name}")
}

fn repository(name: &str) -> Repository {
    Repository {
        account: "111122223333".into(),
        region: "us-east-1".into(),
        name: name.into(),
    }
}

/// A running pod of one container `app`, as the API server has it.
fn pod_json(namespace: &str, name: &str, image: &str, image_id: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": namespace, "name": name, "uid": "5f2a", "resourceVersion": "7",
            "creationTimestamp": "2026-11-22T12:00:00Z", "labels": {"app": "web"},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
        },
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "app", "image": image, "env": [{"name": "A", "value": "}]\"{"}]}],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
        "status": {
            "phase": "Running", "startTime": "2026-11-22T12:00:05Z",
            "containerStatuses": [
                {"name": "app", "image": image, "imageID": image_id, "ready": true, "restartCount": 0},
            ],
        },
    })
}

fn node_json(name: &str, provider_id: &str, architecture: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "resourceVersion": "9"},
        "spec": {"providerID": provider_id},
        "status": {"nodeInfo": {"operatingSystem": "linux", "architecture": architecture}},
    })
}

fn namespace_json(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    })
}

fn pod(value: &Value) -> Pod {
    serde_json::from_value(value.clone()).unwrap()
}

fn node(value: &Value) -> Node {
    serde_json::from_value(value.clone()).unwrap()
}

/// Every container that the index knows, as sorted lines.
fn dump(index: &Index) -> Vec<String> {
    let scope = Scope::default();
    let mut lines: Vec<String> = index
        .repositories(&scope)
        .flat_map(|repository| {
            let containers = index.containers(repository, &scope);
            assert!(!containers.is_empty(), "{repository} has no containers");
            containers
        })
        .map(|c| {
            format!(
                "{}/{} {} {}/{} {} {:?} {} {} {:?}",
                c.namespace,
                c.pod,
                c.container,
                c.workload_kind,
                c.workload_name,
                c.reference.text,
                c.running,
                c.created,
                c.started,
                c.platform.map(|p| p.architecture.clone()),
            )
        })
        .collect();
    lines.sort();
    lines
}
