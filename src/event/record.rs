//! One CloudTrail record of ECR: its text → [`Event`].

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use jiff::{Timestamp, civil, tz};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    image::{Digest, ImageId, Repository},
    lenient,
    manifest::Manifest,
    principal::{Caller, UserIdentity},
};

/// `eventSource` of the records that this project reads. ECR Public's is another one.
pub(crate) const EVENT_SOURCE: &str = "ecr.amazonaws.com";

/// What one record says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// `eventID`: unique to the record.
    pub id: Arc<str>,
    /// `sharedEventID`: the same on every account's copy of one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_id: Option<Arc<str>>,
    /// The `eventID` of the record that this one corrects (`addendum.reason` `UPDATED_DATA`);
    /// its own id when it came again under that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Arc<str>>,
    /// `eventTime`, in whole seconds.
    pub time: Timestamp,
    /// `eventName`.
    pub name: EventName,
    /// Account of the registry that owns the image.
    pub account: Arc<str>,
    /// `awsRegion`, or the region of the resource's ARN.
    pub region: Arc<str>,
    /// The repository, where the record names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// Who called.
    pub caller: Caller,
    /// Whether the call was allowed.
    pub outcome: Outcome,
    /// CloudTrail left out a part of the record for its size.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub omitted: bool,
    /// What the call did, or was refused to do.
    pub action: Action,
}

/// `eventName` of ECR's records, as far as AWS documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are AWS's own")]
pub enum EventName {
    PutImage,
    BatchGetImage,
    PolicyExecutionEvent,
    DryRunEvent,
    BatchDeleteImage,
    DeleteRepository,
    UpdateImageStorageClass,
    PutLifecyclePolicy,
    DeleteLifecyclePolicy,
    SetRepositoryPolicy,
    DeleteRepositoryPolicy,
    PutImageTagMutability,
    CreateRepository,
    InitiateLayerUpload,
    UploadLayerPart,
    CompleteLayerUpload,
    GetDownloadUrlForLayer,
    GetAuthorizationToken,
    /// Any other name: counted, and nothing else.
    Other,
}

impl EventName {
    /// Every known name, without [`EventName::Other`].
    pub const KNOWN: [Self; 18] = [
        Self::PutImage,
        Self::BatchGetImage,
        Self::PolicyExecutionEvent,
        Self::DryRunEvent,
        Self::BatchDeleteImage,
        Self::DeleteRepository,
        Self::UpdateImageStorageClass,
        Self::PutLifecyclePolicy,
        Self::DeleteLifecyclePolicy,
        Self::SetRepositoryPolicy,
        Self::DeleteRepositoryPolicy,
        Self::PutImageTagMutability,
        Self::CreateRepository,
        Self::InitiateLayerUpload,
        Self::UploadLayerPart,
        Self::CompleteLayerUpload,
        Self::GetDownloadUrlForLayer,
        Self::GetAuthorizationToken,
    ];

    /// The names whose records change what is known of an image, or say who pulled it:
    /// what a source has to read. Removals come first, pulls last.
    pub const JUDGED: [Self; 6] = [
        Self::PolicyExecutionEvent,
        Self::BatchDeleteImage,
        Self::DeleteRepository,
        Self::UpdateImageStorageClass,
        Self::PutImage,
        Self::BatchGetImage,
    ];

    /// AWS's spelling; `other` for unknown names.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PutImage => "PutImage",
            Self::BatchGetImage => "BatchGetImage",
            Self::PolicyExecutionEvent => "PolicyExecutionEvent",
            Self::DryRunEvent => "DryRunEvent",
            Self::BatchDeleteImage => "BatchDeleteImage",
            Self::DeleteRepository => "DeleteRepository",
            Self::UpdateImageStorageClass => "UpdateImageStorageClass",
            Self::PutLifecyclePolicy => "PutLifecyclePolicy",
            Self::DeleteLifecyclePolicy => "DeleteLifecyclePolicy",
            Self::SetRepositoryPolicy => "SetRepositoryPolicy",
            Self::DeleteRepositoryPolicy => "DeleteRepositoryPolicy",
            Self::PutImageTagMutability => "PutImageTagMutability",
            Self::CreateRepository => "CreateRepository",
            Self::InitiateLayerUpload => "InitiateLayerUpload",
            Self::UploadLayerPart => "UploadLayerPart",
            Self::CompleteLayerUpload => "CompleteLayerUpload",
            Self::GetDownloadUrlForLayer => "GetDownloadUrlForLayer",
            Self::GetAuthorizationToken => "GetAuthorizationToken",
            Self::Other => "other",
        }
    }
}

