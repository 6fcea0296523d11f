//! Promise: the Helm chart installs, upgrades and uninstalls as its README says, on a real API
//! server and by the real helm; what it renders is reviewed; wrong values are refused in words.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails says why"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Access, ControlPlane, eventually, programs};

const CRDS: [&str; 2] = [
    "ecrauditfindings.ecraudit.io",
    "ecrauditpolicies.ecraudit.io",
];
const MONITORING: [&str; 2] = ["--api-versions", "monitoring.coreos.com/v1"];

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/ecr-audit-operator")
}

/// The values that the chart's own checks render it with, by name.
fn values() -> Vec<(String, PathBuf)> {
    let mut files: Vec<_> = fs::read_dir(chart().join("ci"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix("-values.yaml")?;
            Some((name.to_owned(), path.clone()))
        })
        .collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    files
}

/// Runs helm where there is no cluster.
async fn helm<'a>(args: impl IntoIterator<Item = &'a str>) -> Output {
    let mut command = std::process::Command::new(programs::binaries().join("helm"));
    command
        .env("KUBECONFIG", "/nonexistent")
        .current_dir(chart())
        .args(args);
    programs::output(command).await
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The objects that helm renders with these arguments.
async fn render(args: &[&str]) -> Vec<Value> {
    let output = helm(
        ["template", "audit", ".", "--namespace", "ecr-audit"]
            .into_iter()
            .chain(args.iter().copied()),
    )
    .await;
    assert!(output.status.success(), "{}", text(&output));
    serde_saphyr::from_multiple(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects
        .iter()
        .find(|object| object["kind"] == kind)
        .unwrap_or_else(|| panic!("no {kind}"))
}

#[tokio::test]
async fn helm_lint_has_nothing_to_say_of_any_values() {
    for (name, path) in values() {
        let path = path.to_str().unwrap();
        let output = helm(["lint", "--strict", "--values", path, "."]).await;
        assert!(output.status.success(), "{name}: {}", text(&output));
    }
}

/// The definitions and what comes from files have tests of their own below; their text is left
/// out, so that a snapshot shows what the templates decide.
#[tokio::test]
async fn what_is_rendered_is_what_was_reviewed() {
    let update = std::env::var_os("UPDATE_SNAPSHOTS").is_some();
    for (name, path) in values() {
        let output = helm(
            [
                "template",
                "audit",
                ".",
                "--namespace",
                "ecr-audit",
                "--set",
                "crds.enabled=false",
                "--values",
                path.to_str().unwrap(),
            ]
            .into_iter()
            .chain(MONITORING),
        )
        .await;
        assert!(output.status.success(), "{name}: {}", text(&output));
        let rendered = without_files(&String::from_utf8(output.stdout).unwrap());
        let snapshot = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/snapshots/chart")
            .join(name)
            .with_extension("yaml");
        if update {
            fs::write(&snapshot, &rendered).unwrap();
        }
        let reviewed = fs::read_to_string(&snapshot).unwrap_or_default();
        assert!(
            rendered == reviewed,
            "{} is not what is rendered: review `make chart-snapshots`\n{}",
            snapshot.display(),
            first_difference(&reviewed, &rendered)
        );
    }
}

fn without_files(rendered: &str) -> String {
    let mut lines = String::new();
    let mut cut = false;
    for line in rendered.lines() {
        if line == "---" {
            cut = false;
        }
        if !cut {
            lines.push_str(line);
            lines.push('\n');
        }
        cut |= line == "  ecr-audit.json: |" || line == "  groups:";
    }
    lines
}

fn first_difference(old: &str, new: &str) -> String {
    let pair = old
        .lines()
        .zip(new.lines())
        .enumerate()
        .find(|(_, (old, new))| old != new);
    match pair {
        Some((index, (old, new))) => format!("line {}:\n-{old}\n+{new}", index + 1),
        None => "one is longer".to_owned(),
    }
}

#[tokio::test]
async fn the_definitions_in_the_chart_are_those_of_the_code() {
    let file = fs::read_to_string(chart().join("files/crds/ecraudit.io.yaml")).unwrap();
    assert!(
        file == ecr_audit::api::crds_yaml().unwrap(),
        "the chart's definitions are stale: run `make crds`"
    );
    let written: Vec<Value> = serde_saphyr::from_multiple(&file).unwrap();
    for keep in ["true", "false"] {
        let rendered = render(&["--set", &format!("crds.keep={keep}")]).await;
        let rendered: Vec<_> = rendered
            .into_iter()
            .filter(|object| object["kind"] == "CustomResourceDefinition")
            .collect();
        assert_eq!(rendered.len(), CRDS.len());
        for (mut rendered, written) in rendered.into_iter().zip(&written) {
            let metadata = rendered["metadata"].as_object_mut().unwrap();
            let labels = metadata.remove("labels").unwrap();
            assert_eq!(labels["app.kubernetes.io/managed-by"], "Helm");
            let annotations = metadata.remove("annotations").unwrap_or_default();
            assert_eq!(
                annotations["helm.sh/resource-policy"] == "keep",
                keep == "true"
            );
            assert!(plain(&rendered) == plain(written), "{rendered}\n{written}");
        }
    }
}

/// Helm writes 1.0 as 1.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| (name.clone(), plain(value)));
            Value::Object(fields.collect())
        }
        other => other.clone(),
    }
}

