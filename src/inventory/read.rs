//! The file reader: what `kubectl get … -o json` wrote → the index, object by object.
//!
//! Takes a List of pods, nodes and namespaces (mixed, too), single objects, arrays, and any number
//! of these one after the other (JSON lines). Memory is bounded by the longest single object.

use std::{fmt, io::Read};

use serde::de::DeserializeOwned;

use super::{
    Index, Kind, Namespace, Node, Pod,
    split::{MAX_VALUE, Place, SplitError, Window},
};

/// How many objects of each kind an input held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pods, those that run nothing of ECR and finished ones, too.
    pub pods: u64,
    /// Nodes.
    pub nodes: u64,
    /// Namespaces.
    pub namespaces: u64,
    /// Objects of other kinds, which are skipped.
    pub others: u64,
}

/// Why an input could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Reading failed.
    #[error("{name}: {error}")]
    Io {
        /// The input, as the user named it.
        name: String,
        /// The system's error.
        #[source]
        error: std::io::Error,
    },
    /// The text is not what was expected.
    #[error("{name}:{line}:{column}: {problem}")]
    Malformed {
        /// The input, as the user named it.
        name: String,
        /// Line, from 1.
        line: u64,
        /// Column in bytes, from 1.
        column: u64,
        /// The field, what was found there and what was expected.
        problem: String,
    },
    /// The input has not a single object.
    #[error("{name}: is empty; expected the output of `kubectl get … -o json`")]
    Empty {
        /// The input, as the user named it.
        name: String,
    },
}

/// Lists within lists, deeper than anything that people write.
const MAX_DEPTH: usize = 8;

/// Longest problem that is told; part of it is the input's own text.
const MAX_PROBLEM: usize = 300;

/// Reads every object of an input into the index. `name` is for messages.
///
/// # Errors
/// [`ReadError`] on the first thing that cannot be read; what came before it is in the index.
pub fn read(name: &str, input: impl Read, index: &mut Index) -> Result<Counts, ReadError> {
    let mut reader = Reader {
        window: Window::new(input),
        index,
        counts: Counts::default(),
        path: Path::default(),
    };
    let read = reader.documents();
    let counts = reader.counts;
    let name = || name.to_owned();
    match read {
        Ok(true) => Ok(counts),
        Ok(false) => Err(ReadError::Empty { name: name() }),
        Err(Problem::Read(error)) => Err(ReadError::Io {
            name: name(),
            error,
        }),
        Err(Problem::At(Place { line, column }, problem)) => Err(ReadError::Malformed {
            name: name(),
            line,
            column,
            problem: printable(&problem),
        }),
    }
}

/// Control characters escaped, and cut off at a length: the text may come from the input.
fn printable(problem: &str) -> String {
    let mut text: String = problem
        .chars()
        .take(MAX_PROBLEM)
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = (!c.is_control()).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect();
    if problem.chars().nth(MAX_PROBLEM).is_some() {
        text.push('…');
    }
    text
}

enum Problem {
    Read(std::io::Error),
    At(Place, String),
}

/// Where in the document the reader is.
#[derive(Default)]
struct Path(Vec<Step>);

enum Step {
    Items,
    Index(u64),
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            match step {
                Step::Items if n == 0 => f.write_str("items")?,
                Step::Items => f.write_str(".items")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

struct Reader<'a, R> {
    window: Window<R>,
    index: &'a mut Index,
    counts: Counts,
    path: Path,
}

impl<R: Read> Reader<'_, R> {
    /// Reads one document after the other. Says whether there was any.
    fn documents(&mut self) -> Result<bool, Problem> {
        // What Windows tools put before UTF-8.
        if self.peek(0)?.is_some_and(|(byte, _)| byte == 0xef) {
            let end = self.value_end(0)?.min(3);
            if self.window.text(0, end) == b"\xef\xbb\xbf" {
                self.window.consume(end);
            }
        }
        let mut any = false;
        while let Some((_, offset)) = self.peek(0)? {
            self.window.consume(offset);
            self.value(None, 0)?;
            any = true;
        }
        Ok(any)
    }

