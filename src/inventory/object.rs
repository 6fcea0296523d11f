//! Pods, nodes and namespaces, decoded down to the fields that an audit uses.
//!
//! `k8s_openapi`'s `Pod` costs twenty times the time and four hundred times the memory. The shapes
//! here are strict about what they read and blind to everything else; a `null` is an absent field.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::workload::{self, Controller};
use crate::event::{Platform, Reference, is_instance_id};

/// Longest image text and `imageID` that are taken for one. ECR's repository names have at most 256
/// characters and its tags 128; the API server itself sets no bound.
const MAX_IMAGE_LEN: usize = 1024;

/// A pod, as the index wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.namespace`.
    pub namespace: Box<str>,
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.resourceVersion`, for who watches.
    pub resource_version: Option<String>,
    /// `metadata.creationTimestamp`.
    pub created: Timestamp,
    /// `status.startTime`, else `metadata.creationTimestamp`.
    pub started: Timestamp,
    /// Whether the phase is `Succeeded` or `Failed`: nothing of it runs any more.
    pub finished: bool,
    /// `spec.nodeName`; none while the pod is not scheduled.
    pub node: Option<Box<str>>,
    /// Kind of the workload.
    pub workload_kind: Box<str>,
    /// Name of the workload.
    pub workload_name: Box<str>,
    /// The containers and image volumes that name an ECR repository.
    pub containers: Vec<PodContainer>,
}

/// A container of a pod (init and ephemeral ones, too), or an image volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodContainer {
    /// The container's name, or the volume's.
    pub name: Box<str>,
    /// The pod's image text.
    pub reference: Reference,
    /// `imageID` as the node reports it; none while the image is being pulled.
    pub image_id: Option<Box<str>>,
}

/// A node, as the index wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.resourceVersion`, for who watches.
    pub resource_version: Option<String>,
    /// The EC2 instance id in `spec.providerID`, which names the session of the node's pulls; none
    /// for nodes that are no EC2 instances (Fargate, hybrid).
    pub instance: Option<Box<str>>,
    /// Operating system and architecture.
    pub platform: Option<Platform>,
}

/// A namespace, as the index wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.resourceVersion`, for who watches.
    pub resource_version: Option<String>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
}

/// Reads a value whose `null` is the same as its absence.
fn or_null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct RawPod<'a> {
    #[serde(borrow)]
    metadata: RawPodMetadata<'a>,
    #[serde(borrow)]
    spec: RawPodSpec<'a>,
    #[serde(borrow, default, deserialize_with = "or_null")]
    status: RawPodStatus<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct RawPodMetadata<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(default)]
    resource_version: Option<String>,
    creation_timestamp: Timestamp,
    #[serde(default, deserialize_with = "or_null")]
    labels: RawPodLabels,
    #[serde(borrow, default, deserialize_with = "or_null")]
    owner_references: Vec<RawOwner<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(expecting = "an object")]
struct RawPodLabels {
    #[serde(default, rename = "pod-template-hash")]
    template_hash: Option<String>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct RawOwner<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default, deserialize_with = "or_null")]
    controller: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct RawPodSpec<'a> {
    #[serde(default)]
    node_name: Option<String>,
    #[serde(borrow, default, deserialize_with = "or_null")]
    containers: Vec<RawContainer<'a>>,
    #[serde(borrow, default, deserialize_with = "or_null")]
    init_containers: Vec<RawContainer<'a>>,
    #[serde(borrow, default, deserialize_with = "or_null")]
    ephemeral_containers: Vec<RawContainer<'a>>,
    #[serde(borrow, default, deserialize_with = "or_null")]
    volumes: Vec<RawVolume<'a>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct RawContainer<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    /// Optional: templates of workloads may leave it to a webhook.
    #[serde(borrow, default, deserialize_with = "or_null")]
    image: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct RawVolume<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    image: Option<RawImageVolume>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct RawImageVolume {
    #[serde(default)]
    reference: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct RawPodStatus<'a> {
    #[serde(default)]
    phase: Option<String>,
    #[serde(default)]
    start_time: Option<Timestamp>,
    #[serde(borrow, default, deserialize_with = "or_null")]
    container_statuses: Vec<RawStatus<'a>>,
    #[serde(borrow, default, deserialize_with = "or_null")]
    init_container_statuses: Vec<RawStatus<'a>>,
    #[serde(borrow, default, deserialize_with = "or_null")]
    ephemeral_container_statuses: Vec<RawStatus<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct RawStatus<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default, rename = "imageID", deserialize_with = "or_null")]
    image_id: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "or_null")]
    volume_mounts: Vec<RawMount<'a>>,
}

/// Where Kubernetes reports an image volume's digest:
/// `status.containerStatuses[].volumeMounts[].volumeStatus.image.imageRef` (since 1.35, KEP-5365).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct RawMount<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    volume_status: Option<RawVolumeStatus>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct RawVolumeStatus {
    #[serde(default)]
    image: Option<RawImageVolumeStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct RawImageVolumeStatus {
    #[serde(default)]
    image_ref: Option<String>,
}

/// An `imageID` that says something: absent, empty and absurdly long ones do not.
fn known(image_id: &str) -> Option<Box<str>> {
    (!image_id.is_empty() && image_id.len() <= MAX_IMAGE_LEN).then(|| image_id.into())
}

