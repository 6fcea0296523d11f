//! What a program asks of AWS, written down: a proxy in front of an emulator.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::records::{ACCOUNT, REGION};

/// A call, as IAM decides on it: the action and the resource's ARN.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    pub action: String,
    pub resource: String,
}

/// The proxy. It ends with this.
pub struct Calls {
    address: String,
    seen: Arc<Mutex<BTreeSet<Call>>>,
    listening: AbortHandle,
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Calls {
    /// A proxy in front of the emulator at this URL; an object takes so long to come.
    pub async fn before(upstream: &str, slowness: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound address").to_string();
        let upstream = upstream.trim_start_matches("http://").to_owned();
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let into = seen.clone();
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (upstream, into) = (upstream.clone(), into.clone());
                tokio::spawn(async move {
                    // A connection that breaks is the client's to tell.
                    let _ = serve(client, &upstream, slowness, &into).await;
                });
            }
        });
        Self {
            address,
            seen,
            listening: listening.abort_handle(),
        }
    }

    /// What `AWS_ENDPOINT_URL` is set to.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked for so far, once each.
    pub fn seen(&self) -> BTreeSet<Call> {
        self.seen.lock().expect("no panic").clone()
    }
}

/// One connection, one request: what follows is told to come on another.
async fn serve(
    mut client: TcpStream,
    upstream: &str,
    slowness: Duration,
    seen: &Mutex<BTreeSet<Call>>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let (head, length) = loop {
        let mut bytes = [0; 4096];
        match client.read(&mut bytes).await? {
            0 => return Ok(()),
            read => request.extend_from_slice(&bytes[..read]),
        }
        let end = request.windows(4).position(|end| end == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&request[..end]).into_owned();
            let body = header(&head, "content-length").and_then(|text| text.parse().ok());
            break (head, end + 4 + body.unwrap_or(0));
        }
    };
    while request.len() < length {
        let mut bytes = [0; 4096];
        match client.read(&mut bytes).await? {
            0 => return Ok(()),
            read => request.extend_from_slice(&bytes[..read]),
        }
    }
    let body = &request[head.len() + 4..];
    let call = call(&head, body);
    let is_object = call.action == "s3:GetObject";
    seen.lock().expect("no panic").insert(call);
    if is_object {
        tokio::time::sleep(slowness).await;
    }
    let mut server = TcpStream::connect(upstream).await?;
    let first = head.find("\r\n").unwrap_or(head.len());
    server.write_all(&request[..first]).await?;
    server.write_all(b"\r\nConnection: close").await?;
    server.write_all(&request[first..]).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then_some(value.trim())
    })
}

/// The action and resource of a request. One that is not known keeps its own words, and is then
/// missing in every policy.
fn call(head: &str, body: &[u8]) -> Call {
    // Credential=ID/DATE/REGION/SERVICE/aws4_request
    let scope = header(head, "authorization").and_then(|text| text.split("Credential=").nth(1));
    let service = scope
        .and_then(|scope| scope.split('/').nth(3))
        .unwrap_or("?");
    let line = head.lines().next().unwrap_or_default();
    let unknown = || Call {
        action: format!("{service}:{line}"),
        resource: "*".to_owned(),
    };
    match service {
        "s3" => {
            let mut words = line.split(' ');
            let (method, target) = (words.next(), words.next().unwrap_or_default());
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let path = percent_decode_str(path.trim_matches('/')).decode_utf8_lossy();
            let action = match (method, path.contains('/')) {
                (Some("GET"), false) if query.contains("list-type=2") => "s3:ListBucket",
                (Some("GET"), true) if query == "x-id=GetObject" => "s3:GetObject",
                _ => return unknown(),
            };
            Call {
                action: action.to_owned(),
                resource: format!("arn:aws:s3:::{path}"),
            }
        }
        "sqs" => {
            let target = header(head, "x-amz-target").unwrap_or_default();
            let name = target.trim_start_matches("AmazonSQS.");
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            let url = body["QueueUrl"].as_str().unwrap_or_default();
            let queue = url.rsplit('/').next().unwrap_or_default();
            Call {
                // A batch needs the right to do it once.
                action: format!("sqs:{}", name.trim_end_matches("Batch")),
                resource: format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}"),
            }
        }
        "sts" => {
            let body = String::from_utf8_lossy(body);
            let name = body
                .split('&')
                .find_map(|pair| pair.strip_prefix("Action="));
            Call {
                action: format!("sts:{}", name.unwrap_or("?")),
                resource: "*".to_owned(),
            }
        }
        _ => unknown(),
    }
}
