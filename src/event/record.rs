//! One CloudTrail record of ECR: its text → [`Event`].

use std::{borrow::Cow, cell::RefCell, sync::Arc};

use jiff::{Timestamp, civil, tz};
use serde::Deserialize;

use super::{
    action::Parts,
    facts::{Action, Event, EventName, Outcome},
    image::{Repository, RepositoryRef},
    lately::Lately,
    principal::{Caller, UserIdentity},
    skim::{Skimmed, Skimmer},
    wire::{MAX_NAME, Record, Resource, is_stand_in},
};

/// `eventSource` of the records that this project reads. ECR Public's is another one.
pub(crate) const EVENT_SOURCE: &str = "ecr.amazonaws.com";

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

/// The first ARN of a repository among a record's `resources`; those of unexpected shape are as
/// good as none.
pub(super) fn repository_arn(text: &str) -> Option<Cow<'_, str>> {
    let resources: Vec<Resource<'_>> = serde_json::from_str(text).ok()?;
    let mut arns = resources.into_iter().filter_map(|resource| resource.arn);
    arns.find(|arn| RepositoryRef::of_arn(arn).is_some())
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

/// Reads one record of ECR. What a [`Decoder`] remembers each thread keeps from call to call.
///
/// # Errors
/// [`DecodeError`] when the text is no CloudTrail record, is of another service, or lacks what
/// this event cannot be judged without.
pub fn decode(text: &[u8]) -> Result<Event, DecodeError> {
    thread_local!(static DECODER: RefCell<Decoder> = RefCell::default());
    DECODER.with_borrow_mut(|decoder| decoder.decode(text))
}

/// Reads records of ECR, and remembers what many of them have in common: who called, and where.
#[derive(Debug, Default)]
pub struct Decoder {
    skimmer: Skimmer<Arc<Caller>>,
    callers: Lately<Arc<Caller>, 256>,
    texts: Lately<Arc<str>, 1024>,
}

/// All that is said of a record by which nothing is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted<'a> {
    /// As [`Event::id`].
    pub id: &'a str,
    /// As [`Event::shared_id`].
    pub shared_id: Option<&'a str>,
    /// As [`Event::time`].
    pub time: Timestamp,
    /// As [`Event::account`].
    pub account: &'a str,
    /// As [`Event::region`].
    pub region: &'a str,
    /// As [`Event::omitted`].
    pub omitted: bool,
    /// Who called, of a pull that was allowed or denied.
    pub puller: Option<Arc<Caller>>,
}

impl<'a> From<&'a Event> for Counted<'a> {
    fn from(event: &'a Event) -> Self {
        let is_pull = matches!(event.action, Action::Pull(_));
        Self {
            id: &event.id,
            shared_id: event.shared_id.as_deref(),
            time: event.time,
            account: &event.account,
            region: &event.region,
            omitted: event.omitted,
            puller: is_pull.then(|| event.caller.clone()),
        }
    }
}

/// What every event has.
struct Head<'r> {
    name: EventName,
    id: &'r str,
    time: Timestamp,
    outcome: Outcome,
    judged: bool,
    omitted: bool,
    /// The registry's account and region.
    account: &'r str,
    region: &'r str,
    /// The repository, where the record names one.
    repository: Option<RepositoryRef<'r>>,
}

impl Decoder {
    /// Reads one record, as [`decode`] does.
    ///
    /// # Errors
    /// Those of [`decode`].
    pub fn decode(&mut self, text: &[u8]) -> Result<Event, DecodeError> {
        let mut read = Skimmed::default();
        self.read(text, &mut read)?;
        let name = read.record.name()?;
        read.fill(name)?;
        self.event(&read, &Head::of(&read, name)?)
    }

