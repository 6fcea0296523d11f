//! The operator as users run it: the real process, on a real control plane, with the replay
//! server as its AWS.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::Value;

use super::servers::{Folder, Server, free_ports};
use super::{Access, Release, http, programs};

/// A running `ecr-audit run`.
pub struct Operator {
    server: Server,
    address: String,
    status_page: String,
}

impl Operator {
    /// Starts it as the release's Deployment says, with this access to the cluster. Its volumes are
    /// folders in `folder`, and stay there for the next one. Returns when it listens.
    pub async fn start(release: &Release, pod: &str, access: &Access, folder: &Folder) -> Self {
        let command = release.command(Self::program(), pod, access, folder.path());
        let mut server = folder.spawn(pod, command);
        let address = format!("127.0.0.1:{}", release.port("metrics"));
        super::eventually("a listener", Duration::from_mins(1), async || {
            if let Some(failure) = server.failure() {
                panic!("{failure}");
            }
            tokio::net::TcpStream::connect(&address).await
        })
        .await;
        Self {
            server,
            address,
            status_page: release.env("ECR_AUDIT_STATUS_LISTEN").to_owned(),
        }
    }

    /// Starts it without a chart, with a ledger and these variables; it reads the Event history
    /// faster than AWS would let it.
    pub fn start_with<V: AsRef<OsStr>>(
        folder: &Folder,
        name: &str,
        access: &Access,
        ledger: &str,
        environment: impl IntoIterator<Item = (&'static str, V)>,
    ) -> Self {
        let [address, status_page] = free_ports().map(|port| format!("127.0.0.1:{port}"));
        let mut command = access.command(Self::program());
        command
            .args(["run", "--log-format", "text", "--listen", &address])
            .env("ECR_AUDIT_LEDGER", ledger)
            .env("ECR_AUDIT_STATUS_LISTEN", &status_page)
            // What AWS allows an account would only be waited for.
            .env("ECR_AUDIT_LOOKUPS_PER_SECOND", "20")
            .env("POD_NAMESPACE", "default")
            .env("POD_NAME", name)
            .env("RUST_LOG", "info,ecr_audit=debug")
            .envs(environment);
        let server = folder.spawn(name, command);
        Self {
            server,
            address,
            status_page,
        }
    }

    /// Sends it a signal, such as `STOP`.
    pub async fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        kill.args(["-s", signal, &self.server.id().to_string()]);
        programs::stdout(kill).await;
    }

    /// The program that is tested; only integration tests know it.
    fn program() -> &'static Path {
        match option_env!("CARGO_BIN_EXE_ecr-audit") {
            Some(program) => Path::new(program),
            None => panic!("only integration tests are told where the program is"),
        }
    }

    /// Status and body of a page of its admin server.
    pub async fn get(&self, path: &str) -> (u16, String) {
        http::request(&self.address, "GET", path, "").await
    }

    /// Address of its admin server.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether its status server takes connections, which it does from the start.
    pub async fn is_up(&self) -> bool {
        tokio::net::TcpStream::connect(&self.status_page)
            .await
            .is_ok()
    }

    /// Status, headers and body of a page of its status server, asked for by this host's name.
    pub async fn status_page(&self, host: &str, path: &str) -> (u16, String, String) {
        http::exchange(&self.status_page, host, "GET", path, "").await
    }

    /// The lines of `/metrics` that start like this.
    pub async fn metrics(&self, start: &str) -> Vec<String> {
        let (status, body) = self.get("/metrics").await;
        assert_eq!(status, 200, "{body}");
        let lines = body.lines().filter(|line| line.starts_with(start));
        lines.map(str::to_owned).collect()
    }

    /// Kills it, as a node that fails does.
    pub fn kill(mut self) {
        self.server.stop();
    }

    /// Asks it to end, as Kubernetes does, and says how it did.
    pub async fn terminate(mut self) -> ExitStatus {
        self.signal("TERM").await;
        super::eventually("the operator's end", Duration::from_secs(10), async || {
            self.server.ended().ok_or("it runs")
        })
        .await
    }

    /// Whether it runs.
    pub fn is_alive(&mut self) -> bool {
        self.server.ended().is_none()
    }

    /// Everything that it logged.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.server.log_tail()
    }
}

impl Drop for Operator {
    /// A test that fails shows what the operator had to say.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the operator's log:\n{}", self.log_tail());
        }
    }
}

/// What `kubectl get` says about a policy.
pub async fn policy(admin: &Access, name: &str) -> Value {
    let text = admin
        .kubectl(["get", "ecrauditpolicy", name, "-o", "json"])
        .await;
    serde_json::from_str(&text).expect("JSON")
}

/// A condition: `True`, its reason and its message.
pub fn condition(policy: &Value, kind: &str) -> (String, String, String) {
    let all = policy["status"]["conditions"].as_array();
    let found = all.and_then(|all| all.iter().find(|one| one["type"] == kind));
    let field = |name: &str| {
        let text = found.and_then(|one| one[name].as_str());
        text.unwrap_or_default().to_owned()
    };
    (field("status"), field("reason"), field("message"))
}

/// Waits until a condition has this status and reason, and returns its message.
pub async fn expect_condition(
    admin: &Access,
    name: &str,
    kind: &str,
    expected: (&str, &str),
    limit: Duration,
) -> String {
    let what = format!("{kind} {expected:?}");
    super::eventually(&what, limit, async || {
        let policy = policy(admin, name).await;
        let (status, reason, message) = condition(&policy, kind);
        if (status.as_str(), reason.as_str()) == expected {
            Ok(message)
        } else {
            Err(format!("{:#}", policy["status"]))
        }
    })
    .await
}

/// Type, workload and reason of every finding object in a namespace, sorted.
pub async fn findings(admin: &Access, namespace: &str) -> Vec<String> {
    let arguments = [
        "get",
        "ecrauditfindings",
        "--namespace",
        namespace,
        "-o",
        "json",
    ];
    let text = admin.kubectl(arguments).await;
    let list: Value = serde_json::from_str(&text).expect("JSON");
    let mut all: Vec<String> = (list["items"].as_array().expect("a list").iter())
        .map(|object| {
            let spec = &object["spec"];
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let (workload, impact) = (text(&spec["workload"]["name"]), text(&spec["impact"]));
            format!("{workload}, {}, {impact}", text(&spec["type"]))
        })
        .collect();
    all.sort();
    all
}
