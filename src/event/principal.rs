//! Who called: CloudTrail's `userIdentity` element as a stable [`Principal`] and its session.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};

use super::lenient;

/// A caller without what changes from session to session.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// The stable key: an ARN where there is one (of a role, its issuer's, with the path), else
    /// `type/accountId/principalId`, or the service name of an AWS service.
    pub key: Arc<str>,
    /// `userIdentity.type`; none for service events, which carry no type.
    pub kind: Option<Arc<str>>,
    /// The account that the caller belongs to: `userIdentity.accountId`, else the one in its ARN.
    pub account: Option<Arc<str>>,
    /// The AWS service that this principal is: `invokedBy` of services, and the service that a
    /// service-linked role belongs to.
    pub service: Option<Arc<str>>,
}

/// One caller as a record names it: the principal, and what belongs to this session.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Caller {
    /// The stable part.
    pub principal: Principal,
    /// The session's name: on EC2 nodes the instance id.
    pub session: Option<Arc<str>>,
    /// `userIdentity.arn` as the record has it.
    pub arn: Option<Arc<str>>,
}

/// Whether a session name is an EC2 instance id: `i-` and hex digits.
#[must_use]
pub fn is_instance_id(text: &str) -> bool {
    text.strip_prefix("i-").is_some_and(|hex| {
        !hex.is_empty() && hex.len() <= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// `userIdentity` as records have it: every field may be missing, null, empty or of another type.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct UserIdentity<'a> {
    #[serde(rename = "type", borrow, deserialize_with = "lenient::text")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "lenient::text")]
    principal_id: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "lenient::text")]
    arn: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "lenient::text")]
    account_id: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "lenient::text")]
    invoked_by: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "lenient::object")]
    session_context: Option<SessionContext<'a>>,
    #[serde(borrow, deserialize_with = "lenient::object")]
    on_behalf_of: Option<OnBehalfOf<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SessionContext<'a> {
    #[serde(borrow, deserialize_with = "lenient::object")]
    session_issuer: Option<SessionIssuer<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SessionIssuer<'a> {
    #[serde(borrow, deserialize_with = "lenient::text")]
    arn: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OnBehalfOf<'a> {
    #[serde(borrow, deserialize_with = "lenient::text")]
    user_id: Option<Cow<'a, str>>,
}

/// Longest text kept of one field: the longest ARN has 2,048 characters.
const MAX_TEXT: usize = 2048;

fn text<'t>(field: Option<&'t Cow<'_, str>>) -> Option<&'t str> {
    let text = field?.as_ref();
    let text = text
        .get(..text.floor_char_boundary(MAX_TEXT))
        .unwrap_or(text);
    (!text.is_empty()).then_some(text)
}

fn without_session(principal_id: &str) -> &str {
    principal_id.split(':').next().unwrap_or_default()
}

impl UserIdentity<'_> {
    pub(super) fn caller(&self) -> Caller {
        let kind = text(self.kind.as_ref());
        let arn = text(self.arn.as_ref());
        let account = text(self.account_id.as_ref());
        let principal_id = text(self.principal_id.as_ref());
        let invoked_by = text(self.invoked_by.as_ref());
        let issuer = self
            .session_context
            .as_ref()
            .and_then(|context| context.session_issuer.as_ref())
            .and_then(|issuer| text(issuer.arn.as_ref()));

        let fallback = |id: Option<&str>| {
            format!(
                "{}/{}/{}",
                kind.unwrap_or_default(),
                account.unwrap_or_default(),
                id.unwrap_or_default()
            )
        };
        let by_id = || fallback(principal_id.map(without_session));
        let key = match kind {
            Some("AssumedRole") => issuer
                .or_else(|| arn.map(|arn| assumed_role(arn).map_or(arn, |(role, _)| role)))
                .map_or_else(by_id, ToOwned::to_owned),
            Some("IAMUser" | "FederatedUser" | "Root" | "Role") => {
                arn.map_or_else(by_id, ToOwned::to_owned)
            }
            Some("AWSService") | None => invoked_by.or(arn).map_or_else(by_id, ToOwned::to_owned),
            Some("IdentityCenterUser") => fallback(
                self.on_behalf_of
                    .as_ref()
                    .and_then(|user| text(user.user_id.as_ref())),
            ),
            Some("AWSAccount") => by_id(),
            // A type that is new here: what there is.
            Some(_) => arn.map_or_else(by_id, ToOwned::to_owned),
        };
        let session = match kind {
            Some("AssumedRole") => arn
                .and_then(assumed_role)
                .map(|(_, session)| session)
                .or_else(|| principal_id.and_then(|id| Some(id.split_once(':')?.1))),
            Some("AWSAccount") => principal_id.and_then(|id| Some(id.split_once(':')?.1)),
            _ => None,
        };
        let named = account
            .or_else(|| arn.and_then(account_of))
            .or_else(|| issuer.and_then(account_of));
        let service = match kind {
            Some("AWSService") | None => invoked_by,
            _ => linked_service(&key),
        };
        Caller {
            session: session.filter(|name| !name.is_empty()).map(Into::into),
            arn: arn.map(Into::into),
            principal: Principal {
                kind: kind.map(Into::into),
                account: named.map(Into::into),
                service: service.map(Into::into),
                key: key.into(),
            },
        }
    }
}

/// Splits `arn:…:assumed-role/<role>/<session>` before its session.
fn assumed_role(arn: &str) -> Option<(&str, &str)> {
    let (role, session) = arn.rsplit_once('/')?;
    role.contains('/').then_some((role, session))
}

/// The account that an ARN names.
fn account_of(arn: &str) -> Option<&str> {
    let account = arn.strip_prefix("arn:")?.split(':').nth(3)?;
    (!account.is_empty()).then_some(account)
}

/// The service that a service-linked role's ARN names: `…:role/aws-service-role/<service>/…`.
fn linked_service(key: &str) -> Option<&str> {
    let (_, path) = key
        .strip_prefix("arn:")?
        .split_once(":role/aws-service-role/")?;
    path.split_once('/').map(|(service, _)| service)
}
