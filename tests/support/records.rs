//! CloudTrail records of ECR as text in JSON, made for tests: synthetic, in the shape of
//! the real ones in `tests/data/records`.

use ecr_audit::event::Digest;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub const ACCOUNT: &str = "111122223333";
pub const REGION: &str = "us-east-1";

/// The time that was `seconds` ago, to the second.
pub fn ago(seconds: i64) -> Timestamp {
    let time = Timestamp::now() - SignedDuration::from_secs(seconds);
    Timestamp::from_second(time.as_second()).expect("a time")
}

/// A session of a role of the registry's account.
pub fn role(name: &str, session: &str) -> Value {
    json!({
        "type": "AssumedRole",
        "principalId": format!("AROA{}:{session}", name.to_uppercase()),
        "arn": format!("arn:aws:sts::{ACCOUNT}:assumed-role/{name}/{session}"),
        "accountId": ACCOUNT,
        "sessionContext": {"sessionIssuer": {
            "type": "Role",
            "arn": format!("arn:aws:iam::{ACCOUNT}:role/{name}"),
            "accountId": ACCOUNT,
            "userName": name,
        }},
        "invokedBy": "AWS Internal",
    })
}

/// A manifest's text; `name` makes it one of its own.
pub fn manifest(name: &str) -> String {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of_manifest(name).as_str(),
            "size": 2,
        },
        "layers": [],
    })
    .to_string()
}

/// The digest of [`manifest`].
pub fn digest(name: &str) -> String {
    Digest::of_manifest(&manifest(name)).as_str().to_owned()
}

/// A push of [`manifest`] with a tag.
pub fn push(time: Timestamp, repository: &str, name: &str, tag: &str) -> Value {
    let image = json!({
        "registryId": ACCOUNT,
        "repositoryName": repository,
        "imageId": {"imageDigest": digest(name), "imageTag": tag},
        "imageManifest": manifest(name),
    });
    let request = json!({"imageManifest": manifest(name), "imageTag": tag});
    let mut record = call(time, "PutImage", repository, request);
    record["responseElements"] = json!({"image": image});
    record
}

/// A pull by somebody: `image` is `{"imageTag": …}` or `{"imageDigest": …}`.
pub fn pull(time: Timestamp, repository: &str, image: &Value, who: Value) -> Value {
    let mut record = call(
        time,
        "BatchGetImage",
        repository,
        json!({"imageIds": [image]}),
    );
    record["userIdentity"] = who;
    record["readOnly"] = true.into();
    record
}

/// A lifecycle run in which a rule expired one image.
pub fn expiry(time: Timestamp, repository: &str, digest: &str, rule: i64, about: &str) -> Value {
    let mut record = call(time, "PolicyExecutionEvent", repository, Value::Null);
    record["requestParameters"] = Value::Null;
    record["userIdentity"] = json!({"accountId": ACCOUNT, "invokedBy": "AWS Internal"});
    record["eventType"] = "AwsServiceEvent".into();
    record["readOnly"] = true.into();
    record["serviceEventDetails"] = json!({
        "repositoryName": repository,
        "lifecycleEventPolicy": {"lifecycleEventRules": [{
            "rulePriority": rule,
            "description": about,
            "lifecycleEventSelection": {
                "tagStatus": "Any",
                "tagPrefixList": [],
                "countType": "Image count more than",
                "countNumber": 2,
            },
            "action": "expire",
        }]},
        "lifecycleEventImageActions": [{
            "lifecycleEventImage": {"digest": digest, "tagStatus": "Tagged", "tagList": []},
            "rulePriority": rule,
        }],
        "lifecycleEventFailureDetails": [],
    });
    record
}

/// A record of an API call on a repository; its id is random.
pub fn call(time: Timestamp, name: &str, repository: &str, request: Value) -> Value {
    let mut request = request;
    request["repositoryName"] = repository.into();
    request["registryId"] = ACCOUNT.into();
    json!({
        "eventVersion": "1.11",
        "userIdentity": role("release", "pipeline"),
        "eventTime": time.to_string(),
        "eventSource": "ecr.amazonaws.com",
        "eventName": name,
        "awsRegion": REGION,
        "sourceIPAddress": "AWS Internal",
        "userAgent": "AWS Internal",
        "requestParameters": request,
        "responseElements": null,
        "eventID": format!("{:032x}", rand::random::<u128>()),
        "readOnly": false,
        "resources": [{
            "ARN": format!("arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{repository}"),
            "accountId": ACCOUNT,
            "type": "AWS::ECR::Repository",
        }],
        "eventType": "AwsApiCall",
        "managementEvent": true,
        "recipientAccountId": ACCOUNT,
        "eventCategory": "Management",
    })
}
