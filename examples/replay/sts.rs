//! The two STS operations that a reader of several accounts needs: `GetCallerIdentity`
//! and `AssumeRole`.

use std::collections::HashMap;

use axum::{
    body::Body,
    http::{Response, StatusCode},
};
use jiff::Timestamp;

use super::{
    Server,
    answer::{escape, faulty, reset, truncated, xml_answer, xml_error},
    auth::{AuthError, Caller, Session},
    connection::Reset,
    faults::{Call, Kind, Operation},
};

/// Lifetime of a session, where a request does not say, in seconds.
const DEFAULT_DURATION: i64 = 3600;

/// Answers one call, given its form.
pub(crate) async fn answer(
    server: &Server,
    caller: Result<Caller, AuthError>,
    form: &HashMap<String, String>,
    connection: &Reset,
) -> Response<Body> {
    let field = |name: &str| form.get(name).map(String::as_str);
    let operation = match field("Action") {
        Some("GetCallerIdentity") => Operation::GetCallerIdentity,
        Some("AssumeRole") => Operation::AssumeRole,
        _ => {
            let message = "Could not find operation for version 2011-06-15";
            return xml_error(StatusCode::BAD_REQUEST, "InvalidAction", message);
        }
    };
    let caller = match caller {
        Ok(caller) => caller,
        Err(error) => return auth_error(error),
    };
    let role = field("RoleArn").unwrap_or_default();
    let outcome = server.state().faults.hit(&Call {
        operation,
        account: &caller.account,
        region: &caller.region,
        role: Some(role),
        ..Call::default()
    });
    if outcome.delay_milliseconds > 0 {
        let delay = std::time::Duration::from_millis(outcome.delay_milliseconds);
        tokio::time::sleep(delay).await;
    }
    let kind = outcome.instead.as_ref().map(|fault| fault.kind);
    let response = match (kind, &outcome.instead) {
        (Some(Kind::Throttle), _) => {
            xml_error(StatusCode::BAD_REQUEST, "Throttling", "Rate exceeded")
        }
        (Some(Kind::ServerError), Some(fault)) => faulty(fault, StatusCode::SERVICE_UNAVAILABLE),
        (Some(Kind::Answer), Some(fault)) => faulty(fault, StatusCode::OK),
        (Some(Kind::Reset), _) => reset(connection),
        (Some(Kind::Garbage), _) => xml_answer("Garbage", ""),
        (Some(Kind::AccessDenied), _) => denied(&caller, operation, role),
        (Some(Kind::ExpiredToken), _) => auth_error(AuthError::Expired),
        _ => match operation {
            Operation::AssumeRole => assume_role(server, &caller, form),
            _ => identity(&caller),
        },
    };
    let ok = response.status().is_success() && kind.is_none();
    server.state().stats.sts(operation, role, ok);
    if kind == Some(Kind::Truncate) {
        return truncated(response).await;
    }
    response
}

fn auth_error(error: AuthError) -> Response<Body> {
    let (code, message) = match error {
        AuthError::Missing => (
            "MissingAuthenticationToken",
            "Request is missing Authentication Token",
        ),
        AuthError::Unknown => (
            "InvalidClientTokenId",
            "The security token included in the request is invalid.",
        ),
        AuthError::Expired => (
            "ExpiredToken",
            "The security token included in the request is expired",
        ),
    };
    xml_error(StatusCode::FORBIDDEN, code, message)
}

fn denied(caller: &Caller, operation: Operation, role: &str) -> Response<Body> {
    let message = format!(
        "User: {} is not authorized to perform: sts:{operation:?} on resource: {role}",
        caller.arn
    );
    xml_error(StatusCode::FORBIDDEN, "AccessDenied", &message)
}

fn identity(caller: &Caller) -> Response<Body> {
    let result = format!(
        "<Arn>{}</Arn><UserId>{}</UserId><Account>{}</Account>",
        escape(&caller.arn),
        escape(&caller.user_id),
        escape(&caller.account),
    );
    xml_answer("GetCallerIdentity", &result)
}

fn assume_role(server: &Server, caller: &Caller, form: &HashMap<String, String>) -> Response<Body> {
    let invalid = |message| xml_error(StatusCode::BAD_REQUEST, "ValidationError", message);
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let arn = field("RoleArn");
    let Some((account, role)) = role_parts(arn) else {
        return invalid("RoleArn is not the ARN of a role");
    };
    let name = field("RoleSessionName");
    let session_name = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if !(2..=64).contains(&name.len()) || !name.chars().all(session_name) {
        return invalid("RoleSessionName must be 2 to 64 of the characters A-Z a-z 0-9 _+=,.@-");
    }
    let duration = match form.get("DurationSeconds").map(|text| text.parse()) {
        None => DEFAULT_DURATION,
        Some(Ok(seconds @ 900..=43200)) => seconds,
        Some(_) => return invalid("DurationSeconds must be between 900 and 43200"),
    };
    let wanted = server.state().external_ids.get(arn).cloned();
    if wanted.is_some() && wanted.as_ref() != form.get("ExternalId") {
        return denied(caller, Operation::AssumeRole, arn);
    }
    let lifetime = server.session_seconds.unwrap_or(duration);
    let expires = server.now().as_second() + lifetime;
    let session = Session {
        account: account.to_owned(),
        role: role.to_owned(),
        name: name.to_owned(),
        expires,
    };
    let expiration = Timestamp::from_second(expires).unwrap_or(Timestamp::MAX);
    let result = format!(
        "<AssumedRoleUser><AssumedRoleId>{}:{name}</AssumedRoleId><Arn>{}</Arn></AssumedRoleUser>\
         <Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
         <SessionToken>{}</SessionToken><Expiration>{expiration}</Expiration></Credentials>",
        session.role_id(),
        escape(&session.arn(&caller.region)),
        session.access_key(),
        super::auth::hash(&session.token(), 20),
        escape(&session.token()),
    );
    xml_answer("AssumeRole", &result)
}

/// Account and name with path of `arn:aws:iam::111122223333:role/path/name`.
fn role_parts(arn: &str) -> Option<(&str, &str)> {
    let mut parts = arn.splitn(6, ':');
    let (Some("arn"), Some(_partition), Some("iam"), Some("")) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let account = parts.next()?;
    let role = parts.next()?.strip_prefix("role/")?;
    let name = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-/".contains(c);
    let whole = account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && !role.is_empty()
        && role.chars().all(name);
    whole.then_some((account, role))
}
