//! Where an HTTP request goes, and the patterns that name such places.
//!
//! Invariant: a host has one spelling here. Numbers that a resolver would take for an address (`2130706433`, `127.1`,
//! `0177.0.0.1`, `0x7f.1`) and IPv4 addresses in IPv6 clothes are refused, not translated.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Reach;
use crate::job::visible;

/// The forms of a pattern, for messages.
const FORMS: &str =
    "must be HOST:PORT, such as `api.example.com:443`, `*.example.com:443`, `127.0.0.1:*` or `[::1]:8080`";

/// The host of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name in lower case, without a point at its end.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl Target {
    /// Reads the authority of a URL: a host, and a port when it is not the scheme's own.
    ///
    /// # Errors
    /// The end of a sentence: what is wrong with it.
    pub fn parse(authority: &str, default_port: u16) -> Result<Self, String> {
        if authority.contains('@') {
            return Err("carries a user name; send it in the `authorization` header".to_owned());
        }
        let (host, port) = split(authority)?;
        let port = match port {
            None | Some("") => default_port,
            Some(port) => parse_port(port)?,
        };
        Ok(Self { host: Host::parse(host)?, port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Host {
    /// Reads a host in its one spelling.
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or("opens a bracket and does not close it")?;
            let address: Ipv6Addr = inner.parse().map_err(|_| "is not an IPv6 address in brackets".to_owned())?;
            return match address.to_ipv4_mapped() {
                Some(address) => Err(format!("is an IPv4 address in IPv6 clothes; write {address}")),
                None => Ok(Self::Address(address.into())),
            };
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Ok(Self::Address(address.into()));
        }
        check_name(&name)?;
        Ok(Self::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Splits `HOST`, `HOST:PORT` and `[ADDRESS]:PORT`.
fn split(text: &str) -> Result<(&str, Option<&str>), String> {
    let host_end = match text.find(']') {
        Some(end) if text.starts_with('[') => end + 1,
        _ => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(host_end);
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Ok((host, None)),
        Some(port) if !port.contains(':') => Ok((host, Some(port))),
        _ if text.parse::<Ipv6Addr>().is_ok() => Err(format!("is an IPv6 address without brackets; write [{text}]")),
        _ => Err("has more than a host and a port".to_owned()),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_plain && *port > 0).ok_or_else(|| "has a port that is not 1 to 65535".to_owned())
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("names no host".to_owned());
    }
    if !name.is_ascii() {
        return Err("has letters beyond ASCII; write the name in its `xn--` form".to_owned());
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.len() > 253 || !name.split('.').all(|label| (1..=63).contains(&label.len()) && label.chars().all(is_plain))
    {
        return Err(
            "is not a host name: letters, digits, `-` and `_` in parts of at most 63, joined by points".to_owned()
        );
    }
    // What ends in a number is an address to a resolver, in one of its many spellings.
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_hexadecimal = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if last.bytes().all(|byte| byte.is_ascii_digit()) || is_hexadecimal {
        return Err("is an odd spelling of an address; write four numbers, such as 192.0.2.1".to_owned());
    }
    Ok(())
}

/// A place, or several, that requests may go to: `HOST:PORT`. The host is a name, `*.NAME` for every name below it, an
/// address (IPv6 in brackets), or `*`; the port is a number or `*`. `*` alone is short for `*:*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct HttpPattern {
    host: HostPattern,
    /// `None` is every port.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    /// `*`
    Any,
    /// `*.NAME`
    Below(String),
    /// A name or an address.
    Is(Host),
}

impl HttpPattern {
    /// Whether the pattern names this place.
    #[must_use]
    pub fn matches(&self, target: &Target) -> bool {
        self.port.is_none_or(|port| port == target.port)
            && match (&self.host, &target.host) {
                (HostPattern::Any, _) => true,
                (HostPattern::Is(host), other) => host == other,
                (HostPattern::Below(parent), Host::Name(name)) => {
                    name.strip_suffix(parent.as_str()).is_some_and(|front| front.ends_with('.'))
                }
                (HostPattern::Below(_), Host::Address(_)) => false,
            }
    }

    /// Whether the pattern, on a node, opens an address that a place it matches has. What is not public must be named:
    /// a pattern with `*` for its host opens public addresses only.
    #[must_use]
    pub fn opens(&self, address: IpAddr) -> bool {
        match (Reach::of(address), &self.host) {
            (Reach::Nobody, _) => false,
            (Reach::Public, _) => true,
            (_, HostPattern::Any | HostPattern::Below(_)) => false,
            (_, HostPattern::Is(Host::Address(own))) => own.to_canonical() == address.to_canonical(),
            (Reach::Private, HostPattern::Is(Host::Name(_))) => true,
            (Reach::Special, HostPattern::Is(Host::Name(name))) => {
                name == "localhost" && address.to_canonical().is_loopback()
            }
        }
    }
}

impl FromStr for HttpPattern {
    type Err = String;

    /// Reads a pattern. The error is the end of a sentence: `must be …`.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("{FORMS}; `{}` {why}", visible(text));
        if text == "*" {
            return Ok(Self { host: HostPattern::Any, port: None });
        }
        if text.contains("://") {
            return Err(bad("is a URL"));
        }
        if text.contains('/') {
            return Err(bad("has a path or a mask"));
        }
        let (host, port) = split(text).map_err(|why| bad(&why))?;
        let port = match port {
            None | Some("") => return Err(bad("names no port")),
            Some("*") => None,
            Some(port) => Some(parse_port(port).map_err(|why| bad(&why))?),
        };
        let host = if host == "*" {
            HostPattern::Any
        } else if let Some(parent) = host.strip_prefix("*.") {
            match Host::parse(parent).map_err(|why| bad(&why))? {
                Host::Name(name) => HostPattern::Below(name),
                Host::Address(_) => return Err(bad("has a `*` before an address")),
            }
        } else if host.contains('*') {
            return Err(bad("has a `*` that is neither the whole host nor its first part"));
        } else {
            let host = Host::parse(host).map_err(|why| bad(&why))?;
            if let Host::Address(address) = host
                && Reach::of(address) == Reach::Nobody
            {
                return Err(bad("is no address of a machine"));
            }
            HostPattern::Is(host)
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for HttpPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HostPattern::Any => f.write_str("*")?,
            HostPattern::Below(parent) => write!(f, "*.{parent}")?,
            HostPattern::Is(host) => host.fmt(f)?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => f.write_str(":*"),
        }
    }
}

impl From<HttpPattern> for String {
    fn from(pattern: HttpPattern) -> Self {
        pattern.to_string()
    }
}

impl TryFrom<String> for HttpPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(authority: &str) -> Target {
        Target::parse(authority, 80).unwrap()
    }

    fn pattern(text: &str) -> HttpPattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_has_one_spelling() {
        assert_eq!(target("Example.COM.").to_string(), "example.com:80");
        assert_eq!(target("example.com:").to_string(), "example.com:80");
        assert_eq!(target("127.0.0.1:8080").to_string(), "127.0.0.1:8080");
        assert_eq!(target("127.0.0.1.:8080").host, target("127.0.0.1").host);
        assert_eq!(target("[::0:1]:8080").to_string(), "[::1]:8080");
    }

    #[test]
    fn odd_spellings_are_refused() {
        for text in [
            "2130706433",
            "0",
            "127.1",
            "127.0.1",
            "0177.0.0.1",
            "0x7f.0.0.1",
            "0x7f000001",
            "127.0.0.0x1",
            "1.2.3.4.5",
            "256.0.0.1",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "::1",
            "[::1",
            "[::1%lo]",
            "[fe80::1%25eth0]",
            "",
            ":80",
            "user@example.com",
            "a..b",
            "-.x y",
            "ex\u{e4}mple.com",
            "\u{ff11}27.0.0.1",
            "a:b:c",
            "a:0",
            "a:65536",
            "a:+80",
            "[::1]x",
            "127.0.0.1..",
        ] {
            assert!(Target::parse(text, 80).is_err(), "{text} gave {:?}", Target::parse(text, 80));
        }
    }

    #[test]
    fn patterns_match_what_they_name() {
        assert!(pattern("127.0.0.1:*").matches(&target("127.0.0.1:8080")));
        assert!(!pattern("127.0.0.1:*").matches(&target("127.0.0.2:8080")));
        assert!(!pattern("127.0.0.1:*").matches(&target("localhost:8080")));
        assert!(pattern("[::1]:8080").matches(&target("[0:0::1]:8080")));
        assert!(pattern("API.example.com:443").matches(&target("api.example.com:443")));
        assert!(!pattern("api.example.com:443").matches(&target("api.example.com:80")));
        assert!(pattern("*.example.com:443").matches(&target("a.b.example.com:443")));
        assert!(!pattern("*.example.com:443").matches(&target("example.com:443")));
        assert!(!pattern("*.example.com:443").matches(&target("badexample.com:443")));
        assert!(pattern("*").matches(&target("[::1]")) && pattern("*:80").matches(&target("x.y")));
    }

    #[test]
    fn what_is_not_public_must_be_named() {
        let opens = |text: &str, address: &str| pattern(text).opens(address.parse().unwrap());
        assert!(opens("*:*", "8.8.8.8") && opens("*.example.com:443", "8.8.8.8") && opens("a.b:1", "8.8.8.8"));
        assert!(!opens("*:*", "10.0.0.1") && !opens("*.example.com:443", "10.0.0.1"));
        assert!(opens("db.example.com:80", "10.0.0.1") && opens("db.example.com:80", "fd00::1"));
        assert!(!opens("db.example.com:80", "127.0.0.1") && !opens("db.example.com:80", "169.254.169.254"));
        assert!(opens("127.0.0.1:*", "127.0.0.1") && !opens("127.0.0.1:*", "127.0.0.2"));
        assert!(
            opens("localhost:80", "::1") && opens("localhost:80", "127.0.0.1") && !opens("localhost:80", "fe80::1")
        );
        assert!(!opens("localhost:80", "0.0.0.0") && !opens("*:*", "224.0.0.1"));
    }

    #[test]
    fn a_wrong_form_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "names no port"),
            ("example.com", "names no port"),
            ("example.com:", "names no port"),
            ("http://example.com:80", "is a URL"),
            ("10.0.0.0/8:80", "a path or a mask"),
            ("example.com:http", "1 to 65535"),
            ("example.com:0", "1 to 65535"),
            ("::1:80", "IPv6 address without brackets"),
            ("[::ffff:1.2.3.4]:80", "IPv6 clothes"),
            ("127.1:80", "odd spelling"),
            ("0.0.0.0:80", "no address of a machine"),
            ("[ff02::1]:80", "no address of a machine"),
            ("a*.example.com:80", "neither the whole host"),
            ("*.*.com:80", "not a host name"),
            ("*.0.0.1:80", "odd spelling"),
            ("*.10.0.0.1:80", "before an address"),
            ("a b:80", "not a host name"),
        ] {
            let error = text.parse::<HttpPattern>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_pattern_is_shown_as_it_is_read() {
        for text in ["*:*", "*:443", "*.example.com:443", "[::1]:*", "127.0.0.1:8080"] {
            assert_eq!(pattern(text).to_string(), text);
        }
        assert_eq!(pattern("*").to_string(), "*:*");
    }
}
