//! A cluster, a bucket that is listed, a bucket that a queue tells of, and the operator.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_s3::types::{Event, NotificationConfiguration, QueueConfiguration};
use aws_sdk_sqs::types::QueueAttributeName;
use ecr_audit::ledger::Ledger;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams};
use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::json;
use sqlx::{Connection as _, Row as _};

use crate::support::records::{ACCOUNT, REGION};
use crate::support::servers::{Folder, Server, free_ports};
use crate::support::{ControlPlane, Ministack, Trail, eventually, programs};
use crate::truth::Truth;

const POLICY: &str = "production";
const LIMIT: Duration = Duration::from_mins(5);
/// Files that every round delivers, to each bucket.
const NEWS: usize = 3;
/// Days of the history that a new account comes with, and files of each.
const DAYS: i64 = 2;
const FILES_A_DAY: i64 = 4;

/// The operator as a process, and its log.
pub(crate) struct Operator {
    server: Server,
    log: PathBuf,
}

pub(crate) struct World {
    ledger: String,
    truth: Truth,
    random: StdRng,
    listed: Trail,
    told: Trail,
    queue: String,
    sqs: aws_sdk_sqs::Client,
    leases: Api<Lease>,
    // Servers end before their folder goes: fields are dropped in this order.
    ministack: Ministack,
    control_plane: ControlPlane,
    folder: Folder,
}

impl World {
    /// `ledger` is a URL, or the name of a file.
    pub(crate) async fn new(ledger: &str) -> Self {
        let ministack = Ministack::start().await;
        let control_plane = ControlPlane::start().await;
        let admin = control_plane.admin();
        admin
            .apply(include_str!("../../crds/ecraudit.io.yaml"))
            .await;
        let sqs = aws_sdk_sqs::Client::new(&ministack.config().await);
        let listed = Trail::on(&ministack, "archive", "AWSLogs").await;
        let told = Trail::on(&ministack, "news", "AWSLogs").await;
        let queue = queue_for(&sqs, &told).await;
        let policy = json!({
            "apiVersion": "ecraudit.io/v1alpha1", "kind": "EcrAuditPolicy",
            "metadata": {"name": POLICY},
            "spec": {"lookbackDays": 90, "sources": [
                {"name": "archive", "s3": {"bucket": listed.bucket, "region": REGION}},
                {"name": "news", "sqs": {"queueUrl": queue, "region": REGION, "buckets": [told.bucket]}},
            ]},
        });
        admin.apply(&policy.to_string()).await;
        let folder = Folder::new("ecr-audit-killed-");
        let ledger = if ledger.contains("://") {
            ledger.to_owned()
        } else {
            folder.path().join(ledger).display().to_string()
        };
        // There is one before the first kill, so that it can be looked into after it.
        Ledger::open(&ledger).await.unwrap().close().await;
        Self {
            ledger,
            truth: Truth::default(),
            random: StdRng::seed_from_u64(1),
            listed,
            told,
            queue,
            sqs,
            leases: Api::namespaced(admin.client().await, "default"),
            ministack,
            control_plane,
            folder,
        }
    }

    async fn deliver(&mut self, is_listed: bool, account: &str, delivered: Timestamp) {
        let (records, ids) = self.truth.records(delivered, &mut self.random);
        let trail = if is_listed { &self.listed } else { &self.told };
        let file = trail.deliver(account, delivered, &records).await;
        let name = format!("s3://{}/{}", trail.bucket, trail.root);
        self.truth
            .delivered(name, account, delivered, &file.key, ids);
    }

    /// Files that are delivered now.
    pub(crate) async fn deliver_news(&mut self) {
        for _ in 0..NEWS {
            for is_listed in [true, false] {
                self.deliver(is_listed, ACCOUNT, Timestamp::now()).await;
            }
        }
    }

    /// An account that is new in the bucket, and has been in the trail for some days.
    pub(crate) async fn deliver_history(&mut self, number: u32) {
        let account = format!("{:012}", 222_000_000_000_u64 + u64::from(number));
        for day in (1..=DAYS).rev() {
            for file in 0..FILES_A_DAY {
                let ago = SignedDuration::from_mins(day * 1440 - file * 7);
                self.deliver(true, &account, Timestamp::now() - ago).await;
            }
        }
    }

    /// How many facts were delivered.
    pub(crate) fn delivered(&self) -> usize {
        self.truth.len()
    }

