//! The fold: a repository's events in event-time order → the state of every digest and tag.
//!
//! Facts are stored, state is derived, so late, doubled and shuffled events need no special case.
//! Events of one second are ordered by their `eventID`. Pulls do not take part: a pull proves no
//! presence.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;

use crate::{
    api::ImageState,
    event::{
        Action, DeletedImage, Digest, Effect, Event, ImageId, LifecycleAction, LifecycleRule,
        Manifest, Outcome, Platform, Reference, StorageClass,
    },
};

/// A place in the order of events: time first, then `eventID`.
pub(super) type Moment<'a> = (Timestamp, &'a str);

/// What took an image or tag away.
#[derive(Clone, Debug)]
pub struct Removal {
    /// The event that did it.
    pub event: Arc<Event>,
    /// The lifecycle rule that acted; none where a principal did.
    pub rule: Option<LifecycleRule>,
    /// The digest that went, or, of a tag, the one that it named last.
    pub digest: Option<Digest>,
    /// Whether an image went, and what named it with it; else a tag alone.
    pub whole: bool,
}

/// What a tag names.
#[derive(Clone, Debug)]
pub enum Tag {
    /// This digest.
    Names(Digest),
    /// Nothing any more.
    Nothing(Removal),
    /// The evidence does not tell.
    Unknown,
}

#[derive(Debug, Default)]
struct DigestHistory {
    state: Option<ImageState>,
    removal: Option<Removal>,
    /// The evidence holds the push that brought the image in, so its tags are all known.
    tags_known: bool,
    /// The tags that name it now.
    tags: BTreeSet<Arc<str>>,
    manifest: Option<Manifest>,
    /// When an index last listed it before its own push, and whether it was gone then.
    listed: Option<(Timestamp, bool)>,
}

#[derive(Debug, Default)]
struct TagHistory {
    /// Each from its event on, in event order.
    spans: Vec<(Arc<Event>, Tag)>,
    /// The evidence has a push or a removal of this very tag.
    touched: bool,
}

/// What a repository's events say of its images and tags, at any time up to the last one.
#[derive(Debug, Default)]
pub struct History {
    digests: HashMap<Digest, DigestHistory>,
    tags: HashMap<Arc<str>, TagHistory>,
    /// The indexes that list a digest.
    indexes: HashMap<Digest, BTreeSet<Digest>>,
    /// The manifests that name a config digest, in the order of their first push.
    configs: HashMap<Digest, Vec<(Timestamp, Digest)>>,
    /// The first deletion of the repository: it removed what the evidence never mentions, too.
    deleted: Option<Arc<Event>>,
    /// Since then images came back in ways that the evidence does not hold, with whatever tags.
    returned: bool,
}

impl History {
    /// Folds events. `events` may come in any order, each once; `running_since` tells when the
    /// oldest pod was created that runs a digest (its own, or that of the config it names).
    pub fn fold(
        events: &[Arc<Event>],
        running_since: impl Fn(&Digest, Option<&Digest>) -> Option<Timestamp>,
    ) -> Self {
        let mut sorted: Vec<&Arc<Event>> = events.iter().collect();
        sorted.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
        let mut history = Self::default();
        for event in sorted {
            history.apply(event, &running_since);
        }
        history
    }

    fn apply(
        &mut self,
        event: &Arc<Event>,
        running_since: &impl Fn(&Digest, Option<&Digest>) -> Option<Timestamp>,
    ) {
        if event.outcome != Outcome::Allowed {
            return;
        }
        match &event.action {
            Action::None | Action::Pull(_) => {}
            Action::Push {
                image, manifest, ..
            } => {
                if let Some(digest) = &image.digest {
                    let config = manifest
                        .as_ref()
                        .and_then(|manifest| manifest.config.as_ref());
                    let since = running_since(digest, config);
                    self.push(event, digest, image.tag.as_ref(), manifest.as_ref(), since);
                }
            }
            Action::Appeared(image) => {
                if let Some(digest) = &image.digest {
                    self.appear(event, digest, image.tag.as_ref());
                }
            }
            Action::LifecycleRun(actions) => {
                for action in actions {
                    self.lifecycle(event, action);
                }
            }
            Action::Delete(images) => {
                for image in images {
                    self.delete(event, image);
                }
            }
            Action::DeleteRepository => self.delete_repository(event),
            Action::SetStorageClass { image, class } => self.storage_class(event, image, *class),
        }
    }

