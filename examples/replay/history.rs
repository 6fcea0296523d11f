//! The Event history of every account and region: what was given, and pages of it.
//!
//! Pages are positions, not copies: a walk with `NextToken` goes on below the last event
//! it was given. What arrives above that position meanwhile is not in it, what arrives
//! below is. `eventTime` has whole seconds, and so have both bounds of a lookup, which
//! are inclusive. What is older than 90 days is not returned.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::records::Given;

/// How long CloudTrail keeps the Event history.
const RETENTION: SignedDuration = SignedDuration::from_hours(90 * 24);

/// An account and a region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) struct Place {
    pub(crate) account: String,
    pub(crate) region: String,
}

/// Where an event stands: its `eventTime` in seconds, and the order in which it was given.
pub(crate) type Position = (i64, u64);

/// Above every event.
pub(crate) const TOP: Position = (i64::MAX, u64::MAX);

/// One element of `Events`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_field_names, reason = "the names are AWS's own")]
pub(crate) struct Event {
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    event_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_only: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_key_id: Option<String>,
    /// Seconds since 1970, which AWS writes with a fraction, as JSON 1.1 has it.
    event_time: f64,
    event_source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    resources: Vec<Resource>,
    cloud_trail_event: String,
    #[serde(skip)]
    visible_at: Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Resource {
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_type: Option<String>,
    resource_name: String,
}

/// `AttributeKey` of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum Key {
    AccessKeyId,
    EventId,
    EventName,
    EventSource,
    ReadOnly,
    ResourceName,
    ResourceType,
    Username,
}

/// What one lookup asks for.
pub(crate) struct Query<'a> {
    pub(crate) place: &'a Place,
    pub(crate) attribute: Option<(Key, &'a str)>,
    /// Both bounds are inclusive, in seconds.
    pub(crate) start: Option<i64>,
    pub(crate) end: Option<i64>,
    /// Only events below this position.
    pub(crate) below: Position,
    pub(crate) limit: usize,
    /// This many events from above the position come once more.
    pub(crate) repeat: usize,
    pub(crate) now: Timestamp,
}

/// A page: events, newest first, and the position below which there is more.
#[derive(Default)]
pub(crate) struct Page {
    pub(crate) events: Vec<Arc<Event>>,
    pub(crate) more_below: Option<Position>,
}

/// Why a record cannot be in an Event history.
#[derive(Debug, thiserror::Error)]
#[error("record {index}: {field} is missing or malformed")]
pub(crate) struct RecordError {
    index: usize,
    field: &'static str,
}

type Events = BTreeMap<Position, Arc<Event>>;

#[derive(Default)]
struct Names {
    all: Events,
    // Lookups by name are what a large history is asked for.
    by_name: HashMap<String, Events>,
}

/// Every Event history.
pub(crate) struct History {
    places: HashMap<Place, Names>,
    next: u64,
    default_account: String,
    /// How long after its `eventTime` an event is delivered.
    delay: SignedDuration,
}

impl History {
    pub(crate) fn new(default_account: String, delay: SignedDuration) -> Self {
        Self {
            places: HashMap::new(),
            next: 0,
            default_account,
            delay,
        }
    }

    /// Adds all records, or none. Nothing is deduplicated: what is given twice is
    /// delivered twice.
    pub(crate) fn add(&mut self, given: Vec<Given>, now: Timestamp) -> Result<usize, RecordError> {
        let mut ready = Vec::with_capacity(given.len());
        for (index, given) in given.into_iter().enumerate() {
            let wrong = |field| RecordError { index, field };
            ready.push(self.event(given, now).map_err(wrong)?);
        }
        let count = ready.len();
        for (place, seconds, event) in ready {
            self.next += 1;
            let position = (seconds, self.next);
            let event = Arc::new(event);
            let names = self.places.entry(place).or_default();
            let name = event.event_name.clone();
            let same_name = names.by_name.entry(name).or_default();
            same_name.insert(position, Arc::clone(&event));
            names.all.insert(position, event);
        }
        Ok(count)
    }