#[tokio::test]
async fn alerts_and_dashboard_reach_the_cluster_as_they_are_in_their_files() {
    let all = [
        "--set",
        "prometheusRule.enabled=true,serviceMonitor.enabled=true,dashboard.enabled=true",
        MONITORING[0],
        MONITORING[1],
    ];
    let objects = render(&all).await;
    let alerts = fs::read_to_string(chart().join("files/alerts.yaml")).unwrap();
    let alerts: Value = serde_saphyr::from_str(&alerts).unwrap();
    assert_eq!(of_kind(&objects, "PrometheusRule")["spec"], alerts);

    let dashboard = fs::read_to_string(chart().join("files/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let config_map = of_kind(&objects, "ConfigMap");
    assert_eq!(config_map["metadata"]["labels"]["grafana_dashboard"], "1");
    let shown = config_map["data"]["ecr-audit.json"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(shown).unwrap(), dashboard);

    let monitor = &of_kind(&objects, "ServiceMonitor")["spec"];
    assert_eq!(monitor["endpoints"][0]["honorLabels"], true);
    assert_eq!(
        monitor["selector"]["matchLabels"],
        of_kind(&objects, "Service")["spec"]["selector"]
    );
}

#[test]
fn every_alert_has_its_words_its_runbook_and_its_unit_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = fs::read_to_string(chart().join("files/alerts.yaml")).unwrap();
    let rules: Value = serde_saphyr::from_str(&rules).unwrap();
    let tests = fs::read_to_string(root.join("tests/alerts/alerts_test.yaml")).unwrap();
    let mut pages: Vec<String> = fs::read_dir(root.join("docs/runbooks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for group in rules["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let name = rule["alert"].as_str().unwrap();
            assert!(rule["for"].is_string(), "{name}");
            let severity = rule["labels"]["severity"].as_str().unwrap();
            assert!(["critical", "warning"].contains(&severity), "{name}");
            for words in ["summary", "description"] {
                assert!(rule["annotations"][words].is_string(), "{name} {words}");
            }
            let link = rule["annotations"]["runbook_url"].as_str().unwrap();
            let page = format!("{name}.md");
            assert!(link.ends_with(&format!("/docs/runbooks/{page}")), "{link}");
            let text = fs::read_to_string(root.join("docs/runbooks").join(&page)).unwrap();
            for part in ["Meaning", "Impact", "Diagnosis", "Mitigation"] {
                assert!(text.contains(&format!("**{part}.**")), "{page} {part}");
            }
            let fires = format!("alertname=\"{name}\"");
            assert!(tests.contains(&fires), "no test has {name} fire");
            pages.retain(|other| *other != page);
        }
    }
    assert!(pages.is_empty(), "runbooks of no alert: {pages:?}");
}

#[tokio::test]
async fn wrong_values_are_refused_and_the_message_names_the_field() {
    const POSTGRES: &str = "ledger.type=postgres,ledger.postgres.secretName=url";
    for (set, message) in [
        ("replcas=2", "additional properties 'replcas' not allowed"),
        (
            "image.registry=example",
            "at '/image': additional properties 'registry' not allowed",
        ),
        (
            "ledger.persistence.enable=true",
            "at '/ledger/persistence': additional properties 'enable' not allowed",
        ),
        ("replicas=two", "at '/replicas': got string, want integer"),
        ("replicas=2", "at '/ledger/type': value must be 'postgres'"),
        (
            "image.digest=sha256:abc",
            "at '/image/digest': 'sha256:abc' does not match pattern",
        ),
        (
            "ledger.type=mysql",
            "at '/ledger/type': value must be one of 'sqlite', 'postgres'",
        ),
        (
            "ledger.type=postgres",
            "at '/ledger/postgres/secretName': minLength: got 0, want 1",
        ),
        (
            "aws.region=Frankfurt",
            "at '/aws/region': 'Frankfurt' does not match pattern",
        ),
        (
            "terminationGracePeriodSeconds=5",
            "at '/terminationGracePeriodSeconds': minimum: got 5, want 10",
        ),
    ] {
        let output = helm(["template", "audit", ".", "--set", set]).await;
        let text = text(&output);
        assert!(!output.status.success(), "{set} was taken");
        assert!(text.contains(message), "{set}: {text}");
    }
    let two = format!("replicas=2,{POSTGRES}");
    let output = helm(["template", "audit", ".", "--set", &two]).await;
    assert!(output.status.success(), "{}", text(&output));
}

#[tokio::test]
async fn monitoring_objects_that_the_cluster_does_not_know_are_an_error_that_says_so() {
    let admin = ControlPlane::shared().await.admin();
    let namespace = admin.namespace("monitoring").await;
    for what in ["serviceMonitor", "prometheusRule"] {
        let set = format!("{what}.enabled=true,crds.enabled=false");
        let output = install(&admin, "audit", &namespace, &chart(), &["--set", &set]).await;
        let text = text(&output);
        assert!(!output.status.success(), "{what} was taken");
        let message =
            format!("{what}.enabled is true, but this cluster has no API monitoring.coreos.com/v1");
        assert!(text.contains(&message), "{text}");
    }
}

async fn install(
    admin: &Access,
    release: &str,
    namespace: &str,
    chart: &Path,
    args: &[&str],
) -> Output {
    let chart = chart.to_str().unwrap();
    let command = ["install", release, chart, "--namespace", namespace];
    admin
        .try_helm(command.into_iter().chain(args.iter().copied()))
        .await
}

#[tokio::test]
async fn the_pods_pass_the_restricted_pod_security_standard() {
    let admin = ControlPlane::shared().await.admin();
    let restricted = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    let namespace = admin.namespace_with("restricted", restricted).await;
    let apply = async |name: &str, template: &Value, spec: &Value| {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": template["metadata"]["labels"],
            },
            "spec": spec,
        });
        admin.try_apply(&pod.to_string()).await
    };
    for (name, path) in values() {
        let args = ["--values", path.to_str().unwrap()];
        let args: Vec<_> = args.into_iter().chain(MONITORING).collect();
        let objects = render(&args).await;
        let template = &of_kind(&objects, "Deployment")["spec"]["template"];
        let output = apply(&name, template, &template["spec"]).await;
        assert!(output.status.success(), "{name}: {}", text(&output));

        // Admission is awake: the same pod without its security context does not pass.
        let mut spec = template["spec"].clone();
        spec["securityContext"] = json!({});
        let refused = apply(&format!("{name}-lax"), template, &spec).await;
        assert!(
            text(&refused).contains("violates PodSecurity \"restricted"),
            "{}",
            text(&refused)
        );
    }
}

