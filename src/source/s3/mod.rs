//! A trail's bucket, read by listing: what is new every minute, and the history day by day, the
//! newest first.
//!
//! [`listing`] asks S3, [`place`] knows what of one account and region was read and what that
//! proves, [`read`] reads a day's files and digests, and the [`Reader`] does this for every place
//! that it finds.

mod listing;
mod place;
mod read;
mod reader;

pub(crate) use reader::Reader;
