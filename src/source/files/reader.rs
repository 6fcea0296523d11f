//! One thread's work: takes files from the walk, and hands their records on.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use libdeflater::Decompressor;

use super::{
    Input, InputError, Progress, Record, Report, Sink,
    documents::{Documents, Found},
    fault::Fault,
    gzip::{self, Members},
    walk::Walk,
    window::Window,
};

/// What all threads together may hold of texts that are read whole; longer ones are read through a
/// window.
const WHOLE: usize = 12 << 20;
/// What is read from a file at a time, where it is not read whole.
const STEP: usize = 64 << 10;

pub(super) struct Worker<'a, S> {
    walk: &'a Walk,
    sink: &'a mut S,
    progress: &'a Progress,
    report: Report,
    /// The longest text that is read whole.
    limit: usize,
    inflate: Decompressor,
    /// What the file holds, and its text: memory that every file uses again.
    input: Vec<u8>,
    text: Vec<u8>,
}

impl<'a, S: Sink> Worker<'a, S> {
    pub(super) fn new(
        walk: &'a Walk,
        sink: &'a mut S,
        progress: &'a Progress,
        threads: usize,
    ) -> Self {
        Self {
            walk,
            sink,
            progress,
            report: Report::default(),
            limit: WHOLE / threads.max(1),
            inflate: Decompressor::new(),
            input: Vec::new(),
            text: Vec::new(),
        }
    }

    pub(super) fn run(mut self) -> Report {
        while let Some(found) = self.walk.next() {
            match found {
                Ok(input) => {
                    self.report.files += 1;
                    self.input(&input);
                    self.progress.files.fetch_add(1, Ordering::Relaxed);
                }
                Err((path, error)) => self.report.error(InputError {
                    path,
                    record: None,
                    reason: Fault::from(&error).to_string(),
                }),
            }
        }
        self.report
    }

    fn input(&mut self, input: &Input) {
        match input {
            Input::Stdin => self.stream(Path::new("-"), &mut io::stdin().lock()),
            Input::Path(path) => {
                if let Err(error) = self.file(path) {
                    self.report.error(InputError {
                        path: path.clone(),
                        record: None,
                        reason: Fault::from(&error).to_string(),
                    });
                }
            }
        }
    }

    fn file(&mut self, path: &Path) -> io::Result<()> {
        let mut file = File::open(path)?;
        let about = file.metadata()?;
        if !about.is_file() || about.len() > self.limit as u64 {
            self.stream(path, &mut file);
            return Ok(());
        }
        let length = usize::try_from(about.len()).map_err(io::Error::other)?;
        let mut memory = std::mem::take(&mut self.input);
        // One byte more shows whether the file has grown meanwhile.
        let space = aligned(&mut memory, length + 1);
        let (read, fault) = fill(&mut file, space);
        let input = space.get(..read).unwrap_or_default();
        if fault.is_some() {
            // What came before the fault is read all the same.
            self.stream(path, &mut input.chain(Broken(fault)));
        } else if read > length {
            self.stream(path, &mut input.chain(file));
        } else {
            self.progress
                .bytes
                .fetch_add(read as u64, Ordering::Relaxed);
            self.whole(path, input, read < length);
        }
        self.input = memory;
        Ok(())
    }

    fn whole(&mut self, path: &Path, input: &[u8], shrank: bool) {
        let mut buffer = std::mem::take(&mut self.text);
        if input.starts_with(&gzip::MAGIC) {
            let text = gzip::inflate_whole(&mut self.inflate, input, &mut buffer, self.limit);
            if let Some(text) = text {
                self.read(path, &mut Window::whole(text), shrank);
            } else {
                let mut members = Members::new(input);
                self.read(path, &mut Window::stream(&mut members, &mut buffer), shrank);
            }
        } else {
            self.read(path, &mut Window::whole(input), shrank);
        }
        self.text = buffer;
    }

