//! An emulator of AWS (ministack): S3 with notifications into SQS, SNS, STS.
//!
//! It is not used for CloudTrail: its `LookupEvents` neither pages nor throttles, which
//! [`Replay`](super::Replay) does.

use std::process::Command;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;

use super::programs;
use super::records::REGION;
use super::servers::{Folder, Server, free_ports};

/// It imports much before it listens, and the machine may be busy.
const READY_LIMIT: Duration = Duration::from_mins(1);

const START_ATTEMPTS: u32 = 3;

/// A running emulator, with nothing in it. It ends when this is dropped.
pub struct Ministack {
    port: u16,
    // In this order: the server ends before its folder goes.
    _server: Server,
    _folder: Folder,
}

impl Ministack {
    /// Starts one on a free loopback port.
    pub async fn start() -> Self {
        let mut failure = String::new();
        for _ in 0..START_ATTEMPTS {
            match Self::try_start().await {
                Ok(ministack) => return ministack,
                Err(reason) => failure = reason,
            }
        }
        panic!("no AWS emulator after {START_ATTEMPTS} attempts: {failure}");
    }

    async fn try_start() -> Result<Self, String> {
        let folder = Folder::new("ministack-");
        let [port] = free_ports();
        let mut command = Command::new(programs::python());
        command
            .args(["-m", "ministack"])
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            .env("LOG_LEVEL", "WARNING")
            .env("TMPDIR", folder.path());
        let mut server = folder.spawn("ministack", command);
        let start = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
        {
            if let Some(failure) = server.failure() {
                return Err(failure);
            }
            if start.elapsed() > READY_LIMIT {
                return Err(format!("silent for {READY_LIMIT:?}: {}", server.log_tail()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(Self {
            port,
            _server: server,
            _folder: folder,
        })
    }

    /// What `AWS_ENDPOINT_URL` is set to.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// For clients of the test itself.
    pub async fn config(&self) -> aws_config::SdkConfig {
        let credentials = Credentials::new("test", "test", None, None, "test");
        aws_config::defaults(aws_config::BehaviorVersion::latest())
            .endpoint_url(self.url())
            .region(REGION)
            .credentials_provider(credentials)
            .load()
            .await
    }

    /// What an AWS client needs in its environment to talk to it and to nothing else.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL", self.url()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }
}
