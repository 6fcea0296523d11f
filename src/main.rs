//! The `ecr-audit` command: reads the command line, sets up what a process needs once (TLS,
//! logging, the runtime), and calls the library.

use std::process::ExitCode;

use clap::Parser;
use ecr_audit::cli::Cli;

fn main() -> ExitCode {
    ecr_audit::cli::main(Cli::parse())
}
