//! Whole histories as record text: repositories, copies of calls, corrections, and what runs.

use ecr_audit::event::Digest;
use proptest::prelude::*;
use serde_json::{Value, json};

pub(super) const NOW: &str = "2026-11-22T00:00:00Z";
pub(super) const ACCOUNT: &str = "111122223333";
pub(super) const OTHER: &str = "444455556666";
/// The last one runs nowhere.
pub(super) const REPOSITORIES: [(&str, &str); 4] = [
    ("us-east-1", "shop/web"),
    ("us-east-1", "shop/api"),
    ("us-west-2", "shop/web"),
    ("us-east-1", "idle"),
];
const TAGS: [&str; 3] = ["v1", "v2", "latest"];
pub(super) const POLICY: &str = r#"
apiVersion: ecraudit.io/v1alpha1
kind: EcrAuditPolicy
metadata: {name: generated}
spec:
  lookbackDays: 10
  expectedPullers: {clusterNodes: true, principals: ["*role/ci"], services: ["inspector2.amazonaws.com"]}
  expectedPushers: {principals: ["*role/ci"]}
  exceptions:
    - {owner: shop, reason: known, until: "2026-12-31", principals: ["*user/amy"], types: [UnexpectedPull]}
"#;

fn config(image: usize) -> Digest {
    Digest::of_manifest(&format!("config {image}"))
}

/// Images 0 to 2, and 3: an index over 0 and 1.
fn manifest(image: usize) -> String {
    if image < 3 {
        return json!({"schemaVersion": 2, "config": {"digest": config(image).as_str()}, "layers": []})
            .to_string();
    }
    let child = |image: usize, architecture: &str| json!({"digest": digest(image).as_str(), "platform": {"os": "linux", "architecture": architecture}});
    json!({"schemaVersion": 2, "manifests": [child(0, "amd64"), child(1, "arm64")]}).to_string()
}

fn digest(image: usize) -> Digest {
    Digest::of_manifest(&manifest(image))
}

fn role(name: &str, session: &str) -> Value {
    json!({"type": "AssumedRole", "principalId": format!("AROA{name}:{session}"), "accountId": ACCOUNT,
           "arn": format!("arn:aws:sts::{ACCOUNT}:assumed-role/{name}/{session}"),
           "sessionContext": {"sessionIssuer": {"arn": format!("arn:aws:iam::{ACCOUNT}:role/{name}")}}})
}

