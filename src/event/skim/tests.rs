//! What is skimmed against a full parse: the same members, of valid text only, whatever was done
//! to the text.

use std::{fs, path::Path};

use proptest::prelude::*;
use serde_json::Value;

use super::{Quotes, skim};
use crate::event::{Decoder, decode, wire::Record};

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

fn agrees(text: &str, quotes: &mut Quotes) -> bool {
    let skimmed = skim(text, quotes);
    if skimmed.is_some() {
        assert_eq!(skimmed, parsed(text), "{text}");
    }
    skimmed.is_some()
}

#[test]
fn records_as_cloudtrail_writes_them_are_skimmed() {
    let mut quotes = Quotes::default();
    for record in records() {
        let skimmed = agrees(&record, &mut quotes);
        assert_eq!(skimmed, !record.contains("addendum"), "{record}");
    }
}

#[test]
fn what_a_full_parse_reads_otherwise_or_refuses_is_left_to_it() {
    let mut quotes = Quotes::default();
    let good =
        r#"{"eventID":"a","x":[1,-20,true,{"y":null}],"requestParameters":{"a":"\u00e9\""}}"#;
    assert!(agrees(good, &mut quotes));
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
        assert!(!agrees(text, &mut quotes), "{text}");
    }
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
    assert!(!agrees(&deep, &mut quotes));
}

#[test]
fn quotes_are_found_wherever_a_block_of_sixty_four_ends() {
    let mut quotes = Quotes::default();
    for before in 0..140 {
        for middle in [r#"\""#, r"\\", r#"\\\""#, r"\u00e9", "é", r#"","b":""#, ""] {
            let text = format!(r#"{{"a":"{}{middle}c"}}"#, "x".repeat(before));
            assert!(agrees(&text, &mut quotes), "{text}");
        }
        let text = format!(r#"{{"a":"{}\"}}"#, "x".repeat(before));
        assert!(!agrees(&text, &mut quotes), "{text}");
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
            agrees(&text, &mut Quotes::default());
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
                let (one, other) = (decoder.decode(&text), decode(&text));
                prop_assert_eq!(format!("{one:?}"), format!("{other:?}"));
            }
        }
    }
}
