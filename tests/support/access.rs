//! One way into a control plane: a kubeconfig file, and what is done with it.

use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;

use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use super::programs;

/// Credentials for a control plane. A client, kubectl, helm or the operator that uses
/// them may do what their user may do.
#[derive(Clone, Debug)]
pub struct Access {
    kubeconfig: PathBuf,
    cluster: Value,
    user: Value,
}

impl Access {
    /// Writes `<folder>/<name>.kubeconfig` for a `cluster` and a `user`, both in the
    /// shape that a kubeconfig file gives them.
    pub fn new(folder: &Path, cluster: &Value, name: &str, user: &Value) -> Self {
        // What a user may be called, a file may not.
        let file: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let kubeconfig = folder.join(file).with_extension("kubeconfig");
        let content = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "testbed", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": name}}],
            "current-context": "testbed",
        });
        write_private(&kubeconfig, &format!("{content:#}\n"));
        Self {
            kubeconfig,
            cluster: cluster.clone(),
            user: user.clone(),
        }
    }

    /// The same user by another way to the same server, such as a proxy at `HOST:PORT`.
    pub fn through(&self, name: &str, address: impl Display) -> Self {
        let mut cluster = self.cluster.clone();
        cluster["server"] = json!(format!("https://{address}"));
        let folder = self.kubeconfig.parent().expect("a file in a folder");
        Self::new(folder, &cluster, name, &self.user)
    }

    /// `HOST:PORT` of the server.
    pub fn address(&self) -> &str {
        let server = self.cluster["server"].as_str().expect("a server");
        server.trim_start_matches("https://")
    }

    /// The file that `KUBECONFIG` may name.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    pub(super) fn cluster(&self) -> &Value {
        &self.cluster
    }

    pub(super) fn user(&self) -> &Value {
        &self.user
    }

    /// A client for the runtime that the caller runs on; it does not work on another.
    pub async fn client(&self) -> Client {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // The code under test may have been first.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        });
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).expect("our own kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("our own kubeconfig");
        Client::try_from(config).expect("a client")
    }

    /// `program` with `KUBECONFIG` set, and the testbed's programs before others on `PATH`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders =
            std::iter::once(programs::binaries().to_owned()).chain(std::env::split_paths(&path));
        command.env("KUBECONFIG", &self.kubeconfig).env(
            "PATH",
            std::env::join_paths(folders).expect("no colon in it"),
        );
        command
    }

    fn program<A: AsRef<OsStr>>(&self, name: &str, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.command(programs::binaries().join(name));
        command.args(args);
        command
    }

    /// Runs kubectl, which has to succeed, and returns what it printed.
    pub async fn kubectl<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        programs::stdout(self.program("kubectl", args)).await
    }

    /// Runs kubectl, which may fail.
    pub async fn try_kubectl<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        programs::output(self.program("kubectl", args)).await
    }

    /// Runs helm, which has to succeed, and returns what it printed.
    pub async fn helm<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        programs::stdout(self.program("helm", args)).await
    }

    /// Runs helm, which may fail.
    pub async fn try_helm<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        programs::output(self.program("helm", args)).await
    }

    /// `kubectl apply` of these YAML documents.
    pub async fn apply(&self, yaml: &str) -> String {
        programs::stdout_given(self.program("kubectl", ["apply", "-f", "-"]), yaml).await
    }

    /// The same, where the API server may refuse them.
    pub async fn try_apply(&self, yaml: &str) -> Output {
        programs::output_given(self.program("kubectl", ["apply", "-f", "-"]), yaml).await
    }

    /// Makes a Namespace that no other test has, named after `prefix`, and returns its name.
    pub async fn namespace(&self, prefix: &str) -> String {
        self.namespace_with(prefix, json!({})).await
    }

    /// The same, with labels.
    pub async fn namespace_with(&self, prefix: &str, labels: Value) -> String {
        let name = format!("{prefix}-{:08x}", rand::random::<u32>());
        self.create(json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": labels},
        }))
        .await;
        name
    }

    /// Creates an object of any kind; a `status` in it is written as the object's
    /// controller would, through the status subresource.
    pub async fn create(&self, object: Value) -> DynamicObject {
        let (api, mut object) = self.locate(object).await;
        let status = object.as_object_mut().expect("an object").remove("status");
        let object: DynamicObject = serde_json::from_value(object).expect("a Kubernetes object");
        let created = api
            .create(&PostParams::default(), &object)
            .await
            .unwrap_or_else(|error| panic!("create {:?}: {error}", object.metadata));
        match status {
            Some(status) => patch_status(&api, &created, status).await,
            None => created,
        }
    }

    /// Changes the status of an object that is there: what `object` has in `status` is
    /// merged into it, the rest of `object` says which one is meant.
    pub async fn set_status(&self, object: Value) -> DynamicObject {
        let (api, mut object) = self.locate(object).await;
        let status = object["status"].take();
        let object: DynamicObject = serde_json::from_value(object).expect("a Kubernetes object");
        patch_status(&api, &object, status).await
    }

    async fn locate(&self, object: Value) -> (Api<DynamicObject>, Value) {
        let field = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, kind) = (field(&object["apiVersion"]), field(&object["kind"]));
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
        let client = self.client().await;
        let api = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        (api, object)
    }
}

async fn patch_status(
    api: &Api<DynamicObject>,
    object: &DynamicObject,
    status: Value,
) -> DynamicObject {
    let name = object.metadata.name.as_deref().expect("a name");
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status(name, &PatchParams::default(), &patch)
        .await
        .unwrap_or_else(|error| panic!("status of {:?}: {error}", object.metadata))
}

/// Writes a file that nobody else may read: it holds a token.
pub(super) fn write_private(path: &Path, content: &str) {
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
