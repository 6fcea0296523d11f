//! A bucket, a queue that is told of its objects, and a reader of it.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::types::{Event, NotificationConfiguration, QueueConfiguration};
use aws_sdk_sqs::types::{QueueAttributeName, SendMessageBatchRequestEntry};
use ecr_audit::event::{Interval, Repository};
use ecr_audit::ledger::Ledger;
use ecr_audit::source::{Health, Origin, Place, PollerKey, PollerSpec, Pollers, Reason};
use flate2::{Compression, write::GzEncoder};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::records::{self, ACCOUNT, REGION};

pub const LIMIT: Duration = Duration::from_mins(3);
pub const WEB: &str = "shop/web";

/// Names of what this process makes: the emulator is everybody's.
pub fn unique(what: &str) -> String {
    format!("{what}-{}", std::process::id())
}

pub struct World {
    pub s3: aws_sdk_s3::Client,
    pub sqs: aws_sdk_sqs::Client,
    pub bucket: String,
    pub queue: String,
}

impl World {
    /// A bucket with notifications into a queue whose messages are hidden for 3 seconds.
    pub async fn new() -> Self {
        let world = Self::without_bucket().await;
        world.create_bucket().await;
        world
    }

    pub async fn without_bucket() -> Self {
        let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
        let sqs = aws_sdk_sqs::Client::new(&config);
        let mut world = Self {
            s3: aws_sdk_s3::Client::new(&config),
            sqs,
            bucket: unique("org-trail"),
            queue: String::new(),
        };
        world.queue = world.create_queue(&unique("trail"), &[]).await;
        world
    }

    pub async fn create_queue(&self, name: &str, more: &[(QueueAttributeName, String)]) -> String {
        let mut create = self
            .sqs
            .create_queue()
            .queue_name(name)
            .attributes(QueueAttributeName::VisibilityTimeout, "3");
        for (name, value) in more {
            create = create.attributes(name.clone(), value);
        }
        create.send().await.unwrap().queue_url.unwrap()
    }

    pub async fn attribute(&self, queue: &str, name: QueueAttributeName) -> String {
        let attributes = self
            .sqs
            .get_queue_attributes()
            .queue_url(queue)
            .attribute_names(name.clone())
            .send()
            .await
            .unwrap();
        let all = attributes.attributes.unwrap_or_default();
        all.get(&name).cloned().unwrap_or_default()
    }

    pub async fn create_bucket(&self) {
        self.s3
            .create_bucket()
            .bucket(&self.bucket)
            .send()
            .await
            .unwrap();
        let arn = self
            .attribute(&self.queue, QueueAttributeName::QueueArn)
            .await;
        let queue = QueueConfiguration::builder()
            .queue_arn(arn)
            .events(Event::S3ObjectCreated)
            .build()
            .unwrap();
        let configuration = NotificationConfiguration::builder()
            .queue_configurations(queue)
            .build();
        self.s3
            .put_bucket_notification_configuration()
            .bucket(&self.bucket)
            .notification_configuration(configuration)
            .send()
            .await
            .unwrap();
    }

    /// Puts a file of the trail into the bucket, delivered then; its key.
    pub async fn file(&self, delivered: Timestamp, records: &[Value]) -> String {
        let key = key(delivered);
        self.put(&key, gzip(&json!({"Records": records}).to_string()))
            .await;
        key
    }

    pub async fn put(&self, key: &str, body: Vec<u8>) {
        self.s3
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .body(body.into())
            .send()
            .await
            .unwrap();
    }

    pub async fn send(&self, body: &Value) {
        self.send_all(&[body.to_string()]).await;
    }

    pub async fn send_all(&self, bodies: &[String]) {
        for bodies in bodies.chunks(10) {
            let entries = bodies.iter().enumerate().map(|(place, body)| {
                SendMessageBatchRequestEntry::builder()
                    .id(place.to_string())
                    .message_body(body)
                    .build()
                    .unwrap()
            });
            self.sqs
                .send_message_batch()
                .queue_url(&self.queue)
                .set_entries(Some(entries.collect()))
                .send()
                .await
                .unwrap();
        }
    }

    pub fn spec(&self) -> PollerSpec {
        PollerSpec {
            key: PollerKey {
                origin: Origin::Sqs {
                    queue_url: self.queue.as_str().into(),
                },
                region: REGION.into(),
                assume_role: None,
            },
            poll_period: SignedDuration::from_secs(60),
            reread_period: SignedDuration::ZERO,
            backfill: SignedDuration::ZERO,
            lookback: SignedDuration::from_hours(24 * 30),
            accounts: None,
            buckets: Some([self.bucket.as_str().into()].into()),
        }
    }