    fn push(
        &mut self,
        event: &Arc<Event>,
        digest: &Digest,
        tag: Option<&Arc<str>>,
        manifest: Option<&Manifest>,
        running_since: Option<Timestamp>,
    ) {
        if let Some(manifest) = manifest {
            for child in &manifest.children {
                // ECR takes an index only while all that it lists is there.
                let known = self.digests.contains_key(&child.digest);
                let gone = self.is_gone(&child.digest);
                self.shown(event, &child.digest);
                if gone || !known {
                    let entry = self.digests.entry(child.digest.clone()).or_default();
                    entry.listed = Some((event.time, gone));
                }
                let indexes = self.indexes.entry(child.digest.clone()).or_default();
                indexes.insert(digest.clone());
            }
            if let Some(config) = &manifest.config {
                let manifests = self.configs.entry(config.clone()).or_default();
                if manifests.iter().all(|(_, known)| known != digest) {
                    manifests.push((event.time, digest.clone()));
                }
            }
        }
        // Within a second the order is not that of the calls: what an index lists was pushed first.
        let listed = self.digests.get(digest).and_then(|entry| entry.listed);
        let listed = listed.filter(|(time, _)| *time == event.time);
        let was_gone = listed.map_or_else(|| self.is_gone(digest), |(_, gone)| gone);
        let mentioned = listed.is_none() && self.digests.contains_key(digest);
        let entry = self.digests.entry(digest.clone()).or_default();
        entry.listed = None;
        if was_gone {
            // What was gone lost its tags with it: this push brought it in anew.
            entry.tags_known = true;
        } else if !mentioned {
            entry.tags_known = running_since.is_none_or(|since| since >= event.time);
        }
        entry.state = Some(ImageState::Present);
        entry.removal = None;
        if manifest.is_some() {
            entry.manifest = manifest.cloned();
        }
        if let Some(tag) = tag {
            self.set_tag(event, tag, Tag::Names(digest.clone()), true);
        }
    }

    /// The image is there by other ways than a push in evidence.
    fn appear(&mut self, event: &Arc<Event>, digest: &Digest, tag: Option<&Arc<str>>) {
        if self.is_gone(digest) {
            self.come_back(event, digest, ImageState::Present);
        }
        let entry = self.digests.entry(digest.clone()).or_default();
        let there = matches!(
            entry.state,
            Some(ImageState::Present | ImageState::Archived)
        );
        let told = tag.is_none_or(|tag| entry.tags.contains(tag));
        entry.state = Some(ImageState::Present);
        entry.removal = None;
        if there && told {
            // The notice of a push that is in evidence, or of a restore.
            return;
        }
        entry.tags_known = false;
        if let Some(tag) = tag {
            self.set_tag(event, tag, Tag::Names(digest.clone()), true);
        }
    }

    /// An event names a digest that was there, without bringing it or taking it away.
    fn shown(&mut self, event: &Arc<Event>, digest: &Digest) {
        if self.is_gone(digest) {
            self.come_back(event, digest, ImageState::Unknown);
        } else {
            // An entry without a push marks the image as older than the evidence.
            self.digests.entry(digest.clone()).or_default();
        }
    }

    /// What was gone is there again, by ways that the evidence does not hold: which tags came with
    /// it is not known, nor whether those that went with it did.
    fn come_back(&mut self, event: &Arc<Event>, digest: &Digest, state: ImageState) {
        let entry = self.digests.entry(digest.clone()).or_default();
        entry.state = Some(state);
        entry.tags_known = false;
        self.returned |= self.deleted.is_some();
        let Some(removal) = entry.removal.take() else {
            return;
        };
        for tag in self.tags.values_mut() {
            if let Some((_, Tag::Nothing(lost))) = tag.spans.last()
                && lost.digest.as_ref() == Some(digest)
                && (lost.whole || Arc::ptr_eq(&lost.event, &removal.event))
            {
                tag.spans.push((event.clone(), Tag::Unknown));
            }
        }
    }