/// The chart as an earlier version may have been: its policies know no exceptions.
fn earlier_chart() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&chart(), folder.path());
    let definitions = folder.path().join("files/crds/ecraudit.io.yaml");
    let written = fs::read_to_string(&definitions).unwrap();
    let mut written: Vec<Value> = serde_saphyr::from_multiple(&written).unwrap();
    for definition in &mut written {
        let spec = &mut definition["spec"];
        let is_policy = spec["names"]["kind"] == "EcrAuditPolicy";
        let schema = &mut spec["versions"][0]["schema"]["openAPIV3Schema"];
        if let Some(fields) = schema["properties"]["spec"]["properties"].as_object_mut() {
            assert_eq!(fields.remove("exceptions").is_some(), is_policy);
        }
    }
    let documents: Vec<String> = written.iter().map(Value::to_string).collect();
    fs::write(&definitions, documents.join("\n---\n")).unwrap();

    let about = folder.path().join("Chart.yaml");
    let text = fs::read_to_string(&about).unwrap();
    let version = text
        .lines()
        .find(|line| line.starts_with("version: "))
        .unwrap()
        .to_owned();
    fs::write(about, text.replace(&version, "version: 0.0.1")).unwrap();
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

const POLICY: &str = r#"{
    "apiVersion": "ecraudit.io/v1alpha1",
    "kind": "EcrAuditPolicy",
    "metadata": {"name": "production"},
    "spec": {"exceptions": [{"owner": "team-shop", "reason": "migration", "until": "2027-01-31"}]}
}"#;