    /// Messages in the queue: those that can be received, those that somebody has received.
    pub async fn messages(&self) -> (u64, u64) {
        let number = async |name| self.attribute(&self.queue, name).await.parse().unwrap();
        (
            number(QueueAttributeName::ApproximateNumberOfMessages).await,
            number(QueueAttributeName::ApproximateNumberOfMessagesNotVisible).await,
        )
    }

    /// Waits until the queue has nothing in it.
    pub async fn emptied(&self) {
        eventually("an empty queue", LIMIT, async || {
            match self.messages().await {
                (0, 0) => Ok(()),
                messages => Err(format!("{messages:?}")),
            }
        })
        .await;
    }
}

/// The key of a log file that was delivered then.
pub fn key(delivered: Timestamp) -> String {
    let time = delivered.to_zoned(TimeZone::UTC);
    format!(
        "AWSLogs/o-a1b2c3d4e5/{ACCOUNT}/CloudTrail/{REGION}/{}/{ACCOUNT}_CloudTrail_{REGION}_{}_{:016x}.json.gz",
        time.strftime("%Y/%m/%d"),
        time.strftime("%Y%m%dT%H%MZ"),
        rand::random::<u64>()
    )
}

pub fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// S3's notification of an object.
pub fn notification(bucket: &str, key: &str) -> Value {
    json!({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}]})
}

/// A reader with a ledger.
pub struct Reading {
    _folder: tempfile::TempDir,
    pub ledger: Ledger,
    pub pollers: Pollers,
}

impl Reading {
    pub async fn start(world: &World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger = open(folder.path().join("ledger.db").to_str().unwrap()).await;
        let pollers = Pollers::new(Arc::new(ledger.clone()));
        pollers.set(vec![world.spec()]);
        Self {
            _folder: folder,
            ledger,
            pollers,
        }
    }

    /// How the queue as a whole is.
    pub fn whole(&self) -> Arc<Health> {
        let all = self.pollers.health();
        all.into_iter()
            .find(|health| health.account.is_none())
            .unwrap()
    }

    /// How the account and region is that the tests' files are about.
    pub fn place(&self) -> Option<Arc<Health>> {
        let all = self.pollers.health();
        all.into_iter()
            .find(|health| health.account.as_deref() == Some(ACCOUNT))
    }

    /// Waits until the queue as a whole has this fault; what it says.
    pub async fn fails(&self, reason: Reason) -> String {
        eventually(reason.as_str(), LIMIT, async || {
            match &self.whole().last_error {
                Some(error) if error.reason == reason => Ok(error.message.clone()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    pub async fn works(&self) {
        eventually("no fault", LIMIT, async || match &self.whole().last_error {
            None => Ok(()),
            Some(error) => Err(format!("{error:?}")),
        })
        .await;
    }

    /// Waits for a gap with this reason; what it says.
    pub async fn misses(&self, reason: Reason) -> String {
        eventually("a gap", LIMIT, async || {
            let gaps = self.place().map(|health| health.gaps.clone());
            let gaps = gaps.unwrap_or_default();
            match gaps.iter().find(|gap| gap.reason == reason) {
                Some(gap) => Ok(gap.message.clone()),
                None => Err(format!("{gaps:?}")),
            }
        })
        .await
    }
}

pub async fn open(file: &str) -> Ledger {
    Ledger::open(file).await.unwrap()
}

pub fn here() -> Place {
    Place {
        account: ACCOUNT.into(),
        region: REGION.into(),
    }
}

/// How many pulls of the repository the ledger has.
pub async fn pulls(ledger: &Ledger) -> u64 {
    let repository = Repository {
        account: ACCOUNT.into(),
        region: REGION.into(),
        name: WEB.into(),
    };
    let callers = ledger.pullers(&repository).await.unwrap();
    let always = Interval {
        start: Timestamp::UNIX_EPOCH,
        end: Timestamp::now() + SignedDuration::from_hours(1),
    };
    let callers = callers.into_iter().map(|(id, _)| id);
    let pulls = ledger.pulls(&repository, always, callers).await.unwrap();
    pulls.len() as u64
}

/// Waits until the ledger has so many pulls.
pub async fn expect_pulls(ledger: &Ledger, expected: u64) {
    eventually("the pulls", LIMIT, async || match pulls(ledger).await {
        count if count == expected => Ok(()),
        count => Err(format!("{count} of {expected}")),
    })
    .await;
}

/// A pull by tag, some seconds ago.
pub fn pull(seconds: i64) -> Value {
    let image = json!({"imageTag": "v1"});
    records::pull(
        records::ago(seconds),
        WEB,
        &image,
        records::role("node", "i-0a"),
    )
}
