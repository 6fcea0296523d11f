//! The replay server as a child process: CloudTrail and STS, for as long as it is held.
//!
//! ```ignore
//! let replay = Replay::start(["--quota", "0"]).await;
//! replay.add(&json!([push("shop/web", "v1")])).await;
//! replay.set_faults(json!([{"kind": "throttle", "next": 3}])).await;
//! let operator = Command::new(PROGRAM).envs(replay.environment());
//! ```

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// A running replay server. It ends when this is dropped, and also when the test's
/// process is killed: its standard input ends then.
pub struct Replay {
    /// None: somebody else started it.
    child: Option<Child>,
    url: String,
}

impl Replay {
    /// Starts it on a free port, with these arguments (`examples/replay/README.md`).
    pub async fn start<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments: Vec<_> = arguments
            .into_iter()
            .map(|a| a.as_ref().to_owned())
            .collect();
        let start = move || {
            let program = program();
            let mut child = Command::new(program)
                .arg("--until-stdin-closes")
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
            let mut url = String::new();
            let stdout = child.stdout.take().expect("a piped standard output");
            let read = BufReader::new(stdout).read_line(&mut url);
            assert!(
                read.is_ok_and(|length| length > 0),
                "{} ended without printing its address: {:?}",
                program.display(),
                child.wait(),
            );
            let url = url.trim_end().to_owned();
            let child = Some(child);
            Self { child, url }
        };
        // It may have to be built first.
        tokio::task::spawn_blocking(start)
            .await
            .expect("a replay server")
    }

    /// One that runs already, for as long as whoever started it holds it.
    pub fn at(url: impl Into<String>) -> Self {
        let url = url.into();
        Self { child: None, url }
    }

    /// `http://127.0.0.1:PORT`: what `AWS_ENDPOINT_URL` takes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port, to start another one in its place.
    pub fn port(&self) -> &str {
        self.url.rsplit(':').next().expect("a port")
    }

    /// Asks it to end, as service managers do, and waits until it has.
    pub async fn terminate(mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a server of our own");
        let mut kill = Command::new("kill");
        kill.arg(child.id().to_string());
        super::programs::stdout(kill).await;
        let ended = tokio::task::spawn_blocking(move || child.wait());
        ended.await.expect("a wait").expect("an exit status")
    }

    /// Variables that send an AWS SDK here and nowhere else.
    pub fn environment(&self) -> [(&'static str, String); 6] {
        [
            ("AWS_ENDPOINT_URL", self.url.clone()),
            ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "not-verified".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            // Nobody's own settings.
            ("AWS_CONFIG_FILE", "/nonexistent".to_owned()),
        ]
    }

    /// Gives it records: text in any of the forms that it reads.
    pub async fn add_text(&self, records: &str) {
        self.expect("POST", "/_replay/records", records).await;
    }

    /// The same as JSON: a record, an array, or `{"record": …, "visibleAfterSeconds": …}`.
    pub async fn add(&self, records: &Value) {
        self.add_text(&records.to_string()).await;
    }

    /// Gives it records that take `as_of` for now: their times are moved to fit.
    pub async fn add_as_of(&self, as_of: &str, records: &str) {
        let path = format!("/_replay/records?asOf={as_of}");
        self.expect("POST", &path, records).await;
    }

    /// Forgets every record.
    pub async fn clear(&self) {
        self.expect("DELETE", "/_replay/records", "").await;
    }

    /// Replaces the faults; `[]` is none.
    pub async fn set_faults(&self, faults: Value) {
        self.expect("PUT", "/_replay/faults", &faults.to_string())
            .await;
    }

    /// The faults that are left.
    pub async fn faults(&self) -> Value {
        self.json("/_replay/faults").await
    }

    /// Role ARN → external id that it asks for.
    pub async fn set_external_ids(&self, ids: Value) {
        self.expect("PUT", "/_replay/external-ids", &ids.to_string())
            .await;
    }

    /// What it was asked so far.
    pub async fn stats(&self) -> Value {
        self.json("/_replay/stats").await
    }

    /// The actions that were called, as IAM names them.
    pub async fn actions(&self) -> BTreeSet<String> {
        let stats = self.stats().await;
        let count = |name: &str| stats[name].as_array().map_or(0, Vec::len);
        let mut actions = BTreeSet::new();
        if count("lookups") > 0 {
            actions.insert("cloudtrail:LookupEvents".to_owned());
        }
        for call in stats["sts"].as_array().into_iter().flatten() {
            let operation = call["operation"].as_str().expect("an operation");
            actions.insert(format!("sts:{operation}"));
        }
        actions
    }

    /// Starts counting anew.
    pub async fn clear_stats(&self) {
        self.expect("DELETE", "/_replay/stats", "").await;
    }

    /// The sum of one counter (`calls`, `pages`, `events`, `throttled`, `failed`) over all
    /// lookups of an event name, or of every one.
    pub async fn lookups(&self, event_name: Option<&str>, counter: &str) -> u64 {
        let stats = self.stats().await;
        let lookups = stats["lookups"].as_array().expect("lookups");
        let named = lookups
            .iter()
            .filter(|lookup| event_name.is_none_or(|name| lookup["eventName"] == name));
        named
            .map(|lookup| lookup[counter].as_u64().expect("a counter"))
            .sum()
    }

    async fn json(&self, path: &str) -> Value {
        let body = self.expect("GET", path, "").await;
        serde_json::from_str(&body).expect("JSON")
    }

    async fn expect(&self, method: &str, path: &str, body: &str) -> String {
        let (status, answer) = self.request(method, path, body).await;
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {answer}"
        );
        answer
    }

    /// One HTTP request, and status and body of its answer.
    pub async fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let address = self.url.strip_prefix("http://").expect("an http address");
        super::http::request(address, method, path, body).await
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The example's program beside the tests' own, up to date. Cargo tells tests where the
/// package's binaries are, but not its examples, and does not always build these.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().expect("this program's path");
        // target/PROFILE/deps/test or target/PROFILE/examples/testbed
        let profile = test.ancestors().nth(2).expect("a profile's folder");
        let mut build = Command::new(env!("CARGO"));
        build
            .args([
                "build",
                "--quiet",
                "--locked",
                "--example",
                "replay",
                "--manifest-path",
            ])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
            .arg("--target-dir")
            .arg(profile.parent().expect("a target folder"))
            .stdin(Stdio::null());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let status = build.status().expect("cargo");
        assert!(status.success(), "cargo build --example replay: {status}");
        profile.join("examples").join("replay")
    })
}
