//! A proxy before a server that speaks AWS's protocols: it shows what was asked, and answers as
//! AWS does when something is wrong.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// How the operator names itself to AWS; whoever else asks is never answered with a fault.
const OPERATOR: &str = "app/ecr-audit-operator";

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The first line and the headers.
    pub head: String,
    pub body: String,
}

impl Asked {
    /// A field of a form (STS's protocol), decoded.
    pub fn field(&self, name: &str) -> Option<String> {
        let pairs = self.body.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.into_iter().find(|(key, _)| *key == name)?;
        let text = percent_encoding::percent_decode_str(value).decode_utf8();
        Some(text.unwrap().into_owned())
    }
}

/// What AWS answers when something is wrong.
#[derive(Clone, Debug)]
pub enum Answer {
    /// S3's errors, and STS's: status, code, message.
    Xml(u16, &'static str, &'static str),
    /// SQS's: status, code as its older protocol has it, type, message.
    Json(u16, &'static str, &'static str, &'static str),
    /// The connection is reset.
    Reset,
    /// The true answer without so many bytes at its end.
    Cut(usize),
    /// The true answer, later.
    Slow(Duration),
}

struct Fault {
    /// What is in the request's head.
    of: String,
    answer: Answer,
}

/// The proxy. It ends with this.
pub struct AwsProxy {
    port: u16,
    state: Arc<Mutex<State>>,
    listening: AbortHandle,
}

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    asked: Vec<Asked>,
    failed: u64,
}

impl AwsProxy {
    /// Before a server, given as `http://HOST:PORT`, on a port of its own choice (0) or this one.
    pub async fn before(server: &str, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = server.trim_start_matches("http://").to_owned();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, state) = (server.clone(), shared.clone());
                tokio::spawn(async move {
                    // A connection that breaks is the client's to tell.
                    let _ = serve(client, &server, &state).await;
                });
            }
        });
        Self {
            port,
            state,
            listening: listening.abort_handle(),
        }
    }

    /// What `AWS_ENDPOINT_URL` is set to.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on the operator's requests with this in their head are answered so. The first that
    /// fits counts.
    pub fn fail(&self, of: &str, answer: Answer) {
        let of = of.to_lowercase();
        self.state(|state| state.faults.push(Fault { of, answer }));
    }

    /// Everything works again; how often something did not.
    pub fn heal(&self) -> u64 {
        self.state(|state| {
            state.faults.clear();
            std::mem::take(&mut state.failed)
        })
    }

    /// What the operator has asked with this in head or body.
    pub fn asked(&self, what: &str) -> Vec<Asked> {
        self.state(|state| {
            let all = state.asked.iter();
            all.filter(|asked| asked.head.contains(what) || asked.body.contains(what))
                .cloned()
                .collect()
        })
    }
}

impl Drop for AwsProxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// One connection, one request: what follows is told to come on another.
async fn serve(mut client: TcpStream, server: &str, state: &Mutex<State>) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let end = loop {
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n");
        if let Some(end) = end {
            break end + 4;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let lower = head.to_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(0, |length| length.trim().parse::<usize>().unwrap());
    while bytes.len() < end + length {
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
    let mut answer = None;
    if lower.contains(OPERATOR) {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let body = String::from_utf8_lossy(&bytes[end..]).into_owned();
        let fault = state.faults.iter().find(|fault| lower.contains(&fault.of));
        answer = fault.map(|fault| fault.answer.clone());
        state.failed += u64::from(answer.is_some());
        state.asked.push(Asked {
            head: head.clone(),
            body,
        });
    }
    let cut = match answer {
        Some(Answer::Xml(status, code, message)) => {
            let error = format!("<Code>{code}</Code><Message>{message}</Message>");
            // STS wraps what S3 does not.
            let body = if lower.contains("/sts/") {
                format!("<ErrorResponse><Error>{error}</Error></ErrorResponse>")
            } else {
                format!("<Error>{error}</Error>")
            };
            return reply(&mut client, status, "Content-Type: application/xml", &body).await;
        }
        Some(Answer::Json(status, code, kind, message)) => {
            let headers = format!(
                "Content-Type: application/x-amz-json-1.0\r\nx-amzn-query-error: {code};Sender"
            );
            let body = json!({"__type": kind, "message": message}).to_string();
            return reply(&mut client, status, &headers, &body).await;
        }
        Some(Answer::Reset) => return client.set_zero_linger(),
        Some(Answer::Cut(bytes)) => bytes,
        Some(Answer::Slow(pause)) => {
            tokio::time::sleep(pause).await;
            0
        }
        None => 0,
    };
    let mut upstream = TcpStream::connect(server).await?;
    let first = head.find("\r\n").unwrap_or_default();
    let mut request = bytes[..first].to_vec();
    request.extend_from_slice(b"\r\nConnection: close");
    let rest = head[first..end].split("\r\n");
    for header in rest.filter(|line| !line.to_lowercase().starts_with("connection:")) {
        if !header.is_empty() {
            request.extend_from_slice(b"\r\n");
            request.extend_from_slice(header.as_bytes());
        }
    }
    request.extend_from_slice(b"\r\n\r\n");
    request.extend_from_slice(&bytes[end..]);
    upstream.write_all(&request).await?;
    if cut > 0 {
        let mut whole = Vec::new();
        let read = upstream.read_to_end(&mut whole);
        tokio::time::timeout(Duration::from_secs(30), read).await??;
        let rest = whole.len().saturating_sub(cut);
        return client.write_all(&whole[..rest]).await;
    }
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}

async fn reply(
    client: &mut TcpStream,
    status: u16,
    headers: &str,
    body: &str,
) -> std::io::Result<()> {
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status} Fault\r\n{headers}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    client.write_all(text.as_bytes()).await
}
