//! Promise: what the tests of the SQS and S3 sources stand on holds. The emulator takes
//! objects and tells a queue of them, as a client that is not ours sees it.

mod support;

use std::process::Command;

use support::{Ministack, programs};

/// Prints the key that a queue was told of after an object was put into a bucket.
const PUT_AND_RECEIVE: &str = r#"
import json, boto3

s3, sqs = boto3.client("s3"), boto3.client("sqs")
s3.create_bucket(Bucket="org-trail")
queue = sqs.create_queue(QueueName="trail")["QueueUrl"]
arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
s3.put_bucket_notification_configuration(
    Bucket="org-trail",
    NotificationConfiguration={
        "QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]
    },
)
s3.put_object(Bucket="org-trail", Key="AWSLogs/1.json.gz", Body=b"{}")
for _ in range(10):
    answer = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1, MaxNumberOfMessages=10)
    for message in answer.get("Messages", []):
        for record in json.loads(message["Body"]).get("Records", []):
            print(record["s3"]["bucket"]["name"], record["s3"]["object"]["key"])
            raise SystemExit
raise SystemExit("no notification")
"#;

#[tokio::test]
async fn an_object_in_a_bucket_becomes_a_message_in_a_queue() {
    let ministack = Ministack::start().await;
    let mut command = Command::new(programs::python());
    command
        .args(["-c", PUT_AND_RECEIVE])
        .envs(ministack.environment())
        .env("AWS_DEFAULT_REGION", "us-east-1");
    assert_eq!(
        programs::stdout(command).await.trim(),
        "org-trail AWSLogs/1.json.gz"
    );
}
