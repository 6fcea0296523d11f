//! CloudTrail's shapes, as far as they are read: borrowed from the record's text.

use std::{borrow::Cow, sync::LazyLock};

use memchr::memmem::Finder;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{
    image::{Digest, ImageId},
    lenient,
};

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record<'a> {
    #[serde(
        rename = "eventID",
        borrow,
        default,
        deserialize_with = "lenient::string"
    )]
    pub(super) event_id: Option<Cow<'a, str>>,
    #[serde(
        rename = "sharedEventID",
        borrow,
        default,
        deserialize_with = "lenient::string"
    )]
    pub(super) shared_event_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    pub(super) event_time: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    pub(super) event_source: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    pub(super) event_name: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    pub(super) event_category: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    pub(super) aws_region: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    pub(super) error_code: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "lenient::text")]
    pub(super) recipient_account_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "raw")]
    pub(super) user_identity: Option<&'a str>,
    #[serde(borrow, default, deserialize_with = "raw")]
    pub(super) resources: Option<&'a str>,
    #[serde(borrow, default, deserialize_with = "raw")]
    pub(super) request_parameters: Option<&'a str>,
    #[serde(borrow, default, deserialize_with = "raw")]
    pub(super) response_elements: Option<&'a str>,
    #[serde(borrow, default, deserialize_with = "raw")]
    pub(super) service_event_details: Option<&'a str>,
    #[serde(borrow, default)]
    pub(super) addendum: Option<Addendum<'a>>,
}

/// The text of a value; none of null.
fn raw<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a str>, D::Error> {
    let value = Option::<&'a RawValue>::deserialize(deserializer)?;
    Ok(value.map(RawValue::get).filter(|text| *text != "null"))
}

#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct Addendum<'a> {
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    pub(super) reason: Option<Cow<'a, str>>,
    #[serde(
        rename = "originalEventID",
        borrow,
        default,
        deserialize_with = "lenient::string"
    )]
    pub(super) original_event_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct Resource<'a> {
    #[serde(
        rename = "ARN",
        alias = "arn",
        borrow,
        default,
        deserialize_with = "lenient::string"
    )]
    pub(super) arn: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Request<'a> {
    #[serde(borrow, deserialize_with = "lenient::string")]
    pub(super) repository_name: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub(super) registry_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) image_ids: Option<Vec<RawImageId<'a>>>,
    #[serde(borrow)]
    pub(super) image_id: Option<RawImageId<'a>>,
    #[serde(borrow, deserialize_with = "lenient::string")]
    pub(super) image_tag: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "lenient::string")]
    pub(super) image_digest: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "lenient::string")]
    pub(super) image_manifest: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "lenient::string")]
    pub(super) target_storage_class: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Response<'a> {
    #[serde(borrow)]
    pub(super) image: Option<ResponseImage<'a>>,
    #[serde(borrow)]
    pub(super) image_id: Option<RawImageId<'a>>,
    #[serde(borrow)]
    pub(super) image_ids: Option<Vec<RawImageId<'a>>>,
    #[serde(borrow)]
    pub(super) failures: Option<Vec<Failure<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ResponseImage<'a> {
    #[serde(borrow, deserialize_with = "lenient::string")]
    pub(super) repository_name: Option<Cow<'a, str>>,
    /// The request's text again, and the longest part of the record: read only where it is needed.
    #[serde(borrow)]
    pub(super) image_manifest: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) image_id: Option<RawImageId<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Failure<'a> {
    #[serde(borrow, default)]
    pub(super) image_id: Option<RawImageId<'a>>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawImageId<'a> {
    #[serde(borrow, deserialize_with = "lenient::string")]
    pub(super) image_digest: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "lenient::string")]
    pub(super) image_tag: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServiceDetails<'a> {
    #[serde(borrow, deserialize_with = "lenient::string")]
    pub(super) repository_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) lifecycle_event_policy: Option<LifecyclePolicy<'a>>,
    #[serde(borrow)]
    pub(super) lifecycle_event_image_actions: Option<Vec<ImageAction<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LifecyclePolicy<'a> {
    #[serde(borrow)]
    pub(super) lifecycle_event_rules: Option<Vec<PolicyRule<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyRule<'a> {
    pub(super) rule_priority: i64,
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    pub(super) description: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) action: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImageAction<'a> {
    #[serde(borrow)]
    pub(super) lifecycle_event_image: LifecycleImage<'a>,
    pub(super) rule_priority: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LifecycleImage<'a> {
    #[serde(borrow)]
    pub(super) digest: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) tag_list: Option<Vec<Cow<'a, str>>>,
}

/// CloudTrail's stand-in for content over 100 KB.
#[derive(Deserialize)]
struct Omitted {
    #[serde(default, deserialize_with = "lenient::flag")]
    omitted: bool,
}

/// A part of the record that CloudTrail may have left out.
pub(super) fn part<'a, T: Deserialize<'a> + Default>(
    raw: Option<&'a str>,
    omitted: &mut bool,
) -> Result<Option<T>, serde_json::Error> {
    let Some(raw) = raw else {
        return Ok(None);
    };
    if is_stand_in(raw) {
        *omitted = true;
        return Ok(None);
    }
    serde_json::from_str(raw).map(Some)
}

/// Whether CloudTrail left out this part of the record.
pub(super) fn is_omitted(raw: Option<&str>) -> bool {
    raw.is_some_and(is_stand_in)
}

fn is_stand_in(raw: &str) -> bool {
    static OMITTED: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("omitted"));
    // Only a short object can be the stand-in, and only that is worth a second look.
    raw.len() < 4096
        && (OMITTED.find(raw.as_bytes()).is_some() || raw.contains('\\'))
        && serde_json::from_str::<Omitted>(raw).is_ok_and(|stand_in| stand_in.omitted)
}

/// Longest repository name (ECR allows 256 characters) and tag (ECR allows 300, OCI 128).
pub(super) const MAX_NAME: usize = 300;

impl RawImageId<'_> {
    /// `None` when the identifier is empty or one of its parts is malformed.
    pub(super) fn parse(&self) -> Option<ImageId> {
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
