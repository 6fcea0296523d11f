//! A set of 64-bit fingerprints that stays small: what tells a record that was seen before.

use std::hash::{DefaultHasher, Hasher};

/// Shards grow one by one, so that growing never needs twice the memory of the whole set.
const SHARD_BITS: u32 = 6;
/// Slots that a shard starts with.
const FIRST_SLOTS: usize = 16;
/// Slots of a shard that are few: 1 MiB in all shards together.
const FEW_SLOTS: usize = 2048;

/// Fingerprints of the texts seen so far, 10 to 13 bytes each.
///
/// Two different texts among ten million share a fingerprint with a probability of about one in
/// 400,000: good enough to count duplicates, and used for nothing else.
#[derive(Debug)]
pub(super) struct Fingerprints {
    shards: Vec<Shard>,
}

#[derive(Debug, Default)]
struct Shard {
    /// Open addressing with linear probing; 0 is an empty slot.
    slots: Vec<u64>,
    used: usize,
}

impl Default for Fingerprints {
    fn default() -> Self {
        let shards = (0..1 << SHARD_BITS).map(|_| Shard::default()).collect();
        Self { shards }
    }
}

impl Fingerprints {
    /// Adds one; false when it was there already.
    pub(super) fn insert(&mut self, fingerprint: Fingerprint) -> bool {
        let shard = fingerprint.0 >> (64 - SHARD_BITS);
        self.shards[usize::try_from(shard).unwrap_or(0)].insert(fingerprint.0)
    }
}

/// What a text is remembered by; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    /// `kind` keeps texts of different meaning apart.
    pub(super) fn of(kind: u8, text: &str) -> Self {
        let fingerprint = if let Some(words) = of_uuid(text) {
            uuid(kind, words)
        } else {
            let mut hasher = DefaultHasher::new();
            hasher.write_u8(kind);
            hasher.write(text.as_bytes());
            hasher.finish()
        };
        Self(fingerprint.max(1))
    }
}

/// The bytes of a text that is as long as a UUID.
fn of_uuid(text: &str) -> Option<([u64; 4], u32)> {
    let text: &[u8; 36] = text.as_bytes().try_into().ok()?;
    let (words, last) = text.as_chunks::<8>();
    let words: &[[u8; 8]; 4] = words.try_into().ok()?;
    let last = last.try_into().ok()?;
    Some((words.map(u64::from_le_bytes), u32::from_le_bytes(last)))
}

/// As good as a hash that is hard to turn around, and quicker: nobody chooses an `eventID`.
fn uuid(kind: u8, (words, last): ([u64; 4], u32)) -> u64 {
    /// The fractions of the square roots of primes.
    const KEYS: [u64; 6] = [
        0x6a09_e667_f3bc_c909,
        0xbb67_ae85_84ca_a73b,
        0x3c6e_f372_fe94_f82b,
        0xa54f_f53a_5f1d_36f1,
        0x510e_527f_ade6_82d1,
        0x9b05_688c_2b3e_6c1f,
    ];
    let left = folded(words[0] ^ KEYS[0], words[1] ^ KEYS[1]);
    let right = folded(words[2] ^ KEYS[2], words[3] ^ KEYS[3]);
    let rest = u64::from(last) << 8 | u64::from(kind);
    folded(
        left ^ KEYS[4] ^ rest,
        right.rotate_left(32) ^ KEYS[5] ^ rest,
    )
}

/// Both halves of the product, in one.
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
    let low = product as u64;
    low ^ u64::try_from(product >> 64).unwrap_or(0)
}

impl Shard {
    fn insert(&mut self, fingerprint: u64) -> bool {
        // At most 85 % full, and a third larger when it grows; twice while that is little.
        if (self.used + 1) * 20 > self.slots.len() * 17 {
            let slots = self.slots.len();
            let more = if slots < FEW_SLOTS { slots } else { slots / 3 };
            let larger = (slots + more).max(FIRST_SLOTS);
            let old = std::mem::replace(&mut self.slots, vec![0; larger]);
            for fingerprint in old.into_iter().filter(|slot| *slot != 0) {
                let free = self.find(fingerprint);
                self.slots[free] = fingerprint;
            }
        }
        let slot = self.find(fingerprint);
        let new = self.slots[slot] == 0;
        if new {
            self.slots[slot] = fingerprint;
            self.used += 1;
        }
        new
    }

    /// The slot that holds the fingerprint, or the empty one where it belongs.
    fn find(&self, fingerprint: u64) -> usize {
        let len = self.slots.len();
        // The shard's bits are the same for all of it: spread by the others.
        let spread = u128::from(fingerprint << SHARD_BITS) * len as u128;
        let mut slot = usize::try_from(spread >> 64).unwrap_or(0);
        while self.slots[slot] != 0 && self.slots[slot] != fingerprint {
            slot = if slot + 1 == len { 0 } else { slot + 1 };
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_new_once_however_many_others_come_between() {
        let mut seen = Fingerprints::default();
        let texts: Vec<String> = (0..100_000).map(|n| format!("event-{n}")).collect();
        assert!(
            texts
                .iter()
                .all(|text| seen.insert(Fingerprint::of(0, text)))
        );
        assert!(
            texts
                .iter()
                .all(|text| !seen.insert(Fingerprint::of(0, text)))
        );
        assert!(
            seen.insert(Fingerprint::of(1, &texts[0])),
            "another kind is another text"
        );
    }

    #[test]
    fn uuids_that_differ_in_one_digit_are_told_apart_and_spread() {
        let mut seen = Fingerprints::default();
        let mut texts = std::collections::HashSet::new();
        for n in 0..50_000_u32 {
            // The counter at the begin, in the middle, at the end.
            for text in [
                format!("{n:08x}-0000-4000-8000-000000000000"),
                format!("00000000-0000-4000-8000-{n:08x}0000"),
                format!("00000000-0000-4000-8000-0000{n:08x}"),
            ] {
                let new = texts.insert(text.clone());
                for kind in [0, 1] {
                    assert_eq!(seen.insert(Fingerprint::of(kind, &text)), new, "{text}");
                }
            }
        }
        let used = seen.shards.iter().map(|shard| shard.used);
        assert!(used.clone().max() < used.min().map(|least| least * 2));
    }

    #[test]
    fn a_fingerprint_costs_at_most_thirteen_bytes() {
        let mut seen = Fingerprints::default();
        for n in 0..500_000 {
            seen.insert(Fingerprint::of(0, &format!("event-{n}")));
        }
        let slots: usize = seen.shards.iter().map(|shard| shard.slots.capacity()).sum();
        assert!(slots * 8 <= 500_000 * 13, "{slots} slots");
    }
}
