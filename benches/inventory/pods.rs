//! Pods as an EKS cluster has them: about 13 KB of JSON each, most of it nothing to an audit.

use serde_json::{Map, Value, json};

const REGISTRY: &str = "111122223333.dkr.ecr.us-east-1.amazonaws.com";
const TEAMS: [&str; 7] = ["shop", "pay", "search", "data", "media", "ops", "web"];
const PARTS: [&str; 10] = [
    "api", "site", "worker", "cron", "proxy", "import", "agent", "gate", "batch", "login",
];
const SIDECARS: [&str; 3] = ["mirror/envoy", "mirror/fluent-bit", "mirror/collector"];
/// Images of each repository that run at the same time.
const VERSIONS: u64 = 12;
const PODS_PER_NODE: u64 = 30;

/// Well-mixed bits of a number: the generator is the same on every machine.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn hex(seed: u64, length: usize) -> String {
    let mut text = String::new();
    let mut block = seed;
    while text.len() < length {
        block = mix(block.wrapping_add(0x9e37_79b9_7f4a_7c15));
        text.push_str(&format!("{block:016x}"));
    }
    text.truncate(length);
    text
}

struct Image {
    reference: String,
    id: String,
}

fn image(repository: &str, version: u64) -> Image {
    let seed = repository
        .bytes()
        .fold(version, |seed, b| mix(seed ^ u64::from(b)));
    Image {
        reference: format!("{REGISTRY}/{repository}:v1.{version}.0"),
        id: format!("{REGISTRY}/{repository}@sha256:{}", hex(seed, 64)),
    }
}

