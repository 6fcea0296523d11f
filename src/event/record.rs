//! One CloudTrail record of ECR: its text → [`Event`].

use std::sync::Arc;

use jiff::{Timestamp, civil, tz};

use super::{
    action::Parts,
    facts::{Action, Event, EventName, Outcome},
    image::Repository,
    lately::Lately,
    principal::{Caller, UserIdentity},
    skim::{Quotes, skim},
    wire::{MAX_NAME, Record, Resource, is_omitted, part},
};

/// `eventSource` of the records that this project reads. ECR Public's is another one.
pub(super) const EVENT_SOURCE: &str = "ecr.amazonaws.com";

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

/// The repository that an ARN names.
fn repository_arn(arn: &str) -> Option<Repository> {
    let mut parts = arn.splitn(6, ':');
    let (scheme, _partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, account) = (parts.next()?, parts.next()?);
    let name = parts.next()?.strip_prefix("repository/")?;
    let account_ok = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    (scheme == "arn" && service == "ecr" && !region.is_empty() && account_ok && !name.is_empty())
        .then(|| Repository {
            account: account.into(),
            region: region.into(),
            name: name.into(),
        })
}

/// The first repository among a record's `resources`; those of unexpected shape are as good as none.
fn resource(text: &str) -> Option<Repository> {
    let resources: Vec<Resource<'_>> = serde_json::from_str(text).ok()?;
    resources
        .iter()
        .find_map(|resource| repository_arn(resource.arn.as_deref()?))
}

pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
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

/// Reads one record of ECR; of many, a [`Decoder`] reads faster.
///
/// # Errors
/// [`DecodeError`] when the text is no CloudTrail record, is of another service, or lacks what
/// this event cannot be judged without.
pub fn decode(text: &[u8]) -> Result<Event, DecodeError> {
    Decoder::default().decode(text)
}

/// Reads records of ECR, and remembers what many of them have in common: who called, and where.
#[derive(Debug, Default)]
pub struct Decoder {
    quotes: Quotes,
    callers: Lately<Caller, 256>,
    resources: Lately<Option<Repository>, 1024>,
    texts: Lately<Arc<str>, 256>,
}

impl Decoder {
    /// Reads one record, as [`decode`] does.
    ///
    /// # Errors
    /// Those of [`decode`].
    pub fn decode(&mut self, text: &[u8]) -> Result<Event, DecodeError> {
        // Looking at all bytes once is faster than at each text; what is not UTF-8 may still hold
        // only texts that nobody reads.
        let record: Record<'_> = match std::str::from_utf8(text) {
            Ok(text) => match skim(text, &mut self.quotes) {
                Some(record) => record,
                None => serde_json::from_str(text)?,
            },
            Err(_) => serde_json::from_slice(text)?,
        };
        self.event(&record)
    }

    fn event(&mut self, record: &Record<'_>) -> Result<Event, DecodeError> {
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
        let id = identifier(record.event_id.as_deref()).ok_or_else(|| missing("eventID"))?;
        let time = record
            .event_time
            .as_deref()
            .and_then(parse_time)
            .ok_or_else(|| missing("eventTime"))?;

        let outcome = outcome(record.error_code.as_deref());
        // Insights and network activity events carry the same names, and mean something else.
        let category = record.event_category.as_deref();
        let judged = EventName::JUDGED.contains(&name)
            && category.is_none_or(|category| category == "Management");
        let resource = record
            .resources
            .and_then(|text| self.resources.get(text, resource));
        let (parts, omitted) = if judged {
            parts(record, outcome == Outcome::Allowed)?
        } else {
            outline(record, resource.is_none())
        };
        let place = self
            .place(record, &parts, resource.as_ref())
            .map_err(missing)?;
        let action = if judged {
            parts.action(name, outcome, omitted).map_err(missing)?
        } else {
            Action::None
        };
        let (account, region, repository) = place;
        if repository.is_none() && action != Action::None {
            return Err(missing("requestParameters.repositoryName"));
        }
        Ok(Event {
            replaces: replaces(record, &id),
            shared_id: identifier(record.shared_event_id.as_deref()),
            id,
            time,
            name,
            account,
            region,
            repository,
            caller: match record.user_identity.filter(|_| judged) {
                Some(identity) => self.callers.get(identity, caller),
                None if judged => UserIdentity::default().caller(),
                None => Caller::default(),
            },
            outcome,
            omitted,
            action,
        })
    }

    /// The registry's account, the region, and the repository where the record names one. The
    /// owner is the resource's, else the one that the request names, else who got the record.
    fn place(
        &mut self,
        record: &Record<'_>,
        parts: &Parts<'_>,
        resource: Option<&Repository>,
    ) -> Result<Place, &'static str> {
        let short = |text: &&str| !text.is_empty() && text.len() <= 64;
        let name = parts
            .repository_name()
            .or(resource.map(|resource| &*resource.name))
            .filter(|name| !name.is_empty() && name.len() <= MAX_NAME);
        let (account, region) = if let Some(Repository {
            account, region, ..
        }) = resource
        {
            Some(&**region).filter(short).ok_or("awsRegion")?;
            (account.clone(), region.clone())
        } else {
            let region = record.aws_region.as_deref().filter(short);
            let region = region.ok_or("awsRegion")?;
            let request = parts.request.as_ref();
            let account = request
                .and_then(|request| request.registry_id.as_deref().filter(short))
                .or(record.recipient_account_id.as_deref())
                .filter(short)
                .ok_or("recipientAccountId")?;
            (self.text(account), self.text(region))
        };
        let repository = name.map(|name| match resource {
            Some(resource) if *resource.name == *name => resource.clone(),
            _ => Repository {
                account: account.clone(),
                region: region.clone(),
                name: self.text(name),
            },
        });
        Ok((account, region, repository))
    }

    /// One of the texts that most records have.
    fn text(&mut self, text: &str) -> Arc<str> {
        self.texts.get(text, |text| text.into())
    }
}