fn reference(image: &str) -> Option<Reference> {
    (image.len() <= MAX_IMAGE_LEN)
        .then(|| Reference::parse(image))
        .flatten()
}

impl RawPodStatus<'_> {
    fn statuses(&self) -> impl Iterator<Item = &RawStatus<'_>> {
        self.container_statuses
            .iter()
            .chain(&self.init_container_statuses)
            .chain(&self.ephemeral_container_statuses)
    }

    fn finished(&self) -> bool {
        matches!(self.phase.as_deref(), Some("Succeeded" | "Failed"))
    }
}

impl RawPod<'_> {
    /// Containers first, then image volumes; a name is unique among either.
    fn containers(&self) -> Vec<PodContainer> {
        let spec = &self.spec;
        let containers = spec
            .containers
            .iter()
            .chain(&spec.init_containers)
            .chain(&spec.ephemeral_containers)
            .filter_map(|container| {
                let reference = reference(&container.image)?;
                let image_id = self
                    .status
                    .statuses()
                    .find(|status| status.name == container.name)
                    .and_then(|status| known(&status.image_id));
                Some(PodContainer {
                    name: container.name.as_ref().into(),
                    reference,
                    image_id,
                })
            });
        let volumes = spec.volumes.iter().filter_map(|volume| {
            let reference = reference(volume.image.as_ref()?.reference.as_deref()?)?;
            let image_id = self
                .status
                .statuses()
                .flat_map(|status| &status.volume_mounts)
                .filter(|mount| mount.name == volume.name)
                .find_map(|mount| {
                    let image = mount.volume_status.as_ref()?.image.as_ref()?;
                    known(image.image_ref.as_deref()?)
                });
            Some(PodContainer {
                name: volume.name.as_ref().into(),
                reference,
                image_id,
            })
        });
        containers.chain(volumes).collect()
    }
}

impl<'de> Deserialize<'de> for Pod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawPod::deserialize(deserializer)?;
        let containers = if raw.status.finished() {
            Vec::new()
        } else {
            raw.containers()
        };
        let RawPodMetadata {
            name,
            namespace,
            resource_version,
            creation_timestamp: created,
            labels,
            owner_references,
        } = raw.metadata;
        let controller = owner_references
            .iter()
            .find(|owner| owner.controller)
            .map(|owner| Controller {
                kind: &owner.kind,
                name: &owner.name,
            });
        let template_hash = labels.template_hash.as_deref();
        let (kind, workload) = workload::of(&name, controller, template_hash, created);
        Ok(Self {
            workload_kind: kind.into(),
            workload_name: workload.into(),
            namespace: namespace.as_ref().into(),
            name: name.as_ref().into(),
            resource_version,
            created,
            started: raw.status.start_time.unwrap_or(created),
            finished: raw.status.finished(),
            node: raw
                .spec
                .node_name
                .filter(|node| !node.is_empty())
                .map(Into::into),
            containers,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct RawMetadata {
    name: Box<str>,
    #[serde(default)]
    resource_version: Option<String>,
    #[serde(default, deserialize_with = "or_null")]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct RawNode {
    metadata: RawMetadata,
    #[serde(default, deserialize_with = "or_null")]
    spec: RawNodeSpec,
    #[serde(default, deserialize_with = "or_null")]
    status: RawNodeStatus,
}

#[derive(Default, Deserialize)]
#[serde(expecting = "an object")]
struct RawNodeSpec {
    #[serde(default, rename = "providerID")]
    provider_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct RawNodeStatus {
    #[serde(default, deserialize_with = "or_null")]
    node_info: RawNodeInfo,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct RawNodeInfo {
    #[serde(default)]
    operating_system: Option<String>,
    #[serde(default)]
    architecture: Option<String>,
}

/// The instance id in `aws:///<zone>/<instance id>`.
fn instance(provider_id: &str) -> Option<&str> {
    let (_zone, id) = provider_id.strip_prefix("aws://")?.rsplit_once('/')?;
    is_instance_id(id).then_some(id)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let RawNode {
            metadata,
            spec,
            status,
        } = RawNode::deserialize(deserializer)?;
        let field = |info: Option<String>, label: &str| -> Option<Arc<str>> {
            info.filter(|text| !text.is_empty())
                .map(Arc::from)
                .or_else(|| Some(metadata.labels.get(label)?.as_str().into()))
        };
        let os = field(status.node_info.operating_system, "kubernetes.io/os");
        let architecture = field(status.node_info.architecture, "kubernetes.io/arch");
        let platform = os
            .zip(architecture)
            .map(|(os, architecture)| Platform { os, architecture });
        Ok(Self {
            instance: spec
                .provider_id
                .as_deref()
                .and_then(instance)
                .map(Into::into),
            platform,
            name: metadata.name,
            resource_version: metadata.resource_version,
        })
    }
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct RawNamespace {
    metadata: RawMetadata,
}

impl<'de> Deserialize<'de> for Namespace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let RawMetadata {
            name,
            resource_version,
            labels,
        } = RawNamespace::deserialize(deserializer)?.metadata;
        if name.is_empty() {
            return Err(D::Error::custom("a namespace needs a name"));
        }
        Ok(Self {
            name,
            resource_version,
            labels,
        })
    }
}
