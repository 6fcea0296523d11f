//! A real kube-apiserver with etcd behind it, on free loopback ports and a folder of
//! its own; RBAC is on. There is no kubelet, no scheduler and, unless asked for, no
//! controller manager: Pods run because a test says so, and a deleted Namespace stays
//! `Terminating`, so give each test a Namespace of its own.
//!
//! A start takes some seconds and 350 MB. Tests that only add objects share one control
//! plane a test binary ([`ControlPlane::shared`]); tests that restart it, or count
//! everything in it, start their own.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

use super::access::{self, Access};
use super::audit_log::{self, AuditLog};
use super::programs;
use super::servers::{Folder, Server, free_ports};

/// A loaded two-core machine needs several times what a start usually takes.
const READY_LIMIT: Duration = Duration::from_mins(1);

/// A port that was free may be taken by the time a server binds it.
const START_ATTEMPTS: u32 = 3;

/// Name of the file with the API server's audit log.
const AUDIT_LOG: &str = "audit.log";

/// What differs between control planes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Also run kube-controller-manager: Deployments make Pods, owner references are
    /// collected, deleted Namespaces go away.
    pub controller_manager: bool,
    /// Log what service accounts ask for: [`ControlPlane::audit_log`].
    pub audit_log: bool,
    /// More flags for kube-apiserver, such as `--feature-gates=WatchList=false`.
    pub api_server_flags: Vec<String>,
}

/// A running control plane. Dropping it stops the servers and removes their folder.
pub struct ControlPlane {
    binaries: PathBuf,
    etcd_port: u16,
    api_server_port: u16,
    options: Options,
    admin: Access,
    // In this order: the servers end before their folder goes.
    servers: Mutex<Servers>,
    folder: Folder,
}

/// In the order in which they are stopped.
struct Servers {
    controller_manager: Option<Server>,
    api_server: Server,
    etcd: Server,
}

impl ControlPlane {
    /// The control plane that the tests of one binary share.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// One for the caller alone.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// One for the caller alone, with these options.
    pub async fn start_with(options: Options) -> Self {
        let mut failures = String::new();
        for _ in 0..START_ATTEMPTS {
            match Self::try_start(options.clone()).await {
                Ok(control_plane) => return control_plane,
                Err(reason) => writeln!(failures, "{reason}").expect("a string takes it"),
            }
        }
        panic!("no control plane after {START_ATTEMPTS} attempts:\n{failures}");
    }

    async fn try_start(options: Options) -> Result<Self, String> {
        let binaries = if options.controller_manager {
            programs::binaries_with_controller_manager()
        } else {
            programs::binaries()
        };
        let folder = Folder::new("control-plane-");
        let [etcd_port, peer_port, api_server_port] = free_ports();
        let token = write_credentials(folder.path());
        let admin = Access::new(
            folder.path(),
            &json!({
                "server": format!("https://127.0.0.1:{api_server_port}"),
                // The server makes this certificate when it starts.
                "certificate-authority": folder.path().join("certificates/apiserver.crt"),
            }),
            "admin",
            &json!({"token": token}),
        );
        let etcd = folder.spawn("etcd", etcd(binaries, folder.path(), etcd_port, peer_port));
        let api_server = api_server(
            binaries,
            folder.path(),
            [etcd_port, api_server_port],
            &options,
        );
        let api_server = folder.spawn("kube-apiserver", api_server);
        let control_plane = Self {
            binaries: binaries.to_owned(),
            etcd_port,
            api_server_port,
            options,
            admin,
            servers: Mutex::new(Servers {
                controller_manager: None,
                api_server,
                etcd,
            }),
            folder,
        };
        let mut servers = control_plane.servers.lock().await;
        control_plane.ready(&mut servers).await?;
        if control_plane.options.controller_manager {
            let folder = &control_plane.folder;
            let command = controller_manager(binaries, folder.path(), &control_plane.admin);
            servers.controller_manager = Some(folder.spawn("kube-controller-manager", command));
        }
        drop(servers);
        Ok(control_plane)
    }

    /// Everything is allowed: the group `system:masters`.
    pub fn admin(&self) -> Access {
        self.admin.clone()
    }

