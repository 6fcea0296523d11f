//! What a pull asks for, by far the most that is judged: its request, out of a record that was
//! found valid. Whatever is more than a repository and images, or written otherwise, is left to a
//! full parse.

use std::borrow::Cow;

use super::{MAX_DEPTH, Walk, first};
use crate::event::wire::{RawImageId, Request};

/// The request at this place, if it is written as most are; `places` are the quotes from there on.
pub(super) fn request<'a>(
    text: &'a str,
    places: &[u32],
    at: usize,
    escapes: bool,
) -> Option<Request<'a>> {
    let mut reader = Reader {
        text,
        escapes,
        walk: Walk {
            text: text.as_bytes(),
            places,
        },
    };
    let mut request = Request::default();
    let mut seen = 0;
    reader.object(at, |reader, key, at| match key {
        "repositoryName" => {
            first(&mut seen, 0)?;
            reader.text(at, &mut request.repository_name)
        }
        "registryId" => {
            first(&mut seen, 1)?;
            reader.text(at, &mut request.registry_id)
        }
        "imageIds" => {
            first(&mut seen, 2)?;
            let mut images = Vec::new();
            let end = reader.images(at, &mut images)?;
            request.image_ids = Some(images);
            Some(end)
        }
        // Of other calls; and what stands in for a request that was left out.
        "imageId" | "imageTag" | "imageDigest" | "imageManifest" | "targetStorageClass"
        | "omitted" => None,
        _ => reader.walk.value(at, MAX_DEPTH),
    })?;
    Some(request)
}

struct Reader<'a, 'q> {
    text: &'a str,
    escapes: bool,
    walk: Walk<'a, 'q>,
}

impl<'a> Reader<'a, '_> {
    /// The members of an object: `member` takes a key and where its value begins, and gives where
    /// that ends.
    fn object(
        &mut self,
        at: usize,
        mut member: impl FnMut(&mut Self, &'a str, usize) -> Option<usize>,
    ) -> Option<usize> {
        self.walk.expect(at, b'{')?;
        let mut at = at + 1;
        if self.walk.text.get(at)? == &b'}' {
            return Some(at + 1);
        }
        loop {
            let (key, colon) = self.string(at)?;
            self.walk.expect(colon, b':')?;
            at = member(self, key, colon + 1)?;
            match self.walk.text.get(at)? {
                b',' => at += 1,
                b'}' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    fn images(&mut self, at: usize, images: &mut Vec<RawImageId<'a>>) -> Option<usize> {
        self.walk.expect(at, b'[')?;
        let mut at = at + 1;
        if self.walk.text.get(at)? == &b']' {
            return Some(at + 1);
        }
        loop {
            let mut image = RawImageId::default();
            let mut seen = 0;
            at = self.object(at, |reader, key, at| match key {
                "imageDigest" => {
                    first(&mut seen, 0)?;
                    reader.text(at, &mut image.image_digest)
                }
                "imageTag" => {
                    first(&mut seen, 1)?;
                    reader.text(at, &mut image.image_tag)
                }
                _ => reader.walk.value(at, MAX_DEPTH),
            })?;
            images.push(image);
            match self.walk.text.get(at)? {
                b',' => at += 1,
                b']' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    fn text(&mut self, at: usize, field: &mut Option<Cow<'a, str>>) -> Option<usize> {
        let (text, end) = self.string(at)?;
        *field = Some(Cow::Borrowed(text));
        Some(end)
    }

    /// A string without escapes, and where it ends.
    fn string(&mut self, at: usize) -> Option<(&'a str, usize)> {
        let end = self.walk.string(at)?;
        let text = self.text.get(at + 1..end - 1)?;
        if self.escapes && text.contains('\\') {
            return None;
        }
        Some((text, end))
    }
}
