//! Parts of a record that was found valid: the repository that it concerns, and what a pull or a
//! push, by far the most that is judged, asks for and is answered. What is written otherwise than
//! most are, or belongs to another call, is left to a full parse.

use std::borrow::Cow;

use super::{MAX_DEPTH, Walk, first};
use crate::event::{
    image::RepositoryRef,
    wire::{RawImageId, Request, Response, ResponseImage},
};

/// Where a part of a record begins, and the quotes from there on.
#[derive(Clone, Copy)]
pub(super) struct Place<'q> {
    pub(super) at: usize,
    pub(super) quotes: &'q [u32],
}

/// Reads parts of a record.
pub(super) struct Reader<'a, 'q> {
    text: &'a str,
    /// Whether there is a backslash anywhere.
    escapes: bool,
    walk: Walk<'a, 'q>,
}

impl<'a, 'q> Reader<'a, 'q> {
    pub(super) fn new(text: &'a str, place: Place<'q>, escapes: bool) -> Self {
        let walk = Walk {
            text: text.as_bytes(),
            places: place.quotes,
        };
        Self {
            text,
            escapes,
            walk,
        }
    }

    /// The request that begins there.
    pub(super) fn request(&mut self, at: usize) -> Option<Request<'a>> {
        let mut request = Request::default();
        let mut seen = 0;
        self.object(at, |reader, key, at| match key {
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
            "imageTag" => {
                first(&mut seen, 3)?;
                reader.text(at, &mut request.image_tag)
            }
            "imageDigest" => {
                first(&mut seen, 4)?;
                reader.text(at, &mut request.image_digest)
            }
            "imageManifest" => {
                first(&mut seen, 5)?;
                reader.raw(at, &mut request.image_manifest)
            }
            // Of other calls; and what stands in for a request that was left out.
            "imageId" | "targetStorageClass" | "omitted" => None,
            _ => reader.walk.value(at, MAX_DEPTH),
        })?;
        Some(request)
    }

    /// The response of a push that begins there.
    pub(super) fn response(&mut self, at: usize) -> Option<Response<'a>> {
        let mut response = Response::default();
        let mut seen = 0;
        self.object(at, |reader, key, at| match key {
            "image" => {
                first(&mut seen, 0)?;
                let mut image = ResponseImage::default();
                let end = reader.response_image(at, &mut image)?;
                response.image = Some(image);
                Some(end)
            }
            "imageId" | "imageIds" | "failures" | "omitted" => None,
            _ => reader.walk.value(at, MAX_DEPTH),
        })?;
        Some(response)
    }

    fn response_image(&mut self, at: usize, image: &mut ResponseImage<'a>) -> Option<usize> {
        let mut seen = 0;
        self.object(at, |reader, key, at| match key {
            "repositoryName" => {
                first(&mut seen, 0)?;
                reader.text(at, &mut image.repository_name)
            }
            "imageManifest" => {
                first(&mut seen, 1)?;
                reader.raw(at, &mut image.image_manifest)
            }
            "imageId" => {
                first(&mut seen, 2)?;
                let mut id = RawImageId::default();
                let end = reader.image_id(at, &mut id)?;
                image.image_id = Some(id);
                Some(end)
            }
            _ => reader.walk.value(at, MAX_DEPTH),
        })
    }

    /// Puts the first repository among the resources that begin there into `found`, if there is one.
    pub(super) fn resource(
        &mut self,
        at: usize,
        found: &mut Option<RepositoryRef<'a>>,
    ) -> Option<usize> {
        let end = self.array(at, |reader, at| {
            let mut seen = 0;
            let mut arn = None;
            let end = reader.object(at, |reader, key, at| match key {
                "ARN" | "arn" => {
                    first(&mut seen, 0)?;
                    let (text, end) = reader.string(at)?;
                    arn = RepositoryRef::of_arn(text);
                    Some(end)
                }
                _ => reader.walk.value(at, MAX_DEPTH),
            })?;
            *found = found.or(arn);
            Some(end)
        });
        if end.is_none() {
            *found = None;
        }
        end
    }

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
        self.array(at, |reader, at| {
            let mut image = RawImageId::default();
            let end = reader.image_id(at, &mut image)?;
            images.push(image);
            Some(end)
        })
    }

    /// The elements of an array: `element` takes where one begins, and gives where it ends.
    fn array(
        &mut self,
        at: usize,
        mut element: impl FnMut(&mut Self, usize) -> Option<usize>,
    ) -> Option<usize> {
        self.walk.expect(at, b'[')?;
        let mut at = at + 1;
        if self.walk.text.get(at)? == &b']' {
            return Some(at + 1);
        }
        loop {
            at = element(self, at)?;
            match self.walk.text.get(at)? {
                b',' => at += 1,
                b']' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    fn image_id(&mut self, at: usize, image: &mut RawImageId<'a>) -> Option<usize> {
        let mut seen = 0;
        self.object(at, |reader, key, at| match key {
            "imageDigest" => {
                first(&mut seen, 0)?;
                reader.text(at, &mut image.image_digest)
            }
            "imageTag" => {
                first(&mut seen, 1)?;
                reader.text(at, &mut image.image_tag)
            }
            _ => reader.walk.value(at, MAX_DEPTH),
        })
    }

    fn text(&mut self, at: usize, field: &mut Option<Cow<'a, str>>) -> Option<usize> {
        let (text, end) = self.string(at)?;
        *field = Some(Cow::Borrowed(text));
        Some(end)
    }

    /// A string as it is written.
    fn raw(&mut self, at: usize, field: &mut Option<&'a str>) -> Option<usize> {
        let end = self.walk.string(at)?;
        *field = self.text.get(at..end);
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
