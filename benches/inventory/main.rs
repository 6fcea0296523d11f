//! What the inventory costs: `cargo bench --bench inventory` prints
//!
//! - the CPU time to decode a pod, as a ratio of that of `k8s_openapi`'s `Pod`;
//! - the index's memory a pod, with 100,000 pods;
//! - the resident memory of a process that watches 100,000 pods over HTTP, page by page;
//! - the CPU time to read 20,000 pods as `kubectl` prints them, as a ratio of that of Python with
//!   `orjson` (where `python3` has it), and how much memory the reader needs beside the index.
//!
//! Each memory figure is taken in a process of its own. `PODS` and `FILE_PODS` change the numbers.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::format_push_string,
    clippy::too_many_lines,
    reason = "a measurement, not the product"
)]

mod pods;

use std::{
    env, fs,
    hint::black_box,
    io::{BufWriter, Write},
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Query,
    response::{IntoResponse, Json, Response},
    routing::get,
};
use ecr_audit::inventory::{Index, Inventory, Pod, Scope, read};
use serde_json::{Value, json};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("index") => index(arguments[1].parse().unwrap()),
        Some("serve") => serve(arguments[1].parse().unwrap()),
        Some("watch") => watch(&arguments[1]),
        Some("read") => read_file(&arguments[1]),
        Some("--bench") => all(number("PODS", 100_000), number("FILE_PODS", 20_000)),
        // `cargo test --all-targets` runs benchmarks, too: nothing to test here.
        _ => {}
    }
}

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn all(pods: u64, pods_in_file: u64) {
    decode();
    let pods = pods.to_string();
    println!("{}", child(&["index", &pods]));
    let mut server = this(&["serve", &pods])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = String::new();
    let mut output = std::io::BufReader::new(server.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut address).unwrap();
    println!("{}", child(&["watch", address.trim()]));
    server.kill().unwrap();
    server.wait().unwrap();
    file(pods_in_file);
}

fn this(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(arguments);
    command
}

