//! A set of 64-bit fingerprints that stays small: what tells a record that was seen before.

use std::hash::{DefaultHasher, Hasher};

/// Shards grow one by one, so that growing never needs twice the memory of the whole set.
const SHARD_BITS: u32 = 6;
/// Slots that a shard starts with.
const FIRST_SLOTS: usize = 16;

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
    /// Adds a text; false when it was there already. `kind` keeps texts of different meaning apart.
    pub(super) fn insert(&mut self, kind: u8, text: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(kind);
        hasher.write(text.as_bytes());
        let fingerprint = hasher.finish().max(1);
        let shard = fingerprint >> (64 - SHARD_BITS);
        self.shards[usize::try_from(shard).unwrap_or(0)].insert(fingerprint)
    }
}

impl Shard {
    fn insert(&mut self, fingerprint: u64) -> bool {
        // At most 85 % full, and a third larger when it grows.
        if (self.used + 1) * 20 > self.slots.len() * 17 {
            let larger = (self.slots.len() + self.slots.len() / 3).max(FIRST_SLOTS);
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
        assert!(texts.iter().all(|text| seen.insert(0, text)));
        assert!(texts.iter().all(|text| !seen.insert(0, text)));
        assert!(seen.insert(1, &texts[0]), "another kind is another text");
    }

    #[test]
    fn a_fingerprint_costs_at_most_thirteen_bytes() {
        let mut seen = Fingerprints::default();
        for n in 0..500_000 {
            seen.insert(0, &format!("event-{n}"));
        }
        let slots: usize = seen.shards.iter().map(|shard| shard.slots.capacity()).sum();
        assert!(slots * 8 <= 500_000 * 13, "{slots} slots");
    }
}
