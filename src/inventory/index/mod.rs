//! The index of what runs: pods by the repository of their images, nodes, namespaces' labels.
//!
//! Fed with `apply`, `delete` and, when a list starts anew, `begin` and `finish`; asked by
//! repository. It needs no client and no clock. Names are interned (a hundred thousand pods share a
//! few thousand texts), and every text goes when its last user goes.

mod view;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    Namespace, Node, Pod,
    image::running_digest,
    intern::{self, Id, Table},
    object::PodContainer,
};
use crate::event::{Digest, Platform, Reference, Repository};

/// The kinds of objects that the index is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Pods, in all namespaces.
    Pod,
    /// Nodes.
    Node,
    /// Namespaces, for their labels.
    Namespace,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Pod, Self::Node, Self::Namespace];

    /// The kind as objects spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::Namespace => "Namespace",
        }
    }

    /// The resource's plural, as RBAC rules and error messages name it.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::Node => "nodes",
            Self::Namespace => "namespaces",
        }
    }
}

/// What has changed since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Repositories whose containers (or their platforms, or their namespaces' labels) are not what
    /// they were; some may have none left.
    pub repositories: HashSet<Repository>,
    /// Whether the set of nodes' instance ids has changed.
    pub instances: bool,
}

impl Changes {
    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.repositories.is_empty() && !self.instances
    }
}

/// No id: a pod without a node, a container that waits for its image.
const NONE: Id = Id::MAX;

#[derive(Debug)]
struct PodEntry {
    facts: PodFacts,
    /// Of the list that saw it last.
    generation: u32,
}

/// Times in whole seconds, as Kubernetes writes them.
#[derive(Debug, PartialEq, Eq)]
struct PodFacts {
    created: i64,
    started: i64,
    name: Arc<str>,
    containers: Box<[ContainerEntry]>,
    namespace: Id,
    node: Id,
    workload_kind: Id,
    workload_name: Id,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ContainerEntry {
    name: Id,
    reference: Id,
    image: Id,
}

#[derive(Debug)]
struct ReferenceEntry {
    reference: Reference,
    repository: Id,
}

#[derive(Debug, Default)]
struct NamespaceEntry {
    pods: HashMap<Arc<str>, Id>,
    /// None when there is no namespace object.
    labels: Option<BTreeMap<String, String>>,
    generation: u32,
}

#[derive(Debug, Default)]
struct NodeEntry {
    /// None when there is no node object: pods only name it.
    facts: Option<NodeFacts>,
    generation: u32,
}

#[derive(Debug, PartialEq, Eq)]
struct NodeFacts {
    instance: Option<Arc<str>>,
    platform: Option<Platform>,
}

/// What runs.
#[derive(Debug, Default)]
pub struct Index {
    pods: Vec<Option<PodEntry>>,
    free: Vec<Id>,
    namespaces: Table<Arc<str>, NamespaceEntry>,
    nodes: Table<Arc<str>, NodeEntry>,
    /// Names of containers and workloads, kinds.
    texts: Table<Arc<str>, ()>,
    references: Table<Arc<str>, ReferenceEntry>,
    /// `imageID`s, and the digests in them.
    images: Table<Arc<str>, Option<Digest>>,
    /// The pods that run something of each repository.
    repositories: Table<Repository, HashSet<Id>>,
    generations: [u32; Kind::ALL.len()],
    changed: HashSet<Repository>,
    changed_nodes: HashSet<Id>,
    changed_namespaces: HashSet<Id>,
    changed_instances: bool,
}

impl Index {
    /// An index of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A list of this kind starts anew: what it does not name is gone when it has ended.
    pub fn begin(&mut self, kind: Kind) {
        let generation = &mut self.generations[kind as usize];
        *generation = generation.wrapping_add(1);
    }

    /// The list that [`Self::begin`] announced has ended. Until then, what was known stays.
    pub fn finish(&mut self, kind: Kind) {
        let generation = self.generations[kind as usize];
        match kind {
            Kind::Pod => {
                for id in 0..self.pods.len() {
                    if let Some(entry) = &self.pods[id]
                        && entry.generation != generation
                    {
                        let name = Arc::clone(&entry.facts.name);
                        let namespace = self.namespaces.key(entry.facts.namespace).cloned();
                        if let Some(namespace) = namespace {
                            self.delete_pod(&namespace, &name);
                        }
                    }
                }
            }
            Kind::Node => {
                for name in stale(&self.nodes, |node| {
                    node.facts.is_some() && node.generation != generation
                }) {
                    self.delete_node(&name);
                }
            }
            Kind::Namespace => {
                for name in stale(&self.namespaces, |namespace| {
                    namespace.labels.is_some() && namespace.generation != generation
                }) {
                    self.delete_namespace(&name);
                }
            }
        }
    }

