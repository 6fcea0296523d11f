//! What goes wrong between us and AWS, told apart as people need it told apart.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_cloudtrail::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use serde::de::IgnoredAny;

use super::Reason;

/// The longest message, in characters.
const LONGEST: usize = 300;

/// A read that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: Reason,
    /// On one line and bounded, whatever AWS or somebody in between wrote.
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(reason: Reason, message: impl AsRef<str>) -> Self {
        let one_line = message.as_ref().chars().map(|char| match char {
            char if char.is_control() => ' ',
            char => char,
        });
        Self {
            reason,
            message: one_line.take(LONGEST).collect(),
        }
    }

    /// From an answer of the SDK that is none.
    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        if let Some(fault) = credentials(error) {
            return fault;
        }
        match error {
            SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) => {
                Self::new(Reason::Connection, chain(error))
            }
            SdkError::ServiceError(service) => {
                let status = service.raw().status().as_u16();
                if (200..300).contains(&status) {
                    return unreadable(service.raw().body().bytes(), error);
                }
                let (code, message) = (service.err().code(), service.err().message());
                let text = match (code, message) {
                    (Some(code), Some(message)) => format!("{code}: {message}"),
                    (Some(code), None) => code.to_owned(),
                    (None, _) => format!("HTTP status {status}"),
                };
                let reason = match service_reason(code.unwrap_or_default(), status) {
                    // S3 says so for a key that the role may not use, too.
                    Reason::AccessDenied if text.contains("kms:") => Reason::KeyDenied,
                    // Other services than S3 have no code of their own for it.
                    Reason::AccessDenied if text.contains(": Signature expired") => {
                        Reason::ClockSkewed
                    }
                    Reason::AccessDenied if text.contains(": Signature not yet current") => {
                        Reason::ClockSkewed
                    }
                    reason => reason,
                };
                Self::new(reason, text)
            }
            // The body could not be read to its end.
            SdkError::ResponseError(_) => Self::new(Reason::Truncated, chain(error)),
            _ => Self::new(Reason::Refused, chain(error)),
        }
    }
}

/// A whole answer of the status 200 that is not what the API promises.
fn unreadable(body: Option<&[u8]>, error: &dyn Error) -> Fault {
    let cut = body.is_some_and(|body| {
        serde_json::from_slice::<IgnoredAny>(body).is_err_and(|error| error.is_eof())
    });
    let reason = if cut {
        Reason::Truncated
    } else {
        Reason::Malformed
    };
    Fault::new(reason, chain(error))
}

/// The reason of an error that AWS names.
fn service_reason(code: &str, status: u16) -> Reason {
    match code {
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "RequestThrottled"
        | "KMS.ThrottlingException"
        | "KmsThrottled"
        | "SlowDown" => Reason::Throttled,
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => Reason::ExpiredToken,
        "RequestTimeTooSkewed" | "RequestExpired" | "RequestInTheFuture" => Reason::ClockSkewed,
        "PermanentRedirect" | "AuthorizationHeaderMalformed" => Reason::WrongRegion,
        "AccessDenied"
        | "AccessDeniedException"
        | "UnauthorizedOperation"
        | "AuthFailure"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "InvalidToken"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "OptInRequired"
        | "OperationNotPermittedException" => Reason::AccessDenied,
        "InvalidNextTokenException" => Reason::InvalidNextToken,
        "NoSuchBucket" => Reason::BucketMissing,
        "NoSuchKey" => Reason::FileMissing,
        "QueueDoesNotExist" | "AWS.SimpleQueueService.NonExistentQueue" => Reason::QueueMissing,
        code if code.starts_with("KMS.") || code.starts_with("Kms") => Reason::KeyDenied,
        _ => match status {
            429 => Reason::Throttled,
            401 | 403 => Reason::AccessDenied,
            500.. => Reason::ServerError,
            _ => Reason::Refused,
        },
    }
}

/// When it was the credentials that were not to be had.
fn credentials(error: &(dyn Error + 'static)) -> Option<Fault> {
    let found = sources(error).find_map(|error| error.downcast_ref::<CredentialsError>())?;
    if let Some(refused) = sources(found).find_map(|error| error.downcast_ref::<AssumeRoleError>())
    {
        let code = refused.code().unwrap_or_default();
        let message = refused.message().unwrap_or_default();
        let reason = match service_reason(code, 400) {
            Reason::AccessDenied | Reason::Refused => Reason::AssumeRoleFailed,
            reason => reason,
        };
        return Some(Fault::new(reason, format!("AssumeRole: {code}: {message}")));
    }
    let reason = match found {
        CredentialsError::ProviderTimedOut(_) => Reason::Connection,
        CredentialsError::ProviderError(_) if of_the_connection(found) => Reason::Connection,
        _ => Reason::NoCredentials,
    };
    Some(Fault::new(reason, chain(found)))
}

fn of_the_connection(error: &(dyn Error + 'static)) -> bool {
    sources(error).any(|source| {
        matches!(
            source.downcast_ref::<SdkError<AssumeRoleError, HttpResponse>>(),
            Some(
                SdkError::DispatchFailure(_)
                    | SdkError::TimeoutError(_)
                    | SdkError::ResponseError(_)
            )
        ) || source.is::<std::io::Error>()
    })
}

fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// The error and what caused it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
