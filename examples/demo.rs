//! The main job, for real and on one machine: a control plane, a CloudTrail endpoint with a story
//! in it (`demo/story`), the operator, and what `kubectl` then shows. `make demo` runs it.
//!
//! The story: images were pushed and run; then a role that nobody expects pulls one of them, and a
//! lifecycle rule expires it. With `--stay` everything goes on until Ctrl-C.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a demo that fails shall say where"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{fs, path::PathBuf, process::Command, process::ExitCode, time::Duration};

use clap::Parser;
use serde_json::Value;
use support::{Access, ControlPlane, Replay, eventually, servers};

/// The moment that the story's records take for now.
const AS_OF: &str = "2026-11-20T12:00:00Z";

/// Runs the operator on a story and shows what a platform engineer sees.
#[derive(Parser)]
struct Arguments {
    /// Go on until Ctrl-C
    #[arg(long)]
    stay: bool,
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
    let [port] = servers::free_ports::<1>();
    let address = format!("127.0.0.1:{port}");
    let mut command = Command::new(operator());
    command
        .arg("run")
        .args(["--listen", &address, "--log-format", "json"])
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
    show(&admin, &["get", "eap"]).await;

    say("3. A role that nobody expects pulls shop/web:v1; then a lifecycle rule expires it");
    for events in ["events/2-pull.json", "events/3-expiry.json"] {
        replay
            .add_as_of(AS_OF, &fs::read_to_string(story(events)).unwrap())
            .await;
    }
    let seen = eventually("both are found", Duration::from_mins(2), async || {
        let shown = admin.kubectl(["get", "eaf", "-A"]).await;
        let found = shown.contains("UnexpectedPull")
            && shown.contains("ImageExpired")
            && shown.contains("Unpullable");
        if found { Ok(()) } else { Err(shown) }
    });
    seen.await;
    show(&admin, &["get", "eap"]).await;
    println!();
    show(&admin, &["get", "eaf", "-A"]).await;
    println!();
    let conditions = r#"jsonpath={range .status.conditions[*]}{.type}={.status} ({.reason}): {.message}{"\n"}{end}"#;
    show(&admin, &["get", "eap", "production", "-o", conditions]).await;

    say("4. The same, for Prometheus");
    println!("$ curl http://{address}/metrics | grep -E 'ecr_audit_(images|findings)'");
    let metrics = get(&address, "/metrics").unwrap_or_default();
    let wanted = ["ecr_audit_images{", "ecr_audit_findings{"];
    for line in metrics
        .lines()
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)))
    {
        println!("{line}");
    }
    if arguments.stay {
        say(&format!(
            "Everything runs until Ctrl-C: http://{address}/metrics, and"
        ));
        println!("export KUBECONFIG={}", admin.kubeconfig().display());
        let _ = tokio::signal::ctrl_c().await;
    }
    operator.stop();
    ExitCode::SUCCESS
}
