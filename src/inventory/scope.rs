//! Which of the images that run a policy audits: by namespace and by registry.

use std::collections::{BTreeMap, BTreeSet};

use kube::core::{Expression, ParseExpressionError, Selector, SelectorExt};

use crate::{
    api::{Images, Workloads},
    event::Repository,
};

/// The label that Kubernetes gives every namespace, with its name as value: selectors on this one
/// need no namespace object.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A policy's `workloads` and `images`, compiled. The default is everything that runs.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// None when every namespace is meant.
    namespaces: Option<Selector>,
    needs_labels: bool,
    /// Account ids; none when every registry is meant.
    registries: Option<BTreeSet<String>>,
}

impl Scope {
    /// Compiles both parts of a policy's spec.
    ///
    /// # Errors
    /// When the selector has an operator that there is not, or one without its values.
    pub fn new(
        workloads: Option<&Workloads>,
        images: Option<&Images>,
    ) -> Result<Self, ParseExpressionError> {
        let selector = workloads
            .and_then(|workloads| workloads.namespace_selector.clone())
            .map(Selector::try_from)
            .transpose()?
            .filter(|selector| !selector.selects_all());
        let needs_labels = selector
            .clone()
            .is_some_and(|selector| selector.into_iter().any(|term| key(&term) != NAME_LABEL));
        let registries = images
            .and_then(|images| images.registry_ids.as_ref())
            .map(|ids| ids.iter().cloned().collect());
        Ok(Self {
            namespaces: selector,
            needs_labels,
            registries,
        })
    }

    /// Whether namespaces are told apart by labels that only the namespace objects have.
    #[must_use]
    pub const fn needs_labels(&self) -> bool {
        self.needs_labels
    }

    /// Whether the repository's registry is audited.
    #[must_use]
    pub fn includes(&self, repository: &Repository) -> bool {
        self.registries
            .as_ref()
            .is_none_or(|ids| ids.contains(repository.account.as_ref()))
    }

    /// Whether a namespace is audited; `labels` is none when its object is not known, and it then
    /// counts only if its name alone decides.
    pub(super) fn selects(&self, name: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        let Some(selector) = &self.namespaces else {
            return true;
        };
        match labels {
            Some(labels) => selector.matches(labels),
            None if self.needs_labels => false,
            None => selector.matches(&BTreeMap::from([(NAME_LABEL.to_owned(), name.to_owned())])),
        }
    }

    /// Whether namespaces matter at all.
    pub(super) const fn selects_all(&self) -> bool {
        self.namespaces.is_none()
    }
}

fn key(term: &Expression) -> &str {
    match term {
        Expression::In(key, _)
        | Expression::NotIn(key, _)
        | Expression::Equal(key, _)
        | Expression::NotEqual(key, _)
        | Expression::Exists(key)
        | Expression::DoesNotExist(key) => key,
    }
}
