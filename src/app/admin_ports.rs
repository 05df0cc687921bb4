//! The admin ports: health and Prometheus. They are open before the store is recovered and until the very end,
//! so that a recovery and a drain are visible there.

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
use crate::telemetry::panics;

use super::error::{StartError, failed_to};
use super::listening::bind_when_free;

/// Opens the configured ports. `prometheus` is a host and a port. The returned tasks end after `stop`.
pub(super) async fn spawn(
    config: &Config,
    prometheus: Option<(String, u16)>,
    options: api::Options,
    scheduler: Arc<OnceLock<Handle>>,
    stop: &CancellationToken,
) -> Result<JoinSet<()>, StartError> {
    let mut open = JoinSet::new();
    if let Some((host, port)) = prometheus {
        for listener in listen_for_prometheus(host, port).await? {
            let serving =
                api::serve_metrics(listener, options.telemetry.metrics.clone(), options.memory.clone(), stop.clone());
            open.spawn(panics::essential(serving));
        }
    }
    if let Some(address) = config.server.health_listen {
        let listener = listen_for_health(address).await?;
        open.spawn(panics::essential(api::serve_health(listener, options, scheduler, stop.clone())));
    }
    Ok(open)
}

async fn listen_for_health(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listener = bind_when_free(async || TcpListener::bind(address).await, |error| error).await;
    let listener = listener.map_err(|source| StartError::ListenForHealth { address, source })?;
    let address = listener.local_addr().map_err(failed_to("read the local address"))?;
    tracing::info!(%address, "health endpoint listening");
    Ok(listener)
}

async fn listen_for_prometheus(host: String, port: u16) -> Result<Vec<TcpListener>, StartError> {
    let bind = async || {
        let name = host.clone();
        // Blocks while the name is resolved.
        let bound = tokio::task::spawn_blocking(move || bind(&name, port)).await;
        bound.unwrap_or_else(|error| Err((host.clone(), io::Error::other(error))))
    };
    let bound = bind_when_free(bind, |(_, error)| error).await;
    let bound = bound.map_err(|(address, source)| StartError::ListenForPrometheus { address, source })?;
    let mut listeners = Vec::new();
    for listener in bound {
        let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
        let listener = listener.map_err(failed_to("listen for Prometheus"))?;
        let address = listener.local_addr().map_err(failed_to("read the local address"))?;
        tracing::info!(%address, "Prometheus endpoint listening");
        if !address.ip().to_canonical().is_loopback() {
            let warning = "anyone who can reach this address can read the metrics, with the names of pools, handlers and namespaces";
            tracing::warn!(%address, "{warning}");
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Listens on all addresses of a host; `localhost` means both loopback addresses. An address that this machine
/// does not have, such as `::1` without IPv6, is skipped if there is another one.
///
/// # Errors
/// The address and the error of the operating system: the host is unknown, or the port is in use.
pub(super) fn bind(host: &str, port: u16) -> Result<Vec<std::net::TcpListener>, (String, io::Error)> {
    let with_name = |error| (format!("{host}:{port}"), error);
    let mut bound = Vec::new();
    let mut missing = None;
    for address in addresses(host, port).map_err(with_name)? {
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
    if found.is_empty() { Err(io::Error::other("the host has no address")) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_means_all_loopback_addresses_of_the_machine() {
        let bound = bind("LocalHost", 0).unwrap();
        let found: Vec<_> = bound.iter().map(|listener| listener.local_addr().unwrap().ip()).collect();
        assert_eq!(found[0], Ipv4Addr::LOCALHOST);
        let has_v6 = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        assert_eq!(found.len(), if has_v6 { 2 } else { 1 });
    }

    #[test]
    fn an_ipv6_address_may_have_brackets() {
        assert_eq!(addresses("[::1]", 7).unwrap(), addresses("::1", 7).unwrap());
        assert_eq!(addresses("0.0.0.0", 7).unwrap(), ["0.0.0.0:7".parse().unwrap()]);
    }

    #[test]
    fn an_error_names_the_address() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap();
        let (address, error) = bind("localhost", taken.port()).unwrap_err();
        assert_eq!((address, error.kind()), (taken.to_string(), io::ErrorKind::AddrInUse));
        let (address, _) = bind("no host at all", 9_464).unwrap_err();
        assert_eq!(address, "no host at all:9464");
        // An address for documentation, which no machine has.
        let (address, error) = bind("192.0.2.1", 9_464).unwrap_err();
        assert_eq!((&*address, error.kind()), ("192.0.2.1:9464", io::ErrorKind::AddrNotAvailable));
    }
}
