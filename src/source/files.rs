//! Records from files: what `check` and `principals` read.
//!
//! Files, folders and standard input are told apart by their content, never by their names: trail
//! files (`{"Records":[…]}`), the output of `aws cloudtrail lookup-events`, single records,
//! EventBridge envelopes, arrays and JSON lines of any of these, each plain or gzip. Every record
//! is counted; the text of those of ECR goes to the caller's [`Sink`]s, one for each thread. What
//! cannot be read is named in the [`Report`], and what was read before the fault still counts.

mod documents;
mod fault;
mod gzip;
pub(crate) mod object;
mod reader;
mod walk;
mod window;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Errors that a report keeps; more are only counted, so that a folder full of something else
/// cannot fill the memory.
pub const MAX_ERRORS: usize = 1000;

/// One thing to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A file, or a folder with everything below it.
    Path(PathBuf),
    /// Standard input.
    Stdin,
}

impl From<PathBuf> for Input {
    /// `-` is standard input.
    fn from(path: PathBuf) -> Self {
        if path.as_os_str() == "-" {
            Self::Stdin
        } else {
            Self::Path(path)
        }
    }
}

impl From<&str> for Input {
    fn from(path: &str) -> Self {
        PathBuf::from(path).into()
    }
}

/// The text of one record of ECR, or of an `EventBridge` event, and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The file; `-` for standard input.
    pub path: &'a Path,
    /// Which record of the file this is, counted from 0 over all of its records.
    pub index: u64,
    /// The record, one JSON object.
    pub text: &'a [u8],
}

/// Takes the records of ECR. Which sink gets which record depends on the threads' timing, so what
/// is gathered must not depend on it.
pub trait Sink: Send {
    /// Takes one record.
    fn record(&mut self, record: Record<'_>);
    /// Takes an `EventBridge` event that carries no record, such as ECR's own: it counts as skipped.
    fn notice(&mut self, event: Record<'_>) {
        let _ = event;
    }
}

impl<F: FnMut(Record<'_>) + Send> Sink for F {
    fn record(&mut self, record: Record<'_>) {
        self(record);
    }
}

/// How far reading has come, for whoever shows it meanwhile.
#[derive(Debug, Default)]
pub struct Progress {
    files: AtomicU64,
    bytes: AtomicU64,
    records: AtomicU64,
}

impl Progress {
    /// Files read.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }
    /// Bytes read from files, as they lie there: compressed ones where they are compressed.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
    /// Records read, of every service.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}

/// What was read. The same for the same input, whatever the number and timing of threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files opened, standard input among them.
    pub files: u64,
    /// Records of every service.
    pub records: u64,
    /// Records of ECR: what the sinks were given.
    pub ecr_records: u64,
    /// Documents that are no records but are known: digest files, other `EventBridge` events.
    pub skipped: u64,
    /// What could not be read, by path and record; the first [`MAX_ERRORS`].
    pub errors: Vec<InputError>,
    /// How many errors there were.
    pub error_count: u64,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InputError {
    /// The file; `-` for standard input.
    pub path: PathBuf,
    /// The record of the file, counted from 0, where it is about one.
    pub record: Option<u64>,
    /// What is wrong, in words; bounded, and never text out of the file.
    pub reason: String,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if let Some(record) = self.record {
            write!(f, "record {record}: ")?;
        }
        f.write_str(&self.reason)
    }
}

/// Reads every input, on one thread for each sink.
///
/// An empty `sinks` reads nothing.
pub fn read<S: Sink>(inputs: &[Input], sinks: &mut [S], progress: &Progress) -> Report {
    let walk = walk::Walk::new(inputs);
    let threads = sinks.len();
    let work = |sink| reader::Worker::new(&walk, sink, progress, threads).run();
    let mut reports: Vec<Report> = if let [sink] = sinks {
        vec![work(sink)]
    } else {
        std::thread::scope(|scope| {
            let workers: Vec<_> = sinks
                .iter_mut()
                .map(|sink| scope.spawn(|| work(sink)))
                .collect();
            workers
                .into_iter()
                .map(|worker| {
                    worker
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect()
        })
    };
    let mut total = reports.pop().unwrap_or_default();
    for report in reports {
        total.merge(report);
    }
    total.errors.sort();
    total.errors.truncate(MAX_ERRORS);
    total
}

impl Report {
    fn error(&mut self, error: InputError) {
        self.error_count += 1;
        self.errors.push(error);
        // The smallest are kept, so that which ones these are depends on the input alone.
        if self.errors.len() >= 2 * MAX_ERRORS {
            self.errors.sort();
            self.errors.truncate(MAX_ERRORS);
        }
    }

    fn merge(&mut self, other: Self) {
        let Self {
            files,
            records,
            ecr_records,
            skipped,
            errors,
            error_count,
        } = other;
        self.files += files;
        self.records += records;
        self.ecr_records += ecr_records;
        self.skipped += skipped;
        self.errors.extend(errors);
        self.error_count += error_count;
    }
}

#[cfg(test)]
mod tests;
