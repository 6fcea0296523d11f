//! `ecr-audit check`: the judgement of `run`, without a cluster and without AWS.

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, ValueEnum};

use super::{
    events::Events,
    input::{self, InputArgs, Inputs},
};
use crate::{
    audit,
    report::{
        json::{CheckReport, EvidenceSpan, RunningImage},
        table,
    },
};

/// Flags of `ecr-audit check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    input: InputArgs,
    /// CloudTrail records: files and folders of trail files, `aws cloudtrail lookup-events` output,
    /// single records, arrays, JSON lines, EventBridge events; plain or gzip. `-` is standard input.
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    events: Vec<PathBuf>,
    /// Form of the report.
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    /// End with code 2 when the evidence does not know the state of an image that runs.
    #[arg(long)]
    fail_on_unknown: bool,
}

/// Form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

/// Reads, judges, reports. The exit code is 1 when there are findings that no exception covers,
/// else 2 when the input had a fault, or, if asked for, an image's state is not known; else 0.
pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let (report, notes) = report(&args.input, &args.events)?;
    let mut out = BufWriter::new(io::stdout().lock());
    match args.output {
        Output::Table => {
            let mut text = String::new();
            // Writing to a String cannot fail.
            let _ = table::write(&mut text, &report, &notes, style());
            out.write_all(text.as_bytes())?;
        }
        Output::Json => {
            serde_json::to_writer_pretty(&mut out, &report)?;
            out.write_all(b"\n")?;
            for note in &notes {
                input::complain(note);
            }
        }
    }
    out.flush()?;
    let faults = report.input.is_faulty();
    Ok(if report.has_findings() {
        ExitCode::from(1)
    } else if faults || args.fail_on_unknown && report.has_unknown() {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    })
}

/// Reads the inputs and judges them. Also gives what there is to say of the judgement as a whole;
/// what cannot be read of the events is named on standard error.
///
/// # Errors
/// When the policy, or what runs, cannot be read, or they do not suffice.
pub fn report(input: &InputArgs, events: &[PathBuf]) -> anyhow::Result<(CheckReport, Vec<String>)> {
    let inputs = input.read(events)?;
    let report = judge(&inputs, &inputs.events(events, inputs.rules.clone()));
    Ok((report, inputs.notes()))
}

/// Colours on a terminal, unless `NO_COLOR` is set (no-color.org).
pub(super) fn style() -> table::Style {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    table::Style {
        colour: io::stdout().is_terminal() && !unwanted,
    }
}

fn judge(inputs: &Inputs, events: &Events) -> CheckReport {
    let Events { evidence, input } = events;
    let nodes = evidence.nodes();
    let mut input = input.clone();
    let mut images = Vec::new();
    let mut findings = Vec::new();
    for repository in inputs.repositories() {
        let containers = inputs.containers(&repository);
        let assessment = audit::assess(
            &repository,
            &containers,
            &evidence.repository(&repository),
            nodes,
            &inputs.rules,
            inputs.now,
        );
        input.unresolved_pulls += assessment.unresolved_pulls;
        images.extend(assessment.images.into_iter().map(|image| RunningImage {
            account: repository.account.to_string(),
            region: repository.region.to_string(),
            repository: repository.name.to_string(),
            digest: image.digest.map(|digest| digest.to_string()),
            state: image.state,
            containers: image.containers as u64,
        }));
        findings.extend(assessment.findings);
    }
    images.sort_unstable();
    findings.sort_by(crate::api::Finding::report_order);
    let evidence = evidence
        .spans()
        .map(|(account, region, span)| EvidenceSpan {
            account: account.to_owned(),
            region: region.to_owned(),
            first_time: span.first,
            last_time: span.last,
            records: span.records,
        });
    let (api_version, kind) = CheckReport::HEAD;
    CheckReport {
        api_version,
        kind,
        policy: inputs
            .policy
            .as_ref()
            .and_then(|policy| policy.metadata.name.clone()),
        time: inputs.now,
        input,
        evidence: evidence.collect(),
        images,
        findings,
    }
}