    /// Starts the operator on the ledger.
    pub(crate) fn start(&self, round: u32) -> Operator {
        let [port] = free_ports();
        let admin = self.control_plane.admin();
        let mut command = admin.command(Path::new(env!("CARGO_BIN_EXE_ecr-audit")));
        command
            .args(["run", "--log-format", "text", "--ledger", &self.ledger])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .envs(self.ministack.environment())
            .env("POD_NAMESPACE", "default")
            .env("POD_NAME", format!("operator-{round}"))
            .env("RUST_LOG", "info");
        let name = format!("operator-{round}");
        let log = self.folder.path().join(&name).with_extension("log");
        Operator {
            server: self.folder.spawn(&name, command),
            log,
        }
    }

    /// Waits until it has begun to read.
    pub(crate) async fn expect_reading(&self, operator: &mut Operator) {
        let deadline = std::time::Instant::now() + LIMIT;
        loop {
            let log = std::fs::read_to_string(&operator.log).unwrap_or_default();
            if log.contains("reading the ") {
                return;
            }
            if let Some(failure) = operator.server.failure() {
                panic!("{failure}");
            }
            assert!(std::time::Instant::now() < deadline, "{log}");
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    /// Kills it, and has its lease be over: the next one need not wait until it is.
    pub(crate) async fn kill(&self, mut operator: Operator) {
        operator.server.stop();
        let _ = std::fs::remove_file(&operator.log);
        // There is none when it was killed before it had one.
        let lease = "ecr-audit-operator";
        let _ = self.leases.delete(lease, &DeleteParams::default()).await;
    }

    /// Asks it to end, which it does.
    pub(crate) async fn terminate(&self, mut operator: Operator) {
        let mut kill = std::process::Command::new("kill");
        kill.args(["-s", "TERM", &operator.server.id().to_string()]);
        programs::stdout(kill).await;
        let status = eventually("its end", Duration::from_secs(20), async || {
            operator.server.ended().ok_or("it runs")
        })
        .await;
        assert!(status.success(), "{status}");
    }

    /// How many facts the ledger holds.
    pub(crate) async fn rows(&self) -> usize {
        sqlx::any::install_default_drivers();
        let url = if self.ledger.contains("://") {
            self.ledger.clone()
        } else {
            format!("sqlite:{}", self.ledger)
        };
        let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
        let rows = "SELECT (SELECT count(*) FROM pulls) + (SELECT count(*) FROM changes)";
        let row = sqlx::query(rows).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        usize::try_from(row.get::<i64, _>(0)).unwrap()
    }

    /// Waits until everything is there, and the queue is empty.
    pub(crate) async fn expect_everything(&self) {
        eventually("every fact", LIMIT, async || {
            let rows = self.rows().await;
            let all = self.delivered();
            if rows == all {
                Ok(())
            } else {
                Err(format!("{rows} of {all}"))
            }
        })
        .await;
        eventually("an empty queue", LIMIT, async || {
            let wanted = [
                QueueAttributeName::ApproximateNumberOfMessages,
                QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            ];
            let asked = self.sqs.get_queue_attributes().queue_url(&self.queue);
            let asked = asked.set_attribute_names(Some(wanted.to_vec()));
            let found = asked.send().await.unwrap().attributes.unwrap_or_default();
            if wanted.iter().all(|name| found[name] == "0") {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        })
        .await;
    }

    /// Holds the ledger against what was delivered.
    pub(crate) async fn compare(&self, is_all: bool) {
        let ledger = Ledger::open(&self.ledger).await.unwrap();
        self.truth.compare(&ledger, is_all).await;
        ledger.close().await;
    }
}

/// A queue that is told of a bucket's objects; what nobody has deleted comes again soon.
async fn queue_for(sqs: &aws_sdk_sqs::Client, trail: &Trail) -> String {
    let create = sqs.create_queue().queue_name("news");
    let create = create.attributes(QueueAttributeName::VisibilityTimeout, "2");
    let url = create.send().await.unwrap().queue_url.unwrap();
    let asked = sqs.get_queue_attributes().queue_url(&url);
    let asked = asked.attribute_names(QueueAttributeName::QueueArn);
    let found = asked.send().await.unwrap().attributes.unwrap_or_default();
    let queue = QueueConfiguration::builder()
        .queue_arn(&found[&QueueAttributeName::QueueArn])
        .events(Event::S3ObjectCreated)
        .build()
        .unwrap();
    let configuration = NotificationConfiguration::builder()
        .queue_configurations(queue)
        .build();
    trail
        .client
        .put_bucket_notification_configuration()
        .bucket(&trail.bucket)
        .notification_configuration(configuration)
        .send()
        .await
        .unwrap();
    url
}
