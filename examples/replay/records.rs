//! CloudTrail records as people have them: text in several shapes → one text a record.
//!
//! A record's text is delivered as it was given, to the byte. Only when records are
//! shifted in time are the times in it rewritten, and nothing else.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;

/// A record that CloudTrail shall deliver, and how.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    /// The record's text.
    pub(crate) record: String,
    /// Delivered this many seconds after it was given; none: as the server's delay says.
    pub(crate) visible_after: Option<i64>,
    /// Delivered as `CloudTrailEvent` in the place of the record.
    pub(crate) cloud_trail_event: Option<String>,
}

/// Why text is not accepted as records.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Text { path: PathBuf, source: TextError },
}

/// Why one text is not accepted as records.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TextError {
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("neither a record nor a container of records: {0}…")]
    Shape(String),
}

/// What may stand where a record does.
#[derive(Deserialize)]
struct Envelope<'a> {
    /// A trail's file.
    #[serde(rename = "Records", borrow)]
    records: Option<Vec<&'a RawValue>>,
    /// The output of `aws cloudtrail lookup-events`.
    #[serde(rename = "Events")]
    events: Option<Vec<LookedUp>>,
    /// An EventBridge event.
    #[serde(borrow)]
    detail: Option<&'a RawValue>,
    /// This server's own form, which says how to deliver the record.
    #[serde(borrow)]
    record: Option<&'a RawValue>,
    #[serde(rename = "visibleAfterSeconds")]
    visible_after: Option<i64>,
    #[serde(rename = "cloudTrailEvent")]
    cloud_trail_event: Option<String>,
    #[serde(rename = "eventTime", borrow)]
    event_time: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct LookedUp {
    #[serde(rename = "CloudTrailEvent")]
    cloud_trail_event: String,
}

/// Reads a file, or every `.json`, `.jsonl` and `.gz` below a folder.
pub(crate) fn read_path(path: &Path, shift: SignedDuration) -> Result<Vec<Given>, ReadError> {
    let failed = |source| ReadError::File {
        path: path.to_owned(),
        source,
    };
    if fs::metadata(path).map_err(failed)?.is_dir() {
        let mut entries: Vec<PathBuf> = fs::read_dir(path)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .map_err(failed)?;
        entries.sort();
        let mut all = Vec::new();
        for entry in entries {
            let kind = entry.extension().and_then(|kind| kind.to_str());
            if entry.is_dir() || matches!(kind, Some("json" | "jsonl" | "gz")) {
                all.extend(read_path(&entry, shift)?);
            }
        }
        return Ok(all);
    }
    let mut bytes = fs::read(path).map_err(failed)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        MultiGzDecoder::new(bytes.as_slice())
            .read_to_end(&mut plain)
            .map_err(failed)?;
        bytes = plain;
    }
    read_text(&bytes, shift).map_err(|source| ReadError::Text {
        path: path.to_owned(),
        source,
    })
}

/// Reads text: records, arrays, trail files, lookup output and EventBridge events, one or
/// many after another, and `{"record": {…}, "visibleAfterSeconds": …}`.
pub(crate) fn read_text(text: &[u8], shift: SignedDuration) -> Result<Vec<Given>, TextError> {
    let mut all = Vec::new();
    for value in serde_json::Deserializer::from_slice(text).into_iter::<&RawValue>() {
        collect(value?, shift, &mut all)?;
    }
    Ok(all)
}

fn collect(value: &RawValue, shift: SignedDuration, all: &mut Vec<Given>) -> Result<(), TextError> {
    let text = value.get();
    if text.starts_with('[') {
        for inner in serde_json::from_str::<Vec<&RawValue>>(text)? {
            collect(inner, shift, all)?;
        }
        return Ok(());
    }
    let unknown = || TextError::Shape(text.chars().take(60).collect());
    if !text.starts_with('{') {
        return Err(unknown());
    }
    let envelope: Envelope<'_> = serde_json::from_str(text)?;
    if let Some(records) = envelope.records {
        for inner in records {
            collect(inner, shift, all)?;
        }
    } else if let Some(events) = envelope.events {
        for event in events {
            let inner: &RawValue = serde_json::from_str(&event.cloud_trail_event)?;
            collect(inner, shift, all)?;
        }
    } else if envelope.event_time.is_some() {
        all.push(Given {
            record: shifted(text, shift),
            visible_after: None,
            cloud_trail_event: None,
        });
    } else if let Some(inner) = envelope.record.or(envelope.detail) {
        let first = all.len();
        collect(inner, shift, all)?;
        for given in &mut all[first..] {
            given.visible_after = envelope.visible_after;
            given
                .cloud_trail_event
                .clone_from(&envelope.cloud_trail_event);
        }
    } else {
        return Err(unknown());
    }
    Ok(())
}

/// The same text with its times moved: strings that are a time to the second
/// (`2026-11-22T12:00:00Z`), and the milliseconds of `pushedAt` and `lastEvaluatedAt`.
fn shifted(text: &str, by: SignedDuration) -> String {
    if by.is_zero() {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('"') {
        let inside = &rest[open + 1..];
        let Some(length) = string_length(inside) else {
            break;
        };
        let (string, after) = (&inside[..length], &inside[length + 1..]);
        out.push_str(&rest[..=open]);
        let time = (length == 20).then(|| string.parse::<Timestamp>().ok());
        match time.flatten().and_then(|time| time.checked_add(by).ok()) {
            Some(time) => out.push_str(&time.to_string()),
            None => out.push_str(string),
        }
        out.push('"');
        rest = after;
        if matches!(string, "pushedAt" | "lastEvaluatedAt") {
            let digits = after.trim_start_matches([':', ' ', '\t', '\n', '\r']);
            let end = digits
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(digits.len());
            // 0 says that there was no such time.
            if let Ok(milliseconds @ 1..) = digits[..end].parse::<i64>() {
                out.push_str(&after[..after.len() - digits.len()]);
                let moved = i128::from(milliseconds) + by.as_millis();
                out.push_str(&moved.to_string());
                rest = &digits[end..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// The length of a JSON string, from after its opening quote to its closing one.
fn string_length(inside: &str) -> Option<usize> {
    let mut escaped = false;
    inside.bytes().position(|byte| {
        let end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        end
    })
}
