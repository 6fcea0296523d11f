//! What a CloudTrail record of Amazon ECR says, as typed facts.
//!
//! A record's text comes in ([`decode`]), an [`Event`] leaves. Everything here is pure: no I/O, no
//! clock. The shapes follow AWS's page "Logging Amazon ECR actions with AWS CloudTrail" and the
//! CloudTrail record reference; where real records differ from the pages, the real ones win.

mod action;
mod coverage;
mod facts;
mod image;
mod lately;
mod lenient;
mod manifest;
mod notice;
mod principal;
mod record;
mod skim;
pub mod split;
mod wire;

pub use coverage::{Interval, Intervals};
pub use facts::{
    Action, DeletedImage, Effect, Event, EventName, LifecycleAction, LifecycleRule, Outcome, Pull,
    StorageClass,
};
pub use image::{Digest, ImageId, InvalidDigest, Platform, Reference, Repository, RepositoryRef};
pub use manifest::{Child, Manifest};
pub use notice::notice;
pub use principal::{Caller, Principal, is_instance_id};
pub(crate) use record::EVENT_SOURCE;
pub use record::{Counted, DecodeError, Decoder, decode};
