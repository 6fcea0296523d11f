//! A registry that keeps ECR's rules, and the records that it leaves behind: whatever part of them
//! the judgement is given, what it states for certain is what the registry knows.

use std::collections::{BTreeMap, BTreeSet};

use ecr_audit::{
    api::{Finding, ImageState, Impact},
    event::Digest,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::{
    REGISTRY, World, by_digest, by_tag, delete, delete_repository, denied, digest, index,
    lifecycle, manifest, push, storage_class,
};

const TAGS: [&str; 4] = ["v1", "v2", "latest", "untold"];
/// A tag that whatever is older than the evidence may have, and that no step names.
const UNTOLD: usize = 3;
const IMAGES: usize = 6;

/// Three manifests, an index over two of them, one over all, and a manifest that stands alone.
fn text(image: usize) -> String {
    let of = |name| manifest(name);
    match image {
        0 => of("amd64"),
        1 => of("arm64"),
        2 => of("other amd64"),
        3 => index(&[("amd64", &of("amd64")), ("arm64", &of("arm64"))]),
        4 => index(&[("amd64", &of("other amd64")), ("arm64", &of("arm64"))]),
        _ => of("alone"),
    }
}

fn digest_of(image: usize) -> Digest {
    digest(&text(image))
}

fn children(image: usize) -> &'static [usize] {
    match image {
        3 => &[0, 1],
        4 => &[2, 1],
        _ => &[],
    }
}

/// What a node of the platform amd64 runs of an image.
fn child_for_node(image: usize) -> usize {
    children(image).first().copied().unwrap_or(image)
}

#[derive(Clone, Debug)]
enum Name {
    Tag(usize),
    Digest(usize),
    Both(usize, usize),
}

#[derive(Clone, Debug)]
enum Step {
    Push {
        image: usize,
        tag: Option<usize>,
        refused: bool,
    },
    Lifecycle {
        images: Vec<usize>,
        archive: bool,
        lists_tags: bool,
    },
    Delete(Vec<Name>),
    DeleteRepository,
    Storage {
        image: usize,
        archive: bool,
    },
    /// A pod begins to run what its reference names; the node reports the index or its child.
    Start {
        reference: Name,
        reports_child: bool,
    },
}

