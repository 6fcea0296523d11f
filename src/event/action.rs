//! What a call did: request, answer and service details → [`Action`].

use serde_json::value::RawValue;

use super::{
    facts::{
        Action, DeletedImage, Effect, EventName, LifecycleAction, LifecycleRule, Outcome,
        StorageClass,
    },
    image::{Digest, ImageId},
    manifest::Manifest,
    wire::{
        LifecycleImage, MAX_NAME, PolicyRule, REFERENCED, RawImageId, Request, Response,
        ServiceDetails,
    },
};

const IMAGE_IDS: &str = "requestParameters.imageIds";

/// Longest text kept of a rule's description; ECR allows 256 characters.
const MAX_DESCRIPTION: usize = 256;

/// The parts of a record that differ from event to event.
#[derive(Debug, Default)]
pub(super) struct Parts<'a> {
    pub(super) request: Option<Request<'a>>,
    pub(super) response: Option<Response<'a>>,
    pub(super) details: Option<ServiceDetails<'a>>,
}

impl Parts<'_> {
    pub(super) fn repository_name(&self) -> Option<&str> {
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

    /// What the event did; the error is the path of the field that is missing or malformed. Where it
    /// does not matter, the same errors and the same kind of action, of which some is left out.
    pub(super) fn action(
        &self,
        name: EventName,
        outcome: Outcome,
        omitted: bool,
        matters: bool,
    ) -> Result<Action, &'static str> {
        let keeps_refused = matches!(name, EventName::PutImage | EventName::BatchGetImage);
        match outcome {
            Outcome::Failed => return Ok(Action::None),
            // A refused call may carry no request at all: it names no image.
            Outcome::Denied if !keeps_refused || self.request.is_none() => return Ok(Action::None),
            Outcome::Allowed | Outcome::Denied => {}
        }
        let action = match name {
            EventName::PutImage => self.push(matters),
            EventName::BatchGetImage if matters => self.requested_ids().map(Action::Pull),
            EventName::BatchGetImage => self.raw_ids().and_then(|ids| {
                let valid = ids.iter().all(RawImageId::is_valid);
                valid.then(|| Action::Pull(Vec::new())).ok_or(IMAGE_IDS)
            }),
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

    fn raw_ids(&self) -> Result<&[RawImageId<'_>], &'static str> {
        let request = self.request.as_ref();
        let ids = request.and_then(|request| request.image_ids.as_deref());
        ids.ok_or(IMAGE_IDS)
    }

    fn requested_ids(&self) -> Result<Vec<ImageId>, &'static str> {
        let ids = self.raw_ids()?.iter();
        ids.map(|id| id.parse().ok_or(IMAGE_IDS)).collect()
    }

    /// The text of a pushed manifest, where it `matters`; an error in any case where it is none.
    fn manifest(&self, matters: bool) -> Result<Option<String>, &'static str> {
        let asked = self
            .request
            .as_ref()
            .and_then(|request| request.image_manifest);
        if let Some(raw) = asked {
            // A valid string that holds no halves of characters can be read.
            let readable = raw.starts_with('"') && !raw.contains("\\ud") && !raw.contains("\\uD");
            if readable && !matters {
                return Ok(None);
            }
            let text = serde_json::from_str(raw);
            return text
                .map(Some)
                .map_err(|_| "requestParameters.imageManifest");
        }
        let answered = || self.response.as_ref()?.image.as_ref()?.image_manifest;
        Ok(answered()
            .filter(|_| matters)
            .and_then(|raw| serde_json::from_str(raw).ok()))
    }

    fn push(&self, matters: bool) -> Result<Action, &'static str> {
        let request = self.request.as_ref();
        let response = self
            .response
            .as_ref()
            .and_then(|response| response.image.as_ref());
        let asked = RawImageId {
            image_digest: request.and_then(|request| request.image_digest.clone()),
            image_tag: request.and_then(|request| request.image_tag.clone()),
        };
        let answered = match response.and_then(|response| response.image_id.as_ref()) {
            Some(id) => Some(id.parse().ok_or("responseElements.image.imageId")?),
            None => None,
        };
        let asked = asked.parse();
        let stated = answered
            .as_ref()
            .and_then(|id| id.digest.clone())
            .or_else(|| asked.as_ref()?.digest.clone());
        let tag = answered
            .and_then(|id| id.tag)
            .or_else(|| asked.and_then(|id| id.tag));
        let manifest = self.manifest(matters || stated.is_none())?;
        let manifest = manifest.as_deref();
        let hash = manifest.map(Digest::of_manifest);
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
        let of_priority = |priority| rules.iter().find(|rule| rule.rule_priority == priority);
        let taken = actions.iter().map(|action| {
            let rule = of_priority(action.rule_priority);
            let effect = rule.map_or(Effect::Expire, PolicyRule::effect);
            action
                .lifecycle_event_image
                .action(effect, action.rule_priority, rule)
                .ok_or("serviceEventDetails.lifecycleEventImageActions")
        });
        let failures = details.failures();
        let kept = failures.iter().filter_map(|failure| {
            (failure.failure_code.as_deref() == Some(REFERENCED)).then_some(())?;
            let rule = of_priority(failure.rule_priority);
            let image = &failure.lifecycle_event_image;
            image.action(Effect::Kept, failure.rule_priority, rule)
        });
        taken
            .chain(kept.map(Ok))
            .collect::<Result<_, _>>()
            .map(Action::LifecycleRun)
    }

    /// The request decides what was removed, less the answer's failures: the answer names digest
    /// and tag for untagging and deletion alike.
    fn delete(&self) -> Result<Action, &'static str> {
        let mut requested = self.requested_ids()?;
        let response = self.response.as_ref();
        let failures = response.and_then(|response| response.failures.as_deref());
        let mut refused = Vec::new();
        for failure in failures.unwrap_or_default() {
            let Some(failed) = failure.image_id.as_ref().and_then(RawImageId::parse) else {
                continue;
            };
            if failure.failure_code.as_deref() == Some(REFERENCED) {
                refused.extend(failed.digest.clone());
            }
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
            let tags = match &requested {
                ImageId {
                    digest: Some(_),
                    tag: None,
                } => answered
                    .iter()
                    .filter(|answer| answer.digest == requested.digest)
                    .filter_map(|answer| answer.tag.clone())
                    .collect(),
                _ => Vec::new(),
            };
            DeletedImage {
                requested,
                named,
                tags,
                refused: false,
            }
        });
        let refused = refused.into_iter().map(|digest| DeletedImage {
            requested: ImageId {
                digest: Some(digest),
                tag: None,
            },
            named: None,
            tags: Vec::new(),
            refused: true,
        });
        Ok(Action::Delete(deleted.chain(refused).collect()))
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

