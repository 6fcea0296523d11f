//! Kubernetes objects as a kubelet would have left them, status included.
//!
//! There is no kubelet behind the control plane of the tests: a Pod runs because its
//! status says so. [`Access::create`](super::Access::create) writes both halves.

use serde_json::{Value, json};

/// A Pod on `node` whose containers, given as name, image and `imageID`, are running.
/// A container with an empty `imageID` is still waiting for its image.
pub fn running_pod(
    namespace: &str,
    name: &str,
    node: &str,
    containers: &[(&str, &str, &str)],
) -> Value {
    let statuses: Vec<Value> = containers
        .iter()
        .map(|&(name, image, image_id)| container_status(name, image, image_id))
        .collect();
    let waiting = containers
        .iter()
        .any(|(_, _, image_id)| image_id.is_empty());
    let mut object = pod(namespace, name, node, containers);
    object["status"] = json!({
        "phase": if waiting { "Pending" } else { "Running" },
        "startTime": "2026-01-02T03:04:05Z",
        "containerStatuses": statuses,
    });
    object
}

/// The same Pod before any kubelet saw it: without a status.
pub fn pod(namespace: &str, name: &str, node: &str, containers: &[(&str, &str, &str)]) -> Value {
    let containers: Vec<Value> = containers
        .iter()
        .map(|&(name, image, _)| json!({"name": name, "image": image}))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"nodeName": node, "containers": containers},
    })
}

/// One entry of `status.containerStatuses`.
pub fn container_status(name: &str, image: &str, image_id: &str) -> Value {
    let state = if image_id.is_empty() {
        json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}})
    } else {
        json!({"running": {"startedAt": "2026-01-02T03:04:06Z"}})
    };
    json!({
        "name": name,
        "image": image,
        "imageID": image_id,
        "ready": !image_id.is_empty(),
        "restartCount": 0,
        "state": state,
    })
}

/// A Node as a cloud's node controller and kubelet describe it: `provider_id` is
/// `aws:///<zone>/<instance id>` on EC2, `os` and `architecture` are Go's names.
pub fn node(name: &str, provider_id: &str, os: &str, architecture: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/os": os, "kubernetes.io/arch": architecture},
        },
        "spec": {"providerID": provider_id},
        "status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "nodeInfo": {
                "architecture": architecture,
                "operatingSystem": os,
                "bootID": "", "containerRuntimeVersion": "containerd://2.1.4",
                "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "v1.37.1",
                "machineID": "", "osImage": "", "systemUUID": "",
            },
        },
    })
}
