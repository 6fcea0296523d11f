//! Every kind of message in the shape of AWS's documentation, and what nobody documented.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event::Action;

const KEY: &str = "AWSLogs/111122223333/CloudTrail/us-east-1/2026/11/20/\
    111122223333_CloudTrail_us-east-1_20261120T1205Z_aB3dE5fG7hI9jK1l.json.gz";

fn object(bucket: &str, key: &str) -> Object {
    Object {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
    }
}

/// One of S3's notifications, as its page "Event message structure" has it.
fn s3(name: &str, bucket: &str, key: &str) -> Value {
    json!({"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1",
           "eventTime": "2026-11-20T12:06:00.000Z", "eventName": name,
           "userIdentity": {"principalId": "AWS:AROA:cloudtrail"},
           "requestParameters": {"sourceIPAddress": "192.0.2.1"}, "responseElements": {},
           "s3": {"s3SchemaVersion": "1.0", "configurationId": "trail",
                  "bucket": {"name": bucket, "ownerIdentity": {"principalId": "A1"},
                             "arn": format!("arn:aws:s3:::{bucket}")},
                  "object": {"key": key, "size": 1024, "eTag": "e", "sequencer": "0A"}}})
}

fn created(keys: &[&str]) -> Value {
    let records = keys
        .iter()
        .map(|key| s3("ObjectCreated:Put", "org-trail", key));
    json!({"Records": records.collect::<Vec<_>>()})
}

/// As SNS wraps what it delivers.
fn wrapped(body: &Value) -> Value {
    json!({"Type": "Notification", "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
           "TopicArn": "arn:aws:sns:us-east-1:111122223333:trail", "Subject": "Amazon S3 Notification",
           "Message": body.to_string(), "Timestamp": "2026-11-20T12:06:01.000Z",
           "SignatureVersion": "1", "Signature": "EXAMPLE",
           "SigningCertURL": "https://192.0.2.1/cert.pem",
           "UnsubscribeURL": "https://192.0.2.1/unsubscribe"})
}

fn eventbridge(source: &str, kind: &str, detail: &Value) -> Value {
    json!({"version": "0", "id": "17793124-05d4-b198-2fde-7ededc63b103", "detail-type": kind,
           "source": source, "account": "111122223333", "time": "2026-11-20T12:06:00Z",
           "region": "us-east-1", "resources": [], "detail": detail})
}

fn pull() -> Value {
    json!({"eventVersion": "1.11", "eventSource": "ecr.amazonaws.com", "eventName": "BatchGetImage",
           "eventTime": "2026-11-20T12:00:00Z", "awsRegion": "us-east-1", "eventID": "p-1",
           "requestParameters": {"repositoryName": "shop/web", "imageIds": [{"imageTag": "v1"}]},
           "responseElements": null, "recipientAccountId": "111122223333"})
}

fn parsed(body: &Value) -> Result<Content, Poison> {
    parse(&body.to_string())
}

fn objects(body: &Value) -> Vec<Object> {
    parsed(body).unwrap().objects
}

#[test]
fn a_notification_of_s3_names_its_objects() {
    assert_eq!(objects(&created(&[KEY])), [object("org-trail", KEY)]);
    let several = created(&["AWSLogs/b", "AWSLogs/a", "AWSLogs/b"]);
    assert_eq!(
        objects(&several),
        [
            object("org-trail", "AWSLogs/a"),
            object("org-trail", "AWSLogs/b")
        ]
    );
}

#[test]
fn the_key_of_a_notification_of_s3_is_decoded() {
    let body = created(&["my+logs/%C3%BCber%2Bmore%25/AWSLogs/x"]);
    assert_eq!(
        objects(&body),
        [object("org-trail", "my logs/über+more%/AWSLogs/x")]
    );
    let body = created(&["a%ff"]);
    assert_eq!(parsed(&body), Err(Poison::Malformed("s3.object.key")));
}

#[test]
fn only_objects_that_were_created_are_read() {
    let body = json!({"Records": [
        s3("ObjectRemoved:Delete", "org-trail", "a"), s3("LifecycleExpiration:Delete", "org-trail", "b"),
        s3("ObjectCreated:CompleteMultipartUpload", "org-trail", "c"), s3("ObjectTagging:Put", "org-trail", "d"),
    ]});
    let content = parsed(&body).unwrap();
    assert_eq!(content.objects, [object("org-trail", "c")]);
    assert_eq!(content.skipped, 3);
}

