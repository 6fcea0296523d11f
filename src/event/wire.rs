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
    /// A JSON string, as it is written: the longest part of a record, and read only where needed.
    #[serde(borrow, deserialize_with = "raw")]
    pub(super) image_manifest: Option<&'a str>,
    #[serde(borrow, deserialize_with = "lenient::string")]
    pub(super) target_storage_class: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
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

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ResponseImage<'a> {
    #[serde(borrow, deserialize_with = "lenient::string")]
    pub(super) repository_name: Option<Cow<'a, str>>,
    /// The request's text again, as it is written.
    #[serde(borrow, deserialize_with = "raw")]
    pub(super) image_manifest: Option<&'a str>,
    #[serde(borrow)]
    pub(super) image_id: Option<RawImageId<'a>>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Failure<'a> {
    #[serde(borrow, default)]
    pub(super) image_id: Option<RawImageId<'a>>,
    #[serde(borrow, default, deserialize_with = "lenient::text")]
    pub(super) failure_code: Option<Cow<'a, str>>,
}

/// `failureCode` of an image that was not removed because an index lists it: of all codes the one
/// that shows the image to be there.
pub(super) const REFERENCED: &str = "ImageReferencedByManifestList";

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawImageId<'a> {
    #[serde(borrow, deserialize_with = "lenient::string")]
    pub(super) image_digest: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "lenient::string")]
    pub(super) image_tag: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServiceDetails<'a> {
    #[serde(borrow, deserialize_with = "lenient::string")]
    pub(super) repository_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) lifecycle_event_policy: Option<LifecyclePolicy<'a>>,
    #[serde(borrow)]
    pub(super) lifecycle_event_image_actions: Option<Vec<ImageAction<'a>>>,
    /// Nothing is judged by them alone, so those of unexpected shape are as good as none.
    #[serde(borrow)]
    pub(super) lifecycle_event_failure_details: Option<&'a RawValue>,
}

impl ServiceDetails<'_> {
    /// The images that a rule was kept from removing, as far as that can be read.
    pub(super) fn failures(&self) -> Vec<ActionFailure<'_>> {
        let raw = self
            .lifecycle_event_failure_details
            .map_or("null", RawValue::get);
        let failures: Option<Vec<&RawValue>> = serde_json::from_str(raw).unwrap_or_default();
        let failures = failures.into_iter().flatten();
        failures
            .filter_map(|failure| serde_json::from_str(failure.get()).ok())
            .collect()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LifecyclePolicy<'a> {
    #[serde(borrow)]
    pub(super) lifecycle_event_rules: Option<Vec<PolicyRule<'a>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyRule<'a> {
    pub(super) rule_priority: i64,
    #[serde(borrow, default, deserialize_with = "lenient::string")]
    pub(super) description: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) action: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImageAction<'a> {
    #[serde(borrow)]
    pub(super) lifecycle_event_image: LifecycleImage<'a>,
    pub(super) rule_priority: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ActionFailure<'a> {
    #[serde(borrow)]
    pub(super) lifecycle_event_image: LifecycleImage<'a>,
    pub(super) rule_priority: i64,
    #[serde(borrow, default, deserialize_with = "lenient::text")]
    pub(super) failure_code: Option<Cow<'a, str>>,
}

#[derive(Debug, Deserialize)]
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

/// Whether a part of the record stands in for one that CloudTrail left out.
pub(super) fn is_stand_in(raw: &str) -> bool {
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
        let (digest, tag) = self.parts()?;
        Some(ImageId {
            digest: digest.map(Digest::parse).transpose().ok()?,
            tag: tag.map(Into::into),
        })
    }

    /// Whether [`Self::parse`] gives anything.
    pub(super) fn is_valid(&self) -> bool {
        self.parts()
            .is_some_and(|(digest, _)| digest.is_none_or(Digest::is_valid))
    }

    /// Digest and tag, of which there is one at least.
    fn parts(&self) -> Option<(Option<&str>, Option<&str>)> {
        let present = |text: &&str| !text.is_empty();
        let digest = self.image_digest.as_deref().filter(present);
        let tag = self.image_tag.as_deref().filter(present);
        let fits = tag.is_none_or(|tag| tag.len() <= MAX_NAME);
        (fits && (digest.is_some() || tag.is_some())).then_some((digest, tag))
    }
}
