//! Networks, and which addresses belong to the public Internet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of addresses in CIDR notation, such as `10.2.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Parses `ADDRESS/LENGTH`, or an address alone. The error says what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr =
            address.parse().map_err(|_| "must be a network such as \"10.2.0.0/16\" or \"fd00::/8\"".to_owned())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match length {
            None => bits,
            Some(length) => length
                .parse()
                .ok()
                .filter(|prefix| *prefix <= bits)
                .ok_or_else(|| format!("has the length {length:?}, must be 0 to {bits}"))?,
        };
        let network = Self { address, prefix };
        let first = network.first_address();
        if first != address {
            return Err(format!("has bits after its length; write \"{first}/{prefix}\""));
        }
        Ok(network)
    }

    /// An IPv6 address that stands for an IPv4 address (see [`translated`]) belongs to the networks of both.
    pub fn contains(&self, address: IpAddr) -> bool {
        [Some(address), translated(address).map(IpAddr::V4)].into_iter().flatten().any(|address| {
            match (self.address, address) {
                (IpAddr::V4(own), IpAddr::V4(other)) => {
                    u64::from(own.to_bits() ^ other.to_bits()) >> (32 - self.prefix) == 0
                }
                (IpAddr::V6(own), IpAddr::V6(other)) => {
                    let different = own.to_bits() ^ other.to_bits();
                    different.checked_shr(u32::from(128 - self.prefix)).unwrap_or(0) == 0
                }
                _ => false,
            }
        })
    }

    fn first_address(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(u32::from(32 - self.prefix)).unwrap_or(0);
                Ipv4Addr::from_bits(address.to_bits() & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(u32::from(128 - self.prefix)).unwrap_or(0);
                Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Networks that are not part of the public Internet, or whose addresses lead to the operator of a cloud: the
/// special-purpose registries of IANA, and the address of the Azure platform.
const NOT_PUBLIC_V4: [(Ipv4Addr, u8); 15] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Multicast, reserved and broadcast.
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// All global unicast addresses are in 2000::/3; these are the exceptions in it: protocol assignments (with Teredo),
/// documentation, and 6to4, which leads to any IPv4 address.
const NOT_PUBLIC_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

const GLOBAL_UNICAST: Network = Network { address: IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0)), prefix: 3 };

/// Whether the address is one of a host on the public Internet. What is not known to be public is not.
pub fn is_public(address: IpAddr) -> bool {
    match translated(address).map_or(address, IpAddr::V4) {
        IpAddr::V4(address) => NOT_PUBLIC_V4
            .iter()
            .all(|(network, prefix)| !Network { address: (*network).into(), prefix: *prefix }.contains(address.into())),
        IpAddr::V6(address) => {
            let address = IpAddr::V6(address);
            let is_special = NOT_PUBLIC_V6
                .iter()
                .any(|(network, prefix)| Network { address: (*network).into(), prefix: *prefix }.contains(address));
            GLOBAL_UNICAST.contains(address) && !is_special
        }
    }
}

/// The IPv4 address to which an IPv6 address leads: `::ffff:0:0/96` (mapped), and `64:ff9b::/96` (NAT64).
fn translated(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            let [.., a, b, c, d] = address.octets();
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for text in ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "192.0.1.1", "223.255.255.255", "11.0.0.1"] {
            assert!(is_public(address(text)), "{text}");
        }
        for text in ["2606:4700::1111", "2a00:1450:4001::200e", "2400:cb00::1", "2001:200::1", "3ffe::1"] {
            assert!(is_public(address(text)), "{text}");
        }
        // NAT64 and mapped addresses are judged by the IPv4 address that they lead to.
        for text in ["64:ff9b::1.1.1.1", "::ffff:8.8.8.8"] {
            assert!(is_public(address(text)), "{text}");
        }
    }

    #[test]
    fn addresses_of_the_own_machine_network_and_cloud_are_not_public() {
        let loopback = ["127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::127.0.0.1"];
        let unspecified = ["0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0"];
        let private = ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fc00::1", "fdab::1"];
        let link_local = ["169.254.0.1", "fe80::1", "febf::1", "fec0::1"];
        let metadata = ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"];
        let mapped = ["::ffff:169.254.169.254", "::ffff:a00:1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe"];
        let tunnels =
            ["2002:7f00:1::", "2002:a9fe:a9fe::1", "2001::1", "2001:0:4136:e378::", "64:ff9b:1::1", "192.88.99.1"];
        let multicast = ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"];
        let reserved = ["240.0.0.1", "255.255.255.255", "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1"];
        let reserved_v6 = ["2001:db8::1", "3fff::1", "100::1", "4000::1", "5f00::1", "2001:2::1", "2001:10::1"];
        let all: [&[&str]; 10] = [
            &loopback,
            &unspecified,
            &private,
            &link_local,
            &metadata,
            &mapped,
            &tunnels,
            &multicast,
            &reserved,
            &reserved_v6,
        ];
        for text in all.into_iter().flatten() {
            assert!(!is_public(address(text)), "{text}");
        }
    }

    #[test]
    fn a_network_contains_the_addresses_with_its_prefix() {
        for (network, inside, outside) in [
            ("10.2.0.0/16", "10.2.255.1", "10.3.0.0"),
            ("10.2.0.0/16", "::ffff:10.2.0.1", "::ffff:10.3.0.1"),
            ("10.2.0.0/16", "64:ff9b::10.2.0.1", "2002:a02:1::"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::/0", "::1", "127.0.0.1"),
            ("::1", "::1", "::2"),
        ] {
            let parsed = Network::parse(network).unwrap();
            assert!(parsed.contains(address(inside)) && !parsed.contains(address(outside)), "{network}");
        }
    }

    #[test]
    fn networks_that_are_none_are_refused() {
        for text in ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "fd00::/129", "localhost", "10.1.0.0/8"] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
        let error = Network::parse("10.1.2.3/8").unwrap_err();
        assert!(error.contains("\"10.0.0.0/8\""), "{error}");
    }

    proptest! {
        #[test]
        fn every_ipv4_address_has_the_same_class_as_its_mapped_form(bits: u32) {
            let plain = Ipv4Addr::from_bits(bits);
            prop_assert_eq!(is_public(plain.into()), is_public(plain.to_ipv6_mapped().into()));
        }

        #[test]
        fn a_network_is_parsed_from_its_own_text(bits: u128, prefix in 0_u8..=128) {
            let network = Network { address: Ipv6Addr::from_bits(bits).into(), prefix };
            let network = Network { address: network.first_address(), prefix };
            prop_assert_eq!(Network::parse(&network.to_string()), Ok(network));
            prop_assert!(network.contains(Ipv6Addr::from_bits(bits).into()));
        }
    }
}
