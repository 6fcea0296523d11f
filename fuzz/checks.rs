//! What must hold for any bytes: shared by the fuzz targets and the replay of their seeds.

use ecr_audit::{
    cli::policy,
    event::{
        Reference, decode,
        split::{self, Elements, Records, Step},
    },
    source::sqs::message::{self, Poison},
};
use serde_json::{Value, json};

#[derive(Debug, Default, PartialEq)]
struct Gathered(Vec<(u64, Vec<u8>)>);

impl Elements for Gathered {
    fn first(&mut self, _: &[u8]) -> bool {
        true
    }
    fn ecr(&mut self, index: u64, text: &[u8]) {
        self.0.push((index, text.to_vec()));
    }
    fn too_long(&mut self, _: u64) {}
}

fn split(text: &[u8], piece: usize) -> (u64, Step, Gathered) {
    let mut records = Records::new(usize::MAX);
    let mut gathered = Gathered::default();
    let (mut from, mut until) = (0, 0);
    loop {
        until = text.len().min(until + piece);
        match records.run(&text[from..until], &mut gathered) {
            Step::More(position) => from += position,
            Step::End(position) => return (records.count(), Step::End(from + position), gathered),
            Step::Other(position) => {
                return (records.count(), Step::Other(from + position), gathered);
            }
            step => return (records.count(), step, gathered),
        }
        if until == text.len() {
            return (records.count(), Step::More(from), gathered);
        }
    }
}

/// The splitter finds what a full parse finds in a valid document, in whatever pieces it comes.
pub(crate) fn splitter(bytes: &[u8]) {
    let Some(text) = bytes.strip_prefix(b"{\"Records\":[") else {
        split::is_ecr(bytes);
        return;
    };
    let whole = split(text, usize::MAX >> 1);
    let piece = 1 + usize::from(bytes.last().copied().unwrap_or_default());
    assert_eq!(whole, split(text, piece), "pieces of {piece}");
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    // A second `Records` replaces the first in a full parse.
    let twice = bytes
        .windows(9)
        .filter(|window| window == b"\"Records\"")
        .count()
        > 1;
    let Some(records) = document["Records"].as_array().filter(|_| !twice) else {
        return;
    };
    if !records.iter().all(Value::is_object) {
        return;
    }
    assert_eq!(whole.0, records.len() as u64, "records");
    for (record, index) in records.iter().zip(0..) {
        let found = whole.2.0.iter().find(|found| found.0 == index);
        let is_ecr = record["eventSource"] == "ecr.amazonaws.com";
        // Of a key that stands twice a full parse takes the last; the splitter takes either.
        assert!(found.is_some() || !is_ecr, "record {index} was missed");
        if let Some((_, text)) = found {
            let parsed: Value = serde_json::from_slice(text).expect("a part of a valid document");
            assert_eq!(&parsed, record);
        }
    }
}

/// The decoder takes or refuses any bytes, and what it takes can be stored and read again.
pub(crate) fn record(bytes: &[u8]) {
    if let Ok(event) = decode(bytes) {
        let stored = serde_json::to_string(&event).expect("events can be stored");
        let read = serde_json::from_str(&stored).expect("and read again");
        assert_eq!(event, read);
    }
}

/// What is read as an image reference names a place.
pub(crate) fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Some(reference) = Reference::parse(text) {
        assert_eq!(reference.repository.account.len(), 12);
        assert!(!reference.repository.name.is_empty());
        assert!(reference.tag.is_some() || reference.digest.is_some());
    }
}

/// The policy is taken, or refused with a reason.
pub(crate) fn policy(bytes: &[u8]) {
    if let Err(error) = policy::parse(bytes) {
        assert!(!error.to_string().is_empty());
    }
}

/// A message is taken or refused; what it names is bounded and harmless; and wrapped by SNS it
/// says the same.
pub(crate) fn message(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let read = message::parse(text);
    let wrapped = json!({"Type": "Notification", "Message": text}).to_string();
    let unwrapped = message::parse(&wrapped);
    if unwrapped != Err(Poison::TooDeep) {
        assert_eq!(read, unwrapped);
    }
    let Ok(content) = read else { return };
    for object in &content.objects {
        let harmless = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b);
        assert!(object.bucket.len() <= 63 && object.bucket.bytes().all(harmless));
        assert!(!object.key.is_empty() && object.key.len() <= 1024);
    }
    if let Some(event) = &content.event {
        let stored = serde_json::to_string(event).expect("events can be stored");
        assert_eq!(
            *event,
            serde_json::from_str(&stored).expect("and read again")
        );
    }
}
