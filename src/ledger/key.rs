//! How a record's identity is stored: UUIDs as 16 bytes, anything else as it is.

use sha2::{Digest as _, Sha256};

use crate::event::Event;

/// Bytes of content hash that follow the id of a correction.
const HASH_LEN: usize = 8;

/// Packs an `eventID` or `sharedEventID`. Different texts give different bytes: only a UUID in its
/// usual lower-case form takes 16 of them. Their order is that in which the database chooses among
/// copies of a call.
pub(crate) fn pack(id: &str) -> Vec<u8> {
    if let Some(uuid) = parse_uuid(id) {
        return uuid.to_vec();
    }
    // The mark's length keeps other texts from having 16 bytes, too.
    let mark: &[u8] = if id.len() == 15 { &[2, 2] } else { &[1] };
    [mark, id.as_bytes()].concat()
}

/// The text that was packed; none when these bytes are no packed id.
pub(super) fn unpack(bytes: &[u8]) -> Option<String> {
    if let Ok(uuid) = <&[u8; 16]>::try_from(bytes) {
        return Some(uuid_text(uuid));
    }
    let text = match bytes.first()? {
        1 => bytes.get(1..)?,
        2 => bytes.get(2..)?,
        _ => return None,
    };
    String::from_utf8(text.to_vec()).ok()
}

/// The id within the key of a correction.
pub(super) fn without_hash(key: &[u8]) -> &[u8] {
    key.get(..key.len().saturating_sub(HASH_LEN)).unwrap_or(key)
}

/// What a record is stored under. A correction can come under the id of the record that it
/// corrects, and more than once: its content tells these apart.
pub(super) fn event_key(event: &Event) -> Vec<u8> {
    let mut key = pack(&event.id);
    if event.replaces.is_some() {
        // Serializing our own type to memory does not fail; if it did, the id alone would do.
        let content = serde_json::to_vec(event).unwrap_or_default();
        key.extend_from_slice(&Sha256::digest(&content)[..HASH_LEN]);
    }
    key
}

/// What identifies the call: the same for the copies that several accounts get of it.
pub(super) fn call_key(event: &Event) -> Vec<u8> {
    pack(event.shared_id.as_deref().unwrap_or(&event.id))
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.as_bytes().try_into().ok()?;
    let mut uuid = [0; 16];
    let mut digits = 0;
    for (at, byte) in text.iter().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return None;
            }
            continue;
        }
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        uuid[digits / 2] = uuid[digits / 2] << 4 | value;
        digits += 1;
    }
    Some(uuid)
}

fn uuid_text(uuid: &[u8; 16]) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(36);
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push(HEX[usize::from(byte >> 4)].into());
        text.push(HEX[usize::from(byte & 15)].into());
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_uuid_takes_sixteen_bytes() {
        let id = "4b5e3a0c-1d2f-4e6a-9b8c-7d6e5f4a3b2c";
        assert_eq!(pack(id).len(), 16);
        assert_eq!(unpack(&pack(id)).as_deref(), Some(id));
    }

    proptest! {
        #[test]
        fn every_text_comes_back_as_it_was(id in ".{1,40}|[0-9a-fA-F-]{36}|[a-z]{14,16}") {
            prop_assert_eq!(unpack(&pack(&id)), Some(id.clone()));
        }

        #[test]
        fn only_uuids_have_sixteen_bytes(id in "[a-z]{10,20}") {
            prop_assert_ne!(pack(&id).len(), 16);
        }
    }
}
