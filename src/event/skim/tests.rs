//! What is skimmed against a full parse: the same members, of valid text only, whatever was done
//! to the text.

use std::{fs, path::Path};

use proptest::prelude::*;
use serde_json::Value;

use crate::event::{
    Action, Counted, Decoder, RepositoryRef, decode,
    record::repository_arn,
    wire::{Record, Request, Response, is_stand_in},
};

use super::Skimmed;

type Skimmer = super::Skimmer<()>;

/// Real and made-up records, as trail files have them: without blanks.
fn records() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut records = Vec::new();
    for folder in ["fuzz/seeds/record", "tests/data/records"] {
        let mut paths: Vec<_> = fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|name| name == "json"))
            .collect();
        paths.sort();
        for path in paths {
            let value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            records.push(value.to_string());
        }
    }
    assert!(records.len() > 20);
    records
}

/// The text as a full parse has it; none if that finds a fault anywhere in it.
fn parsed(text: &str) -> Option<Record<'_>> {
    serde_json::from_str(text).ok()
}

fn skimmed<'a>(memory: &mut Skimmer, text: &'a str) -> Option<Skimmed<'a>> {
    let mut skimmed = Skimmed::default();
    memory.skim(text, &mut skimmed)?;
    Some(skimmed)
}

fn agrees(text: &str, memory: &mut Skimmer) -> bool {
    let Some(skimmed) = skimmed(memory, text) else {
        return false;
    };
    let record = skimmed.record;
    assert_eq!(Some(&record), parsed(text).as_ref(), "{text}");
    let parsed = record.resources.and_then(repository_arn);
    let parsed = parsed.filter(|_| skimmed.resources_read);
    let parsed = parsed.as_deref().and_then(RepositoryRef::of_arn);
    assert_eq!(skimmed.resource, parsed, "{text}");
    let parts = [
        record.request_parameters,
        record.response_elements,
        record.service_event_details,
    ];
    if let Some(request) = skimmed.parts.request {
        let parsed: Request<'_> = serde_json::from_str(parts[0].unwrap()).unwrap();
        assert_eq!(request, parsed, "{text}");
        assert!(!is_stand_in(parts[0].unwrap()), "{text}");
    }
    if let Some(response) = skimmed.parts.response {
        let parsed: Response<'_> = serde_json::from_str(parts[1].unwrap()).unwrap();
        assert_eq!(response, parsed, "{text}");
        assert!(!is_stand_in(parts[1].unwrap()), "{text}");
    }
    assert!(
        skimmed.stand_in || !parts.into_iter().flatten().any(is_stand_in),
        "{text}"
    );
    true
}

