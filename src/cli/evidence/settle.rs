//! Which of several records of one call counts.
//!
//! A call may be recorded more than once: again under its `eventID`, once for each account that it
//! concerns (same `sharedEventID`), and corrected later (`UPDATED_DATA`). Each rule here looks at
//! all of them at once, so that their order decides nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use crate::{event::Event, ledger::pack};

/// Whether `new` counts instead of `known`, a record of the same `eventID`: a correction does;
/// among others that differ, the greater text, so that any order gives the same.
pub(super) fn supersedes(new: &Event, known: &Event) -> bool {
    if new == known {
        return false;
    }
    // Serializing an event cannot fail; records that differ under one id are hardly ever seen.
    let text = |event: &Event| serde_json::to_string(event).unwrap_or_default();
    (corrected(new), text(new)) > (corrected(known), text(known))
}

/// Whether a record came again under its own id, to correct what that said before.
pub(super) fn corrected(event: &Event) -> bool {
    event.replaces.as_ref() == Some(&event.id)
}

/// What tells one account's copy of a call from another's.
pub(super) struct Copy<'a> {
    pub(super) shared_id: Option<&'a str>,
    pub(super) key: &'a str,
    pub(super) id: &'a str,
    pub(super) is_pull: bool,
}

impl Copy<'_> {
    /// The copy that names the caller by ARN is the one reported; else the one whose `eventID` is
    /// smaller: of pulls as the ledger stores it, since it chooses among these in the database.
    fn rank(&self) -> (bool, Vec<u8>) {
        let id = if self.is_pull {
            pack(self.id)
        } else {
            self.id.as_bytes().to_vec()
        };
        (!self.key.starts_with("arn:"), id)
    }
}

/// Keeps one copy of each call.
pub(super) fn one_copy_each<T>(events: Vec<T>, copy: impl Fn(&T) -> Copy<'_>) -> Vec<T> {
    let mut best: HashMap<&str, usize> = HashMap::new();
    for (n, event) in events.iter().enumerate() {
        let candidate = copy(event);
        let Some(shared_id) = candidate.shared_id else {
            continue;
        };
        best.entry(shared_id)
            .and_modify(|known| {
                if candidate.rank() < copy(&events[*known]).rank() {
                    *known = n;
                }
            })
            .or_insert(n);
    }
    if best.is_empty() {
        return events;
    }
    let kept: Vec<bool> = events
        .iter()
        .enumerate()
        .map(|(n, event)| {
            copy(event)
                .shared_id
                .is_none_or(|shared| best.get(shared) == Some(&n))
        })
        .collect();
    let mut kept = kept.into_iter();
    let mut events = events;
    events.retain(|_| kept.next().unwrap_or(true));
    events
}

/// Which events correct which others. They are few, so all are kept.
#[derive(Debug, Default)]
pub(super) struct Corrections {
    /// The corrected `eventID` of each correction.
    originals: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Ids of records that came again under the same, corrected.
    again: HashSet<Arc<str>>,
}

/// Which records others stand for.
#[derive(Debug)]
pub(super) struct Replaced<'a> {
    ids: HashSet<Arc<str>>,
    again: &'a HashSet<Arc<str>>,
}

impl Replaced<'_> {
    /// Whether a record no longer counts; `corrected` says that it came under its own id, again.
    pub(super) fn holds(&self, id: &str, corrected: bool) -> bool {
        self.ids.contains(id) || !corrected && self.again.contains(id)
    }
}

impl Corrections {
    pub(super) fn add(&mut self, correction: &Arc<str>, original: &Arc<str>) {
        if correction == original {
            self.again.insert(correction.clone());
            return;
        }
        self.originals
            .entry(correction.clone())
            .or_default()
            .insert(original.clone());
    }

    /// The ids of events that another one stands for. Corrections of one event, and corrections of
    /// these, are one group: of it the last one counts, the one that nothing corrects; of several
    /// such the greatest id (as the ledger stores it), and if they correct each other, the greatest
    /// of all.
    pub(super) fn replaced(&self) -> Replaced<'_> {
        let mut neighbours: BTreeMap<&Arc<str>, Vec<&Arc<str>>> = BTreeMap::new();
        let mut corrected: HashSet<&Arc<str>> = HashSet::new();
        for (correction, originals) in &self.originals {
            for original in originals {
                neighbours.entry(correction).or_default().push(original);
                neighbours.entry(original).or_default().push(correction);
                corrected.insert(original);
            }
        }
        let mut visited: HashSet<&Arc<str>> = HashSet::new();
        let mut replaced = HashSet::new();
        for start in neighbours.keys() {
            if !visited.insert(start) {
                continue;
            }
            let mut group = vec![*start];
            let mut next = 0;
            while let Some(id) = group.get(next) {
                next += 1;
                for neighbour in neighbours.get(id).into_iter().flatten() {
                    if visited.insert(neighbour) {
                        group.push(neighbour);
                    }
                }
            }
            let stands = group
                .iter()
                .max_by_key(|id| (!corrected.contains(*id), pack(id)));
            let stands = stands.copied().cloned();
            replaced.extend(
                group
                    .into_iter()
                    .filter(|id| Some(*id) != stands.as_ref())
                    .cloned(),
            );
        }
        Replaced {
            ids: replaced,
            again: &self.again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(corrections: &[(&str, &str)]) -> Vec<String> {
        let mut all = Corrections::default();
        for (correction, original) in corrections {
            all.add(&(*correction).into(), &(*original).into());
        }
        let mut ids: Vec<String> = all.replaced().ids.iter().map(ToString::to_string).collect();
        ids.sort();
        ids
    }

    #[test]
    fn of_a_chain_of_corrections_the_last_one_counts() {
        assert_eq!(replaced(&[("b", "a"), ("c", "b")]), ["a", "b"]);
        assert_eq!(replaced(&[("c", "b"), ("b", "a")]), ["a", "b"]);
    }

    #[test]
    fn of_two_corrections_of_one_event_one_counts() {
        assert_eq!(replaced(&[("b", "a"), ("c", "a")]), ["a", "b"]);
        assert_eq!(replaced(&[("c", "a"), ("b", "a")]), ["a", "b"]);
    }

    #[test]
    fn corrections_that_correct_each_other_leave_one() {
        assert_eq!(replaced(&[("a", "b"), ("b", "a")]), ["a"]);
    }
}
