//! `LookupEvents`, as CloudTrail's API reference describes it.

use axum::{
    body::Body,
    http::{Response, StatusCode},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Server,
    answer::{faulty, json_answer, json_error, reset, truncated},
    auth::{self, AuthError, Caller},
    connection::Reset,
    faults::{Call, Fault, Kind, Operation},
    history::{Event, Key, Page, Place, Position, Query, TOP},
    stats::Ending,
};

/// The page size, where a request does not say, and the largest one.
const MAX_RESULTS: i64 = 50;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Request {
    lookup_attributes: Vec<Attribute>,
    start_time: Option<f64>,
    end_time: Option<f64>,
    event_category: Option<String>,
    max_results: Option<i64>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    attribute_key: String,
    attribute_value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    events: Vec<&'a Event>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// A request that was understood.
struct Lookup<'a> {
    attribute: Option<(Key, &'a str)>,
    start: Option<i64>,
    end: Option<i64>,
    limit: usize,
    below: Position,
    /// What a token is good for.
    parameters: String,
    insights: bool,
}

/// An error's `__type` and message.
type Refusal = (&'static str, &'static str);

/// Answers one call.
pub(crate) async fn lookup_events(
    server: &Server,
    caller: Result<Caller, AuthError>,
    body: &[u8],
    connection: &Reset,
) -> Response<Body> {
    let caller = match caller {
        Ok(caller) => caller,
        Err(error) => return refused(auth_error(error)),
    };
    let place = Place {
        account: caller.account.clone(),
        region: caller.region.clone(),
    };
    let request: Request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(_) => return refused(("SerializationException", "the request is malformed")),
    };
    let name = request.label();
    let outcome = {
        let mut state = server.state();
        if !state.quota.take(&place) {
            state.stats.lookup(&place, &name, Ending::Throttled);
            return refused(THROTTLED);
        }
        state.faults.hit(&Call {
            operation: Operation::LookupEvents,
            account: &place.account,
            region: &place.region,
            event_name: Some(&name),
            role: None,
            has_token: request.next_token.is_some(),
        })
    };
    if outcome.delay_milliseconds > 0 {
        let delay = std::time::Duration::from_millis(outcome.delay_milliseconds);
        tokio::time::sleep(delay).await;
    }
    let (response, ending) = match outcome
        .instead
        .as_ref()
        .and_then(|fault| instead(fault, connection))
    {
        Some(answer) => answer,
        None => page(
            server,
            &place,
            &request,
            outcome.repeat,
            outcome.instead.as_ref(),
        ),
    };
    server.state().stats.lookup(&place, &name, ending);
    match outcome.instead {
        Some(fault) if fault.kind == Kind::Truncate => truncated(response).await,
        _ => response,
    }
}

const THROTTLED: Refusal = ("ThrottlingException", "Rate exceeded");
const EXPIRED: Refusal = (
    "ExpiredTokenException",
    "The security token included in the request is expired",
);
const BAD_TOKEN: Refusal = ("InvalidNextTokenException", "Invalid token in request");

fn refused((kind, message): Refusal) -> Response<Body> {
    json_error(kind, message)
}

fn auth_error(error: AuthError) -> Refusal {
    match error {
        AuthError::Missing => (
            "MissingAuthenticationTokenException",
            "Missing Authentication Token",
        ),
        AuthError::Unknown => (
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ),
        AuthError::Expired => EXPIRED,
    }
}

/// The answer of a fault that needs no page.
fn instead(fault: &Fault, connection: &Reset) -> Option<(Response<Body>, Ending)> {
    let good = |body: &str| json_answer(StatusCode::OK, body.as_bytes().to_vec());
    let response = match fault.kind {
        Kind::Throttle => return Some((refused(THROTTLED), Ending::Throttled)),
        Kind::ServerError => faulty(fault, StatusCode::SERVICE_UNAVAILABLE),
        Kind::Answer => faulty(fault, StatusCode::OK),
        Kind::NoEvents => good("{}"),
        Kind::Garbage => good("<html>no JSON</html>"),
        Kind::Reset => reset(connection),
        Kind::AccessDenied => refused((
            "AccessDeniedException",
            "not authorized to perform: cloudtrail:LookupEvents",
        )),
        Kind::ExpiredToken => refused(EXPIRED),
        Kind::InvalidNextToken => refused(BAD_TOKEN),
        Kind::Truncate | Kind::EmptyPage | Kind::Delay | Kind::Repeat => return None,
    };
    Some((response, Ending::Failed))
}

