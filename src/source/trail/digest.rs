//! A digest file: which log files CloudTrail delivered in about an hour, and the hashes of their
//! texts.
//!
//! <https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-log-file-validation-digest-file-structure.html>

use jiff::Timestamp;
use serde::Deserialize;

use super::{LogFile, ObjectKey};
use crate::event::Interval;

/// More files than any hour has.
const MOST_FILES: usize = 100_000;

/// What a digest file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    /// The delivery time whose files it lists.
    pub(crate) span: Interval,
    /// The key of the digest file before it; none when the chain begins with this one, or went
    /// on here from another bucket.
    pub(crate) previous: Option<String>,
    /// The log files, with the SHA-256 of each one's text.
    pub(crate) files: Vec<(LogFile, [u8; 32])>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    digest_start_time: Timestamp,
    digest_end_time: Timestamp,
    #[serde(rename = "previousDigestS3Bucket")]
    previous_bucket: Option<String>,
    #[serde(rename = "previousDigestS3Object")]
    previous: Option<String>,
    #[serde(default)]
    log_files: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    s3_bucket: String,
    s3_object: String,
    hash_value: String,
    hash_algorithm: String,
}

impl Digest {
    /// From the text of a digest file that lies in a bucket.
    ///
    /// # Errors
    /// What is wrong with it, in words that hold nothing of the file's own.
    pub(crate) fn parse(bucket: &str, text: &[u8]) -> Result<Self, &'static str> {
        let text: Text = serde_json::from_slice(text).map_err(|_| "not a digest file")?;
        let span = Interval {
            start: text.digest_start_time,
            end: text.digest_end_time,
        };
        let length = span.end.duration_since(span.start).as_secs();
        if !(1..=7 * 86_400).contains(&length) {
            return Err("its time is none of a digest file");
        }
        if text.log_files.len() > MOST_FILES {
            return Err("it lists more files than an hour has");
        }
        let files = text.log_files.into_iter().map(|listed| {
            if listed.s3_bucket != bucket {
                return Err("it lists a file of another bucket");
            }
            if listed.hash_algorithm != "SHA-256" {
                return Err("it has hashes of another kind than SHA-256");
            }
            let hash = hash(&listed.hash_value).ok_or("a hash in it is none")?;
            match ObjectKey::parse(None, &listed.s3_object) {
                ObjectKey::Log(file) => Ok(Some((file, hash))),
                // Insights and the like are listed in digests of their own folders, if at all.
                _ => Ok(None),
            }
        });
        let is_here = text.previous_bucket.is_none_or(|before| before == bucket);
        Ok(Self {
            span,
            previous: text.previous.filter(|key| is_here && !key.is_empty()),
            files: files
                .filter_map(Result::transpose)
                .collect::<Result<_, _>>()?,
        })
    }
}

fn hash(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        if digits.starts_with('+') {
            return None;
        }
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const FILE: &str = "AWSLogs/111122223333/CloudTrail/us-east-2/2015/08/17/\
        111122223333_CloudTrail_us-east-2_20150817T1445Z_9nYN7gp2eWAJHIfT.json.gz";

    /// The sample of AWS's page, with the fields that are read.
    fn sample() -> Value {
        json!({
            "awsAccountId": "111122223333",
            "digestStartTime": "2015-08-17T14:01:31Z",
            "digestEndTime": "2015-08-17T15:01:31Z",
            "digestS3Bucket": "org-trail",
            "previousDigestS3Object": "AWSLogs/111122223333/CloudTrail-Digest/us-east-2/2015/08/17/x",
            "logFiles": [{
                "s3Bucket": "org-trail",
                "s3Object": FILE,
                "hashValue": "9bb6196fc6b84d6f075a56548feca262bd99ba3c2de41b618e5b6e22c1fc71f6",
                "hashAlgorithm": "SHA-256",
                "newestEventTime": "2015-08-17T14:52:27Z",
                "oldestEventTime": "2015-08-17T14:42:27Z"
            }]
        })
    }

    fn parse(value: &Value) -> Result<Digest, &'static str> {
        Digest::parse("org-trail", value.to_string().as_bytes())
    }

    #[test]
    fn a_digest_lists_the_files_of_its_hour_with_their_hashes() {
        let digest = parse(&sample()).unwrap();
        assert_eq!(digest.span.end.to_string(), "2015-08-17T15:01:31Z");
        assert!(digest.previous.is_some());
        let [(file, hash)] = digest.files.as_slice() else {
            panic!("{digest:?}");
        };
        assert_eq!((&*file.key, hash[0], hash[31]), (FILE, 0x9b, 0xf6));
    }

    #[test]
    fn the_first_of_a_chain_has_none_before_it_and_a_quiet_hour_no_files() {
        let mut first = sample();
        first["previousDigestS3Object"] = Value::Null;
        first["logFiles"] = json!([]);
        let digest = parse(&first).unwrap();
        assert_eq!((digest.previous, digest.files.len()), (None, 0));
    }

    #[test]
    fn a_trail_that_went_on_in_another_bucket_begins_a_chain_there() {
        let mut first = sample();
        first["previousDigestS3Bucket"] = json!("the-old-trail");
        assert_eq!(parse(&first).unwrap().previous, None);
        first["previousDigestS3Bucket"] = json!("org-trail");
        assert!(parse(&first).unwrap().previous.is_some());
    }

    #[test]
    fn a_digest_that_cannot_be_taken_at_its_word_is_none() {
        type Change = fn(&mut Value);
        let changes: [Change; 6] = [
            |digest| digest["logFiles"][0]["s3Bucket"] = json!("other"),
            |digest| digest["logFiles"][0]["hashAlgorithm"] = json!("MD5"),
            |digest| digest["logFiles"][0]["hashValue"] = json!("9bb6"),
            |digest| digest["digestEndTime"] = json!("2015-08-17T14:01:31Z"),
            |digest| digest["digestStartTime"] = json!("yesterday"),
            |digest| digest["logFiles"] = json!({}),
        ];
        for change in changes {
            let mut digest = sample();
            change(&mut digest);
            assert!(parse(&digest).is_err(), "{digest}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,300}", hash_text in ".{0,70}") {
            let _ = Digest::parse("org-trail", text.as_bytes());
            let _ = hash(&hash_text);
        }
    }
}
