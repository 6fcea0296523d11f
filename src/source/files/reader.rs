//! One thread's work: takes files from the walk, and hands their records on.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use super::{Input, InputError, Progress, Record, Report, Sink, walk::Walk};

pub(super) struct Worker<'a, S> {
    walk: &'a Walk,
    sink: &'a mut S,
    progress: &'a Progress,
    report: Report,
}

impl<'a, S: Sink> Worker<'a, S> {
    pub(super) fn new(walk: &'a Walk, sink: &'a mut S, progress: &'a Progress) -> Self {
        Self {
            walk,
            sink,
            progress,
            report: Report::default(),
        }
    }

    pub(super) fn run(mut self) -> Report {
        while let Some(found) = self.walk.next() {
            match found {
                Ok(input) => self.file(input),
                Err((path, error)) => self.error(path, None, error.to_string()),
            }
        }
        self.report
    }

    fn error(&mut self, path: PathBuf, record: Option<u64>, reason: String) {
        self.report.error(InputError {
            path,
            record,
            reason,
        });
    }

    fn file(&mut self, input: Input) {
        let (path, bytes) = match input {
            Input::Stdin => {
                let mut bytes = Vec::new();
                let read = io::stdin().lock().read_to_end(&mut bytes);
                (PathBuf::from("-"), read.map(|_| bytes))
            }
            Input::Path(path) => {
                let bytes = File::open(&path).and_then(|mut file| {
                    let mut bytes = Vec::new();
                    file.read_to_end(&mut bytes)?;
                    Ok(bytes)
                });
                (path, bytes)
            }
        };
        self.report.files += 1;
        self.progress.files.fetch_add(1, Ordering::Relaxed);
        let mut bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return self.error(path, None, error.to_string()),
        };
        self.progress
            .bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut text = Vec::new();
            if let Err(error) = MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut text) {
                self.error(path.clone(), None, error.to_string());
            }
            bytes = text;
        }
        if bytes.is_empty() {
            return self.error(path, None, "empty".to_owned());
        }
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let mut index = 0;
        for document in serde_json::Deserializer::from_slice(text).into_iter::<Value>() {
            match document {
                Ok(document) => self.document(&path, &mut index, document),
                Err(error) => return self.error(path, None, format!("not JSON: {error}")),
            }
        }
    }

    fn document(&mut self, path: &Path, index: &mut u64, document: Value) {
        let mut object = match document {
            Value::Array(items) => {
                for item in items {
                    self.document(path, index, item);
                }
                return;
            }
            Value::Object(object) => object,
            _ => return self.error(path.to_owned(), Some(*index), "not CloudTrail".to_owned()),
        };
        if let Some(Value::Array(records)) = object.get_mut("Records") {
            for record in std::mem::take(records) {
                self.record(path, index, &record);
            }
        } else if let Some(Value::Array(events)) = object.get_mut("Events") {
            for event in std::mem::take(events) {
                let text = event.get("CloudTrailEvent").and_then(Value::as_str);
                match text.and_then(|text| serde_json::from_str(text).ok()) {
                    Some(record) => self.record(path, index, &record),
                    None => self.error(path.to_owned(), Some(*index), "not CloudTrail".to_owned()),
                }
            }
        } else if let Some(kind) = object.get("detail-type").and_then(Value::as_str) {
            if kind.ends_with("via CloudTrail") {
                let record = object.remove("detail").unwrap_or_default();
                self.record(path, index, &record);
            } else {
                self.report.skipped += 1;
            }
        } else if object.contains_key("digestStartTime") {
            self.report.skipped += 1;
        } else if object.contains_key("eventName") || object.contains_key("eventSource") {
            self.record(path, index, &Value::Object(object));
        } else {
            self.error(path.to_owned(), Some(*index), "not CloudTrail".to_owned());
        }
    }

    fn record(&mut self, path: &Path, index: &mut u64, record: &Value) {
        self.report.records += 1;
        self.progress.records.fetch_add(1, Ordering::Relaxed);
        if record.get("eventSource").and_then(Value::as_str) == Some("ecr.amazonaws.com") {
            self.report.ecr_records += 1;
            let text = record.to_string();
            self.sink.record(Record {
                path,
                index: *index,
                text: text.as_bytes(),
            });
        }
        *index += 1;
    }
}
