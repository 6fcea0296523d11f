//! One `LookupEvents` request, and its answer taken apart.

use aws_config::retry::RetryConfig;
use aws_sdk_cloudtrail::{
    Client,
    primitives::DateTime,
    types::{LookupAttribute, LookupAttributeKey},
};
use jiff::Timestamp;

use super::{job::Answer, planner::Request};
use crate::{
    event::{DecodeError, Event, decode},
    source::{Reason, UndecodableRecord, credentials::Access, fault::Fault},
};

/// The `EventSource` of the records that are read. ECR Public has another one.
const EVENT_SOURCE: &str = "ecr.amazonaws.com";
/// Most events in a page.
const MOST: i32 = 50;

/// A page of the Event history.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) answer: Answer,
    pub(super) events: Vec<Event>,
    pub(super) undecodable: Vec<UndecodableRecord>,
    /// Records of other services that have an event of the same name: not decoded.
    pub(super) others: u64,
}

/// A client that sends each request once: a retry is a request of the quota as well, and its turn
/// comes from the limiter.
pub(super) fn client(access: &Access) -> Client {
    let config = aws_sdk_cloudtrail::config::Builder::from(&access.config)
        .retry_config(RetryConfig::standard().with_max_attempts(1))
        .build();
    Client::from_conf(config)
}

pub(super) async fn lookup(client: &Client, request: &Request) -> Result<Looked, Fault> {
    let by_name = LookupAttribute::builder()
        .attribute_key(LookupAttributeKey::EventName)
        .attribute_value(request.name.as_str())
        .build()
        .map_err(|error| Fault::new(Reason::Refused, error.to_string()))?;
    let output = client
        .lookup_events()
        .lookup_attributes(by_name)
        .start_time(DateTime::from_secs(request.start.as_second()))
        .set_end_time(
            request
                .last
                .map(|last| DateTime::from_secs(last.as_second())),
        )
        .max_results(MOST)
        .set_next_token(request.token.clone())
        .send()
        .await
        .map_err(|error| Fault::of(&error))?;
    // An answer without the list is not an empty page: nothing says that there are no events.
    let events = output
        .events
        .ok_or_else(|| Fault::new(Reason::Malformed, "the answer has no list of Events"))?;
    let mut looked = Looked::default();
    looked.answer.token = output.next_token.filter(|token| !token.is_empty());
    for event in events {
        let time = event.event_time.and_then(|time| {
            Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()
        });
        looked.answer.times.push(time);
        let other = event
            .event_source
            .as_deref()
            .is_some_and(|source| source != EVENT_SOURCE);
        if other {
            looked.others += 1;
            continue;
        }
        let Some(text) = event.cloud_trail_event else {
            looked.undecodable.push(UndecodableRecord {
                text: event.event_id.unwrap_or_default(),
                error: "the answer has no CloudTrailEvent for it".to_owned(),
                time,
            });
            continue;
        };
        match decode(text.as_bytes()) {
            Ok(event) => looked.events.push(event),
            Err(DecodeError::OtherService) => looked.others += 1,
            Err(error) => looked.undecodable.push(UndecodableRecord {
                error: error.to_string(),
                text,
                time,
            }),
        }
    }
    Ok(looked)
}
