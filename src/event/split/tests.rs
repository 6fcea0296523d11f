//! The splitter against a full parse: on documents that are valid they must agree, record by
//! record, whatever the pieces they come in; on any other bytes nothing may break.

use proptest::prelude::*;
use serde_json::Value;

use super::{Elements, Pairs as _, Records, Shifts, Step, ValueEnd, escaped_by, is_ecr};

#[derive(Debug, Default, PartialEq)]
struct Gathered {
    ecr: Vec<(u64, Vec<u8>)>,
    too_long: Vec<u64>,
}

impl Elements for Gathered {
    fn first(&mut self, _: &[u8]) -> bool {
        true
    }
    fn ecr(&mut self, index: u64, text: &[u8]) {
        self.ecr.push((index, text.to_vec()));
    }
    fn too_long(&mut self, index: u64) {
        self.too_long.push(index);
    }
}

/// Splits what follows the array's opening bracket, `piece` bytes more at a time.
fn split(text: &[u8], piece: usize) -> (Records, Step, Gathered) {
    let mut records = Records::new(usize::MAX);
    let mut gathered = Gathered::default();
    let mut from = 0;
    let mut until = 0;
    loop {
        until = (until + piece).min(text.len());
        match records.run(&text[from..until], &mut gathered) {
            Step::More(position) => {
                from += position;
                if until == text.len() {
                    return (records, Step::More(from), gathered);
                }
            }
            Step::End(position) => return (records, Step::End(from + position), gathered),
            Step::Other(position) => return (records, Step::Other(from + position), gathered),
            step => return (records, step, gathered),
        }
    }
}

/// What a full parse says of a document whose first key is `Records`; none if it is not valid.
fn parsed(document: &[u8]) -> Option<(u64, Vec<(u64, Value)>)> {
    let document: Value = serde_json::from_slice(document).ok()?;
    let records = document.get("Records")?.as_array()?;
    if !records.iter().all(Value::is_object) {
        return None;
    }
    let ecr = records.iter().zip(0..).filter_map(|(record, index)| {
        let source = record.get("eventSource")?.as_str()?;
        (source == "ecr.amazonaws.com").then(|| (index, record.clone()))
    });
    Some((records.len() as u64, ecr.collect()))
}

fn agrees(document: &[u8], piece: usize) -> Result<(), TestCaseError> {
    let Some(start) = document.iter().position(|byte| *byte == b'[') else {
        return Ok(());
    };
    let (records, step, gathered) = split(&document[start + 1..], piece);
    if let Some((count, ecr)) = parsed(document) {
        prop_assert!(matches!(step, Step::End(_)), "{step:?}");
        prop_assert_eq!(records.count(), count);
        let gathered: Vec<(u64, Value)> = gathered
            .ecr
            .iter()
            .map(|(index, text)| (*index, serde_json::from_slice(text).unwrap()))
            .collect();
        prop_assert_eq!(gathered, ecr);
    }
    Ok(())
}

/// Texts that look like structure, or like what is searched for.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => Just("ecr.amazonaws.com".to_owned()),
        1 => Just("\"ecr.amazonaws.com\"".to_owned()),
        1 => Just("\"eventSource\":\"ecr.amazonaws.com\"".to_owned()),
        1 => Just("},{\"eventVersion\":\"1\"".to_owned()),
        1 => Just("\\".to_owned()),
        1 => Just("\\\\\"".to_owned()),
        1 => Just("{".to_owned()),
        1 => Just("}".to_owned()),
        1 => Just("]}".to_owned()),
        1 => Just("\u{0}\u{1f}é\u{1f980}".to_owned()),
        3 => "[a-z:/.]{0,70}",
    ];
    prop_oneof![
        2 => piece.clone(),
        1 => proptest::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat()),
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("eventSource".to_owned()),
        1 => Just("\\eventSource".to_owned()),
        1 => Just("x\"eventSource".to_owned()),
        2 => text(),
    ]
}

