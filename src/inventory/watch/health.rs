//! How a watch is doing, and what is told of its failures.

use kube::runtime::watcher;

use crate::inventory::Kind;

/// Longest message of a failure; part of it is the server's own text.
const MAX_MESSAGE: usize = 300;

/// How the watch of one kind is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is watched.
    pub kind: Kind,
    /// Whether every object of this kind has been seen at least once.
    pub synced: bool,
    /// How many times every object was listed.
    pub lists: u64,
    /// How many times an object could not be decoded.
    pub undecodable: u64,
    /// Why it does not work at present.
    pub failure: Option<Failure>,
}

/// Why objects could not be listed or watched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {verb} {}: {message}", kind.plural())]
pub struct Failure {
    /// What could not be read.
    pub kind: Kind,
    /// The verb of the request, as an RBAC rule names it: `list` or `watch`.
    pub verb: &'static str,
    /// `Forbidden`, `Unauthorized`, `Throttled`, `ServerError`, `Refused`, `Malformed` or
    /// `Unreachable`.
    pub reason: &'static str,
    /// The API server's message, or the transport's; bounded.
    pub message: String,
}

impl Failure {
    pub(super) fn new(kind: Kind, error: &watcher::Error) -> Self {
        let (verb, reason, message) = match error {
            watcher::Error::InitialListFailed(error) => described("list", error),
            watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
                described("watch", error)
            }
            watcher::Error::WatchError(status) => {
                ("watch", reason(status.code), status.message.clone())
            }
            watcher::Error::NoResourceVersion => ("list", "Malformed", error.to_string()),
        };
        Self {
            kind,
            verb,
            reason,
            message: bounded(&message),
        }
    }

    /// Whether waiting will not help.
    pub(super) fn is_definite(&self) -> bool {
        matches!(self.reason, "Forbidden" | "Unauthorized" | "Refused")
    }
}

fn described(verb: &'static str, error: &kube::Error) -> (&'static str, &'static str, String) {
    match error {
        kube::Error::Api(status) => (verb, reason(status.code), status.message.clone()),
        kube::Error::SerdeError(_) => (verb, "Malformed", error.to_string()),
        _ => (verb, "Unreachable", chain(error)),
    }
}

fn reason(code: u16) -> &'static str {
    match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        429 => "Throttled",
        400..500 => "Refused",
        _ => "ServerError",
    }
}

/// Whether the API server no longer knows where a watch, or a list of several pages, was.
pub(super) fn is_gone(error: &watcher::Error) -> bool {
    let (watcher::Error::WatchError(status)
    | watcher::Error::InitialListFailed(kube::Error::Api(status))) = error
    else {
        return false;
    };
    status.code == 410
}

/// An error with its causes: the outermost says only that a request failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

/// On one line, and not longer than anybody reads.
pub(super) fn bounded(message: &str) -> String {
    message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_MESSAGE)
        .collect()
}
