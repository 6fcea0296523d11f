//! Why a file, or a part of it, could not be read.

use std::io;

/// What is wrong with a file. Its text is for people, and holds nothing of the file's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("empty")]
    Empty,
    #[error("neither CloudTrail records nor anything else that CloudTrail or EventBridge writes")]
    NotCloudTrail,
    #[error("not valid JSON")]
    NotJson,
    #[error("ends in the middle of a document")]
    CutOff,
    #[error("longer than 4 MiB, which no record of CloudTrail is")]
    TooLong,
    #[error("gzip: ends in the middle of the compressed data")]
    GzipCutOff,
    #[error("gzip: the compressed data is damaged")]
    GzipDamaged,
    #[error("gzip: something else follows the compressed data")]
    GzipTrailing,
    #[error("expands to more than is read of one object")]
    TooMuch,
    #[error("became shorter while it was read")]
    Shrank,
    #[error("neither a file nor a folder")]
    NoFile,
    #[error("cannot be read: {}", io::Error::from(*.0))]
    Io(io::ErrorKind),
}

impl Fault {
    /// Whether it can be told in which record it lies.
    pub(super) fn is_of_record(self) -> bool {
        matches!(self, Self::NotJson | Self::CutOff | Self::TooLong)
    }
}

impl From<&io::Error> for Fault {
    /// Readers that know a fault of their own wrap it.
    fn from(error: &io::Error) -> Self {
        let own = error.get_ref().and_then(|inner| inner.downcast_ref());
        own.copied().unwrap_or_else(|| Self::Io(error.kind()))
    }
}