/// A string's JSON text, some letters as escapes.
fn quoted(text: &str, escapes: u64) -> String {
    let mut quoted = String::from("\"");
    for (place, letter) in text.chars().enumerate() {
        if escapes >> (place % 64) & 1 == 1 && u32::from(letter) < 0x1_0000 {
            let escape = format!("\\u{:04x}", u32::from(letter));
            quoted.push_str(&escape);
        } else {
            let json = serde_json::to_string(&letter).unwrap();
            quoted.push_str(&json[1..json.len() - 1]);
        }
    }
    quoted + "\""
}

/// Mostly none.
fn escapes() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(0), 1 => any::<u64>(), 1 => (0..64_u32).prop_map(|bit| 1 << bit)]
}

fn blank() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => Just(""), 1 => Just(" "), 1 => Just("\n  "), 1 => Just("\t\r\n")]
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        6 => (text(), escapes()).prop_map(|(text, escapes)| quoted(&text, escapes)),
        1 => Just("null".to_owned()),
        1 => Just("true".to_owned()),
        1 => any::<i32>().prop_map(|number| number.to_string()),
        1 => Just("{}".to_owned()),
        1 => Just("[]".to_owned()),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            object(inner.clone()),
            proptest::collection::vec((inner, blank()), 0..4).prop_map(|items| {
                let items: Vec<String> = items
                    .iter()
                    .map(|(item, blank)| format!("{blank}{item}"))
                    .collect();
                format!("[{}]", items.join(","))
            }),
        ]
    })
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let member = (key(), escapes(), value, blank(), blank());
    proptest::collection::vec(member, 0..6).prop_map(|members| {
        let mut seen = std::collections::HashSet::new();
        let members: Vec<String> = members
            .iter()
            // Which of two equal keys counts is not for the splitter to say.
            .filter(|(key, ..)| seen.insert(key.clone()))
            .map(|(key, escapes, value, before, behind)| {
                format!(
                    "{before}{}{behind}:{before}{value}{behind}",
                    quoted(key, *escapes)
                )
            })
            .collect();
        format!("{{{}}}", members.join(","))
    })
}

fn document() -> impl Strategy<Value = Vec<u8>> {
    let records = proptest::collection::vec((object(json()), blank(), blank()), 0..8);
    (records, blank()).prop_map(|(records, blank)| {
        let records: Vec<String> = records
            .iter()
            .map(|(record, before, behind)| format!("{before}{record}{behind}"))
            .collect();
        format!("{{\"Records\":{blank}[{}{blank}]}}", records.join(",")).into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_splitter_agrees_with_a_full_parse(document in document(), piece in 1..200_usize) {
        agrees(&document, usize::MAX)?;
        agrees(&document, piece)?;
    }

    #[test]
    fn the_splitter_agrees_on_documents_that_were_changed(
        mut document in document(),
        changes in proptest::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(&b"\"\\{}[],: e0"[..])),
            1..4,
        ),
    ) {
        for (place, byte) in changes {
            let place = place.index(document.len());
            document[place] = byte;
        }
        agrees(&document, usize::MAX)?;
    }

    #[test]
    fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1..90_usize) {
        let whole = split(&bytes, usize::MAX);
        let pieces = split(&bytes, piece);
        prop_assert_eq!(whole.1, pieces.1);
        prop_assert_eq!(whole.2, pieces.2);
        is_ecr(&bytes);
    }

    #[test]
    fn both_ways_to_find_what_lies_within_strings_agree(bits in any::<u64>(), more in any::<u64>()) {
        for quotes in [bits, bits & more, bits | more, 0, u64::MAX] {
            let mut inside = false;
            let within = (0..64).fold(0, |within, place| {
                inside ^= quotes >> place & 1 == 1;
                within | u64::from(inside) << place
            });
            prop_assert_eq!(Shifts.within(quotes), within);
            #[cfg(target_arch = "x86_64")]
            if let Some(deposit) = *super::DEPOSIT {
                prop_assert_eq!(deposit.within(quotes), within);
            }
        }
    }

    #[test]
    fn what_a_backslash_escapes_is_found_in_a_whole_block_and_in_a_part_of_one(
        bits in any::<u64>(),
        more in any::<u64>(),
        escaped: bool,
        length in 0..=64_u32,
    ) {
        for backslashes in [bits, bits & more, bits | more, 0, u64::MAX] {
            let backslashes = backslashes & u64::MAX.checked_shr(64 - length).unwrap_or(0);
            let mut next = escaped;
            let expected = (0..length).fold(0, |bytes, place| {
                let this = next;
                next = !this && backslashes >> place & 1 == 1;
                bytes | u64::from(this) << place
            });
            let found = escaped_by(backslashes, escaped, length as usize);
            prop_assert_eq!(found, (expected, next));
        }
    }

    #[test]
    fn a_value_ends_where_a_full_parse_says(json in json(), tail in "[,}\\] ].{0,80}", piece in 1..90_usize) {
        let text = format!("{json}{tail}");
        let (mut end, from) = ValueEnd::new(text.as_bytes()[0]);
        let mut at = from;
        let found = loop {
            let until = (at + piece).min(text.len());
            match end.find(&text.as_bytes()[at..until]) {
                Some(found) => break at + found,
                None => at = until,
            }
        };
        prop_assert_eq!(found, json.len());
    }
}

