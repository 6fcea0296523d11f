//! What an object's key says, by the layout that CloudTrail gives its files:
//!
//! ```text
//! [prefix/]AWSLogs/[o-id/]<account>/CloudTrail/<region>/YYYY/MM/DD/
//!     <account>_CloudTrail_<region>_<YYYYMMDDTHHmmZ>_<unique>.json.gz
//! [prefix/]AWSLogs/[o-id/]<account>/CloudTrail-Digest/<region>/YYYY/MM/DD/
//!     <account>_CloudTrail-Digest_<region>_<trail>_<home region>_<YYYYMMDDTHHmmssZ>[_backfill].json.gz
//! ```
//!
//! <https://docs.aws.amazon.com/awscloudtrail/latest/userguide/get-and-view-cloudtrail-log-files.html>
//! and the page "CloudTrail digest file structure".

use std::sync::Arc;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use crate::source::Place;

/// The longest key that S3 has, in bytes.
const MAX_KEY: usize = 1024;
/// The longest unique part of a file's name that is taken; CloudTrail writes 16 characters.
const MAX_UNIQUE: usize = 64;
/// The folder below the prefix.
pub(crate) const LOGS: &str = "AWSLogs";

/// A log file of a trail.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogFile {
    /// What its accounts' folders lie in: `[prefix/]AWSLogs[/o-id]`.
    pub root: Arc<str>,
    /// Whose events it holds.
    pub place: Place,
    /// When it was delivered, to the minute.
    pub delivered: Timestamp,
    /// What tells it from others of the same minute.
    pub unique: Arc<str>,
    /// The whole key.
    pub key: Arc<str>,
}

/// A digest file, which lists the log files of about an hour.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DigestFile {
    /// What its accounts' folders lie in.
    pub root: Arc<str>,
    /// Whose log files it lists.
    pub place: Place,
    /// Name and home region of the trail: each trail has a chain of its own.
    pub trail: Arc<str>,
    /// The end of its hour.
    pub end: Timestamp,
    /// Whether it only adds files that the hour's own digest did not list.
    pub is_backfill: bool,
    /// The whole key.
    pub key: Arc<str>,
}

/// What an object is, by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectKey {
    /// A log file.
    Log(LogFile),
    /// A digest file.
    Digest(DigestFile),
    /// Anything else: Insights, AWS Config, a file that somebody put there.
    Other,
}

impl ObjectKey {
    /// By its key. With a `prefix` (empty, or ending with a slash) the key must begin with that and
    /// `AWSLogs/`; without one anything may precede.
    #[must_use]
    pub fn parse(prefix: Option<&str>, key: &str) -> Self {
        parse(prefix, key).unwrap_or(Self::Other)
    }
}

fn parse(prefix: Option<&str>, key: &str) -> Option<ObjectKey> {
    if key.len() > MAX_KEY || key.chars().any(char::is_control) {
        return None;
    }
    let mut parts = key.rsplitn(8, '/');
    let name = parts.next()?;
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let is_date = is_number(day, 2) && is_number(month, 2) && is_number(year, 4);
    let (region, kind) = (parts.next()?, parts.next()?);
    let (account, root) = (parts.next()?, parts.next()?);
    if !is_date || !is_region(region) || !is_account(account) {
        return None;
    }
    is_root(prefix, root).then_some(())?;
    let place = Place {
        account: account.into(),
        region: region.into(),
    };
    let stem = name.strip_suffix(".json.gz")?;
    match kind {
        "CloudTrail" => {
            let rest = after(stem, &[account, "CloudTrail", region])?;
            let (time, unique) = rest.split_once('_')?;
            let is_unique = !unique.is_empty()
                && unique.len() <= MAX_UNIQUE
                && unique.bytes().all(|byte| byte.is_ascii_alphanumeric());
            is_unique.then_some(())?;
            Some(ObjectKey::Log(LogFile {
                root: root.into(),
                place,
                delivered: time_of(time, "%Y%m%dT%H%MZ", 14)?,
                unique: unique.into(),
                key: key.into(),
            }))
        }
        "CloudTrail-Digest" => {
            let rest = after(stem, &[account, "CloudTrail-Digest", region])?;
            let (rest, is_backfill) = match rest.strip_suffix("_backfill") {
                Some(rest) => (rest, true),
                None => (rest, false),
            };
            let (trail, time) = rest.rsplit_once('_')?;
            Some(ObjectKey::Digest(DigestFile {
                root: root.into(),
                place,
                trail: trail.into(),
                end: time_of(time, "%Y%m%dT%H%M%SZ", 16)?,
                is_backfill,
                key: key.into(),
            }))
        }
        _ => None,
    }
}

/// What follows these parts and a `_` behind each.
fn after<'t>(mut text: &'t str, parts: &[&str]) -> Option<&'t str> {
    for part in parts {
        text = text.strip_prefix(part)?.strip_prefix('_')?;
    }
    Some(text)
}

fn is_number(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a text is an AWS account's id.
pub(crate) fn is_account(text: &str) -> bool {
    is_number(text, 12)
}

/// Whether a text has the form of a region's name, as `us-east-1` has.
pub(crate) fn is_region(text: &str) -> bool {
    let mut parts = text.split('-').rev();
    let number = parts.next().unwrap_or_default();
    let words: Vec<&str> = parts.collect();
    text.len() <= 32
        && !number.is_empty()
        && number.len() <= 2
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && words.len() >= 2
        && words
            .iter()
            .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()))
}

