//! ECR's own EventBridge events, as far as they prove that an image is there.
//!
//! Images that arrive by replication or through a pull-through cache leave no `PutImage`, and a
//! restore from archive storage ends long after its call. ECR tells of these in EventBridge (AWS's
//! page "Amazon ECR events and EventBridge"). What these events say of deletions CloudTrail says
//! with who and why, so nothing else is taken from them.

use std::{borrow::Cow, sync::Arc};

use serde::Deserialize;

use super::{
    facts::{Action, Event, EventName, Outcome},
    image::{Digest, ImageId, Repository},
    lenient,
    record::{DecodeError, parse_time},
    wire::MAX_NAME,
};

/// `source` of the events that this reads.
const SOURCE: &str = "aws.ecr";

/// What precedes the envelope's `id` in an event's own: it is no `eventID` of CloudTrail, and among
/// events of the same second it comes after them, as the notice of a push does.
const PREFIX: &str = "notice/";

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    id: Option<Cow<'a, str>>,
    #[serde(
        rename = "detail-type",
        borrow,
        default,
        deserialize_with = "lenient::string"
    )]
    detail_type: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    source: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::text")]
    account: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    time: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    region: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::object")]
    detail: Option<Detail<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Detail<'a> {
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    action_type: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    result: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    sync_status: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    target_storage_class: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    repository_name: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    image_digest: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    image_tag: Option<Cow<'a, str>>,
}

/// Whether an event of this kind that succeeded leaves the image in the registry.
fn proves_presence(detail_type: &str, detail: &Detail<'_>) -> bool {
    let is = |field: &Option<Cow<'_, str>>, text: &str| field.as_deref() == Some(text);
    match detail_type {
        "ECR Replication Action" => is(&detail.result, "SUCCESS"),
        "ECR Pull Through Cache Action" => is(&detail.sync_status, "SUCCESS"),
        "ECR Image Action" => {
            let is_push = is(&detail.action_type, "PUSH");
            let is_restore = is(&detail.action_type, "UPDATE_STORAGE_CLASS")
                && is(&detail.target_storage_class, "STANDARD");
            is(&detail.result, "SUCCESS") && (is_push || is_restore)
        }
        _ => false,
    }
}

/// Reads one EventBridge event, with its envelope. None where it proves nothing: another source's,
/// a failure, a deletion, a scan.
///
/// # Errors
/// [`DecodeError`] when the text is no EventBridge event, or one that proves an image's presence
/// does not say which.
pub fn notice(text: &[u8]) -> Result<Option<Event>, DecodeError> {
    let envelope: Envelope<'_> = serde_json::from_slice(text)?;
    if envelope.source.as_deref() != Some(SOURCE) {
        return Ok(None);
    }
    let (Some(detail_type), Some(detail)) = (&envelope.detail_type, &envelope.detail) else {
        return Ok(None);
    };
    if !proves_presence(detail_type, detail) {
        return Ok(None);
    }
    let missing = |field| DecodeError::Field {
        event: EventName::Other,
        field,
    };
    let short = |text: &&str, most: usize| !text.is_empty() && text.len() <= most;
    let id = envelope
        .id
        .as_deref()
        .filter(|id| short(id, MAX_NAME))
        .ok_or_else(|| missing("id"))?;
    let time = envelope
        .time
        .as_deref()
        .and_then(parse_time)
        .ok_or_else(|| missing("time"))?;
    let account: Arc<str> = envelope
        .account
        .as_deref()
        .filter(|account| account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(|| missing("account"))?
        .into();
    let region: Arc<str> = envelope
        .region
        .as_deref()
        .filter(|region| short(region, 64))
        .ok_or_else(|| missing("region"))?
        .into();
    let name = detail
        .repository_name
        .as_deref()
        .filter(|name| short(name, MAX_NAME))
        .ok_or_else(|| missing("detail.repository-name"))?;
    let digest = detail
        .image_digest
        .as_deref()
        .and_then(|digest| Digest::parse(digest).ok())
        .ok_or_else(|| missing("detail.image-digest"))?;
    let tag = detail
        .image_tag
        .as_deref()
        .filter(|tag| short(tag, MAX_NAME));
    Ok(Some(Event {
        id: format!("{PREFIX}{id}").into(),
        shared_id: None,
        replaces: None,
        time,
        name: EventName::Other,
        repository: Some(Repository {
            account: account.clone(),
            region: region.clone(),
            name: name.into(),
        }),
        account,
        region,
        caller: Arc::default(),
        outcome: Outcome::Allowed,
        omitted: false,
        action: Action::Appeared(ImageId {
            digest: Some(digest),
            tag: tag.map(Into::into),
        }),
    }))
}
