//! How many connections there may be, over all and from one address.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

/// Counts connections.
pub struct ConnectionLimit {
    max: usize,
    max_per_address: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
    refused: u64,
}

impl ConnectionLimit {
    /// Nobody is connected.
    pub fn new(max: usize, max_per_address: usize) -> Arc<Self> {
        Arc::new(Self { max, max_per_address, open: Mutex::default() })
    }

    /// A place for a connection from that address; `None` when there is none. Held until dropped.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPermit> {
        let address = network(address);
        let mut open = self.open.lock();
        let mine = open.by_address.get(&address).copied().unwrap_or_default();
        if open.all >= self.max || mine >= self.max_per_address {
            open.refused += 1;
            // Told the first time and then ever less often: a flood must not become one of the log.
            if open.refused.is_power_of_two() {
                let (refused, connections) = (open.refused, open.all);
                tracing::warn!(%address, refused, connections, from_address = mine, "too many connections");
            }
            return None;
        }
        open.all += 1;
        *open.by_address.entry(address).or_default() += 1;
        Some(ConnectionPermit { admission: self.clone(), address })
    }
}

/// Who has a network of IPv6 has all its addresses: 64 bits tell networks apart.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        canonical @ IpAddr::V4(_) => canonical,
    }
}

/// The place of one connection.
pub struct ConnectionPermit {
    admission: Arc<ConnectionLimit>,
    address: IpAddr,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.admission.open.lock();
        open.all -= 1;
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_the_places_of_all() {
        let admission = ConnectionLimit::new(3, 2);
        let at = |text: &str| admission.admit(text.parse().unwrap());
        let (first, _second) = (at("10.0.0.1").unwrap(), at("::ffff:10.0.0.1").unwrap());
        assert!(at("10.0.0.1").is_none());
        let other = at("10.0.0.2").unwrap();
        assert!(at("10.0.0.3").is_none(), "all places are taken");
        drop(first);
        assert!(at("10.0.0.1").is_some(), "given back at once, and given away again");
        drop(other);
        assert_eq!(admission.open.lock().by_address.len(), 1, "addresses that have gone are forgotten");
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let admission = ConnectionLimit::new(9, 1);
        let _first = admission.admit("2001:db8:1:2::1".parse().unwrap()).unwrap();
        assert!(admission.admit("2001:db8:1:2:ffff::9".parse().unwrap()).is_none());
        assert!(admission.admit("2001:db8:1:3::1".parse().unwrap()).is_some());
    }
}
