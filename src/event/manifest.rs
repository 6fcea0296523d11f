//! Image manifests: what an index lists, and which config an image manifest names.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::image::{Digest, Platform};

/// The lineage that a manifest's text states; layers are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The platform manifests that an OCI index or Docker manifest list names, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Child>,
    /// The config digest that an image manifest names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Digest>,
}

/// One entry of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// The platform manifest's digest.
    pub digest: Digest,
    /// What it runs on, where the index says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Option<String>,
    #[serde(default)]
    platform: Option<DescriptorPlatform>,
}

#[derive(Deserialize)]
struct DescriptorPlatform {
    #[serde(default)]
    os: Option<Arc<str>>,
    #[serde(default)]
    architecture: Option<Arc<str>>,
}

impl Descriptor {
    fn digest(&self) -> Option<Digest> {
        self.digest
            .as_deref()
            .and_then(|text| Digest::parse(text).ok())
    }
}

impl Manifest {
    /// Reads a manifest's text. `None` when it is not a JSON manifest.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let document: Document = serde_json::from_str(text).ok()?;
        let children = document
            .manifests
            .unwrap_or_default()
            .into_iter()
            .filter_map(|descriptor| {
                let digest = descriptor.digest()?;
                let platform = descriptor.platform.and_then(|platform| {
                    Some(Platform {
                        os: platform.os?,
                        architecture: platform.architecture?,
                    })
                });
                Some(Child { digest, platform })
            })
            .collect();
        Some(Self {
            children,
            config: document.config.and_then(|config| config.digest()),
        })
    }
}