    fn lifecycle(&mut self, event: &Arc<Event>, action: &LifecycleAction) {
        let removal = Removal {
            event: event.clone(),
            rule: Some(action.rule.clone()),
            digest: Some(action.digest.clone()),
            whole: true,
        };
        let digest = &action.digest;
        match action.effect {
            Effect::Expire => self.remove(digest, ImageState::Expired, &removal),
            Effect::Archive => self.remove(digest, ImageState::Archived, &removal),
            Effect::Kept => self.shown(event, digest),
        }
        // The list of tags is not complete, but what it says is known from here on.
        for tag in &action.tags {
            let named = match action.effect {
                Effect::Expire => Tag::Nothing(removal.clone()),
                Effect::Archive | Effect::Kept => Tag::Names(digest.clone()),
            };
            self.learn_tag(event, tag, named);
        }
    }

    fn delete(&mut self, event: &Arc<Event>, image: &DeletedImage) {
        let removal = |digest: Option<Digest>| Removal {
            event: event.clone(),
            rule: None,
            digest,
            whole: image.requested.tag.is_none(),
        };
        match (&image.requested.digest, &image.requested.tag) {
            (Some(digest), None) if image.refused => self.shown(event, digest),
            (Some(digest), None) => {
                let removal = removal(Some(digest.clone()));
                self.remove(digest, ImageState::Deleted, &removal);
                for tag in &image.tags {
                    self.learn_tag(event, tag, Tag::Nothing(removal.clone()));
                }
            }
            (requested, Some(tag)) => {
                let current = self.tag_now(tag);
                let known = match &current {
                    Tag::Names(digest) => Some(digest.clone()),
                    Tag::Nothing(_) | Tag::Unknown => None,
                };
                let told = !matches!(current, Tag::Unknown);
                if requested.is_some() && told && known != *requested {
                    // The tag names another image than the identifier, or none: ECR leaves it.
                    return;
                }
                let digest = image.named.clone().or(known).or_else(|| requested.clone());
                let removal = removal(digest.clone());
                self.set_tag(event, tag, Tag::Nothing(removal.clone()), true);
                let Some(digest) = digest else { return };
                // An entry without a push marks the image as older than the evidence.
                let entry = self.digests.entry(digest.clone()).or_default();
                let there = matches!(
                    entry.state,
                    Some(ImageState::Present | ImageState::Archived)
                );
                if there && entry.tags_known && entry.tags.is_empty() {
                    self.remove(&digest, ImageState::Deleted, &removal);
                } else if image.named.is_some() && self.is_gone(&digest) {
                    // The answer shows that it was there again, by ways that the evidence does
                    // not hold; whether this was its last tag is not known.
                    self.come_back(event, &digest, ImageState::Unknown);
                }
            }
            (None, None) => {}
        }
    }

    fn delete_repository(&mut self, event: &Arc<Event>) {
        self.deleted.get_or_insert_with(|| event.clone());
        self.returned = false;
        let removal = |digest: Option<Digest>| Removal {
            event: event.clone(),
            rule: None,
            digest,
            whole: true,
        };
        for (digest, entry) in &mut self.digests {
            entry.tags.clear();
            if !matches!(entry.state, Some(ImageState::Expired | ImageState::Deleted)) {
                entry.state = Some(ImageState::Deleted);
                entry.removal = Some(removal(Some(digest.clone())));
            }
        }
        for tag in self.tags.values_mut() {
            let last = match tag.spans.last() {
                Some((_, Tag::Nothing(_))) => continue,
                Some((_, Tag::Names(digest))) => Some(digest.clone()),
                Some((_, Tag::Unknown)) | None => None,
            };
            tag.spans.push((event.clone(), Tag::Nothing(removal(last))));
        }
    }