impl LifecycleImage<'_> {
    /// What the rule of this priority did with the image; none without a digest.
    fn action(
        &self,
        effect: Effect,
        priority: i64,
        rule: Option<&PolicyRule<'_>>,
    ) -> Option<LifecycleAction> {
        let tags = self.tag_list.iter().flatten();
        Some(LifecycleAction {
            digest: Digest::parse(&self.digest).ok()?,
            tags: tags
                .filter(|tag| !tag.is_empty() && tag.len() <= MAX_NAME)
                .map(|tag| tag.as_ref().into())
                .collect(),
            effect,
            rule: LifecycleRule {
                priority,
                description: rule
                    .and_then(|rule| rule.description.as_deref())
                    .filter(|text| !text.is_empty())
                    .map(|text| text[..text.floor_char_boundary(MAX_DESCRIPTION)].into()),
            },
        })
    }
}

impl PolicyRule<'_> {
    /// `"expire"`, or `"transition"` (as text or as an object with a `type`) to archive storage.
    fn effect(&self) -> Effect {
        let raw = self.action.map_or("", RawValue::get);
        // Parsed and written again where escapes may hide the words.
        let action = match serde_json::from_str::<serde_json::Value>(raw) {
            Ok(value) if raw.contains('\\') => value.to_string(),
            _ => raw.to_owned(),
        };
        let action = action.to_ascii_lowercase();
        if action.contains("transition") || action.contains("archive") {
            Effect::Archive
        } else {
            Effect::Expire
        }
    }
}
