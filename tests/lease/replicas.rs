//! Two replicas, as processes. Each has a name of its own before the API server, and a ledger of
//! its own: the one that takes over knows nothing but what is published.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::audit::{AuditLog, assert_one_writer, assert_versioned};
use crate::support::operator::{Operator, policy};
use crate::support::records::{ACCOUNT, REGION, ago, digest, expiry, push};
use crate::support::servers::Folder;
use crate::support::{Access, ControlPlane, Proxy, Replay, eventually, running_pod};

const NAMES: [&str; 2] = ["operator-0", "operator-1"];
const TAKEOVER: Duration = Duration::from_secs(15);
const HANDOVER: Duration = Duration::from_secs(2);
/// For what takes a few requests at one a second, on a busy machine.
const SOON: Duration = Duration::from_mins(3);
const NODE: &str = "node-1";

struct World {
    // Servers end before their folders go: fields are dropped in this order.
    replay: Replay,
    control_plane: ControlPlane,
    log: AuditLog,
    folders: [Folder; 2],
    _audit: Folder,
    namespace: String,
}

impl World {
    /// A cluster whose image has expired, and a policy.
    async fn new() -> Self {
        let audit = Folder::new("audit-");
        let (log, options) = AuditLog::new(&audit);
        let control_plane = ControlPlane::start_with(options).await;
        let admin = control_plane.admin();
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/ecraudit.io.yaml");
        admin.apply(&std::fs::read_to_string(crds).unwrap()).await;
        let namespace = admin.namespace("shop").await;
        let replay = Replay::start(["--quota", "0"]).await;
        let day = 24 * 3600;
        let history = json!([
            push(ago(2 * day), "shop/web", "one", "v1"),
            expiry(ago(day), "shop/web", &digest("one"), 1, "keep two"),
        ]);
        replay.add(&history).await;
        let world = Self {
            replay,
            control_plane,
            log,
            folders: NAMES.map(|_| Folder::new("replica-")),
            _audit: audit,
            namespace,
        };
        world.run_pod("web-0").await;
        let policy = "apiVersion: ecraudit.io/v1alpha1\nkind: EcrAuditPolicy\n\
                      metadata: {name: production}\nspec: {}\n";
        admin.apply(policy).await;
        world
    }

    fn access(&self, number: usize) -> Access {
        self.control_plane.user(NAMES[number], &["system:masters"])
    }

    fn start(&self, number: usize) -> Operator {
        self.start_as(number, &self.access(number), &[])
    }