fn name() -> impl Strategy<Value = Name> {
    prop_oneof![
        3 => (0..UNTOLD).prop_map(Name::Tag),
        2 => (0..IMAGES).prop_map(Name::Digest),
        1 => (0..UNTOLD, 0..IMAGES).prop_map(|(tag, image)| Name::Both(tag, image)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let (image, tag) = (0..IMAGES, 0..UNTOLD);
    prop_oneof![
        8 => (image.clone(), prop::option::weighted(0.7, tag), prop::bool::weighted(0.1))
            .prop_map(|(image, tag, refused)| Step::Push { image, tag, refused }),
        2 => (prop::collection::vec(image.clone(), 0..3), any::<bool>(), any::<bool>())
            .prop_map(|(images, archive, lists_tags)| Step::Lifecycle { images, archive, lists_tags }),
        3 => prop::collection::vec(name(), 1..3).prop_map(Step::Delete),
        1 => Just(Step::DeleteRepository),
        2 => (image, any::<bool>()).prop_map(|(image, archive)| Step::Storage { image, archive }),
        6 => (name(), any::<bool>())
            .prop_map(|(reference, reports_child)| Step::Start { reference, reports_child }),
    ]
}

#[derive(Clone, Debug, Default)]
struct Stored {
    tags: BTreeSet<usize>,
    archived: bool,
}

#[derive(Clone, Debug)]
struct Pod {
    name: String,
    created: i64,
    reference: Name,
    /// What the reference named when the pod began.
    top: usize,
    runs: usize,
}

impl Pod {
    fn names(&self, image: usize) -> bool {
        self.runs == image
            || matches!(self.reference, Name::Digest(of) | Name::Both(_, of) if of == image)
    }

    fn text(&self) -> String {
        match self.reference {
            Name::Tag(tag) => format!("{REGISTRY}/shop/web:{}", TAGS[tag]),
            Name::Digest(image) => format!("{REGISTRY}/shop/web@{}", digest_of(image)),
            Name::Both(tag, image) => {
                format!("{REGISTRY}/shop/web:{}@{}", TAGS[tag], digest_of(image))
            }
        }
    }
}

#[derive(Debug, Default)]
struct Registry {
    images: BTreeMap<usize, Stored>,
    pods: Vec<Pod>,
    /// There since before the evidence: what a push says of these is not the whole truth.
    old: BTreeSet<usize>,
    /// Brought in or taken out since the evidence began.
    told: BTreeSet<usize>,
}

impl Registry {
    fn tagged(&self, tag: usize) -> Option<usize> {
        let named = |(_, stored): &(&usize, &Stored)| stored.tags.contains(&tag);
        self.images.iter().find(named).map(|(image, _)| *image)
    }

    fn is_pullable(&self, image: usize) -> bool {
        let there = |image| {
            self.images
                .get(&image)
                .is_some_and(|stored| !stored.archived)
        };
        there(image) && there(child_for_node(image))
    }

    /// What a new node gets for a reference.
    fn resolve(&self, reference: &Name) -> Option<usize> {
        let top = match *reference {
            Name::Tag(tag) => self.tagged(tag)?,
            Name::Digest(image) | Name::Both(_, image) => image,
        };
        self.is_pullable(top).then_some(top)
    }

    /// Whether something is gone of what a pod was given, or its tag names nothing.
    fn misses(&self, pod: &Pod) -> bool {
        let tagged = match pod.reference {
            Name::Tag(tag) => self.tagged(tag),
            Name::Digest(_) | Name::Both(..) => Some(pod.top),
        };
        !self.is_pullable(pod.runs)
            || tagged.is_none()
            || !self.is_pullable(pod.top) && tagged != Some(pod.runs)
    }

    fn is_referenced(&self, image: usize) -> bool {
        self.images
            .keys()
            .any(|index| children(*index).contains(&image))
    }

    fn remove(&mut self, image: usize) {
        self.images.remove(&image);
        self.old.remove(&image);
        self.told.insert(image);
    }

    /// Takes a step; its record, if it leaves one.
    fn take(&mut self, minute: i64, step: &Step) -> Option<Value> {
        match step {
            Step::Push {
                image,
                tag,
                refused,
            } => self.push(minute, *image, *tag, *refused),
            Step::Lifecycle {
                images,
                archive,
                lists_tags,
            } => Some(self.lifecycle(minute, images, *archive, *lists_tags)),
            Step::Delete(names) => Some(self.delete(minute, names)),
            Step::DeleteRepository => {
                self.images.clear();
                self.old.clear();
                self.told.extend(0..IMAGES);
                Some(delete_repository(minute))
            }
            Step::Storage { image, archive } => {
                let stored = self.images.get_mut(image)?;
                stored.archived = *archive;
                let class = if *archive { "ARCHIVE" } else { "STANDARD" };
                Some(storage_class(minute, by_digest(&digest_of(*image)), class))
            }
            Step::Start {
                reference,
                reports_child,
            } => {
                let top = self.resolve(reference)?;
                self.pods.push(Pod {
                    name: format!("pod{minute}-x"),
                    created: minute,
                    reference: reference.clone(),
                    top,
                    runs: if *reports_child {
                        child_for_node(top)
                    } else {
                        top
                    },
                });
                None
            }
        }
    }

    fn push(
        &mut self,
        minute: i64,
        image: usize,
        tag: Option<usize>,
        refused: bool,
    ) -> Option<Value> {
        let record = push(minute, tag.map(|tag| TAGS[tag]), &text(image));
        if refused {
            return Some(denied(record));
        }
        let is_whole = children(image)
            .iter()
            .all(|child| self.images.contains_key(child));
        if !is_whole || self.old.contains(&image) {
            return None;
        }
        if let Some(other) = tag.and_then(|tag| self.tagged(tag))
            && let (Some(stored), Some(tag)) = (self.images.get_mut(&other), tag)
        {
            stored.tags.remove(&tag);
        }
        let stored = self.images.entry(image).or_default();
        stored.archived = false;
        stored.tags.extend(tag);
        // Something ran it before: to the evidence it is an older one.
        if self.told.insert(image) && self.pods.iter().any(|pod| pod.names(image)) {
            stored.tags.insert(UNTOLD);
        }
        Some(record)
    }

    fn lifecycle(
        &mut self,
        minute: i64,
        images: &[usize],
        archive: bool,
        lists_tags: bool,
    ) -> Value {
        let (priority, action) = if archive {
            (2, "transition")
        } else {
            (1, "expire")
        };
        let mut acted: Vec<(Digest, Vec<&str>)> = vec![];
        for image in images {
            let Some(stored) = self.images.get(image) else {
                continue;
            };
            if archive && stored.archived || !archive && self.is_referenced(*image) {
                continue;
            }
            let tags = stored
                .tags
                .iter()
                .filter(|_| lists_tags)
                .map(|tag| TAGS[*tag]);
            acted.push((digest_of(*image), tags.collect()));
            if archive {
                self.images.entry(*image).or_default().archived = true;
            } else {
                self.remove(*image);
            }
        }
        let acted: Vec<(&Digest, &[&str])> = acted
            .iter()
            .map(|(digest, tags)| (digest, tags.as_slice()))
            .collect();
        lifecycle(minute, priority, action, &acted)
    }

    fn delete(&mut self, minute: i64, names: &[Name]) -> Value {
        let (mut asked, mut answered, mut failed) = (vec![], vec![], vec![]);
        for name in names {
            let (id, target, tag) = match *name {
                Name::Tag(tag) => (by_tag(TAGS[tag]), self.tagged(tag), Some(tag)),
                Name::Digest(image) => (by_digest(&digest_of(image)), Some(image), None),
                Name::Both(tag, image) => {
                    let mut id = by_digest(&digest_of(image));
                    id["imageTag"] = json!(TAGS[tag]);
                    (
                        id,
                        self.tagged(tag).filter(|named| *named == image),
                        Some(tag),
                    )
                }
            };
            if asked.contains(&id) {
                continue;
            }
            asked.push(id.clone());
            let there = target.and_then(|image| Some((image, self.images.get(&image)?)));
            let Some((image, stored)) = there else {
                failed.push(id);
                continue;
            };
            let goes = tag.is_none_or(|tag| stored.tags.iter().all(|other| *other == tag));
            if goes && self.is_referenced(image) {
                failed.push(id);
                continue;
            }
            let mut answer = by_digest(&digest_of(image));
            for named in stored
                .tags
                .iter()
                .filter(|named| tag.is_none_or(|tag| tag == **named))
            {
                answer["imageTag"] = json!(TAGS[*named]);
                answered.push(answer.clone());
            }
            if stored.tags.is_empty() {
                answered.push(answer);
            }
            if goes {
                self.remove(image);
            } else if let (Some(stored), Some(tag)) = (self.images.get_mut(&image), tag) {
                stored.tags.remove(&tag);
            }
        }
        delete(minute, json!(asked), json!(answered), json!(failed))
    }

    fn holds(&self, state: ImageState, image: usize) -> bool {
        let stored = self.images.get(&image);
        match state {
            ImageState::Present => stored.is_some_and(|stored| !stored.archived),
            ImageState::Archived => stored.is_some_and(|stored| stored.archived),
            ImageState::Expired | ImageState::Deleted => stored.is_none(),
            ImageState::Unknown => true,
        }
    }
}

/// Lives a history; the records from the step `since` on, and the registry at its end.
fn live(steps: &[Step], since: usize) -> (Registry, Vec<Value>) {
    let mut registry = Registry::default();
    let mut records = vec![];
    for (i, step) in steps.iter().enumerate() {
        if i == since {
            registry.told.clear();
            registry.old = registry.images.keys().copied().collect();
            for stored in registry.images.values_mut() {
                stored.tags.insert(UNTOLD);
            }
        }
        let minute = i64::try_from(i).unwrap();
        records.extend(registry.take(minute, step).filter(|_| i >= since));
    }
    (registry, records)
}

fn judged(registry: &Registry, records: Vec<Value>) -> World {
    let mut world = World::new();
    world.records = records;
    for pod in &registry.pods {
        world = world.pod(&pod.name, pod.created, &pod.text(), &digest_of(pod.runs));
    }
    world
}

fn finding_of<'f>(findings: &'f [Finding], pod: &Pod) -> Option<&'f Finding> {
    let of_pod = |finding: &&Finding| finding.workload.name == pod.name.trim_end_matches("-x");
    findings.iter().find(of_pod)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_stated_for_certain_is_true_however_little_was_read(
        steps in prop::collection::vec(step(), 1..30), since in 0..30_usize,
    ) {
        let since = since.min(steps.len()) * usize::from(since % 3 != 0);
        let (registry, records) = live(&steps, since);
        if registry.pods.is_empty() {
            return Ok(());
        }
        let whole = since == 0;
        let world = judged(&registry, records);
        let assessment = world.assess();

        for image in &assessment.images {
            let running = (0..IMAGES).find(|i| image.digest.as_ref() == Some(&digest_of(*i))).unwrap();
            prop_assert!(registry.holds(image.state, running), "{running} is not {:?}", image.state);
            prop_assert!(!whole || image.state != ImageState::Unknown, "{running} is not known");
        }
        for pod in &registry.pods {
            let finding = finding_of(&assessment.findings, pod);
            prop_assert!(finding.is_none() || registry.misses(pod), "{:?} has all", pod);
            let gets = registry.resolve(&pod.reference);
            match finding.and_then(|finding| finding.impact) {
                Some(Impact::Unpullable) => prop_assert_eq!(gets, None, "{:?}", pod),
                Some(Impact::WouldChange) => {
                    prop_assert!(gets.is_some_and(|gets| gets != pod.top), "{:?} {:?}", pod, gets);
                }
                Some(Impact::Unknown) => prop_assert!(!whole, "{:?}", pod),
                None => prop_assert!(!whole || !registry.misses(pod), "{:?}", pod),
            }
        }
    }
}
