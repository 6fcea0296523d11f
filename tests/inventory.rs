//! Promise: what runs is known, and stays known through changes in place, lists of several pages,
//! a restart of the API server, and a watch that it has forgotten.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test that fails fails its test"
)]

mod support;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ecr_audit::{
    event::Repository,
    inventory::{Inventory, Kind, Scope, watch::Health},
};
use futures::StreamExt as _;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use support::{Access, ControlPlane, eventually, node, running_pod};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const REGISTRY: &str = "111122223333.dkr.ecr.us-east-1.amazonaws.com";
/// A pod that starts or ends is judged within 2 s; a loaded machine gets more.
const SOON: Duration = Duration::from_mins(1);

fn image(name: &str) -> String {
    format!("{REGISTRY}/{name}:v1")
}

fn image_id(name: &str, digit: char) -> String {
    format!("{REGISTRY}/{name}@{}", digest(digit))
}

fn digest(digit: char) -> String {
    format!("sha256:{}", String::from(digit).repeat(64))
}

/// A running inventory; dropping it ends its watch.
struct Running {
    inventory: Arc<Inventory>,
    watch: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Running {
    fn start(client: Client) -> Self {
        let inventory = Arc::new(Inventory::new());
        let watch = tokio::spawn({
            let inventory = Arc::clone(&inventory);
            async move { inventory.run(client).await }
        });
        Self { inventory, watch }
    }

    fn health(&self, kind: Kind) -> Health {
        let health = self.inventory.health();
        health.into_iter().find(|h| h.kind == kind).unwrap()
    }

    /// `pod container digest architecture` of each container of a namespace that runs from a
    /// repository.
    fn containers(&self, namespace: &str, name: &str) -> Vec<String> {
        let repository = Repository {
            account: "111122223333".into(),
            region: "us-east-1".into(),
            name: name.into(),
        };
        let index = self.inventory.index();
        let mut lines: Vec<String> = index
            .containers(&repository, &Scope::default())
            .iter()
            .filter(|c| c.namespace == namespace)
            .map(|c| {
                let digest = c.running.map_or("waiting", |digest| digest.as_str());
                let architecture = c.platform.map_or("unknown", |p| &p.architecture);
                format!("{} {} {digest} {architecture}", c.pod, c.container)
            })
            .collect();
        lines.sort();
        lines
    }

    async fn shows(&self, namespace: &str, name: &str, expected: &[String]) {
        let what = format!("{name} to run as {expected:?}");
        eventually(&what, SOON, async || {
            let containers = self.containers(namespace, name);
            if containers == expected && self.inventory.synced() {
                Ok(())
            } else {
                Err(format!("{containers:?} {:?}", self.inventory.health()))
            }
        })
        .await;
    }
}

#[tokio::test]
async fn pods_and_nodes_are_followed_through_every_change() {
    let admin = ControlPlane::shared().await.admin();
    let namespace = admin.namespace("follow").await;
    let running = Running::start(admin.client().await);
    let name = format!("node-{namespace}");
    admin
        .create(node(
            &name,
            "aws:///us-east-1a/i-0123456789abcdef0",
            "linux",
            "arm64",
        ))
        .await;
    admin
        .create(running_pod(
            &namespace,
            "web",
            &name,
            &[("app", &image("first"), "")],
        ))
        .await;
    running
        .shows(&namespace, "first", &["web app waiting arm64".into()])
        .await;
    assert!(
        running
            .inventory
            .index()
            .instances()
            .contains("i-0123456789abcdef0")
    );

    let status = |name: &str, digit| {
        running_pod(
            &namespace,
            "web",
            "",
            &[("app", &image(name), &image_id(name, digit))],
        )
    };
    admin.set_status(status("first", 'a')).await;
    let line = |digit| format!("web app {} arm64", digest(digit));
    running.shows(&namespace, "first", &[line('a')]).await;

    // In place: the pod stays, its container's image changes, then the kubelet catches up.
    running.inventory.take_changes();
    let set = format!("app={}", image("second"));
    admin
        .kubectl(["set", "image", "pod/web", &set, "--namespace", &namespace])
        .await;
    admin.set_status(status("second", 'b')).await;
    running.shows(&namespace, "second", &[line('b')]).await;
    running.shows(&namespace, "first", &[]).await;
    let changes = running.inventory.take_changes();
    let names: HashSet<&str> = changes.repositories.iter().map(|r| &*r.name).collect();
    assert!(names.is_superset(&["first", "second"].into()), "{names:?}");

    admin.kubectl(["delete", "node", &name]).await;
    running
        .shows(
            &namespace,
            "second",
            &[format!("web app {} unknown", digest('b'))],
        )
        .await;
    let delete = [
        "delete",
        "pod",
        "web",
        "--grace-period=0",
        "--force",
        "--namespace",
        &namespace,
    ];
    admin.kubectl(delete).await;
    running.shows(&namespace, "second", &[]).await;
}

#[tokio::test]
async fn a_list_of_several_pages_is_read_to_its_end() {
    let admin = ControlPlane::shared().await.admin();
    let namespace = admin.namespace("pages").await;
    let client = admin.client().await;
    let pods = kube::Api::<k8s_openapi::api::core::v1::Pod>::namespaced(client, &namespace);
    let pods = &pods;
    let namespace = &namespace;
    futures::stream::iter(0..450)
        .for_each_concurrent(16, |n| async move {
            let mut pod = running_pod(
                namespace,
                &format!("pod-{n}"),
                "",
                &[("app", &image("many"), "")],
            );
            pod["spec"]["nodeName"] = "node-pages".into();
            pods.create(
                &kube::api::PostParams::default(),
                &serde_json::from_value(pod).unwrap(),
            )
            .await
            .unwrap();
        })
        .await;
    let running = Running::start(admin.client().await);
    eventually("every pod to be known", SOON, async || {
        let known = running.containers(namespace, "many").len();
        if running.inventory.synced() && known == 450 {
            Ok(())
        } else {
            Err(format!("{known} are"))
        }
    })
    .await;
}

#[tokio::test]
async fn namespaces_are_watched_once_somebody_wants_their_labels() {
    let admin = ControlPlane::shared().await.admin();
    let namespace = admin
        .namespace_with("labels", json!({"stage": "live"}))
        .await;
    let pod = running_pod(
        &namespace,
        "web",
        "node-labels",
        &[("app", &image("labelled"), "")],
    );
    admin.create(pod).await;
    let running = Running::start(admin.client().await);
    running
        .shows(&namespace, "labelled", &["web app waiting unknown".into()])
        .await;
    let unlabelled = || {
        let index = running.inventory.index();
        index.namespaces_without_labels().contains(&&*namespace)
    };
    assert!(unlabelled());
    running.inventory.want_namespaces();
    eventually("its labels to be known", SOON, async || {
        if running.inventory.synced() && !unlabelled() {
            Ok(())
        } else {
            Err("they are not")
        }
    })
    .await;
}

#[tokio::test]
async fn rights_that_are_missing_are_named_and_their_grant_is_noticed() {
    let control_plane = ControlPlane::shared().await;
    let admin = control_plane.admin();
    let stranger = control_plane.user("inventory-stranger", &["system:authenticated"]);
    let running = Running::start(stranger.client().await);
    eventually("the refusal to be told", SOON, async || {
        match running.health(Kind::Pod).failure {
            Some(failure) if failure.reason == "Forbidden" && failure.verb == "list" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let told = running.health(Kind::Pod).failure.unwrap().to_string();
    assert!(told.starts_with("cannot list pods: "), "{told}");
    assert!(!running.inventory.synced());

    admin
        .apply(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\n\
             metadata: {name: inventory-stranger}\n\
             rules: [{apiGroups: [''], resources: [pods, nodes], verbs: [list, watch]}]\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\n\
             metadata: {name: inventory-stranger}\n\
             roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: inventory-stranger}\n\
             subjects: [{kind: User, name: inventory-stranger}]\n",
        )
        .await;
    eventually(
        "the grant to be noticed",
        Duration::from_secs(90),
        async || {
            if running.inventory.synced() && running.health(Kind::Pod).failure.is_none() {
                Ok(())
            } else {
                Err(format!("{:?}", running.inventory.health()))
            }
        },
    )
    .await;
}

/// Stands between a client and the API server, and can be cut.
struct Line {
    port: u16,
    cut: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl Line {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = Arc::clone(&cut);
        let accepting = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let (is_cut, server) = (Arc::clone(&is_cut), server.clone());
                tokio::spawn(async move {
                    let until_cut = async {
                        while !is_cut.load(Ordering::Relaxed) {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    };
                    let piped = async {
                        if let Ok(mut server) = TcpStream::connect(server).await {
                            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                        }
                    };
                    tokio::select! {
                        () = until_cut => {}
                        () = piped => {}
                    }
                });
            }
        });
        Self {
            port,
            cut,
            accepting,
        }
    }

    fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.cut(true);
        self.accepting.abort();
    }
}

