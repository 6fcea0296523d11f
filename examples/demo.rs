//! The main job, for real and on one machine: a control plane, a CloudTrail endpoint with a story
//! in it (`demo/story`), the operator, what `kubectl` then shows, the alerts that Prometheus raises,
//! and the status page. `make demo` runs it.
//!
//! The story: images were pushed and run; then a role that nobody expects pulls one of them, and a
//! lifecycle rule expires it. On a terminal, or with `--stay`, everything then goes on until Ctrl-C.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a demo that fails shall say where"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use clap::Parser;
use serde_json::Value;
use support::{Access, ControlPlane, Prometheus, Replay, eventually, servers};

/// The moment that the story's records take for now.
const AS_OF: &str = "2026-11-20T12:00:00Z";

/// Runs the operator on a story and shows what a platform engineer sees.
#[derive(Parser)]
struct Arguments {
    /// Go on until Ctrl-C, as on a terminal
    #[arg(long, conflicts_with = "end")]
    stay: bool,
    /// End when everything was shown, as without a terminal
    #[arg(long)]
    end: bool,
}

fn story(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("demo/story")
        .join(name)
}

fn say(text: &str) {
    println!("\n\x1b[1m{text}\x1b[0m");
}

async fn show(admin: &Access, arguments: &[&str]) -> String {
    println!(
        "$ kubectl {}",
        arguments.join(" ").replace(env!("CARGO_MANIFEST_DIR"), ".")
    );
    let shown = admin.kubectl(arguments).await;
    print!("{shown}");
    shown
}

/// The program next to this example: `target/<profile>/ecr-audit`.
fn operator() -> PathBuf {
    let path = std::env::current_exe().unwrap();
    let program = path.ancestors().nth(2).unwrap().join("ecr-audit");
    assert!(
        program.exists(),
        "{} is missing: run `make demo`",
        program.display()
    );
    program
}

fn get(address: &str, path: &str) -> Option<String> {
    let url = format!("http://{address}{path}");
    let script = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())";
    let output = Command::new(support::programs::python())
        .args(["-c", script, &url])
        .output();
    let output = output.ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// How long the demo's alerts have to hold before they fire; the chart's are more patient.
const PATIENCE: &str = "10s";

