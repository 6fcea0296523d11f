//! What `ListObjectsV2` says: which accounts and regions a bucket holds, and which files.

use aws_config::SdkConfig;
use aws_sdk_s3::{Client, operation::list_objects_v2::ListObjectsV2Output};
use jiff::{Timestamp, civil::Date, tz::TimeZone};

use crate::source::{
    Place,
    fault::Fault,
    trail::{LOGS, ObjectKey, is_account, is_organization, is_region},
};

/// More accounts and regions than any organization has: a bucket that holds more is none of a trail.
pub(super) const MOST_PLACES: usize = 100_000;

/// One page of a listing.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Keys, with their lengths.
    pub(super) objects: Vec<(ObjectKey, Option<u64>)>,
    /// Where the next page begins.
    pub(super) next: Option<String>,
}

/// Where the files of an account and region lie.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Folder {
    /// `[prefix/]AWSLogs[/o-id]`.
    pub(super) root: String,
    pub(super) place: Place,
}

/// Which kind of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Files {
    Logs,
    Digests,
}

impl Folder {
    /// The folder with the files of a kind, with a slash at its end.
    fn of(&self, files: Files) -> String {
        let kind = match files {
            Files::Logs => "CloudTrail",
            Files::Digests => "CloudTrail-Digest",
        };
        let Place { account, region } = &self.place;
        format!("{}/{account}/{kind}/{region}/", self.root)
    }

    /// The folder of a day.
    pub(super) fn day(&self, files: Files, day: Date) -> String {
        format!("{}{}/", self.of(files), day.strftime("%Y/%m/%d"))
    }

    /// What precedes every log file of a day that was delivered at a time or later.
    pub(super) fn since(&self, day: Date, from: Timestamp) -> String {
        let Place { account, region } = &self.place;
        let time = from.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%MZ");
        format!(
            "{}{account}_CloudTrail_{region}_{time}",
            self.day(Files::Logs, day)
        )
    }
}

/// A client for buckets. Names with dots are no host names of a certificate, and other servers than
/// AWS's know no hosts for buckets: the bucket stands in the path.
pub(super) fn client(config: &SdkConfig) -> Client {
    let config = aws_sdk_s3::config::Builder::from(config)
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

/// Lists a bucket.
#[derive(Clone, Copy)]
pub(super) struct Lister<'a> {
    pub(super) client: &'a Client,
    pub(super) bucket: &'a str,
    /// Called before each request.
    pub(super) count: &'a (dyn Fn() + Sync),
}

impl Lister<'_> {
    /// A page of the objects below a folder, behind `after` or where the last page ended.
    pub(super) async fn page(
        &self,
        folder: &str,
        after: Option<&str>,
        token: Option<String>,
    ) -> Result<Listed, Fault> {
        (self.count)();
        let output = self
            .client
            .list_objects_v2()
            .bucket(self.bucket)
            .prefix(folder)
            .set_start_after(after.map(str::to_owned))
            .set_continuation_token(token)
            .send()
            .await
            .map_err(|error| Fault::of(&error))?;
        let next = next(&output);
        let objects = output.contents.unwrap_or_default().into_iter();
        let objects = objects.filter_map(|object| {
            let length = object.size.and_then(|size| u64::try_from(size).ok());
            // A folder that somebody made is no object.
            let key = object.key.filter(|key| !key.ends_with('/'))?;
            Some((ObjectKey::parse(None, &key), length))
        });
        Ok(Listed {
            objects: objects.collect(),
            next,
        })
    }

    /// The names of the folders in a folder.
    async fn folders(&self, folder: &str) -> Result<Vec<String>, Fault> {
        let mut names = Vec::new();
        let mut token = None;
        loop {
            (self.count)();
            let output = self
                .client
                .list_objects_v2()
                .bucket(self.bucket)
                .prefix(folder)
                .delimiter("/")
                .set_continuation_token(token)
                .send()
                .await
                .map_err(|error| Fault::of(&error))?;
            token = next(&output);
            let found = output.common_prefixes.unwrap_or_default();
            names.extend(found.into_iter().filter_map(|found| {
                let name = found.prefix?;
                let name = name.strip_prefix(folder)?.strip_suffix('/')?;
                Some(name.to_owned())
            }));
            if token.is_none() || names.len() > MOST_PLACES {
                return Ok(names);
            }
        }
    }

    /// Every account and region below a prefix whose account is wanted, and whether it has digests.
    pub(super) async fn places(
        &self,
        prefix: &str,
        wanted: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<Vec<(Folder, bool)>, Fault> {
        let logs = format!("{prefix}{LOGS}");
        let mut accounts: Vec<(String, String)> = Vec::new();
        for name in self.folders(&format!("{logs}/")).await? {
            if is_account(&name) {
                accounts.push((logs.clone(), name));
            } else if is_organization(&name) {
                let root = format!("{logs}/{name}");
                let below = self.folders(&format!("{root}/")).await?;
                let below = below.into_iter().filter(|name| is_account(name));
                accounts.extend(below.map(|name| (root.clone(), name)));
            }
        }
        accounts.retain(|(_, account)| wanted(account));
        let mut places = Vec::new();
        for (root, account) in accounts {
            let kinds = self.folders(&format!("{root}/{account}/")).await?;
            let has = |kind: &str| kinds.iter().any(|name| name == kind);
            let regions = if has("CloudTrail") {
                self.folders(&format!("{root}/{account}/CloudTrail/"))
                    .await?
            } else {
                vec![]
            };
            let digests = if has("CloudTrail-Digest") {
                self.folders(&format!("{root}/{account}/CloudTrail-Digest/"))
                    .await?
            } else {
                vec![]
            };
            for region in regions.into_iter().filter(|region| is_region(region)) {
                let has_digests = digests.contains(&region);
                let place = Place {
                    account: account.as_str().into(),
                    region: region.into(),
                };
                let root = root.clone();
                places.push((Folder { root, place }, has_digests));
            }
            if places.len() > MOST_PLACES {
                break;
            }
        }
        places.truncate(MOST_PLACES);
        Ok(places)
    }

    /// When the oldest file that is there was delivered; the names sort by time.
    pub(super) async fn oldest(&self, folder: &Folder) -> Result<Option<Timestamp>, Fault> {
        let folder = folder.of(Files::Logs);
        let mut token = None;
        loop {
            let page = self.page(&folder, None, token).await?;
            let first = page.objects.iter().find_map(|(key, _)| match key {
                ObjectKey::Log(file) => Some(file.delivered),
                _ => None,
            });
            if first.is_some() || page.next.is_none() {
                return Ok(first);
            }
            token = page.next;
        }
    }
}

fn next(output: &ListObjectsV2Output) -> Option<String> {
    output
        .next_continuation_token
        .clone()
        .filter(|_| output.is_truncated == Some(true))
}
