//! What the index is asked: containers by repository, nodes, and what has changed.

use std::{collections::HashSet, mem, sync::Arc};

use jiff::Timestamp;

use super::{Changes, Index, NodeFacts, PodEntry, PodFacts};
use crate::{
    audit::Container,
    event::{Platform, Repository},
    inventory::{Scope, intern::Id},
};

impl Index {
    /// The repositories that containers run from, whose registry the scope includes. The scope's
    /// namespaces are not looked at: [`Self::containers`] may be empty.
    pub fn repositories<'a>(&'a self, scope: &'a Scope) -> impl Iterator<Item = &'a Repository> {
        self.repositories
            .iter()
            .map(|(_, repository, _)| repository)
            .filter(|repository| scope.includes(repository))
    }

    /// The containers that run from a repository within the scope, in no particular order.
    #[must_use]
    pub fn containers(&self, repository: &Repository, scope: &Scope) -> Vec<Container<'_>> {
        let Some(id) = self.repositories.find(repository) else {
            return Vec::new();
        };
        if !scope.includes(repository) {
            return Vec::new();
        }
        let mut containers = Vec::new();
        // Pods of one namespace tend to follow each other.
        let mut last = None;
        for pod in self.repositories.get(id).into_iter().flatten() {
            let Some(facts) = self.pod(*pod) else {
                continue;
            };
            let selected = match last {
                Some((namespace, selected)) if namespace == facts.namespace => selected,
                _ => self.selects(scope, facts.namespace),
            };
            last = Some((facts.namespace, selected));
            if selected {
                self.containers_of(facts, id, &mut containers);
            }
        }
        containers
    }

    fn containers_of<'a>(
        &'a self,
        facts: &'a PodFacts,
        repository: Id,
        containers: &mut Vec<Container<'a>>,
    ) {
        let Some(namespace) = self.namespaces.key(facts.namespace) else {
            return;
        };
        for entry in &facts.containers {
            let Some(reference) = self.references.get(entry.reference) else {
                continue;
            };
            if reference.repository != repository {
                continue;
            }
            containers.push(Container {
                namespace,
                workload_kind: self.text(facts.workload_kind),
                workload_name: self.text(facts.workload_name),
                pod: &facts.name,
                container: self.text(entry.name),
                reference: &reference.reference,
                running: self.images.get(entry.image).and_then(Option::as_ref),
                created: time(facts.created),
                started: time(facts.started),
                platform: self.platform(facts.node),
            });
        }
    }

    /// `imageID` of a container as its node reports it; none while it waits for its image.
    #[must_use]
    pub fn image_id(&self, namespace: &str, pod: &str, container: &str) -> Option<&str> {
        let namespace = self.namespaces.get(self.namespaces.find(namespace)?)?;
        let facts = self.pod(*namespace.pods.get(pod)?)?;
        let entry = facts
            .containers
            .iter()
            .find(|entry| self.text(entry.name) == container)?;
        self.images.key(entry.image).map(AsRef::as_ref)
    }

    /// EC2 instance ids of the nodes.
    #[must_use]
    pub fn instances(&self) -> HashSet<Arc<str>> {
        self.node_facts()
            .filter_map(|node| node.instance.clone())
            .collect()
    }

    /// How many nodes have no EC2 instance id, so that the session of their pulls cannot be known.
    #[must_use]
    pub fn nodes_without_session(&self) -> usize {
        self.node_facts()
            .filter(|node| node.instance.is_none())
            .count()
    }

    /// How many pods run something of ECR.
    #[must_use]
    pub fn pod_count(&self) -> usize {
        self.pods.len() - self.free.len()
    }

    /// Namespaces of pods whose labels are not known, sorted. A [`Scope`] that needs labels passes
    /// them over.
    #[must_use]
    pub fn namespaces_without_labels(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .namespaces
            .iter()
            .filter(|(_, _, namespace)| namespace.labels.is_none() && !namespace.pods.is_empty())
            .map(|(_, name, _)| &**name)
            .collect();
        names.sort_unstable();
        names
    }

    /// Whether [`Self::take_changes`] would give any.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.changed_instances
            || !(self.changed.is_empty()
                && self.changed_nodes.is_empty()
                && self.changed_namespaces.is_empty())
    }

    /// What has changed since this was last asked.
    pub fn take_changes(&mut self) -> Changes {
        let mut repositories = mem::take(&mut self.changed);
        let nodes = mem::take(&mut self.changed_nodes);
        let namespaces = mem::take(&mut self.changed_namespaces);
        if !nodes.is_empty() || !namespaces.is_empty() {
            let affected = self
                .pods
                .iter()
                .flatten()
                .map(|PodEntry { facts, .. }| facts)
                .filter(|facts| {
                    nodes.contains(&facts.node) || namespaces.contains(&facts.namespace)
                });
            for entry in affected.flat_map(|facts| &facts.containers) {
                if let Some(reference) = self.references.get(entry.reference) {
                    super::note(&mut repositories, &reference.reference.repository);
                }
            }
        }
        Changes {
            repositories,
            instances: mem::take(&mut self.changed_instances),
        }
    }

    fn pod(&self, id: Id) -> Option<&PodFacts> {
        Some(&self.pods.get(id as usize)?.as_ref()?.facts)
    }

    fn text(&self, id: Id) -> &str {
        self.texts.key(id).map_or("", AsRef::as_ref)
    }

    fn platform(&self, node: Id) -> Option<&Platform> {
        self.nodes.get(node)?.facts.as_ref()?.platform.as_ref()
    }

    fn node_facts(&self) -> impl Iterator<Item = &NodeFacts> {
        self.nodes
            .iter()
            .filter_map(|(_, _, node)| node.facts.as_ref())
    }

    fn selects(&self, scope: &Scope, namespace: Id) -> bool {
        scope.selects_all()
            || self
                .namespaces
                .key(namespace)
                .zip(self.namespaces.get(namespace))
                .is_some_and(|(name, namespace)| scope.selects(name, namespace.labels.as_ref()))
    }
}

fn time(seconds: i64) -> Timestamp {
    // Made from a timestamp, so it is one.
    Timestamp::from_second(seconds).unwrap_or_default()
}