    fn start_as(
        &self,
        number: usize,
        access: &Access,
        more: &[(&'static str, String)],
    ) -> Operator {
        let folder = &self.folders[number];
        let ledger = folder.path().join("ledger.db").display().to_string();
        let environment = self.replay.environment().into_iter().chain(more.to_vec());
        Operator::start_with(folder, NAMES[number], access, &ledger, environment)
    }

    async fn run_pod(&self, name: &str) {
        let image = format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/shop/web");
        let (reference, id) = (format!("{image}:v1"), format!("{image}@{}", digest("one")));
        let containers = [("web", reference.as_str(), id.as_str())];
        let pod = running_pod(&self.namespace, name, NODE, &containers);
        self.control_plane.admin().create(pod).await;
    }

    async fn lease(&self) -> Value {
        let arguments = ["get", "lease", "ecr-audit-operator", "-o", "json"];
        let output = self.control_plane.admin().try_kubectl(arguments).await;
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Waits until a replica holds the lease.
    async fn led_by(&self, number: usize, limit: Duration) {
        eventually(NAMES[number], limit, async || {
            let lease = self.lease().await;
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
            (holder == NAMES[number])
                .then_some(())
                .ok_or(format!("{lease:#}"))
        })
        .await;
    }

    /// The workloads that have a finding.
    async fn found(&self) -> BTreeSet<String> {
        let arguments = ["get", "eaf", "-n", &self.namespace, "-o", "json"];
        let list = self.control_plane.admin().kubectl(arguments).await;
        let list: Value = serde_json::from_str(&list).unwrap();
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|item| {
                item["spec"]["workload"]["name"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    }

    /// Waits until these workloads, and no others, have a finding.
    async fn finds(&self, names: &[&str]) {
        let names: BTreeSet<String> = names.iter().map(|&name| name.to_owned()).collect();
        eventually("the findings", SOON, async || {
            let found = self.found().await;
            (found == names).then_some(()).ok_or(format!("{found:?}"))
        })
        .await;
    }
}

/// Has something to be written at any time: pods come and go.
fn churn(world: &'static World) -> JoinHandle<()> {
    tokio::spawn(async move {
        for number in 0.. {
            let (new, old) = (format!("pod-{number}"), format!("pod-{}", number - 3));
            world.run_pod(&new).await;
            if number >= 3 {
                let arguments = ["delete", "pod", &old, "-n", &world.namespace, "--force"];
                world.control_plane.admin().kubectl(arguments).await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    })
}

/// How many changes each replica has made, all of them while it held the lease.
fn written(world: &World) -> [usize; 2] {
    let requests = world.log.requests();
    assert_versioned(&requests, &NAMES);
    assert_one_writer(&requests, NAMES)
}

/// Waits until a replica has written something more, and says when.
async fn writes(world: &World, number: usize, limit: Duration) -> Instant {
    let before = written(world)[number];
    eventually("a write", limit, async || {
        let now = written(world);
        (now[number] > before)
            .then(Instant::now)
            .ok_or(format!("{now:?}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_killed_or_separated_leader_never_writes_beside_its_successor() {
    let world: &'static World = Box::leak(Box::new(World::new().await));
    let first = world.start(0);
    world.led_by(0, SOON).await;
    world.finds(&["web-0"]).await;
    let proxy = Proxy::before(world.control_plane.admin().address()).await;
    let access = world
        .access(1)
        .through("operator-1-through", proxy.address());
    let second = world.start_as(1, &access, &[]);
    let churn = churn(world);
    writes(world, 0, SOON).await;

    // Paused for longer than its lease, it goes on as a standby.
    first.signal("STOP").await;
    let began = Instant::now();
    world.led_by(1, TAKEOVER).await;
    writes(world, 1, SOON).await;
    first.signal("CONT").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.led_by(1, Duration::from_secs(1)).await;
    println!("paused: {:?}, {:?}", began.elapsed(), written(world));

    // Separated from the API server, with writes on their way.
    proxy.stall();
    let began = Instant::now();
    world.led_by(0, TAKEOVER).await;
    println!("separated: followed after {:?}", began.elapsed());
    writes(world, 0, SOON).await;
    proxy.heal();
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.led_by(0, Duration::from_secs(1)).await;

    // Killed.
    let began = Instant::now();
    first.kill();
    world.led_by(1, TAKEOVER).await;
    println!("killed: followed after {:?}", began.elapsed());
    writes(world, 1, SOON).await;

    churn.abort();
    println!("changes: {:?}", written(world));
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_told_to_end_is_followed_within_two_seconds() {
    let world = World::new().await;
    let first = world.start(0);
    world.led_by(0, SOON).await;
    world.finds(&["web-0"]).await;
    let _second = world.start(1);
    eventually("a standby", SOON, async || {
        let log = world.folders[1].path().join(NAMES[1]).with_extension("log");
        let log = std::fs::read_to_string(log).unwrap_or_default();
        let mut lines = log.lines();
        let is_ready = lines.any(|line| line.contains(" ready ") && line.contains("\"inventory\""));
        is_ready.then_some(()).ok_or(log)
    })
    .await;
    let (began, told) = (Instant::now(), jiff::Timestamp::now());
    // The audit log is more exact than asking again and again.
    let taken = eventually("a new leader", SOON, async || {
        let requests = world.log.requests();
        let by_second = requests.iter().find(|request| {
            request.user == NAMES[1]
                && request.resource == "leases/"
                && request.verb == "update"
                && request.succeeded()
        });
        by_second.map(|request| request.received).ok_or("nobody")
    });
    let (ended, taken) = tokio::join!(first.terminate(), taken);
    let after = taken.duration_since(told);
    println!("followed after {after:?}");
    assert!(
        after < jiff::SignedDuration::try_from(HANDOVER).unwrap(),
        "{after:?}"
    );
    assert!(ended.success());
    assert!(began.elapsed() < Duration::from_secs(10));
    written(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_that_knows_nothing_makes_nothing_vanish() {
    let world = World::new().await;
    world.run_pod("web-1").await;
    let first = world.start(0);
    world.finds(&["web-0", "web-1"]).await;
    let before = world.log.requests().len();
    // The history cannot be read any more, so that the next one, whose ledger is empty, stays blind.
    let denied = json!([{"kind": "accessDenied"}]);
    world.replay.set_faults(denied).await;
    let second = world.start(1);
    first.kill();
    world.led_by(1, TAKEOVER).await;
    eventually("what it says", SOON, async || {
        let policy = policy(&world.control_plane.admin(), "production").await;
        let conditions = policy["status"]["conditions"].clone();
        let denied = conditions.as_array().is_some_and(|all| {
            all.iter()
                .any(|condition| condition["reason"] == "AccessDenied")
        });
        denied.then_some(()).ok_or(format!("{conditions:#}"))
    })
    .await;
    // It judges what it can: one of the two does not run any more.
    let arguments = ["delete", "pod", "web-1", "-n", &world.namespace, "--force"];
    world.control_plane.admin().kubectl(arguments).await;
    world.finds(&["web-0"]).await;
    let requests = world.log.requests();
    let removed: Vec<_> = requests[before..]
        .iter()
        .filter(|request| request.verb == "delete" && request.resource == "ecrauditfindings/")
        .collect();
    assert_eq!(removed.len(), 1, "{removed:#?}");
    written(&world);
    drop(second);
}

/// The library that lies to a process about the time, if it is installed (Debian: `faketime`).
fn faketime() -> Option<String> {
    let found = std::fs::read_dir("/usr/lib").ok()?.flatten();
    found
        .map(|folder| folder.path().join("faketime/libfaketime.so.1"))
        .find(|library| library.exists())
        .map(|library| library.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_makes_no_second_leader() {
    let library = faketime().expect("faketime is missing: install the package");
    let world: &'static World = Box::leak(Box::new(World::new().await));
    let clock = world.folders[0].path().join("clock");
    let set = |offset: &str| std::fs::write(&clock, offset).unwrap();
    set("+0");
    let lies = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        // The monotonic clock of a real system does not jump.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let _first = world.start_as(0, &world.access(0), &lies);
    world.led_by(0, SOON).await;
    world.finds(&["web-0"]).await;
    let _second = world.start(1);
    let churn = churn(world);
    writes(world, 0, SOON).await;
    for offset in ["+1d", "-1d", "+0"] {
        set(offset);
        writes(world, 0, SOON).await;
        // Longer than a lease: nobody else believes that it has run out.
        tokio::time::sleep(Duration::from_secs(12)).await;
        let renewed = world.lease().await["spec"]["renewTime"].take();
        let renewed: jiff::Timestamp = renewed.as_str().unwrap().parse().unwrap();
        let away = renewed.duration_since(jiff::Timestamp::now()).as_hours();
        assert_eq!(away.abs() >= 23, offset != "+0", "it believes {renewed}");
        let [_, by_second] = written(world);
        assert_eq!(by_second, 0, "at {offset}");
        let found = world.found().await;
        assert!(found.contains("web-0"), "at {offset}: {found:?}");
    }
    churn.abort();
    world.led_by(0, Duration::from_secs(1)).await;
}
