//! Promise: the operator judges what lies in a trail's bucket, and what a queue tells of; it says by
//! what it knows that it has read everything, and asks AWS for what the documentation gives it: the
//! real program, against S3 and SQS as the emulator has them.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod support;

use std::path::Path;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Value, json};
use support::operator::{expect_condition, findings};
use support::records::{ACCOUNT, REGION, ago, digest, expiry, push};
use support::servers::{Folder, Server, free_ports};
use support::{Access, Calls, ControlPlane, Ministack, Trail, eventually, iam, objects};

const POLICY: &str = "production";
const WEB: &str = "shop/web";
const LIMIT: Duration = Duration::from_mins(2);
const HOUR: i64 = 3600;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_judges_what_lies_in_a_bucket() {
    let ministack = Ministack::start().await;
    let control_plane = ControlPlane::start().await;
    let admin = control_plane.admin();
    admin.apply(include_str!("../crds/ecraudit.io.yaml")).await;
    let registry = format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com");
    let image = format!("{registry}/{WEB}:v1");
    let id = format!("{registry}/{WEB}@{}", digest("a"));
    let namespace = admin.namespace("shop").await;
    let pod = objects::running_pod(&namespace, "web-1", "node-1", &[("web", &image, &id)]);
    admin.create(pod).await;

    let trail = Trail::on(&ministack, "org-trail", "AWSLogs").await;
    let pushed = push(ago(3 * HOUR), WEB, "a", "v1");
    let pushed = trail.deliver(ACCOUNT, ago(3 * HOUR - 300), &[pushed]).await;
    // A digest file without the ones before it proves nothing, and is read for that.
    trail.digest(ACCOUNT, ago(2 * HOUR), &[&pushed], None).await;
    let run = expiry(ago(HOUR), WEB, &digest("a"), 1, "keep the last two");
    trail.deliver(ACCOUNT, ago(HOUR - 300), &[run]).await;

    let calls = Calls::before(&ministack.url(), Duration::ZERO).await;
    let folder = Folder::new("ecr-audit-bucket-");
    let _operator = operator(&folder, &admin, &ministack, &calls);
    let source = json!({"bucket": trail.bucket, "prefix": "", "region": REGION});
    admin.apply(&policy(&json!({"s3": source}))).await;

    let expired = ("False", "ImageExpired");
    let message = expect_condition(&admin, POLICY, "ImagesRetained", expired, LIMIT).await;
    assert!(message.contains("keep the last two"), "{message}");
    let complete = ("True", "Complete");
    let message = expect_condition(&admin, POLICY, "EvidenceComplete", complete, LIMIT).await;
    assert!(message.contains("by delivery time"), "{message}");
    eventually("the finding", LIMIT, async || {
        let found = findings(&admin, &namespace).await;
        if found == ["web-1, ImageExpired, Unpullable"] {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;

    // No file is encrypted with a key of KMS here: S3 then asks KMS itself, with the caller's rights.
    let statements = ["ListTrail", "ReadTrail", "DecryptTrail"];
    let unseen = ["kms:Decrypt"];
    iam::expect_just_calls("docs/install.md", &statements, &calls.seen(), &unseen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_reads_a_queue_with_the_rights_that_the_documentation_gives_it() {
    let ministack = Ministack::start().await;
    let control_plane = ControlPlane::start().await;
    let admin = control_plane.admin();
    admin.apply(include_str!("../crds/ecraudit.io.yaml")).await;
    let trail = Trail::on(&ministack, "org-trail", "AWSLogs/o-a1b2c3d4e5").await;
    let queue = Queue::new(&ministack).await;
    let pushed = push(ago(HOUR), WEB, "a", "v1");
    let pushed = trail.deliver(ACCOUNT, ago(HOUR - 300), &[pushed]).await;
    queue.tell(&trail.bucket, &pushed.key).await;
    let key = trail
        .digest(ACCOUNT, ago(HOUR - 600), &[&pushed], None)
        .await;
    queue.tell(&trail.bucket, &key).await;

    // An object takes so long that its message has to be hidden for longer.
    let calls = Calls::before(&ministack.url(), Duration::from_secs(3)).await;
    let folder = Folder::new("ecr-audit-queue-");
    let _operator = operator(&folder, &admin, &ministack, &calls);
    let source = json!({"queueUrl": queue.url, "region": REGION, "buckets": [trail.bucket]});
    admin.apply(&policy(&json!({"sqs": source}))).await;
    eventually(
        "an empty queue and a digest file that was read",
        LIMIT,
        async || {
            let seen = calls.seen();
            let looked = seen
                .iter()
                .any(|call| call.resource.contains("/CloudTrail-Digest/"));
            match queue.length().await {
                0 if looked => Ok(()),
                length => Err(format!("{length} messages: {seen:?}")),
            }
        },
    )
    .await;

    // No file is encrypted here, and no file is gone: S3 looks at the right to list then, to say
    // which of the two it is, and nobody calls it.
    let statements = [
        "ReadQueue",
        "ReadFiles",
        "TellMissingFromForbidden",
        "DecryptFiles",
    ];
    let unseen = ["kms:Decrypt", "s3:ListBucket"];
    iam::expect_just_calls("docs/queues.md", &statements, &calls.seen(), &unseen);
}

fn policy(source: &Value) -> String {
    let mut named = source.clone();
    named["name"] = json!("archive");
    json!({
        "apiVersion": "ecraudit.io/v1alpha1", "kind": "EcrAuditPolicy",
        "metadata": {"name": POLICY},
        "spec": {"sources": [named]},
    })
    .to_string()
}

fn operator(folder: &Folder, admin: &Access, ministack: &Ministack, calls: &Calls) -> Server {
    let [port] = free_ports();
    let mut command = admin.command(Path::new(env!("CARGO_BIN_EXE_ecr-audit")));
    command
        .args(["run", "--log-format", "text"])
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .args([
            "--ledger",
            &folder.path().join("ledger.db").to_string_lossy(),
        ])
        .envs(ministack.environment())
        .env("AWS_ENDPOINT_URL", calls.url())
        .env("POD_NAMESPACE", "default")
        .env("POD_NAME", "operator-0")
        .env("RUST_LOG", "info");
    folder.spawn("operator", command)
}

/// The queue of the documentation, on the emulator.
struct Queue {
    client: aws_sdk_sqs::Client,
    url: String,
}

impl Queue {
    async fn new(ministack: &Ministack) -> Self {
        let credentials = Credentials::new("test", "test", None, None, "test");
        let config = aws_config::defaults(aws_config::BehaviorVersion::latest())
            .endpoint_url(ministack.url())
            .region(REGION)
            .credentials_provider(credentials)
            .load()
            .await;
        let client = aws_sdk_sqs::Client::new(&config);
        let create = client.create_queue().queue_name("ecr-audit");
        let create = create.attributes(QueueAttributeName::VisibilityTimeout, "3");
        let created = create.send().await.expect("a queue");
        let url = created.queue_url.expect("its address");
        Self { client, url }
    }

    /// S3 tells of an object.
    async fn tell(&self, bucket: &str, key: &str) {
        let body = json!({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}]});
        let message = self.client.send_message().queue_url(&self.url);
        let answer = message.message_body(body.to_string()).send().await;
        answer.expect("a message that was taken");
    }

    /// How many messages there are, received or not.
    async fn length(&self) -> u32 {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        ];
        let get = self.client.get_queue_attributes().queue_url(&self.url);
        let got = get.set_attribute_names(Some(names.to_vec())).send().await;
        let all = got.expect("attributes").attributes.unwrap_or_default();
        let numbers = names
            .iter()
            .filter_map(|name| all.get(name)?.parse::<u32>().ok());
        numbers.sum()
    }
}
