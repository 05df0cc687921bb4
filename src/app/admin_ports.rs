//! Ports beside the server's own. They are open before the store is, and until the very end: that it recovers
//! or drains can be seen there.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::config::Config;
use crate::scheduler::Handle;

use super::error::{StartError, failed_to};

/// Opens all that is asked for: the port for probes, and `prometheus`, which is a host and a port. What is
/// returned ends after `stop`.
pub(super) async fn spawn(
    config: &Config,
    prometheus: Option<(String, u16)>,
    options: api::Options,
    scheduler: Arc<OnceLock<Handle>>,
    stop: &CancellationToken,
) -> Result<JoinSet<()>, StartError> {
    let mut open = JoinSet::new();
    if let Some((host, port)) = prometheus {
        for listener in listen_for_scrapes(host, port).await? {
            open.spawn(api::serve_scrapes(listener, options.telemetry.metrics.clone(), stop.clone()));
        }
    }
    if let Some(address) = config.server.health_listen {
        let listener = listen_for_probes(address).await?;
        open.spawn(api::serve_probes(listener, options, scheduler, stop.clone()));
    }
    Ok(open)
}

async fn listen_for_probes(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| StartError::ListenForProbes { address, source })?;
    let address = listener.local_addr().map_err(failed_to("learn the address"))?;
    tracing::info!(%address, "answers probes");
    Ok(listener)
}

async fn listen_for_scrapes(host: String, port: u16) -> Result<Vec<TcpListener>, StartError> {
    let told = host.clone();
    // Names are looked up, which may take its time.
    let bound = tokio::task::spawn_blocking(move || bind(&host, port)).await;
    let bound = bound.unwrap_or_else(|error| Err((told, io::Error::other(error))));
    let bound = bound.map_err(|(address, source)| StartError::ListenForScrapes { address, source })?;
    let mut listeners = Vec::new();
    for listener in bound {
        let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
        let listener = listener.map_err(failed_to("listen for Prometheus"))?;
        let address = listener.local_addr().map_err(failed_to("learn the address"))?;
        tracing::info!(%address, "shows /metrics to Prometheus");
        if !address.ip().to_canonical().is_loopback() {
            let what =
                "everybody who can reach this address may read the metrics: names of pools, handlers, namespaces";
            tracing::warn!(%address, "{what}");
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Listens on every address of a host; `localhost` is both loopback addresses. An address that this machine
/// does not have is left out, as `::1` without IPv6, if there is another one.
///
/// # Errors
/// Where it failed, and the system's words: there is no such host, or a program listens there.
pub(super) fn bind(host: &str, port: u16) -> Result<Vec<std::net::TcpListener>, (String, io::Error)> {
    let named = |error| (format!("{host}:{port}"), error);
    let mut bound = Vec::new();
    let mut missing = None;
    for address in addresses(host, port).map_err(named)? {
        match std::net::TcpListener::bind(address) {
            Ok(listener) => bound.push(listener),
            Err(error) => {
                let error = (address.to_string(), error);
                match Errno::from_io_error(&error.1) {
                    Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT) => missing = Some(error),
                    _ => return Err(error),
                }
            }
        }
    }
    match missing {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let mut found: Vec<_> = (host, port).to_socket_addrs()?.collect();
    found.sort_unstable();
    found.dedup();
    if found.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_every_loopback_address_that_there_is() {
        let bound = bind("LocalHost", 0).unwrap();
        let found: Vec<_> = bound.iter().map(|listener| listener.local_addr().unwrap().ip()).collect();
        assert_eq!(found[0], Ipv4Addr::LOCALHOST);
        let has_v6 = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        assert_eq!(found.len(), if has_v6 { 2 } else { 1 });
    }

    #[test]
    fn addresses_are_understood_with_and_without_brackets() {
        assert_eq!(addresses("[::1]", 7).unwrap(), addresses("::1", 7).unwrap());
        assert_eq!(addresses("0.0.0.0", 7).unwrap(), ["0.0.0.0:7".parse().unwrap()]);
    }

    #[test]
    fn a_port_that_is_taken_and_a_host_that_is_none_are_named() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap();
        let (address, error) = bind("localhost", taken.port()).unwrap_err();
        assert_eq!((address, error.kind()), (taken.to_string(), io::ErrorKind::AddrInUse));
        let (address, _) = bind("no host at all", 9_464).unwrap_err();
        assert_eq!(address, "no host at all:9464");
        // An address for documentation: nobody has it.
        let (address, error) = bind("192.0.2.1", 9_464).unwrap_err();
        assert_eq!((&*address, error.kind()), ("192.0.2.1:9464", io::ErrorKind::AddrNotAvailable));
    }
}