    /// A pod as it now is. One that has finished, or runs nothing of ECR, is as good as deleted.
    pub fn apply_pod(&mut self, pod: &Pod) {
        if pod.finished || pod.containers.is_empty() {
            self.delete_pod(&pod.namespace, &pod.name);
            return;
        }
        let generation = self.generations[Kind::Pod as usize];
        let facts = self.intern(pod);
        let known = self
            .namespaces
            .get(facts.namespace)
            .and_then(|namespace| namespace.pods.get(&*pod.name).copied());
        let id = match known {
            Some(id) => {
                let Some(Some(entry)) = self.pods.get_mut(id as usize) else {
                    return;
                };
                entry.generation = generation;
                if entry.facts == facts {
                    self.discard(&facts);
                    return;
                }
                let before = std::mem::replace(&mut entry.facts, facts);
                self.unlink(id, &before);
                self.discard(&before);
                id
            }
            None => self.add(PodEntry { facts, generation }),
        };
        self.link(id);
    }

    /// A pod that is no more.
    pub fn delete_pod(&mut self, namespace: &str, name: &str) {
        let Some(id) = self
            .namespaces
            .find(namespace)
            .and_then(|namespace| self.namespaces.get_mut(namespace))
            .and_then(|namespace| namespace.pods.remove(name))
        else {
            return;
        };
        if let Some(entry) = self.pods.get_mut(id as usize).and_then(Option::take) {
            self.free.push(id);
            self.unlink(id, &entry.facts);
            self.discard(&entry.facts);
        }
    }

    /// A node as it now is.
    pub fn apply_node(&mut self, node: &Node) {
        let id = intern_or_default(&mut self.nodes, &node.name);
        let Some(entry) = self.nodes.get_mut(id) else {
            return;
        };
        entry.generation = self.generations[Kind::Node as usize];
        let before = entry.facts.replace(NodeFacts {
            instance: node.instance.as_deref().map(Arc::from),
            platform: node.platform.clone(),
        });
        self.node_changed(id, before.as_ref());
        // The object is one use of the name, each of its pods another.
        if before.is_some() {
            self.nodes.release(id);
        }
    }

    /// A node that is no more. Pods may still name it; their platform is then not known.
    pub fn delete_node(&mut self, name: &str) {
        let Some(id) = self.nodes.find(name) else {
            return;
        };
        let before = self.nodes.get_mut(id).and_then(|node| node.facts.take());
        if before.is_some() {
            self.node_changed(id, before.as_ref());
            self.nodes.release(id);
        }
    }

    /// A namespace as it now is.
    pub fn apply_namespace(&mut self, namespace: &Namespace) {
        let id = intern_or_default(&mut self.namespaces, &namespace.name);
        let Some(entry) = self.namespaces.get_mut(id) else {
            return;
        };
        entry.generation = self.generations[Kind::Namespace as usize];
        let before = entry.labels.replace(namespace.labels.clone());
        if before.as_ref() != Some(&namespace.labels) {
            self.changed_namespaces.insert(id);
        }
        if before.is_some() {
            self.namespaces.release(id);
        }
    }

    /// A namespace that is no more.
    pub fn delete_namespace(&mut self, name: &str) {
        let Some(id) = self.namespaces.find(name) else {
            return;
        };
        let before = self
            .namespaces
            .get_mut(id)
            .and_then(|namespace| namespace.labels.take());
        if before.is_some() {
            self.changed_namespaces.insert(id);
            self.namespaces.release(id);
        }
    }

    fn node_changed(&mut self, id: Id, before: Option<&NodeFacts>) {
        let now = self.nodes.get(id).and_then(|node| node.facts.as_ref());
        if before.and_then(|node| node.platform.as_ref())
            != now.and_then(|node| node.platform.as_ref())
        {
            self.changed_nodes.insert(id);
        }
        if before.and_then(|node| node.instance.as_ref())
            != now.and_then(|node| node.instance.as_ref())
        {
            self.changed_instances = true;
        }
    }

    /// Puts an entry into the first free place.
    fn add(&mut self, entry: PodEntry) -> Id {
        let namespace = entry.facts.namespace;
        let name = Arc::clone(&entry.facts.name);
        let id = if let Some(id) = self.free.pop() {
            self.pods[id as usize] = Some(entry);
            id
        } else {
            let id = intern::id(self.pods.len());
            self.pods.push(Some(entry));
            id
        };
        if let Some(namespace) = self.namespaces.get_mut(namespace) {
            namespace.pods.insert(name, id);
        }
        id
    }

