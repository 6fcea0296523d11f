//! The lease alone: several campaigns in one process, each with its own way to the API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ecr_audit::operator::admin::Readiness;
use ecr_audit::operator::lease::{Campaign, Leadership};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{Access, ControlPlane, Proxy, eventually};

/// What is promised after a leader was killed or cut off.
const TAKEOVER: Duration = Duration::from_secs(15);
/// What is promised after a clean stop.
const HANDOVER: Duration = Duration::from_secs(2);

/// One that would lead.
struct Candidate {
    leadership: Leadership,
    proxy: Proxy,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Candidate {
    async fn new(admin: &Access, namespace: &str, name: &str) -> Self {
        let proxy = Proxy::before(admin.address()).await;
        let access = admin.through(&format!("{namespace}-{name}"), proxy.address());
        let client = access.client().await;
        let (campaign, leadership) =
            Campaign::new(client, namespace, name.to_owned(), Readiness::default());
        let stop = CancellationToken::new();
        let task = tokio::spawn(campaign.run(stop.clone()));
        Self {
            leadership,
            proxy,
            stop,
            task,
        }
    }

    fn leads(&self) -> bool {
        self.leadership.is_held()
    }
}

/// Looks a thousand times a second, from a thread of its own, whether two lead.
struct Witness {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Witness {
    fn of(candidates: &[Candidate]) -> Self {
        let all: Vec<Leadership> = candidates.iter().map(|c| c.leadership.clone()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let leaders = all.iter().filter(|leadership| leadership.is_held()).count();
                assert!(leaders <= 1, "{leaders} lead at a time");
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self { stop, thread }
    }

    fn saw_no_two(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no two leaders");
    }
}

/// Waits until one leads; which one.
async fn leader(candidates: &[Candidate], limit: Duration) -> usize {
    eventually("a leader", limit, async || {
        candidates.iter().position(Candidate::leads).ok_or("nobody")
    })
    .await
}

async fn candidates<const N: usize>(names: [&str; N]) -> (Api<Lease>, Vec<Candidate>) {
    let admin = ControlPlane::shared().await.admin();
    let namespace = admin.namespace("lease").await;
    let mut all = Vec::new();
    for name in names {
        all.push(Candidate::new(&admin, &namespace, name).await);
    }
    (Api::namespaced(admin.client().await, &namespace), all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ends_is_followed_within_two_seconds() {
    let (lease, mut all) = candidates(["a", "b", "c"]).await;
    let witness = Witness::of(&all);
    for _ in 0..2 {
        let first = leader(&all, TAKEOVER).await;
        let ended = all.remove(first);
        let began = Instant::now();
        ended.stop.cancel();
        leader(&all, HANDOVER).await;
        assert!(began.elapsed() < HANDOVER, "{:?}", began.elapsed());
        ended.task.await.unwrap();
    }
    witness.saw_no_two();
    let spec = lease.get("ecr-audit-operator").await.unwrap().spec.unwrap();
    assert_eq!(spec.lease_transitions, Some(2), "{spec:?}");
}

/// One is separated from the API server; another one follows, and what was separated is none.
async fn separated(partition: fn(&Proxy)) {
    let (_, all) = candidates(["a", "b"]).await;
    let witness = Witness::of(&all);
    let old = leader(&all, TAKEOVER).await;
    let new = 1 - old;
    let began = Instant::now();
    partition(&all[old].proxy);
    // A write that is on its way is not waited for once another one can lead.
    let writing = all[old].leadership.clone();
    let write = tokio::spawn(async move {
        let abandoned = writing.while_held(std::future::pending::<()>()).await;
        (abandoned, Instant::now())
    });
    let ended = eventually("its end", TAKEOVER, async || {
        (!all[old].leads()).then(Instant::now).ok_or("it leads")
    })
    .await;
    let followed = eventually("a new leader", TAKEOVER, async || {
        all[new].leads().then(Instant::now).ok_or("nobody")
    })
    .await;
    assert!(followed > ended);
    assert!(followed - began < TAKEOVER, "{:?}", followed - began);
    let (answer, abandoned) = write.await.unwrap();
    assert_eq!(answer, None);
    assert!(abandoned < followed, "{:?} late", abandoned - followed);

    // What it had sent arrives now, and is refused.
    all[old].proxy.heal();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(all[new].leads() && !all[old].leads());
    witness.saw_no_two();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_in_a_partition_stops_before_another_one_begins() {
    separated(Proxy::stall).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_stops_before_another_one_begins() {
    separated(Proxy::cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_leads_while_nobody_reaches_the_server_and_one_does_soon_after() {
    let (_, all) = candidates(["a", "b", "c"]).await;
    let witness = Witness::of(&all);
    leader(&all, TAKEOVER).await;
    for candidate in &all {
        candidate.proxy.stall();
    }
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(!all.iter().any(Candidate::leads));
    for candidate in &all {
        candidate.proxy.heal();
    }
    leader(&all, TAKEOVER).await;
    witness.saw_no_two();
}

/// A lease as another program's leader would have written it, at this time of its clock.
fn written_by_another(at: &str) -> LeaseSpec {
    let time = Some(MicroTime(at.parse().unwrap()));
    LeaseSpec {
        holder_identity: Some("another".to_owned()),
        lease_duration_seconds: Some(10),
        acquire_time: time.clone(),
        renew_time: time,
        lease_transitions: Some(7),
        ..LeaseSpec::default()
    }
}

/// The clocks of others decide nothing: only for how long a lease has not changed counts.
async fn held_by_a_clock_that_says(at: &'static str) {
    let admin = ControlPlane::shared().await.admin();
    let namespace = admin.namespace("lease").await;
    let api: Api<Lease> = Api::namespaced(admin.client().await, &namespace);
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some("ecr-audit-operator".to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(written_by_another(at)),
    };
    api.create(&PostParams::default(), &lease).await.unwrap();
    let candidate = Candidate::new(&admin, &namespace, "a").await;
    // As long as it is renewed, whatever it says, it is held.
    let patch = Patch::Merge(json!({"spec": written_by_another(at)}));
    for number in 0..7 {
        let beat = json!({"metadata": {"annotations": {"beat": number.to_string()}}});
        let params = PatchParams::default();
        api.patch("ecr-audit-operator", &params, &patch)
            .await
            .unwrap();
        api.patch("ecr-audit-operator", &params, &Patch::Merge(beat))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!candidate.leads(), "after {number} renewals");
    }
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!candidate.leads(), "too early");
    leader(&[candidate], TAKEOVER).await;
    assert!(began.elapsed() < TAKEOVER, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_from_the_past_is_held_for_its_duration() {
    held_by_a_clock_that_says("1999-12-31T23:59:59Z").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_from_the_future_is_held_for_no_longer() {
    held_by_a_clock_that_says("2099-12-31T23:59:59Z").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_of_one_name_are_not_one_holder() {
    let (_, all) = candidates(["same", "same"]).await;
    let witness = Witness::of(&all);
    let first = leader(&all, TAKEOVER).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(all[first].leads());
    // Its successor after a kill has its name, too, and waits as any other.
    all[first].task.abort();
    eventually("the other one", TAKEOVER, async || {
        all[1 - first].leads().then_some(()).ok_or("nobody")
    })
    .await;
    witness.saw_no_two();
}