fn child(arguments: &[&str]) -> String {
    let output = this(arguments).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Seconds that the main thread has been on a CPU.
fn cpu() -> f64 {
    let text = fs::read_to_string("/proc/self/schedstat").unwrap();
    let nanoseconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
    nanoseconds / 1e9
}

/// A line of `/proc/self/status`, in bytes.
fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    let kib: u64 = line
        .trim_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .unwrap();
    kib * 1024
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Both decoders in turns, so that a busy machine is unfair to both alike.
fn decode() {
    let texts: Vec<String> = (0..500).map(|n| pods::pod(n, false).to_string()).collect();
    let bytes: usize = texts.iter().map(String::len).sum();
    let (mut ours, mut theirs) = (f64::MAX, f64::MAX);
    for _ in 0..7 {
        let start = cpu();
        for text in &texts {
            black_box(serde_json::from_str::<Pod>(text).unwrap());
        }
        let middle = cpu();
        for text in &texts {
            let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_str(text).unwrap();
            black_box(pod);
        }
        ours = ours.min(middle - start);
        theirs = theirs.min(cpu() - middle);
    }
    let each = 1e6 / texts.len() as f64;
    println!(
        "decode: {:.1} µs a pod of {:.1} KB, k8s_openapi {:.1} µs, ratio {:.3} (goal 0.2)",
        ours * each,
        bytes as f64 / texts.len() as f64 / 1000.0,
        theirs * each,
        ours / theirs
    );
}

fn index(pods: u64) {
    let mut index = Index::new();
    // Whatever decoding allocates once is there before the count begins.
    for n in 0..100 {
        let pod: Pod = serde_json::from_value(pods::pod(n, false)).unwrap();
        index.apply_pod(&pod);
    }
    let mut index = Index::new();
    let before = memory("VmRSS:");
    let mut applying = 0.0;
    for n in 0..pods {
        let text = pods::pod(n, false).to_string();
        let pod: Pod = serde_json::from_str(&text).unwrap();
        let start = cpu();
        index.apply_pod(&pod);
        applying += cpu() - start;
    }
    let bytes = memory("VmRSS:") - before;
    println!(
        "index: {} bytes a pod with {pods} pods (goal 400), {:.1} µs to apply one",
        bytes / pods,
        applying * 1e6 / pods as f64
    );
    black_box(index);
}

#[derive(serde::Deserialize)]
struct List {
    limit: Option<u64>,
    #[serde(rename = "continue")]
    next: Option<u64>,
    watch: Option<bool>,
}

/// An API server of many pods, as far as a watch asks it.
#[tokio::main(flavor = "current_thread")]
async fn serve(pods: u64) {
    let list_pods = move |Query(list): Query<List>| async move {
        if list.watch.is_some() {
            return silence();
        }
        let start = list.next.unwrap_or(0);
        let end = pods.min(start + list.limit.unwrap_or(pods));
        let items: Vec<Value> = (start..end).map(|n| pods::pod(n, false)).collect();
        let next = (end < pods).then(|| end.to_string());
        page("PodList", &items, next)
    };
    let list_nodes = move |Query(list): Query<List>| async move {
        if list.watch.is_some() {
            return silence();
        }
        let (start, limit) = (list.next.unwrap_or(0), list.limit.unwrap_or(500));
        let mut nodes = pods::nodes(pods).skip(start as usize);
        let items: Vec<Value> = nodes.by_ref().take(limit as usize).collect();
        let next = nodes.next().map(|_| (start + limit).to_string());
        page("NodeList", &items, next)
    };
    let app = Router::new()
        .route("/api/v1/pods", get(list_pods))
        .route("/api/v1/nodes", get(list_nodes));
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    axum::serve(listener, app).await.unwrap();
}

fn page(kind: &str, items: &[Value], next: Option<String>) -> Response {
    let metadata = match next {
        Some(next) => json!({"resourceVersion": "9", "continue": next}),
        None => json!({"resourceVersion": "9"}),
    };
    let page = json!({"kind": kind, "apiVersion": "v1", "metadata": metadata, "items": items});
    Json(page).into_response()
}

/// A watch in which nothing happens.
fn silence() -> Response {
    let never = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    Response::new(Body::from_stream(never))
}

#[tokio::main]
async fn watch(address: &str) {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .unwrap();
    let config = kube::Config::new(address.parse().unwrap());
    let client = kube::Client::try_from(config).unwrap();
    let inventory = std::sync::Arc::new(Inventory::new());
    let started = std::time::Instant::now();
    let watching = tokio::spawn({
        let inventory = std::sync::Arc::clone(&inventory);
        async move { inventory.run(client).await }
    });
    while !inventory.synced() {
        inventory.changed().await;
    }
    let took = started.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!(
        "watch: {} pods listed in {:.0} s, {:.1} MiB resident, {:.1} MiB at most (goal 64)",
        inventory.index().pod_count(),
        took.as_secs_f64(),
        mib(memory("VmRSS:")),
        mib(memory("VmHWM:")),
    );
    watching.abort();
}

fn file(pods: u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pods.json");
    let mut file = BufWriter::new(fs::File::create(&path).unwrap());
    write!(file, "{{\n    \"apiVersion\": \"v1\",\n    \"items\": [\n").unwrap();
    for n in 0..pods {
        let mut text = Vec::new();
        let pretty = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut json = serde_json::Serializer::with_formatter(&mut text, pretty);
        serde::Serialize::serialize(&pods::pod(n, true), &mut json).unwrap();
        let text = String::from_utf8(text).unwrap().replace('\n', "\n        ");
        let comma = if n + 1 < pods { "," } else { "" };
        writeln!(file, "        {text}{comma}").unwrap();
    }
    write!(file, "    ],\n    \"kind\": \"List\"\n}}\n").unwrap();
    let length = file.into_inner().unwrap().metadata().unwrap().len();
    let path = path.to_str().unwrap();

    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/benches/inventory/yardstick.py"
    );
    let (mut ours, mut theirs) = (f64::MAX, f64::MAX);
    let (mut reader, mut script_peak) = (0.0, 0.0);
    for _ in 0..2 {
        let figures = numbers(&child(&["read", path]));
        ours = ours.min(figures[0]);
        reader = figures[1];
        let python = env::var("PYTHON").unwrap_or_else(|_| "python3".into());
        let output = Command::new(python).args([script, path]).output();
        if let Ok(output) = output
            && output.status.success()
        {
            let figures = numbers(&String::from_utf8(output.stdout).unwrap());
            theirs = theirs.min(figures[0]);
            script_peak = figures[1];
        }
    }
    print!(
        "file: {pods} pods, {:.0} MB in {ours:.2} s of CPU, reader {reader:.1} MiB (goal 8)",
        length as f64 / 1e6
    );
    if theirs < f64::MAX {
        let ratio = ours / theirs;
        println!(
            "; Python and orjson {theirs:.2} s, {script_peak:.0} MiB, ratio {ratio:.3} (goal 0.3)"
        );
    } else {
        println!("; no Python with orjson to compare with");
    }
}

fn numbers(line: &str) -> Vec<f64> {
    line.split_whitespace()
        .map(|text| text.parse().unwrap())
        .collect()
}

/// CPU seconds of reading, and MiB that the process held at most beyond what it holds afterwards,
/// when the index is all that is left.
fn read_file(path: &str) {
    let mut index = Index::new();
    let start = cpu();
    read::read(path, fs::File::open(path).unwrap(), &mut index).unwrap();
    let seconds = cpu() - start;
    assert!(index.repositories(&Scope::default()).count() > 0);
    let reader = memory("VmHWM:").saturating_sub(memory("VmRSS:"));
    println!("{seconds} {}", mib(reader));
    black_box(index);
}