fn container(name: &str, image: &Image, app: &str) -> Value {
    let field = |path: &str| json!({"fieldRef": {"apiVersion": "v1", "fieldPath": path}});
    let mut env = vec![
        json!({"name": "POD_NAME", "valueFrom": field("metadata.name")}),
        json!({"name": "POD_IP", "valueFrom": field("status.podIP")}),
        json!({"name": "AWS_REGION", "value": "us-east-1"}),
        json!({"name": "AWS_STS_REGIONAL_ENDPOINTS", "value": "regional"}),
        json!({"name": "AWS_ROLE_ARN", "value": format!("arn:aws:iam::111122223333:role/{app}")}),
        json!({"name": "AWS_WEB_IDENTITY_TOKEN_FILE",
               "value": "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"}),
        json!({"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}),
    ];
    env.extend((0..8).map(|n| {
        json!({"name": format!("SETTING_{n}"),
               "value": format!("setting-{n}.{app}.svc.cluster.local:8080/\"quoted\"{{}}")})
    }));
    let probe = |path: &str| {
        json!({"httpGet": {"path": path, "port": "http", "scheme": "HTTP"}, "timeoutSeconds": 1,
               "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3})
    };
    json!({
        "name": name, "image": image.reference, "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/app", "serve", "--config=/etc/app/config.yaml"],
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"},
                  {"name": "metrics", "containerPort": 9090, "protocol": "TCP"}],
        "env": env,
        "resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "256Mi"}},
        "volumeMounts": [
            {"name": "config", "readOnly": true, "mountPath": "/etc/app"},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "kube-api-access-x7k2p", "readOnly": true,
             "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
            {"name": "aws-iam-token", "readOnly": true,
             "mountPath": "/var/run/secrets/eks.amazonaws.com/serviceaccount"}],
        "livenessProbe": probe("/healthz"), "readinessProbe": probe("/readyz"),
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        "securityContext": {"capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
                            "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false},
    })
}

fn status(name: &str, image: &Image, seed: u64) -> Value {
    json!({
        "name": name, "image": image.reference, "imageID": image.id,
        "containerID": format!("containerd://{}", hex(seed ^ 5, 64)),
        "state": {"running": {"startedAt": "2026-11-20T08:00:05Z"}}, "lastState": {},
        "ready": true, "started": true, "restartCount": 0,
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/app", "readOnly": true,
             "recursiveReadOnly": "Disabled"},
            {"name": "tmp", "mountPath": "/tmp"}],
    })
}

/// `f:`-keyed sets, as server-side apply records who owns which field.
fn owned(names: &[&str]) -> Value {
    let mut fields: Map<String, Value> = names
        .iter()
        .map(|name| (format!("f:{name}"), json!({})))
        .collect();
    fields.insert(".".into(), json!({}));
    fields.into()
}

fn managed_fields(containers: &[&str]) -> Value {
    let of_container = json!({
        ".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:command": {},
        "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {},
        "f:env": (0..8).map(|n| (format!("k:{{\"name\":\"SETTING_{n}\"}}"), owned(&["name", "value"])))
            .collect::<Map<_, _>>(),
        "f:resources": {"f:limits": owned(&["memory"]), "f:requests": owned(&["cpu", "memory"])},
        "f:securityContext": owned(&["capabilities", "runAsNonRoot", "readOnlyRootFilesystem"]),
    });
    let containers: Map<String, Value> = containers
        .iter()
        .map(|name| (format!("k:{{\"name\":\"{name}\"}}"), of_container.clone()))
        .collect();
    let conditions: Map<String, Value> =
        ["ContainersReady", "Initialized", "Ready", "PodScheduled"]
            .iter()
            .map(|kind| {
                let fields = owned(&["lastProbeTime", "lastTransitionTime", "status", "type"]);
                (format!("k:{{\"type\":\"{kind}\"}}"), fields)
            })
            .collect();
    json!([
        {"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
         "time": "2026-11-20T08:00:00Z", "fieldsType": "FieldsV1",
         "fieldsV1": {
             "f:metadata": {"f:labels": owned(&["app", "pod-template-hash", "team", "version"]),
                            "f:annotations": owned(&["prometheus.io/scrape", "checksum/config"])},
             "f:spec": {"f:containers": containers, "f:dnsPolicy": {}, "f:restartPolicy": {},
                        "f:schedulerName": {}, "f:serviceAccountName": {}}}},
        {"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "subresource": "status",
         "time": "2026-11-20T08:00:09Z", "fieldsType": "FieldsV1",
         "fieldsV1": {"f:status": {
             "f:conditions": conditions, "f:containerStatuses": {}, "f:hostIP": {},
             "f:initContainerStatuses": {}, "f:phase": {}, "f:podIP": {}, "f:startTime": {}}}},
    ])
}

/// The node that a pod runs on.
pub(crate) fn node_name(number: u64) -> String {
    let node = number / PODS_PER_NODE;
    format!(
        "ip-10-{}-{}-{}.ec2.internal",
        node >> 16,
        (node >> 8) & 255,
        node & 255
    )
}

/// Nodes of a cluster of this many pods.
pub(crate) fn nodes(pods: u64) -> impl Iterator<Item = Value> {
    (0..pods.div_ceil(PODS_PER_NODE)).map(|node| {
        json!({
            "metadata": {"name": node_name(node * PODS_PER_NODE), "resourceVersion": "7"},
            "spec": {"providerID": format!("aws:///us-east-1a/i-{}", hex(node, 17))},
            "status": {"nodeInfo": {"operatingSystem": "linux", "architecture": "arm64"},
                       "images": (0..50).map(|n| json!({
                           "names": [format!("{REGISTRY}/team/app@sha256:{}", hex(n, 64))],
                           "sizeBytes": 123_456_789})).collect::<Vec<_>>()},
        })
    })
}

/// One pod of the cluster; `kind` and `apiVersion` as `kubectl` adds them, not the API.
pub(crate) fn pod(number: u64, as_kubectl: bool) -> Value {
    let random = mix(number + 1);
    let team = TEAMS[(random % 7) as usize];
    let part = PARTS[(random / 7 % 10) as usize];
    let app = format!("{team}-{part}");
    // A Deployment's pods run one image; each version is a ReplicaSet of its own.
    let version = random / 70 % VERSIONS;
    let namespace = format!(
        "{team}{}",
        ["", "-live", "-test"][(random / 1000 % 3) as usize]
    );
    let template_hash = hex(mix(version ^ (random % 70)), 10);
    let main = image(&format!("{team}/{part}"), version);
    let side: Vec<(&str, Image)> = SIDECARS
        .iter()
        .take((random / 5000 % 3) as usize)
        .map(|name| (name.split('/').nth(1).unwrap_or(name), image(name, 0)))
        .collect();
    let mut containers = vec![container("app", &main, &app)];
    let mut statuses = vec![status("app", &main, random)];
    for (name, image) in &side {
        containers.push(container(name, image, &app));
        statuses.push(status(name, image, random ^ 9));
    }
    let names: Vec<&str> = ["app"]
        .into_iter()
        .chain(side.iter().map(|(name, _)| *name))
        .collect();
    let mut metadata = json!({
        "name": format!("{app}-{template_hash}-{}", hex(random, 5)),
        "generateName": format!("{app}-{template_hash}-"),
        "namespace": namespace,
        "uid": hex(random ^ 1, 36), "resourceVersion": (100_000_000 + number).to_string(),
        "creationTimestamp": "2026-11-20T08:00:00Z",
        "labels": {"app": app, "pod-template-hash": template_hash, "team": team,
                   "version": version.to_string(), "app.kubernetes.io/name": app,
                   "app.kubernetes.io/managed-by": "Helm"},
        "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9090",
                        "checksum/config": hex(random ^ 2, 64)},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet",
                             "name": format!("{app}-{template_hash}"), "uid": hex(random ^ 3, 36),
                             "controller": true, "blockOwnerDeletion": true}],
    });
    if !as_kubectl {
        metadata["managedFields"] = managed_fields(&names);
    }
    let conditions = ["Ready", "Initialized", "ContainersReady", "PodScheduled"].map(|kind| {
        json!({"type": kind, "status": "True", "lastProbeTime": null,
               "lastTransitionTime": "2026-11-20T08:00:09Z"})
    });
    let mut pod = json!({
        "metadata": metadata,
        "spec": {
            "nodeName": node_name(number), "containers": containers,
            "volumes": [
                {"name": "config", "configMap": {"name": format!("{app}-config"), "defaultMode": 420}},
                {"name": "tmp", "emptyDir": {}},
                {"name": "kube-api-access-x7k2p", "projected": {"defaultMode": 420, "sources": [
                    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt",
                                   "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]}}],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst", "serviceAccountName": app, "serviceAccount": app,
            "securityContext": {"runAsUser": 1000, "fsGroup": 1000},
            "schedulerName": "default-scheduler", "priority": 0, "enableServiceLinks": true,
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 100, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname",
                    "labelSelector": {"matchLabels": {"app": app}}}}]}},
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists",
                 "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists",
                 "effect": "NoExecute", "tolerationSeconds": 300}],
        },
        "status": {
            "phase": "Running", "qosClass": "Burstable", "startTime": "2026-11-20T08:00:00Z",
            "hostIP": "10.0.1.5", "hostIPs": [{"ip": "10.0.1.5"}],
            "podIP": "10.0.1.9", "podIPs": [{"ip": "10.0.1.9"}],
            "conditions": conditions,
            "containerStatuses": statuses,
        },
    });
    if random.is_multiple_of(5) {
        pod["spec"]["initContainers"] = json!([container("migrate", &main, &app)]);
        pod["status"]["initContainerStatuses"] = json!([status("migrate", &main, random ^ 7)]);
    }
    if as_kubectl {
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
    }
    pod
}
