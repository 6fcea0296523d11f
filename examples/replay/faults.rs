//! What goes wrong on request: each fault says which calls it is for, and for how many.

use serde::{Deserialize, Serialize};

/// A fault, as `PUT /_replay/faults` takes it in an array. What is not given matches
/// every call of the operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// `LookupEvents`, unless said otherwise.
    #[serde(default)]
    pub(crate) operation: Operation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    /// The `EventName` that is looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event_name: Option<String>,
    /// ARN of the role that is assumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    /// How many calls are left for it; absent: until it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
    /// The share of calls that it hits, 0 to 1; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    /// HTTP status of `serverError` (default 503) and `answer` (default 200).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    /// Body of `answer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<String>,
    /// How long `delay` waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    milliseconds: Option<u64>,
    /// How many events `repeat` brings again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    events: Option<usize>,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kind {
    /// `ThrottlingException`, whatever the quota says.
    Throttle,
    /// 503, or another status.
    ServerError,
    /// The connection is reset instead of an answer.
    Reset,
    /// A good answer that is cut off in the middle of its body.
    Truncate,
    /// 200 with `{}`: no `Events`.
    NoEvents,
    /// 200 with a body that is no JSON.
    Garbage,
    /// Any status with any body.
    Answer,
    /// A page without events that says there are more: LookupEvents may do this.
    EmptyPage,
    /// `AccessDeniedException`; of STS `AccessDenied`.
    AccessDenied,
    /// `ExpiredTokenException`; of STS `ExpiredToken`.
    ExpiredToken,
    /// `InvalidNextTokenException`, for calls that carry a `NextToken`.
    InvalidNextToken,
    /// An answer that takes its time. Other faults may hit the same call.
    Delay,
    /// The last events of a page come again on the next one.
    Repeat,
}

/// What is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Operation {
    #[default]
    LookupEvents,
    AssumeRole,
    GetCallerIdentity,
}

/// A call, as faults look at it.
#[derive(Default)]
pub(crate) struct Call<'a> {
    pub(crate) operation: Operation,
    pub(crate) account: &'a str,
    pub(crate) region: &'a str,
    pub(crate) event_name: Option<&'a str>,
    pub(crate) role: Option<&'a str>,
    pub(crate) has_token: bool,
}

/// What faults make of a call.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) delay_milliseconds: u64,
    pub(crate) repeat: usize,
    /// The first fault that takes the answer's place.
    pub(crate) instead: Option<Fault>,
}

/// The faults in force.
#[derive(Default)]
pub(crate) struct Faults(pub(crate) Vec<Fault>);

impl Faults {
    /// Applies what matches the call and counts it down.
    pub(crate) fn hit(&mut self, call: &Call<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        for fault in &mut self.0 {
            let taken = outcome.instead.is_some();
            let beside = matches!(fault.kind, Kind::Delay | Kind::Repeat);
            if (taken && !beside) || !fault.matches(call) {
                continue;
            }
            if let Some(left) = &mut fault.next {
                *left -= 1;
            }
            match fault.kind {
                Kind::Delay => outcome.delay_milliseconds += fault.milliseconds.unwrap_or(1000),
                Kind::Repeat => outcome.repeat += fault.events.unwrap_or(1),
                _ => outcome.instead = Some(fault.clone()),
            }
        }
        self.0.retain(|fault| fault.next != Some(0));
        outcome
    }
}

impl Fault {
    fn matches(&self, call: &Call<'_>) -> bool {
        let fits = |wanted: &Option<String>, is: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| is == Some(wanted))
        };
        self.operation == call.operation
            && self.next != Some(0)
            && fits(&self.account, Some(call.account))
            && fits(&self.region, Some(call.region))
            && fits(&self.event_name, call.event_name)
            && fits(&self.role, call.role)
            && (self.kind != Kind::InvalidNextToken || call.has_token)
            && self.rate.is_none_or(|rate| rand::random::<f64>() < rate)
    }
}