    /// Reads one record, as [`decode`] does, if something may be judged by it: by its name, and
    /// because its repository `matters`. Of any other only what `count` is given, and then there is
    /// no event.
    ///
    /// # Errors
    /// Those of [`decode`], whether it matters or not.
    pub fn decode_judged(
        &mut self,
        text: &[u8],
        matters: impl FnOnce(&RepositoryRef<'_>) -> bool,
        count: impl FnOnce(Counted<'_>),
    ) -> Result<Option<Event>, DecodeError> {
        let mut read = Skimmed::default();
        self.read(text, &mut read)?;
        let name = read.record.name()?;
        read.fill(name)?;
        let head = Head::of(&read, name)?;
        let record = &read.record;
        // A correction has to stand for another record in any case.
        let corrects = record.addendum.is_some();
        let here = || head.repository.as_ref().is_none_or(matters);
        if corrects || head.judged && here() {
            return self.event(&read, &head).map(Some);
        }
        let is_pull = head.judged && matches!(head.action(&read.parts, false)?, Action::Pull(_));
        count(Counted {
            id: head.id,
            shared_id: identifier(record.shared_event_id.as_deref()),
            time: head.time,
            account: head.account,
            region: head.region,
            omitted: head.omitted,
            puller: is_pull.then(|| self.caller(record.user_identity, read.opening)),
        });
        Ok(None)
    }

    /// A record's members, and what is read of them besides.
    fn read<'a>(&mut self, text: &'a [u8], read: &mut Skimmed<'a>) -> Result<(), DecodeError> {
        // Looking at all bytes once is faster than at each text; what is not UTF-8 may still hold
        // only texts that nobody reads.
        let record = match simdutf8::basic::from_utf8(text) {
            Ok(text) if self.skimmer.skim(text, read).is_some() => return Ok(()),
            Ok(text) => serde_json::from_str(text)?,
            Err(_) => serde_json::from_slice(text)?,
        };
        *read = Skimmed {
            record,
            stand_in: true,
            ..Skimmed::default()
        };
        Ok(())
    }

    fn event(&mut self, read: &Skimmed<'_>, head: &Head<'_>) -> Result<Event, DecodeError> {
        let record = &read.record;
        let action = if head.judged {
            head.action(&read.parts, true)?
        } else {
            Action::None
        };
        if head.repository.is_none() && action != Action::None {
            return Err(head.missing("requestParameters.repositoryName"));
        }
        let id: Arc<str> = head.id.into();
        Ok(Event {
            replaces: replaces(record, &id),
            shared_id: identifier(record.shared_event_id.as_deref()).map(Into::into),
            id,
            time: head.time,
            name: head.name,
            account: self.text(head.account),
            region: self.text(head.region),
            repository: head.repository.map(|repository| Repository {
                account: self.text(repository.account),
                region: self.text(repository.region),
                name: self.text(repository.name),
            }),
            caller: if head.judged {
                self.caller(record.user_identity, read.opening)
            } else {
                Arc::default()
            },
            outcome: head.outcome,
            omitted: head.omitted,
            action,
        })
    }

    /// Who called, by an identity that is part of this opening if there is one.
    fn caller(&mut self, identity: Option<&str>, opening: Option<usize>) -> Arc<Caller> {
        let caller = |identity: &str| Arc::new(caller(identity));
        let Some(identity) = identity else {
            return Arc::new(UserIdentity::default().caller());
        };
        let known = opening.and_then(|opening| self.skimmer.value(opening));
        match known {
            Some(known) => known.get_or_insert_with(|| caller(identity)).clone(),
            None => self.callers.get(identity, caller),
        }
    }

    /// One of the texts that most records have.
    fn text(&mut self, text: &str) -> Arc<str> {
        self.texts.get(text, |text| text.into())
    }
}

impl<'r> Head<'r> {
    fn of(read: &'r Skimmed<'_>, name: EventName) -> Result<Self, DecodeError> {
        let Skimmed {
            record,
            parts,
            resource,
            arn,
            ..
        } = read;
        let missing = |field| DecodeError::Field { event: name, field };
        let id = identifier(record.event_id.as_deref()).ok_or_else(|| missing("eventID"))?;
        let time = record
            .event_time
            .as_deref()
            .and_then(parse_time)
            .ok_or_else(|| missing("eventTime"))?;

        // The owner is the resource's, else the one that the request names, else who got the record.
        let resource = resource.or_else(|| RepositoryRef::of_arn(arn.as_deref()?));
        let short = |text: &&str| !text.is_empty() && text.len() <= 64;
        let region = match resource {
            Some(resource) => Some(resource.region),
            None => record.aws_region.as_deref(),
        };
        let region = region.filter(short).ok_or_else(|| missing("awsRegion"))?;
        let account = match (resource, &parts.request) {
            (Some(resource), _) => Some(resource.account),
            (None, Some(request)) => request.registry_id.as_deref().filter(short),
            (None, None) => None,
        };
        let account = account
            .or_else(|| record.recipient_account_id.as_deref().filter(short))
            .ok_or_else(|| missing("recipientAccountId"))?;

        let repository = match (resource, parts.repository_name()) {
            (Some(resource), None) => Some(resource),
            (Some(resource), Some(name)) if resource.name == name => Some(resource),
            (_, Some(name)) => Some(RepositoryRef {
                account,
                region,
                name,
            }),
            (None, None) => None,
        };
        let fits = |name: &str| !name.is_empty() && name.len() <= MAX_NAME;
        Ok(Self {
            name,
            id,
            time,
            outcome: record.outcome(),
            judged: record.is_judged(name),
            omitted: read.omitted,
            account,
            region,
            repository: repository.filter(|repository| fits(repository.name)),
        })
    }

