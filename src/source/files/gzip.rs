//! Gzip, as files have it: whole, in members one behind the other, cut off, damaged.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use libdeflater::Decompressor;
use memchr::memmem;

use super::fault::Fault;

/// How a gzip member begins.
pub(super) const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Inflates a file of one member into `text`, at most `limit` bytes; `None` if it is anything else,
/// which is for [`Members`] to read or to find fault with.
pub(super) fn inflate_whole<'t>(
    inflate: &mut Decompressor,
    file: &[u8],
    text: &'t mut Vec<u8>,
    limit: usize,
) -> Option<&'t [u8]> {
    // The last field of a member is its length, if it is less than 4 GiB.
    let length_field = file.last_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length_field)).ok()?;
    if length > limit {
        return None;
    }
    if text.len() < length {
        text.resize(length, 0);
    }
    let text = text.get_mut(..length)?;
    let inflated = inflate.gzip_decompress(file, text).ok()?;
    // The library stops behind the first member and does not say where. If there were another, the
    // first one's length would stand before its beginning.
    let [a, b, c, d] = *length_field;
    let seam = [a, b, c, d, MAGIC[0], MAGIC[1]];
    (inflated == length && memmem::find(file, &seam).is_none()).then_some(text)
}

/// The text of all members that a reader has, in bounded memory.
pub(super) struct Members<R> {
    state: State<R>,
}

#[expect(clippy::large_enum_variant, reason = "there is one for each file")]
enum State<R> {
    Within(GzDecoder<R>),
    Between(R),
    Done,
}

impl<R: BufRead> Members<R> {
    /// Of a reader that stands before the first member.
    pub(super) fn new(source: R) -> Self {
        Self {
            state: State::Within(GzDecoder::new(source)),
        }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, text: &mut [u8]) -> io::Result<usize> {
        if text.is_empty() {
            return Ok(0);
        }
        loop {
            self.state = match std::mem::replace(&mut self.state, State::Done) {
                State::Within(mut decoder) => match decoder.read(text) {
                    Ok(0) => State::Between(decoder.into_inner()),
                    Ok(read) => {
                        self.state = State::Within(decoder);
                        return Ok(read);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                        self.state = State::Within(decoder);
                        return Err(error);
                    }
                    Err(error) => return Err(fault_of(error)),
                },
                State::Between(mut source) => {
                    let next = source.fill_buf()?;
                    match next.first() {
                        None => return Ok(0),
                        // Padding, which tapes and some tools leave.
                        Some(0) => {
                            let zeros = next.iter().take_while(|byte| **byte == 0).count();
                            source.consume(zeros);
                            State::Between(source)
                        }
                        Some(byte) if *byte == MAGIC[0] => State::Within(GzDecoder::new(source)),
                        Some(_) => return Err(io::Error::other(Fault::GzipTrailing)),
                    }
                }
                State::Done => return Ok(0),
            };
        }
    }
}

fn fault_of(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::other(Fault::GzipCutOff),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            io::Error::other(Fault::GzipDamaged)
        }
        _ => error,
    }
}
