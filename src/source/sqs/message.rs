//! A message's body → what is to be done with it. Pure: no network, no clock.
//!
//! A queue is filled by S3 (event notifications), by CloudTrail itself (its SNS notification of new
//! files) or by EventBridge, each directly or through an SNS topic, which wraps the message in one
//! of its own unless raw delivery is on. Whoever may send to the queue may write anything: sizes,
//! depth and numbers are bounded, names are checked, and nothing in a message is ever used as an
//! address. What a message's key is worth, the trail's layout says, not this file.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::event::{DecodeError, Event, decode, notice};

/// The longest body that is looked at: twice what SQS takes.
const MAX_BODY: usize = 2 << 20;
/// Messages within messages: an SNS topic wraps once, and may be fed by another.
const MAX_WRAPS: usize = 3;
/// The most objects that one message may name. CloudTrail names a handful.
const MAX_OBJECTS: usize = 1000;
/// The longest key, in bytes, that S3 knows.
const MAX_KEY: usize = 1024;
/// How AWS's services begin the names of their own `eventSource` in notifications.
const S3_SOURCE: &str = "aws:s3";

/// An object of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// Name of the bucket, as S3 allows them.
    pub bucket: String,
    /// Its key, decoded.
    pub key: String,
}

/// A record of ECR that came in a message and could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Account that the envelope names.
    pub account: String,
    /// Region that it names.
    pub region: String,
    /// The record's text.
    pub text: String,
    /// Why it is no fact.
    pub reason: String,
}

/// What a message brings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// Objects to be read, each once, sorted.
    pub objects: Vec<Object>,
    /// The fact that the message is itself.
    pub event: Option<Event>,
    /// The record that the message is itself, where it is no fact.
    pub unread: Option<Unread>,
    /// Notifications in it that bring nothing: test events, removals of objects, other services'
    /// records.
    pub skipped: usize,
}

/// Why nothing can be done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Poison {
    /// Longer than any message.
    #[error("longer than a message can be")]
    TooLong,
    /// Not a JSON object.
    #[error("not a JSON object")]
    NotJson,
    /// Messages within messages without an end.
    #[error("messages within messages, too deep")]
    TooDeep,
    /// More objects than any notification names.
    #[error("names more than {MAX_OBJECTS} objects")]
    TooMany,
    /// JSON, but nothing that S3, SNS, CloudTrail or EventBridge sends.
    #[error("neither a notification of S3, SNS or CloudTrail nor an event of EventBridge")]
    Unknown,
    /// Of a known kind, but a part of it is missing or has another form.
    #[error("a notification whose {0} is missing or malformed")]
    Malformed(&'static str),
    /// SNS asks for a confirmation that it may send to the queue.
    #[error("an SNS topic asks whether it may send to this queue; confirm its subscription")]
    Subscription,
}

impl Poison {
    /// As metrics spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "TooLong",
            Self::NotJson => "NotJson",
            Self::TooDeep => "TooDeep",
            Self::TooMany => "TooMany",
            Self::Unknown => "Unknown",
            Self::Malformed(_) => "Malformed",
            Self::Subscription => "Subscription",
        }
    }
}

/// The keys by which the kinds are told apart.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, rename = "Records")]
    records: Option<&'a RawValue>,
    #[serde(borrow, rename = "Type")]
    sns_type: Option<&'a RawValue>,
    #[serde(borrow, rename = "Message")]
    sns_message: Option<&'a RawValue>,
    #[serde(borrow, rename = "Event")]
    s3_event: Option<&'a RawValue>,
    #[serde(borrow, rename = "s3Bucket")]
    trail_bucket: Option<&'a RawValue>,
    #[serde(borrow, rename = "s3ObjectKey")]
    trail_keys: Option<&'a RawValue>,
    #[serde(borrow, rename = "detail-type")]
    detail_type: Option<&'a RawValue>,
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(borrow)]
    detail: Option<&'a RawValue>,
    #[serde(borrow)]
    account: Option<&'a RawValue>,
    #[serde(borrow)]
    region: Option<&'a RawValue>,
}

/// One of S3's notifications.
#[derive(Deserialize)]
struct Notification<'a> {
    #[serde(borrow, rename = "eventSource")]
    source: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "eventName")]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    s3: Option<&'a RawValue>,
}

/// Where it is: the same in S3's notifications and in EventBridge's `detail`.
#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow)]
    bucket: Bucket<'a>,
    #[serde(borrow)]
    object: Key<'a>,
}

#[derive(Deserialize)]
struct Bucket<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Key<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
}

/// Reads a message's body.
///
/// # Errors
/// [`Poison`] where nothing can be done with it, however often it is tried.
pub fn parse(body: &str) -> Result<Content, Poison> {
    let mut content = Content::default();
    read(body, 0, &mut content)?;
    content.objects.sort_unstable();
    content.objects.dedup();
    Ok(content)
}

