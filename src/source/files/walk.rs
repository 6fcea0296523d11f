//! Which files there are: a walk through folders that holds one folder's names at a time.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Input, fault::Fault};

/// The files below all inputs, handed out one by one to whichever thread asks. Nothing is listed
/// in advance: a bucket's copy may have more names than memory should hold.
pub(super) struct Walk {
    state: Mutex<State>,
}

struct State {
    /// Not begun, the next one last.
    inputs: Vec<Input>,
    /// Folders that are being read, the innermost last.
    open: Vec<(PathBuf, fs::ReadDir)>,
    /// Folders below this input: each is read once, so that links in a circle end.
    seen: HashSet<Identity>,
}

/// Something to read, or why it cannot be.
pub(super) type Found = Result<Input, (PathBuf, io::Error)>;

impl Walk {
    pub(super) fn new(inputs: &[Input]) -> Self {
        let state = State {
            inputs: inputs.iter().rev().cloned().collect(),
            open: Vec::new(),
            seen: HashSet::new(),
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// The next file; none when all were handed out.
    pub(super) fn next(&self) -> Option<Found> {
        self.lock().next()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each step leaves the state whole, so a thread that panicked elsewhere does no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self) -> Option<Found> {
        loop {
            let Some((folder, entries)) = self.open.last_mut() else {
                match self.inputs.pop()? {
                    Input::Stdin => return Some(Ok(Input::Stdin)),
                    Input::Path(path) => {
                        self.seen.clear();
                        match fs::metadata(&path) {
                            Ok(meta) if meta.is_dir() => {
                                if let Err(error) = self.enter(&path) {
                                    return Some(Err((path, error)));
                                }
                            }
                            Ok(_) => return Some(Ok(Input::Path(path))),
                            Err(error) => return Some(Err((path, error))),
                        }
                    }
                }
                continue;
            };
            let entry = match entries.next() {
                Some(Ok(entry)) => entry,
                Some(Err(error)) => return Some(Err((folder.clone(), error))),
                None => {
                    self.open.pop();
                    continue;
                }
            };
            let path = entry.path();
            match kind(&entry, &path) {
                Ok(Kind::File) => return Some(Ok(Input::Path(path))),
                Ok(Kind::Folder) => {
                    if let Err(error) = self.enter(&path) {
                        return Some(Err((path, error)));
                    }
                }
                Err(error) => return Some(Err((path, error))),
            }
        }
    }

    fn enter(&mut self, path: &Path) -> io::Result<()> {
        if self.seen.insert(identity(path)?) {
            let entries = fs::read_dir(path)?;
            self.open.push((path.to_owned(), entries));
        }
        Ok(())
    }
}

enum Kind {
    File,
    Folder,
}

/// Links are followed. A pipe or a device in a folder is an error: reading it could wait for ever.
fn kind(entry: &fs::DirEntry, path: &Path) -> io::Result<Kind> {
    let mut kind = entry.file_type()?;
    if kind.is_symlink() {
        kind = fs::metadata(path)?.file_type();
    }
    if kind.is_dir() {
        Ok(Kind::Folder)
    } else if kind.is_file() {
        Ok(Kind::File)
    } else {
        Err(io::Error::other(Fault::NoFile))
    }
}

#[cfg(unix)]
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(path: &Path) -> io::Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

#[cfg(not(unix))]
type Identity = PathBuf;

#[cfg(not(unix))]
fn identity(path: &Path) -> io::Result<Identity> {
    fs::canonicalize(path)
}