    fn action(&self, parts: &Parts<'_>, matters: bool) -> Result<Action, DecodeError> {
        parts
            .action(self.name, self.outcome, self.omitted, matters)
            .map_err(|field| self.missing(field))
    }

    fn missing(&self, field: &'static str) -> DecodeError {
        DecodeError::Field {
            event: self.name,
            field,
        }
    }
}

impl Record<'_> {
    /// The event's name, of a record of ECR.
    fn name(&self) -> Result<EventName, DecodeError> {
        if self.event_source.as_deref() != Some(EVENT_SOURCE) {
            return Err(DecodeError::OtherService);
        }
        let name = self.event_name.as_deref();
        name.and_then(|name| name.parse().ok())
            .ok_or(DecodeError::Field {
                event: EventName::Other,
                field: "eventName",
            })
    }

    /// Whether something may be judged by it.
    fn is_judged(&self, name: EventName) -> bool {
        // Insights and network activity events carry the same names, and mean something else.
        let category = self.event_category.as_deref();
        EventName::JUDGED.contains(&name)
            && category.is_none_or(|category| category == "Management")
    }

    fn outcome(&self) -> Outcome {
        outcome(self.error_code.as_deref())
    }
}

impl Skimmed<'_> {
    /// Reads what was not read yet of the record's variable parts, as far as it is needed, and
    /// whether CloudTrail left out one of them. Where nothing is judged by it, a part of unexpected
    /// shape is as good as none.
    fn fill(&mut self, name: EventName) -> Result<(), DecodeError> {
        let Self {
            record,
            parts,
            resource,
            arn,
            resources_read,
            stand_in,
            omitted,
            opening: _,
        } = self;
        if !*resources_read {
            *arn = record.resources.and_then(repository_arn);
        }
        let wanted = [
            record.request_parameters,
            record.response_elements,
            record.service_event_details,
        ];
        if *stand_in {
            *omitted = wanted.into_iter().flatten().any(is_stand_in);
        }
        let [request, response, details] =
            wanted.map(|raw| raw.filter(|raw| !*omitted || !is_stand_in(raw)));
        if record.is_judged(name) {
            let strict = record.outcome() == Outcome::Allowed;
            fill(&mut parts.request, request, strict)?;
            fill(&mut parts.response, response, strict)?;
            fill(&mut parts.details, details, strict)?;
        } else if resource.is_none() && arn.is_none() {
            // Only the request names the registry.
            fill(&mut parts.request, request, false)?;
        }
        Ok(())
    }
}

fn fill<'a, T: Deserialize<'a>>(
    part: &mut Option<T>,
    raw: Option<&'a str>,
    strict: bool,
) -> serde_json::Result<()> {
    let Some(raw) = raw.filter(|_| part.is_none()) else {
        return Ok(());
    };
    match serde_json::from_str(raw) {
        Ok(read) => *part = Some(read),
        Err(error) if strict => return Err(error),
        Err(_) => {}
    }
    Ok(())
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

/// Who called; an identity of unexpected shape is as good as none.
fn caller(identity: &str) -> Caller {
    let identity = serde_json::from_str::<UserIdentity<'_>>(identity);
    identity.unwrap_or_default().caller()
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