impl FromStr for EventName {
    type Err = std::convert::Infallible;
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::KNOWN.into_iter().find(|known| known.as_str() == name);
        Ok(known.unwrap_or(Self::Other))
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the call took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// No `errorCode`.
    Allowed,
    /// Refused for lack of permission.
    Denied,
    /// Any other `errorCode`: nothing changed, and nobody was kept out.
    Failed,
}

/// What an event did. A failed call did nothing; of a denied one only the pull or push that was
/// refused is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Nothing that the audit follows: the event is counted.
    None,
    /// A push, a tag moved, a promotion.
    Push {
        /// Digest and tag of the pushed image, each where the record has it.
        image: ImageId,
        /// What the manifest names, where the record has it.
        manifest: Option<Manifest>,
        /// Whether the digest is the hash of the manifest's text; none when one of them is missing.
        digest_matches: Option<bool>,
    },
    /// A manifest read, by digest, tag or both. It proves no presence: missing images come back
    /// in a successful answer.
    Pull(Vec<ImageId>),
    /// A lifecycle run, or the part of it that this record holds.
    LifecycleRun(Vec<LifecycleAction>),
    /// Images or tags removed; what the answer lists under `failures` is not among them.
    Delete(Vec<DeletedImage>),
    /// The repository, with every image and tag in it.
    DeleteRepository,
    /// An image moved to another storage class.
    SetStorageClass {
        /// The image, with its digest where request or answer has it.
        image: ImageId,
        /// Where it was moved to.
        class: StorageClass,
    },
    /// The image is there, says a source other than a push: replication or a pull-through cache.
    Appeared(ImageId),
}

/// One image that a lifecycle rule acted on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LifecycleAction {
    /// The image's digest.
    pub digest: Digest,
    /// The tags that it had, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Arc<str>>,
    /// What the rule does.
    pub effect: Effect,
    /// The rule.
    pub rule: LifecycleRule,
}

/// What a lifecycle rule does with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// `expire`: the image is deleted.
    Expire,
    /// `transition`: the image is moved to archive storage.
    Archive,
}

/// A lifecycle rule as findings name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LifecycleRule {
    /// `rulePriority`.
    pub priority: i64,
    /// The rule's description, where the record has one.
    pub description: Option<Arc<str>>,
}

/// One identifier that a `BatchDeleteImage` took away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedImage {
    /// As the request names it.
    pub requested: ImageId,
    /// For a request by tag: the digest that the tag named, from the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<Digest>,
}

/// `targetStorageClass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorageClass {
    /// `STANDARD`: the image can be pulled.
    Standard,
    /// `ARCHIVE`: the image is listed, but not pullable.
    Archive,
}

/// One pull, as the judgement needs it: the bulk of what there is, so shared and small.
#[derive(Clone, Debug, PartialEq)]
pub struct Pull {
    /// `eventID`.
    pub id: Arc<str>,
    /// `eventTime`, in whole seconds.
    pub time: Timestamp,
    /// What the call named.
    pub images: Arc<[ImageId]>,
    /// Who called.
    pub caller: Arc<Caller>,
    /// Refused for lack of permission.
    pub denied: bool,
}

/// Why a record is no [`Event`].
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or not the shape of a CloudTrail record.
    #[error("not a CloudTrail record: {0}")]
    Shape(#[from] serde_json::Error),
    /// The record is of another service.
    #[error("a record of another service than {EVENT_SOURCE}")]
    OtherService,
    /// A field that this event cannot do without is missing or has another form.
    #[error("{event}: {field} is missing or malformed")]
    Field {
        /// `eventName`, or `record` where that is missing.
        event: EventName,
        /// The field's path.
        field: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(rename = "eventID", borrow, default)]
    event_id: Option<Cow<'a, str>>,
    #[serde(rename = "sharedEventID", borrow, default)]
    shared_event_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    event_time: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    event_source: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    event_name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    event_category: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    aws_region: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    error_code: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::text")]
    recipient_account_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::object")]
    user_identity: Option<UserIdentity<'a>>,
    #[serde(borrow, default)]
    resources: Option<&'a RawValue>,
    #[serde(borrow, default)]
    request_parameters: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response_elements: Option<&'a RawValue>,
    #[serde(borrow, default)]
    service_event_details: Option<&'a RawValue>,
    #[serde(borrow, default)]
    addendum: Option<Addendum<'a>>,
}

