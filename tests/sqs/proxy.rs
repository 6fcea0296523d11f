//! A proxy in front of the emulator's S3 that is slow, or fails, as it is told to. Faults are
//! given to `GET` requests alone: those are the reader's.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Names the file that says what to do.
pub const CONTROL: &str = "TEST_PROXY_CONTROL";

pub struct Proxy {
    address: String,
    control: tempfile::TempDir,
}

/// Tells this process's proxy what to do from now on: `""`, `slow`, `503`, `reset`, `cut` or
/// `denied`.
pub fn tell(what: &str) {
    std::fs::write(
        PathBuf::from(std::env::var(CONTROL).unwrap()).join("mode"),
        what,
    )
    .unwrap();
}

/// How many objects were asked for.
pub fn asked() -> u32 {
    let file = PathBuf::from(std::env::var(CONTROL).unwrap()).join("asked");
    std::fs::read_to_string(file).map_or(0, |text| text.parse().unwrap_or(0))
}

impl Proxy {
    pub async fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let control = tempfile::tempdir().unwrap();
        let upstream = upstream.trim_start_matches("http://").to_owned();
        let folder = control.path().to_owned();
        let asked = Arc::new(AtomicU32::new(0));
        tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    return;
                };
                let (upstream, folder, asked) = (upstream.clone(), folder.clone(), asked.clone());
                tokio::spawn(async move {
                    // A connection that breaks is the client's to tell.
                    let _ = serve(client, &upstream, folder, &asked).await;
                });
            }
        });
        Self { address, control }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn control(&self) -> PathBuf {
        self.control.path().to_owned()
    }
}

/// One connection, one request: what follows is told to come on another.
async fn serve(
    mut client: TcpStream,
    upstream: &str,
    folder: PathBuf,
    asked: &AtomicU32,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut bytes = [0; 4096];
        match client.read(&mut bytes).await? {
            0 => return Ok(()),
            read => head.extend_from_slice(&bytes[..read]),
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    // Lists and the like have a query; objects are asked for with their own.
    let is_object = text.starts_with("GET ") && text.contains("x-id=GetObject");
    let mode = std::fs::read_to_string(folder.join("mode")).unwrap_or_default();
    if is_object {
        let count = asked.fetch_add(1, Ordering::SeqCst) + 1;
        std::fs::write(folder.join("asked"), count.to_string())?;
        match mode.as_str() {
            "slow" => tokio::time::sleep(Duration::from_secs(8)).await,
            "503" => return answer(&mut client, "503 Slow Down", "SlowDown").await,
            "denied" => return answer(&mut client, "403 Forbidden", "AccessDenied").await,
            "reset" => return Ok(()),
            _ => {}
        }
    }
    let mut server = TcpStream::connect(upstream).await?;
    let first = text.find("\r\n").unwrap_or_default();
    let mut request = head[..first].to_vec();
    request.extend_from_slice(b"\r\nConnection: close");
    request.extend_from_slice(&head[first..]);
    server.write_all(&request).await?;
    if is_object && mode == "cut" {
        let mut whole = Vec::new();
        server.read_to_end(&mut whole).await?;
        let half = whole.len().saturating_sub(20);
        return client.write_all(&whole[..half]).await;
    }
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

async fn answer(client: &mut TcpStream, status: &str, code: &str) -> std::io::Result<()> {
    let body = format!("<Error><Code>{code}</Code><Message>by the proxy</Message></Error>");
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    client.write_all(text.as_bytes()).await
}
