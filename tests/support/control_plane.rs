//! A real kube-apiserver with etcd behind it, on free loopback ports and a folder of
//! its own; RBAC is on. There is no kubelet, no scheduler and, unless asked for, no
//! controller manager: Pods run because a test says so, and a deleted Namespace stays
//! `Terminating`, so give each test a Namespace of its own.
//!
//! A start takes some seconds and 350 MB. Tests that only add objects share one control
//! plane a test binary ([`ControlPlane::shared`]); tests that restart it, or count
//! everything in it, start their own.
//!
//! Nothing outlives the test process, however it ends: a watchdog process holds the read
//! end of a pipe, and when the write end is gone it kills the servers and removes the folder.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

use super::access::{self, Access};
use super::programs;

/// A loaded two-core machine needs several times what a start usually takes.
const READY_LIMIT: Duration = Duration::from_mins(1);

/// A port that was free may be taken by the time a server binds it.
const START_ATTEMPTS: u32 = 3;

/// Kills what the pid files in the folder `$1` name, the API server before etcd, and
/// removes the folder, once nobody can write to its standard input any more.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
cat > /dev/null
for name in kube-controller-manager kube-apiserver etcd; do
    if [ -f "$1/$name.pid" ]; then kill -KILL "$(cat "$1/$name.pid")"; fi
done
for attempt in 1 2 3 4 5; do
    rm -rf "$1" && break
    sleep 1
done
"#;

/// What differs between control planes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Also run kube-controller-manager: Deployments make Pods, owner references are
    /// collected, deleted Namespaces go away.
    pub controller_manager: bool,
    /// More flags for kube-apiserver, such as `--feature-gates=WatchList=false`.
    pub api_server_flags: Vec<String>,
}

/// A running control plane. Dropping it stops the servers and removes their folder.
pub struct ControlPlane {
    folder: PathBuf,
    binaries: PathBuf,
    api_server_port: u16,
    options: Options,
    servers: Mutex<Servers>,
    admin: Access,
    /// Its standard input is the pipe; the end of this process closes it, too.
    watchdog: Child,
}

/// In the order in which they are stopped.
struct Servers {
    controller_manager: Option<Child>,
    api_server: Child,
    etcd: Child,
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
        let folder = tempfile::Builder::new()
            .prefix("control-plane-")
            .tempdir()
            .expect("a temporary folder")
            .keep();
        let watchdog = watchdog(&folder);
        let [etcd_port, peer_port, api_server_port] = free_ports();
        let token = write_credentials(&folder);

        let etcd = spawn(&folder, etcd(binaries, &folder, etcd_port, peer_port));
        fs::write(folder.join("etcd.port"), etcd_port.to_string()).expect("a writable folder");
        let api_server = spawn(
            &folder,
            api_server(binaries, &folder, api_server_port, &options),
        );
        let admin = Access::new(
            &folder,
            &json!({
                "server": format!("https://127.0.0.1:{api_server_port}"),
                // The server makes this certificate when it starts.
                "certificate-authority": folder.join("certificates/apiserver.crt"),
            }),
            "admin",
            &json!({"token": token}),
        );
        let control_plane = Self {
            folder,
            binaries: binaries.to_owned(),
            api_server_port,
            options,
            servers: Mutex::new(Servers {
                controller_manager: None,
                api_server,
                etcd,
            }),
            admin,
            watchdog,
        };
        let mut servers = control_plane.servers.lock().await;
        control_plane.ready(&mut servers).await?;
        if control_plane.options.controller_manager {
            let command = controller_manager(binaries, &control_plane.folder, &control_plane.admin);
            servers.controller_manager = Some(spawn(&control_plane.folder, command));
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

    /// The rights of this user and these groups and no more. The user need not exist.
    pub fn user(&self, name: &str, groups: &[&str]) -> Access {
        let mut user = self.admin.user().clone();
        user["as"] = json!(name);
        user["as-groups"] = json!(groups);
        self.access(name, &user)
    }

    fn access(&self, name: &str, user: &Value) -> Access {
        Access::new(&self.folder, self.admin.cluster(), name, user)
    }

    /// Kills the API server and starts it again on the same port and data. Watches
    /// break, requests in between are refused, and afterwards everything is still there.
    pub async fn restart_api_server(&self) {
        let mut servers = self.servers.lock().await;
        self.stop_api_server(&mut servers);
        let command = api_server(
            &self.binaries,
            &self.folder,
            self.api_server_port,
            &self.options,
        );
        servers.api_server = spawn(&self.folder, command);
        if let Err(reason) = self.ready(&mut servers).await {
            panic!("the API server did not come back: {reason}");
        }
    }

    /// Runs `during` while there is no API server, then starts it again.
    pub async fn without_api_server<T>(&self, during: impl Future<Output = T>) -> T {
        let mut servers = self.servers.lock().await;
        self.stop_api_server(&mut servers);
        drop(servers);
        let answer = during.await;
        self.restart_api_server().await;
        answer
    }

    fn stop_api_server(&self, servers: &mut Servers) {
        stop(&self.folder, "kube-apiserver", &mut servers.api_server);
    }

    async fn ready(&self, servers: &mut Servers) -> Result<(), String> {
        let start = Instant::now();
        loop {
            for (name, child) in [
                ("etcd", &mut servers.etcd),
                ("kube-apiserver", &mut servers.api_server),
            ] {
                if let Some(status) = child.try_wait().expect("a child of ours") {
                    return Err(format!("{name}: {status}\n{}", self.log_tail(name)));
                }
            }
            if self.is_ready().await {
                return Ok(());
            }
            if start.elapsed() > READY_LIMIT {
                let log = self.log_tail("kube-apiserver");
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

    fn log_tail(&self, name: &str) -> String {
        let log = fs::read(self.folder.join(name).with_extension("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let servers = self.servers.get_mut();
        if let Some(controller_manager) = &mut servers.controller_manager {
            stop(&self.folder, "kube-controller-manager", controller_manager);
        }
        stop(&self.folder, "kube-apiserver", &mut servers.api_server);
        stop(&self.folder, "etcd", &mut servers.etcd);
        drop(self.watchdog.stdin.take());
        // It removes the folder; when it fails, the system's cleaner of temporary files does.
        let _ = self.watchdog.wait();
    }
}

/// Stops at once: the data is thrown away, or has to survive just that.
fn stop(folder: &Path, name: &str, child: &mut Child) {
    // Without its file first: a process id that nobody holds may be given to another.
    let _ = fs::remove_file(folder.join(name).with_extension("pid"));
    // An error means that it had ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// The watchdog of a folder. A process group of its own keeps Ctrl-C away from it.
fn watchdog(folder: &Path) -> Child {
    Command::new("sh")
        .args(["-c", WATCHDOG, "watchdog"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("a shell")
}

/// Starts a server with its output in `<name>.log` and its process id in `<name>.pid`.
fn spawn(folder: &Path, mut command: Command) -> Child {
    let program = PathBuf::from(command.get_program());
    let file = |extension| {
        folder
            .join(program.file_stem().unwrap())
            .with_extension(extension)
    };
    let log: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(file("log"))
        .expect("a writable folder");
    let child = command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    fs::write(file("pid"), child.id().to_string()).expect("a writable folder");
    child
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

fn api_server(binaries: &Path, folder: &Path, port: u16, options: &Options) -> Command {
    let etcd_port = fs::read_to_string(folder.join("etcd.port")).expect("etcd's port");
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

/// Ports that nobody listens on, and that differ from one another.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port")
    });
    listeners.map(|listener| listener.local_addr().expect("a bound address").port())
}