#[derive(Deserialize)]
struct Addendum<'a> {
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
    #[serde(rename = "originalEventID", borrow, default)]
    original_event_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Resource<'a> {
    #[serde(rename = "ARN", alias = "arn", borrow, default)]
    arn: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Request<'a> {
    #[serde(borrow)]
    repository_name: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "lenient::text")]
    registry_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    image_ids: Option<Vec<RawImageId<'a>>>,
    #[serde(borrow)]
    image_id: Option<RawImageId<'a>>,
    #[serde(borrow)]
    image_tag: Option<Cow<'a, str>>,
    #[serde(borrow)]
    image_digest: Option<Cow<'a, str>>,
    #[serde(borrow)]
    image_manifest: Option<Cow<'a, str>>,
    #[serde(borrow)]
    target_storage_class: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response<'a> {
    #[serde(borrow)]
    image: Option<ResponseImage<'a>>,
    #[serde(borrow)]
    image_id: Option<RawImageId<'a>>,
    #[serde(borrow)]
    image_ids: Option<Vec<RawImageId<'a>>>,
    #[serde(borrow)]
    failures: Option<Vec<Failure<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResponseImage<'a> {
    #[serde(borrow)]
    repository_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    image_manifest: Option<Cow<'a, str>>,
    #[serde(borrow)]
    image_id: Option<RawImageId<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failure<'a> {
    #[serde(borrow, default)]
    image_id: Option<RawImageId<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawImageId<'a> {
    #[serde(borrow)]
    image_digest: Option<Cow<'a, str>>,
    #[serde(borrow)]
    image_tag: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceDetails<'a> {
    #[serde(borrow)]
    repository_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    lifecycle_event_policy: Option<LifecyclePolicy<'a>>,
    #[serde(borrow)]
    lifecycle_event_image_actions: Option<Vec<ImageAction<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LifecyclePolicy<'a> {
    #[serde(borrow)]
    lifecycle_event_rules: Option<Vec<PolicyRule<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PolicyRule<'a> {
    rule_priority: i64,
    #[serde(borrow, default)]
    description: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    action: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageAction<'a> {
    #[serde(borrow)]
    lifecycle_event_image: LifecycleImage<'a>,
    rule_priority: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LifecycleImage<'a> {
    #[serde(borrow)]
    digest: Cow<'a, str>,
    #[serde(borrow, default)]
    tag_list: Option<Vec<Cow<'a, str>>>,
}

/// CloudTrail's stand-in for content over 100 KB.
#[derive(Deserialize)]
struct Omitted {
    #[serde(default, deserialize_with = "lenient::flag")]
    omitted: bool,
}

/// A part of the record that CloudTrail may have left out.
fn part<'a, T: Deserialize<'a> + Default>(
    raw: Option<&'a RawValue>,
    omitted: &mut bool,
) -> Result<Option<T>, serde_json::Error> {
    let Some(raw) = raw.map(RawValue::get).filter(|text| *text != "null") else {
        return Ok(None);
    };
    // Only a short object can be the stand-in, and only that is worth a second look.
    if raw.len() < 4096
        && raw.contains("omitted")
        && serde_json::from_str::<Omitted>(raw).is_ok_and(|stand_in| stand_in.omitted)
    {
        *omitted = true;
        return Ok(None);
    }
    serde_json::from_str(raw).map(Some)
}

/// Longest repository name (ECR allows 256 characters) and tag (ECR allows 300, OCI 128).
const MAX_NAME: usize = 300;
/// Longest text kept of a rule's description; ECR allows 256 characters.
const MAX_DESCRIPTION: usize = 256;

/// Account, region and name of a repository's ARN.
fn repository_arn(arn: &str) -> Option<(&str, &str, &str)> {
    let mut parts = arn.splitn(6, ':');
    let (scheme, _partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, account) = (parts.next()?, parts.next()?);
    let name = parts.next()?.strip_prefix("repository/")?;
    let account_ok = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    (scheme == "arn" && service == "ecr" && !region.is_empty() && account_ok && !name.is_empty())
        .then_some((region, account, name))
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let time = text.parse::<Timestamp>().ok().or_else(|| {
        // Some log stores write the time without its zone; CloudTrail's is UTC.
        let civil: civil::DateTime = text.parse().ok()?;
        tz::TimeZone::UTC.to_timestamp(civil).ok()
    })?;
    Timestamp::from_second(time.as_millisecond().div_euclid(1000)).ok()
}

