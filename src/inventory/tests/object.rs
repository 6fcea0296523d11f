//! What is read of a pod, a node, a namespace.

use serde_json::{Value, json};

use super::*;
use crate::inventory::Namespace;

/// (name, image text, imageID) of each container.
fn containers(value: &Value) -> Vec<(String, String, Option<String>)> {
    pod(value)
        .containers
        .into_iter()
        .map(|c| {
            (
                c.name.into(),
                c.reference.text.as_ref().to_owned(),
                c.image_id.map(Into::into),
            )
        })
        .collect()
}

#[test]
fn init_ephemeral_and_sidecar_containers_count() {
    let mut value = pod_json("shop", "web", &image("a:v1"), "");
    value["spec"]["initContainers"] = json!([{"name": "init", "image": image("b:v1")}]);
    value["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": image("c")}]);
    value["status"]["initContainerStatuses"] =
        json!([{"name": "init", "imageID": format!("x@{}", digest('b'))}]);
    value["status"]["ephemeralContainerStatuses"] =
        json!([{"name": "debug", "imageID": format!("y@{}", digest('c'))}]);
    assert_eq!(
        containers(&value),
        [
            ("app".into(), image("a:v1"), None),
            (
                "init".into(),
                image("b:v1"),
                Some(format!("x@{}", digest('b')))
            ),
            (
                "debug".into(),
                image("c"),
                Some(format!("y@{}", digest('c')))
            ),
        ]
    );
}

#[test]
fn a_container_without_a_status_waits_for_its_image() {
    let mut value = pod_json("shop", "web", &image("a:v1"), "");
    value["status"] = json!({"phase": "Pending"});
    assert_eq!(containers(&value), [("app".into(), image("a:v1"), None)]);
    value.as_object_mut().unwrap().remove("status");
    assert_eq!(containers(&value), [("app".into(), image("a:v1"), None)]);
}

#[test]
fn an_image_volume_has_the_image_ref_that_any_container_s_mount_reports() {
    let mut value = pod_json("shop", "web", "nginx", "");
    value["spec"]["volumes"] = json!([
        {"name": "model", "image": {"reference": image("model:v1"), "pullPolicy": "Always"}},
        {"name": "waits", "image": {"reference": image("other:v1")}},
        {"name": "empty", "image": {}},
        {"name": "foreign", "image": {"reference": "quay.io/crio/artifact:v1"}},
    ]);
    value["status"]["containerStatuses"] = json!([
        {"name": "app", "imageID": "", "volumeMounts": [
            {"name": "model", "mountPath": "/a"},
            {"name": "waits", "mountPath": "/b", "volumeStatus": {"image": {"imageRef": ""}}},
        ]},
        {"name": "side", "imageID": "", "volumeMounts": [
            {"name": "model", "mountPath": "/c",
             "volumeStatus": {"image": {"imageRef": format!("m@{}", digest('d'))}}},
        ]},
    ]);
    assert_eq!(
        containers(&value),
        [
            (
                "model".into(),
                image("model:v1"),
                Some(format!("m@{}", digest('d')))
            ),
            ("waits".into(), image("other:v1"), None),
        ]
    );
}

#[test]
fn images_of_other_registries_are_not_audited() {
    for other in [
        "nginx",
        "public.ecr.aws/nginx/nginx:1",
        "quay.io/a/b@sha256:aa",
        "",
    ] {
        let value = pod_json("shop", "web", other, &format!("x@{}", digest('a')));
        assert_eq!(containers(&value), [], "{other}");
    }
}

#[test]
fn an_image_text_longer_than_any_real_one_is_none() {
    let value = pod_json("shop", "web", &image(&"a".repeat(1_000_000)), "");
    assert_eq!(containers(&value), []);
    let value = pod_json("shop", "web", &image("a"), &"b".repeat(1_000_000));
    assert_eq!(containers(&value), [("app".into(), image("a"), None)]);
}

#[test]
fn a_pod_that_succeeded_or_failed_does_not_run() {
    for (phase, finished) in [
        ("Pending", false),
        ("Running", false),
        ("Unknown", false),
        ("Succeeded", true),
        ("Failed", true),
    ] {
        let mut value = pod_json("shop", "web", &image("a"), "");
        value["status"]["phase"] = phase.into();
        assert_eq!(pod(&value).finished, finished, "{phase}");
    }
}