/// Nodes of the cluster, replaced ones, nodes of others; expected people and others.
const CALLERS: usize = 9;
fn caller(n: usize) -> Value {
    match n {
        0 => role("node", "i-0aaaaaaaaaaaaaaa1"),
        1 => role("node", "i-0bbbbbbbbbbbbbbb2"),
        2 => role("stranger", "i-0ccccccccccccccc3"),
        3 => role("ci", "build-1"),
        4 => role("scanner", "nightly-1"),
        5 => role("scanner", "nightly-2"),
        6 => json!({"type": "IAMUser", "accountId": ACCOUNT, "principalId": "AIDA",
                    "arn": format!("arn:aws:iam::{ACCOUNT}:user/amy")}),
        7 => json!({"type": "AWSService", "invokedBy": "inspector2.amazonaws.com"}),
        _ => {
            json!({"type": "AWSAccount", "accountId": OTHER, "principalId": "AROAOTHER:i-0aaaaaaaaaaaaaaa1"})
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push {
        image: usize,
        tag: Option<usize>,
        by: usize,
    },
    Pull {
        images: Vec<(Option<usize>, Option<usize>)>,
        by: usize,
    },
    Expire {
        images: Vec<usize>,
        archive: bool,
    },
    Preview(usize),
    /// A run, or a deletion by digest, that an index kept from removing an image.
    Kept {
        image: usize,
        run: bool,
    },
    Delete {
        image: Option<usize>,
        tag: Option<usize>,
    },
    DeleteRepository,
    Storage {
        image: usize,
        archive: bool,
    },
    Other,
}

fn step() -> impl Strategy<Value = Step> {
    let (image, tag, by) = (0..4_usize, 0..3_usize, 0..CALLERS);
    let (some_image, some_tag) = (
        prop::option::of(image.clone()),
        prop::option::of(tag.clone()),
    );
    prop_oneof![
        6 => (image.clone(), some_tag.clone(), by.clone())
            .prop_map(|(image, tag, by)| Step::Push { image, tag, by }),
        12 => (prop::collection::vec((some_image.clone(), some_tag.clone()), 1..3), by)
            .prop_map(|(images, by)| Step::Pull { images, by }),
        2 => (prop::collection::vec(image.clone(), 0..3), any::<bool>())
            .prop_map(|(images, archive)| Step::Expire { images, archive }),
        1 => image.clone().prop_map(Step::Preview),
        2 => (image.clone(), any::<bool>()).prop_map(|(image, run)| Step::Kept { image, run }),
        3 => (some_image, some_tag).prop_map(|(image, tag)| Step::Delete { image, tag }),
        1 => Just(Step::DeleteRepository),
        1 => (image, any::<bool>()).prop_map(|(image, archive)| Step::Storage { image, archive }),
        1 => Just(Step::Other),
    ]
}

/// What else there is to an event.
#[derive(Clone, Debug)]
enum Twist {
    None,
    Denied,
    Failed,
    /// The other account's copy of the call comes, too.
    Copied,
    /// Another record corrects this one: what that says, and whether it comes under the same id.
    Corrected(Box<Event>, bool),
}

#[derive(Clone, Debug)]
struct Event {
    repository: usize,
    /// Before `NOW`, or after it.
    minutes: i64,
    step: Step,
    twist: Twist,
}

fn event() -> impl Strategy<Value = Event> {
    let minutes = prop_oneof![
        // Close together, so that some share their second.
        8 => -12..0_i64,
        8 => -30 * 24 * 60..0_i64,
        1 => Just(-10 * 24 * 60),
        1 => 1..100_i64,
    ];
    let plain = (0..REPOSITORIES.len(), minutes, step(), Just(Twist::None)).prop_map(
        |(repository, minutes, step, twist)| Event {
            repository,
            minutes,
            step,
            twist,
        },
    );
    plain.prop_recursive(2, 3, 1, |inner| {
        (inner.clone(), inner, 0..12_u8, any::<bool>()).prop_map(
            |(mut event, other, twist, own)| {
                event.twist = match twist {
                    0 => Twist::Denied,
                    1 => Twist::Failed,
                    2..=4 => Twist::Copied,
                    5 | 6 => {
                        // A correction is about the same call.
                        let other = Event {
                            repository: event.repository,
                            minutes: event.minutes,
                            ..other
                        };
                        Twist::Corrected(Box::new(other), own)
                    }
                    _ => Twist::None,
                };
                event
            },
        )
    })
}

fn id(image: Option<usize>, tag: Option<usize>) -> Value {
    let mut id = json!({});
    if let Some(image) = image {
        id["imageDigest"] = json!(digest(image).as_str());
    }
    if let Some(tag) = tag {
        id["imageTag"] = json!(TAGS[tag]);
    }
    id
}

fn body(event: &Event, event_id: &str) -> Value {
    let (region, repository) = REPOSITORIES[event.repository];
    let now: jiff::Timestamp = NOW.parse().expect("a time");
    let time = now + jiff::SignedDuration::from_mins(event.minutes);
    let mut record = json!({
        "eventVersion": "1.11", "eventSource": "ecr.amazonaws.com", "eventTime": time.to_string(),
        "awsRegion": region, "eventID": event_id, "userIdentity": role("ci", "build-1"),
        "requestParameters": {"registryId": ACCOUNT, "repositoryName": repository},
        "responseElements": null, "eventType": "AwsApiCall", "eventCategory": "Management",
        "recipientAccountId": ACCOUNT,
        "resources": [{"accountId": ACCOUNT,
                       "ARN": format!("arn:aws:ecr:{region}:{ACCOUNT}:repository/{repository}")}],
    });
    let run = |images: &[usize], archive: bool| {
        let actions: Vec<Value> = images
            .iter()
            .map(|image| json!({"rulePriority": 1, "lifecycleEventImage": {"digest": digest(*image).as_str()}}))
            .collect();
        json!({"repositoryName": repository, "lifecycleEventImageActions": actions,
               "lifecycleEventPolicy": {"lifecycleEventRules": [{"rulePriority": 1,
                   "action": if archive { "transition" } else { "expire" }}]}})
    };
    let request = &mut record["requestParameters"];
    let name = match &event.step {
        Step::Push { image, tag, .. } => {
            request["imageManifest"] = json!(manifest(*image));
            if let Some(tag) = tag {
                request["imageTag"] = json!(TAGS[*tag]);
            }
            record["responseElements"] = json!({"image": {"imageId": id(Some(*image), *tag)}});
            "PutImage"
        }
        Step::Pull { images, .. } => {
            let ids = images.iter().map(|(image, tag)| match (image, tag) {
                (None, None) => id(Some(0), None),
                (image, tag) => id(*image, *tag),
            });
            request["imageIds"] = ids.collect();
            "BatchGetImage"
        }
        Step::Expire { images, archive } => {
            record["requestParameters"] = Value::Null;
            record["userIdentity"] = json!({"accountId": ACCOUNT, "invokedBy": "AWS Internal"});
            record["serviceEventDetails"] = run(images, *archive);
            "PolicyExecutionEvent"
        }
        Step::Preview(image) => {
            record["requestParameters"] = Value::Null;
            record["serviceEventDetails"] = run(&[*image], false);
            "DryRunEvent"
        }
        Step::Kept { image, run: true } => {
            record["requestParameters"] = Value::Null;
            record["serviceEventDetails"] = run(&[], false);
            record["serviceEventDetails"]["lifecycleEventFailureDetails"] = json!([
                {"rulePriority": 1, "failureCode": "ImageReferencedByManifestList",
                 "lifecycleEventImage": {"digest": digest(*image).as_str()}}]);
            "PolicyExecutionEvent"
        }
        Step::Kept { image, run: false } => {
            let id = id(Some(*image), None);
            request["imageIds"] = json!([id]);
            record["responseElements"] = json!({"imageIds": [], "failures": [
                {"imageId": id, "failureCode": "ImageReferencedByManifestList"}]});
            "BatchDeleteImage"
        }
        Step::Delete { image, tag } => {
            let tag = if image.is_none() {
                tag.or(Some(0))
            } else {
                *tag
            };
            request["imageIds"] = json!([id(*image, tag)]);
            record["responseElements"] = json!({"imageIds": [id(*image, tag)], "failures": []});
            "BatchDeleteImage"
        }
        Step::DeleteRepository => "DeleteRepository",
        Step::Storage { image, archive } => {
            request["imageId"] = id(Some(*image), None);
            request["targetStorageClass"] = json!(if *archive { "ARCHIVE" } else { "STANDARD" });
            "UpdateImageStorageClass"
        }
        Step::Other => "GetDownloadUrlForLayer",
    };
    record["eventName"] = json!(name);
    if let Step::Push { by, .. } | Step::Pull { by, .. } = &event.step {
        record["userIdentity"] = caller(*by);
    }
    record
}

/// The records of one event; `n` tells it from others.
fn records(event: &Event, n: usize, all: &mut Vec<Value>) -> String {
    // Identifiers are in no order of time; most are UUIDs, as real ones are.
    let scattered = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let event_id = match n % 7 {
        3 => format!("event {scattered}"),
        _ => format!("{:08x}-0000-4000-8000-{n:012x}", scattered >> 32),
    };
    let mut record = body(event, &event_id);
    match &event.twist {
        Twist::None => {}
        Twist::Denied => record["errorCode"] = json!("AccessDenied"),
        Twist::Failed => record["errorCode"] = json!("ThrottlingException"),
        Twist::Copied => {
            record["sharedEventID"] = json!(format!("shared-{scattered}"));
            let mut copy = record.clone();
            copy["eventID"] = json!(format!(
                "{:08x}-1111-4000-8000-{n:012x}",
                scattered & 0xffff_ffff
            ));
            copy["recipientAccountId"] = json!(OTHER);
            copy["userIdentity"] = caller(if n.is_multiple_of(3) { 4 } else { 8 });
            all.push(copy);
        }
        Twist::Corrected(other, own) => {
            let start = all.len();
            let corrected_id = records(other, n + 1000, all);
            if let Some(correction) = all[start..]
                .iter_mut()
                .find(|record| record["eventID"] == json!(corrected_id))
            {
                correction["addendum"] = if *own {
                    json!({"reason": "UPDATED_DATA"})
                } else {
                    json!({"reason": "UPDATED_DATA", "originalEventID": event_id})
                };
                // What corrects the correction has to name it, so only the last keeps the id.
                if *own && matches!(other.twist, Twist::None | Twist::Denied | Twist::Failed) {
                    correction["eventID"] = json!(event_id);
                } else {
                    correction["addendum"]["originalEventID"] = json!(event_id);
                }
            }
        }
    }
    all.push(record);
    event_id
}

/// Records of ECR, each once.
pub(super) fn history() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(event(), 0..40).prop_map(|events| {
        let mut all = Vec::new();
        for (n, event) in events.iter().enumerate() {
            records(event, n, &mut all);
        }
        all
    })
}

/// `kubectl get pods -A -o json` and `kubectl get nodes -o json`.
pub(super) fn cluster() -> impl Strategy<Value = (Value, Value)> {
    // What runs: image, whether by its config's digest, none while it waits.
    let running = prop::option::weighted(0.9, (0..4_usize, prop::bool::weighted(0.2)));
    // What the reference names: a tag, or an image's digest.
    let named = prop_oneof![3 => (0..3_usize).prop_map(Ok), 1 => (0..4_usize).prop_map(Err)];
    let pod = (0..3_usize, named, running, -30 * 24 * 60..0_i64, 0..4_usize);
    prop::collection::vec(pod, 1..8).prop_map(|pods| {
        let now: jiff::Timestamp = NOW.parse().expect("a time");
        let items: Vec<Value> = pods
            .into_iter()
            .enumerate()
            .map(|(n, (repository, named, running, created, workload))| {
                let (region, repository) = REPOSITORIES[repository];
                let base = format!("{ACCOUNT}.dkr.ecr.{region}.amazonaws.com/{repository}");
                let reference = match named {
                    Ok(tag) => format!("{base}:{}", TAGS[tag]),
                    Err(image) => format!("{base}@{}", digest(image)),
                };
                let image_id = match running {
                    Some((image, true)) if image < 3 => config(image).to_string(),
                    Some((image, _)) => format!("{base}@{}", digest(image)),
                    None => String::new(),
                };
                let created = (now + jiff::SignedDuration::from_mins(created)).to_string();
                json!({"apiVersion": "v1", "kind": "Pod",
                       "metadata": {"name": format!("app{workload}-{n}"), "namespace": "shop",
                           "creationTimestamp": created,
                           "ownerReferences": [{"kind": "StatefulSet", "name": format!("app{workload}"), "controller": true}]},
                       "spec": {"nodeName": format!("node{}", n % 2), "containers": [{"name": "main", "image": reference}]},
                       "status": {"phase": "Running", "startTime": created,
                           "containerStatuses": [{"name": "main", "image": reference, "imageID": image_id}]}})
            })
            .collect();
        let node = |n: usize, instance: &str, architecture: &str| {
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node{n}")},
                   "spec": {"providerID": format!("aws:///us-east-1a/{instance}")},
                   "status": {"nodeInfo": {"operatingSystem": "linux", "architecture": architecture}}})
        };
        let nodes = [
            node(0, "i-0aaaaaaaaaaaaaaa1", "amd64"),
            node(1, "i-0ddddddddddddddd4", "arm64"),
        ];
        (
            json!({"apiVersion": "v1", "kind": "List", "items": items}),
            json!({"apiVersion": "v1", "kind": "List", "items": nodes}),
        )
    })
}