    /// The rights of this service account and no more, by a token that the API server issues.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Access {
        let token = self
            .admin
            .kubectl(["create", "token", name, "--namespace", namespace])
            .await;
        self.access(
            &format!("{namespace}-{name}"),
            &json!({"token": token.trim()}),
        )
    }

    /// What service accounts asked for so far; with [`Options::audit_log`].
    pub fn audit_log(&self) -> AuditLog {
        AuditLog::read(&self.folder.path().join(AUDIT_LOG))
    }

    /// The rights of this user and these groups and no more. The user need not exist.
    pub fn user(&self, name: &str, groups: &[&str]) -> Access {
        let mut user = self.admin.user().clone();
        user["as"] = json!(name);
        user["as-groups"] = json!(groups);
        self.access(name, &user)
    }

    fn access(&self, name: &str, user: &Value) -> Access {
        Access::new(self.folder.path(), self.admin.cluster(), name, user)
    }

    /// Kills the API server and starts it again on the same port and data. Watches
    /// break, requests in between are refused, and afterwards everything is still there.
    pub async fn restart_api_server(&self) {
        let mut servers = self.servers.lock().await;
        servers.api_server.stop();
        let command = api_server(
            &self.binaries,
            self.folder.path(),
            [self.etcd_port, self.api_server_port],
            &self.options,
        );
        servers.api_server = self.folder.spawn("kube-apiserver", command);
        if let Err(reason) = self.ready(&mut servers).await {
            panic!("the API server did not come back: {reason}");
        }
    }

    /// Kills etcd and starts it again on the same data, under the API server's feet.
    pub async fn restart_etcd(&self) {
        let mut servers = self.servers.lock().await;
        servers.etcd.stop();
        let [peer_port] = free_ports();
        let command = etcd(
            &self.binaries,
            self.folder.path(),
            self.etcd_port,
            peer_port,
        );
        servers.etcd = self.folder.spawn("etcd", command);
        if let Err(reason) = self.ready(&mut servers).await {
            panic!("the API server does not go on: {reason}");
        }
    }

    /// Runs `during` while there is no API server, then starts it again.
    pub async fn without_api_server<T>(&self, during: impl Future<Output = T>) -> T {
        self.servers.lock().await.api_server.stop();
        let answer = during.await;
        self.restart_api_server().await;
        answer
    }

    async fn ready(&self, servers: &mut Servers) -> Result<(), String> {
        let start = Instant::now();
        loop {
            for server in [&mut servers.etcd, &mut servers.api_server] {
                if let Some(failure) = server.failure() {
                    return Err(failure);
                }
            }
            if self.is_ready().await {
                return Ok(());
            }
            if start.elapsed() > READY_LIMIT {
                let log = servers.api_server.log_tail();
                return Err(format!("not ready after {READY_LIMIT:?}\n{log}"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn is_ready(&self) -> bool {
        // Its certificate is the last thing that a first start writes before it listens.
        let listening = (Ipv4Addr::LOCALHOST, self.api_server_port);
        tokio::net::TcpStream::connect(listening).await.is_ok()
            && self
                .admin
                .try_kubectl(["get", "--raw", "/readyz", "--request-timeout=5s"])
                .await
                .status
                .success()
    }
}

fn etcd(binaries: &Path, folder: &Path, port: u16, peer_port: u16) -> Command {
    let url = format!("http://127.0.0.1:{port}");
    let peer_url = format!("http://127.0.0.1:{peer_port}");
    let mut command = Command::new(binaries.join("etcd"));
    command
        .arg(format!("--data-dir={}", folder.join("etcd").display()))
        .arg(format!("--listen-client-urls={url}"))
        .arg(format!("--advertise-client-urls={url}"))
        .arg(format!("--listen-peer-urls={peer_url}"))
        .arg(format!("--initial-advertise-peer-urls={peer_url}"))
        .arg(format!("--initial-cluster=default={peer_url}"))
        // The data has to survive the API server, not the machine.
        .arg("--unsafe-no-fsync")
        .arg("--log-level=warn");
    command
}

fn api_server(
    binaries: &Path,
    folder: &Path,
    [etcd_port, port]: [u16; 2],
    options: &Options,
) -> Command {
    let key = folder.join("service-account.key");
    let mut command = Command::new(binaries.join("kube-apiserver"));
    command
        .arg(format!("--etcd-servers=http://127.0.0.1:{etcd_port}"))
        .arg(format!(
            "--cert-dir={}",
            folder.join("certificates").display()
        ))
        .arg("--bind-address=127.0.0.1")
        .arg(format!("--secure-port={port}"))
        .arg("--authorization-mode=RBAC")
        .arg(format!(
            "--token-auth-file={}",
            folder.join("tokens.csv").display()
        ))
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg(format!("--service-account-key-file={}", key.display()))
        .arg(format!(
            "--service-account-signing-key-file={}",
            key.display()
        ))
        .arg("--service-cluster-ip-range=10.0.0.0/24")
        // Nobody makes the ServiceAccount `default` that it would ask for.
        .arg("--disable-admission-plugins=ServiceAccount")
        .args(&options.api_server_flags);
    if options.audit_log {
        let policy = folder.join("audit-policy.yaml");
        std::fs::write(&policy, audit_log::POLICY).expect("a writable folder");
        command
            .arg(format!("--audit-policy-file={}", policy.display()))
            .arg(format!(
                "--audit-log-path={}",
                folder.join(AUDIT_LOG).display()
            ));
    }
    command
}

fn controller_manager(binaries: &Path, folder: &Path, admin: &Access) -> Command {
    let [port] = free_ports();
    let mut command = Command::new(binaries.join("kube-controller-manager"));
    command
        .arg(format!("--kubeconfig={}", admin.kubeconfig().display()))
        .arg(format!(
            "--service-account-private-key-file={}",
            folder.join("service-account.key").display()
        ))
        .arg(format!(
            "--cert-dir={}",
            folder.join("certificates").display()
        ))
        .arg("--bind-address=127.0.0.1")
        .arg(format!("--secure-port={port}"))
        .arg("--leader-elect=false")
        // Nodes without a kubelet look dead: these would remove what tests put on them.
        .arg(
            "--controllers=*,-node-lifecycle-controller,-pod-garbage-collector-controller,\
             -taint-eviction-controller",
        );
    command
}

/// Makes the key that signs service account tokens and the administrator's token, and
/// returns the latter.
fn write_credentials(folder: &Path) -> String {
    let key = folder.join("service-account.key");
    let made = Command::new("openssl")
        .args(["genpkey", "-quiet", "-algorithm", "RSA"])
        .args(["-pkeyopt", "rsa_keygen_bits:2048", "-out"])
        .arg(&key)
        .stdin(Stdio::null())
        .output()
        .expect("openssl");
    assert!(
        made.status.success(),
        "openssl: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    let token = format!("{:032x}", rand::random::<u128>());
    access::write_private(
        &folder.join("tokens.csv"),
        &format!("{token},admin,admin,system:masters\n"),
    );
    token
}
