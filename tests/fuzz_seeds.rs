//! Replays the seeds of the fuzz targets, and seeds that were changed, where fuzzing itself would take
//! too long.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail their test"
)]

#[path = "../fuzz/checks.rs"]
mod checks;

use std::{fs, path::Path};

/// Changed copies of each seed.
const CHANGES: u64 = 300;
/// What changes put in: what means something to one of the parsers.
const PIECES: [&[u8]; 21] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n",
    b" ",
    b"-",
    b"@",
    b"\\u0065",
    b"\xff",
    b"null",
    b"},{",
    b"\"eventSource\":\"ecr.amazonaws.com\"",
    b"&a *a",
    b"\"Type\":\"Notification\",",
    b"\"detail-type\":\"x via CloudTrail\",",
    b"%2f+",
];

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    let mut seeds = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let seed = fs::read(entry.unwrap().path()).unwrap();
        check(&seed);
        seeds += 1;
        // The same changes in every run: a failure can be seen again.
        let mut state: u64 = seeds;
        let mut below = |bound: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound.max(1)
        };
        for _ in 0..CHANGES {
            let mut changed = seed.clone();
            for _ in 0..=below(3) {
                let at = below(changed.len() + 1);
                let until = (at + below(8)).min(changed.len());
                changed.splice(at..until, PIECES[below(PIECES.len())].iter().copied());
            }
            if below(8) == 0 {
                changed.truncate(below(changed.len() + 1));
            }
            check(&changed);
        }
    }
    assert!(seeds > 1, "no seeds of {target}");
}

#[test]
fn the_splitter_stands_its_seeds() {
    replay("splitter", checks::splitter);
}

#[test]
fn the_decoder_stands_its_seeds() {
    replay("record", checks::record);
}

#[test]
fn the_image_reference_stands_its_seeds() {
    replay("reference", checks::reference);
}

#[test]
fn the_policy_stands_its_seeds() {
    replay("policy", checks::policy);
}

#[test]
fn the_message_stands_its_seeds() {
    replay("message", checks::message);
}