fn read(text: &str, wraps: usize, content: &mut Content) -> Result<(), Poison> {
    if text.len() > MAX_BODY {
        return Err(Poison::TooLong);
    }
    if !text.trim_ascii_start().starts_with('{') {
        return Err(Poison::NotJson);
    }
    let body: Body<'_> = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Poison::Unknown,
        _ => Poison::NotJson,
    })?;
    if let Some(kind) = body.detail_type {
        return envelope(text, &body, &string(kind, "detail-type")?, content);
    }
    if let (Some(kind), Some(_)) = (body.sns_type, body.sns_message) {
        return match &*string(kind, "Type")? {
            "Notification" if wraps >= MAX_WRAPS => Err(Poison::TooDeep),
            "Notification" => read(&present(body.sns_message, "Message")?, wraps + 1, content),
            // Confirming is for whoever owns the queue; the address in it is never asked.
            "SubscriptionConfirmation" => Err(Poison::Subscription),
            "UnsubscribeConfirmation" => {
                content.skipped += 1;
                Ok(())
            }
            _ => Err(Poison::Unknown),
        };
    }
    if let Some(records) = body.records {
        return notifications(records, content);
    }
    if let (Some(bucket), Some(keys)) = (body.trail_bucket, body.trail_keys) {
        let bucket = string(bucket, "s3Bucket")?;
        let keys: Vec<Cow<'_, str>> =
            serde_json::from_str(keys.get()).map_err(|_| Poison::Malformed("s3ObjectKey"))?;
        for key in keys {
            add(content, &bucket, key.into_owned())?;
        }
        return Ok(());
    }
    if let Some(event) = body.s3_event
        && &*string(event, "Event")? == "s3:TestEvent"
    {
        content.skipped += 1;
        return Ok(());
    }
    Err(Poison::Unknown)
}

/// S3's own notifications, of which one message may hold several.
fn notifications(records: &RawValue, content: &mut Content) -> Result<(), Poison> {
    let records: Vec<Notification<'_>> =
        serde_json::from_str(records.get()).map_err(|_| Poison::Malformed("Records"))?;
    for record in records {
        match record.source.as_deref() {
            Some(S3_SOURCE) => {}
            Some(_) | None => return Err(Poison::Unknown),
        }
        let name = record
            .name
            .as_deref()
            .ok_or(Poison::Malformed("eventName"))?;
        if !name
            .strip_prefix("s3:")
            .unwrap_or(name)
            .starts_with("ObjectCreated:")
        {
            content.skipped += 1;
            continue;
        }
        let place: Place<'_> = record
            .s3
            .and_then(|s3| serde_json::from_str(s3.get()).ok())
            .ok_or(Poison::Malformed("s3"))?;
        let key = place.object.key.replace('+', " ");
        let key = percent_decode_str(&key)
            .decode_utf8()
            .map_err(|_| Poison::Malformed("s3.object.key"))?;
        add(content, &place.bucket.name, key.into_owned())?;
    }
    Ok(())
}

/// An event that EventBridge brings.
fn envelope(text: &str, body: &Body<'_>, kind: &str, content: &mut Content) -> Result<(), Poison> {
    let source = present(body.source, "source")?;
    let detail = body.detail.ok_or(Poison::Malformed("detail"))?.get();
    match (&*source, kind) {
        ("aws.s3", "Object Created") => {
            // Other than in S3's own notifications the key is not encoded.
            let place: Place<'_> =
                serde_json::from_str(detail).map_err(|_| Poison::Malformed("detail"))?;
            add(content, &place.bucket.name, place.object.key.into_owned())
        }
        ("aws.ecr", kind) if !kind.ends_with(" via CloudTrail") => match notice(text.as_bytes()) {
            Ok(Some(event)) => {
                content.event = Some(event);
                Ok(())
            }
            Ok(None) => {
                content.skipped += 1;
                Ok(())
            }
            Err(error) => unread(text, body, &error, content),
        },
        (_, kind) if kind.ends_with(" via CloudTrail") => match decode(detail.as_bytes()) {
            Ok(event) => {
                content.event = Some(event);
                Ok(())
            }
            Err(DecodeError::OtherService) => {
                content.skipped += 1;
                Ok(())
            }
            // What calls itself one of ECR's has to be kept, what does not is none of ours.
            Err(error) if source == "aws.ecr" => unread(detail, body, &error, content),
            Err(_) => {
                content.skipped += 1;
                Ok(())
            }
        },
        _ => {
            content.skipped += 1;
            Ok(())
        }
    }
}

/// A record that is no fact, as the ledger keeps it.
fn unread(
    text: &str,
    body: &Body<'_>,
    error: &DecodeError,
    content: &mut Content,
) -> Result<(), Poison> {
    let account = present(body.account, "account")?;
    let region = present(body.region, "region")?;
    if !is_account(&account) || !is_region(&region) {
        return Err(Poison::Malformed("account or region"));
    }
    content.unread = Some(Unread {
        account: account.into_owned(),
        region: region.into_owned(),
        text: text.to_owned(),
        reason: error.to_string(),
    });
    Ok(())
}

fn add(content: &mut Content, bucket: &str, key: String) -> Result<(), Poison> {
    if !is_bucket(bucket) {
        return Err(Poison::Malformed("bucket"));
    }
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(Poison::Malformed("key"));
    }
    if content.objects.len() >= MAX_OBJECTS {
        return Err(Poison::TooMany);
    }
    content.objects.push(Object {
        bucket: bucket.to_owned(),
        key,
    });
    Ok(())
}

/// 3 to 63 lower-case letters, digits, dots and hyphens, as the policy's schema has it. What else
/// older buckets are called, no trail is.
fn is_bucket(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|&b| inner(b) || b == b'.' || b == b'-')
        && bytes.first().is_some_and(|&b| inner(b))
        && bytes.last().is_some_and(|&b| inner(b))
}

fn is_account(id: &str) -> bool {
    id.len() == 12 && id.bytes().all(|b| b.is_ascii_digit())
}

fn is_region(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(inner)
}

fn string<'a>(raw: &'a RawValue, field: &'static str) -> Result<Cow<'a, str>, Poison> {
    #[derive(Deserialize)]
    struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
    let text: Borrowed<'a> =
        serde_json::from_str(raw.get()).map_err(|_| Poison::Malformed(field))?;
    Ok(text.0)
}

fn present<'a>(raw: Option<&'a RawValue>, field: &'static str) -> Result<Cow<'a, str>, Poison> {
    string(raw.ok_or(Poison::Malformed(field))?, field)
}

#[cfg(test)]
mod tests;