/// Whether a text has the form of an organization's id.
pub(crate) fn is_organization(text: &str) -> bool {
    text.strip_prefix("o-").is_some_and(|id| {
        (4..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

fn is_root(prefix: Option<&str>, root: &str) -> bool {
    let root = match root.rsplit_once('/') {
        Some((above, last)) if is_organization(last) => above,
        _ => root,
    };
    match (prefix, root.strip_suffix(LOGS)) {
        (_, None) => false,
        (Some(prefix), Some(before)) => before == prefix,
        (None, Some(before)) => before.is_empty() || before.ends_with('/'),
    }
}

fn time_of(text: &str, format: &str, length: usize) -> Option<Timestamp> {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if text.len() != length || digits + 2 != length {
        return None;
    }
    let time = DateTime::strptime(format, text).ok()?;
    TimeZone::UTC.to_timestamp(time).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOG: &str = "AWSLogs/111122223333/CloudTrail/us-east-1/2026/11/22/\
        111122223333_CloudTrail_us-east-1_20261122T1805Z_AbCdEfGhIjKlMnOp.json.gz";

    fn log(prefix: Option<&str>, key: &str) -> Option<LogFile> {
        match ObjectKey::parse(prefix, key) {
            ObjectKey::Log(file) => Some(file),
            _ => None,
        }
    }

    #[test]
    fn a_log_files_key_says_whose_events_it_holds_and_when_it_was_delivered() {
        let file = log(Some(""), LOG).unwrap();
        assert_eq!(&*file.root, "AWSLogs");
        assert_eq!(&*file.place.account, "111122223333");
        assert_eq!(&*file.place.region, "us-east-1");
        assert_eq!(file.delivered.to_string(), "2026-11-22T18:05:00Z");
        assert_eq!(&*file.unique, "AbCdEfGhIjKlMnOp");
        assert_eq!(&*file.key, LOG);
    }

    #[test]
    fn prefix_and_organization_belong_to_the_root() {
        let key = format!(
            "audit/org/{}",
            LOG.replace("AWSLogs/", "AWSLogs/o-a1b2c3d4e5/")
        );
        let file = log(Some("audit/org/"), &key).unwrap();
        assert_eq!(&*file.root, "audit/org/AWSLogs/o-a1b2c3d4e5");
        assert_eq!(log(None, &key), Some(file));
        assert_eq!(log(Some(""), &key), None);
        assert_eq!(log(Some("other/"), &key), None);
    }

    #[test]
    fn a_digests_key_says_of_which_trail_it_is_and_until_when_it_reaches() {
        let key = "AWSLogs/111122223333/CloudTrail-Digest/us-east-2/2015/08/17/\
            111122223333_CloudTrail-Digest_us-east-2_your_trail-name_us-east-1_20150817T150131Z";
        for (end, is_backfill) in [(".json.gz", false), ("_backfill.json.gz", true)] {
            let ObjectKey::Digest(file) = ObjectKey::parse(Some(""), &format!("{key}{end}")) else {
                panic!("no digest");
            };
            assert_eq!(&*file.trail, "your_trail-name_us-east-1");
            assert_eq!(file.end.to_string(), "2015-08-17T15:01:31Z");
            assert_eq!(file.is_backfill, is_backfill);
        }
    }

    #[test]
    fn what_is_not_a_trails_is_skipped() {
        let other = [
            LOG.replace("/CloudTrail/", "/CloudTrail-Insight/"),
            LOG.replace("/CloudTrail/", "/Config/"),
            LOG.replace("111122223333/", "11112222333/"),
            LOG.replace("AWSLogs", "Logs"),
            LOG.replace("AWSLogs", "xAWSLogs"),
            LOG.replace("us-east-1/", "../"),
            LOG.replace("20261122T1805Z", "20261322T1805Z"),
            LOG.replace("20261122T1805Z", "+2026112T1805Z"),
            LOG.replace("_AbCd", "_Ab/Cd"),
            LOG.replace("_AbCd", "_Ab\nCd"),
            LOG.replace(".json.gz", ".json"),
            LOG.replace("_CloudTrail_us-east-1", "_CloudTrail_eu-west-1"),
            format!("{}{LOG}", "x/".repeat(512)),
            String::new(),
            "/".repeat(100),
        ];
        for key in other {
            assert_eq!(ObjectKey::parse(None, &key), ObjectKey::Other, "{key}");
        }
    }

    proptest! {
        #[test]
        fn no_key_makes_it_panic(key in ".{0,200}") {
            let _ = ObjectKey::parse(None, &key);
        }

        #[test]
        fn a_key_with_one_character_changed_is_never_another_place_by_accident(
            at in 0..LOG.len(), with in "[ -~]"
        ) {
            let mut key = LOG.to_owned();
            key.replace_range(at..=at, &with);
            if let Some(file) = log(Some(""), &key) {
                // Account and region each stand there twice or more, and have to agree.
                prop_assert_eq!(&*file.place.account, "111122223333");
                prop_assert_eq!(&*file.place.region, "us-east-1");
            }
        }
    }
}
