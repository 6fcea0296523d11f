//! What the CRD's schema checks, for policies that no API server saw: `check` reads files.

use std::collections::HashSet;

use jiff::civil::Date;

use super::InvalidPolicy;
use crate::api::{AssumeRole, EcrAuditPolicySpec, Exception, LookupEvents, Source};

/// Exceptions that a policy may have.
pub(super) const MAX_EXCEPTIONS: usize = 100;

type Checked = Result<(), InvalidPolicy>;

fn invalid(field: impl Into<String>, reason: impl Into<String>) -> InvalidPolicy {
    InvalidPolicy {
        field: field.into(),
        reason: reason.into(),
    }
}

pub(super) fn spec(spec: &EcrAuditPolicySpec) -> Checked {
    let EcrAuditPolicySpec {
        sources,
        workloads: _,
        images,
        expected_pullers,
        expected_pushers,
        lookback_days,
        exceptions,
    } = spec;
    if let Some(sources) = sources {
        if sources.is_empty() || sources.len() > 16 {
            return Err(invalid("spec.sources", "expected 1 to 16 sources"));
        }
        let mut names = HashSet::new();
        for (i, source) in sources.iter().enumerate() {
            let field = format!("spec.sources[{i}]");
            if !names.insert(&source.name) {
                return Err(invalid(
                    format!("{field}.name"),
                    "another source has this name",
                ));
            }
            check_source(source, &field)?;
        }
    }
    let registry_ids = images
        .as_ref()
        .and_then(|images| images.registry_ids.as_ref());
    accounts(registry_ids, "spec.images.registryIDs")?;
    if let Some(expected) = expected_pullers {
        patterns(
            expected.principals.as_ref(),
            "spec.expectedPullers.principals",
        )?;
        accounts(expected.accounts.as_ref(), "spec.expectedPullers.accounts")?;
        patterns(expected.services.as_ref(), "spec.expectedPullers.services")?;
    }
    if let Some(expected) = expected_pushers {
        patterns(
            expected.principals.as_ref(),
            "spec.expectedPushers.principals",
        )?;
        accounts(expected.accounts.as_ref(), "spec.expectedPushers.accounts")?;
        patterns(expected.services.as_ref(), "spec.expectedPushers.services")?;
    }
    if !(1..=3650).contains(lookback_days) {
        return Err(invalid("spec.lookbackDays", "expected 1 to 3650 days"));
    }
    if exceptions
        .as_ref()
        .is_some_and(|exceptions| exceptions.len() > MAX_EXCEPTIONS)
    {
        return Err(invalid(
            "spec.exceptions",
            format!("expected at most {MAX_EXCEPTIONS}"),
        ));
    }
    for (i, exception) in exceptions.iter().flatten().enumerate() {
        check_exception(exception, &format!("spec.exceptions[{i}]"))?;
    }
    Ok(())
}

fn check_source(source: &Source, field: &str) -> Checked {
    let Source {
        name,
        accounts: source_accounts,
        assume_role,
        lookup_events,
        sqs,
        s3,
    } = source;
    if name.is_empty() {
        return Err(invalid(format!("{field}.name"), "expected a name"));
    }
    let kinds = [lookup_events.is_some(), sqs.is_some(), s3.is_some()];
    if kinds.into_iter().filter(|kind| *kind).count() != 1 {
        return Err(invalid(
            field,
            "expected exactly one of lookupEvents, sqs and s3",
        ));
    }
    accounts(source_accounts.as_ref(), &format!("{field}.accounts"))?;
    if let Some(AssumeRole {
        role_arn,
        role_name,
        ..
    }) = assume_role
        && role_arn.is_some() == role_name.is_some()
    {
        let field = format!("{field}.assumeRole");
        return Err(invalid(
            field,
            "expected exactly one of roleArn and roleName",
        ));
    }
    let role_name = assume_role
        .as_ref()
        .and_then(|role| role.role_name.as_ref());
    // A bucket or a queue has the files of many accounts, and is read through one role.
    if lookup_events.is_none() && role_name.is_some() {
        return Err(invalid(
            format!("{field}.assumeRole"),
            "sqs and s3 assume one role, by roleArn",
        ));
    }
    if lookup_events.is_some() && source_accounts.is_some() && role_name.is_none() {
        return Err(invalid(
            field,
            "accounts need assumeRole.roleName, the role's name in each of them",
        ));
    }
    if role_name.is_some() && source_accounts.is_none() {
        return Err(invalid(
            field,
            "assumeRole.roleName needs accounts; for one role use roleArn",
        ));
    }
    if let Some(lookup) = lookup_events {
        let LookupEvents {
            regions,
            poll_period_seconds,
            reread_period_seconds,
            backfill_days,
        } = lookup;
        let field = format!("{field}.lookupEvents");
        if regions.as_ref().is_some_and(Vec::is_empty) {
            return Err(invalid(
                format!("{field}.regions"),
                "expected at least one region",
            ));
        }
        if *poll_period_seconds < 10 {
            return Err(invalid(
                format!("{field}.pollPeriodSeconds"),
                "expected at least 10",
            ));
        }
        if *reread_period_seconds < 30 {
            return Err(invalid(
                format!("{field}.rereadPeriodSeconds"),
                "expected at least 30",
            ));
        }
        if !(1..=90).contains(backfill_days) {
            return Err(invalid(
                format!("{field}.backfillDays"),
                "expected 1 to 90 days",
            ));
        }
    }
    Ok(())
}

fn check_exception(exception: &Exception, field: &str) -> Checked {
    let Exception {
        owner,
        reason,
        until,
        types: _,
        namespaces,
        repositories,
        principals,
    } = exception;
    if owner.trim().is_empty() {
        return Err(invalid(
            format!("{field}.owner"),
            "expected who answers for it",
        ));
    }
    if reason.trim().is_empty() {
        return Err(invalid(format!("{field}.reason"), "expected a reason"));
    }
    date(until, &format!("{field}.until"))?;
    patterns(namespaces.as_ref(), &format!("{field}.namespaces"))?;
    patterns(repositories.as_ref(), &format!("{field}.repositories"))?;
    patterns(principals.as_ref(), &format!("{field}.principals"))
}

/// A day, `YYYY-MM-DD`.
pub(super) fn date(text: &str, field: &str) -> Result<Date, InvalidPolicy> {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let date = Some(text)
        .filter(|text| text.len() == 10 && digits(text))
        .map(str::parse);
    match date {
        Some(Ok(date)) => Ok(date),
        _ => Err(invalid(field, "expected a date, YYYY-MM-DD")),
    }
}

fn accounts(ids: Option<&Vec<String>>, field: &str) -> Checked {
    for (i, id) in ids.into_iter().flatten().enumerate() {
        if id.len() != 12 || !id.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid(
                format!("{field}[{i}]"),
                "expected an account id of 12 digits",
            ));
        }
    }
    Ok(())
}

fn patterns(patterns: Option<&Vec<String>>, field: &str) -> Checked {
    for (i, pattern) in patterns.into_iter().flatten().enumerate() {
        let plain = pattern
            .chars()
            .all(|c| !c.is_whitespace() && !c.is_control());
        if pattern.is_empty() || pattern.len() > 2048 || !plain {
            let reason = "expected a name or ARN without blanks, in which * and ? are wildcards";
            return Err(invalid(format!("{field}[{i}]"), reason));
        }
    }
    Ok(())
}
