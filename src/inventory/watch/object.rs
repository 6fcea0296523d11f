//! One object as the watcher carries it: ours, and the little that `kube` must know of it.

use std::{borrow::Cow, fmt};

use kube::{
    Resource,
    api::ObjectMeta,
    core::{ClusterResourceScope, NamespaceResourceScope},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::health::bounded;
use crate::inventory::{Index, Kind, Namespace, Node, Pod};

/// A kind of object that the index is made of, as the API serves it.
pub(super) trait Followed:
    DeserializeOwned + Clone + fmt::Debug + Send + Sync + 'static
{
    type Scope;
    const KIND: Kind;
    fn apply(&self, index: &mut Index);
    fn delete(index: &mut Index, namespace: &str, name: &str);
    /// Namespace, name and resource version.
    fn identity(&mut self) -> Identity;
}

impl Followed for Pod {
    type Scope = NamespaceResourceScope;
    const KIND: Kind = Kind::Pod;
    fn apply(&self, index: &mut Index) {
        index.apply_pod(self);
    }
    fn delete(index: &mut Index, namespace: &str, name: &str) {
        index.delete_pod(namespace, name);
    }
    fn identity(&mut self) -> Identity {
        Identity {
            namespace: Some(self.namespace.as_ref().to_owned()),
            name: Some(self.name.as_ref().to_owned()),
            resource_version: self.resource_version.take(),
        }
    }
}

impl Followed for Node {
    type Scope = ClusterResourceScope;
    const KIND: Kind = Kind::Node;
    fn apply(&self, index: &mut Index) {
        index.apply_node(self);
    }
    fn delete(index: &mut Index, _namespace: &str, name: &str) {
        index.delete_node(name);
    }
    fn identity(&mut self) -> Identity {
        Identity {
            namespace: None,
            name: Some(self.name.as_ref().to_owned()),
            resource_version: self.resource_version.take(),
        }
    }
}

impl Followed for Namespace {
    type Scope = ClusterResourceScope;
    const KIND: Kind = Kind::Namespace;
    fn apply(&self, index: &mut Index) {
        index.apply_namespace(self);
    }
    fn delete(index: &mut Index, _namespace: &str, name: &str) {
        index.delete_namespace(name);
    }
    fn identity(&mut self) -> Identity {
        Identity {
            namespace: None,
            name: Some(self.name.as_ref().to_owned()),
            resource_version: self.resource_version.take(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Identity {
    namespace: Option<String>,
    name: Option<String>,
    resource_version: Option<String>,
}

/// All that is read of an object that cannot be decoded.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Undecodable {
    metadata: Identity,
}

/// An object as the watcher carries it: what `kube` must know of it, and ours, or why there is none.
#[derive(Clone, Debug)]
pub(super) struct Watched<K> {
    pub(super) meta: ObjectMeta,
    pub(super) object: Result<K, String>,
}

impl<'de, K: Followed> Deserialize<'de> for Watched<K> {
    /// One object that does not decode must not take its page, or its stream, with it: only text
    /// that is no JSON is an error here.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&'de RawValue>::deserialize(deserializer)?.get();
        let (identity, object) = match serde_json::from_str::<K>(text) {
            Ok(mut object) => (object.identity(), Ok(object)),
            Err(error) => {
                let undecodable: Undecodable = serde_json::from_str(text).unwrap_or_default();
                (undecodable.metadata, Err(bounded(&error.to_string())))
            }
        };
        let meta = ObjectMeta {
            namespace: identity.namespace,
            name: identity.name,
            resource_version: identity.resource_version,
            ..ObjectMeta::default()
        };
        Ok(Self { meta, object })
    }
}

impl<K: Followed> Resource for Watched<K> {
    type DynamicType = ();
    type Scope = K::Scope;
    fn kind((): &()) -> Cow<'_, str> {
        K::KIND.as_str().into()
    }
    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        K::KIND.plural().into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use kube::{api::WatchEvent, core::ObjectList};

    use super::*;

    const GOOD: &str = r#"{
        "metadata": {"namespace": "shop", "name": "web", "resourceVersion": "7",
                     "creationTimestamp": "2026-11-22T12:00:00Z"},
        "spec": {"containers": []}}"#;
    const BROKEN: &str = r#"{
        "metadata": {"namespace": "shop", "name": "odd", "resourceVersion": "8",
                     "creationTimestamp": "yesterday\u001b[31m"},
        "spec": {"containers": 3}}"#;

    fn seen(watched: &Watched<Pod>) -> (Option<&str>, Option<&str>, bool) {
        (
            watched.meta.name.as_deref(),
            watched.meta.resource_version.as_deref(),
            watched.object.is_ok(),
        )
    }

    #[test]
    fn an_object_that_does_not_decode_leaves_its_page_alone() {
        let page = format!(
            r#"{{"kind": "PodList", "apiVersion": "v1", "metadata": {{"resourceVersion": "9"}},
                "items": [{BROKEN}, {GOOD}, {{"metadata": 3}}, null]}}"#
        );
        let page: ObjectList<Watched<Pod>> = serde_json::from_str(&page).unwrap();
        let seen: Vec<_> = page.items.iter().map(seen).collect();
        assert_eq!(
            seen,
            [
                (Some("odd"), Some("8"), false),
                (Some("web"), Some("7"), true),
                (None, None, false),
                (None, None, false),
            ]
        );
        let error = page.items[0].object.as_ref().unwrap_err();
        assert!(!error.contains('\u{1b}'), "{error}");
    }

    #[test]
    fn an_object_that_does_not_decode_moves_the_watch_on() {
        for (object, expected) in [
            (GOOD, (Some("web"), Some("7"), true)),
            (BROKEN, (Some("odd"), Some("8"), false)),
        ] {
            let event = format!(r#"{{"type": "MODIFIED", "object": {object}}}"#);
            match serde_json::from_str(&event).unwrap() {
                WatchEvent::Modified(watched) => assert_eq!(seen(&watched), expected),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_urls_are_those_of_the_core_api() {
        assert_eq!(Watched::<Pod>::url_path(&(), None), "/api/v1/pods");
        assert_eq!(Watched::<Node>::url_path(&(), None), "/api/v1/nodes");
        assert_eq!(
            Watched::<Namespace>::url_path(&(), None),
            "/api/v1/namespaces"
        );
    }
}
