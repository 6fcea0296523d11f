//! Connections that can be reset: a fault that HTTP itself cannot express.
//!
//! A handler gets the [`Reset`] of its connection, and with it can end the connection in
//! the way a dying peer does: the client reads `ECONNRESET` in the place of an answer.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::{extract::connect_info::Connected, serve};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

/// A listener whose connections can be reset.
pub(crate) struct Listener(pub(crate) TcpListener);

impl serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = serve::Listener::accept(&mut self.0).await;
        let reset = Reset::default();
        (Connection { stream, reset }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Ends its connection without an answer.
#[derive(Clone, Default)]
pub(crate) struct Reset(Arc<AtomicBool>);

impl Reset {
    /// The next thing that would be written resets the connection instead.
    pub(crate) fn arm(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Connected<serve::IncomingStream<'_, Listener>> for Reset {
    fn connect_info(stream: serve::IncomingStream<'_, Listener>) -> Self {
        stream.io().reset.clone()
    }
}

/// A TCP connection and its [`Reset`].
pub(crate) struct Connection {
    stream: TcpStream,
    reset: Reset,
}

impl Connection {
    fn check(&self) -> io::Result<()> {
        if !self.reset.0.load(Ordering::Acquire) {
            return Ok(());
        }
        // Without lingering, closing the socket sends RST and not FIN.
        self.stream.set_zero_linger()?;
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Err(error) = self.check() {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
