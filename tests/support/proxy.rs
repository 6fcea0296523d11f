//! A network that fails when a test says so: a TCP proxy before a server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    /// They arrive.
    Works,
    /// They are held back, and arrive once it works again: a partition that heals.
    Stalls,
    /// Connections break, and new ones are closed at once.
    Refuses,
}

/// A proxy before one server. It ends with this.
pub struct Proxy {
    address: SocketAddr,
    network: Arc<watch::Sender<Network>>,
    /// How many bytes the server may still say before it stalls.
    left: Arc<AtomicU64>,
    listening: AbortHandle,
}

impl Proxy {
    /// A network that works, before the server at `HOST:PORT`.
    pub async fn before(server: impl Into<String>) -> Self {
        let server = server.into();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("a bound address");
        let network = Arc::new(watch::Sender::new(Network::Works));
        let left = Arc::new(AtomicU64::new(u64::MAX));
        let (states, allowance) = (network.clone(), left.clone());
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(
                    client,
                    server.clone(),
                    states.clone(),
                    allowance.clone(),
                ));
            }
        });
        Self {
            address,
            network,
            left,
            listening: listening.abort_handle(),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds back everything, in both directions, until [`Self::heal`].
    pub fn stall(&self) {
        self.network.send_replace(Network::Stalls);
    }

    /// Holds back everything as soon as the server has said so many bytes more, and waits for that.
    pub async fn stall_after(&self, bytes: u64) {
        self.left.store(bytes, Ordering::Relaxed);
        let mut network = self.network.subscribe();
        let stalled = network.wait_for(|state| *state == Network::Stalls).await;
        stalled.expect("a proxy");
        self.left.store(u64::MAX, Ordering::Relaxed);
    }

    /// Breaks every connection and refuses new ones until [`Self::heal`].
    pub fn cut(&self) {
        self.network.send_replace(Network::Refuses);
    }

    /// Everything arrives again, also what was held back.
    pub fn heal(&self) {
        self.network.send_replace(Network::Works);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

async fn connection(
    client: TcpStream,
    server: String,
    network: Arc<watch::Sender<Network>>,
    left: Arc<AtomicU64>,
) {
    let mut state = network.subscribe();
    let pass = async {
        // Who connects into a partition is not told that nobody hears.
        works(&mut network.subscribe()).await;
        let Ok(server) = TcpStream::connect(server).await else {
            return;
        };
        let (client_reads, client_writes) = client.into_split();
        let (server_reads, server_writes) = server.into_split();
        let unlimited = AtomicU64::new(u64::MAX);
        tokio::join!(
            copy(client_reads, server_writes, &network, &unlimited),
            copy(server_reads, client_writes, &network, &left),
        );
    };
    tokio::select! {
        () = pass => {}
        _ = state.wait_for(|state| *state == Network::Refuses) => {}
    }
}

/// Waits until the network works.
async fn works(network: &mut watch::Receiver<Network>) {
    if network
        .wait_for(|state| *state == Network::Works)
        .await
        .is_err()
    {
        std::future::pending::<()>().await;
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    network: &watch::Sender<Network>,
    left: &AtomicU64,
) {
    let mut state = network.subscribe();
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        let said = u64::try_from(length).expect("a small buffer");
        let had = left.load(Ordering::Relaxed);
        if had != u64::MAX {
            left.store(had.saturating_sub(said), Ordering::Relaxed);
            if had < said {
                network.send_replace(Network::Stalls);
            }
        }
        works(&mut state).await;
        if length == 0 || to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
