//! A connection for one export.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};

use super::tls::Tls;
use crate::runners::export::error::{ExportError, text_of};
use crate::runners::export::options::PostgresOptions;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Silence after which the system asks whether the server is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

pub struct Connected {
    pub client: Client,
    pub io: Io,
    tls: Tls,
}

/// Reads and writes the socket while it is polled. `None`: it has ended.
pub struct Io(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Connected {
    pub async fn open(server: &PostgresOptions) -> Result<Self, ExportError> {
        let unavailable = |reason: String| ExportError::Connection(reason);
        let mut config: Config = server.url.parse().map_err(|error| unavailable(text_of(&error)))?;
        require_tls(&mut config);
        config.application_name("lineshaft").connect_timeout(CONNECT_TIMEOUT).keepalives_idle(KEEPALIVE_IDLE);
        if let Some(path) = &server.password_file {
            let read = tokio::fs::read_to_string(path).await;
            let password =
                read.map_err(|error| unavailable(format!("failed to read `{}`: {error}", path.display())))?;
            config.password(password.trim());
        }
        let tls = Tls::new(server.ca.as_deref()).map_err(unavailable)?;
        // The time limit of the driver is that of the TCP connection alone.
        let connected = timeout(CONNECT_TIMEOUT, config.connect(tls.clone())).await;
        let connected = connected.map_err(|_| unavailable(format!("no connection within {CONNECT_TIMEOUT:?}")))?;
        let (client, connection) = connected.map_err(|error| unavailable(text_of(&error)))?;
        // The client gets the error, too.
        let io = Io(Some(Box::pin(async move { drop(connection.await) })));
        Ok(Self { client, io, tls })
    }

    /// Ends the running query on the server, and the connection.
    pub async fn cancel(self) {
        let cancelled = timeout(CANCEL_TIMEOUT, self.client.cancel_token().cancel_query(self.tls)).await;
        if let Ok(Err(error)) = cancelled {
            tracing::warn!(error = text_of(&error), "failed to cancel the query of an export");
        }
    }

    pub async fn close(self) {
        drop(self.client);
        if let Some(io) = self.io.0 {
            let _ = timeout(CLOSE_TIMEOUT, io).await;
        }
    }
}

/// The default of the driver, to prefer TLS, sends the password in clear text to a server that says that it has no TLS.
fn require_tls(config: &mut Config) {
    let is_local = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback()),
    };
    let addresses = config.get_hostaddrs();
    let are_local = if addresses.is_empty() {
        config.get_hosts().iter().all(is_local)
    } else {
        addresses.iter().all(|ip| ip.to_canonical().is_loopback())
    };
    if config.get_ssl_mode() == SslMode::Prefer && !are_local {
        config.ssl_mode(SslMode::Require);
    }
}

impl Io {
    /// Runs work that uses the client. In one task with the connection, since handing each piece of the rows to another thread
    /// costs more than reading it.
    pub async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Some(io) = &mut self.0
                && io.as_mut().poll(context).is_ready()
            {
                self.0 = None;
            }
            work.as_mut().poll(context)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_to_another_machine_is_encrypted_unless_the_url_says_no() {
        for (url, expected) in [
            ("postgresql://db.example.com/park", SslMode::Require),
            ("postgresql://db.example.com/park?sslmode=prefer", SslMode::Require),
            ("postgresql://localhost,db.example.com/park", SslMode::Require),
            ("postgresql://localhost/park?hostaddr=10.0.0.1", SslMode::Require),
            ("postgresql://db.example.com/park?sslmode=disable", SslMode::Disable),
            ("postgresql://localhost/park", SslMode::Prefer),
            ("postgresql://[::1]/park", SslMode::Prefer),
            ("postgresql:///park?host=/run/postgresql", SslMode::Prefer),
        ] {
            let mut config: Config = url.parse().unwrap();
            require_tls(&mut config);
            assert_eq!(config.get_ssl_mode(), expected, "{url}");
        }
    }
}