/// The chart's alerts, made impatient.
fn alerts() -> String {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("charts/ecr-audit-operator/files/alerts.yaml");
    let rules = fs::read_to_string(file).unwrap();
    let lines = rules.lines().map(|line| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: {PATIENCE}"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Scrapes the operator and shows its alerts, first as they wait, then as they fire.
async fn show_alerts(prometheus: &mut Prometheus) {
    for wanted in ["pending or firing", "firing"] {
        let what = format!("alerts that are {wanted}");
        let limit = Duration::from_mins(2);
        let lines = eventually(&what, limit, async || {
            if let Some(failure) = prometheus.failure() {
                panic!("Prometheus ended: {failure}");
            }
            let answer = get(prometheus.address(), "/api/v1/alerts").unwrap_or_default();
            let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
            let alerts = answer["data"]["alerts"].as_array();
            let mut lines: Vec<String> = alerts
                .into_iter()
                .flatten()
                .filter(|alert| wanted.contains(alert["state"].as_str().unwrap_or("none")))
                .map(|alert| {
                    let text = |path: &str| {
                        let text = alert.pointer(path).and_then(Value::as_str);
                        text.unwrap_or_default()
                    };
                    let (severity, name) = (text("/labels/severity"), text("/labels/alertname"));
                    let state = text("/state");
                    format!(
                        "{state:<8} {severity:<9} {name:<25} {}",
                        text("/annotations/summary")
                    )
                })
                .collect();
            lines.sort();
            // Those of the findings: at first it has not scraped, and takes the operator for down.
            let about_findings = |line: &&String| {
                ["ImageUnpullable", "ImageWouldChange", "UnexpectedPull"]
                    .iter()
                    .any(|name| line.contains(name))
            };
            if lines.iter().filter(about_findings).count() == lines.len().max(3) {
                Ok(lines)
            } else {
                Err(answer.to_string())
            }
        })
        .await;
        println!("{}", lines.join("\n"));
    }
}

async fn the_history_is_read(admin: &Access, operator: &mut servers::Server) {
    let read = eventually("the history is read", Duration::from_mins(5), async || {
        if let Some(failure) = operator.failure() {
            panic!("the operator ended: {failure}");
        }
        let shown = admin
            .kubectl([
                "get",
                "eap",
                "production",
                "-o",
                "jsonpath={.status.conditions[?(@.type=='EvidenceComplete')]}",
            ])
            .await;
        if shown.contains(r#""status":"True""#) {
            Ok(())
        } else {
            Err(shown)
        }
    });
    read.await;
}

async fn both_are_found(admin: &Access) {
    let seen = eventually("both are found", Duration::from_mins(2), async || {
        let shown = admin.kubectl(["get", "eaf", "-A"]).await;
        let found = shown.contains("UnexpectedPull")
            && shown.contains("ImageExpired")
            && shown.contains("Unpullable");
        if found { Ok(()) } else { Err(shown) }
    });
    seen.await;
}

fn show_metrics(address: &str) {
    println!("$ curl http://{address}/metrics | grep -E 'ecr_audit_(images|findings)'");
    let metrics = get(address, "/metrics").unwrap_or_default();
    let wanted = ["ecr_audit_images{", "ecr_audit_findings{"];
    for line in metrics
        .lines()
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)))
    {
        println!("{line}");
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let root = env!("CARGO_MANIFEST_DIR");

    say("1. A Kubernetes API server, and a CloudTrail endpoint that knows the last weeks");
    let control_plane = ControlPlane::start().await;
    let admin = control_plane.admin();
    admin
        .kubectl(["apply", "-f", &format!("{root}/crds")])
        .await;
    let history = story("events/1-history.json");
    let replay = Replay::start(["--as-of", AS_OF, history.to_str().unwrap()]).await;
    for list in ["nodes.json", "pods.json"] {
        let list: Value = serde_json::from_str(&fs::read_to_string(story(list)).unwrap()).unwrap();
        for object in list["items"].as_array().unwrap() {
            admin.create(object.clone()).await;
        }
    }
    show(&admin, &["get", "pods", "-A"]).await;

    say("2. The operator, and a policy");
    let folder = servers::Folder::new("demo");
    let [port, status_port] = servers::free_ports::<2>();
    let address = format!("127.0.0.1:{port}");
    let page = format!("127.0.0.1:{status_port}");
    let mut command = Command::new(operator());
    command
        .arg("run")
        .args(["--listen", &address, "--log-format", "json"])
        .args(["--status-listen", &page])
        .arg("--ledger")
        .arg(folder.path().join("ledger.db"))
        .env("KUBECONFIG", admin.kubeconfig())
        .env("POD_NAMESPACE", "default")
        .env("POD_NAME", "demo")
        .envs(replay.environment());
    let mut operator = folder.spawn("operator", command);
    show(
        &admin,
        &["apply", "-f", story("policy.yaml").to_str().unwrap()],
    )
    .await;
    the_history_is_read(&admin, &mut operator).await;
    show(&admin, &["get", "eap"]).await;

    say("3. A role that nobody expects pulls shop/web:v1; then a lifecycle rule expires it");
    for events in ["events/2-pull.json", "events/3-expiry.json"] {
        replay
            .add_as_of(AS_OF, &fs::read_to_string(story(events)).unwrap())
            .await;
    }
    both_are_found(&admin).await;
    show(&admin, &["get", "eap"]).await;
    println!();
    show(&admin, &["get", "eaf", "-A"]).await;
    println!();
    let conditions = r#"jsonpath={range .status.conditions[*]}{.type}={.status} ({.reason}): {.message}{"\n"}{end}"#;
    show(&admin, &["get", "eap", "production", "-o", conditions]).await;

    say("4. The same, for Prometheus");
    show_metrics(&address);

    say("5. The chart's alerts, in a Prometheus that scrapes the operator");
    let mut prometheus = None;
    if Prometheus::is_installed() {
        println!("(`for:` is {PATIENCE} here; the chart's alerts wait for 1 to 15 minutes)");
        let mut running = Prometheus::start(&folder, &address, Some(&alerts()));
        show_alerts(&mut running).await;
        println!(
            "\nand its dashboard for Grafana: {}",
            running.check_dashboard().await.trim()
        );
        prometheus = Some(running);
    } else {
        println!(
            "left out: there is no `prometheus` on the PATH (on Debian: apt-get install prometheus)"
        );
    }

    say("6. All of it on one page");
    println!("http://{page}/");
    let shown = get(&page, "/").unwrap_or_default();
    let answer = shown
        .split_once("<h1 id=\"answer\">")
        .and_then(|(_, rest)| Some(rest.split_once("</h1>")?.0));
    println!("  {}", answer.unwrap_or("the page could not be read"));

    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if arguments.stay || terminal && !arguments.end {
        say("Everything runs until Ctrl-C:");
        println!("status page   http://{page}/");
        println!("metrics       http://{address}/metrics");
        if let Some(prometheus) = &prometheus {
            println!("alerts        http://{}/alerts", prometheus.address());
        }
        println!(
            "kubectl       export KUBECONFIG={}",
            admin.kubeconfig().display()
        );
        let _ = tokio::signal::ctrl_c().await;
    }
    drop(prometheus);
    operator.stop();
    ExitCode::SUCCESS
}