fn outcome(error_code: Option<&str>) -> Outcome {
    let Some(code) = error_code.filter(|code| !code.is_empty()) else {
        return Outcome::Allowed;
    };
    match code.strip_prefix("Client.").unwrap_or(code) {
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => Outcome::Denied,
        _ => Outcome::Failed,
    }
}

impl RawImageId<'_> {
    /// `None` when the identifier is empty or one of its parts is malformed.
    fn parse(&self) -> Option<ImageId> {
        let present = |text: &&str| !text.is_empty();
        let digest = match self.image_digest.as_deref().filter(present) {
            Some(text) => Some(Digest::parse(text).ok()?),
            None => None,
        };
        let tag = match self.image_tag.as_deref().filter(present) {
            Some(tag) if tag.len() > MAX_NAME => return None,
            tag => tag.map(Into::into),
        };
        (digest.is_some() || tag.is_some()).then_some(ImageId { digest, tag })
    }
}

/// Reads one record of ECR.
///
/// # Errors
/// [`DecodeError`] when the text is no CloudTrail record, is of another service, or lacks what
/// this event cannot be judged without.
pub fn decode(text: &[u8]) -> Result<Event, DecodeError> {
    let record: Record<'_> = serde_json::from_slice(text)?;
    if record.event_source.as_deref() != Some(EVENT_SOURCE) {
        return Err(DecodeError::OtherService);
    }
    let name: EventName = record
        .event_name
        .as_deref()
        .and_then(|name| name.parse().ok())
        .ok_or(DecodeError::Field {
            event: EventName::Other,
            field: "eventName",
        })?;
    let missing = |field| DecodeError::Field { event: name, field };

    let id: Arc<str> = record
        .event_id
        .as_deref()
        .filter(|id| !id.is_empty() && id.len() <= MAX_NAME)
        .ok_or_else(|| missing("eventID"))?
        .into();
    let time = record
        .event_time
        .as_deref()
        .and_then(parse_time)
        .ok_or_else(|| missing("eventTime"))?;
    let shared_id = record
        .shared_event_id
        .as_deref()
        .filter(|id| !id.is_empty() && id.len() <= MAX_NAME);
    let replaces = record
        .addendum
        .as_ref()
        .filter(|addendum| addendum.reason.as_deref() == Some("UPDATED_DATA"))
        .map(|addendum| {
            let original = addendum.original_event_id.as_deref();
            original
                .filter(|id| !id.is_empty() && id.len() <= MAX_NAME)
                .map_or_else(|| id.clone(), Into::into)
        });

    let outcome = outcome(record.error_code.as_deref());
    let judged = record
        .event_category
        .as_deref()
        .is_none_or(|category| category == "Management");
    let mut omitted = false;
    let mut parts = Parts::default();
    if judged && followed(name) {
        parts = Parts {
            request: part(record.request_parameters, &mut omitted)?,
            response: part(record.response_elements, &mut omitted)?,
            details: part(record.service_event_details, &mut omitted)?,
        };
    }

    let resources: Vec<Resource<'_>> = record
        .resources
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default();
    let arn = resources
        .iter()
        .find_map(|resource| repository_arn(resource.arn.as_deref()?));
    let region: Arc<str> = arn
        .map(|(region, _, _)| region)
        .or(record
            .aws_region
            .as_deref()
            .filter(|region| !region.is_empty() && region.len() <= 64))
        .ok_or_else(|| missing("awsRegion"))?
        .into();
    let account: Arc<str> = arn
        .map(|(_, account, _)| account)
        .or_else(|| parts.request.as_ref()?.registry_id.as_deref())
        .or(record.recipient_account_id.as_deref())
        .filter(|account| !account.is_empty() && account.len() <= 64)
        .ok_or_else(|| missing("recipientAccountId"))?
        .into();
    let repository_name = parts
        .repository_name()
        .or(arn.map(|(_, _, name)| name))
        .filter(|name| !name.is_empty() && name.len() <= MAX_NAME);
    let repository = repository_name.map(|repository| Repository {
        account: account.clone(),
        region: region.clone(),
        name: repository.into(),
    });

    let action = if judged {
        parts.action(name, outcome, omitted).map_err(missing)?
    } else {
        Action::None
    };
    if repository.is_none() && action != Action::None {
        return Err(missing("requestParameters.repositoryName"));
    }
    Ok(Event {
        id,
        shared_id: shared_id.map(Into::into),
        replaces,
        time,
        name,
        account,
        region,
        repository,
        caller: record.user_identity.unwrap_or_default().caller(),
        outcome,
        omitted,
        action,
    })
}

