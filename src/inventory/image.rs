//! `imageID`, as container runtimes report it → the digest in it.

use crate::event::Digest;

/// The digest in a container status's `imageID` (or an image volume's `imageRef`).
///
/// containerd reports `repo@sha256:…`, docker `docker-pullable://repo@sha256:…` or
/// `docker://sha256:…`, imported images and some CRI-O versions `sha256:…` or bare hex of the image's
/// config. The repository in it may be another one that shares the digest, and is not read.
/// `None` while the image is being pulled (the text is empty), and for a text that names no digest.
pub(super) fn running_digest(image_id: &str) -> Option<Digest> {
    let text = image_id
        .split_once("://")
        .map_or(image_id, |(_scheme, rest)| rest);
    let text = text.rsplit_once('@').map_or(text, |(_name, digest)| digest);
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Digest::parse(&format!("sha256:{text}")).ok();
    }
    // A digest has no `/`; `repo:tag`, which some runtimes give, would else look like one.
    let (_algorithm, encoded) = text.split_once(':')?;
    let hash = encoded.len() >= 32 && encoded.bytes().all(|b| b.is_ascii_hexdigit());
    hash.then(|| Digest::parse(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::running_digest;

    const HEX: &str = "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12a3b4c5d6e7f8091a2b3c4d5e";

    fn digest(image_id: &str) -> Option<String> {
        running_digest(&image_id.replace("HEX", HEX)).map(String::from)
    }

    #[test]
    fn every_runtime_s_image_id_gives_its_digest() {
        let expected = Some(format!("sha256:{HEX}"));
        for image_id in [
            // containerd and CRI-O
            "111122223333.dkr.ecr.us-east-1.amazonaws.com/shop/web@sha256:HEX",
            // docker, pulled and imported
            "docker-pullable://111122223333.dkr.ecr.us-east-1.amazonaws.com/shop/web@sha256:HEX",
            "docker://sha256:HEX",
            // containerd's imported images
            "sha256:HEX",
            "docker.io/library/import-2026-11-22@sha256:HEX",
            // CRI-O's image id
            "HEX",
            // a registry with a port
            "registry.example:5000/web@sha256:HEX",
        ] {
            assert_eq!(digest(image_id), expected, "{image_id}");
        }
    }

    #[test]
    fn an_image_id_without_a_digest_is_that_of_an_image_being_pulled() {
        for image_id in [
            "",
            "docker://",
            "shop/web:v1",
            "registry.example:5000/web",
            "web:cafe",
            "@",
            "repo@",
            "repo@sha256:",
        ] {
            assert_eq!(digest(image_id), None, "{image_id}");
        }
    }
}