    /// Reads the object or list that begins here, and consumes it. `kind` is what the list says
    /// that its items are: those of an API answer do not say it themselves.
    fn value(&mut self, kind: Option<&str>, depth: usize) -> Result<(), Problem> {
        match self.peek(0)? {
            Some((b'{', _)) if depth < MAX_DEPTH => self.object(kind, depth),
            Some((b'[', _)) if depth < MAX_DEPTH => self.items(kind, depth),
            Some((b'{' | b'[', _)) => Err(self.problem(0, "expected no more lists within lists")),
            _ => Err(self.problem(0, "expected an object, or a list of objects")),
        }
    }

    /// Reads the items of the array that begins here.
    fn items(&mut self, kind: Option<&str>, depth: usize) -> Result<(), Problem> {
        self.window.consume(1);
        let mut index = 0;
        loop {
            let (byte, offset) = self.expect(0)?;
            self.window.consume(offset);
            if byte == b']' && index == 0 {
                break;
            }
            self.path.0.push(Step::Index(index));
            self.value(kind, depth + 1)?;
            self.path.0.pop();
            index += 1;
            match self.expect(0)? {
                (b',', offset) => self.window.consume(offset + 1),
                (b']', offset) => {
                    self.window.consume(offset);
                    break;
                }
                (_, offset) => return Err(self.problem(offset, "expected `,` or `]`")),
            }
        }
        self.window.consume(1);
        Ok(())
    }