/// Whether the content of these events matters, and not only that they occurred.
fn followed(name: EventName) -> bool {
    EventName::JUDGED.contains(&name)
}

/// The parts of a record that differ from event to event.
#[derive(Default)]
struct Parts<'a> {
    request: Option<Request<'a>>,
    response: Option<Response<'a>>,
    details: Option<ServiceDetails<'a>>,
}

impl Parts<'_> {
    fn repository_name(&self) -> Option<&str> {
        let request = self
            .request
            .as_ref()
            .and_then(|request| request.repository_name.as_deref());
        let details = self
            .details
            .as_ref()
            .and_then(|details| details.repository_name.as_deref());
        request.or(details).or_else(|| {
            self.response
                .as_ref()?
                .image
                .as_ref()?
                .repository_name
                .as_deref()
        })
    }

    /// What the event did; the error is the path of the field that is missing or malformed.
    fn action(
        &self,
        name: EventName,
        outcome: Outcome,
        omitted: bool,
    ) -> Result<Action, &'static str> {
        let keeps_refused = matches!(name, EventName::PutImage | EventName::BatchGetImage);
        match outcome {
            Outcome::Failed => return Ok(Action::None),
            // A refused call may carry no request at all: it names no image.
            Outcome::Denied if !keeps_refused || self.request.is_none() => return Ok(Action::None),
            Outcome::Allowed | Outcome::Denied => {}
        }
        let action = match name {
            EventName::PutImage => self.push(),
            EventName::BatchGetImage => self.requested_ids().map(Action::Pull),
            EventName::PolicyExecutionEvent => self.lifecycle_run(),
            EventName::BatchDeleteImage => self.delete(),
            EventName::DeleteRepository => Ok(Action::DeleteRepository),
            EventName::UpdateImageStorageClass => self.storage_class(),
            _ => Ok(Action::None),
        };
        match action {
            // What CloudTrail left out is counted as omitted, not as undecodable.
            Err(_) if omitted => Ok(Action::None),
            Err(_) if outcome == Outcome::Denied => Ok(Action::None),
            action => action,
        }
    }

    fn requested_ids(&self) -> Result<Vec<ImageId>, &'static str> {
        let ids = self
            .request
            .as_ref()
            .and_then(|request| request.image_ids.as_ref());
        let ids = ids.ok_or("requestParameters.imageIds")?;
        ids.iter()
            .map(|id| id.parse().ok_or("requestParameters.imageIds"))
            .collect()
    }

    fn push(&self) -> Result<Action, &'static str> {
        let request = self.request.as_ref();
        let response = self
            .response
            .as_ref()
            .and_then(|response| response.image.as_ref());
        let manifest = request
            .and_then(|request| request.image_manifest.as_deref())
            .or_else(|| response?.image_manifest.as_deref());
        let asked = RawImageId {
            image_digest: request.and_then(|request| request.image_digest.clone()),
            image_tag: request.and_then(|request| request.image_tag.clone()),
        };
        let answered = match response.and_then(|response| response.image_id.as_ref()) {
            Some(id) => Some(id.parse().ok_or("responseElements.image.imageId")?),
            None => None,
        };
        let asked = asked.parse();
        let hash = manifest.map(Digest::of_manifest);
        let stated = answered
            .as_ref()
            .and_then(|id| id.digest.clone())
            .or_else(|| asked.as_ref()?.digest.clone());
        let tag = answered
            .and_then(|id| id.tag)
            .or_else(|| asked.and_then(|id| id.tag));
        let digest_matches = stated
            .as_ref()
            .zip(hash.as_ref())
            .map(|(stated, hash)| stated == hash);
        let digest = stated.or(hash);
        if digest.is_none() {
            return Err("responseElements.image.imageId.imageDigest");
        }
        Ok(Action::Push {
            image: ImageId { digest, tag },
            manifest: manifest.and_then(Manifest::parse),
            digest_matches,
        })
    }

    fn lifecycle_run(&self) -> Result<Action, &'static str> {
        let details = self.details.as_ref().ok_or("serviceEventDetails")?;
        let rules = details
            .lifecycle_event_policy
            .as_ref()
            .and_then(|policy| policy.lifecycle_event_rules.as_deref())
            .unwrap_or_default();
        let actions = details
            .lifecycle_event_image_actions
            .as_deref()
            .unwrap_or_default();
        actions
            .iter()
            .map(|action| {
                let rule = rules
                    .iter()
                    .find(|rule| rule.rule_priority == action.rule_priority);
                let image = &action.lifecycle_event_image;
                let digest = Digest::parse(&image.digest)
                    .map_err(|_| "serviceEventDetails.lifecycleEventImageActions")?;
                let tags = image.tag_list.iter().flatten();
                Ok(LifecycleAction {
                    digest,
                    tags: tags
                        .filter(|tag| !tag.is_empty() && tag.len() <= MAX_NAME)
                        .map(|tag| tag.as_ref().into())
                        .collect(),
                    effect: rule.map_or(Effect::Expire, PolicyRule::effect),
                    rule: LifecycleRule {
                        priority: action.rule_priority,
                        description: rule
                            .and_then(|rule| rule.description.as_deref())
                            .filter(|text| !text.is_empty())
                            .map(|text| text[..text.floor_char_boundary(MAX_DESCRIPTION)].into()),
                    },
                })
            })
            .collect::<Result<_, _>>()
            .map(Action::LifecycleRun)
    }

    /// The request decides what was removed, less the answer's failures: the answer names digest
    /// and tag for untagging and deletion alike.
    fn delete(&self) -> Result<Action, &'static str> {
        let mut requested = self.requested_ids()?;
        let response = self.response.as_ref();
        let failures = response.and_then(|response| response.failures.as_deref());
        for failure in failures.unwrap_or_default() {
            let Some(failed) = failure.image_id.as_ref().and_then(RawImageId::parse) else {
                continue;
            };
            let named_by = |id: &ImageId| {
                (id.digest.is_none() || id.digest == failed.digest)
                    && (id.tag.is_none() || id.tag == failed.tag)
            };
            // The very identifier, where the request has it; else the one the failure elaborates.
            if requested.contains(&failed) {
                requested.retain(|id| *id != failed);
            } else {
                requested.retain(|id| !named_by(id));
            }
        }
        let answered: Vec<ImageId> = response
            .and_then(|response| response.image_ids.as_deref())
            .unwrap_or_default()
            .iter()
            .filter_map(RawImageId::parse)
            .collect();
        let deleted = requested.into_iter().map(|requested| {
            let named = requested.tag.as_ref().and_then(|tag| {
                let answer = answered
                    .iter()
                    .find(|answer| answer.tag.as_ref() == Some(tag))?;
                answer.digest.clone()
            });
            DeletedImage { requested, named }
        });
        Ok(Action::Delete(deleted.collect()))
    }

    fn storage_class(&self) -> Result<Action, &'static str> {
        let request = self.request.as_ref().ok_or("requestParameters")?;
        let class = match request.target_storage_class.as_deref() {
            Some(class) if class.eq_ignore_ascii_case("ARCHIVE") => StorageClass::Archive,
            Some(class) if class.eq_ignore_ascii_case("STANDARD") => StorageClass::Standard,
            _ => return Err("requestParameters.targetStorageClass"),
        };
        let mut image = request
            .image_id
            .as_ref()
            .and_then(RawImageId::parse)
            .ok_or("requestParameters.imageId")?;
        let answered = self
            .response
            .as_ref()
            .and_then(|response| response.image_id.as_ref());
        if let Some(answered) = answered.and_then(RawImageId::parse) {
            image.digest = image.digest.or(answered.digest);
        }
        Ok(Action::SetStorageClass { image, class })
    }
}

impl PolicyRule<'_> {
    /// `"expire"`, or `"transition"` (as text or as an object with a `type`) to archive storage.
    fn effect(&self) -> Effect {
        let action = self.action.map_or("", RawValue::get).to_ascii_lowercase();
        if action.contains("transition") || action.contains("archive") {
            Effect::Archive
        } else {
            Effect::Expire
        }
    }
}
