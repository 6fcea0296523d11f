//! A PostgreSQL server that several processes share: its TLS, its passwords, its network, and what
//! the processes hear of each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ecr_audit::ledger::{Cursor, Ledger, LedgerError};
use sqlx::Connection as _;
use tempfile::TempDir;

use crate::database::Database;
use crate::record::{Record, page};
use crate::story;
use crate::support::{Postgres, Proxy, eventually};

/// A database of the user `audit`, and its URL but for the options.
async fn audits_database(server: &Postgres) -> String {
    let url = server.database().await;
    let (_, name) = url.rsplit_once('/').unwrap();
    server
        .execute(&format!("ALTER DATABASE {name} OWNER TO audit"))
        .await;
    let (_, port) = server.address().rsplit_once(':').unwrap();
    format!("postgres://audit@localhost:{port}/{name}")
}

async fn open(url: &str, password: &Path) -> Result<Ledger, LedgerError> {
    Ledger::open_with(url, Some(password.to_owned())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_believed_by_its_certificate_alone() {
    let (server, authority) = Postgres::start_with_tls("first").await;
    let (_other, other_authority) = Postgres::start_with_tls("first").await;
    let folder = TempDir::new().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "first\n").unwrap();
    let url = audits_database(&server).await;
    let verified = |url: &str, authority: &Path| {
        format!(
            "{url}?sslmode=verify-full&sslrootcert={}",
            authority.display()
        )
    };

    let ledger = open(&verified(&url, &authority), &password).await.unwrap();
    story::append(&ledger, 0).await.unwrap();
    story::assert_holds_exactly(&ledger, 1).await;

    // Vouched for by another authority; under another name; without TLS.
    let wrong = verified(&url, &other_authority);
    let unnamed = verified(&url.replace("localhost", "127.0.0.1"), &authority);
    for refused in [wrong, unnamed] {
        let error = open(&refused, &password).await.unwrap_err();
        assert_eq!(error.category(), "Unavailable", "{error}");
    }
    let plain = format!("{url}?sslmode=disable");
    let error = open(&plain, &password).await.unwrap_err();
    assert_eq!(error.category(), "AccessDenied", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_changes_is_read_again() {
    let (server, authority) = Postgres::start_with_tls("first").await;
    let folder = TempDir::new().unwrap();
    let password = folder.path().join("password");
    let url = audits_database(&server).await;
    let url = format!(
        "{url}?sslmode=verify-full&sslrootcert={}",
        authority.display()
    );
    let error = open(&url, &password).await.unwrap_err();
    assert_eq!(error.category(), "PasswordFile", "{error}");
    fs::write(&password, "first").unwrap();
    let ledger = open(&url, &password).await.unwrap();
    story::append(&ledger, 0).await.unwrap();

    // What a URL would take for something else is a password like any other.
    let changed = "s@cond/#?%41:";
    server
        .execute(&format!("ALTER USER audit PASSWORD '{changed}'"))
        .await;
    server
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'audit'")
        .await;
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        if let Err(error) = story::append(&ledger, 1).await {
            assert!(!error.to_string().contains("first"), "{error}");
            seen.insert(error.category());
        }
    }
    assert!(seen.contains("AccessDenied"), "{seen:?}");
    fs::write(&password, changed).unwrap();
    eventually("the new password", Duration::from_secs(30), async || {
        story::append(&ledger, 1).await
    })
    .await;
    story::assert_holds_exactly(&ledger, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_lets_nothing_through_is_not_waited_for_for_ever() {
    let server = Postgres::start().await;
    let url = server.database().await;
    let proxy = Proxy::before(server.address()).await;
    let url = url.replace(server.address(), &proxy.address().to_string());
    let ledger = Ledger::open(&url).await.unwrap();
    story::append(&ledger, 0).await.unwrap();
    proxy.stall();
    let began = Instant::now();
    let error = story::append(&ledger, 1).await.unwrap_err();
    assert_eq!(error.category(), "Unavailable", "{error}");
    assert!(began.elapsed() < Duration::from_secs(70));
    proxy.heal();
    eventually("the network", Duration::from_mins(1), async || {
        story::append(&ledger, 1).await
    })
    .await;
    story::assert_holds_exactly(&ledger, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_whose_number_becomes_visible_late_is_heard_of() {
    let database = Database::postgres().await;
    let ledger = database.open().await;
    let mut connection = sqlx::AnyConnection::connect(&database.url).await.unwrap();
    // Another process takes a number, and takes its time.
    let mut transaction = connection.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO callers (digest, principal, type, account, service, session, arn)
         VALUES ('late', 'late', '', '', '', '', '')",
    )
    .execute(&mut *transaction)
    .await
    .unwrap();
    let pull = Record::pull(1, 5).event();
    ledger.append(&page(&[pull])).await.unwrap();
    let mut cursor = Cursor::default();
    let seen = async |cursor: &mut Cursor| -> Vec<String> {
        let callers = ledger.new_callers(cursor).await.unwrap();
        let keys = callers
            .iter()
            .map(|(_, caller)| caller.principal.key.to_string());
        keys.collect()
    };
    assert_eq!(
        seen(&mut cursor).await,
        ["arn:aws:iam::111122223333:role/node"]
    );
    transaction.commit().await.unwrap();
    assert_eq!(seen(&mut cursor).await, ["late"]);
    assert!(seen(&mut cursor).await.is_empty());
}
