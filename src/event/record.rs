//! One CloudTrail record of ECR: its text → [`Event`].

use std::sync::Arc;

use jiff::{Timestamp, civil, tz};

use super::{
    action::Parts,
    facts::{Action, Event, EventName, Outcome},
    image::Repository,
    lately::Lately,
    principal::{Caller, UserIdentity},
    skim::{Skimmed, Skimmer},
    wire::{MAX_NAME, Record, Request, Resource, is_omitted, part},
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
    if let Some(time) = usual_time(text) {
        return Some(time);
    }
    let time = text.parse::<Timestamp>().ok().or_else(|| {
        // Some log stores write the time without its zone; CloudTrail's is UTC.
        let civil: civil::DateTime = text.parse().ok()?;
        tz::TimeZone::UTC.to_timestamp(civil).ok()
    })?;
    Timestamp::from_second(time.as_millisecond().div_euclid(1000)).ok()
}

/// A time as CloudTrail writes it, `2026-03-01T00:00:00Z`.
fn usual_time(text: &str) -> Option<Timestamp> {
    let text: &[u8; 20] = text.as_bytes().try_into().ok()?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', rest @ ..] = text else {
        return None;
    };
    let [h1, h2, b':', n1, n2, b':', s1, s2, b'Z'] = rest else {
        return None;
    };
    let number = |digits: &[&u8]| {
        digits.iter().try_fold(0_i16, |number, digit| {
            digit
                .is_ascii_digit()
                .then(|| number * 10 + i16::from(**digit - b'0'))
        })
    };
    let pair = |one, two| i8::try_from(number(&[one, two])?).ok();
    let date = civil::Date::new(number(&[y1, y2, y3, y4])?, pair(m1, m2)?, pair(d1, d2)?).ok()?;
    let time = civil::Time::new(pair(h1, h2)?, pair(n1, n2)?, pair(s1, s2)?, 0).ok()?;
    tz::TimeZone::UTC.to_timestamp(date.to_datetime(time)).ok()
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
    skimmer: Skimmer<Caller>,
    callers: Lately<Caller, 256>,
    resources: Lately<Option<Repository>, 1024>,
    texts: Lately<Arc<str>, 256>,
}

/// A record that nothing is judged by: all that is said of it is that there was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted<'a> {
    /// As [`Event::id`].
    pub id: &'a str,
    /// As [`Event::shared_id`].
    pub shared_id: Option<&'a str>,
    /// As [`Event::time`].
    pub time: Timestamp,
    /// As [`Event::account`].
    pub account: Arc<str>,
    /// As [`Event::region`].
    pub region: Arc<str>,
    /// As [`Event::omitted`].
    pub omitted: bool,
}

/// What every event has, and where the rest of it is.
struct Head<'r, 'a> {
    name: EventName,
    id: &'r str,
    time: Timestamp,
    outcome: Outcome,
    judged: bool,
    resource: Option<Repository>,
    parts: Parts<'a>,
    omitted: bool,
    account: Arc<str>,
    region: Arc<str>,
}

impl Decoder {
    /// Reads one record, as [`decode`] does.
    ///
    /// # Errors
    /// Those of [`decode`].
    pub fn decode(&mut self, text: &[u8]) -> Result<Event, DecodeError> {
        let (record, read) = self.members(text)?;
        let head = self.head(&record, read.request)?;
        self.event(&record, head, read.opening)
    }

    /// Reads one record, as [`decode`] does; of one that nothing is judged by only what `count` is
    /// given, and then there is no event.
    ///
    /// # Errors
    /// Those of [`decode`].
    pub fn decode_judged(
        &mut self,
        text: &[u8],
        count: impl FnOnce(Counted<'_>),
    ) -> Result<Option<Event>, DecodeError> {
        let (record, read) = self.members(text)?;
        let head = self.head(&record, read.request)?;
        if head.judged || record.addendum.is_some() {
            return self.event(&record, head, read.opening).map(Some);
        }
        count(Counted {
            id: head.id,
            shared_id: identifier(record.shared_event_id.as_deref()),
            time: head.time,
            account: head.account,
            region: head.region,
            omitted: head.omitted,
        });
        Ok(None)
    }

    /// A record's members, and what was read of them besides.
    fn members<'a>(&mut self, text: &'a [u8]) -> Result<(Record<'a>, Besides<'a>), DecodeError> {
        // Looking at all bytes once is faster than at each text; what is not UTF-8 may still hold
        // only texts that nobody reads.
        let record = match std::str::from_utf8(text) {
            Ok(text) => match self.skimmer.skim(text) {
                Some(Skimmed {
                    record,
                    opening,
                    request,
                }) => return Ok((record, Besides { opening, request })),
                None => serde_json::from_str(text)?,
            },
            Err(_) => serde_json::from_slice(text)?,
        };
        Ok((record, Besides::default()))
    }