fn page(
    server: &Server,
    place: &Place,
    request: &Request,
    repeat: usize,
    fault: Option<&Fault>,
) -> (Response<Body>, Ending) {
    let now = server.now();
    let lookup = match Lookup::new(server, place, request, now) {
        Ok(lookup) => lookup,
        Err(refusal) => return (refused(refusal), Ending::Failed),
    };
    let page = if fault.is_some_and(|fault| fault.kind == Kind::EmptyPage) {
        Page {
            events: Vec::new(),
            more_below: Some(lookup.below),
        }
    } else if lookup.insights {
        Page::default()
    } else {
        server.state().history.page(&Query {
            place,
            attribute: lookup.attribute,
            start: lookup.start,
            end: lookup.end,
            below: lookup.below,
            limit: lookup.limit,
            repeat,
            now,
        })
    };
    let answer = Answer {
        events: page.events.iter().map(AsRef::as_ref).collect(),
        next_token: (page.more_below)
            .map(|below| server.tokens.issue(below, &lookup.parameters, now)),
    };
    match serde_json::to_vec(&answer) {
        Ok(body) => {
            let ending = if fault.is_some_and(|fault| fault.kind == Kind::Truncate) {
                Ending::Failed
            } else {
                Ending::Page(page.events.len())
            };
            (json_answer(StatusCode::OK, body), ending)
        }
        Err(_) => (refused(("InternalFailure", "")), Ending::Failed),
    }
}

impl Request {
    /// What is looked up, for counters and faults: the event name, `ReadOnly=true` …, or `*`.
    fn label(&self) -> String {
        match self.lookup_attributes.first() {
            None => "*".to_owned(),
            Some(of) if of.attribute_key == "EventName" => of.attribute_value.clone(),
            Some(of) => format!("{}={}", of.attribute_key, of.attribute_value),
        }
    }
}

impl<'a> Lookup<'a> {
    fn new(
        server: &Server,
        place: &Place,
        request: &'a Request,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        const ATTRIBUTES: Refusal = (
            "InvalidLookupAttributesException",
            "LookupAttributes takes one attribute with a known key",
        );
        const RESULTS: Refusal = (
            "InvalidMaxResultsException",
            "MaxResults must be between 1 and 50",
        );
        let attribute = match request.lookup_attributes.as_slice() {
            [] => None,
            [of] => {
                let key = serde_json::Value::from(of.attribute_key.as_str());
                let key = serde_json::from_value(key).map_err(|_| ATTRIBUTES)?;
                Some((key, of.attribute_value.as_str()))
            }
            _ => return Err(ATTRIBUTES),
        };
        let limit = request.max_results.unwrap_or(MAX_RESULTS);
        if !(1..=MAX_RESULTS).contains(&limit) {
            return Err(RESULTS);
        }
        let (start, end) = (seconds(request.start_time)?, seconds(request.end_time)?);
        if let (Some(start), Some(end)) = (start, end)
            && start > end
        {
            return Err((
                "InvalidTimeRangeException",
                "StartTime must not be after EndTime",
            ));
        }
        let insights = match request.event_category.as_deref() {
            None => false,
            Some("insight") => true,
            Some(_) => return Err(("InvalidEventCategoryException", "unknown EventCategory")),
        };
        let parameters = format!(
            "{place:?} {attribute:?} {:?} {:?} {limit} {insights}",
            request.start_time, request.end_time
        );
        let below = match &request.next_token {
            None => TOP,
            Some(token) => server
                .tokens
                .open(token, &parameters, now)
                .ok_or(BAD_TOKEN)?,
        };
        Ok(Self {
            attribute,
            start,
            end,
            limit: usize::try_from(limit).map_err(|_| RESULTS)?,
            below,
            parameters,
            insights,
        })
    }
}

/// Whole seconds of a time, which has to be one that exists.
fn seconds(time: Option<f64>) -> Result<Option<i64>, Refusal> {
    const RANGE: Refusal = ("InvalidTimeRangeException", "a time is out of range");
    let Some(time) = time else {
        return Ok(None);
    };
    if !(0.0..253_402_300_800.0).contains(&time) {
        return Err(RANGE);
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
    Ok(Some(time.floor() as i64))
}

/// `NextToken`s: each says everything about itself, and is good for the parameters that
/// it was issued for, until it expires.
pub(crate) struct Tokens {
    secret: u128,
    lifetime_seconds: i64,
}

impl Tokens {
    pub(crate) fn new(lifetime_seconds: i64) -> Self {
        Self {
            secret: rand::random(),
            lifetime_seconds,
        }
    }

    fn issue(&self, below: Position, parameters: &str, now: Timestamp) -> String {
        let content = format!("{:x}-{:x}-{:x}", below.0, below.1, now.as_second());
        format!("{}-{content}", self.check(&content, parameters))
    }

    fn open(&self, token: &str, parameters: &str, now: Timestamp) -> Option<Position> {
        let (check, content) = token.split_once('-')?;
        if check != self.check(content, parameters) {
            return None;
        }
        let mut parts = content.split('-');
        let seconds = i64::from_str_radix(parts.next()?, 16).ok()?;
        let order = u64::from_str_radix(parts.next()?, 16).ok()?;
        let issued = i64::from_str_radix(parts.next()?, 16).ok()?;
        (now.as_second() - issued < self.lifetime_seconds).then_some((seconds, order))
    }

    fn check(&self, content: &str, parameters: &str) -> String {
        auth::hash(&format!("{} {content} {parameters}", self.secret), 16)
    }
}
