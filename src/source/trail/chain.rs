//! Whether what a digest file lists was delivered and read: each log file's text has the hash that
//! the digest gives, as it was read before or is read now.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use aws_sdk_s3::Client;
use jiff::{SignedDuration, Timestamp};

use super::{Digest, DigestFile, LogFile, Objects, Read, name_of, trail};
use crate::{
    event::{Interval, Intervals},
    source::{Gap, Reason, Store, fault::Fault},
};

/// How long before its delivery an event may have happened: what is said to be covered settles as
/// long, and what is missing was as long on its way.
pub(crate) const SETTLING: SignedDuration = SignedDuration::from_mins(15);

/// What looking after a digest file showed.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// The delivery time that it is about.
    pub(crate) span: Interval,
    /// The digest file before it, where the chain has one.
    pub(crate) previous: Option<String>,
    /// Whether the digest file itself could be read.
    pub(crate) is_read: bool,
    /// What is missing; none when everything was delivered and read.
    pub(crate) gap: Option<Gap>,
    /// Log files that were read only now.
    pub(crate) read: Vec<Read>,
}

/// Where a digest file is looked after.
#[derive(Clone, Copy)]
pub(crate) struct Looker<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) objects: &'a Objects,
    pub(crate) client: &'a Client,
    pub(crate) bucket: &'a str,
}

/// The event time that is not covered when files delivered within a span are missing.
pub(crate) fn missed(delivered: Interval) -> Interval {
    let start = delivered.start.checked_sub(SETTLING);
    Interval {
        start: start.unwrap_or(Timestamp::MIN),
        end: delivered.end,
    }
}

/// The event time that one file may hold.
pub(crate) fn missed_by(file: &LogFile) -> Interval {
    let end = file.delivered.checked_add(SignedDuration::from_mins(1));
    missed(Interval {
        start: file.delivered,
        end: end.unwrap_or(Timestamp::MAX),
    })
}

/// The event time that is covered when everything delivered in these spans was read.
pub(crate) fn settled(delivered: &Intervals) -> Intervals {
    let all = delivered.as_slice().iter();
    all.map(|run| Interval {
        start: run.start,
        end: run.end.checked_sub(SETTLING).unwrap_or(Timestamp::MIN),
    })
    .collect()
}

/// The gap that a file leaves, if the fault is about the file and not about the way to it.
pub(crate) fn gap_of(fault: &Fault, span: Interval) -> Option<Gap> {
    let is_of_file = matches!(
        fault.reason,
        Reason::FileMissing | Reason::FileUnreadable | Reason::FileChanged
    );
    is_of_file.then(|| Gap {
        reason: fault.reason,
        message: fault.message.clone(),
        span,
    })
}

impl Looker<'_> {
    /// Looks after a digest file and every log file that it lists.
    ///
    /// # Errors
    /// When something could not be reached; then nothing is known.
    pub(crate) async fn check(&self, file: &DigestFile, now: Timestamp) -> Result<Checked, Fault> {
        let text = self
            .objects
            .text(self.client, self.bucket, &file.key, None)
            .await;
        let digest = match text {
            Ok(text) => Digest::parse(self.bucket, &text).map_err(|wrong| {
                let message = format!("{}: {wrong}", name_of(&file.key));
                Fault::new(Reason::FileUnreadable, message)
            }),
            Err(fault) => Err(fault),
        };
        let digest = match digest {
            Ok(digest) => digest,
            Err(fault) => {
                // Nobody can say which time it is about: as long as these are.
                let span = Interval {
                    start: hour_before(file.end),
                    end: file.end,
                };
                let mut gap = gap_of(&fault, missed(span)).ok_or(fault)?;
                if gap.reason == Reason::FileMissing {
                    gap.reason = Reason::DigestMissing;
                    gap.message = format!("{}: it is not in the bucket", name_of(&file.key));
                }
                return Ok(Checked {
                    span,
                    previous: None,
                    is_read: false,
                    gap: Some(gap),
                    read: vec![],
                });
            }
        };
        let known = self.known(file, &digest).await?;
        let mut checked = Checked {
            span: digest.span,
            previous: digest.previous,
            is_read: true,
            gap: None,
            read: vec![],
        };
        let mut wrong: BTreeMap<&str, Fault> = BTreeMap::new();
        for (log, hash) in &digest.files {
            let id = (log.delivered, log.unique.clone());
            let found = match known.get(&id) {
                Some(found) => Ok(*found),
                None => match self
                    .objects
                    .read(self.client, self.bucket, log, None, now)
                    .await
                {
                    Ok(read) => {
                        let hash = read.hash;
                        checked.read.push(read);
                        Ok(hash)
                    }
                    Err(fault) => Err(fault),
                },
            };
            let fault = match found {
                Ok(found) if found == *hash => continue,
                Ok(_) => Fault::new(
                    Reason::FileChanged,
                    format!("{}: not what was delivered", name_of(&log.key)),
                ),
                Err(fault) if gap_of(&fault, digest.span).is_some() => fault,
                Err(fault) => return Err(fault),
            };
            wrong.insert(name_of(&log.key), fault);
        }
        checked.gap = sum_up(&wrong, digest.span);
        Ok(checked)
    }

    /// The hashes of the listed files that were read before.
    async fn known(
        &self,
        file: &DigestFile,
        digest: &Digest,
    ) -> Result<HashMap<(Timestamp, Arc<str>), [u8; 32]>, Fault> {
        let times = || digest.files.iter().map(|(log, _)| log.delivered);
        let (Some(start), Some(last)) = (times().min(), times().max()) else {
            return Ok(HashMap::new());
        };
        let end = last.checked_add(SignedDuration::from_secs(1));
        let span = Interval {
            start,
            end: end.unwrap_or(Timestamp::MAX),
        };
        let trail = trail(self.bucket, &file.root);
        let known = self.store.files(&trail, &file.place, span).await;
        let known = known.map_err(|error| Fault::new(Reason::Ledger, error.to_string()))?;
        let known = known.into_iter();
        Ok(known
            .map(|file| ((file.delivered, file.unique), file.hash))
            .collect())
    }
}

/// One gap for all that is wrong with an hour's files.
fn sum_up(wrong: &BTreeMap<&str, Fault>, span: Interval) -> Option<Gap> {
    let (name, first) = wrong.iter().next()?;
    let more = wrong.len() - 1;
    let what = match first.reason {
        Reason::FileMissing => "a digest lists it, and it is not in the bucket".to_owned(),
        _ => first
            .message
            .strip_prefix(&format!("{name}: "))
            .unwrap_or(&first.message)
            .to_owned(),
    };
    let more = match more {
        0 => String::new(),
        more => format!(" (and {more} more of the same hour)"),
    };
    let fault = Fault::new(first.reason, format!("{name}: {what}{more}"));
    gap_of(&fault, missed(span))
}

/// The time of an hour earlier, which is as long as a digest file's.
pub(crate) fn hour_before(end: Timestamp) -> Timestamp {
    end.checked_sub(SignedDuration::from_hours(1))
        .unwrap_or(Timestamp::MIN)
}
