//! The Helm chart as a cluster gets it: what helm renders, and the operator's process as the
//! rendered Deployment describes it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Access, Replay, programs};

/// What helm renders for one release.
#[derive(Clone, Debug)]
pub struct Release {
    pub namespace: String,
    /// Every object, in helm's order.
    pub objects: Vec<Value>,
}

impl Release {
    /// Renders the chart as the release `ecr-audit-operator` with these values.
    pub async fn render(namespace: &str, values: &Value) -> Self {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/ecr-audit-operator");
        let mut helm = Command::new(programs::binaries().join("helm"));
        helm.env("KUBECONFIG", "/nonexistent")
            .args(["template", "ecr-audit-operator"])
            .arg(chart)
            .args(["--namespace", namespace, "--values", "-"]);
        let rendered = programs::stdout_given(helm, &values.to_string()).await;
        Self {
            namespace: namespace.to_owned(),
            objects: serde_saphyr::from_multiple(&rendered).expect("YAML"),
        }
    }

    /// The chart's values that send the operator's AWS clients to the replay server.
    pub fn extra_env(replay: &Replay) -> Value {
        let variables = replay.environment().into_iter();
        variables
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect()
    }

    /// The one object of this kind.
    pub fn one(&self, kind: &str) -> &Value {
        let mut found = self.objects.iter().filter(|object| object["kind"] == kind);
        let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
        assert!(found.next().is_none(), "more than one {kind}");
        one
    }

    /// The objects of these kinds, as YAML documents.
    pub fn yaml(&self, is_wanted: impl Fn(&str) -> bool) -> String {
        let wanted = self
            .objects
            .iter()
            .filter(|object| is_wanted(object["kind"].as_str().unwrap_or_default()));
        let documents: Vec<String> = wanted.map(Value::to_string).collect();
        documents.join("\n---\n")
    }

    /// Its service account, `namespace:name`.
    pub fn account(&self) -> String {
        let name = &self.pod()["serviceAccountName"];
        format!("{}:{}", self.namespace, name.as_str().expect("a name"))
    }

    fn pod(&self) -> &Value {
        &self.one("Deployment")["spec"]["template"]["spec"]
    }

    fn container(&self) -> &Value {
        &self.pod()["containers"][0]
    }

    /// The port of this name.
    pub fn port(&self, name: &str) -> u16 {
        let ports = self.container()["ports"].as_array().expect("ports");
        let port = ports.iter().find(|port| port["name"] == name);
        let port = port.and_then(|port| port["containerPort"].as_u64());
        u16::try_from(port.expect("a port")).expect("a port")
    }

    /// The value of this environment variable.
    pub fn env(&self, name: &str) -> &str {
        let all = self.container()["env"].as_array().expect("variables");
        let found = all.iter().find(|variable| variable["name"] == name);
        let value = found.and_then(|variable| variable["value"].as_str());
        value.unwrap_or_else(|| panic!("no {name}"))
    }

    /// Path that this probe asks for.
    pub fn probe(&self, name: &str) -> &str {
        let get = &self.container()[name]["httpGet"];
        assert_eq!(get["port"], "metrics");
        get["path"].as_str().expect("a path")
    }

    /// The container's process: `program` with its arguments and its environment and nothing
    /// else, with `access` to the cluster. Volumes are folders in `folder`, and it listens on
    /// loopback only.
    pub fn command(&self, program: &Path, pod: &str, access: &Access, folder: &Path) -> Command {
        let container = self.container();
        let volumes: Vec<(String, String)> = container["volumeMounts"]
            .as_array()
            .expect("mounts")
            .iter()
            .map(|mount| {
                let volume = folder.join(mount["name"].as_str().expect("a name"));
                fs::create_dir_all(&volume).expect("a writable folder");
                let path = mount["mountPath"].as_str().expect("a path").to_owned();
                (path, volume.to_str().expect("UTF-8").to_owned())
            })
            .collect();
        let here = |text: &str| {
            let volume = volumes.iter().find_map(|(path, folder)| {
                let rest = text.strip_prefix(path.as_str())?;
                (rest.is_empty() || rest.starts_with('/')).then(|| format!("{folder}{rest}"))
            });
            volume.unwrap_or_else(|| text.replace("0.0.0.0:", "127.0.0.1:"))
        };
        let mut command = Command::new(program);
        command.env_clear().env("KUBECONFIG", access.kubeconfig());
        for argument in container["args"].as_array().expect("arguments") {
            command.arg(here(argument.as_str().expect("a string")));
        }
        for variable in container["env"].as_array().expect("variables") {
            let value = match &variable["value"] {
                Value::String(value) => here(value),
                _ => match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                    Some("metadata.name") => pod.to_owned(),
                    Some("metadata.namespace") => self.namespace.clone(),
                    _ => panic!("{variable} has a value that only a cluster knows"),
                },
            };
            command.env(variable["name"].as_str().expect("a name"), value);
        }
        command
    }
}
