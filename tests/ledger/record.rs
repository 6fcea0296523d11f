//! Records of ECR in CloudTrail's own form, and pages of them.

use ecr_audit::event::{Event, EventName, Interval, Repository, decode};
use ecr_audit::ledger::Page;
use jiff::Timestamp;

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

pub(crate) fn span(from: i64, to: i64) -> Interval {
    Interval {
        start: at(from),
        end: at(to),
    }
}

pub(crate) fn id(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

pub(crate) fn repository(name: &str) -> Repository {
    Repository {
        account: "111122223333".into(),
        region: "us-east-1".into(),
        name: name.into(),
    }
}

/// A record of ECR in CloudTrail's own form.
pub(crate) struct Record {
    json: serde_json::Value,
}

impl Record {
    pub(crate) fn new(number: u32, name: &str, second: i64) -> Self {
        Self {
            json: serde_json::json!({
                "eventVersion": "1.11",
                "userIdentity": {
                    "type": "AssumedRole",
                    "principalId": "AROAEXAMPLE:i-0abc",
                    "arn": "arn:aws:sts::111122223333:assumed-role/node/i-0abc",
                    "accountId": "111122223333",
                    "sessionContext": {"sessionIssuer": {
                        "type": "Role",
                        "arn": "arn:aws:iam::111122223333:role/node",
                    }},
                },
                "eventTime": at(second).to_string(),
                "eventSource": "ecr.amazonaws.com",
                "eventName": name,
                "awsRegion": "us-east-1",
                "requestParameters": {"registryId": "111122223333", "repositoryName": "shop/web"},
                "responseElements": null,
                "eventID": id(number),
                "eventType": "AwsApiCall",
                "recipientAccountId": "111122223333",
            }),
        }
    }

    pub(crate) fn pull(number: u32, second: i64) -> Self {
        let mut record = Self::new(number, "BatchGetImage", second);
        record.json["requestParameters"]["imageIds"] = serde_json::json!([{"imageTag": "v1"}]);
        record
    }

    pub(crate) fn delete(number: u32, second: i64) -> Self {
        let mut record = Self::new(number, "BatchDeleteImage", second);
        record.json["requestParameters"]["imageIds"] = serde_json::json!([{"imageTag": "v1"}]);
        record
    }

    pub(crate) fn of(mut self, repository: &str) -> Self {
        self.json["requestParameters"]["repositoryName"] = repository.into();
        self
    }

    pub(crate) fn digest(mut self) -> Self {
        let digest = format!("sha256:{}", "ab".repeat(32));
        self.json["requestParameters"]["imageIds"] = serde_json::json!([{"imageDigest": digest}]);
        self
    }

    pub(crate) fn shared(mut self, number: u32) -> Self {
        self.json["sharedEventID"] = id(number).into();
        self
    }

    /// The copy that the image's owner gets of another account's call.
    pub(crate) fn owners_copy(mut self) -> Self {
        self.json["userIdentity"] = serde_json::json!({
            "type": "AWSAccount", "accountId": "444455556666", "principalId": "AROAEXAMPLE:i-0abc",
        });
        self
    }

    pub(crate) fn session(mut self, session: &str) -> Self {
        let arn = format!("arn:aws:sts::111122223333:assumed-role/node/{session}");
        self.json["userIdentity"]["arn"] = arn.into();
        self
    }

    /// The same, but for the owner's copy, which has a session of another kind.
    pub(crate) fn session_unless_foreign(self, session: &str) -> Self {
        if self.json["userIdentity"]["arn"].is_string() {
            self.session(session)
        } else {
            self
        }
    }

    pub(crate) fn denied(mut self) -> Self {
        self.json["errorCode"] = "AccessDenied".into();
        self
    }

    pub(crate) fn corrects(mut self, number: u32) -> Self {
        self.json["addendum"] =
            serde_json::json!({"reason": "UPDATED_DATA", "originalEventID": id(number)});
        self
    }

    pub(crate) fn event(self) -> Event {
        decode(self.json.to_string().as_bytes()).unwrap()
    }
}

pub(crate) fn page(events: &[Event]) -> Page<'_> {
    Page {
        source: "lookupEvents",
        account: "111122223333",
        region: "us-east-1",
        names: &[EventName::BatchGetImage],
        events,
        undecodable: &[],
        covered: None,
        settled: None,
    }
}