    /// Reads what comes from a pipe, or does not fit.
    pub(super) fn stream(&mut self, path: &Path, source: &mut dyn Read) {
        let counted = Counted {
            source,
            progress: self.progress,
        };
        let mut source = BufReader::with_capacity(STEP, counted);
        let mut magic = Vec::with_capacity(gzip::MAGIC.len());
        let begun = (&mut source)
            .take(gzip::MAGIC.len() as u64)
            .read_to_end(&mut magic);
        let gzip = magic == gzip::MAGIC;
        let begun = Broken(begun.err());
        let mut source =
            BufReader::with_capacity(STEP, magic.as_slice().chain(begun).chain(source));
        let mut buffer = std::mem::take(&mut self.text);
        if gzip {
            let mut members = Members::new(source);
            self.read(path, &mut Window::stream(&mut members, &mut buffer), false);
        } else {
            self.read(path, &mut Window::stream(&mut source, &mut buffer), false);
        }
        self.text = buffer;
    }

    fn read(&mut self, path: &Path, window: &mut Window<'_>, shrank: bool) {
        let mut found = OfFile {
            path,
            sink: self.sink,
            progress: self.progress,
            report: &mut self.report,
            records: 0,
            faults: Vec::new(),
        };
        Documents::new(window, &mut found).read();
        found.end(shrank);
    }
}

/// What one file holds, on its way to the sink and the report.
struct OfFile<'a, S> {
    path: &'a Path,
    sink: &'a mut S,
    progress: &'a Progress,
    report: &'a mut Report,
    records: u64,
    /// Each kind once, with the first record that has it and how often there was one: a long file
    /// of something else is one error.
    faults: Vec<(Fault, Option<u64>, u64)>,
}

impl<S: Sink> Found for OfFile<'_, S> {
    fn records(&mut self, count: u64) {
        self.records += count;
        self.progress.records.fetch_add(count, Ordering::Relaxed);
    }
    fn ecr(&mut self, index: u64, text: &[u8]) {
        self.report.ecr_records += 1;
        self.sink.record(Record {
            path: self.path,
            index,
            text,
        });
    }
    fn skipped(&mut self) {
        self.report.skipped += 1;
    }
    fn notice(&mut self, index: u64, text: &[u8]) {
        self.skipped();
        self.sink.notice(Record {
            path: self.path,
            index,
            text,
        });
    }
    fn fault(&mut self, index: Option<u64>, fault: Fault) {
        match self.faults.iter_mut().find(|known| known.0 == fault) {
            Some((_, _, count)) => *count += 1,
            None => self.faults.push((fault, index, 1)),
        }
    }
}

impl<S> OfFile<'_, S> {
    fn end(self, shrank: bool) {
        self.report.records += self.records;
        let mut faults = self.faults;
        if shrank {
            let cut = [Fault::CutOff, Fault::GzipCutOff, Fault::Empty];
            faults.retain(|(fault, ..)| !cut.contains(fault));
            faults.push((Fault::Shrank, None, 1));
        }
        for (fault, record, count) in faults {
            let reason = match count {
                1 => fault.to_string(),
                _ => format!("{fault} (and {} more like it)", count - 1),
            };
            self.report.error(InputError {
                path: PathBuf::from(self.path),
                // A file without a record is named as a whole.
                record: record.filter(|_| self.records > 0),
                reason,
            });
        }
    }
}

/// Bytes to read a file into. Where they begin is not left to chance: the kernel copies to some
/// places, which allocators prefer, at a fifth of the speed.
fn aligned(memory: &mut Vec<u8>, length: usize) -> &mut [u8] {
    const ALIGNED: usize = 64;
    if memory.len() < length + ALIGNED {
        // Nothing of it is needed any more, so it is not moved.
        *memory = vec![0; length + ALIGNED];
    }
    let begin = memory.as_ptr().align_offset(ALIGNED).min(ALIGNED);
    memory.get_mut(begin..begin + length).unwrap_or_default()
}

/// Reads until the space is full, or to the end; gives how much that was, and what ended it early.
fn fill(file: &mut File, space: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut read = 0;
    loop {
        let Some(free) = space.get_mut(read..).filter(|free| !free.is_empty()) else {
            return (read, None);
        };
        match file.read(free) {
            Ok(0) => return (read, None),
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (read, Some(error)),
        }
    }
}

/// Counts what is read.
struct Counted<'a> {
    source: &'a mut dyn Read,
    progress: &'a Progress,
}

impl Read for Counted<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(bytes)?;
        self.progress
            .bytes
            .fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Nothing but an error, if there was one.
struct Broken(Option<io::Error>);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}
