//! What the CRD's schema checks, for policies that no API server saw: `check` reads files.

use std::collections::HashSet;

use jiff::civil::Date;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::InvalidPolicy;
use crate::api::{AssumeRole, EcrAuditPolicySpec, Exception, LookupEvents, S3, Source, Sqs};

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
        workloads,
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
    let selector = workloads
        .as_ref()
        .and_then(|workloads| workloads.namespace_selector.as_ref());
    if let Some(selector) = selector {
        check_selector(selector, "spec.workloads.namespaceSelector")?;
    }
    let registry_ids = images
        .as_ref()
        .and_then(|images| images.registry_ids.as_ref());
    not_empty(registry_ids, "spec.images.registryIDs")?;
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
    within(*lookback_days, (1, 3650), "spec.lookbackDays")?;
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
    not_empty(source_accounts.as_ref(), &format!("{field}.accounts"))?;
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
        check_lookup_events(lookup, &format!("{field}.lookupEvents"))?;
    }
    if let Some(sqs) = sqs {
        check_sqs(sqs, &format!("{field}.sqs"))?;
    }
    if let Some(s3) = s3 {
        check_s3(s3, &format!("{field}.s3"))?;
    }
    Ok(())
}

fn check_lookup_events(lookup: &LookupEvents, field: &str) -> Checked {
    let LookupEvents {
        regions,
        poll_period_seconds,
        reread_period_seconds,
        backfill_days,
    } = lookup;
    not_empty(regions.as_ref(), &format!("{field}.regions"))?;
    for (i, region) in regions.iter().flatten().enumerate() {
        check_region(region, &format!("{field}.regions[{i}]"))?;
    }
    let field = |name| format!("{field}.{name}");
    within(
        *poll_period_seconds,
        (10, 3600),
        &field("pollPeriodSeconds"),
    )?;
    within(
        *reread_period_seconds,
        (30, 86_400),
        &field("rereadPeriodSeconds"),
    )?;
    within(*backfill_days, (1, 90), &field("backfillDays"))
}

fn check_sqs(sqs: &Sqs, field: &str) -> Checked {
    let Sqs {
        queue_url,
        region,
        buckets,
    } = sqs;
    if !queue_url.starts_with("https://") && !queue_url.starts_with("http://") {
        return Err(invalid(format!("{field}.queueUrl"), "expected a URL"));
    }
    check_region(region, &format!("{field}.region"))?;
    not_empty(buckets.as_ref(), &format!("{field}.buckets"))
}

fn check_s3(s3: &S3, field: &str) -> Checked {
    let S3 {
        bucket: _,
        prefix: _,
        region,
        poll_period_seconds,
        backfill_days,
    } = s3;
    let field = |name| format!("{field}.{name}");
    check_region(region, &field("region"))?;
    within(
        *poll_period_seconds,
        (10, 3600),
        &field("pollPeriodSeconds"),
    )?;
    within(*backfill_days, (1, 3650), &field("backfillDays"))
}

fn within(value: i64, (least, most): (i64, i64), field: &str) -> Checked {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(invalid(field, format!("expected {least} to {most}")))
}

/// A region, as `us-east-1` is written.
fn check_region(region: &str, field: &str) -> Checked {
    let mut parts = region.split('-');
    let number = parts.next_back().unwrap_or_default();
    let letters = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    if is_number && parts.clone().count() >= 2 && parts.all(letters) {
        return Ok(());
    }
    Err(invalid(field, "expected a region, such as us-east-1"))
}

fn check_exception(exception: &Exception, field: &str) -> Checked {
    let Exception {
        owner,
        reason,
        until,
        types,
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
    not_empty(types.as_ref(), &format!("{field}.types"))?;
    for (list, name) in [
        (namespaces, "namespaces"),
        (repositories, "repositories"),
        (principals, "principals"),
    ] {
        not_empty(list.as_ref(), &format!("{field}.{name}"))?;
    }
    patterns(namespaces.as_ref(), &format!("{field}.namespaces"))?;
    patterns(repositories.as_ref(), &format!("{field}.repositories"))?;
    patterns(principals.as_ref(), &format!("{field}.principals"))
}

/// A selector is no part of the schema: the API server takes any, and whoever uses it has to look.
fn check_selector(selector: &LabelSelector, field: &str) -> Checked {
    let LabelSelector {
        match_expressions,
        match_labels,
    } = selector;
    for (key, value) in match_labels.iter().flatten() {
        let field = format!("{field}.matchLabels.{key}");
        label_key(key, &field)?;
        label_value(value, &field)?;
    }
    for (i, requirement) in match_expressions.iter().flatten().enumerate() {
        let LabelSelectorRequirement {
            key,
            operator,
            values,
        } = requirement;
        let field = format!("{field}.matchExpressions[{i}]");
        label_key(key, &format!("{field}.key"))?;
        let values = values.as_deref().unwrap_or_default();
        let wants_values = match operator.as_str() {
            "In" | "NotIn" => true,
            "Exists" | "DoesNotExist" => false,
            _ => {
                return Err(invalid(
                    format!("{field}.operator"),
                    "expected In, NotIn, Exists or DoesNotExist",
                ));
            }
        };
        if values.is_empty() == wants_values {
            let reason = if wants_values {
                format!("expected at least one value for {operator}")
            } else {
                format!("expected no values for {operator}")
            };
            return Err(invalid(format!("{field}.values"), reason));
        }
        for (i, value) in values.iter().enumerate() {
            label_value(value, &format!("{field}.values[{i}]"))?;
        }
    }
    Ok(())
}

/// A label's key, with or without a prefix (Kubernetes, "Labels and Selectors").
fn label_key(key: &str, field: &str) -> Checked {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let part = |part: &str| {
        let within = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let edge = |b: Option<u8>| b.is_some_and(|b| within(b) && b != b'-');
        edge(part.bytes().next()) && edge(part.bytes().last()) && part.bytes().all(within)
    };
    let prefix_ok = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(part);
    if !name.is_empty() && is_label(name) && prefix.is_none_or(prefix_ok) {
        return Ok(());
    }
    Err(invalid(
        field,
        "expected the key of a label, for example team or example.com/team",
    ))
}

fn label_value(value: &str, field: &str) -> Checked {
    if is_label(value) {
        return Ok(());
    }
    let reason = "expected the value of a label: at most 63 letters, digits, '-', '_' and '.', of which \
         the first and last are letters or digits";
    Err(invalid(field, reason))
}

/// A label's value, or the name in its key; it may be empty.
fn is_label(text: &str) -> bool {
    let within = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<u8>| b.is_none_or(|b| b.is_ascii_alphanumeric());
    let (first, last) = (text.bytes().next(), text.bytes().last());
    text.len() <= 63 && edge(first) && edge(last) && text.bytes().all(within)
}

/// A list that narrows something: that nothing is meant at all nobody means.
fn not_empty<T>(list: Option<&Vec<T>>, field: &str) -> Checked {
    if list.is_some_and(Vec::is_empty) {
        return Err(invalid(
            field,
            "expected at least one entry; leave the list out if it shall not narrow anything",
        ));
    }
    Ok(())
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
