//! JSON values cut out of a stream, one after the other, without reading it whole.
//!
//! A [`Window`] holds what has been read and not yet consumed. It finds where a value ends by
//! counting brackets outside of strings, and leaves it to `serde_json` to say whether what lies
//! between is JSON; nothing depends on how the text is laid out.

use std::io::{self, Read};

use memchr::{memchr_iter, memchr2, memchr3, memrchr};

/// How much is read at once.
const CHUNK: usize = 256 * 1024;

/// The longest value that is cut out. The API server takes objects of at most 3 MiB; `kubectl`
/// prints them with about 2.3 times their length.
pub(super) const MAX_VALUE: usize = 7 * 1024 * 1024;

/// A place in the input, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// Why no value could be cut out.
#[derive(Debug)]
pub(super) enum SplitError {
    Read(io::Error),
    /// The input ends within a value.
    Ends,
    /// A value is longer than [`MAX_VALUE`].
    TooLong,
}

impl From<io::Error> for SplitError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// What has been read of an input, and how far it has been consumed.
pub(super) struct Window<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Everything before has been consumed.
    start: usize,
    /// Everything from here on has not been read yet.
    end: usize,
    /// Lines, and bytes of the last one, before `buffer`.
    lines: u64,
    columns: u64,
}

impl<R: Read> Window<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            lines: 0,
            columns: 0,
        }
    }

    /// The next byte that is no white space, and where it is; `None` at the end.
    pub(super) fn peek(&mut self, from: usize) -> Result<Option<(u8, usize)>, SplitError> {
        let mut offset = from;
        loop {
            let rest = &self.buffer[self.start + offset..self.end];
            if let Some(skip) = rest.iter().position(|b| !b" \t\r\n".contains(b)) {
                return Ok(Some((rest[skip], offset + skip)));
            }
            offset = self.end - self.start;
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Where the value that begins at `offset` ends.
    pub(super) fn value_end(&mut self, offset: usize) -> Result<usize, SplitError> {
        match self.byte(offset)? {
            b'"' => self.string_end(offset + 1),
            b'{' => self.bracket_end(offset + 1, b'{', b'}'),
            b'[' => self.bracket_end(offset + 1, b'[', b']'),
            _ => self.scalar_end(offset),
        }
    }

    /// What lies between two offsets.
    pub(super) fn text(&self, from: usize, to: usize) -> &[u8] {
        &self.buffer[self.start + from..self.start + to]
    }

    /// Consumes up to an offset; offsets count from there now.
    pub(super) fn consume(&mut self, offset: usize) {
        self.start += offset;
    }

    /// The place of an offset, for messages.
    pub(super) fn place(&self, offset: usize) -> Place {
        let before = &self.buffer[..self.start.saturating_add(offset).min(self.end)];
        let (lines, columns) = self.count(before);
        Place {
            line: lines + 1,
            column: columns + 1,
        }
    }

    /// Lines, and bytes of the last line, up to the end of `text`, which is the buffer's beginning.
    fn count(&self, text: &[u8]) -> (u64, u64) {
        let lines = memchr_iter(b'\n', text).count() as u64;
        let columns = match memrchr(b'\n', text) {
            Some(newline) => (text.len() - newline - 1) as u64,
            None => self.columns + text.len() as u64,
        };
        (self.lines + lines, columns)
    }

    fn byte(&mut self, offset: usize) -> Result<u8, SplitError> {
        while self.start + offset >= self.end {
            if !self.fill()? {
                return Err(SplitError::Ends);
            }
        }
        Ok(self.buffer[self.start + offset])
    }

    /// Behind the closing quote of a string whose text begins at `offset`.
    fn string_end(&mut self, mut offset: usize) -> Result<usize, SplitError> {
        loop {
            match memchr2(b'"', b'\\', &self.buffer[self.start + offset..self.end]) {
                Some(found) => {
                    offset += found;
                    if self.buffer[self.start + offset] == b'"' {
                        return Ok(offset + 1);
                    }
                    self.byte(offset + 1)?;
                    offset += 2;
                }
                None => offset = self.more()?,
            }
        }
    }

    /// Behind the bracket that closes the one before `offset`.
    fn bracket_end(&mut self, mut offset: usize, open: u8, close: u8) -> Result<usize, SplitError> {
        let mut depth = 1_usize;
        loop {
            match memchr3(
                b'"',
                open,
                close,
                &self.buffer[self.start + offset..self.end],
            ) {
                Some(found) => {
                    offset += found + 1;
                    match self.buffer[self.start + offset - 1] {
                        b'"' => offset = self.string_end(offset)?,
                        byte if byte == open => depth += 1,
                        _ => {
                            depth -= 1;
                            if depth == 0 {
                                return Ok(offset);
                            }
                        }
                    }
                }
                None => offset = self.more()?,
            }
        }
    }

    /// Behind a number or word: whatever comes before the next separator.
    fn scalar_end(&mut self, mut offset: usize) -> Result<usize, SplitError> {
        loop {
            let rest = &self.buffer[self.start + offset..self.end];
            if let Some(end) = rest.iter().position(|b| b" \t\r\n,:{}[]\"".contains(b)) {
                // At least one byte, or nothing would ever be consumed.
                return Ok((offset + end).max(1));
            }
            offset = self.end - self.start;
            if !self.fill()? {
                return Ok(offset);
            }
        }
    }

    /// Reads more of a value; gives the offset where it goes on.
    fn more(&mut self) -> Result<usize, SplitError> {
        let offset = self.end - self.start;
        if self.fill()? {
            Ok(offset)
        } else {
            Err(SplitError::Ends)
        }
    }

    /// Reads a chunk behind what is not yet consumed. Says whether there was any.
    fn fill(&mut self) -> Result<bool, SplitError> {
        if self.start > 0 && self.buffer.len() - self.end < CHUNK {
            let (lines, columns) = self.count(&self.buffer[..self.start]);
            (self.lines, self.columns) = (lines, columns);
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() - self.end < CHUNK {
            if self.end > MAX_VALUE {
                return Err(SplitError::TooLong);
            }
            // Not doubled: what is held stays below the bound, whatever the length of a value.
            self.buffer
                .reserve_exact(self.end + CHUNK - self.buffer.len());
            self.buffer.resize(self.end + CHUNK, 0);
        }
        loop {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(read) => {
                    self.end += read;
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