    fn head<'r, 'a>(
        &mut self,
        record: &'r Record<'a>,
        request: Option<Request<'a>>,
    ) -> Result<Head<'r, 'a>, DecodeError> {
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
            parts(record, request, outcome == Outcome::Allowed)?
        } else {
            outline(record, resource.is_none())
        };
        let (account, region) = self
            .registry(record, &parts, resource.as_ref())
            .map_err(missing)?;
        Ok(Head {
            name,
            id,
            time,
            outcome,
            judged,
            resource,
            parts,
            omitted,
            account,
            region,
        })
    }

    fn event(
        &mut self,
        record: &Record<'_>,
        head: Head<'_, '_>,
        opening: Option<usize>,
    ) -> Result<Event, DecodeError> {
        let Head {
            name,
            id,
            time,
            outcome,
            judged,
            resource,
            parts,
            omitted,
            account,
            region,
        } = head;
        let missing = |field| DecodeError::Field { event: name, field };
        let repository = self.repository(&parts, resource, (&account, &region));
        let action = if judged {
            parts.action(name, outcome, omitted).map_err(missing)?
        } else {
            Action::None
        };
        if repository.is_none() && action != Action::None {
            return Err(missing("requestParameters.repositoryName"));
        }
        let id: Arc<str> = id.into();
        Ok(Event {
            replaces: replaces(record, &id),
            shared_id: identifier(record.shared_event_id.as_deref()).map(Into::into),
            id,
            time,
            name,
            account,
            region,
            repository,
            caller: match record.user_identity.filter(|_| judged) {
                Some(identity) => self.caller(identity, opening),
                None if judged => UserIdentity::default().caller(),
                None => Caller::default(),
            },
            outcome,
            omitted,
            action,
        })
    }

    /// Who called, by an identity that is part of this opening if there is one.
    fn caller(&mut self, identity: &str, opening: Option<usize>) -> Caller {
        let known = opening.and_then(|opening| self.skimmer.value(opening));
        match known {
            Some(known) => known.get_or_insert_with(|| caller(identity)).clone(),
            None => self.callers.get(identity, caller),
        }
    }

    /// The registry's account and region. The owner is the resource's, else the one that the
    /// request names, else who got the record.
    fn registry(
        &mut self,
        record: &Record<'_>,
        parts: &Parts<'_>,
        resource: Option<&Repository>,
    ) -> Result<(Arc<str>, Arc<str>), &'static str> {
        let short = |text: &&str| !text.is_empty() && text.len() <= 64;
        if let Some(Repository {
            account, region, ..
        }) = resource
        {
            Some(&**region).filter(short).ok_or("awsRegion")?;
            return Ok((account.clone(), region.clone()));
        }
        let region = record.aws_region.as_deref().filter(short);
        let region = region.ok_or("awsRegion")?;
        let request = parts.request.as_ref();
        let account = request
            .and_then(|request| request.registry_id.as_deref().filter(short))
            .or(record.recipient_account_id.as_deref())
            .filter(short)
            .ok_or("recipientAccountId")?;
        Ok((self.text(account), self.text(region)))
    }

    /// The repository, where the record names one.
    fn repository(
        &mut self,
        parts: &Parts<'_>,
        resource: Option<Repository>,
        (account, region): (&Arc<str>, &Arc<str>),
    ) -> Option<Repository> {
        let fits = |name: &&str| !name.is_empty() && name.len() <= MAX_NAME;
        let named = parts.repository_name();
        if let Some(resource) = resource
            && named.is_none_or(|name| name == &*resource.name)
        {
            return Some(resource).filter(|resource| fits(&&*resource.name));
        }
        let name = named.filter(fits)?;
        Some(Repository {
            account: account.clone(),
            region: region.clone(),
            name: self.text(name),
        })
    }

    /// One of the texts that most records have.
    fn text(&mut self, text: &str) -> Arc<str> {
        self.texts.get(text, |text| text.into())
    }
}

/// An `eventID` or `sharedEventID`: UUIDs, but not everywhere.
fn identifier(id: Option<&str>) -> Option<&str> {
    id.filter(|id| !id.is_empty() && id.len() <= MAX_NAME)
}

/// The id of the record that this one corrects; its own where the addendum names no other.
fn replaces(record: &Record<'_>, id: &Arc<str>) -> Option<Arc<str>> {
    let addendum = record.addendum.as_ref()?;
    let corrects = addendum.reason.as_deref() == Some("UPDATED_DATA");
    let original = || identifier(addendum.original_event_id.as_deref()).map(Into::into);
    corrects.then(|| original().unwrap_or_else(|| id.clone()))
}

/// The record's variable parts, and whether CloudTrail left out one of them. Where nothing is
/// judged by them, a part of unexpected shape is as good as none. The request may have been read.
fn parts<'a>(
    record: &Record<'a>,
    request: Option<Request<'a>>,
    strict: bool,
) -> Result<(Parts<'a>, bool), DecodeError> {
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
        request: match request {
            Some(request) => Some(request),
            None => lenient(part(record.request_parameters, &mut omitted), strict)?,
        },
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

/// What was read of a record along with its members.
#[derive(Default)]
struct Besides<'a> {
    opening: Option<usize>,
    request: Option<Request<'a>>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_that_is_written_as_usual_is_the_one_that_a_full_parse_gives(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]Z",
            place in 0..20_usize,
            put in prop::option::of("[-:TZ+ 0-9]"),
        ) {
            let mut text = text;
            if let Some(put) = put {
                text.replace_range(place..=place, &put);
            }
            if let Some(time) = usual_time(&text) {
                prop_assert_eq!(text.parse::<Timestamp>().ok(), Some(time));
            }
        }
    }

    #[test]
    fn cloudtrails_own_times_are_usual() {
        let time = usual_time("2026-03-01T23:59:59Z").unwrap();
        assert_eq!(time.to_string(), "2026-03-01T23:59:59Z");
        assert!(usual_time("2026-02-29T00:00:00Z").is_none());
        assert!(usual_time("2026-03-01T23:59:60Z").is_none());
    }
}
