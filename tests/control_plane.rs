//! Promise: what the other integration tests stand on holds. The control plane is a real
//! one, its programs agree on versions, and it goes away with the process that started it.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::{ControlPlane, eventually, node, running_pod};

const IMAGE: &str = "111122223333.dkr.ecr.us-east-1.amazonaws.com/shop/web:v1";
const IMAGE_ID: &str = "111122223333.dkr.ecr.us-east-1.amazonaws.com/shop/web@sha256:\
    e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[tokio::test]
async fn a_pod_written_with_its_status_is_what_kubectl_shows() {
    let admin = ControlPlane::shared().await.admin();
    let namespace = admin.namespace("shop").await;
    admin
        .create(node(
            "node-1",
            "aws:///us-east-1a/i-0123456789abcdef0",
            "linux",
            "arm64",
        ))
        .await;
    admin
        .create(running_pod(
            &namespace,
            "web-0",
            "node-1",
            &[("web", IMAGE, IMAGE_ID)],
        ))
        .await;

    let pod = [
        "get",
        "pod",
        "web-0",
        "-o",
        "json",
        "--namespace",
        &namespace,
    ];
    let pod: Value = serde_json::from_str(&admin.kubectl(pod).await).unwrap();
    assert_eq!(pod["spec"]["nodeName"], "node-1");
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["containerStatuses"][0]["imageID"], IMAGE_ID);

    let node = admin.kubectl(["get", "node", "node-1", "-o", "json"]).await;
    let node: Value = serde_json::from_str(&node).unwrap();
    assert_eq!(
        node["spec"]["providerID"],
        "aws:///us-east-1a/i-0123456789abcdef0"
    );
    assert_eq!(node["status"]["nodeInfo"]["architecture"], "arm64");
}

#[tokio::test]
async fn kubectl_apply_and_helm_install_work() {
    let admin = ControlPlane::shared().await.admin();
    let namespace = admin.namespace("apply").await;
    let yaml = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings, namespace: {namespace}}}\n\
         data: {{colour: green}}\n"
    );
    admin.apply(&yaml).await;
    let again = admin.apply(&yaml.replace("green", "blue")).await;
    assert!(again.contains("configured"), "{again}");

    let chart = tempfile::tempdir().unwrap();
    std::fs::create_dir(chart.path().join("templates")).unwrap();
    std::fs::write(
        chart.path().join("Chart.yaml"),
        "apiVersion: v2\nname: probe\nversion: 0.1.0\nkubeVersion: '>=1.33.0-0'\n",
    )
    .unwrap();
    std::fs::write(
        chart.path().join("templates/account.yaml"),
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: probe}\n",
    )
    .unwrap();
    let path = chart.path().to_str().unwrap();
    admin
        .helm(["install", "probe", path, "--namespace", &namespace])
        .await;
    let account = [
        "get",
        "serviceaccount",
        "probe",
        "-o",
        "name",
        "--namespace",
        &namespace,
    ];
    assert_eq!(admin.kubectl(account).await.trim(), "serviceaccount/probe");
}

#[tokio::test]
async fn a_service_account_may_do_what_its_role_says_and_no_more() {
    let control_plane = ControlPlane::shared().await;
    let admin = control_plane.admin();
    let namespace = admin.namespace("rbac").await;
    admin
        .apply(&format!(
            "apiVersion: v1\nkind: ServiceAccount\n\
             metadata: {{name: reader, namespace: {namespace}}}\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n\
             metadata: {{name: reader, namespace: {namespace}}}\n\
             rules: [{{apiGroups: [''], resources: [pods], verbs: [list]}}]\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\n\
             metadata: {{name: reader, namespace: {namespace}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}}\n\
             subjects: [{{kind: ServiceAccount, name: reader, namespace: {namespace}}}]\n"
        ))
        .await;
    let reader = control_plane.service_account(&namespace, "reader").await;

    // RBAC answers from a cache of its own, which may be a moment behind.
    eventually("pods to be listed", Duration::from_secs(10), async || {
        let listed = reader
            .try_kubectl(["get", "pods", "--namespace", &namespace])
            .await;
        let refusal = String::from_utf8_lossy(&listed.stderr).into_owned();
        if listed.status.success() {
            Ok(())
        } else {
            Err(refusal)
        }
    })
    .await;
    let secrets = reader
        .try_kubectl(["get", "secrets", "--namespace", &namespace])
        .await;
    assert!(String::from_utf8_lossy(&secrets.stderr).contains("Forbidden"));

    let stranger = control_plane.user("stranger", &["system:authenticated"]);
    let pods = stranger
        .try_kubectl(["get", "pods", "--namespace", &namespace])
        .await;
    assert!(String::from_utf8_lossy(&pods.stderr).contains("Forbidden"));
}

#[tokio::test]
async fn objects_and_clients_survive_a_restart_of_the_api_server() {
    let control_plane = ControlPlane::start().await;
    let admin = control_plane.admin();
    let client = admin.client().await;
    let namespace = admin.namespace("restart").await;

    let during = control_plane
        .without_api_server(async { client.apiserver_version().await })
        .await;
    assert!(during.is_err(), "answered while it was down");

    let version = client.apiserver_version().await.unwrap();
    assert_eq!(
        (version.major.as_str(), version.minor.as_str()),
        ("1", "37")
    );
    admin.kubectl(["get", "namespace", &namespace]).await;
}

#[tokio::test]
async fn nothing_is_left_behind_by_a_control_plane_that_was_dropped() {
    let control_plane = ControlPlane::start().await;
    let folder = control_plane
        .admin()
        .kubeconfig()
        .parent()
        .unwrap()
        .to_owned();
    let pid = std::fs::read_to_string(folder.join("etcd.pid")).unwrap();
    drop(control_plane);
    assert!(!folder.exists());
    assert!(!std::path::Path::new("/proc").join(pid).join("exe").exists());
}

#[tokio::test]
#[should_panic(expected = "for the moon, last seen: clouds")]
async fn waiting_in_vain_says_what_was_seen() {
    let limit = Duration::from_millis(250);
    eventually("the moon", limit, async || Err::<(), _>("clouds")).await;
}

#[tokio::test]
#[should_panic(expected = "for an answer, last seen: nothing")]
async fn waiting_for_a_look_that_hangs_comes_to_an_end() {
    let limit = Duration::from_millis(250);
    eventually("an answer", limit, async || {
        std::future::pending::<Result<(), &str>>().await
    })
    .await;
}
