//! The command line: one subcommand for each thing that `ecr-audit` does.
//!
//! Every flag of `run` can be given by an environment variable too, for Deployments.

mod check;
mod cluster;
mod events;
pub mod evidence;
mod input;
pub mod policy;
mod principals;

use std::{
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use check::{CheckArgs, Output, report};
pub use input::InputArgs;
pub use principals::PrincipalsArgs;

use crate::{api, operator};

/// Tells which images that run in a cluster were removed from Amazon ECR, and who pulls and
/// pushes them, from what ECR writes to AWS CloudTrail.
#[derive(Debug, Parser)]
#[command(name = "ecr-audit", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the operator: watches a cluster, reads CloudTrail, judges the policies.
    Run(RunArgs),
    /// Judges files instead of a cluster: trail files, `kubectl get pods -A -o json`, one report.
    Check(CheckArgs),
    /// Lists who pulled and pushed the images that run, or writes the policy that expects them.
    Principals(PrincipalsArgs),
    /// Prints the custom resource definitions, for `kubectl apply -f -`.
    Crd,
}

/// Flags of `ecr-audit run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Where facts and coverage are kept: a file, `sqlite://FILE` or `postgres://…`.
    #[arg(
        long,
        env = "ECR_AUDIT_LEDGER",
        value_name = "FILE|URL",
        default_value = "ecr-audit.db",
        hide_env_values = true
    )]
    pub ledger: String,
    /// File that holds the password of a PostgreSQL ledger. It is read again for new connections.
    #[arg(long, env = "ECR_AUDIT_LEDGER_PASSWORD_FILE", value_name = "FILE")]
    pub ledger_password_file: Option<PathBuf>,
    /// Address of `/healthz`, `/readyz` and `/metrics`.
    #[arg(
        long,
        env = "ECR_AUDIT_LISTEN",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8080"
    )]
    pub listen: SocketAddr,
    /// Requests a second that the Event history is read with, in each account and region. AWS
    /// allows 2, which everybody in the account shares.
    #[arg(
        long,
        env = "ECR_AUDIT_LOOKUPS_PER_SECOND",
        value_name = "RATE",
        default_value_t = 1.0,
        value_parser = lookups_per_second
    )]
    pub lookups_per_second: f64,
    /// Address of the status page, on loopback only: it names every tenant's workloads. Empty: none.
    #[arg(
        long,
        env = "ECR_AUDIT_STATUS_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8081",
        value_parser = status_listen
    )]
    pub status_listen: StatusListen,
    /// Form of the log lines; by default text on a terminal, else JSON. `RUST_LOG` filters them.
    #[arg(long, env = "ECR_AUDIT_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
}

/// Where the status page is served; none: nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusListen(pub Option<SocketAddr>);

/// # Errors
/// When it is no address, or one that others can reach.
fn status_listen(text: &str) -> Result<StatusListen, String> {
    if text.is_empty() {
        return Ok(StatusListen(None));
    }
    let address: SocketAddr = text.parse().map_err(|_| {
        "an address and a port are expected, for example 127.0.0.1:8081, or nothing".to_owned()
    })?;
    if !address.ip().is_loopback() {
        return Err(
            "the status page names every tenant's workloads and is served on loopback only; \
             `kubectl port-forward` reaches it there"
                .to_owned(),
        );
    }
    Ok(StatusListen(Some(address)))
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Lines for people.
    Text,
}

/// Runs the command and says how it ended.
pub fn main(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Run(args) => run(args).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => check::run(&args),
        Command::Principals(args) => principals::run(&args),
        Command::Crd => crd().map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        // A reader that has seen enough (`| head`) is no failure.
        let closed = error
            .downcast_ref::<io::Error>()
            .is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe);
        if closed {
            return ExitCode::SUCCESS;
        }
        // Standard error may be closed as well; there is nobody left to tell then.
        let _ = writeln!(io::stderr(), "ecr-audit: {error:#}");
        ExitCode::from(2)
    })
}

fn run(args: RunArgs) -> anyhow::Result<()> {
    logging(args.log_format);
    runtime()?.block_on(operator::run(operator::Options {
        ledger: args.ledger,
        ledger_password: args.ledger_password_file,
        listen: args.listen,
        lookup_pace: Duration::from_secs_f64(1.0 / args.lookups_per_second),
        status_listen: args.status_listen.0,
    }))?;
    Ok(())
}

fn lookups_per_second(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.05..=100.0).contains(&rate) {
        Ok(rate)
    } else {
        Err("between 0.05 and 100".to_owned())
    }
}

/// Two threads: the work is waiting, and what is not is short.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    // rustls has no provider of its own choice once several are compiled in.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

fn logging(format: Option<LogFormat>) {
    let format = format.unwrap_or(if io::stderr().is_terminal() {
        LogFormat::Text
    } else {
        LogFormat::Json
    });
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).init(),
        LogFormat::Text => lines.init(),
    }
}

fn crd() -> anyhow::Result<()> {
    io::stdout().write_all(api::crds_yaml()?.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_page_is_served_on_loopback_or_nowhere() {
        for address in ["127.0.0.1:8081", "[::1]:8081", "127.8.0.1:0"] {
            let expected = StatusListen(address.parse().ok());
            assert!(expected.0.is_some());
            assert_eq!(status_listen(address), Ok(expected), "{address}");
        }
        assert_eq!(status_listen(""), Ok(StatusListen(None)));
        let others = [
            "0.0.0.0:8081",
            "[::]:8081",
            "10.0.0.1:8081",
            "[::ffff:127.0.0.1]:8081",
        ];
        for address in others {
            assert!(status_listen(address).is_err(), "{address}");
        }
        assert!(status_listen("localhost").is_err());
    }
}