#[test]
fn the_test_event_of_s3_asks_for_nothing() {
    let body = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-20T12:00:00Z",
                      "Bucket": "org-trail", "RequestId": "R", "HostId": "H"});
    let content = parsed(&body).unwrap();
    assert_eq!((content.objects.len(), content.skipped), (0, 1));
    assert_eq!(parsed(&wrapped(&body)).unwrap(), content);
}

#[test]
fn the_notification_of_cloudtrail_names_its_objects_as_they_are() {
    let body = json!({"s3Bucket": "org-trail", "s3ObjectKey": [KEY, "AWSLogs/a+b%20c"]});
    assert_eq!(
        objects(&wrapped(&body)),
        [
            object("org-trail", KEY),
            object("org-trail", "AWSLogs/a+b%20c")
        ]
    );
}

#[test]
fn an_object_created_event_names_its_object_as_it_is() {
    let detail = json!({"version": "0", "bucket": {"name": "org-trail"},
        "object": {"key": "a+b%20c", "size": 5, "etag": "e", "sequencer": "0"},
        "request-id": "R", "requester": "cloudtrail.amazonaws.com", "reason": "PutObject"});
    let body = eventbridge("aws.s3", "Object Created", &detail);
    assert_eq!(objects(&body), [object("org-trail", "a+b%20c")]);
    let body = eventbridge("aws.s3", "Object Deleted", &detail);
    assert_eq!(parsed(&body).unwrap().skipped, 1);
    // Anyone may put events of a source of their own on a bus.
    let body = eventbridge("my.app", "Object Created", &detail);
    assert_eq!(
        (objects(&body), parsed(&body).unwrap().skipped),
        (vec![], 1)
    );
}

#[test]
fn a_record_in_an_event_of_eventbridge_is_a_fact() {
    for kind in [
        "AWS API Call via CloudTrail",
        "AWS Service Event via CloudTrail",
    ] {
        let content = parsed(&eventbridge("aws.ecr", kind, &pull())).unwrap();
        assert!(
            matches!(content.event.unwrap().action, Action::Pull(_)),
            "{kind}"
        );
    }
    let mut other = pull();
    other["eventSource"] = json!("s3.amazonaws.com");
    let body = eventbridge("aws.s3", "AWS API Call via CloudTrail", &other);
    assert_eq!(parsed(&body).unwrap().skipped, 1);
}

#[test]
fn a_record_of_ecr_that_does_not_decode_is_kept() {
    let mut broken = pull();
    broken["requestParameters"]["imageIds"] = json!("all");
    let body = eventbridge("aws.ecr", "AWS API Call via CloudTrail", &broken);
    let unread = parsed(&body).unwrap().unread.unwrap();
    assert_eq!(
        (&*unread.account, &*unread.region),
        ("111122223333", "us-east-1")
    );
    assert!(unread.text.contains("BatchGetImage") && !unread.reason.is_empty());
    let mut nowhere = body;
    nowhere["account"] = json!("'; DROP");
    assert!(matches!(parsed(&nowhere), Err(Poison::Malformed(_))));
}

#[test]
fn ecrs_own_event_of_a_replicated_image_is_a_fact() {
    let mut detail = json!({"result": "SUCCESS", "repository-name": "shop/web", "image-tag": "v1",
        "image-digest": format!("sha256:{}", "0".repeat(64)), "action-type": "REPLICATE",
        "source-account": "111122223333", "source-region": "eu-central-1"});
    let event = parsed(&eventbridge("aws.ecr", "ECR Replication Action", &detail))
        .unwrap()
        .event;
    assert!(matches!(event.unwrap().action, Action::Appeared(_)));
    detail["result"] = json!("FAILED");
    let content = parsed(&eventbridge("aws.ecr", "ECR Replication Action", &detail)).unwrap();
    assert_eq!((content.event, content.skipped), (None, 1));
}

