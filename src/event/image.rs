//! Names of images: repositories, digests, tags and the references that pods write.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// A content digest as OCI writes it, `algorithm:encoded`, for example `sha256:98c8b0…`.
///
/// Compared as text. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(Arc<str>);

/// The text is not a digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an image digest (expected algorithm:encoded, such as sha256:98c8…)")]
pub struct InvalidDigest;

impl Digest {
    /// Longest text taken for a digest; a `sha512` digest has 135 characters.
    const MAX_LEN: usize = 255;

    /// Reads a digest: lower-case algorithm, `:`, and at least one encoded character
    /// (OCI image specification, "Digests").
    ///
    /// # Errors
    /// [`InvalidDigest`] for any other text.
    pub fn parse(text: &str) -> Result<Self, InvalidDigest> {
        if Self::is_valid(text) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidDigest)
        }
    }

    /// Whether [`Self::parse`] takes this text.
    #[must_use]
    pub fn is_valid(text: &str) -> bool {
        // Of nearly all, and without a branch for each byte.
        if let Some(hex) = text.strip_prefix("sha256:")
            && let Ok(hex) = <&[u8; 64]>::try_from(hex.as_bytes())
            && hex.iter().fold(true, |all, byte| {
                all & matches!(byte, b'0'..=b'9' | b'a'..=b'f')
            })
        {
            return true;
        }
        let Some((algorithm, encoded)) = text.split_once(':') else {
            return false;
        };
        let of_algorithm = |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'.' | b'_' | b'-');
        let of_encoded =
            |b| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'=' | b'_' | b'-');
        let algorithm_ok = !algorithm.is_empty() && algorithm.bytes().all(of_algorithm);
        let encoded_ok = !encoded.is_empty() && encoded.bytes().all(of_encoded);
        text.len() <= Self::MAX_LEN && algorithm_ok && encoded_ok
    }

    /// The digest of a manifest's text: `sha256:` and 64 hex digits.
    #[must_use]
    pub fn of_manifest(text: &str) -> Self {
        use sha2::{Digest as _, Sha256};
        use std::fmt::Write as _;
        let mut digest = String::with_capacity(71);
        digest.push_str("sha256:");
        for byte in Sha256::digest(text.as_bytes()) {
            // Writing to a String cannot fail.
            let _ = write!(digest, "{byte:02x}");
        }
        Self(digest.into())
    }

    /// The digest's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;
    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0.as_ref().to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a call names an image by: a digest, a tag, or both (ECR's `ImageIdentifier`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ImageId {
    /// The digest, when the call gave one.
    #[serde(default, rename = "d", skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The tag, when the call gave one.
    #[serde(default, rename = "t", skip_serializing_if = "Option::is_none")]
    pub tag: Option<Arc<str>>,
}

/// One ECR repository: the registry's account, the region and the repository's name.
///
/// The same name in another account or region is another repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Repository {
    /// Account id of the registry, 12 digits.
    pub account: Arc<str>,
    /// AWS region, for example `us-east-1`.
    pub region: Arc<str>,
    /// Name within the registry, for example `shop/web`.
    pub name: Arc<str>,
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.account, self.region, self.name)
    }
}

/// A repository's names within other text: what a [`Repository`] is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RepositoryRef<'a> {
    /// As [`Repository::account`].
    pub account: &'a str,
    /// As [`Repository::region`].
    pub region: &'a str,
    /// As [`Repository::name`].
    pub name: &'a str,
}

impl<'a> RepositoryRef<'a> {
    /// The repository that an ARN names.
    pub(super) fn of_arn(arn: &'a str) -> Option<Self> {
        // Quicker than to search for so short a part.
        let part = |text: &'a str| text.split_at_checked(text.bytes().position(|b| b == b':')?);
        let (scheme, rest) = part(arn)?;
        let (_partition, rest) = part(rest.get(1..)?)?;
        let (service, rest) = part(rest.get(1..)?)?;
        let (region, rest) = part(rest.get(1..)?)?;
        let (account, rest) = part(rest.get(1..)?)?;
        let name = rest.get(1..)?.strip_prefix("repository/")?;
        let account_ok = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        let named = !region.is_empty() && account_ok && !name.is_empty();
        (scheme == "arn" && service == "ecr" && named).then_some(Self {
            account,
            region,
            name,
        })
    }
}

impl hashbrown::Equivalent<Repository> for RepositoryRef<'_> {
    fn equivalent(&self, repository: &Repository) -> bool {
        let Repository {
            account,
            region,
            name,
        } = repository;
        *self.name == **name && *self.account == **account && *self.region == **region
    }
}

/// Operating system and architecture as Kubernetes nodes and OCI indexes spell them
/// (`linux`, `arm64`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `GOOS` spelling.
    pub os: Arc<str>,
    /// `GOARCH` spelling.
    pub architecture: Arc<str>,
}

/// A pod's image text that names an ECR repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The text as the pod has it.
    pub text: Arc<str>,
    /// The repository that it names.
    pub repository: Repository,
    /// The tag that a node resolves: none when a digest is given, since then the digest wins;
    /// `latest` when the text gives neither.
    pub tag: Option<Arc<str>>,
    /// The digest, when the text gives one.
    pub digest: Option<Digest>,
}

/// What follows the region in the host names of ECR's private registries, in every partition.
const SUFFIXES: [&str; 7] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "c2s.ic.gov",
    "sc2s.sgov.gov",
    "cloud.adc-e.uk",
    "csp.hci.ic.gov",
];

/// The same for the dual-stack host names (`…dkr-ecr.<region>.on.aws`).
const DUAL_STACK_SUFFIXES: [&str; 3] = [
    "on.aws",
    "on.amazonwebservices.com.cn",
    "on.amazonwebservices.eu",
];

/// Account and region of an ECR host name; none for every other host.
fn registry_host(host: &str) -> Option<(&str, &str)> {
    let host = host.strip_suffix(":443").unwrap_or(host);
    let account = host
        .get(..12)
        .filter(|id| id.bytes().all(|b| b.is_ascii_digit()))?;
    let rest = host.get(12..)?;
    let (rest, suffixes): (&str, &[&str]) = if let Some(rest) = rest.strip_prefix(".dkr.ecr") {
        (rest, &SUFFIXES)
    } else {
        (rest.strip_prefix(".dkr-ecr")?, &DUAL_STACK_SUFFIXES)
    };
    let rest = rest
        .strip_prefix("-fips")
        .unwrap_or(rest)
        .strip_prefix('.')?;
    let (region, suffix) = rest.split_once('.')?;
    let region_ok = !region.is_empty()
        && region
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (region_ok && suffixes.contains(&suffix)).then_some((account, region))
}

impl Reference {
    /// Reads a pod's image text. `None` when it does not name a repository of a private ECR
    /// registry (ECR Public is another service), or is no image reference at all.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, path) = text.split_once('/')?;
        let (account, region) = registry_host(host)?;
        let (path, digest) = match path.split_once('@') {
            Some((path, digest)) => (path, Some(Digest::parse(digest).ok()?)),
            None => (path, None),
        };
        let (name, tag) = match path.rsplit_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (path, None),
        };
        if name.is_empty() || name.contains(':') || tag.is_some_and(str::is_empty) {
            return None;
        }
        let tag = match (&digest, tag) {
            (Some(_), _) => None,
            (None, tag) => Some(tag.unwrap_or("latest").into()),
        };
        Some(Self {
            text: text.into(),
            repository: Repository {
                account: account.into(),
                region: region.into(),
                name: name.into(),
            },
            tag,
            digest,
        })
    }
}