    fn storage_class(&mut self, event: &Arc<Event>, image: &ImageId, class: StorageClass) {
        let named = || match self.tag_now(image.tag.as_ref()?) {
            Tag::Names(digest) => Some(digest),
            Tag::Nothing(_) | Tag::Unknown => None,
        };
        let Some(digest) = image.digest.clone().or_else(named) else {
            return;
        };
        match class {
            StorageClass::Archive => {
                let removal = Removal {
                    event: event.clone(),
                    rule: None,
                    digest: Some(digest.clone()),
                    whole: true,
                };
                self.remove(&digest, ImageState::Archived, &removal);
            }
            StorageClass::Standard if self.is_gone(&digest) => {
                self.come_back(event, &digest, ImageState::Present);
            }
            StorageClass::Standard => {
                let entry = self.digests.entry(digest).or_default();
                entry.state = Some(ImageState::Present);
                entry.removal = None;
            }
        }
    }

    /// An event that names a digest shows that it was still there, and becomes the cause.
    fn remove(&mut self, digest: &Digest, state: ImageState, removal: &Removal) {
        let entry = self.digests.entry(digest.clone()).or_default();
        entry.state = Some(state);
        entry.removal = Some(removal.clone());
        if state == ImageState::Archived {
            return;
        }
        for tag in std::mem::take(&mut entry.tags) {
            if let Some(tag) = self.tags.get_mut(&tag) {
                tag.spans
                    .push((removal.event.clone(), Tag::Nothing(removal.clone())));
            }
        }
    }

    fn set_tag(&mut self, event: &Arc<Event>, tag: &Arc<str>, named: Tag, touched: bool) {
        if let Tag::Names(digest) = self.tag_now(tag)
            && let Some(entry) = self.digests.get_mut(&digest)
        {
            entry.tags.remove(tag);
        }
        if let Tag::Names(digest) = &named {
            let entry = self.digests.entry(digest.clone()).or_default();
            entry.tags.insert(tag.clone());
        }
        let history = self.tags.entry(tag.clone()).or_default();
        history.touched |= touched;
        history.spans.push((event.clone(), named));
    }

    /// What an event says of a tag besides: taken only where nothing else is known.
    fn learn_tag(&mut self, event: &Arc<Event>, tag: &Arc<str>, named: Tag) {
        if matches!(self.tag_now(tag), Tag::Unknown) {
            self.set_tag(event, tag, named, false);
        }
    }

    /// State of a digest after the last event.
    pub fn state(&self, digest: &Digest) -> ImageState {
        match self.digests.get(digest) {
            Some(DigestHistory {
                state: Some(state), ..
            }) => *state,
            _ if self.deleted.is_some() => ImageState::Deleted,
            _ => ImageState::Unknown,
        }
    }

    fn is_gone(&self, digest: &Digest) -> bool {
        matches!(
            self.state(digest),
            ImageState::Expired | ImageState::Deleted
        )
    }

    /// What made a digest go, where it is gone.
    pub fn removal(&self, digest: &Digest) -> Option<Removal> {
        match self.digests.get(digest) {
            Some(DigestHistory {
                state: Some(_),
                removal,
                ..
            }) => removal.clone(),
            _ => self.deleted.as_ref().map(|event| Removal {
                event: event.clone(),
                rule: None,
                digest: Some(digest.clone()),
                whole: true,
            }),
        }
    }

    /// What a tag names after the last event.
    pub fn tag_now(&self, tag: &str) -> Tag {
        match self.tags.get(tag).and_then(|history| history.spans.last()) {
            Some((_, named)) => named.clone(),
            None => self.untold_tag(),
        }
    }

    /// What a tag named just before a moment in the order of events.
    pub(super) fn tag_before(&self, tag: &str, moment: Moment<'_>) -> Tag {
        self.tag_where(tag, |event| (event.time, &*event.id) < moment)
    }

    /// What a tag named at a time, with the events of that second.
    pub fn tag_at(&self, tag: &str, time: Timestamp) -> Tag {
        self.tag_where(tag, |event| event.time <= time)
    }

