//! What is missing: running images that are gone, and what a new node would get instead.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    History, Removal, Rules, Tag,
    assess::{Container, Draft, Events, Group},
};
use crate::{
    api::{FindingType, ImageState, Impact},
    event::{Digest, Platform},
};

/// One container's trouble. Ordered by what is looked at first.
struct Missing {
    /// 0 the running digest, 1 the index it was pulled by, 2 the platform's child, 3 the tag.
    rank: u8,
    finding_type: FindingType,
    impact: Impact,
    removal: Removal,
}

impl Missing {
    /// The least is told. One event may have taken several digests: the containers are in no order,
    /// so these have to be.
    fn order(&self) -> impl Ord {
        let Removal { event, digest, .. } = &self.removal;
        (self.rank, Reverse((event.time, &event.id)), digest)
    }
}

/// The findings about what is missing.
pub(super) fn drafts(groups: &[Group<'_>], history: &History, rules: &Rules) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (position, group) in groups.iter().enumerate() {
        // One finding for each type and principal.
        let mut by_cause: BTreeMap<_, (Missing, Draft)> = BTreeMap::new();
        for (i, container) in group.containers.iter().enumerate() {
            let Some(missing) = missing(container, group.digest.as_ref(), history) else {
                continue;
            };
            let (event, finding_type) = (&missing.removal.event, missing.finding_type);
            let caller = missing.removal.rule.is_none().then_some(&*event.caller);
            let cause = (
                finding_type,
                caller.map(|caller| caller.principal.key.clone()),
            );
            let exceptions = rules.excepted_callers(caller);
            let Some((worst, draft)) = by_cause.get_mut(&cause) else {
                let draft = Draft {
                    finding_type,
                    impact: None,
                    inferred: false,
                    group: position,
                    containers: [i].into(),
                    cause: None,
                    caller: None,
                    events: Events::one(event.time, &event.id),
                    exceptions,
                };
                by_cause.insert(cause, (missing, draft));
                continue;
            };
            draft.containers.insert(i);
            // An exception has to cover every one of the events.
            draft.exceptions &= exceptions;
            if !draft.events.holds(&event.id) {
                draft.events.add(event.time, &event.id);
            }
            worst.impact = worst.impact.min(missing.impact);
            if missing.order() < worst.order() {
                *worst = Missing {
                    impact: worst.impact,
                    ..missing
                };
            }
        }
        drafts.extend(by_cause.into_values().map(|(worst, draft)| {
            let rule = worst.removal.rule.is_some();
            let caller = (!rule).then(|| worst.removal.event.caller.clone());
            Draft {
                impact: Some(worst.impact),
                caller,
                cause: Some(worst.removal),
                ..draft
            }
        }));
    }
    drafts
}

fn finding_type(state: ImageState) -> Option<FindingType> {
    match state {
        ImageState::Expired => Some(FindingType::ImageExpired),
        ImageState::Deleted => Some(FindingType::ImageDeleted),
        ImageState::Archived => Some(FindingType::ImageArchived),
        ImageState::Present | ImageState::Unknown => None,
    }
}

/// What of a container's image is gone: the running digest comes first, then the index it was
/// pulled by, then its own child for the node's platform, then the tag.
fn missing(
    container: &Container<'_>,
    digest: Option<&Digest>,
    history: &History,
) -> Option<Missing> {
    let tag = container.reference.tag.as_deref();
    let named = tag.map(|tag| history.tag_now(tag));
    let gone = |rank, gone: &Digest| {
        Some(Missing {
            rank,
            finding_type: finding_type(history.state(gone))?,
            impact: impact(named.as_ref(), digest, container.platform, history),
            removal: history.removal(gone)?,
        })
    };
    if let Some(digest) = digest {
        if let Some(missing) = gone(0, digest) {
            return Some(missing);
        }
        let index = index_pulled_by(container, digest, history);
        // A tag that names the running manifest itself serves every new node of its platform.
        let served = matches!(&named, Some(Tag::Names(named)) if named == digest);
        if let Some(index) = index.filter(|_| !served)
            && let Some(missing) = gone(1, &index)
        {
            return Some(missing);
        }
        let child = container
            .platform
            .and_then(|platform| history.gone_child(digest, platform));
        if let Some((child, _)) = child
            && let Some(missing) = gone(2, child)
        {
            return Some(missing);
        }
    }
    match named {
        Some(Tag::Nothing(removal)) => Some(Missing {
            rank: 3,
            finding_type: FindingType::TagRemoved,
            impact: Impact::Unpullable,
            removal,
        }),
        Some(Tag::Names(_) | Tag::Unknown) | None => None,
    }
}

/// The index that a running digest was pulled by: named by the reference's digest, or by its tag
/// when the pod started. A waiting container was pulled by none.
fn index_pulled_by(
    container: &Container<'_>,
    digest: &Digest,
    history: &History,
) -> Option<Digest> {
    container.running?;
    let index = match (&container.reference.digest, &container.reference.tag) {
        // A node that was given one digest and reports another resolved the first to the second.
        (Some(index), _) => index.clone(),
        (None, Some(tag)) => match history.tag_at(tag, container.started) {
            Tag::Names(index) if history.lists(&index, digest) => index,
            Tag::Names(_) | Tag::Nothing(_) | Tag::Unknown => return None,
        },
        (None, None) => return None,
    };
    (index != *digest).then_some(index)
}

/// What a new node would get. `named` is what the reference's tag names now; none for a reference
/// by digest.
fn impact(
    named: Option<&Tag>,
    running: Option<&Digest>,
    platform: Option<&Platform>,
    history: &History,
) -> Impact {
    match named {
        None | Some(Tag::Nothing(_)) => Impact::Unpullable,
        Some(Tag::Unknown) => Impact::Unknown,
        Some(Tag::Names(digest)) => match history.state(digest) {
            ImageState::Expired | ImageState::Deleted | ImageState::Archived => Impact::Unpullable,
            ImageState::Unknown => Impact::Unknown,
            ImageState::Present => {
                let lost = match (platform, running) {
                    (Some(platform), _) => history.gone_child(digest, platform).is_some(),
                    // Whatever the node is, the child that it runs is the one that it needs.
                    (None, Some(running)) => {
                        history.lists(digest, running)
                            && finding_type(history.state(running)).is_some()
                    }
                    (None, None) => false,
                };
                if lost {
                    Impact::Unpullable
                } else {
                    Impact::WouldChange
                }
            }
        },
    }
}
