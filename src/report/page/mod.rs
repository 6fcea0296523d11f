//! The status page: what the operator has judged, for somebody on call at three in the morning.
//! First the answer, then the findings, then what the answer rests on.
//!
//! Nothing is judged here. A [`Snapshot`] holds what a pass has published, and what its sources
//! had read; the page is made from it when somebody asks. All text of others goes through
//! [`plain`](super::text::plain) here and is escaped by the template; every list has an end.

mod answer;
mod coverage;
mod findings;
mod policies;
mod sources;
#[cfg(test)]
mod tests;
mod time;

use std::{collections::HashMap, sync::Arc};

use askama::Template;
use jiff::{SignedDuration, Timestamp};

use self::{
    answer::Answer,
    coverage::Coverage,
    findings::{FindingView, Shown},
    policies::PolicyView,
    sources::Sources,
    time::Moment,
};
use super::{
    evidence::{Evidence, SourceHealth},
    text::plain,
};
use crate::source::{Health, PollerKey};

pub use self::policies::PolicyPage;

/// The page's style sheet, which it asks for as `/status.css`.
pub const STYLE: &str = include_str!("../../../templates/status.css");

/// A leader that has not judged for so long has a reason that somebody should look for.
const SILENCE: SignedDuration = SignedDuration::from_mins(2);
/// Longest name in Kubernetes, in bytes.
const NAME: usize = 253;
/// Longest message, in bytes: as long as a condition's.
const MESSAGE: usize = 1024;
/// Policies that are shown in full.
const POLICIES: usize = 20;

/// What a pass of the leader has left for the page.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was judged.
    pub time: Timestamp,
    /// Each policy, as it was published.
    pub policies: Vec<PolicyPage>,
    /// How every reader is.
    pub sources: Vec<Arc<Health>>,
    /// Which sources of which policies each reader serves, as `policy/source`.
    pub names: HashMap<PollerKey, Vec<String>>,
}

/// What this process has to say.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It leads; none before its first pass.
    Leads(Option<Arc<Snapshot>>),
    /// Another one leads, or none that is known.
    StandsBy {
        /// Who holds the lease.
        leader: Option<String>,
        /// The namespace of both.
        namespace: String,
        /// The port that the page is served on.
        port: u16,
    },
}

/// How good or bad something is: the class of its colour. The word beside it says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Bad,
    Warn,
    Unknown,
    Good,
}

impl Level {
    const fn class(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Warn => "warn",
            Self::Unknown => "unknown",
            Self::Good => "good",
        }
    }
}

#[derive(Template)]
#[template(path = "status.html")]
struct Page {
    title: String,
    /// Seconds after which the browser asks again.
    refresh: Option<u32>,
    identity: String,
    version: &'static str,
    now: Moment,
    /// What has to be there first, and is not.
    waits: Vec<String>,
    body: Body,
}

enum Body {
    Begins,
    StandsBy {
        leader: Option<String>,
        command: String,
    },
    Leads(Box<Judged>),
}

struct Judged {
    time: Moment,
    silent: bool,
    answer: Answer,
    findings: Shown<FindingView>,
    policies: Shown<PolicyView>,
    coverage: Coverage,
    sources: Sources,
}

/// The page as HTML. `waits` are the gates that are closed.
///
/// # Errors
/// When the template cannot be written, which would be a defect of this crate.
pub fn render(
    standing: &Standing,
    identity: &str,
    waits: &[String],
    refresh: bool,
    now: Timestamp,
) -> Result<String, askama::Error> {
    let (title, body) = match standing {
        Standing::Leads(Some(snapshot)) => {
            let judged = Judged::new(snapshot, now);
            (judged.answer.text.clone(), Body::Leads(Box::new(judged)))
        }
        Standing::Leads(None) => ("Nothing has been judged yet".to_owned(), Body::Begins),
        Standing::StandsBy {
            leader,
            namespace,
            port,
        } => {
            let leader = leader.as_deref().map(|leader| plain(leader, NAME));
            let command = leader.as_deref().map_or_else(String::new, |leader| {
                format!(
                    "kubectl -n {} port-forward pod/{leader} {port}",
                    plain(namespace, NAME)
                )
            });
            (
                "This replica stands by".to_owned(),
                Body::StandsBy { leader, command },
            )
        }
    };
    let page = Page {
        title,
        refresh: refresh.then_some(30),
        identity: plain(identity, NAME),
        version: env!("CARGO_PKG_VERSION"),
        now: Moment::new(now, now),
        waits: waits.iter().map(|wait| plain(wait, MESSAGE)).collect(),
        body,
    };
    page.render()
}

impl Judged {
    fn new(snapshot: &Snapshot, now: Timestamp) -> Self {
        let evidence = Evidence::new(
            snapshot
                .sources
                .iter()
                .map(|health| SourceHealth {
                    name: String::new(),
                    health: health.clone(),
                })
                .collect(),
        );
        let mut policies: Vec<&PolicyPage> = snapshot.policies.iter().collect();
        policies.sort_by_key(|policy| (policy.level(), policy.name.as_str()));
        Self {
            time: Moment::new(snapshot.time, now),
            silent: now.duration_since(snapshot.time) > SILENCE,
            answer: Answer::new(&snapshot.policies),
            findings: findings::shown(&snapshot.policies, now),
            policies: Shown::first(POLICIES, policies, |policy| PolicyView::new(policy, now)),
            coverage: Coverage::new(&evidence, now),
            sources: Sources::new(snapshot, now),
        }
    }
}
