//! What files are taken for, and what is said of those that are nothing known.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};

use super::{Input, InputError, Progress, Report, read};

const ECR: &str = r#"{"eventVersion":"1.08","eventTime":"2026-03-01T00:00:00Z","eventSource":"ecr.amazonaws.com","eventName":"GetAuthorizationToken","eventID":"e1"}"#;
const KMS: &str = r#"{"eventVersion":"1.08","userIdentity":{"invokedBy":"ecr.amazonaws.com"},"eventTime":"2026-03-01T00:00:00Z","eventSource":"kms.amazonaws.com","eventName":"Decrypt","eventID":"k1"}"#;

/// The report, and each ECR record's index and text, sorted.
fn read_all(inputs: &[Input], threads: usize) -> (Report, Vec<(PathBuf, u64, String)>) {
    let mut gathered = vec![Vec::new(); threads];
    let mut sinks: Vec<_> = gathered
        .iter_mut()
        .map(|gathered| {
            |record: super::Record<'_>| {
                let text = String::from_utf8(record.text.to_vec()).unwrap();
                gathered.push((record.path.to_owned(), record.index, text));
            }
        })
        .collect();
    let report = read(inputs, &mut sinks, &Progress::default());
    drop(sinks);
    let mut records = gathered.concat();
    records.sort();
    (report, records)
}

fn read_text(text: impl AsRef<[u8]>) -> (Report, Vec<u64>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let (report, records) = read_all(&[Input::Path(file.path().to_owned())], 1);
    (
        report,
        records.into_iter().map(|(_, index, _)| index).collect(),
    )
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn every_form_is_told_by_its_content() {
    let text = serde_json::to_string(ECR).unwrap();
    let cases = [
        (
            "a trail file",
            format!(r#"{{"Records":[{KMS},{ECR}]}}"#),
            2,
            vec![1],
        ),
        ("a record", ECR.to_owned(), 1, vec![0]),
        ("an array", format!("[{ECR},{KMS},{ECR}]"), 3, vec![0, 2]),
        ("JSON lines", format!("{KMS}\n{ECR}\n"), 2, vec![1]),
        (
            "lookup-events output",
            format!(
                r#"{{"Events":[{{"EventId":"e1","CloudTrailEvent":{text}}}],"NextToken":"x"}}"#
            ),
            1,
            vec![0],
        ),
        (
            "an EventBridge envelope",
            format!(
                r#"{{"version":"0","detail-type":"AWS API Call via CloudTrail","source":"aws.ecr","detail":{ECR}}}"#
            ),
            1,
            vec![0],
        ),
        (
            "lines of trail files",
            format!("{{\"Records\":[{ECR}]}}\n{{\"Records\":[{ECR},{KMS}]}}"),
            3,
            vec![0, 1],
        ),
    ];
    for (name, text, records, ecr) in cases {
        for bytes in [text.clone().into_bytes(), gzip(text.as_bytes())] {
            let (report, indices) = read_text(bytes);
            assert_eq!(report.errors, [], "{name}");
            assert_eq!((report.records, &indices), (records, &ecr), "{name}");
            assert_eq!(report.ecr_records, ecr.len() as u64, "{name}");
        }
    }
}

#[test]
fn what_is_no_cloudtrail_is_named() {
    for text in ["", "PK\u{3}\u{4}", "{\"a\":1}", "[1]", "\u{1f}\u{8b}"] {
        let (report, _) = read_text(text);
        assert_eq!(report.error_count, 1, "{text:?}");
        assert_eq!(report.records, 0, "{text:?}");
    }
}

#[test]
fn a_folder_is_read_to_its_depth_and_a_link_in_a_circle_ends() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a/b");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("one.json"), ECR).unwrap();
    fs::write(folder.path().join("two"), KMS).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path(), deep.join("up")).unwrap();
    for threads in [1, 2] {
        let (report, records) = read_all(&[Input::Path(folder.path().to_owned())], threads);
        assert_eq!(
            (report.files, report.records, report.ecr_records),
            (2, 2, 1)
        );
        assert_eq!(report.errors, []);
        assert_eq!(records[0].0, deep.join("one.json"));
    }
}

#[test]
fn a_path_that_is_not_there_is_an_error_and_the_rest_is_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), ECR).unwrap();
    let inputs = [
        Input::from("/does/not/exist"),
        Input::Path(file.path().to_owned()),
    ];
    let (report, records) = read_all(&inputs, 1);
    assert_eq!(records.len(), 1);
    let [
        InputError {
            path, record: None, ..
        },
    ] = &report.errors[..]
    else {
        panic!("{:?}", report.errors)
    };
    assert_eq!(path, Path::new("/does/not/exist"));
}
