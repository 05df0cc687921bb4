//! A proxy in front of a server, whose connections can be cut or stop forwarding, and whose server can be replaced.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};

#[derive(Clone, Copy, Debug)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// By direction: what is sent is lost from now on, and nobody learns of it.
type Stalled = Arc<[AtomicBool; 2]>;

/// Forwards connections. It stops when this is dropped.
pub struct Proxy {
    pub address: String,
    target: Arc<Mutex<String>>,
    open: Arc<Mutex<Vec<AbortHandle>>>,
    stalled: Stalled,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let target = Arc::new(Mutex::new(target.to_owned()));
        let open = Arc::<Mutex<Vec<AbortHandle>>>::default();
        let stalled = Stalled::default();
        let accepting = tokio::spawn(accept(listener, target.clone(), open.clone(), stalled.clone()));
        Self { address, target, open, stalled, accepting }
    }

    /// New connections go to another server.
    pub fn set_target(&self, target: &str) {
        target.clone_into(&mut self.target.lock().unwrap());
    }

    /// Forwards nothing more in this direction. The connections stay open.
    pub fn stall(&self, direction: Direction) {
        self.stalled[direction as usize].store(true, Ordering::SeqCst);
    }

    /// Closes all connections.
    pub fn cut(&self) {
        self.open.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(
    listener: TcpListener,
    target: Arc<Mutex<String>>,
    open: Arc<Mutex<Vec<AbortHandle>>>,
    stalled: Stalled,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        let target = target.lock().unwrap().clone();
        let stalled = stalled.clone();
        let forwarding = tokio::spawn(async move {
            // The server may be down; then the connection is closed.
            let Ok(server) = TcpStream::connect(target).await else { return };
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            tokio::join!(
                forward(from_client, to_server, &stalled[Direction::ToServer as usize]),
                forward(from_server, to_client, &stalled[Direction::ToClient as usize]),
            );
        });
        open.lock().unwrap().push(forwarding.abort_handle());
    }
}

/// Forwards until either side closes the connection.
async fn forward(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, is_stalled: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if is_stalled.load(Ordering::SeqCst) {
            // Not even the end arrives.
            if read == 0 {
                return std::future::pending().await;
            }
        } else if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            // Fails if that side has closed the connection.
            let _ = to.shutdown().await;
            return;
        }
    }
}
