//! A bounded view into a file's decompressed text.

use std::io::{self, Read};

use super::fault::Fault;

/// The longest record that is taken. CloudTrail's own limit is 1 MB, and as a JSON string in an
/// answer of `lookup-events` a record can be twice as long.
pub(super) const MAX_RECORD: usize = 4 << 20;
/// What is read at a time.
const STEP: usize = 256 << 10;

/// Text that was read and not yet consumed: all of a file, or the part that fits.
pub(super) struct Window<'f> {
    text: Text<'f>,
    begin: usize,
    fault: Option<Fault>,
}

enum Text<'f> {
    Whole(&'f [u8]),
    Stream {
        buffer: &'f mut Vec<u8>,
        end: usize,
        source: &'f mut dyn Read,
    },
}

impl<'f> Window<'f> {
    /// Over a text that is there as a whole.
    pub(super) fn whole(text: &'f [u8]) -> Self {
        Self {
            text: Text::Whole(text),
            begin: 0,
            fault: None,
        }
    }

    /// Over what `source` gives, through `buffer`.
    pub(super) fn stream(source: &'f mut dyn Read, buffer: &'f mut Vec<u8>) -> Self {
        let text = Text::Stream {
            buffer,
            end: 0,
            source,
        };
        Self {
            text,
            begin: 0,
            fault: None,
        }
    }

    /// What is in view.
    pub(super) fn text(&self) -> &[u8] {
        let text = match &self.text {
            Text::Whole(text) => text.get(self.begin..),
            Text::Stream { buffer, end, .. } => buffer.get(self.begin..*end),
        };
        text.unwrap_or_default()
    }

    /// Lets the first `length` bytes of the view go.
    pub(super) fn consume(&mut self, length: usize) {
        self.begin += length.min(self.text().len());
    }

    /// Brings more into view; `false` at the end.
    pub(super) fn more(&mut self) -> bool {
        let Text::Stream {
            buffer,
            end,
            source,
        } = &mut self.text
        else {
            return false;
        };
        if self.fault.is_some() {
            return false;
        }
        if self.begin > 0 {
            buffer.copy_within(self.begin..*end, 0);
            *end -= self.begin;
            self.begin = 0;
        }
        // What is kept at most doubles before it is looked at again, so long records cost no more.
        let wanted = *end + STEP.max(*end);
        if buffer.len() < wanted {
            buffer.resize(wanted, 0);
        }
        loop {
            let free = buffer.get_mut(*end..wanted).unwrap_or_default();
            match source.read(free) {
                Ok(read) => {
                    *end += read;
                    return read > 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.fault = Some(Fault::from(&error));
                    return false;
                }
            }
        }
    }

    /// What ended the text before its end.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault
    }
}
