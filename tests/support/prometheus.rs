//! A real Prometheus that scrapes the operator, with the chart's alerts if they are wanted. It is
//! Debian's package `prometheus`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use super::programs;
use super::servers::{Folder, Server, free_ports};

/// A running Prometheus.
pub struct Prometheus {
    server: Server,
    address: String,
}

impl Prometheus {
    /// Whether the program is there.
    pub fn is_installed() -> bool {
        let mut command = Command::new("prometheus");
        let quiet = command.arg("--version").stdout(Stdio::null());
        quiet
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Starts it. It scrapes `target` every two seconds, as a cluster called `demo`, and evaluates
    /// these rules as often.
    pub fn start(folder: &Folder, target: &str, rules: Option<&str>) -> Self {
        let [port] = free_ports();
        let address = format!("127.0.0.1:{port}");
        let path = |name: &str| folder.path().join(name);
        if let Some(rules) = rules {
            fs::write(path("alerts.yaml"), rules).expect("a writable folder");
        }
        let config = json!({
            "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"},
            "rule_files": rules.map(|_| "alerts.yaml").into_iter().collect::<Vec<_>>(),
            "scrape_configs": [{
                "job_name": "ecr-audit-operator",
                "honor_labels": true,
                "static_configs": [{"targets": [target], "labels": {"cluster": "demo"}}],
            }],
        });
        fs::write(path("prometheus.yml"), config.to_string()).expect("a writable folder");
        let mut command = Command::new("prometheus");
        command
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=prometheus")
            .arg(format!("--web.listen-address={address}"));
        Self {
            server: folder.spawn("prometheus", command),
            address,
        }
    }

    /// Its address, `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How it ended, if it did.
    pub fn failure(&mut self) -> Option<String> {
        self.server.failure()
    }

    /// Waits until every panel and every variable of the dashboard has data here; what the check
    /// says.
    pub async fn check_dashboard(&self) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dashboard/check.py");
        let mut check = Command::new(programs::python());
        check
            .arg(script)
            .args(["--prometheus", &format!("http://{}", self.address)]);
        programs::stdout(check).await
    }
}
