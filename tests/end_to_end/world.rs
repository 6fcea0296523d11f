//! A cluster that runs the story's pods, an AWS with its history, and the chart's release in it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::audit_log::{self, AuditLog};
use crate::support::operator::{Operator, expect_condition, findings, policy};
use crate::support::servers::{Folder, free_ports};
use crate::support::{Access, ControlPlane, Options, Release, Replay, eventually};

/// The moment that the story takes for now.
const NOW: &str = "2026-11-20T12:00:00Z";
pub(crate) const POLICY: &str = "production";
const NAMESPACE: &str = "ecr-audit";
/// Far more than anything here takes: the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_mins(3);
/// Requests a second that the history is read with, which AWS would not allow: there is much of it.
pub(crate) const RATE: u32 = 20;

pub(crate) const CART: &str = "cart, ImageExpired, WouldChange";
pub(crate) const WEB: &str = "web, ImageExpired, Unpullable";
pub(crate) const PULL: &str = "web, UnexpectedPull, -";

/// A file of the story.
pub(crate) fn story(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/story");
    fs::read_to_string(folder.join(name)).unwrap()
}

pub(crate) struct World {
    // Servers end before their folder goes: fields are dropped in this order.
    pub(crate) replay: Replay,
    pub(crate) control_plane: ControlPlane,
    pub(crate) release: Release,
    pub(crate) folder: Folder,
}

/// The chart's release, on ports that nobody has, with the replay server as its AWS.
async fn release(rate: u32, replay: &Replay) -> Release {
    let [port, status_port] = free_ports();
    let values = json!({
        "aws": {"lookupsPerSecond": rate},
        "service": {"port": port},
        "statusPage": {"port": status_port},
        "extraEnv": Release::extra_env(replay),
    });
    Release::render(NAMESPACE, &values).await
}

impl World {
    /// With pods that run, a history, and the chart's release, whose operator is started by
    /// [`Self::operator`].
    pub(crate) async fn new() -> Self {
        Self::with_rate(RATE).await
    }

    /// The same, where the operator asks so many times a second.
    pub(crate) async fn with_rate(rate: u32) -> Self {
        let world = Self::bare(rate).await;
        world.install(|_| true).await;
        world.run_pods().await;
        world
    }

    /// With a history, but nothing in the cluster.
    pub(crate) async fn bare(rate: u32) -> Self {
        let options = Options {
            audit_log: true,
            ..Options::default()
        };
        let control_plane = ControlPlane::start_with(options).await;
        let replay = Replay::start(["--quota", "0"]).await;
        let world = Self {
            release: release(rate, &replay).await,
            replay,
            control_plane,
            folder: Folder::new("ecr-audit-run-"),
        };
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE},
        });
        world.admin().create(namespace).await;
        world.tell("1-history").await;
        world
    }

    /// Applies what the chart renders of these kinds.
    pub(crate) async fn install(&self, is_wanted: impl Fn(&str) -> bool) {
        self.admin().apply(&self.release.yaml(&is_wanted)).await;
        if is_wanted("CustomResourceDefinition") {
            let established = [
                "wait",
                "--for=condition=Established",
                "crd",
                "--all",
                "--timeout=60s",
            ];
            self.admin().kubectl(established).await;
        }
    }

    /// Has the story's pods run.
    pub(crate) async fn run_pods(&self) {
        for list in ["nodes.json", "pods.json"] {
            let mut list: Value = serde_json::from_str(&story(list)).unwrap();
            for object in list["items"].as_array_mut().unwrap() {
                self.admin().create(object.take()).await;
            }
        }
    }

    pub(crate) fn admin(&self) -> Access {
        self.control_plane.admin()
    }

    /// The operator, with a token of the chart's service account.
    pub(crate) async fn operator(&self, pod: &str) -> Operator {
        let account = self.release.account();
        let (namespace, name) = account.split_once(':').unwrap();
        let access = self.control_plane.service_account(namespace, name).await;
        Operator::start(&self.release, pod, &access, &self.folder).await
    }

    /// A second operator, with a folder of its own.
    pub(crate) async fn standby(&self, pod: &str) -> (Operator, Folder) {
        let release = release(RATE, &self.replay).await;
        let folder = Folder::new("ecr-audit-standby-");
        let account = release.account();
        let (namespace, name) = account.split_once(':').unwrap();
        let access = self.control_plane.service_account(namespace, name).await;
        let operator = Operator::start(&release, pod, &access, &folder).await;
        (operator, folder)
    }

    /// Lets a part of the story happen.
    pub(crate) async fn tell(&self, part: &str) {
        let records = story(&format!("events/{part}.json"));
        self.replay.add_as_of(NOW, &records).await;
    }

    /// Gives CloudTrail records that are as old as those of the story.
    pub(crate) async fn add(&self, records: &Value) {
        self.replay.add_as_of(NOW, &records.to_string()).await;
    }

    /// Waits for a condition of the story's policy, and returns its message.
    pub(crate) async fn expect(&self, kind: &str, expected: (&str, &str)) -> String {
        self.expect_of(POLICY, kind, expected).await
    }

    pub(crate) async fn expect_of(
        &self,
        policy: &str,
        kind: &str,
        expected: (&str, &str),
    ) -> String {
        expect_condition(&self.admin(), policy, kind, expected, SOON).await
    }

    /// Waits until what there is was read and judged.
    pub(crate) async fn expect_judged(&self) {
        self.expect("EvidenceComplete", ("True", "Complete")).await;
        self.expect("Ready", ("True", "Judged")).await;
    }

    /// Findings in the namespace of the story's shop.
    pub(crate) async fn findings(&self) -> Vec<String> {
        findings(&self.admin(), "shop").await
    }

    pub(crate) async fn expect_findings(&self, expected: &[&str]) {
        eventually("the findings", SOON, async || {
            let seen = self.findings().await;
            if seen == expected {
                Ok(())
            } else {
                Err(format!("{seen:#?}"))
            }
        })
        .await;
    }

    /// The status of the story's policy.
    pub(crate) async fn status(&self) -> Value {
        policy(&self.admin(), POLICY).await["status"].take()
    }

    /// Names of the finding objects in all namespaces.
    pub(crate) async fn finding_names(&self) -> Vec<String> {
        let output = "jsonpath={.items[*].metadata.name}";
        let arguments = ["get", "eaf", "-A", "-o", output];
        let names = self.admin().kubectl(arguments).await;
        let mut names: Vec<_> = names.split_whitespace().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// The operator was never refused anything by the API server. Returns what it asked for.
    pub(crate) fn expect_no_refusal(&self) -> AuditLog {
        let log = self.control_plane.audit_log();
        let account = self.release.account();
        let refused = log.refused(&account);
        assert!(refused.is_empty(), "{refused:#?}");
        assert!(!log.used(&account).is_empty(), "nothing was logged");
        log
    }

    /// Nothing that the chart's roles give was needless.
    pub(crate) fn expect_every_right_used(&self, log: &AuditLog) {
        let account = self.release.account();
        let granted = audit_log::granted(&self.release.objects, &account);
        let used = log.used(&account);
        let unused: Vec<_> = audit_log::unused(&granted, &used)
            .into_iter()
            .map(ToString::to_string)
            .collect();
        assert!(granted.len() > 10, "{granted:?}");
        assert!(unused.is_empty(), "granted, but never used: {unused:#?}");
    }
}

/// Fails with what differs unless one of the lines is this one.
pub(crate) fn expect_line(lines: &[String], line: &str) {
    assert!(
        lines.iter().any(|seen| seen == line),
        "{line} is not in\n{}",
        lines.join("\n")
    );
}
