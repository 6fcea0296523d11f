//! One object of a bucket that is in memory: its records, and the hash of its text.
//!
//! The forms are told apart, and the records found, by the same code that reads files.

use std::io::{self, Read};

use libdeflater::Decompressor;
use sha2::{Digest as _, Sha256};

use super::{
    documents::{Documents, Found},
    fault::Fault,
    gzip::{self, Members},
    window::Window,
};

/// The longest text that is decompressed at once; longer ones go through a window.
const WHOLE: usize = 16 << 20;
/// The longest text that is read at all: CloudTrail's files have less than a tenth of this.
const MOST: u64 = 1 << 30;

/// What an object held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// SHA-256 of the decompressed text. Without a meaning where there is a fault.
    pub(crate) hash: [u8; 32],
    /// Records that are too long to be taken, by their index.
    pub(crate) too_long: Vec<u64>,
    /// Why it could not be read to its end; in words, and nothing of the object's own.
    pub(crate) fault: Option<String>,
}

/// Memory that one object after the other uses.
pub(crate) struct Memory {
    inflate: Decompressor,
    text: Vec<u8>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            inflate: Decompressor::new(),
            text: Vec::new(),
        }
    }
}

/// Hands every record of ECR in the object to `record`.
pub(crate) fn read(input: &[u8], memory: &mut Memory, record: &mut dyn FnMut(&[u8])) -> Content {
    read_within(input, memory, (WHOLE, MOST), record)
}

fn read_within(
    input: &[u8],
    memory: &mut Memory,
    (at_once, most): (usize, u64),
    record: &mut dyn FnMut(&[u8]),
) -> Content {
    let mut found = OfObject {
        record,
        too_long: vec![],
        fault: None,
    };
    let Memory { inflate, text } = memory;
    let is_gzip = input.starts_with(&gzip::MAGIC);
    let whole = if is_gzip {
        gzip::inflate_whole(inflate, input, text, at_once)
    } else {
        Some(input)
    };
    let hash = if let Some(whole) = whole {
        Documents::new(&mut Window::whole(whole), &mut found).read();
        Sha256::digest(whole).into()
    } else {
        let mut source = Hashed {
            source: Members::new(input),
            hash: Sha256::new(),
            left: most,
        };
        Documents::new(&mut Window::stream(&mut source, text), &mut found).read();
        source.hash.finalize().into()
    };
    Content {
        hash,
        too_long: found.too_long,
        fault: found.fault.map(|fault| fault.to_string()),
    }
}

/// The text of an object that is no longer than `most`.
pub(crate) fn text(input: &[u8], most: u64) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let read = if input.starts_with(&gzip::MAGIC) {
        Members::new(input).take(most + 1).read_to_end(&mut text)
    } else {
        input.take(most + 1).read_to_end(&mut text)
    };
    match read {
        Ok(read) if read as u64 > most => Err(Fault::TooMuch.to_string()),
        Ok(_) => Ok(text),
        Err(error) => Err(error.to_string()),
    }
}

struct OfObject<'a> {
    record: &'a mut dyn FnMut(&[u8]),
    too_long: Vec<u64>,
    fault: Option<Fault>,
}

impl Found for OfObject<'_> {
    fn records(&mut self, _: u64) {}
    fn ecr(&mut self, _: u64, text: &[u8]) {
        (self.record)(text);
    }
    fn skipped(&mut self) {}
    fn notice(&mut self, _: u64, _: &[u8]) {}
    fn fault(&mut self, index: Option<u64>, fault: Fault) {
        match (fault, index) {
            // One record that nobody can read says nothing of the others.
            (Fault::TooLong, Some(index)) => self.too_long.push(index),
            _ => self.fault = self.fault.or(Some(fault)),
        }
    }
}

/// Hashes what is read, up to a bound.
struct Hashed<R> {
    source: R,
    hash: Sha256,
    left: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(bytes)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other(Fault::TooMuch))?;
        self.hash.update(bytes.get(..read).unwrap_or_default());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    const RECORD: &str = r#"{"eventSource":"ecr.amazonaws.com","eventName":"x","eventID":"1"}"#;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn read_both(input: &[u8]) -> [(usize, Content); 2] {
        // At once, and through the window.
        [1 << 20, 0].map(|at_once| {
            let mut records = 0;
            let mut count = |_: &[u8]| records += 1;
            let bounds = (at_once, 4 << 20);
            let content = read_within(input, &mut Memory::default(), bounds, &mut count);
            (records, content)
        })
    }

    #[test]
    fn the_hash_is_that_of_the_text_however_it_is_read() {
        let text = format!(r#"{{"Records":[{RECORD},{{"eventSource":"s3"}},{RECORD}]}}"#);
        let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        for (records, content) in read_both(&gzip(text.as_bytes())) {
            assert_eq!((records, content.hash, content.fault), (2, hash, None));
        }
        let (records, content) = &read_both(text.as_bytes())[0];
        assert_eq!((*records, content.hash), (2, hash));
    }

    #[test]
    fn what_expands_without_end_ends_in_a_fault_and_in_bounded_memory() {
        let mut text = format!(r#"{{"Records":[{RECORD},"#).into_bytes();
        text.resize(16 << 20, b' ');
        let bomb = gzip(&text);
        assert!(bomb.len() < 200_000);
        let mut memory = Memory::default();
        let content = read_within(&bomb, &mut memory, (1 << 20, 4 << 20), &mut |_| {});
        assert!(content.fault.unwrap().contains("expands"));
        assert!(memory.text.capacity() <= 8 << 20);
        assert!(super::text(&bomb, 1 << 20).unwrap_err().contains("expands"));
    }

    #[test]
    fn what_is_damaged_cut_off_or_something_else_is_a_fault() {
        let whole = gzip(format!(r#"{{"Records":[{RECORD}]}}"#).as_bytes());
        let cut = &whole[..whole.len() - 12];
        let mut damaged = whole.clone();
        damaged[14] ^= 0xff;
        let trailing = [&*whole, b"more"].concat();
        for input in [cut, &damaged, &trailing, b"", b"<html>", &gzip(b"")] {
            for (_, content) in read_both(input) {
                assert!(content.fault.is_some(), "{content:?}");
            }
        }
    }
}
