//! `ecr-audit check --output table`: the report for people, worst first, in at most 120 columns.
//!
//! Names come from pods and from CloudTrail, where others choose them: nothing of them reaches the
//! terminal that is not printable.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};

use super::json::CheckReport;
use crate::api::{Finding, FindingType, ImageState, Impact};

/// Columns that a line may take.
const WIDTH: usize = 120;
/// Images and errors listed; the JSON report has all of them.
const LISTED: usize = 40;
/// Column where the details of a finding begin.
const DETAIL: usize = 18;

/// How to write it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// With the colours of a terminal.
    pub colour: bool,
}

#[derive(Clone, Copy)]
enum Paint {
    Bold,
    Red,
    Yellow,
    Green,
    Dim,
}

impl Style {
    fn paint(self, paint: Paint, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Bold => "1",
            Paint::Red => "1;31",
            Paint::Yellow => "33",
            Paint::Green => "32",
            Paint::Dim => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Writes the report. `notes` are sentences about the judgement as a whole.
///
/// # Errors
/// Those of the writer.
pub fn write(
    out: &mut impl fmt::Write,
    report: &CheckReport,
    notes: &[String],
    style: Style,
) -> fmt::Result {
    headline(out, report, style)?;
    findings(out, report, style)?;
    images(out, report, style)?;
    evidence(out, report, style)?;
    for note in notes {
        lines(out, style.paint(Paint::Yellow, "note: ").as_str(), 6, note)?;
    }
    Ok(())
}

fn headline(out: &mut impl fmt::Write, report: &CheckReport, style: Style) -> fmt::Result {
    let counted = report.findings.iter().filter(|finding| !finding.excepted);
    let counted = counted.count();
    let excepted = report.findings.len() - counted;
    let policy = report.policy.as_deref().map_or_else(
        || "Without a policy (removals only)".to_owned(),
        |name| format!("Policy {}", printable(name)),
    );
    let verdict = match counted {
        0 => style.paint(Paint::Green, "no findings"),
        n => style.paint(Paint::Red, &plural(n, "finding")),
    };
    write!(out, "{policy}, at {}: {verdict}", report.time)?;
    if excepted > 0 {
        write!(out, ", {excepted} more covered by an exception")?;
    }
    out.write_str("\n")
}

fn findings(out: &mut impl fmt::Write, report: &CheckReport, style: Style) -> fmt::Result {
    let mut workloads: BTreeMap<_, Vec<&Finding>> = BTreeMap::new();
    for finding in &report.findings {
        workloads
            .entry(&finding.workload)
            .or_default()
            .push(finding);
    }
    let severity = |finding: &&Finding| (finding.excepted, finding.finding_type, finding.impact);
    for findings in workloads.values_mut() {
        // Stable: what is equally bad stays in the order of the report.
        findings.sort_by_key(severity);
    }
    let mut workloads: Vec<_> = workloads.into_iter().collect();
    workloads.sort_by_key(|(_, findings)| findings.first().map(severity));
    for (workload, findings) in workloads {
        let name = format!(
            "{} {} in {}",
            printable(&workload.kind),
            printable(&workload.name),
            printable(&workload.namespace)
        );
        writeln!(out, "\n{}", style.paint(Paint::Bold, &cut(&name, WIDTH)))?;
        for finding in findings {
            self::finding(out, finding, style)?;
        }
    }
    Ok(())
}

fn finding(out: &mut impl fmt::Write, finding: &Finding, style: Style) -> fmt::Result {
    let name = finding.finding_type.as_str();
    let paint = if finding.excepted {
        Paint::Dim
    } else if finding.finding_type.is_removal() {
        Paint::Red
    } else {
        Paint::Yellow
    };
    let label = format!(
        "  {}{}",
        style.paint(paint, name),
        " ".repeat(DETAIL.saturating_sub(2 + name.len()))
    );
    let mut first = consequence(finding);
    if finding.excepted {
        first.push_str(" (excepted)");
    }
    lines(out, &label, DETAIL, &first)?;
    let pad = " ".repeat(DETAIL);
    let mut detail = |text: &str| lines(out, &pad, DETAIL, text);
    detail(&printable(&finding.reference))?;
    detail(&format!(
        "runs {} in {}",
        digest(finding),
        containers(finding)
    ))?;
    detail(&what_happened(finding))
}

/// What it means, in words.
fn consequence(finding: &Finding) -> String {
    match (finding.impact, finding.finding_type) {
        (Some(Impact::Unpullable), _) => "a new node cannot pull it".to_owned(),
        (Some(Impact::WouldChange), _) => "a new node would run another image".to_owned(),
        (Some(Impact::Unknown), _) => {
            "what a new node would get, the evidence does not tell".to_owned()
        }
        (None, FindingType::UnexpectedPull) => "pulled by a principal not expected".to_owned(),
        (None, FindingType::UnexpectedPush) => "pushed by a principal not expected".to_owned(),
        (None, FindingType::DeniedPull) => {
            "a pull by a principal not expected was refused".to_owned()
        }
        (None, FindingType::DeniedPush) => {
            "a push by a principal not expected was refused".to_owned()
        }
        (None, _) => String::new(),
    }
}

fn digest(finding: &Finding) -> String {
    finding
        .image
        .digest
        .as_deref()
        .map_or_else(|| "an unknown digest".to_owned(), short_digest)
}

fn containers(finding: &Finding) -> String {
    const NAMED: usize = 3;
    let mut text = plural(finding.containers.len(), "container");
    for (n, name) in finding.containers.iter().take(NAMED).enumerate() {
        text.push_str(if n == 0 { ": " } else { ", " });
        let _ = write!(
            text,
            "{}/{}",
            printable(&name.pod),
            printable(&name.container)
        );
    }
    if finding.containers.len() > NAMED {
        text.push_str(", …");
    }
    text
}

fn what_happened(finding: &Finding) -> String {
    let mut text = String::new();
    if let Some(cause) = &finding.cause {
        text.push_str(&printable(&cause.event_name));
        if let Some(digest) = cause
            .digest
            .as_ref()
            .filter(|digest| Some(*digest) != finding.image.digest.as_ref())
        {
            let _ = write!(text, " of {}", short_digest(digest));
        }
        if let Some(rule) = &cause.rule {
            let _ = write!(text, ", rule {}", rule.priority);
            if let Some(description) = &rule.description {
                let _ = write!(text, " “{}”", printable(description));
            }
        }
    }
    if let Some(principal) = &finding.principal {
        if !text.is_empty() {
            text.push(' ');
        }
        let _ = write!(text, "by {}", printable(&principal.key));
        if let Some(session) = &principal.session {
            let _ = write!(text, " (session {})", printable(session));
        }
    }
    if finding.finding_type.is_removal() {
        let _ = write!(text, " at {}", finding.last_time);
    } else if finding.count == 1 {
        let _ = write!(text, ", once, at {}", finding.last_time);
    } else {
        let _ = write!(
            text,
            ", {} times, {} to {}",
            finding.count, finding.first_time, finding.last_time
        );
    }
    if finding.inferred {
        text.push_str(", the digest inferred from what runs");
    }
    if let Some(id) = finding.event_ids.first() {
        let _ = write!(text, ", event {}", printable(id));
    }
    text
}

fn images(out: &mut impl fmt::Write, report: &CheckReport, style: Style) -> fmt::Result {
    let mut states: BTreeMap<ImageState, usize> = BTreeMap::new();
    for image in &report.images {
        *states.entry(image.state).or_default() += 1;
    }
    let counts: Vec<String> = ImageState::ALL
        .iter()
        .filter_map(|state| Some((state, states.get(state)?)))
        .map(|(state, count)| format!("{count} {}", state.as_str().to_lowercase()))
        .collect();
    let heading = style.paint(Paint::Bold, "Images that run");
    if report.images.is_empty() {
        return writeln!(out, "\n{heading}: none of a private ECR registry");
    }
    let total = report.images.len();
    writeln!(out, "\n{heading}: {total} ({})", counts.join(", "))?;

    let mut gone: Vec<_> = report
        .images
        .iter()
        .filter(|image| image.state != ImageState::Present)
        .collect();
    gone.sort_by_key(|image| (image.state, std::cmp::Reverse(image.containers)));
    let mut table = bare(["STATE", "CONTAINERS", "ACCOUNT", "REGION", "IMAGE"]);
    for image in gone.iter().take(LISTED) {
        let digest = image.digest.as_deref();
        table.add_row([
            image.state.as_str().to_owned(),
            image.containers.to_string(),
            printable(&image.account),
            printable(&image.region),
            format!(
                "{}@{}",
                printable(&image.repository),
                digest.map_or_else(|| "(unknown)".to_owned(), short_digest)
            ),
        ]);
    }
    right(&mut table, 1);
    rows(out, &table)?;
    more(out, gone.len())?;

    // The commonest reason for `Unknown`: nobody gave the events of that registry.
    let mut uncovered: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for image in &report.images {
        let covered = report
            .evidence
            .iter()
            .any(|span| span.account == image.account && span.region == image.region);
        if !covered {
            *uncovered
                .entry((&image.account, &image.region))
                .or_default() += 1;
        }
    }
    for ((account, region), count) in uncovered {
        let text = format!(
            "no event of registry {} in {} was given: nothing is known of {} from there",
            printable(account),
            printable(region),
            plural(count, "image")
        );
        lines(out, "  ", 2, &text)?;
    }
    Ok(())
}

fn evidence(out: &mut impl fmt::Write, report: &CheckReport, style: Style) -> fmt::Result {
    let input = &report.input;
    writeln!(out, "\n{}", style.paint(Paint::Bold, "Evidence"))?;
    if !report.evidence.is_empty() {
        let mut table = bare(["ACCOUNT", "REGION", "FROM", "TO", "RECORDS"]);
        for span in report.evidence.iter().take(LISTED) {
            table.add_row([
                printable(&span.account),
                printable(&span.region),
                span.first_time.to_string(),
                span.last_time.to_string(),
                span.records.to_string(),
            ]);
        }
        right(&mut table, 4);
        rows(out, &table)?;
        more(out, report.evidence.len())?;
    }
    let mut text = format!(
        "{} read from {}, {} of ECR",
        plural(input.records, "record"),
        plural(input.files, "file"),
        input.ecr_records
    );
    let remarks = [
        (input.duplicates, "seen before"),
        (input.undecodable, "not decodable"),
        (input.omitted, "with content left out by CloudTrail"),
    ];
    for (count, what) in remarks.into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(text, ", {count} {what}");
    }
    if input.skipped > 0 {
        let _ = write!(
            text,
            "; {} skipped that {} no CloudTrail record",
            plural(input.skipped, "document"),
            if input.skipped == 1 { "is" } else { "are" }
        );
    }
    lines(out, "  ", 2, &text)?;
    if input.unresolved_pulls > 0 {
        let text = format!(
            "{} by tag could not be told which image they got: the evidence has no push of the tag \
             before them",
            plural(input.unresolved_pulls, "pull")
        );
        lines(out, "  ", 2, &text)?;
    }
    for error in input.errors.iter().take(LISTED) {
        let text = format!("{}: {}", printable(&error.path), printable(&error.reason));
        lines(out, &style.paint(Paint::Red, "  not read: "), 12, &text)?;
    }
    more(out, input.errors.len())
}

/// A table without lines.
fn bare<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(WIDTH).unwrap_or(u16::MAX))
        .set_header(header);
    if let Some(last) = table.column_mut(N - 1) {
        last.set_constraint(ColumnConstraint::UpperBoundary(Width::Percentage(60)));
    }
    table
}