#[tokio::test]
async fn a_release_is_installed_upgraded_uninstalled_and_installed_under_another_name() {
    let admin = ControlPlane::shared().await.admin();
    let namespace = admin.namespace("ecr-audit").await;
    let in_namespace = ["--namespace", namespace.as_str()];

    let earlier = earlier_chart();
    let installed = install(&admin, "first", &namespace, earlier.path(), &[]).await;
    assert!(installed.status.success(), "{}", text(&installed));
    assert!(text(&installed).contains("Write a policy"));
    wait_for_definitions(&admin).await;
    let refused = text(&admin.try_apply(POLICY).await);
    assert!(
        refused.contains("unknown field \"spec.exceptions\""),
        "{refused}"
    );

    // An upgrade reaches the definitions, too.
    let path = chart();
    admin
        .helm(
            ["upgrade", "first", path.to_str().unwrap()]
                .into_iter()
                .chain(in_namespace),
        )
        .await;
    eventually("the new field", Duration::from_secs(20), async || {
        let applied = admin.try_apply(POLICY).await;
        if applied.status.success() {
            Ok(())
        } else {
            Err(text(&applied))
        }
    })
    .await;
    let deployment = [
        "get",
        "deployment",
        "first-ecr-audit-operator",
        "--output",
        "name",
    ];
    admin
        .kubectl(deployment.into_iter().chain(in_namespace))
        .await;

    // Definitions and policies outlive the release; the rest goes.
    admin
        .helm(["uninstall", "first"].into_iter().chain(in_namespace))
        .await;
    let gone = admin
        .try_kubectl(deployment.into_iter().chain(in_namespace))
        .await;
    assert!(text(&gone).contains("NotFound"), "{}", text(&gone));
    let roles = [
        "get",
        "clusterrole,clusterrolebinding",
        "--output",
        "name",
        "--selector",
        "app.kubernetes.io/instance=first",
    ];
    assert_eq!(admin.kubectl(roles).await.trim(), "");
    wait_for_definitions(&admin).await;
    admin.kubectl(["get", "eap", "production"]).await;

    // Another release may have what was kept only by taking it over.
    let refused = install(&admin, "second", &namespace, &path, &[]).await;
    let message = text(&refused);
    assert!(
        !refused.status.success() && message.contains("first"),
        "{message}"
    );
    admin
        .try_helm(["uninstall", "second"].into_iter().chain(in_namespace))
        .await;
    let taken = install(&admin, "second", &namespace, &path, &["--take-ownership"]).await;
    assert!(taken.status.success(), "{}", text(&taken));
    for name in CRDS {
        let owner = r"jsonpath={.metadata.annotations.meta\.helm\.sh/release-name}";
        let owner = admin.kubectl(["get", "crd", name, "--output", owner]).await;
        assert_eq!(owner, "second");
    }
    admin.kubectl(["get", "eap", "production"]).await;
}

async fn wait_for_definitions(admin: &Access) {
    for name in CRDS {
        let crd = format!("crd/{name}");
        let wait = ["wait", "--for=condition=Established", &crd, "--timeout=30s"];
        admin.kubectl(wait).await;
    }
}