#[test]
fn the_source_counts_only_as_the_records_own_key() {
    let cases: [(&str, bool); 12] = [
        (r#"{"eventSource":"ecr.amazonaws.com"}"#, true),
        (
            "{\"a\":{},\n\"eventSource\" :\t\"ecr.amazonaws.com\" }",
            true,
        ),
        (r#"{"a":"}","eventSource":"ecr.amazonaws.com"}"#, true),
        (r#"{"eventSource":"ecr.amazonaws.c\u006fm"}"#, true),
        (r#"{"event\u0053ource":"ecr.amazonaws.com"}"#, true),
        (r#"{"a":{"eventSource":"ecr.amazonaws.com"}}"#, false),
        (r#"{"a":[{"eventSource":"ecr.amazonaws.com"}]}"#, false),
        (r#"{"a":"{\"eventSource\":\"ecr.amazonaws.com\""}"#, false),
        (r#"{"invokedBy":"ecr.amazonaws.com"}"#, false),
        (r#"{"x\"eventSource":"ecr.amazonaws.com"}"#, false),
        (r#"{"eventSource":"ecr.amazonaws.com.cn"}"#, false),
        (r#"{"eventSource":"ecr-public.amazonaws.com"}"#, false),
    ];
    for (record, expected) in cases {
        assert_eq!(is_ecr(record.as_bytes()), expected, "{record}");
    }
}

#[test]
fn what_is_nested_a_million_deep_is_followed_to_its_end() {
    let mut text = b"{\"a\":".repeat(1_000_000);
    text.extend(b"1");
    text.extend(b"}".repeat(1_000_000));
    text.extend(b",{\"eventSource\":\"ecr.amazonaws.com\"}]");
    let (records, step, gathered) = split(&text, usize::MAX);
    assert_eq!((records.count(), step), (2, Step::End(text.len())));
    assert_eq!(gathered.ecr[0].0, 1);
}

#[test]
fn a_record_that_is_too_long_is_named_and_the_next_one_is_read_whatever_the_pieces() {
    let text =
        br#"{"a":"0123456789012345678901234567890123456789"},{"eventSource":"ecr.amazonaws.com"}]"#;
    for piece in 1..text.len() {
        let mut records = Records::new(40);
        let mut gathered = Gathered::default();
        let (mut from, mut until) = (0, 0);
        let step = loop {
            until = (until + piece).min(text.len());
            match records.run(&text[from..until], &mut gathered) {
                Step::More(position) => from += position,
                step => break step,
            }
            assert!(until - from <= 40 + piece, "more than the limit is kept");
        };
        assert!(matches!(step, Step::End(_)));
        assert_eq!((gathered.too_long, gathered.ecr[0].0), (vec![0], 1));
    }
}