    /// Uses every text of a pod once.
    fn intern(&mut self, pod: &Pod) -> PodFacts {
        let namespace = intern_or_default(&mut self.namespaces, &pod.namespace);
        let node = match &pod.node {
            Some(node) => intern_or_default(&mut self.nodes, node),
            None => NONE,
        };
        let containers = pod
            .containers
            .iter()
            .map(|container| self.intern_container(container))
            .collect();
        // The namespace's map and the entry share the name.
        let name = self
            .namespaces
            .get(namespace)
            .and_then(|namespace| namespace.pods.get_key_value(&*pod.name))
            .map_or_else(|| Arc::from(&*pod.name), |(name, _)| Arc::clone(name));
        PodFacts {
            created: pod.created.as_second(),
            started: pod.started.as_second(),
            name,
            containers,
            namespace,
            node,
            workload_kind: intern_or_default(&mut self.texts, &pod.workload_kind),
            workload_name: intern_or_default(&mut self.texts, &pod.workload_name),
        }
    }

    fn intern_container(&mut self, container: &PodContainer) -> ContainerEntry {
        let PodContainer {
            name,
            reference,
            image_id,
        } = container;
        let image = match image_id {
            Some(image_id) => self.images.reuse(&**image_id).unwrap_or_else(|| {
                self.images
                    .insert((&**image_id).into(), running_digest(image_id))
            }),
            None => NONE,
        };
        let reference = match self.references.reuse(&*reference.text) {
            Some(id) => id,
            None => self.insert_reference(reference),
        };
        ContainerEntry {
            name: intern_or_default(&mut self.texts, name),
            reference,
            image,
        }
    }

    /// References to one repository share its texts, and are its uses.
    fn insert_reference(&mut self, reference: &Reference) -> Id {
        let repository = match self.repositories.reuse(&reference.repository) {
            Some(id) => id,
            None => self
                .repositories
                .insert(reference.repository.clone(), HashSet::new()),
        };
        let mut reference = reference.clone();
        if let Some(shared) = self.repositories.key(repository) {
            reference.repository = shared.clone();
        }
        self.references.insert(
            Arc::clone(&reference.text),
            ReferenceEntry {
                reference,
                repository,
            },
        )
    }

    /// Ends one use of every text of a pod.
    fn discard(&mut self, facts: &PodFacts) {
        self.namespaces.release(facts.namespace);
        self.nodes.release(facts.node);
        self.texts.release(facts.workload_kind);
        self.texts.release(facts.workload_name);
        for container in &facts.containers {
            self.texts.release(container.name);
            self.images.release(container.image);
            if let Some((_, reference)) = self.references.release(container.reference) {
                self.repositories.release(reference.repository);
            }
        }
    }

    /// Makes a pod known to the repositories of its containers.
    fn link(&mut self, id: Id) {
        let Some(Some(entry)) = self.pods.get(id as usize) else {
            return;
        };
        for container in &entry.facts.containers {
            if let Some(reference) = self.references.get(container.reference) {
                if let Some(pods) = self.repositories.get_mut(reference.repository) {
                    pods.insert(id);
                }
                note(&mut self.changed, &reference.reference.repository);
            }
        }
    }

    /// Takes a pod from the repositories that its containers had.
    fn unlink(&mut self, id: Id, facts: &PodFacts) {
        for container in &facts.containers {
            if let Some(reference) = self.references.get(container.reference) {
                if let Some(pods) = self.repositories.get_mut(reference.repository) {
                    pods.remove(&id);
                }
                note(&mut self.changed, &reference.reference.repository);
            }
        }
    }
}

#[cfg(test)]
impl Index {
    /// How many of everything the index holds: pods, namespaces, nodes, texts, references, images,
    /// repositories.
    pub(super) fn sizes(&self) -> [usize; 7] {
        [
            self.pod_count(),
            self.namespaces.iter().count(),
            self.nodes.iter().count(),
            self.texts.iter().count(),
            self.references.iter().count(),
            self.images.iter().count(),
            self.repositories.iter().count(),
        ]
    }
}

fn note(changed: &mut HashSet<Repository>, repository: &Repository) {
    if !changed.contains(repository) {
        changed.insert(repository.clone());
    }
}

/// Uses a text once more, or for the first time.
fn intern_or_default<V: Default>(table: &mut Table<Arc<str>, V>, text: &str) -> Id {
    match table.reuse(text) {
        Some(id) => id,
        None => table.insert(text.into(), V::default()),
    }
}

/// The keys whose values a list did not name.
fn stale<V>(table: &Table<Arc<str>, V>, is_stale: impl Fn(&V) -> bool) -> Vec<Arc<str>> {
    table
        .iter()
        .filter(|(_, _, value)| is_stale(value))
        .map(|(_, key, _)| Arc::clone(key))
        .collect()
}
