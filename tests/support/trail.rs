//! A trail's bucket on the emulator, filled as CloudTrail fills it.

use std::fmt::Write as _;
use std::io::Write as _;

use aws_sdk_s3::Client;
use flate2::{Compression, write::GzEncoder};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Ministack, records::REGION};

/// A bucket, and what the trail's account folders lie in.
#[derive(Clone)]
pub struct Trail {
    pub client: Client,
    pub bucket: String,
    /// `[prefix/]AWSLogs[/o-id]`.
    pub root: String,
    /// Its name: each trail has a chain of digest files of its own.
    pub name: String,
    /// Whose files it delivers.
    pub region: String,
}

/// A log file that was put there.
#[derive(Clone, Debug)]
pub struct Delivered {
    pub key: String,
    pub text: String,
}

pub fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn day(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC)
        .strftime("%Y/%m/%d")
        .to_string()
}

impl Trail {
    /// A new bucket on the server that the environment names.
    pub async fn new(bucket: &str, root: &str) -> Self {
        let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
        Self::with(&config, bucket, root).await
    }

    /// A new bucket on an emulator.
    pub async fn on(emulator: &Ministack, bucket: &str, root: &str) -> Self {
        Self::with(&emulator.config().await, bucket, root).await
    }

    async fn with(config: &aws_config::SdkConfig, bucket: &str, root: &str) -> Self {
        let config = aws_sdk_s3::config::Builder::from(config)
            .force_path_style(true)
            .build();
        let client = Client::from_conf(config);
        client.create_bucket().bucket(bucket).send().await.unwrap();
        Self {
            client,
            bucket: bucket.to_owned(),
            root: root.to_owned(),
            name: "org".to_owned(),
            region: REGION.to_owned(),
        }
    }

    /// The same trail's files of another region.
    pub fn of_region(&self, region: &str) -> Self {
        Self {
            region: region.to_owned(),
            ..self.clone()
        }
    }

    /// Another trail with the same bucket.
    pub fn named(&self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self.clone()
        }
    }

    pub async fn put(&self, key: &str, body: Vec<u8>) {
        let object = self.client.put_object().bucket(&self.bucket).key(key);
        object.body(body.into()).send().await.unwrap();
    }

    pub async fn delete(&self, key: &str) {
        let object = self.client.delete_object().bucket(&self.bucket).key(key);
        object.send().await.unwrap();
    }

    /// The key of a log file.
    pub fn key(&self, account: &str, delivered: Timestamp) -> String {
        let time = delivered.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%MZ");
        let Self { root, region, .. } = self;
        format!(
            "{root}/{account}/CloudTrail/{region}/{}/{account}_CloudTrail_{region}_{time}_{:016x}.json.gz",
            day(delivered),
            rand::random::<u64>()
        )
    }

    /// Delivers a log file with these records.
    pub async fn deliver(
        &self,
        account: &str,
        delivered: Timestamp,
        records: &[Value],
    ) -> Delivered {
        let key = self.key(account, delivered);
        let text = json!({ "Records": records }).to_string();
        self.put(&key, gzip(text.as_bytes())).await;
        Delivered { key, text }
    }

    /// Delivers the digest file of the hour that ends then, which names `previous` as the one
    /// before it; its key.
    pub async fn digest(
        &self,
        account: &str,
        end: Timestamp,
        files: &[&Delivered],
        previous: Option<&str>,
    ) -> String {
        let time = end.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ");
        let Self {
            root, region, name, ..
        } = self;
        let key = format!(
            "{root}/{account}/CloudTrail-Digest/{region}/{}/\
             {account}_CloudTrail-Digest_{region}_{name}_{REGION}_{time}.json.gz",
            day(end)
        );
        let listed = files.iter().map(|file| {
            let hash = Sha256::digest(file.text.as_bytes());
            let hash = hash.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            });
            json!({
                "s3Bucket": self.bucket,
                "s3Object": file.key,
                "hashValue": hash,
                "hashAlgorithm": "SHA-256",
            })
        });
        let text = json!({
            "awsAccountId": account,
            "digestStartTime": (end - SignedDuration::from_hours(1)).to_string(),
            "digestEndTime": end.to_string(),
            "digestS3Bucket": self.bucket,
            "digestS3Object": key,
            "previousDigestS3Bucket": self.bucket,
            "previousDigestS3Object": previous,
            "logFiles": listed.collect::<Vec<_>>(),
        });
        self.put(&key, gzip(text.to_string().as_bytes())).await;
        key
    }
}
