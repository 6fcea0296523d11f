//! Whose eyes read: the SDK's own chain of credentials, or a role assumed with these.
//!
//! Region, credentials and endpoints come from the SDK's standard variables and files
//! (`AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_STS` …); STS is asked in the region that is read.

use std::{sync::Arc, time::Duration};

use aws_config::{
    AppName, BehaviorVersion, Region, SdkConfig, retry::RetryConfig, sts::AssumeRoleProvider,
    timeout::TimeoutConfig,
};
use aws_credential_types::provider::SharedCredentialsProvider;

use super::{PollerKey, Reason, fault::Fault};
use crate::api::AssumeRole;

/// The session's name where the policy gives none.
const SESSION: &str = "ecr-audit-operator";

/// What a reader needs to ask AWS.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// Region and credentials.
    pub(crate) config: SdkConfig,
    /// The account that these credentials read.
    pub(crate) account: Arc<str>,
}

/// Whose credentials these are.
struct Identity {
    account: Arc<str>,
    partition: String,
}

/// Finds credentials and asks whose they are; a role is assumed with the first request.
pub(crate) async fn access(key: &PollerKey) -> Result<Access, Fault> {
    if key.region.is_empty() {
        return Err(Fault::new(Reason::NoRegion, "no region to read is known"));
    }
    let config = own(&key.region).await;
    let Some(role) = key.assume_role.as_deref() else {
        let identity = identity(&config).await?;
        if let Some(wanted) = key.account().filter(|wanted| **wanted != identity.account) {
            let message = format!(
                "the credentials are of account {}, not of {wanted}: a role has to be assumed",
                identity.account
            );
            return Err(Fault::new(Reason::WrongAccount, message));
        }
        return Ok(Access {
            config,
            account: identity.account,
        });
    };
    let arn = role_arn(role, key, &config).await?;
    let account = arn.split(':').nth(4).filter(|account| !account.is_empty());
    let account: Arc<str> = account
        .ok_or_else(|| Fault::new(Reason::AssumeRoleFailed, "the role's ARN names no account"))?
        .into();
    if let Some(wanted) = key.account().filter(|wanted| **wanted != account) {
        let message = format!("the role is of account {account}, not of {wanted}");
        return Err(Fault::new(Reason::WrongAccount, message));
    }
    Ok(Access {
        config: assumed(role, arn, config).await,
        account,
    })
}

/// Region and credentials alone: for buckets and queues it does not matter whose account it is.
pub(crate) async fn config(key: &PollerKey) -> Result<SdkConfig, Fault> {
    if key.region.is_empty() {
        return Err(Fault::new(Reason::NoRegion, "no region to read is known"));
    }
    let config = own(&key.region).await;
    match key.assume_role.as_deref() {
        Some(role) => {
            let arn = role_arn(role, key, &config).await?;
            Ok(assumed(role, arn, config).await)
        }
        None => Ok(config),
    }
}

/// The operator's own credentials, in a region.
async fn own(region: &str) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .read_timeout(Duration::from_secs(20))
        .operation_attempt_timeout(Duration::from_secs(30))
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .retry_config(RetryConfig::standard())
        .timeout_config(timeouts);
    if let Ok(name) = AppName::new("ecr-audit-operator") {
        loader = loader.app_name(name);
    }
    loader.load().await
}

async fn identity(config: &SdkConfig) -> Result<Identity, Fault> {
    let answer = aws_sdk_sts::Client::new(config)
        .get_caller_identity()
        .send()
        .await
        .map_err(|error| Fault::of(&error))?;
    let malformed = || Fault::new(Reason::Malformed, "GetCallerIdentity names no account");
    Ok(Identity {
        account: answer.account().ok_or_else(malformed)?.into(),
        partition: answer
            .arn()
            .and_then(|arn| arn.split(':').nth(1))
            .ok_or_else(malformed)?
            .to_owned(),
    })
}

/// The role's ARN; its partition is that of the operator's own credentials.
async fn role_arn(role: &AssumeRole, key: &PollerKey, config: &SdkConfig) -> Result<String, Fault> {
    if let Some(arn) = &role.role_arn {
        return Ok(arn.clone());
    }
    let Some(name) = &role.role_name else {
        let message = "assumeRole names neither roleArn nor roleName";
        return Err(Fault::new(Reason::AssumeRoleFailed, message));
    };
    let identity = identity(config).await?;
    let account = key.account().unwrap_or(&identity.account);
    let name = name.trim_start_matches('/');
    Ok(format!(
        "arn:{}:iam::{account}:role/{name}",
        identity.partition
    ))
}

async fn assumed(role: &AssumeRole, arn: String, config: SdkConfig) -> SdkConfig {
    let mut provider = AssumeRoleProvider::builder(arn)
        .session_name(role.session_name.as_deref().unwrap_or(SESSION))
        .configure(&config);
    if let Some(id) = &role.external_id {
        provider = provider.external_id(id);
    }
    if let Some(tags) = role.tags.as_ref().filter(|tags| !tags.is_empty()) {
        provider = provider.tags(tags.clone());
    }
    // The provider itself caches nothing; the client's identity cache does.
    let provider = SharedCredentialsProvider::new(provider.build().await);
    config.into_builder().credentials_provider(provider).build()
}
