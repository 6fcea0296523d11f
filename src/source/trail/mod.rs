//! A trail's files in a bucket: what their names say, what is in them, and what proves that all
//! were read. The sources `s3` and `sqs` stand on this; they differ in how they hear of a file.
//!
//! Names and contents are untrusted: whoever may write to the bucket, or send to the queue, chose
//! them. A name is taken apart and checked, and only one that follows the trail's layout is asked
//! for; sizes are bounded, also after decompression.

mod chain;
mod digest;
mod key;
mod objects;

pub(crate) use chain::{
    Checked, Looker, SETTLING, gap_of, hour_before, missed, missed_by, settled,
};
use digest::Digest;
pub use key::{DigestFile, LogFile, ObjectKey};
pub(crate) use key::{LOGS, is_account, is_organization, is_region};
pub(crate) use objects::{Objects, Read, name_of, trail};
