//! What a listener does with a new connection when its limit is reached.

use std::net::IpAddr;
use std::sync::Arc;

use super::connection_limit::{ConnectionLimit, ConnectionPermit};
use super::idle_eviction::{EvictablePermit, IdleEviction, OpenConnection};

pub enum AdmissionPolicy {
    /// The main port: refuse the connection.
    Refuse(Arc<ConnectionLimit>),
    /// The admin ports: close the connection that has been idle longest.
    EvictIdlest(Arc<IdleEviction>),
}

impl AdmissionPolicy {
    /// `None`: close the connection at once.
    pub async fn admit(&self, peer: IpAddr) -> Option<Permit> {
        match self {
            Self::Refuse(limit) => limit.admit(peer).map(Permit::Counted),
            Self::EvictIdlest(eviction) => eviction.admit().await.map(Permit::Evictable),
        }
    }
}

/// Permission for one connection, held until it is closed.
pub enum Permit {
    Counted(#[expect(dead_code, reason = "counts until it is dropped")] ConnectionPermit),
    Evictable(EvictablePermit),
}

impl Permit {
    /// Completes if the connection must be closed to make room for another one.
    pub async fn evicted(&self) {
        match self {
            Self::Counted(_) => std::future::pending().await,
            Self::Evictable(permit) => permit.evicted().await,
        }
    }

    /// Counter of the connection's calls in flight, if calls are counted.
    pub fn open_connection(&self) -> Option<Arc<OpenConnection>> {
        match self {
            Self::Counted(_) => None,
            Self::Evictable(permit) => Some(permit.connection.clone()),
        }
    }
}
