//! One HTTP request to a server of our own.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sends a request to `host:port`, and returns status and body of the answer.
pub async fn request(address: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let (status, _, body) = exchange(address, address, method, path, body).await;
    (status, body)
}

/// The same to a server that is called by this `host`; with the answer's headers.
pub async fn exchange(
    address: &str,
    host: &str,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, String, String) {
    let connected = TcpStream::connect(address).await;
    let mut stream = connected.unwrap_or_else(|error| panic!("{address}: {error}"));
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("a request");
    stream.write_all(body.as_bytes()).await.expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.expect("a status");
    (status, head.to_ascii_lowercase(), body.to_owned())
}
