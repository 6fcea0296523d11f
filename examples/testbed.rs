//! The control plane of the integration tests, for a person: kube-apiserver and etcd on
//! loopback ports, until Ctrl-C, or for as long as a command runs.
//!
//! ```text
//! cargo run --example testbed                        # prints KUBECONFIG, waits for Ctrl-C
//! cargo run --example testbed -- kubectl get pods    # runs a command against a new one
//! cargo run --example testbed -- --controller-manager -- ./script
//! ```
//!
//! Nothing outlives it, and it touches no other cluster: the command gets a `KUBECONFIG`
//! of its own, and the testbed's kubectl and helm first on its `PATH`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use support::{Access, ControlPlane, Options};

/// Runs a Kubernetes control plane without nodes, for tests and demonstrations.
#[derive(Parser)]
struct Arguments {
    /// Also run kube-controller-manager (built the first time: some minutes)
    #[arg(long)]
    controller_manager: bool,
    /// A command to run with KUBECONFIG set; the control plane ends with it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let control_plane = ControlPlane::start_with(Options {
        controller_manager: arguments.controller_manager,
        ..Options::default()
    })
    .await;
    let admin = control_plane.admin();
    if let [program, args @ ..] = &arguments.command[..] {
        return run(&admin, program, args).await;
    }
    println!("export KUBECONFIG={}", admin.kubeconfig().display());
    eprintln!("The control plane runs until Ctrl-C.");
    interrupted().await;
    ExitCode::SUCCESS
}

/// Runs the command with our own standard streams; its exit code becomes ours.
async fn run(admin: &Access, program: &OsString, args: &[OsString]) -> ExitCode {
    let mut command = admin.command(program);
    command.args(args);
    let mut child = match tokio::process::Command::from(command).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("{}: {error}", program.display());
            return ExitCode::from(127);
        }
    };
    let status = tokio::select! {
        status = child.wait() => status,
        signal = interrupted() => {
            // A terminal's Ctrl-C reaches the command, too: it is left the time to clean up.
            if signal == Signal::Terminate {
                let _ = child.start_kill();
            }
            child.wait().await
        }
    };
    let code = status.ok().and_then(|status| status.code()).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[derive(PartialEq, Eq)]
enum Signal {
    Interrupt,
    Terminate,
}

/// Waits for Ctrl-C, or the signal that a supervisor sends.
async fn interrupted() -> Signal {
    use tokio::signal::unix::{SignalKind, signal};

    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return Signal::Terminate;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Signal::Interrupt,
        _ = terminate.recv() => Signal::Terminate,
    }
}
