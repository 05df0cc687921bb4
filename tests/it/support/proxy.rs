//! A proxy in front of a server, whose connections can be cut, and whose server can be replaced.

use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};

/// Forwards connections. It stops when this is dropped.
pub struct Proxy {
    pub address: String,
    target: Arc<Mutex<String>>,
    open: Arc<Mutex<Vec<AbortHandle>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let target = Arc::new(Mutex::new(target.to_owned()));
        let open = Arc::<Mutex<Vec<AbortHandle>>>::default();
        let accepting = tokio::spawn(accept(listener, target.clone(), open.clone()));
        Self { address, target, open, accepting }
    }

    /// New connections go to another server.
    pub fn set_target(&self, target: &str) {
        target.clone_into(&mut self.target.lock().unwrap());
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

async fn accept(listener: TcpListener, target: Arc<Mutex<String>>, open: Arc<Mutex<Vec<AbortHandle>>>) {
    loop {
        let Ok((mut client, _)) = listener.accept().await else { return };
        let target = target.lock().unwrap().clone();
        let forwarding = tokio::spawn(async move {
            // The server may be down; then the connection is closed.
            let Ok(mut server) = TcpStream::connect(target).await else { return };
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
        open.lock().unwrap().push(forwarding.abort_handle());
    }
}
