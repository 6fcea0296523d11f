//! What can go wrong with the ledger, told apart as an operator of it needs to.

use sqlx::error::DatabaseError;

/// A ledger that cannot be opened, read or written. Nothing of a page whose append failed is
/// stored; the same page can be appended again.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The text that names the ledger is neither a path nor a URL that is understood.
    #[error("not a ledger: {reason} (expected a file, sqlite://FILE or postgres://…)")]
    Address {
        /// What is wrong with it, without the text itself, which may hold a password.
        reason: String,
    },
    /// The file that holds the password cannot be read.
    #[error("the ledger's password file {file} cannot be read: {reason}")]
    PasswordFile {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// The database did not answer in time; what it was asked may have been done or not.
    #[error("the ledger cannot be reached: no answer within {0} s")]
    Silent(u64),
    /// A newer version of this program made the ledger, and this one would misread it.
    #[error(
        "the ledger has schema version {found} and needs a program that knows version {needed}; \
         this one knows {known}"
    )]
    NewerVersion {
        /// The schema's version.
        found: i64,
        /// The oldest version of the schema that a program must know to work with it.
        needed: i64,
        /// What this program knows.
        known: i64,
    },
    /// The file, its folder or the database may not be written.
    #[error("the ledger is read-only, or its folder is: {0}")]
    ReadOnly(#[source] sqlx::Error),
    /// There is no room left.
    #[error("the ledger's disk is full: {0}")]
    DiskFull(#[source] sqlx::Error),
    /// The disk, or the limit on a file's size, refuses to take or give data.
    #[error("the ledger's disk fails: {0}")]
    Io(#[source] sqlx::Error),
    /// The file is no database, or a damaged one.
    #[error("the ledger is damaged, or not a ledger: {0}")]
    Corrupt(#[source] sqlx::Error),
    /// Another process holds the ledger, or two writers collided: worth trying again.
    #[error("the ledger is locked: {0}")]
    Locked(#[source] sqlx::Error),
    /// The file cannot be opened.
    #[error("the ledger's file cannot be opened or created: {0}")]
    CannotOpen(#[source] sqlx::Error),
    /// The server refuses these credentials, or they lack a privilege.
    #[error("the ledger's server denies access: {0}")]
    AccessDenied(#[source] sqlx::Error),
    /// The server cannot be reached, or the connection broke.
    #[error("the ledger cannot be reached: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// A stored fact that cannot be read back.
    #[error("a stored {what} cannot be read: {reason}")]
    Unreadable {
        /// Which kind of row.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// Any other error of the database.
    #[error("ledger: {0}")]
    Database(#[source] sqlx::Error),
}

impl LedgerError {
    /// A bounded word for conditions and metrics.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Address { .. } => "InvalidAddress",
            Self::PasswordFile { .. } => "PasswordFile",
            Self::NewerVersion { .. } => "NewerVersion",
            Self::ReadOnly(_) => "ReadOnly",
            Self::DiskFull(_) => "DiskFull",
            Self::Io(_) => "IoError",
            Self::Corrupt(_) => "Corrupt",
            Self::Locked(_) => "Locked",
            Self::CannotOpen(_) => "CannotOpen",
            Self::AccessDenied(_) => "AccessDenied",
            Self::Unavailable(_) | Self::Silent(_) => "Unavailable",
            Self::Unreadable { .. } => "Unreadable",
            Self::Database(_) => "DatabaseError",
        }
    }

    /// Whether the same call may succeed a moment later, with nobody's help.
    pub const fn is_collision(&self) -> bool {
        matches!(self, Self::Locked(_))
    }
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        let classify: fn(sqlx::Error) -> Self = match &error {
            sqlx::Error::Database(database) => classify_database(database.as_ref()),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable,
            _ => Self::Database,
        };
        classify(error)
    }
}

/// SQLite's codes are decimal result codes (<https://www.sqlite.org/rescode.html>), PostgreSQL's
/// five-character `SQLSTATE`s (its manual's appendix A).
fn classify_database(error: &dyn DatabaseError) -> fn(sqlx::Error) -> LedgerError {
    let code = error.code().unwrap_or_default();
    if code.len() == 5 {
        return classify_sqlstate(&code);
    }
    let Ok(code) = code.parse::<u32>() else {
        return LedgerError::Database;
    };
    // The low byte is the primary code.
    match code & 0xff {
        5 | 6 => LedgerError::Locked,
        8 | 3 => LedgerError::ReadOnly,
        10 => LedgerError::Io,
        13 => LedgerError::DiskFull,
        11 | 26 => LedgerError::Corrupt,
        14 => LedgerError::CannotOpen,
        _ => LedgerError::Database,
    }
}

fn classify_sqlstate(state: &str) -> fn(sqlx::Error) -> LedgerError {
    match state {
        "40001" | "40P01" | "55P03" => LedgerError::Locked,
        "25006" => LedgerError::ReadOnly,
        "53100" => LedgerError::DiskFull,
        "58030" => LedgerError::Io,
        "42501" => LedgerError::AccessDenied,
        "XX001" | "XX002" => LedgerError::Corrupt,
        "3D000" => LedgerError::CannotOpen,
        _ if state.starts_with("28") => LedgerError::AccessDenied,
        _ if state.starts_with("08") || state.starts_with("57P") || state.starts_with("53") => {
            LedgerError::Unavailable
        }
        _ => LedgerError::Database,
    }
}