/// An `eventID` or `sharedEventID`: UUIDs, but not everywhere.
fn identifier(id: Option<&str>) -> Option<Arc<str>> {
    id.filter(|id| !id.is_empty() && id.len() <= MAX_NAME)
        .map(Into::into)
}

/// The id of the record that this one corrects; its own where the addendum names no other.
fn replaces(record: &Record<'_>, id: &Arc<str>) -> Option<Arc<str>> {
    let addendum = record.addendum.as_ref()?;
    let corrects = addendum.reason.as_deref() == Some("UPDATED_DATA");
    let original = || identifier(addendum.original_event_id.as_deref());
    corrects.then(|| original().unwrap_or_else(|| id.clone()))
}

/// The record's variable parts, and whether CloudTrail left out one of them. Where nothing is
/// judged by them, a part of unexpected shape is as good as none.
fn parts<'a>(record: &Record<'a>, strict: bool) -> Result<(Parts<'a>, bool), DecodeError> {
    fn lenient<T>(
        part: serde_json::Result<Option<T>>,
        strict: bool,
    ) -> serde_json::Result<Option<T>> {
        if strict {
            part
        } else {
            Ok(part.ok().flatten())
        }
    }
    let mut omitted = false;
    let parts = Parts {
        request: lenient(part(record.request_parameters, &mut omitted), strict)?,
        response: lenient(part(record.response_elements, &mut omitted), strict)?,
        details: lenient(part(record.service_event_details, &mut omitted), strict)?,
    };
    Ok((parts, omitted))
}

/// The parts of a record that nothing is judged by, most of all there are: whether CloudTrail left
/// out one of them, and the request where only that names the registry.
fn outline<'a>(record: &Record<'a>, wants_registry: bool) -> (Parts<'a>, bool) {
    let mut omitted = is_omitted(record.response_elements)
        || is_omitted(record.service_event_details)
        || is_omitted(record.request_parameters);
    let request = wants_registry.then(|| part(record.request_parameters, &mut omitted));
    let request = request.and_then(|request| request.ok().flatten());
    let parts = Parts {
        request,
        ..Parts::default()
    };
    (parts, omitted)
}

/// Who called; an identity of unexpected shape is as good as none.
fn caller(identity: &str) -> Caller {
    let identity = serde_json::from_str::<UserIdentity<'_>>(identity);
    identity.unwrap_or_default().caller()
}

type Place = (Arc<str>, Arc<str>, Option<Repository>);
