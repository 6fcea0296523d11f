//! Servers that a test starts: each has a log in a folder of its own, and none outlives
//! the test process, however that ends.
//!
//! For the latter a watchdog process holds the read end of a pipe: when nobody can write
//! to it any more, it kills the servers and removes the folder. (A parent-death signal
//! would come too early: when the test *thread* that started a server ends.)

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// Kills what the pid files in the folder `$1` name and removes the folder, once its
/// standard input ends.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
cat > /dev/null
for file in "$1"/*.pid; do
    if [ -f "$file" ]; then kill -KILL "$(cat "$file")"; fi
done
for attempt in 1 2 3 4 5; do
    rm -rf "$1" && break
    sleep 1
done
"#;

/// A temporary folder for servers' data and logs. Drop the servers first.
pub struct Folder {
    path: PathBuf,
    /// Its standard input is the pipe; the end of this process closes it, too.
    watchdog: Child,
}

impl Folder {
    /// A new folder whose name starts with `prefix`.
    pub fn new(prefix: &str) -> Self {
        let path = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir()
            .expect("a temporary folder")
            .keep();
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for the tests: a group of its own keeps it away from here.
            .process_group(0)
            .spawn()
            .expect("a shell");
        Self { path, watchdog }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts a server with its output in `<name>.log`.
    pub fn spawn(&self, name: &str, mut command: Command) -> Server {
        let file = self.path.join(name);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(file.with_extension("log"))
            .expect("a writable folder");
        let child = command
            .current_dir(&self.path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        fs::write(file.with_extension("pid"), child.id().to_string()).expect("a writable folder");
        Server { file, child }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        // It removes the folder; where it cannot, it is only a temporary one.
        let _ = self.watchdog.wait();
    }
}

/// A server that runs until it is stopped or dropped.
pub struct Server {
    /// `<folder>/<name>`, for its log and its process id.
    file: PathBuf,
    child: Child,
}

impl Server {
    /// Kills it: its data is thrown away, or has to survive just that.
    pub fn stop(&mut self) {
        // Without its file first: a process id that nobody holds may be given to another.
        let _ = fs::remove_file(self.file.with_extension("pid"));
        // An error means that it had ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, with the end of its log, if it did.
    pub fn failure(&mut self) -> Option<String> {
        let status: ExitStatus = self.child.try_wait().expect("a child of ours")?;
        let name = self.file.file_name().unwrap_or_default().display();
        Some(format!("{name}: {status}\n{}", self.log_tail()))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Everything that it logged.
    pub fn log(&self) -> String {
        let log = fs::read(self.file.with_extension("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The last lines that it logged.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Ports that nobody listens on, and that differ from one another. Another process may
/// take one before it is used: whoever starts a server on it tries again.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port")
    });
    listeners.map(|listener| listener.local_addr().expect("a bound address").port())
}
