//! The programs tests run: where they are, and how one is run to its end.
//!
//! `tests/testbed/build.sh` builds them and says where; it is asked once a process and
//! answers at once when there is nothing to build, so `cargo test` alone is enough.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// No program that a test waits for takes longer.
const TIME_LIMIT: Duration = Duration::from_mins(2);

/// The folder with kube-apiserver, etcd, kubectl and helm.
pub fn binaries() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| build("binaries"))
}

/// The same folder, with kube-controller-manager in it.
pub fn binaries_with_controller_manager() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| build("controller-manager"))
}

/// The Python interpreter that has the packages of `tests/requirements.txt`.
pub fn python() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| build("python").join("python"))
}

fn build(part: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testbed/build.sh");
    let output = Command::new(&script)
        .arg(part)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    assert!(
        output.status.success(),
        "{} {part}: {}",
        script.display(),
        output.status
    );
    let printed = String::from_utf8(output.stdout).expect("a path in UTF-8");
    PathBuf::from(printed.lines().last().expect("a folder on the last line"))
}

/// Runs a program to its end, whatever that is. It is killed if it takes two minutes.
pub async fn output(command: Command) -> Output {
    output_given(command, "").await
}

/// The same, with `input` on its standard input.
pub async fn output_given(command: Command, input: &str) -> Output {
    use tokio::io::AsyncWriteExt as _;

    let shown = shown(&command);
    let mut command = tokio::process::Command::from(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    let mut stdin = child.stdin.take().expect("a piped standard input");
    let run = async {
        // A program that does not read its input closes it: its exit code tells more.
        let write = async {
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
        };
        tokio::join!(write, child.wait_with_output()).1
    };
    tokio::time::timeout(TIME_LIMIT, run)
        .await
        .unwrap_or_else(|_| panic!("{shown}: still running after {TIME_LIMIT:?}"))
        .unwrap_or_else(|error| panic!("{shown}: {error}"))
}

/// Runs a program that has to succeed, and returns its standard output.
pub async fn stdout(command: Command) -> String {
    stdout_given(command, "").await
}

/// The same, with `input` on its standard input.
pub async fn stdout_given(command: Command, input: &str) -> String {
    let shown = shown(&command);
    let output = output_given(command, input).await;
    assert!(
        output.status.success(),
        "{shown}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8(output.stdout).expect("output in UTF-8")
}

/// The command line as a person would type it, for failure messages.
fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