    /// Forgets every record.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
    }

    /// How many records each place holds.
    pub(crate) fn counts(&self) -> BTreeMap<&Place, usize> {
        let places = self.places.iter();
        places
            .map(|(place, names)| (place, names.all.len()))
            .collect()
    }

    fn event(&self, given: Given, now: Timestamp) -> Result<(Place, i64, Event), &'static str> {
        let record: Value = serde_json::from_str(&given.record).map_err(|_| "the record's text")?;
        let text = |path: &str| Some(record.pointer(path)?.as_str()?.to_owned());
        let time: Timestamp = text("/eventTime")
            .and_then(|time| time.parse().ok())
            .ok_or("eventTime")?;
        let place = Place {
            account: text("/recipientAccountId")
                .or_else(|| text("/userIdentity/accountId"))
                .unwrap_or_else(|| self.default_account.clone()),
            region: text("/awsRegion").ok_or("awsRegion")?,
        };
        let visible_at = match given.visible_after {
            Some(seconds) => now.checked_add(SignedDuration::from_secs(seconds)),
            None => time.checked_add(self.delay),
        };
        let resources = record.get("resources").and_then(Value::as_array);
        let event = Event {
            event_id: text("/eventID"),
            event_name: text("/eventName").ok_or("eventName")?,
            // A boolean in the record, a string in the answer.
            read_only: match record.get("readOnly") {
                Some(Value::Bool(flag)) => Some(flag.to_string()),
                Some(Value::String(flag)) => Some(flag.clone()),
                _ => None,
            },
            access_key_id: text("/userIdentity/accessKeyId"),
            #[expect(clippy::cast_precision_loss, reason = "a time has few digits")]
            event_time: time.as_second() as f64,
            event_source: text("/eventSource").ok_or("eventSource")?,
            username: username(&record),
            resources: resources
                .into_iter()
                .flatten()
                .filter_map(resource)
                .collect(),
            visible_at: visible_at.map_err(|_| "eventTime")?,
            cloud_trail_event: given.cloud_trail_event.unwrap_or(given.record),
        };
        Ok((place, time.as_second(), event))
    }

    /// One page.
    pub(crate) fn page(&self, query: &Query<'_>) -> Page {
        let Some(names) = self.places.get(query.place) else {
            return Page::default();
        };
        let none = Events::new();
        let events = match query.attribute {
            Some((Key::EventName, name)) => names.by_name.get(name).unwrap_or(&none),
            _ => &names.all,
        };
        let kept_since = (query.now - RETENTION).as_second();
        let low = (query.start.unwrap_or(i64::MIN).max(kept_since), 0);
        let high = (query.end.unwrap_or(i64::MAX), u64::MAX);
        if low > high {
            return Page::default();
        }
        let wanted = |(_, event): &(&Position, &Arc<Event>)| {
            event.visible_at <= query.now
                && query
                    .attribute
                    .is_none_or(|(key, value)| event.has(key, value))
        };
        let above = events.range(low..=high).filter(wanted);
        let mut again: Vec<_> = above
            .filter(|(position, _)| **position >= query.below)
            .take(query.repeat.min(query.limit.saturating_sub(1)))
            .map(|(_, event)| Arc::clone(event))
            .collect();
        again.reverse();

        let mut page = Page {
            events: again,
            more_below: None,
        };
        let mut last = query.below;
        let below = query.below.min((high.0, high.1));
        if below < low {
            return page;
        }
        let rest = events.range(low..=below).rev().filter(wanted);
        for (position, event) in rest.filter(|(position, _)| **position < query.below) {
            if page.events.len() == query.limit {
                page.more_below = Some(last);
                break;
            }
            page.events.push(Arc::clone(event));
            last = *position;
        }
        page
    }
}

impl Event {
    fn has(&self, key: Key, value: &str) -> bool {
        let is = |field: &Option<String>| field.as_deref() == Some(value);
        match key {
            Key::AccessKeyId => is(&self.access_key_id),
            Key::EventId => is(&self.event_id),
            Key::EventName => self.event_name == value,
            Key::EventSource => self.event_source == value,
            Key::ReadOnly => is(&self.read_only),
            Key::Username => is(&self.username),
            Key::ResourceName => self.resources.iter().any(|of| of.resource_name == value),
            Key::ResourceType => self.resources.iter().any(|of| is(&of.resource_type)),
        }
    }
}

/// The user's name, or an assumed role's session; of others there is none.
fn username(record: &Value) -> Option<String> {
    let identity = record.get("userIdentity")?;
    let text = |field: &str| identity.get(field)?.as_str();
    let name = match text("type") {
        Some("AssumedRole") => text("arn")?.rsplit('/').next()?,
        Some("Root") => "root",
        _ => text("userName")?,
    };
    Some(name.to_owned())
}

fn resource(resource: &Value) -> Option<Resource> {
    let text = |field: &str| Some(resource.get(field)?.as_str()?.to_owned());
    Some(Resource {
        resource_type: text("type"),
        resource_name: text("ARN").or_else(|| text("arn"))?,
    })
}
