//! Who touched what runs: pulls and pushes by callers that the policy does not expect.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    ClusterNodes, History, Rules, Tag,
    assess::{Draft, Events, Group},
    rules::ExceptionSet,
};
use crate::{
    api::FindingType,
    event::{Action, Caller, Digest, Event, ImageId, Outcome, Pull},
};

/// Findings about pulls and pushes.
pub(super) struct Traffic {
    pub(super) drafts: Vec<Draft>,
    /// Successful pulls by tag whose digest could not be told.
    pub(super) unresolved_pulls: u64,
}

/// Which groups a digest or tag concerns.
pub(super) struct Concerns<'g> {
    /// By a digest that a call may name: the running one, an index that lists it, or its child.
    by_digest: HashMap<Digest, Vec<usize>>,
    /// By the digest that runs.
    by_running: HashMap<&'g Digest, Vec<usize>>,
    /// By the tag of the reference.
    by_tag: HashMap<&'g str, Vec<usize>>,
    /// The digest that every container with this tag in its reference runs, if it is one.
    runs: HashMap<&'g str, Option<&'g Digest>>,
}

impl<'g> Concerns<'g> {
    pub(super) fn new(groups: &'g [Group<'_>], history: &History) -> Self {
        let mut by_digest: HashMap<Digest, Vec<usize>> = HashMap::new();
        let mut by_running: HashMap<&Digest, Vec<usize>> = HashMap::new();
        let mut by_tag: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut runs: HashMap<&str, Option<&Digest>> = HashMap::new();
        for (i, group) in groups.iter().enumerate() {
            if let Some(digest) = &group.digest {
                by_running.entry(digest).or_default().push(i);
                let lineage = history
                    .indexes_of(digest)
                    .chain(history.children_of(digest));
                for named in [digest].into_iter().chain(lineage) {
                    let concerned = by_digest.entry(named.clone()).or_default();
                    if concerned.last() != Some(&i) {
                        concerned.push(i);
                    }
                }
            }
            if let Some(tag) = group.first().reference.tag.as_deref() {
                by_tag.entry(tag).or_default().push(i);
                if group
                    .containers
                    .iter()
                    .any(|container| container.running.is_some())
                {
                    runs.entry(tag)
                        .and_modify(|one| {
                            *one = one.filter(|one| Some(*one) == group.digest.as_ref());
                        })
                        .or_insert(group.digest.as_ref());
                }
            }
        }
        Self {
            by_digest,
            by_running,
            by_tag,
            runs,
        }
    }
}

/// What a caller's name decides, looked up once for each.
#[derive(Clone, Copy)]
struct Verdict {
    judged: bool,
    exceptions: ExceptionSet,
}

/// One finding in the making.
struct Tally {
    events: Events,
    caller: Arc<Caller>,
    containers: BTreeSet<usize>,
    inferred: bool,
    exceptions: ExceptionSet,
}

type Tallies = BTreeMap<(FindingType, usize, Arc<str>), Tally>;

pub(super) fn drafts(
    groups: &[Group<'_>],
    history: &History,
    changes: &[Arc<Event>],
    pulls: &[Pull],
    nodes: &ClusterNodes,
    rules: &Rules,
    now: Timestamp,
) -> Traffic {
    let concerns = Concerns::new(groups, history);
    let judged = rules.lookback_start(now)..=now;
    let mut tallies = Tallies::new();
    let mut unresolved_pulls = 0;

    let mut verdicts: HashMap<*const Caller, Verdict> = HashMap::new();
    for pull in pulls.iter().filter(|pull| judged.contains(&pull.time)) {
        let named = resolve(pull, history, &concerns);
        unresolved_pulls += u64::from(named.unresolved && !pull.denied);
        let verdict = *verdicts
            .entry(Arc::as_ptr(&pull.caller))
            .or_insert_with(|| Verdict {
                judged: rules.expects_puller(&pull.caller, nodes) == Some(false),
                exceptions: rules.excepted_callers(Some(&pull.caller)),
            });
        if !verdict.judged {
            continue;
        }
        let finding_type = if pull.denied {
            FindingType::DeniedPull
        } else {
            FindingType::UnexpectedPull
        };
        for (group, inferred) in named.groups {
            let occurrence = Occurrence {
                time: pull.time,
                id: &pull.id,
                caller: &pull.caller,
            };
            let tally = tally(&mut tallies, (finding_type, group), occurrence, verdict);
            tally.inferred |= inferred;
        }
    }

    for event in changes.iter().filter(|event| judged.contains(&event.time)) {
        let Action::Push {
            image, manifest, ..
        } = &event.action
        else {
            continue;
        };
        if rules.expects_pusher(&event.caller) != Some(false) {
            continue;
        }
        let children = manifest.iter().flat_map(|manifest| &manifest.children);
        let children: Vec<&Digest> = children.map(|child| &child.digest).collect();
        let concerned = pushed(groups, &concerns, image, &children, event.time);
        if concerned.is_empty() {
            continue;
        }
        let finding_type = match event.outcome {
            Outcome::Denied => FindingType::DeniedPush,
            Outcome::Allowed | Outcome::Failed => FindingType::UnexpectedPush,
        };
        let verdict = Verdict {
            judged: true,
            exceptions: rules.excepted_callers(Some(&event.caller)),
        };
        for (group, containers) in concerned {
            let occurrence = Occurrence {
                time: event.time,
                id: &event.id,
                caller: &event.caller,
            };
            let tally = tally(&mut tallies, (finding_type, group), occurrence, verdict);
            tally.containers.extend(containers);
        }
    }

    let drafts = tallies
        .into_iter()
        .map(|((finding_type, group, _), tally)| Draft {
            finding_type,
            impact: None,
            inferred: tally.inferred,
            group,
            containers: tally.containers,
            cause: None,
            caller: Some(tally.caller),
            events: tally.events,
            exceptions: tally.exceptions,
        });
    Traffic {
        drafts: drafts.collect(),
        unresolved_pulls,
    }
}

/// One call, as far as a tally needs it.
#[derive(Clone, Copy)]
struct Occurrence<'a> {
    time: Timestamp,
    id: &'a Arc<str>,
    caller: &'a Arc<Caller>,
}