/// A client of the same user that goes through a line.
async fn through_a_line(access: &Access) -> (Line, Client) {
    // Its own client also installs the crypto provider.
    drop(access.client().await);
    let kubeconfig = Kubeconfig::read_from(access.kubeconfig()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let line = Line::to(format!(
        "127.0.0.1:{}",
        config.cluster_url.port_u16().unwrap()
    ))
    .await;
    config.cluster_url = format!("https://127.0.0.1:{}", line.port).parse().unwrap();
    (line, Client::try_from(config).unwrap())
}

#[tokio::test]
async fn what_happened_while_the_line_was_cut_and_forgotten_by_the_server_is_found_out() {
    let control_plane = ControlPlane::start().await;
    let admin = control_plane.admin();
    let namespace = admin.namespace("gone").await;
    let (line, client) = through_a_line(&admin).await;
    for name in ["goes", "stays"] {
        let pod = running_pod(&namespace, name, "node-1", &[("app", &image("old"), "")]);
        admin.create(pod).await;
    }
    let running = Running::start(client);
    let waiting = |name: &str| format!("{name} app waiting unknown");
    running
        .shows(&namespace, "old", &[waiting("goes"), waiting("stays")])
        .await;
    assert_eq!(running.health(Kind::Pod).lists, 1);

    line.cut(true);
    let delete = [
        "delete",
        "pod",
        "goes",
        "--grace-period=0",
        "--force",
        "--namespace",
        &namespace,
    ];
    admin.kubectl(delete).await;
    let set = format!("app={}", image("new"));
    admin
        .kubectl(["set", "image", "pod/stays", &set, "--namespace", &namespace])
        .await;
    let pod = running_pod(&namespace, "comes", "node-1", &[("app", &image("new"), "")]);
    admin.create(pod).await;
    // What it remembers of the past begins with its start: the watch will be told 410 Gone.
    control_plane.restart_api_server().await;
    line.cut(false);

    running.shows(&namespace, "old", &[]).await;
    running
        .shows(&namespace, "new", &[waiting("comes"), waiting("stays")])
        .await;
    assert_eq!(running.health(Kind::Pod).lists, 2, "listed anew, once");
    assert_eq!(running.health(Kind::Pod).failure, None);
}

#[tokio::test]
async fn a_restart_of_the_api_server_is_survived_without_a_word() {
    let control_plane = ControlPlane::start().await;
    let admin = control_plane.admin();
    let namespace = admin.namespace("restart").await;
    let pod = |name| running_pod(&namespace, name, "node-1", &[("app", &image("web"), "")]);
    admin.create(pod("before")).await;
    let running = Running::start(admin.client().await);
    let waiting = |name: &str| format!("{name} app waiting unknown");
    running.shows(&namespace, "web", &[waiting("before")]).await;

    control_plane.restart_api_server().await;
    assert_eq!(running.containers(&namespace, "web"), [waiting("before")]);
    admin.create(pod("after")).await;
    running
        .shows(&namespace, "web", &[waiting("after"), waiting("before")])
        .await;
    assert!(running.inventory.synced());
    assert_eq!(running.health(Kind::Pod).failure, None);
}
