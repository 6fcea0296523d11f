//! A ledger that cannot be used says why, and loses nothing.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use ecr_audit::ledger::{Ledger, LedgerError, SCHEMA_VERSION};
use sqlx::Connection as _;
use tempfile::TempDir;

use crate::crashes::{child, childs_ledger};
use crate::database::{Database, on_both};
use crate::story;

on_both! {
    a_ledger_that_a_newer_version_made_unreadable_is_refused,
    a_ledger_to_which_a_newer_version_only_added_is_used,
    a_program_of_this_version_keeps_working_while_a_newer_one_adds_to_the_schema,
}

pub(crate) async fn execute(database: &Database, statement: &'static str) {
    sqlx::any::install_default_drivers();
    let url = if database.url.starts_with("postgres") {
        database.url.clone()
    } else {
        format!("sqlite:{}", database.url)
    };
    let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(statement)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

async fn a_ledger_that_a_newer_version_made_unreadable_is_refused(database: Database) {
    database.open().await.close().await;
    execute(
        &database,
        "UPDATE schema_version SET version = 99, needs = 98",
    )
    .await;
    let error = Ledger::open(&database.url).await.unwrap_err();
    assert_eq!(error.category(), "NewerVersion");
    let message = error.to_string();
    assert!(
        message.contains("99") && message.contains("98"),
        "{message}"
    );
}

async fn a_ledger_to_which_a_newer_version_only_added_is_used(database: Database) {
    let ledger = database.open().await;
    story::append(&ledger, 0).await.unwrap();
    ledger.close().await;
    execute(&database, "UPDATE schema_version SET version = 99").await;
    let ledger = database.open().await;
    story::append(&ledger, 1).await.unwrap();
    story::assert_holds_exactly(&ledger, 2).await;
}

async fn a_program_of_this_version_keeps_working_while_a_newer_one_adds_to_the_schema(
    database: Database,
) {
    let ledger = database.open().await;
    story::append(&ledger, 0).await.unwrap();
    for statement in [
        "ALTER TABLE pulls ADD COLUMN note TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE changes ADD COLUMN note TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE callers ADD COLUMN note TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX newer ON changes (name)",
    ] {
        execute(&database, statement).await;
    }
    for number in 1..4 {
        story::append(&ledger, number).await.unwrap();
    }
    story::assert_holds_exactly(&ledger, 4).await;
    assert_eq!(SCHEMA_VERSION, 3);
}

async fn category_of_opening(url: &str) -> &'static str {
    Ledger::open(url).await.unwrap_err().category()
}

#[tokio::test]
async fn a_text_that_names_no_ledger_is_refused_without_being_repeated() {
    for text in ["", "mysql://u:secret@h/db", "sqlite://"] {
        let error = Ledger::open(text).await.unwrap_err();
        assert_eq!(error.category(), "InvalidAddress", "{text}");
        assert!(!error.to_string().contains("secret"));
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let url = "postgres://nobody:secret@127.0.0.1:1/nothing";
    let error = Ledger::open(url).await.unwrap_err();
    assert_eq!(error.category(), "Unavailable");
    assert!(!error.to_string().contains("secret"));
}

#[tokio::test]
async fn a_path_with_marks_of_a_url_is_a_path() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("50%? of #1.db");
    let ledger = Ledger::open(path.to_str().unwrap()).await.unwrap();
    story::append(&ledger, 0).await.unwrap();
    ledger.close().await;
    assert!(path.exists());
}

#[tokio::test]
async fn a_folder_that_is_not_there_cannot_be_opened() {
    assert_eq!(
        category_of_opening("/nowhere/ledger.db").await,
        "CannotOpen"
    );
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ledger.db");
    let text = "not a database\n".repeat(1000);
    fs::write(&path, &text).unwrap();
    assert_eq!(category_of_opening(path.to_str().unwrap()).await, "Corrupt");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_damaged_file_is_an_error_and_never_an_empty_answer() {
    let database = Database::sqlite();
    let ledger = database.open().await;
    for number in 0..40 {
        story::append(&ledger, number).await.unwrap();
    }
    ledger.close().await;
    let file = OpenOptions::new().write(true).open(&database.url).unwrap();
    let length = file.metadata().unwrap().len();
    // Every page but the first two, as a failing disk might leave them.
    let garbage = vec![0xa5; usize::try_from(length).unwrap() - 8192];
    file.write_all_at(&garbage, 8192).unwrap();
    let error = match Ledger::open(&database.url).await {
        Err(error) => error,
        Ok(ledger) => story::append(&ledger, 40).await.unwrap_err(),
    };
    assert_eq!(error.category(), "Corrupt", "{error}");
}

/// Opens the ledger, appends pages until that fails, and says how that ended.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of other tests, which start it as a process with less rights or room"]
async fn child_that_appends_until_it_fails() {
    let run = async || -> Result<(), LedgerError> {
        let ledger = Ledger::open(&childs_ledger()).await?;
        let first = story::pages_covered(&ledger).await;
        for number in first..first + 2_000 {
            story::append(&ledger, number).await?;
            println!("stored {}", number + 1);
        }
        Ok(())
    };
    match run().await {
        Ok(()) => println!("ended Fine"),
        Err(error) => println!("ended {} {error}", error.category()),
    }
}

/// How many pages a child stored, and the category of what stopped it.
fn outcome(mut command: Command) -> (u32, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = |prefix: &str| {
        text.lines()
            .filter_map(|line| line.split_once(prefix)?.1.split(' ').next())
            .next_back()
            .map(ToOwned::to_owned)
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    let ended = last("ended ").unwrap_or_else(|| panic!("{}: {text}{errors}", output.status));
    (
        last("stored ").map_or(0, |pages| pages.parse().unwrap()),
        ended,
    )
}

/// Root may write everything; without its capabilities it is bound like anybody else.
fn without_privileges(command: &Command) -> Command {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return wrapped("env", &[], command);
    }
    wrapped(
        "setpriv",
        &["--bounding-set=-all", "--inh-caps=-all"],
        command,
    )
}

/// A command that is run by another one.
fn wrapped(program: &str, arguments: &[&str], command: &Command) -> Command {
    let mut outer = Command::new(program);
    outer
        .args(arguments)
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        outer.env(name, value.unwrap());
    }
    outer
}