#[test]
fn the_request_of_a_pull_or_push_is_read_where_it_is_written_as_most_are() {
    let record = |request: &str| {
        format!(r#"{{"eventName":"BatchGetImage","a":"\\","requestParameters":{request}}}"#)
    };
    let mut memory = Skimmer::default();
    for request in [
        r#"{"registryId":"1","imageIds":[{"imageTag":"a"},{"imageDigest":"b","x":[1]},{}]}"#,
        r#"{"repositoryName":"a/b","imageIds":[],"acceptedMediaTypes":["x","y"]}"#,
        r#"{"imageTag":"a","imageDigest":"b","imageManifest":"{\n \"a\":\u00e9}"}"#,
        "{}",
    ] {
        let text = record(request);
        for text in [text.replace("BatchGetImage", "PutImage"), text] {
            assert!(
                skimmed(&mut memory, &text).unwrap().parts.request.is_some(),
                "{text}"
            );
            assert!(agrees(&text, &mut memory));
        }
        let other = text_of_another_call(&record(request));
        assert!(
            skimmed(&mut memory, &other)
                .unwrap()
                .parts
                .request
                .is_none(),
            "{other}"
        );
    }
    for request in [
        "null",
        "[]",
        r#"{"imageIds":null}"#,
        r#"{"imageIds":[null]}"#,
        r#"{"imageIds":[["a","b"]]}"#,
        r#"{"imageIds":[{"imageTag":5}]}"#,
        r#"{"imageIds":[{"imageTag":"a","imageTag":"a"}]}"#,
        r#"{"imageManifest":null}"#,
        r#"{"imageIds":[{"imageTag":"\u0061"}]}"#,
        r#"{"imageIds":[],"imageIds":[]}"#,
        r#"{"registryId":1}"#,
        r#"{"imageId":{}}"#,
        r#"{"omitted":true}"#,
        r#"{"\u006fmitted":true}"#,
    ] {
        let text = record(request);
        assert!(
            skimmed(&mut memory, &text).unwrap().parts.request.is_none(),
            "{text}"
        );
    }
}

#[test]
fn the_response_of_a_push_is_read_where_it_is_written_as_most_are() {
    let mut memory = Skimmer::default();
    let answered = |response: &str| {
        format!(r#"{{"responseElements":{response},"a":"\\","eventName":"PutImage"}}"#)
    };
    for response in [
        r#"{"image":{"repositoryName":"a","imageManifest":"\"","imageId":{"imageDigest":"b","x":1}}}"#,
        r#"{"image":{"imageId":{"imageTag":"c","imageDigest":"b"},"registryId":1}}"#,
        "{}",
    ] {
        let text = answered(response);
        assert!(
            skimmed(&mut memory, &text)
                .unwrap()
                .parts
                .response
                .is_some(),
            "{text}"
        );
        assert!(agrees(&text, &mut memory));
        let other = text_of_another_call(&text);
        assert!(
            skimmed(&mut memory, &other)
                .unwrap()
                .parts
                .response
                .is_none(),
            "{other}"
        );
    }
    for response in [
        "null",
        r#"{"image":null}"#,
        r#"{"image":{"imageId":null}}"#,
        r#"{"image":{"imageManifest":1}}"#,
        r#"{"image":{"imageId":{"imageTag":"\u0061"}}}"#,
        r#"{"image":{"repositoryName":"a","repositoryName":"a"}}"#,
        r#"{"imageId":{}}"#,
        r#"{"failures":[]}"#,
        r#"{"omitted":true}"#,
        r#"{"\u006fmitted":"true"}"#,
    ] {
        let text = answered(response);
        assert!(
            skimmed(&mut memory, &text)
                .unwrap()
                .parts
                .response
                .is_none(),
            "{text}"
        );
        assert!(agrees(&text, &mut memory));
    }
}

fn text_of_another_call(record: &str) -> String {
    let name = record.replace("BatchGetImage", "BatchDeleteImage");
    name.replace("PutImage", "BatchDeleteImage")
}

#[test]
fn the_repository_of_the_resources_is_the_first_that_is_one() {
    let arn = r#""arn:aws:ecr:us-east-1:111122223333:repository/a""#;
    let record = |resources: &str| format!(r#"{{"a":"\\\\","resources":{resources}}}"#);
    let mut memory = Skimmer::default();
    for (resources, found) in [
        ("null".to_owned(), false),
        ("[]".to_owned(), false),
        (format!(r#"[{{"accountId":"1","ARN":{arn}}}]"#), true),
        (
            format!(r#"[{{"type":[1],"ARN":"arn:aws:s3:::x"}},{{"arn":{arn}}}]"#),
            true,
        ),
        (r#"[{"ARN":"x"},{}]"#.to_owned(), false),
    ] {
        let text = record(&resources);
        let read = skimmed(&mut memory, &text).unwrap();
        assert!(read.resources_read, "{text}");
        assert_eq!(read.resource.is_some(), found, "{text}");
        assert!(agrees(&text, &mut memory));
    }
    for resources in [
        "{}".to_owned(),
        "[null]".to_owned(),
        r#"[{"ARN":null}]"#.to_owned(),
        format!(r#"[{{"ARN":{arn},"arn":{arn}}}]"#),
        r#"[{"ARN":"arn:aws:ecr:us-east-1:111122223333:repository\/a"}]"#.to_owned(),
    ] {
        let text = record(&resources);
        let read = skimmed(&mut memory, &text).unwrap();
        assert!(!read.resources_read, "{text}");
        assert!(agrees(&text, &mut memory));
    }
}

#[test]
fn what_stands_in_for_a_part_is_seen_by_its_own_keys() {
    let mut memory = Skimmer::default();
    for (part, expected) in [
        (
            r#""requestParameters":{"omitted":true,"originalSize":1}"#,
            true,
        ),
        (
            r#""serviceEventDetails":{"reason":"a","omitted":"true"}"#,
            true,
        ),
        (r#""responseElements":{"\u006fmitted":"true"}"#, true),
        (r#""responseElements":{"a":{"omitted":true}}"#, false),
        (r#""responseElements":{"a":"omitted"}"#, false),
        (r#""x":{"omitted":true}"#, false),
    ] {
        let text = format!(r#"{{"eventName":"a",{part}}}"#);
        assert_eq!(
            skimmed(&mut memory, &text).unwrap().stand_in,
            expected,
            "{text}"
        );
        assert!(agrees(&text, &mut memory));
    }
}

#[test]
fn a_beginning_is_taken_as_known_only_if_it_is_the_same_to_the_last_byte() {
    let identity = |letter: &str| format!(r#"{{"type":"{}{letter}"}}"#, "x".repeat(150));
    let record = |identity: &str, rest: &str| {
        format!(r#"{{"eventVersion":"1.08","userIdentity":{identity}{rest}"#)
    };
    let mut memory = Skimmer::default();
    let known = record(&identity("a"), r#","eventID":"1"}"#);
    assert!(agrees(&known, &mut memory) && agrees(&known, &mut memory));
    assert!(agrees(&known, &mut memory));
    assert!(skimmed(&mut memory, &known).unwrap().opening.is_some());
    assert!(agrees(&record(&identity("b"), "}"), &mut memory));
    assert!(agrees(&known, &mut memory));
    for rest in [
        "",
        "x}",
        r#""}"#,
        r#","userIdentity":null}"#,
        r#","eventID":"\"}"#,
        r#"},"eventID":"1"}"#,
        r#"{"eventID":"1"}"#,
    ] {
        let text = record(&identity("a"), rest);
        assert!(!agrees(&text, &mut memory), "{text}");
    }
    assert!(agrees(&record(&identity("a"), "}"), &mut memory));
}

#[test]
fn records_as_cloudtrail_writes_them_are_skimmed() {
    let mut memory = Skimmer::default();
    for record in records() {
        let skimmed = agrees(&record, &mut memory);
        assert_eq!(skimmed, !record.contains("addendum"), "{record}");
    }
}

#[test]
fn what_a_full_parse_reads_otherwise_or_refuses_is_left_to_it() {
    let mut memory = Skimmer::default();
    let good =
        r#"{"eventID":"a","x":[1,-20,true,{"y":null}],"requestParameters":{"a":"\u00e9\""}}"#;
    assert!(agrees(good, &mut memory));
    for text in [
        "",
        "{}",
        "[]",
        r#"{"eventID":"a"} "#,
        r#"{ "eventID":"a"}"#,
        r#"{"eventID":"a"}}"#,
        r#"{"eventID":"a""#,
        r#"{"eventID":"a",}"#,
        r#"{"eventID":"a","eventID":"a"}"#,
        r#"{"resources":null,"resources":[]}"#,
        r#"{"eventID":5}"#,
        r#"{"recipientAccountId":5}"#,
        r#"{"eventID":"\u0061"}"#,
        r#"{"event\u0049D":"a"}"#,
        r#"{"\ud800":1}"#,
        r#"{"x":"\x"}"#,
        r#"{"x":"\u00g0"}"#,
        r#"{"x":"\u00"}"#,
        "{\"x\":\"\t\"}",
        r#"{"x":01}"#,
        r#"{"x":1.}"#,
        r#"{"x":-}"#,
        r#"{"x":+1}"#,
        r#"{"x":tru}"#,
        r#"{"x":nulls}"#,
        r#"{"x":{"y"}}"#,
        r#"{"x":{"y":1,}}"#,
        r#"{"x":[1,]}"#,
        r#"{"x":[1}}"#,
        r#"{"x":[,1]}"#,
        r#"{"x":"a"b"c"}"#,
        r#"{"x":\"a\"}"#,
        r#"{"addendum":{"reason":"UPDATED_DATA"}}"#,
    ] {
        assert!(!agrees(text, &mut memory), "{text}");
    }
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
    assert!(!agrees(&deep, &mut memory));
}

#[test]
fn quotes_are_found_wherever_a_block_of_sixty_four_ends() {
    let mut memory = Skimmer::default();
    for before in 0..140 {
        for middle in [r#"\""#, r"\\", r#"\\\""#, r"\u00e9", "é", r#"","b":""#, ""] {
            let text = format!(r#"{{"a":"{}{middle}c"}}"#, "x".repeat(before));
            assert!(agrees(&text, &mut memory), "{text}");
        }
        let text = format!(r#"{{"a":"{}\"}}"#, "x".repeat(before));
        assert!(!agrees(&text, &mut memory), "{text}");
    }
}

/// One change: at a place, this many bytes are taken out, and these are put in.
type Change = (prop::sample::Index, usize, &'static str);

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let pieces = prop::sample::select(vec![
        "",
        "\"",
        "\\",
        "\\u",
        "\\\"",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        " ",
        "\n",
        "\t",
        "\u{1}",
        "é",
        "0",
        "-",
        ".5",
        "e9",
        "null",
        "true",
        "{}",
        "[]",
        "\"\"",
        ",\"eventID\":\"x\"",
        ",\"x\":{\"omitted\":true}",
        "\\u0065",
        "\u{7f}",
    ]);
    proptest::collection::vec((any::<prop::sample::Index>(), 0..3_usize, pieces), 0..4)
}

fn changed(record: &str, changes: &[Change]) -> Vec<u8> {
    let mut text = record.as_bytes().to_vec();
    for (place, taken, put) in changes {
        let from = place.index(text.len() + 1);
        let until = (from + taken).min(text.len());
        text.splice(from..until, put.bytes());
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn what_is_skimmed_is_what_a_full_parse_reads(
        record in prop::sample::select(records()),
        changes in changes(),
    ) {
        if let Ok(text) = String::from_utf8(changed(&record, &changes)) {
            agrees(&text, &mut Skimmer::default());
            // The same, where the record that it was made of is remembered.
            let mut memory = Skimmer::default();
            for text in [&record, &record, &text] {
                agrees(text, &mut memory);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_a_decoder_remembers_changes_nothing(
        history in proptest::collection::vec(
            (prop::sample::select(records()), changes()),
            1..20,
        ),
    ) {
        let mut decoder = Decoder::default();
        for (record, changes) in history {
            for text in [changed(&record, &[]), changed(&record, &changes)] {
                let other = Decoder::default().decode(&text);
                for one in [decoder.decode(&text), decode(&text)] {
                    prop_assert_eq!(format!("{one:?}"), format!("{other:?}"));
                }
                for matters in [true, false] {
                    let mut counted = None;
                    let judged = decoder.decode_judged(&text, |_| matters, |record| {
                        counted = Some(format!("{record:?}"));
                    });
                    if let Some(counted) = counted {
                        prop_assert!(matches!(judged, Ok(None)));
                        let event = other.as_ref().unwrap();
                        prop_assert!(event.replaces.is_none());
                        prop_assert!(event.action == Action::None || !matters);
                        prop_assert_eq!(counted, format!("{:?}", Counted::from(event)));
                    } else {
                        prop_assert_eq!(
                            format!("{judged:?}"),
                            format!("{:?}", other.as_ref().map(Some))
                        );
                    }
                }
            }
        }
    }
}