    /// Reads the object that begins here. It is kept in the window until it ends, or turns out to
    /// be a list.
    fn object(&mut self, list_kind: Option<&str>, depth: usize) -> Result<(), Problem> {
        let mut kind = None;
        let mut is_list = false;
        // Behind the opening brace or the last comma; counts from the last consumed byte.
        let mut offset = 1;
        let mut first = true;
        loop {
            let (byte, key) = self.expect(offset)?;
            if byte == b'}' && first {
                offset = key + 1;
                break;
            }
            first = false;
            if byte != b'"' {
                return Err(self.problem(key, "expected a key in quotes"));
            }
            let key_end = self.value_end(key)?;
            let (colon, at) = self.expect(key_end)?;
            if colon != b':' {
                return Err(self.problem(at, "expected `:`"));
            }
            let (byte, value) = self.expect(at + 1)?;
            let end = match self.window.text(key, key_end) {
                br#""items""# if byte == b'[' => {
                    is_list = true;
                    self.window.consume(value);
                    self.path.0.push(Step::Items);
                    let item = kind
                        .as_deref()
                        .and_then(|kind: &str| kind.strip_suffix("List"));
                    self.items(item.filter(|kind| !kind.is_empty()), depth + 1)?;
                    self.path.0.pop();
                    0
                }
                br#""kind""# => {
                    let end = self.value_end(value)?;
                    kind = Some(self.decode::<String>(value, end, Some("kind"))?);
                    end
                }
                _ => self.value_end(value)?,
            };
            match self.expect(end)? {
                (b',', at) => offset = at + 1,
                (b'}', at) => {
                    offset = at + 1;
                    break;
                }
                (_, at) => return Err(self.problem(at, "expected `,` or `}`")),
            }
        }
        if !is_list {
            self.one(kind.as_deref().or(list_kind), offset)?;
        }
        self.window.consume(offset);
        Ok(())
    }

    /// Decodes the object that lies between here and `end`.
    fn one(&mut self, kind: Option<&str>, end: usize) -> Result<(), Problem> {
        match kind {
            Some("Pod") => {
                let pod: Pod = self.decode(0, end, None)?;
                self.index.apply_pod(&pod);
                self.counts.pods += 1;
            }
            Some("Node") => {
                let node: Node = self.decode(0, end, None)?;
                self.index.apply_node(&node);
                self.counts.nodes += 1;
            }
            Some("Namespace") => {
                let namespace: Namespace = self.decode(0, end, None)?;
                self.index.apply_namespace(&namespace);
                self.counts.namespaces += 1;
            }
            Some("List" | "PodList" | "NodeList" | "NamespaceList") => {
                return Err(self.problem(0, "expected `items`, an array"));
            }
            Some(_) => {
                let _: serde::de::IgnoredAny = self.decode(0, end, None)?;
                self.counts.others += 1;
            }
            None => {
                let message = format!(
                    "expected a `kind`: {}, or a list of these",
                    Kind::ALL.map(Kind::as_str).join(", ")
                );
                return Err(self.problem(0, &message));
            }
        }
        Ok(())
    }

    /// Decodes what lies between two offsets; `field` is its name, when it is not the object itself.
    fn decode<T: DeserializeOwned>(
        &self,
        from: usize,
        end: usize,
        field: Option<&str>,
    ) -> Result<T, Problem> {
        let text = self.window.text(from, end);
        serde_json::from_slice(text).map_err(|error| {
            // Once more, slowly, to learn the field.
            let mut json = serde_json::Deserializer::from_slice(text);
            let path = serde_path_to_error::deserialize::<_, T>(&mut json)
                .err()
                .map(|error| error.path().to_string())
                .filter(|path| path != ".");
            let path: Vec<String> = [
                Some(self.path.to_string()).filter(|path| !path.is_empty()),
                field.map(str::to_owned),
                path,
            ]
            .into_iter()
            .flatten()
            .collect();
            let mut place = self.window.place(from);
            let (line, column) = (error.line() as u64, error.column() as u64);
            place.column = match line {
                0 | 1 => place.column + column.saturating_sub(1),
                _ => column,
            };
            place.line += line.saturating_sub(1);
            Problem::At(place, describe(&path.join("."), &error))
        })
    }

    fn peek(&mut self, offset: usize) -> Result<Option<(u8, usize)>, Problem> {
        match self.window.peek(offset) {
            Ok(found) => Ok(found),
            Err(error) => Err(self.split(error)),
        }
    }

    fn expect(&mut self, offset: usize) -> Result<(u8, usize), Problem> {
        match self.peek(offset)? {
            Some(found) => Ok(found),
            None => Err(self.split(SplitError::Ends)),
        }
    }

    fn value_end(&mut self, offset: usize) -> Result<usize, Problem> {
        match self.window.value_end(offset) {
            Ok(end) => Ok(end),
            Err(error) => Err(self.split(error)),
        }
    }

    fn split(&self, error: SplitError) -> Problem {
        match error {
            SplitError::Read(error) => Problem::Read(error),
            SplitError::Ends => {
                let place = self.window.place(usize::MAX);
                Problem::At(place, self.located("the input ends before its JSON does"))
            }
            SplitError::TooLong => {
                let message = format!("a single object is longer than {} MiB", MAX_VALUE >> 20);
                self.problem(0, &message)
            }
        }
    }

    fn problem(&self, offset: usize, message: &str) -> Problem {
        Problem::At(self.window.place(offset), self.located(message))
    }

    fn located(&self, message: &str) -> String {
        match self.path.to_string() {
            path if path.is_empty() => message.to_owned(),
            path => format!("{path}: {message}"),
        }
    }
}

/// `serde_json`'s message with the field before it, without the place that it counts in its own
/// way, and with the words of JSON instead of Rust's.
fn describe(path: &str, error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(message, _)| message)
        .replace("expected a sequence", "expected an array")
        .replace("invalid type: sequence", "invalid type: array")
        .replace("expected a map", "expected an object")
        .replace("invalid type: map", "invalid type: object");
    if path.is_empty() {
        message
    } else {
        format!("{path}: {message}")
    }
}
