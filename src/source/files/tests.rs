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

/// The same JSON, with every letter of the keys that tell escaped.
fn with_escaped_keys(text: &str) -> String {
    let keys = [
        "Records",
        "Events",
        "CloudTrailEvent",
        "detail-type",
        "detail",
        "eventVersion",
        "eventTime",
        "eventSource",
        "eventName",
        "eventID",
    ];
    keys.iter().fold(text.to_owned(), |text, key| {
        let escaped: Vec<String> = key.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
        let escaped = escaped.concat();
        text.replace(&format!("\"{key}\":"), &format!("\"{escaped}\":"))
    })
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
        let escaped = with_escaped_keys(&text);
        assert_ne!(escaped, text);
        for bytes in [
            text.clone().into_bytes(),
            gzip(text.as_bytes()),
            escaped.into_bytes(),
        ] {
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

fn trail(records: usize) -> String {
    let records: Vec<&str> = (0..records).map(|number| [KMS, ECR][number % 2]).collect();
    format!("{{\"Records\":[{}]}}", records.join(","))
}

/// Does not compress.
fn noise(length: usize) -> String {
    let mut state = 1_u64;
    let mut letter = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from(
            b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/"
                [(state >> 58) as usize],
        )
    };
    (0..length).map(|_| letter()).collect()
}

#[test]
fn gzip_members_one_behind_the_other_are_one_text() {
    let text = trail(100);
    let (front, back) = text.as_bytes().split_at(text.len() / 3);
    let line = format!("{}\n", trail(10));
    let cases = [
        ("split in a record", [gzip(front), gzip(back)].concat(), 100),
        (
            "twice the same",
            [gzip(line.as_bytes()), gzip(line.as_bytes())].concat(),
            20,
        ),
        (
            "with an empty one",
            [gzip(line.as_bytes()), gzip(b"")].concat(),
            10,
        ),
        (
            "with padding",
            [gzip(line.as_bytes()), vec![0; 1000]].concat(),
            10,
        ),
    ];
    for (name, bytes, records) in cases {
        let (report, ecr) = read_text(bytes);
        assert_eq!(
            (report.records, ecr.len() as u64),
            (records, records / 2),
            "{name}"
        );
        assert_eq!(report.errors, [], "{name}");
    }
}

#[test]
fn what_was_read_before_a_fault_counts() {
    let text = trail(10);
    let noisy = format!(
        "{{\"Records\":[{KMS},{ECR},{{\"a\":\"{}\"}}]}}",
        noise(200_000)
    );
    let zip = gzip(noisy.as_bytes());
    let mut damaged = gzip(text.as_bytes());
    *damaged.last_mut().unwrap() ^= 1;
    let cases: [(&str, Vec<u8>, u64, &str); 6] = [
        (
            "text cut off",
            text.as_bytes()[..text.len() - 20].to_vec(),
            9,
            "middle of a document",
        ),
        (
            "gzip cut off",
            zip[..zip.len() / 2].to_vec(),
            2,
            "middle of the compressed",
        ),
        ("gzip damaged", damaged, 10, "damaged"),
        (
            "gzip, then something",
            [gzip(text.as_bytes()), b"x".to_vec()].concat(),
            10,
            "follows",
        ),
        (
            "not JSON in between",
            format!("{ECR}\n{KMS}\n?\n{ECR}").into_bytes(),
            2,
            "neither",
        ),
        (
            "a comma is missing",
            text.replace("},{", "}{").into_bytes(),
            1,
            "not valid JSON",
        ),
    ];
    for (name, bytes, records, reason) in cases {
        let (report, ecr) = read_text(bytes);
        assert_eq!(report.records, records, "{name}");
        assert_eq!(ecr.len() as u64, report.ecr_records, "{name}");
        assert_eq!(report.error_count, 1, "{name}: {:?}", report.errors);
        assert!(
            report.errors[0].reason.contains(reason),
            "{name}: {}",
            report.errors[0]
        );
    }
}

#[test]
fn a_long_text_is_read_through_a_window_and_gives_the_same() {
    // Longer than what is read whole.
    let records = 100_000;
    let text = trail(records);
    assert!(text.len() > 13_000_000);
    for bytes in [gzip(text.as_bytes()), text.into_bytes()] {
        let (report, ecr) = read_text(bytes);
        assert_eq!(report.records, records as u64);
        assert!(
            ecr.iter()
                .copied()
                .eq((0..records as u64).skip(1).step_by(2))
        );
        assert_eq!(report.errors, []);
    }
}

#[test]
fn a_record_of_unreasonable_length_is_named_and_the_others_are_read() {
    let long = "x".repeat(6 << 20);
    let texts = [
        format!("{{\"Records\":[{ECR},{{\"eventSource\":\"{long}\"}},{ECR}]}}"),
        format!("{ECR}\n{{\"eventName\":\"{long}\",\"eventSource\":1}}\n{ECR}"),
        format!(
            "[{ECR},{{\"a\":{}1{}}},{ECR}]",
            "[".repeat(3 << 20),
            "]".repeat(3 << 20)
        ),
    ];
    for text in texts {
        let (report, ecr) = read_text(gzip(text.as_bytes()));
        assert_eq!((report.records, ecr), (3, vec![0, 2]));
        let [error] = &report.errors[..] else {
            panic!("{:?}", report.errors)
        };
        assert_eq!(error.record, Some(1));
        assert!(error.reason.contains("longer than"), "{error}");
    }
}

#[test]
fn nothing_known_is_passed_over_in_silence() {
    let digest = r#"{"awsAccountId":"1","digestStartTime":"x","digestEndTime":"y","logFiles":[]}"#;
    let image = r#"{"version":"0","detail-type":"ECR Image Action","source":"aws.ecr","detail":{"result":"SUCCESS"}}"#;
    let (report, _) = read_text(format!("{digest}\n{image}\n{ECR}"));
    assert_eq!(
        (report.skipped, report.records, report.error_count),
        (2, 1, 0)
    );

    let notification = r#"{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{}}]}"#;
    let unknown = [
        notification,
        "{}",
        "[]{}",
        "plain text",
        "[[[[[[[1]]]]]]]",
        "\u{feff}",
    ];
    for text in unknown {
        let (report, _) = read_text(text);
        assert_eq!((report.records, report.error_count), (0, 1), "{text}");
    }
    let (report, _) = read_text(format!("{ECR}\n{{}}\n{{\"a\":1}}\n[2,\"x\",{ECR}]"));
    assert_eq!((report.records, report.errors.len()), (2, 1));
    assert_eq!(report.errors[0].record, Some(1));
    assert!(
        report.errors[0].reason.ends_with("(and 3 more like it)"),
        "{}",
        report.errors[0]
    );
}

#[test]
fn a_record_that_lookup_events_calls_ecrs_is_one_however_damaged_its_text_is() {
    let answer = |source: &str, text: &str| {
        serde_json::json!({"Events": [
            {"EventSource": "ecr.amazonaws.com", "CloudTrailEvent": ECR},
            {"EventSource": source, "CloudTrailEvent": text},
        ]})
        .to_string()
    };
    let cut = &ECR[..60];
    for text in [cut, "{}"] {
        let (report, ecr) = read_text(answer("ecr.amazonaws.com", text));
        assert_eq!((report.records, ecr), (2, vec![0, 1]), "{text}");
        assert_eq!(report.errors, []);
    }
    let (report, ecr) = read_text(answer("kms.amazonaws.com", &KMS[..60]));
    assert_eq!((report.records, ecr), (2, vec![0]));
    assert_eq!(report.errors[0].record, Some(1));
    assert_eq!(report.errors[0].reason, "not valid JSON");
}

#[test]
fn a_damaged_record_that_may_be_ecrs_is_told_as_one() {
    for damaged in [
        ECR.replace(r#""eventSource":"ecr"#, r#""eventSource""ecr"#),
        ECR.replace(r#""eventSource":"ecr"#, r#""eventSource": ;"ecr"#),
    ] {
        let text = format!(r#"{{"Records":[{ECR},{damaged},{KMS}]}}"#);
        let (report, ecr) = read_text(&text);
        assert_eq!((report.records, ecr), (3, vec![0, 1]), "{text}");
        let (report, _) = read_text(&damaged);
        assert_eq!(report.errors[0].reason, "not valid JSON", "{damaged}");
    }
    // Where it is only mentioned, nothing is in doubt.
    let lists = KMS.replace(
        r#""eventID""#,
        r#""a":["ecr.amazonaws.com", "ecr.amazonaws.com"],"ecr.amazonaws.com":1,"eventID""#,
    );
    let (_, ecr) = read_text(format!(r#"{{"Records":[{lists},{lists}]}}"#));
    assert_eq!(ecr, [0; 0]);
}

#[test]
fn what_is_no_object_in_a_trail_file_is_named_and_the_rest_is_read() {
    for strange in ["null", "5.5e-1", r#""a]""#, "[[1],{}]", "true"] {
        for text in [
            format!(r#"{{"Records":[{strange}, {ECR},{KMS}]}}"#),
            format!(r#"{{"Records":[{ECR},{KMS} ,{strange}]}}"#),
            format!(r#"{{"Records":[{ECR},{strange},{KMS}]}}"#),
        ] {
            let (report, ecr) = read_text(&text);
            assert_eq!((report.records, ecr.len()), (2, 1), "{text}");
            assert_eq!(report.error_count, 1, "{text}: {:?}", report.errors);
            assert!(report.errors[0].record.is_some(), "{text}");
            assert!(report.errors[0].reason.starts_with("neither"), "{text}");
        }
    }
    for text in [
        format!(r#"{{"Records":[{ECR},]}}"#),
        format!(r#"{{"Records":[{ECR},}},{KMS}]}}"#),
        format!(r#"{{"Records":[,{ECR}]}}"#),
    ] {
        let (report, _) = read_text(&text);
        assert_eq!(report.errors[0].reason, "not valid JSON", "{text}");
    }
}

#[cfg(unix)]
#[test]
fn a_socket_in_a_folder_is_named_for_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
    let (report, _) = read_all(&[Input::Path(folder.path().to_owned())], 1);
    assert_eq!(report.errors[0].reason, "neither a file nor a folder");
}

#[test]
fn a_record_that_names_the_source_again_and_again_is_read_once() {
    let names = r#""ecr.amazonaws.com","#.repeat(150_000);
    let record = KMS.replace(r#""eventID""#, &format!(r#""a":[{names}1],"eventID""#));
    assert!(record.len() > 2 << 20);
    for text in [record.clone(), format!(" {ECR}\n{record}")] {
        let (report, ecr) = read_text(&text);
        assert_eq!(report.errors, []);
        assert_eq!(ecr.len() as u64, report.records - 1);
    }
    // A blank before a record that comes as a text changes nothing.
    let answer = serde_json::json!({"CloudTrailEvent": format!(" {ECR}")});
    assert_eq!(read_text(answer.to_string()).1, [0]);
}

#[test]
fn layout_and_order_of_keys_do_not_matter() {
    let record: serde_json::Value = serde_json::from_str(ECR).unwrap();
    let pretty = serde_json::to_string_pretty(&serde_json::json!({
        "a": [{"Records": 1}], "Records": [record, record], "z": {"b": "}"},
    }))
    .unwrap();
    for text in [
        format!("\u{feff}{pretty}"),
        format!("{pretty}\r\n\r\n{pretty}"),
    ] {
        let (report, ecr) = read_text(&text);
        assert_eq!(report.errors, []);
        assert_eq!(ecr.len(), text.matches("eventSource").count());
    }
}

#[test]
fn a_pipe_is_read_to_its_end() {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let mut bytes = gzip(trail(1000).as_bytes());
    bytes.extend(gzip(ECR.as_bytes()));
    let thread = std::thread::spawn(move || writer.write_all(&bytes));
    let mut sink = |_: super::Record<'_>| ();
    let mut sinks = [&mut sink];
    let progress = Progress::default();
    let walk = super::walk::Walk::new(&[]);
    let mut worker = super::reader::Worker::new(&walk, &mut sinks[0], &progress, 1);
    worker.stream(Path::new("-"), &mut reader);
    let report = worker.run();
    thread.join().unwrap().unwrap();
    assert_eq!(
        (report.records, report.ecr_records, report.error_count),
        (1001, 501, 0)
    );
    assert_eq!(progress.records(), 1001);
    assert!(progress.bytes() > 0);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_break_the_reader(
        start in proptest::sample::select(vec!["", "{\"Records\":[", "[", "{\"Events\":[", ECR, "{\"detail-type\":", "\u{1f}\u{8b}\u{8}"]),
        pieces in proptest::collection::vec(proptest::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\\", "\"a\"", "1", "null", " ", "\n", ECR, KMS, "\"Records\":[",
            "\"Events\":", "\"CloudTrailEvent\":\"{}\"", "\"detail\":{}", "é", "\0",
        ]), 0..12),
    ) {
        let (report, ecr) = read_text(format!("{start}{}", pieces.concat()));
        proptest::prop_assert_eq!(report.ecr_records, ecr.len() as u64);
        proptest::prop_assert!(report.ecr_records <= report.records);
        proptest::prop_assert!(report.records + report.skipped + report.error_count > 0
            || pieces.contains(&"]") || pieces.contains(&"\"Events\":"), "nothing was said");
    }
}
