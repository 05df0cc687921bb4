//! Limits the number of connections, in total and per address. A connection beyond a limit is refused.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

pub struct ConnectionLimit {
    max: usize,
    max_per_address: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
    refused: u64,
}

impl ConnectionLimit {
    pub fn new(max: usize, max_per_address: usize) -> Arc<Self> {
        Arc::new(Self { max, max_per_address, open: Mutex::default() })
    }

    /// Counts a connection from `address` until the permit is dropped. `None` if a limit is reached.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPermit> {
        let address = network(address);
        let mut open = self.open.lock();
        let from_address = open.by_address.get(&address).copied().unwrap_or_default();
        if open.total >= self.max || from_address >= self.max_per_address {
            open.refused += 1;
            // Logged ever less often, so that a flood of connections does not flood the log.
            if open.refused.is_power_of_two() {
                let (refused, connections) = (open.refused, open.total);
                tracing::warn!(%address, refused, connections, from_address, "too many connections");
            }
            return None;
        }
        open.total += 1;
        *open.by_address.entry(address).or_default() += 1;
        Some(ConnectionPermit { limit: self.clone(), address })
    }
}

/// The unit in which addresses are counted: an IPv4 address, or the /64 network of an IPv6 address, whose
/// owner can use all addresses of it.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        canonical @ IpAddr::V4(_) => canonical,
    }
}

pub struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    address: IpAddr,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.limit.open.lock();
        open.total -= 1;
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
    fn connections_are_limited_in_total_and_per_address() {
        let limit = ConnectionLimit::new(3, 2);
        let admit = |text: &str| limit.admit(text.parse().unwrap());
        let (first, _second) = (admit("10.0.0.1").unwrap(), admit("::ffff:10.0.0.1").unwrap());
        assert!(admit("10.0.0.1").is_none());
        let other = admit("10.0.0.2").unwrap();
        assert!(admit("10.0.0.3").is_none(), "the total limit is reached");
        drop(first);
        assert!(admit("10.0.0.1").is_some(), "a dropped permit is available again");
        drop(other);
        assert_eq!(limit.open.lock().by_address.len(), 1, "an address without connections is removed");
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let limit = ConnectionLimit::new(9, 1);
        let _first = limit.admit("2001:db8:1:2::1".parse().unwrap()).unwrap();
        assert!(limit.admit("2001:db8:1:2:ffff::9".parse().unwrap()).is_none());
        assert!(limit.admit("2001:db8:1:3::1".parse().unwrap()).is_some());
    }
}