    fn tag_where(&self, tag: &str, seen: impl Fn(&Event) -> bool) -> Tag {
        let spans = self.tags.get(tag).map_or(&[][..], |history| &history.spans);
        match spans
            .partition_point(|(event, _)| seen(event))
            .checked_sub(1)
        {
            Some(last) => spans[last].1.clone(),
            None if self.deleted.as_ref().is_some_and(|event| seen(event)) => self.untold_tag(),
            None => Tag::Unknown,
        }
    }

    /// A tag that no event names.
    fn untold_tag(&self) -> Tag {
        match &self.deleted {
            Some(event) if !self.returned => Tag::Nothing(Removal {
                event: event.clone(),
                rule: None,
                digest: None,
                whole: true,
            }),
            Some(_) | None => Tag::Unknown,
        }
    }

    /// Whether the evidence has a push or a removal of this tag.
    pub fn tag_touched(&self, tag: &str) -> bool {
        self.deleted.is_some() || self.tags.get(tag).is_some_and(|history| history.touched)
    }

    /// The digest that a tag names, or named last.
    pub fn tag_last_named(&self, tag: &str) -> Option<Digest> {
        let history = self.tags.get(tag)?;
        history
            .spans
            .iter()
            .rev()
            .find_map(|(_, named)| match named {
                Tag::Names(digest) => Some(digest.clone()),
                Tag::Nothing(removal) => removal.digest.clone(),
                Tag::Unknown => None,
            })
    }

    /// The indexes in evidence that list a digest.
    pub fn indexes_of(&self, digest: &Digest) -> impl Iterator<Item = &Digest> {
        self.indexes.get(digest).into_iter().flatten()
    }

    /// What an index lists; empty for everything else.
    pub fn children_of(&self, digest: &Digest) -> impl Iterator<Item = &Digest> {
        self.manifest(digest)
            .into_iter()
            .flat_map(|manifest| &manifest.children)
            .map(|child| &child.digest)
    }

    /// Whether an index lists a digest.
    pub fn lists(&self, index: &Digest, digest: &Digest) -> bool {
        self.indexes
            .get(digest)
            .is_some_and(|indexes| indexes.contains(index))
    }

    fn manifest(&self, digest: &Digest) -> Option<&Manifest> {
        self.digests.get(digest)?.manifest.as_ref()
    }

    /// The child of an index that a platform needs and that is gone, when every child for this
    /// platform is.
    pub fn gone_child(&self, index: &Digest, platform: &Platform) -> Option<(&Digest, ImageState)> {
        let mut gone = None;
        for child in &self.manifest(index)?.children {
            if child.platform.as_ref() != Some(platform) {
                continue;
            }
            match self.state(&child.digest) {
                ImageState::Present | ImageState::Unknown => return None,
                state => gone = gone.or(Some((&child.digest, state))),
            }
        }
        gone
    }

    /// The manifest of a config digest. Of several, the one that the pod's reference named (itself
    /// or by its index) when it started, by digest or by tag, else the one pushed last before that.
    /// A digest that no manifest in evidence names, or that is itself a manifest's, comes back as
    /// it is.
    pub fn manifest_of(
        &self,
        digest: &Digest,
        reference: &Reference,
        started: Timestamp,
    ) -> Digest {
        let Some(manifests) = self.configs.get(digest) else {
            return digest.clone();
        };
        if let [(_, only)] = manifests.as_slice() {
            return only.clone();
        }
        let named = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => Some(digest.clone()),
            (None, Some(tag)) => match self.tag_at(tag, started) {
                Tag::Names(digest) => Some(digest),
                Tag::Nothing(_) | Tag::Unknown => None,
            },
            (None, None) => None,
        };
        if let Some(named) = named {
            let chosen = manifests
                .iter()
                .find(|(_, manifest)| *manifest == named || self.lists(&named, manifest));
            if let Some((_, chosen)) = chosen {
                return chosen.clone();
            }
        }
        let before = manifests
            .iter()
            .rev()
            .find(|(pushed, _)| *pushed <= started);
        before
            .or(manifests.first())
            .map_or_else(|| digest.clone(), |(_, manifest)| manifest.clone())
    }
}