fn right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn rows(out: &mut impl fmt::Write, table: &Table) -> fmt::Result {
    if table.row_iter().next().is_none() {
        return Ok(());
    }
    for line in table.lines() {
        writeln!(out, " {}", line.trim_end())?;
    }
    Ok(())
}

fn more(out: &mut impl fmt::Write, count: usize) -> fmt::Result {
    if count <= LISTED {
        return Ok(());
    }
    writeln!(
        out,
        "  … and {} more: --output json has all",
        count - LISTED
    )
}

/// Writes text after a label, broken between words; `indent` is the label's visible width.
fn lines(out: &mut impl fmt::Write, label: &str, indent: usize, text: &str) -> fmt::Result {
    let room = WIDTH - indent;
    let mut line = String::new();
    let mut used = 0;
    let mut label = label.to_owned();
    for word in text.split(' ') {
        let word = cut(word, room);
        let width = word.chars().count();
        if used > 0 && used + 1 + width > room {
            writeln!(out, "{label}{line}")?;
            label = " ".repeat(indent);
            line.clear();
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        line.push_str(&word);
        used += width;
    }
    writeln!(out, "{label}{line}")
}

/// `sha256:` and the first twelve digits, as container tools write it.
fn short_digest(digest: &str) -> String {
    let (algorithm, encoded) = digest.split_once(':').unwrap_or(("", digest));
    format!(
        "{}:{}",
        printable(algorithm),
        printable(&encoded.chars().take(12).collect::<String>())
    )
}

fn plural<N: TryInto<u64> + Copy>(count: N, what: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// At most so many characters, with `…` for what is missing.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut text: String = text.chars().take(width.saturating_sub(1)).collect();
    text.push('…');
    text
}

/// Text that others chose, harmless to a terminal: control characters, and those that turn the
/// direction of writing, as escapes.
pub fn printable(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    if !text.chars().any(harmful) {
        return text.to_owned();
    }
    text.chars().fold(String::new(), |mut safe, c| {
        if harmful(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
        safe
    })
}
