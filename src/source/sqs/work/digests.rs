//! What a trail's digest files say of the files that the queue told of.

use std::sync::PoisonError;

use jiff::Timestamp;
use tracing::warn;

use super::{End, Worker};
use crate::source::{
    Gap, Reason,
    sqs::{cover::name_of, message::Object},
    trail::{DigestFile, ObjectKey},
};

/// Digest files that are looked after for one message: the chain back to what is known.
const MOST_BACK: usize = 500;
/// Digest files that are remembered.
const MOST_DIGESTS: usize = 100_000;

impl Worker {
    /// Looks after a digest file, and then after those before it that the queue should have told
    /// of: what they list was delivered, and is read here if it was not read yet.
    pub(super) async fn digest(&self, bucket: &str, file: DigestFile) -> End {
        let (mut next, mut end) = (Some(file), End::Done);
        for _ in 0..MOST_BACK {
            let Some(file) = next.take() else { break };
            let old = Timestamp::now().checked_sub(self.spec.borrow().lookback);
            if old.is_ok_and(|old| file.end < old) || !self.is_new(&file) {
                break;
            }
            let object = Object {
                bucket: bucket.to_owned(),
                key: file.key.to_string(),
            };
            let checked = match self.read(&object, &ObjectKey::Digest(file.clone())).await {
                Ok(Some(checked)) => checked,
                Ok(None) => break,
                Err(_) => {
                    // It proves nothing: what was delivered still counts by delivery.
                    self.forget_digest(&file);
                    return End::Left;
                }
            };
            let is_damaged = |gap: &Gap| !checked.is_read && gap.reason == Reason::FileUnreadable;
            if checked.gap.as_ref().is_some_and(is_damaged) {
                end = End::Left;
                self.forget_digest(&file);
            }
            let mut cover = self.cover.lock().await;
            let learned = match checked.gap {
                Some(gap) => {
                    warn!(
                        queue = %self.name, %bucket, digest = %file.key, reason = %gap.reason,
                        message = %gap.message, "a trail's files are not complete"
                    );
                    cover.missing(&file.place, &name_of(bucket, &file.key), gap)
                }
                None => cover.proved(bucket, &file, checked.span),
            };
            self.learn(&mut cover, &file.place, learned).await;
            let before = checked.previous.map(|key| ObjectKey::parse(None, &key));
            if let Some(ObjectKey::Digest(before)) = before
                && before.place == file.place
                && before.root == file.root
                && cover.lacks(bucket, &before)
            {
                next = Some(before);
            }
        }
        end
    }

    /// Whether a digest file is looked after for the first time.
    fn is_new(&self, file: &DigestFile) -> bool {
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if digests.len() >= MOST_DIGESTS {
            digests.clear();
        }
        digests.insert(file.key.clone())
    }

    pub(super) fn forget_digest(&self, file: &DigestFile) {
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        digests.remove(&file.key);
    }
}