#[test]
fn a_subscription_is_confirmed_by_people_alone() {
    let body = json!({"Type": "SubscriptionConfirmation", "Token": "T", "Message": "You have chosen …",
        "TopicArn": "arn:aws:sns:us-east-1:111122223333:trail",
        "SubscribeURL": "http://127.0.0.1:1/confirm"});
    assert_eq!(parsed(&body), Err(Poison::Subscription));
}

#[test]
fn what_nobody_sends_is_poison() {
    for (body, poison) in [
        (String::new(), Poison::NotJson),
        ("[]".to_owned(), Poison::NotJson),
        ("{".to_owned(), Poison::NotJson),
        ("{}".to_owned(), Poison::Unknown),
        ("{\"Records\":[{}]}".to_owned(), Poison::Unknown),
        ("{\"Records\":7}".to_owned(), Poison::Malformed("Records")),
        (json!({"Records": [pull()]}).to_string(), Poison::Unknown),
        (pull().to_string(), Poison::Unknown),
        (created(&[""]).to_string(), Poison::Malformed("key")),
        (
            created(&[&"k".repeat(1025)]).to_string(),
            Poison::Malformed("key"),
        ),
        (
            json!({"s3Bucket": "../x", "s3ObjectKey": ["a"]}).to_string(),
            Poison::Malformed("bucket"),
        ),
        (
            json!({"s3Bucket": "http://x", "s3ObjectKey": ["a"]}).to_string(),
            Poison::Malformed("bucket"),
        ),
        (
            json!({"s3Bucket": "trail", "s3ObjectKey": vec!["a"; 1001]}).to_string(),
            Poison::TooMany,
        ),
        (
            format!("{{\"a\":{}}}", " ".repeat(MAX_BODY)),
            Poison::TooLong,
        ),
        (
            format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000)),
            Poison::Unknown,
        ),
    ] {
        assert_eq!(parse(&body), Err(poison), "{}", &body[..body.len().min(80)]);
        assert!(!poison.to_string().is_empty() && !poison.as_str().is_empty());
    }
}

#[test]
fn messages_within_messages_come_to_an_end() {
    let mut body = created(&[KEY]);
    for _ in 0..MAX_WRAPS {
        body = wrapped(&body);
        assert_eq!(objects(&body), [object("org-trail", KEY)]);
    }
    assert_eq!(parsed(&wrapped(&body)), Err(Poison::TooDeep));
}

/// Any JSON, with the keys that mean something more often than chance would have it.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "Notification",
            "aws:s3",
            "aws.ecr",
            "aws.s3",
            "Object Created",
            "org-trail",
            "ObjectCreated:Put",
            "AWS API Call via CloudTrail",
            "ECR Image Action",
            KEY,
            "SUCCESS",
        ])
        .prop_map(Value::from),
    ];
    let key = prop_oneof![
        4 => prop::sample::select(vec![
            "Records", "Type", "Message", "s3Bucket", "s3ObjectKey", "detail-type", "detail",
            "source", "account", "region", "Event", "s3", "bucket", "object", "name", "key",
            "eventSource", "eventName",
        ]).prop_map(str::to_owned),
        1 => ".{0,8}",
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_taken_or_refused(text in ".{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_json_is_taken_or_refused(body in json()) {
        if let Ok(content) = parsed(&body) {
            prop_assert!(content.objects.is_sorted());
            for object in &content.objects {
                prop_assert!(is_bucket(&object.bucket) && object.key.len() <= MAX_KEY);
            }
        }
    }

    #[test]
    fn a_message_means_the_same_wrapped_by_sns(body in json(), keys in prop::collection::vec(".{1,20}", 0..4)) {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        for body in [body, created(&keys), json!({"s3Bucket": "org-trail", "s3ObjectKey": keys})] {
            let raw = parsed(&body);
            if raw != Err(Poison::TooDeep) {
                prop_assert_eq!(parsed(&wrapped(&body)), raw);
            }
        }
    }

    #[test]
    fn a_key_comes_back_as_it_was_put(key in "[^\\x00]{1,60}") {
        let encoded = percent_encoding::utf8_percent_encode(&key, percent_encoding::NON_ALPHANUMERIC);
        let plus = encoded.to_string().replace("%20", "+");
        prop_assert_eq!(objects(&created(&[&plus])), [object("org-trail", &key)]);
    }
}
