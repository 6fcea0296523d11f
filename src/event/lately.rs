//! What was made of a text lately.
//!
//! A session calls a hundred times, and each record names it by the same seven hundred bytes: what
//! they mean is worked out once. The memory is small and fixed; what does not fit, or is seen for
//! the first time, is worked out again.

/// The longest of them.
const MAX_TEXT: usize = 2048;

/// Values by the text that they were made of, for that many texts at most.
#[derive(Debug)]
pub(super) struct Lately<T, const SLOTS: usize> {
    /// Each text has one place, which it takes from the one before it.
    slots: Vec<Option<(Box<str>, T)>>,
}

impl<T, const SLOTS: usize> Default for Lately<T, SLOTS> {
    fn default() -> Self {
        Self { slots: Vec::new() }
    }
}

impl<T: Clone, const SLOTS: usize> Lately<T, SLOTS> {
    /// The value of a text, which `make` makes.
    pub(super) fn get(&mut self, text: &str, make: impl FnOnce(&str) -> T) -> T {
        if text.len() > MAX_TEXT {
            return make(text);
        }
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, || None);
        }
        let Some(slot) = self.slots.get_mut(place(text.as_bytes()) % SLOTS) else {
            return make(text);
        };
        match slot {
            Some((known, value)) if **known == *text => value.clone(),
            _ => {
                let value = make(text);
                *slot = Some((text.into(), value.clone()));
                value
            }
        }
    }
}

/// Texts that differ most often have different places. It need be no good hash: what shares a
/// place is told apart by the text.
pub(super) fn place(text: &[u8]) -> usize {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let (words, rest) = text.as_chunks::<8>();
    let (fours, last) = words.as_chunks::<4>();
    let mut lanes = [text.len() as u64; 4];
    let mix = |lane: &mut u64, word: &[u8; 8]| {
        *lane = (*lane ^ u64::from_le_bytes(*word))
            .wrapping_mul(FACTOR)
            .rotate_left(23);
    };
    for four in fours {
        for (lane, word) in lanes.iter_mut().zip(four) {
            mix(lane, word);
        }
    }
    let mut tail = [0; 8];
    for (to, from) in tail.iter_mut().zip(rest) {
        *to = *from;
    }
    for (lane, word) in lanes.iter_mut().zip(last.iter().chain([&tail])) {
        mix(lane, word);
    }
    let [a, b, c, d] = lanes;
    let sum = (a ^ b.rotate_left(17) ^ c.rotate_left(31) ^ d.rotate_left(47)).wrapping_mul(FACTOR);
    usize::try_from(sum >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: usize = 64;

    #[test]
    fn every_text_has_its_own_value_however_many_there_are() {
        let mut lately = Lately::<_, SLOTS>::default();
        for round in 0..3 {
            for n in 0..4 * SLOTS {
                let text = format!("{}{n}", "x".repeat(n % 70));
                let value = lately.get(&text, ToOwned::to_owned);
                assert_eq!(value, text, "round {round}");
            }
        }
    }

    #[test]
    fn what_was_made_of_a_text_is_not_made_again() {
        let mut lately = Lately::<_, SLOTS>::default();
        let mut made = 0;
        for _ in 0..3 {
            lately.get("the same", |_| made += 1);
        }
        assert_eq!(made, 1);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut lately = Lately::<_, SLOTS>::default();
        for n in 0..10 * SLOTS {
            lately.get(&format!("{n}{}", "x".repeat(n)), str::len);
        }
        let kept = lately.slots.iter().flatten().map(|(text, _)| text.len());
        assert!(kept.max() <= Some(MAX_TEXT));
        assert_eq!(lately.slots.len(), SLOTS);
    }
}
