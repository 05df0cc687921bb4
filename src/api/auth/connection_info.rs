//! Facts about one connection. The listener adds them to every request of the connection as an extension.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;
use tonic::codegen::http::{Extensions, HeaderValue};

use crate::api::listener::connection_limit::network;
use crate::model::Sharer;

use super::certificate::CertificateNames;
use super::identity::Identity;
use super::in_use::InUse;

#[derive(Default)]
pub struct ConnectionInfo {
    pub peer: Option<SocketAddr>,
    /// Names in the client certificate that the TLS handshake verified.
    pub certificate: Option<CertificateNames>,
    /// Cancelled when the client certificate is revoked.
    pub revoked: CancellationToken,
    /// That of the peer's address; set when a call without an identity has taken a slot.
    sharer: OnceLock<Arc<Sharer>>,
    cached: Mutex<Option<CachedIdentity>>,
}

/// The last `authorization` header of the connection and the identity that it proved.
struct CachedIdentity {
    header: Option<HeaderValue>,
    /// Of the authenticator. A reload of keys changes it and so invalidates the entry.
    generation: u64,
    identity: Arc<Identity>,
}

impl ConnectionInfo {
    pub fn new(peer: SocketAddr, certificate: Option<CertificateNames>, revoked: CancellationToken) -> Arc<Self> {
        Arc::new(Self { peer: Some(peer), certificate, revoked, ..Self::default() })
    }

    /// The facts in a request's extensions; those of an unknown peer if the listener added none.
    pub fn of(extensions: &Extensions) -> Arc<Self> {
        extensions.get::<Arc<Self>>().cloned().unwrap_or_default()
    }

    /// The identity that this header proved before.
    pub fn cached(&self, header: Option<&HeaderValue>, generation: u64) -> Option<Arc<Identity>> {
        let cached = self.cached.lock();
        let entry = cached.as_ref().filter(|entry| entry.generation == generation)?;
        equal(entry.header.as_ref(), header).then(|| entry.identity.clone())
    }

    pub fn cache(&self, header: Option<HeaderValue>, generation: u64, identity: Arc<Identity>) {
        *self.cached.lock() = Some(CachedIdentity { header, generation, identity });
    }

    /// The network of the peer, for limits per address.
    pub fn network(&self) -> IpAddr {
        self.peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| network(peer.ip()))
    }

    /// The sharer of all calls without an identity that come from the network of the peer.
    pub fn sharer_among(&self, by_address: &InUse<IpAddr, Sharer>) -> Arc<Sharer> {
        let sharer = || match self.peer {
            Some(_) => by_address.of(&self.network()),
            None => Arc::default(),
        };
        self.sharer.get_or_init(sharer).clone()
    }

    /// The address of the peer for log messages.
    pub fn address(&self) -> String {
        self.peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string())
    }
}

/// The caller whose share of the memory a call uses: its identity, or else the network of its peer.
pub fn sharer_of(extensions: &Extensions) -> Option<Arc<Sharer>> {
    match extensions.get::<Arc<Identity>>() {
        Some(identity) => Some(identity.sharer.clone()),
        None => extensions.get::<Arc<ConnectionInfo>>()?.sharer.get().cloned(),
    }
}

/// Compares in constant time: behind a proxy, many callers share a connection.
fn equal(cached: Option<&HeaderValue>, header: Option<&HeaderValue>) -> bool {
    match (cached, header) {
        (Some(cached), Some(header)) => cached.as_bytes().ct_eq(header.as_bytes()).into(),
        (cached, header) => cached.is_none() && header.is_none(),
    }
}
