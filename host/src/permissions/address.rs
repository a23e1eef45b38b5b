//! Which addresses belong to everybody, which to a network, which to this machine, and which to nobody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far an address reaches, and so who may open it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The internet: any pattern that matches opens it.
    Public,
    /// A private network (RFC 1918, carrier-grade NAT, unique-local): only a pattern with its address or its whole name.
    Private,
    /// This machine or its link, and ranges with a meaning of their own (cloud metadata, documentation, benchmarks,
    /// reserved): only a pattern with the very address; loopback also by the name `localhost`.
    Special,
    /// Nobody that a connection could be made to (unspecified, multicast, broadcast): nothing opens it.
    Nobody,
}

impl Reach {
    /// How far an address reaches. An IPv6 address that carries an IPv4 address (v4-mapped, NAT64, 6to4, Teredo)
    /// reaches as far as that one, and never farther than its own range.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }
}

fn of_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        // "This network", of which 0.0.0.0 connects to this machine.
        [0, ..] | [224..=239, ..] | [255, 255, 255, 255] => Reach::Nobody,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Reach::Private,
        [127, ..]
        | [169, 254, ..]
        // Protocol assignments, documentation, the old 6to4 relays, AS112.
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [192, 31, 196, _]
        | [192, 52, 193, _]
        | [192, 175, 48, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        // Benchmarks.
        | [198, 18 | 19, ..]
        // Reserved.
        | [240..=255, ..] => Reach::Special,
        _ => Reach::Public,
    }
}

fn of_v6(address: Ipv6Addr) -> Reach {
    let carried = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        of_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Reach::Nobody,
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Special,
        [0xff00..=0xffff, ..] => Reach::Nobody,
        // NAT64: the address behind the translator.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => carried(high, low),
        // 6to4: what it carries is the gateway, which is a public address of somebody or a trick.
        [0x2002, high, low, ..] => carried(high, low),
        // Teredo: the client's address is written with all bits turned.
        [0x2001, 0, _, _, _, _, high, low] => match carried(!high, !low) {
            Reach::Public => Reach::Special,
            other => other,
        },
        [0xfc00..=0xfdff, ..] => Reach::Private,
        // Everything else that is public begins with 2 or 3; of that, documentation, benchmarks and identifiers are not.
        [0x2001, 0xdb8, ..] | [0x2001, 0..=0x1ff, ..] | [0x3fff, 0..=0xfff, ..] => Reach::Special,
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Special,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(text: &str) -> Reach {
        Reach::of(text.parse().unwrap())
    }

    #[test]
    fn public_addresses_are_public() {
        for text in ["8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "198.20.0.1"] {
            assert_eq!(reach(text), Reach::Public, "{text}");
        }
        for text in ["2606:4700::1111", "2a00:1450::1", "64:ff9b::8.8.8.8", "2002:808:808::1", "::ffff:8.8.8.8"] {
            assert_eq!(reach(text), Reach::Public, "{text}");
        }
    }

    #[test]
    fn private_networks_are_private_in_every_spelling() {
        for text in ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.255.255"] {
            assert_eq!(reach(text), Reach::Private, "{text}");
            assert_eq!(reach(&format!("::ffff:{text}")), Reach::Private, "{text}");
            assert_eq!(reach(&format!("64:ff9b::{text}")), Reach::Private, "{text}");
        }
        assert_eq!(reach("fd00::1"), Reach::Private);
        assert_eq!(reach("fc12::1"), Reach::Private);
        assert_eq!(reach("2002:a00:1::1"), Reach::Private);
    }

    #[test]
    fn this_machine_its_link_and_reserved_ranges_are_special() {
        for text in [
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
            "198.18.0.1",
            "192.0.0.1",
            "192.88.99.1",
            "240.0.0.1",
            "255.255.255.254",
        ] {
            assert_eq!(reach(text), Reach::Special, "{text}");
            assert_eq!(reach(&format!("::ffff:{text}")), Reach::Special, "{text}");
            assert_eq!(reach(&format!("64:ff9b::{text}")), Reach::Special, "{text}");
        }
        for text in [
            "::1",
            "fe80::1",
            "fec0::1",
            "2001:db8::1",
            "3fff::1",
            "2001:2::1",
            "2001:10::1",
            "64:ff9b:1::1",
            "100::1",
            "::127.0.0.1",
            "2002:7f00:1::",
            "2001:0:1:2:3:4:8080:fefe",
            "2001::1",
            "4000::1",
            "5f00::1",
        ] {
            assert_eq!(reach(text), Reach::Special, "{text}");
        }
    }

    #[test]
    fn nobody_is_behind_unspecified_multicast_and_broadcast() {
        for text in ["0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.255", "255.255.255.255"] {
            assert_eq!(reach(text), Reach::Nobody, "{text}");
            assert_eq!(reach(&format!("::ffff:{text}")), Reach::Nobody, "{text}");
        }
        for text in ["::", "ff02::1", "ff0e::1", "2002:0:1::"] {
            assert_eq!(reach(text), Reach::Nobody, "{text}");
        }
    }
}