#[test]
fn a_pod_started_at_its_start_time_else_when_it_was_created() {
    let mut value = pod_json("shop", "web", &image("a"), "");
    assert_eq!(pod(&value).started.to_string(), "2026-11-22T12:00:05Z");
    assert_eq!(pod(&value).created.to_string(), "2026-11-22T12:00:00Z");
    value["status"]["startTime"] = Value::Null;
    assert_eq!(pod(&value).started.to_string(), "2026-11-22T12:00:00Z");
}

#[test]
fn the_controller_among_the_owners_names_the_workload() {
    let mut value = pod_json("shop", "web-6d4cf56db6-x2x5k", &image("a"), "");
    value["metadata"]["labels"]["pod-template-hash"] = "6d4cf56db6".into();
    value["metadata"]["ownerReferences"] = json!([
        {"kind": "ConfigMap", "name": "settings"},
        {"kind": "ReplicaSet", "name": "web-6d4cf56db6", "controller": true},
    ]);
    let pod = pod(&value);
    assert_eq!(
        (&*pod.workload_kind, &*pod.workload_name),
        ("Deployment", "web")
    );
}

#[test]
fn a_pod_whose_owners_do_not_control_it_is_its_own_workload() {
    let mut value = pod_json("shop", "web", &image("a"), "");
    value["metadata"]["ownerReferences"] = json!([{"kind": "ConfigMap", "name": "settings"}]);
    let pod = pod(&value);
    assert_eq!((&*pod.workload_kind, &*pod.workload_name), ("Pod", "web"));
}

#[test]
fn null_is_the_same_as_absent() {
    let mut value = pod_json("shop", "web", &image("a"), "");
    for (part, field) in [
        ("metadata", "labels"),
        ("metadata", "ownerReferences"),
        ("spec", "initContainers"),
        ("spec", "volumes"),
        ("spec", "nodeName"),
        ("status", "containerStatuses"),
        ("status", "startTime"),
    ] {
        value[part][field] = Value::Null;
    }
    assert_eq!(containers(&value), [("app".into(), image("a"), None)]);
}

#[test]
fn only_ec2_instances_name_their_sessions() {
    for (provider_id, instance) in [
        (
            "aws:///us-east-1a/i-0123456789abcdef0",
            Some("i-0123456789abcdef0"),
        ),
        (
            "aws://us-east-1a/i-0123456789abcdef0",
            Some("i-0123456789abcdef0"),
        ),
        (
            "aws:///us-east-1a/0a1b2c3d/fargate-ip-10-0-1-5.ec2.internal",
            None,
        ),
        ("eks-hybrid:///us-east-1/prod/mi-0123456789abcdef0", None),
        ("gce://project/zone/i-0123", None),
        ("kind://docker/kind/kind-control-plane", None),
        ("", None),
    ] {
        let node = node(&node_json("n", provider_id, "arm64"));
        assert_eq!(node.instance.as_deref(), instance, "{provider_id}");
    }
}

#[test]
fn a_node_s_platform_is_its_node_info_else_its_labels() {
    let platform = |value: &Value| {
        node(value)
            .platform
            .map(|p| format!("{}/{}", p.os, p.architecture))
    };
    let mut value = node_json("n", "", "arm64");
    value["metadata"]["labels"] =
        json!({"kubernetes.io/os": "windows", "kubernetes.io/arch": "amd64"});
    assert_eq!(platform(&value).as_deref(), Some("linux/arm64"));
    value["status"] = Value::Null;
    assert_eq!(platform(&value).as_deref(), Some("windows/amd64"));
    value["metadata"]["labels"] = json!({"kubernetes.io/os": "windows"});
    assert_eq!(platform(&value), None);
}

#[test]
fn a_namespace_has_its_labels() {
    let value = namespace_json("shop", &json!({"team": "a"}));
    let namespace: Namespace = serde_json::from_value(value).unwrap();
    assert_eq!(namespace.labels["team"], "a");
}
