//! Who touched what runs, expected or not: what a policy can be written from.
//!
//! Which calls concern a running image is decided by the same code that makes findings.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    ClusterNodes, Container, RepositoryEvidence, Rules,
    assess::{history_of, past},
    traffic::{Concerns, pushed, resolve},
};
use crate::event::{Action, Caller, Outcome};

/// What somebody did to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    /// Pulled it.
    Pull,
    /// Was refused to pull it.
    DeniedPull,
    /// Pushed it, or moved its tag.
    Push,
    /// Was refused to push it.
    DeniedPush,
}

/// What one principal did to the images that run from one repository, within the lookback.
#[derive(Clone, Debug)]
pub struct Activity {
    /// Who, by the latest call.
    pub caller: Arc<Caller>,
    /// What.
    pub deed: Deed,
    /// Whether the policy expects it; none where it does not judge such calls. A principal whose
    /// sessions differ in this has an activity for each answer.
    pub expected: Option<bool>,
    /// Whether it did so as a node of this cluster.
    pub node: bool,
    /// Number of calls, each once, however many images it named.
    pub count: u64,
    /// Time of the first call.
    pub first: Timestamp,
    /// Time of the last call.
    pub last: Timestamp,
}

/// What tells activities apart: principal, deed, whether it is expected, whether by a node.
pub type ActivityKey = (Arc<str>, Deed, Option<bool>, bool);

impl Activity {
    /// What tells it from others.
    pub fn key(&self) -> ActivityKey {
        let principal = &self.caller.principal;
        (principal.key.clone(), self.deed, self.expected, self.node)
    }
}

/// With the `eventID` of the latest call.
type Tallies = BTreeMap<ActivityKey, (Activity, Arc<str>)>;

/// What every principal did to the images that these containers run, sorted by principal and deed.
/// `evidence` must hold the expected pulls, too.
pub fn activity(
    containers: &[Container<'_>],
    evidence: &RepositoryEvidence,
    nodes: &ClusterNodes,
    rules: &Rules,
    now: Timestamp,
) -> Vec<Activity> {
    let past = past(evidence, now);
    let (history, groups) = history_of(containers, &past);
    let concerns = Concerns::new(&groups, &history);
    let judged = rules.lookback_start(now)..=now;
    let mut tallies = Tallies::new();

    let mut verdicts: HashMap<*const Caller, (Option<bool>, bool)> = HashMap::new();
    let within = |pull: &&crate::event::Pull| judged.contains(&pull.time);
    for pull in evidence.pulls.iter().filter(within) {
        if resolve(pull, &history, &concerns).groups.is_empty() {
            continue;
        }
        let (expected, node) = *verdicts
            .entry(Arc::as_ptr(&pull.caller))
            .or_insert_with(|| {
                let caller = &pull.caller;
                (rules.expects_puller(caller, nodes), nodes.holds(caller))
            });
        let deed = if pull.denied {
            Deed::DeniedPull
        } else {
            Deed::Pull
        };
        tally(
            &mut tallies,
            Activity {
                caller: pull.caller.clone(),
                deed,
                expected,
                node,
                count: 1,
                first: pull.time,
                last: pull.time,
            },
            &pull.id,
        );
    }
    for event in past.iter().filter(|event| judged.contains(&event.time)) {
        let Action::Push {
            image, manifest, ..
        } = &event.action
        else {
            continue;
        };
        let children = manifest.iter().flat_map(|manifest| &manifest.children);
        let children: Vec<_> = children.map(|child| &child.digest).collect();
        if pushed(&groups, &concerns, image, &children, event.time).is_empty() {
            continue;
        }
        let deed = match event.outcome {
            Outcome::Denied => Deed::DeniedPush,
            Outcome::Allowed | Outcome::Failed => Deed::Push,
        };
        tally(
            &mut tallies,
            Activity {
                caller: event.caller.clone(),
                deed,
                expected: rules.expects_pusher(&event.caller),
                node: nodes.holds(&event.caller),
                count: 1,
                first: event.time,
                last: event.time,
            },
            &event.id,
        );
    }
    tallies
        .into_values()
        .map(|(activity, _)| activity)
        .collect()
}

fn tally(tallies: &mut Tallies, call: Activity, id: &Arc<str>) {
    let key = call.key();
    match tallies.get_mut(&key) {
        None => {
            tallies.insert(key, (call, id.clone()));
        }
        Some((known, latest)) => {
            known.count += 1;
            known.first = known.first.min(call.first);
            if (call.last, id) > (known.last, &*latest) {
                known.last = call.last;
                known.caller = call.caller;
                *latest = id.clone();
            }
        }
    }
}
