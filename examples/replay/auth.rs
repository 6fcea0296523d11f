//! Who calls: read from the request's AWS Signature Version 4, which is not verified.
//!
//! The region is that of the credential scope. The account is that of the access key:
//! of keys that were handed out by `AssumeRole` the role's, of others as the command
//! line says. A session says everything about itself in its token, so that it outlives
//! this process.

use std::fmt::Write as _;

use axum::http::HeaderMap;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

/// The caller of a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) arn: String,
    pub(crate) user_id: String,
}

/// Why nobody is known to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthError {
    /// No signature.
    Missing,
    /// An access key that is not known, or is not the token's.
    Unknown,
    /// The session is over.
    Expired,
}

/// A session of an assumed role.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) account: String,
    /// The role's name with its path, without a leading `/`.
    pub(crate) role: String,
    pub(crate) name: String,
    /// In seconds since 1970.
    pub(crate) expires: i64,
}

impl Session {
    /// The session token: `replay/ACCOUNT/EXPIRES/NAME/PATH/ROLE`.
    pub(crate) fn token(&self) -> String {
        let Self {
            account,
            role,
            name,
            expires,
        } = self;
        format!("replay/{account}/{expires}/{name}/{role}")
    }

    fn from_token(token: &str) -> Option<Self> {
        let mut parts = token.strip_prefix("replay/")?.splitn(4, '/');
        Some(Self {
            account: parts.next()?.to_owned(),
            expires: parts.next()?.parse().ok()?,
            name: parts.next()?.to_owned(),
            role: parts.next()?.to_owned(),
        })
    }

    /// The access key that belongs to the token.
    pub(crate) fn access_key(&self) -> String {
        format!("ASIA{}", hash(&self.token(), 8))
    }

    /// The unique id of the role.
    pub(crate) fn role_id(&self) -> String {
        format!(
            "AROA{}",
            hash(&format!("{}/{}", self.account, self.role), 8)
        )
    }

    pub(crate) fn arn(&self, region: &str) -> String {
        // The ARN of an assumed role is without the role's path.
        let role = self.role.rsplit('/').next().unwrap_or(&self.role);
        format!(
            "arn:{}:sts::{}:assumed-role/{role}/{}",
            partition(region),
            self.account,
            self.name
        )
    }
}

/// The partition that a region belongs to.
fn partition(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// The first bytes of a hash, in capital hex digits.
pub(crate) fn hash(text: &str, bytes: usize) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(bytes)
        .fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02X}");
            hex
        })
}

/// Reads the caller from a request's headers. `accounts` are access keys with their account.
pub(crate) fn caller(
    headers: &HeaderMap,
    accounts: &[(String, String)],
    default_account: &str,
    now: Timestamp,
) -> Result<Caller, AuthError> {
    let header = |name| headers.get(name)?.to_str().ok();
    let mut scope = header("authorization")
        .and_then(|value| value.strip_prefix("AWS4-HMAC-SHA256"))
        .and_then(|value| value.split_once("Credential="))
        .and_then(|(_, scope)| scope.split([',', ' ']).next())
        .ok_or(AuthError::Missing)?
        .split('/');
    let (Some(key), Some(_date), Some(region)) = (scope.next(), scope.next(), scope.next()) else {
        return Err(AuthError::Missing);
    };
    let region = region.to_owned();
    if let Some(session) = header("x-amz-security-token").and_then(Session::from_token) {
        if session.access_key() != key {
            return Err(AuthError::Unknown);
        }
        if session.expires <= now.as_second() {
            return Err(AuthError::Expired);
        }
        return Ok(Caller {
            arn: session.arn(&region),
            region,
            user_id: format!("{}:{}", session.role_id(), session.name),
            account: session.account,
        });
    }
    if key.starts_with("ASIA") && !accounts.iter().any(|(known, _)| known == key) {
        return Err(AuthError::Unknown);
    }
    let known = accounts.iter().find(|(known, _)| known == key);
    let account = known.map_or(default_account, |(_, account)| account);
    Ok(Caller {
        account: account.to_owned(),
        arn: format!("arn:{}:iam::{account}:user/replay", partition(&region)),
        region,
        user_id: format!("AIDA{}", hash(key, 8)),
    })
}