fn appender(url: &str) -> Command {
    child("faults::child_that_appends_until_it_fails", url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_may_not_be_written_says_so() {
    let database = Database::sqlite();
    let ledger = database.open().await;
    story::append(&ledger, 0).await.unwrap();
    ledger.close().await;
    let file = Path::new(&database.url);
    let folder = file.parent().unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(folder, Permissions::from_mode(0o555)).unwrap();
    let (stored, ended) = outcome(without_privileges(&appender(&database.url)));
    assert_eq!((stored, ended.as_str()), (0, "ReadOnly"));

    // A new file in such a folder.
    let new = folder.join("new.db").display().to_string();
    let (_, ended) = outcome(without_privileges(&appender(&new)));
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    assert_eq!(ended, "CannotOpen");
    let ledger = database.open().await;
    story::assert_holds_exactly(&ledger, 1).await;
}

/// A child with little room ends with an error, and everything before that is there.
async fn runs_out_of_room(url: &str, command: Command, expected: &str) {
    let (stored, ended) = tokio::task::spawn_blocking(|| outcome(command))
        .await
        .unwrap();
    assert_eq!(ended, expected);
    assert!(stored > 0);
    let ledger = Ledger::open(url).await.unwrap();
    assert_eq!(story::pages_covered(&ledger).await, stored);
    story::assert_holds_exactly(&ledger, stored).await;
    ledger.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_the_files_size_stops_appends_and_loses_nothing() {
    let database = Database::sqlite();
    let command = appender(&database.url);
    // 512 blocks of 512 or 1,024 bytes; the signal would end the process before any error could.
    let limit = "trap '' XFSZ; ulimit -f 512; exec \"$0\" \"$@\"";
    let command = wrapped("sh", &["-c", limit], &command);
    runs_out_of_room(&database.url, command, "IoError").await;
    // With room again it goes on.
    let ledger = database.open().await;
    let pages = story::pages_covered(&ledger).await;
    story::append(&ledger, pages).await.unwrap();
    story::assert_holds_exactly(&ledger, pages + 1).await;
}

/// Where mounting is allowed (as root), on a disk that is really full.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_appends_and_loses_nothing() {
    on_a_small_disk(async |url| {
        let command = appender(&url);
        runs_out_of_room(&url, command, "DiskFull").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_full_disk_has_room_again_the_same_process_goes_on() {
    on_a_small_disk(async |url| {
        let ledger = Ledger::open(&url).await.unwrap();
        story::append(&ledger, 0).await.unwrap();
        let ballast = Path::new(&url).with_file_name("ballast");
        // As much as there is room for.
        let _ = fs::write(&ballast, vec![0; 2 << 20]);
        let mut page = 1;
        let error = loop {
            match story::append(&ledger, page).await {
                Ok(()) => page += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.category(), "DiskFull", "{error}");
        fs::remove_file(&ballast).unwrap();
        // Again and again: no connection of the pool may have stayed behind.
        for page in page..page + 8 {
            story::append(&ledger, page).await.unwrap();
        }
        story::assert_holds_exactly(&ledger, page + 8).await;
        ledger.close().await;
    })
    .await;
}

/// Runs a test with the path of a ledger on a disk of one megabyte.
async fn on_a_small_disk(test: impl AsyncFnOnce(String)) {
    let folder = TempDir::new().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(folder.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("not allowed to mount a small disk: only the limit on a file's size is tested");
        return;
    }
    let url = folder.path().join("ledger.db").display().to_string();
    let test = test(url);
    let result = tokio::time::timeout(std::time::Duration::from_mins(1), test).await;
    let unmounted = Command::new("umount").arg("-l").arg(folder.path()).status();
    assert!(unmounted.unwrap().success());
    result.expect("a minute is enough to fill a megabyte");
}