fn tally<'t>(
    tallies: &'t mut Tallies,
    (finding_type, group): (FindingType, usize),
    call: Occurrence<'_>,
    verdict: Verdict,
) -> &'t mut Tally {
    use std::collections::btree_map::Entry;
    match tallies.entry((finding_type, group, call.caller.principal.key.clone())) {
        Entry::Vacant(vacant) => vacant.insert(Tally {
            events: Events::one(call.time, call.id),
            caller: call.caller.clone(),
            containers: BTreeSet::new(),
            inferred: false,
            exceptions: verdict.exceptions,
        }),
        Entry::Occupied(occupied) => {
            let tally = occupied.into_mut();
            if tally.events.add(call.time, call.id) {
                tally.caller = call.caller.clone();
            }
            // An exception has to cover every one of the events.
            tally.exceptions &= verdict.exceptions;
            tally
        }
    }
}

/// What a pull named, as groups.
pub(super) struct Named {
    /// Each group once, and whether only inference led to it.
    pub(super) groups: BTreeMap<usize, bool>,
    /// A tag stayed without a digest.
    unresolved: bool,
}

pub(super) fn resolve(pull: &Pull, history: &History, concerns: &Concerns<'_>) -> Named {
    let mut named = Named {
        groups: BTreeMap::new(),
        unresolved: false,
    };
    for image in pull.images.iter() {
        let (digest, inferred) = match image {
            ImageId {
                digest: Some(digest),
                ..
            } => (digest.clone(), false),
            ImageId { tag: Some(tag), .. } => {
                let resolved = match history.tag_before(tag, (pull.time, &pull.id)) {
                    Tag::Names(digest) => Some((digest, false)),
                    Tag::Nothing(_) | Tag::Unknown if history.tag_touched(tag) => None,
                    Tag::Nothing(_) | Tag::Unknown => {
                        let runs = concerns.runs.get(&**tag).copied().flatten();
                        runs.map(|digest| (digest.clone(), true))
                    }
                };
                let Some(resolved) = resolved else {
                    named.unresolved = true;
                    continue;
                };
                resolved
            }
            ImageId {
                digest: None,
                tag: None,
            } => continue,
        };
        for group in concerns.by_digest.get(&digest).into_iter().flatten() {
            let certain = named.groups.entry(*group).or_insert(inferred);
            *certain &= inferred;
        }
    }
    named
}

/// The groups that a push concerns, each with the containers that it concerns; none listed: all.
pub(super) fn pushed(
    groups: &[Group<'_>],
    concerns: &Concerns<'_>,
    image: &ImageId,
    children: &[&Digest],
    time: Timestamp,
) -> BTreeMap<usize, BTreeSet<usize>> {
    let mut concerned = BTreeMap::new();
    let of_tag = image
        .tag
        .as_deref()
        .and_then(|tag| concerns.by_tag.get(tag));
    for &group in of_tag.into_iter().flatten() {
        // What a new node would run in place of what these pods were made with.
        let containers: BTreeSet<usize> = groups[group]
            .containers
            .iter()
            .enumerate()
            .filter(|(_, container)| container.created < time)
            .map(|(i, _)| i)
            .collect();
        if !containers.is_empty() {
            concerned.insert(group, containers);
        }
    }
    let named = image
        .digest
        .as_ref()
        .and_then(|digest| concerns.by_digest.get(digest));
    // A refused index is in no history, but it says itself what it lists.
    let listed = children
        .iter()
        .filter_map(|child| concerns.by_running.get(child));
    for &group in named.into_iter().chain(listed).flatten() {
        let all = (0..groups[group].containers.len()).collect();
        concerned.insert(group, all);
    }
    concerned
}
